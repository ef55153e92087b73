#!/usr/bin/env python3
"""What is told of a spec's fields outside engine/spec/: made of the rows, so it says what besad does, and a new row appears
everywhere."""
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BESAD = os.path.abspath(os.environ.get("BESAD", os.path.join(ROOT, "build", "besad")))
BESACTL = os.path.join(os.path.dirname(BESAD), "besactl")
GENERATE = os.path.join(ROOT, "engine", "spec", "generate.py")
MADE = ["api/dashboard/fields.js", "ctl/spec_options.h", "openapi.yaml", "ctl/completion/besactl.bash", "ctl/completion/_besactl",
        "ctl/completion/besactl.fish", "man/besactl.1"]


def options(schema, path=()):
    """(path, field, option) of every field that besactl has an option for."""
    for key, field in schema["properties"].items():
        option = field.get("x-besad", {}).get("option")
        if option:
            yield [*path, key], field, option
        yield from options({"properties": field.get("properties", {})}, (*path, key))


class Generated(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.schema = json.loads(subprocess.run([BESAD, "schema"], check=True, stdout=subprocess.PIPE).stdout)

    def setUp(self):
        self.root = tempfile.mkdtemp(prefix="besad-generate-")
        self.addCleanup(shutil.rmtree, self.root)
        for path in MADE:
            os.makedirs(os.path.dirname(os.path.join(self.root, path)), exist_ok=True)
            shutil.copy(os.path.join(ROOT, path), os.path.join(self.root, path))

    def generate(self, schema, *more):
        source = os.path.join(self.root, "schema.json")
        with open(source, "w") as file:
            json.dump(schema, file)
        return subprocess.run([sys.executable, GENERATE, "--root", self.root, source, *more], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)

    def read(self, path):
        with open(os.path.join(self.root, path)) as file:
            return file.read()

    def has(self, text, part):
        self.assertTrue(part in text, f"not there: {part}")

    def test_families_are_up_to_date(self):
        done = subprocess.run([sys.executable, os.path.join(ROOT, "engine", "model", "families.py"), "--check"],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_what_is_made_is_up_to_date(self):
        done = subprocess.run([sys.executable, GENERATE, "--check", BESAD], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True)
        self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_a_new_field_is_missed_and_made(self):
        schema = json.loads(json.dumps(self.schema))
        schema["properties"]["besa"]["properties"]["warmth"] = {
            "description": "how warm: `0` is cold", "type": ["number", "null"], "minimum": 1e-7, "maximum": 2, "default": 0.25,
            "x-besad": {"form": {"label": "Warmth", "hint": "how warm: `0` is cold"},
                        "option": {"name": "warmth", "letter": "W", "argument": "DEGREES"}}}
        schema["properties"]["mood"] = {"description": "of the job", "enum": ["merry", "grave", None], "default": "merry",
                                        "x-besad": {"form": {"label": "Mood"}, "option": {"name": "mood", "argument": "MOOD"}}}
        done = self.generate(schema, "--check")
        self.assertEqual(done.returncode, 1, done.stdout)
        for path in MADE:
            self.assertIn(path, done.stdout)
        self.assertEqual(self.generate(schema).returncode, 0)
        self.assertEqual(self.generate(schema, "--check").returncode, 0)

        contract = self.read("openapi.yaml")
        self.has(contract, "            warmth: { description: 'how warm: `0` is cold', type: [number, 'null'], minimum: 1.0e-07, "
                           "maximum: 2, default: 0.25 }\n")
        self.has(contract, "            warmth: { type: number, minimum: 1.0e-07, maximum: 2 }\n")  # of a resolved spec
        self.has(contract, "        mood: { enum: [merry, grave] }\n")
        form = self.read("api/dashboard/fields.js")
        self.has(form, '{ pointer: "/besa/warmth", label: "Warmth", kind: "number", placeholder: "0.25", '
                       'hint: "How warm: 0 is cold." }')
        self.has(form, '{ pointer: "/mood", label: "Mood", kind: "choice", choices: ["", "merry", "grave"] }')
        self.has(self.read("ctl/spec_options.h"),
                 "OPTION(WARMTH, 'W', \"warmth\", \"DEGREES\", \"besa.warmth\", NUMBER, \"how warm: `0` is cold\")")
        self.has(self.read("ctl/spec_options.h"), '"merry (the default), grave")')
        self.has(self.read("ctl/completion/besactl.bash"), "compgen -W 'merry grave'")
        self.has(self.read("ctl/completion/besactl.bash"), "besa.warmth")
        self.has(self.read("ctl/completion/_besactl"), "'(-W --warmth)'{-W,--warmth}'[how warm]:DEGREES:'")
        self.has(self.read("ctl/completion/besactl.fish"), "-s W -l warmth -x -d 'how warm'")
        self.has(self.read("man/besactl.1"), ".It Fl W , -warmth Ar DEGREES\n")

    def test_a_changed_default_is_missed(self):
        schema = json.loads(json.dumps(self.schema))
        schema["properties"]["calibration"]["properties"]["samples"]["default"] = 64
        done = self.generate(schema, "--check")
        self.assertEqual(done.returncode, 1)
        self.assertTrue(done.stdout.endswith(": api/dashboard/fields.js, openapi.yaml\n"), done.stdout)

    def test_a_mark_is_missed(self):
        path = os.path.join(self.root, "openapi.yaml")
        text = self.read("openapi.yaml")
        with open(path, "w") as file:
            file.write(re.sub(r"\n *# to here\n", "\n", text, count=1))
        done = self.generate(self.schema)
        self.assertNotEqual(done.returncode, 0)
        self.has(done.stdout, "openapi.yaml: a mark is missing")

    def test_options_set_their_fields(self):
        told = subprocess.run([BESACTL, "--help"], check=True, stdout=subprocess.PIPE, text=True).stdout
        found = list(options(self.schema))
        self.assertIn("model", [option["name"] for _, _, option in found])
        for path, field, option in found:
            types = field.get("type", ())
            if "enum" in field:
                given, wanted = field["enum"][-2], field["enum"][-2]
            elif option.get("percent"):
                given, wanted = "25%", 0.25
            elif "argument" not in option:
                given, wanted = None, True
            elif {"integer", "number"} & ({types} if isinstance(types, str) else set(types)):
                given, wanted = "7", 7
            else:
                given, wanted = "text", "text"
            for name in [f"--{option['name']}"] + ([f"-{option['letter']}"] if "letter" in option else []):
                shown = subprocess.run([BESACTL, "submit", "--dry-run", name, *([given] if given else [])], check=True,
                                       stdout=subprocess.PIPE).stdout
                value = json.loads(shown)
                for key in path:
                    value = value[key]
                self.assertEqual(value, wanted, name)
            self.assertRegex(told, rf"--{option['name']}\b")
            for name in [name for name in field.get("enum", ()) if name]:
                self.assertRegex(told, rf"--{option['name']} .*\b{name}\b")


if __name__ == "__main__":
    unittest.main()
