#!/usr/bin/env python3
"""The models of tests/data/saved, as transformers saves them: the program's perplexity from text against transformers'.

Needs Python 3 alone. BESAD names the program, build/besad by default."""
import gzip
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BESAD = os.environ.get("BESAD", os.path.join(ROOT, "build", "besad"))
SAVED = os.path.join(ROOT, "tests", "data", "saved")

with open(os.path.join(SAVED, "golden.json")) as file:
    GOLDEN = json.load(file)


class Workplace:
    """A directory with the models, each with the tokenizer, and the text."""

    def __init__(self):
        self.directory = tempfile.mkdtemp(prefix="besad-saved-")
        self.models = os.path.join(self.directory, "models")
        self.output = os.path.join(self.directory, "output")
        self.jobs = 0
        for family in GOLDEN["perplexity"]:
            shutil.copytree(os.path.join(SAVED, family), os.path.join(self.models, family))
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(os.path.join(SAVED, name), os.path.join(self.models, family))
        with gzip.open(os.path.join(ROOT, "tests", "data", "wikitext2.valid.txt.gz"), "rt", encoding="utf-8", newline="") as text:
            with open(os.path.join(self.directory, "text.txt"), "w", encoding="utf-8", newline="") as file:
                file.write(text.read(GOLDEN["text"]))

    def remove(self):
        shutil.rmtree(self.directory)

    def run(self, model, **spec):
        """The finished `besad run` of a job."""
        self.jobs += 1  # a job that failed can be gone on with, so each has a name of its own
        path = os.path.join(self.directory, f"job-{self.jobs}.json")
        with open(path, "w") as file:
            json.dump({"model": model, "precision": "f32", "evaluation": {"perplexity": [
                {"name": "text", "path": "text.txt", "sequence_length": GOLDEN["window"]}]}, **spec}, file)
        return subprocess.run([BESAD, "run", path, "--model-root", self.models, "--data-root", self.directory, "--output-root",
                               self.output], stdout=subprocess.PIPE, stderr=subprocess.PIPE, universal_newlines=True)


class Saved(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = Workplace()

    @classmethod
    def tearDownClass(cls):
        cls.place.remove()

    def test_perplexity(self):
        for family, right in GOLDEN["perplexity"].items():
            with self.subTest(family):
                done = self.place.run(family, method="none")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertNotIn("warning", done.stderr)
                value = float(done.stdout.split("text: dense")[1].split()[0])
                self.assertLess(abs(value / right - 1), 1e-4, f"{value} and {right}")


if __name__ == "__main__":
    sys.exit(unittest.main())
