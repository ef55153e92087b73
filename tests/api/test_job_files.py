#!/usr/bin/env python3
"""The job.json that `besad run` keeps of a job: which specs go on with it, those of older versions among them, and what is said of others."""
import json
import os
import shutil
import subprocess
import unittest

from support import BESAD, PATIENCE, ROOT, Daemon, small_job, small_model

LONG = "x" * 100


class JobFiles(unittest.TestCase):
    """Of a job that is done, whose directory is kept: what goes on with it prints its result again."""

    def setUp(self):
        self.place = Daemon()  # for its directories; it is not started
        self.addCleanup(self.place.remove)
        small_model(self.place, 1)
        self.kept = os.path.join(self.place.directory, "kept")
        self.path = os.path.join(self.place.directory, "job.json")
        self.request = self.job(method="magnitude")

    def job(self, **spec):
        spec = small_job(output="made", **spec)
        if spec["method"] == "magnitude":
            del spec["calibration"]
        return spec

    def run_job(self, request, *options, path=None, directory=None, status=0):
        path = path or self.path
        with open(path, "w") as file:
            json.dump(request, file)
        done = subprocess.run([BESAD, "run", "--threads", "1", "--model-root", self.place.models, "--data-root", self.place.data, "--output-root",
                               self.place.output, "--checkpoint-dir", directory or self.kept, *options, path],
                              capture_output=True, text=True, timeout=PATIENCE, cwd=self.place.directory)
        self.assertEqual(done.returncode, status, done.stderr)
        return done.stderr if status else done

    def read(self):
        with open(os.path.join(self.kept, "job.json")) as file:
            return json.load(file)

    def write(self, kept):
        with open(os.path.join(self.kept, "job.json"), "w") as file:
            file.write(kept if isinstance(kept, str) else json.dumps(kept))

    def goes_on(self, request, *options):
        done = self.run_job(request, *options)
        self.assertNotIn("block ", done.stderr)
        self.assertIn("sparsity", done.stdout)

    def refused(self, request, *texts, status=1):
        said = self.run_job(request, status=status)
        for text in texts:
            self.assertIn(text, said)

    def test_another_spec(self):
        self.run_job(self.request | {"name": LONG})
        self.goes_on(self.request | {"name": LONG})
        self.goes_on(self.request | {"name": LONG, "metadata": {"by": "hand"}}, "--json")
        self.refused(self.request, '/name was "xxx', "... and is now left out")
        self.refused(self.request | {"name": "x"}, '... and is now "x"')
        self.refused(self.request | {"name": LONG, "seed": 3}, "/seed was left out and is now 3")
        self.refused([], "it was {", "and is now []")

    def test_not_a_kept_spec(self):
        self.run_job(self.request)
        kept = self.read()
        self.write(kept | {"format": 99})
        self.refused(self.request, "was written by a newer besad (its format is 99")
        self.write(kept | {"format": "one"})
        self.refused(self.request, "format")
        self.write("{")
        self.refused(self.request, "job.json")
        self.write(kept)
        self.goes_on(self.request)

    def test_of_the_first_format(self):
        """It kept no request: today's, resolved, is compared in what both have."""
        self.run_job(self.request)
        spec = self.read()["spec"]
        self.write(spec)
        self.goes_on(self.request)
        self.goes_on(self.request, "--json")
        self.refused(self.request | {"sparsity": 0.4}, "another spec", "/sparsity was 0.5 and is now 0.4")
        self.refused(self.request | {"sparsity": 7}, "/sparsity")
        self.refused([], "")
        self.write({key: value for key, value in spec.items() if key != "output"})
        self.goes_on(self.request)

    def test_the_first_day_of_the_first_format(self):
        request = self.request | {"output": "made-{date}"}
        self.run_job(request)
        spec = self.read()["spec"]
        self.write(spec | {"output": "made-2020-01-01"})
        self.goes_on(request)
        self.refused(self.request | {"output": "other"}, '/output was "made-2020-01-01" and is now "other"')
        self.write({key: value for key, value in spec.items() if key != "output"})
        self.goes_on(request)

    def test_choices_of_the_first_format(self):
        """What was left to besad is what it was then, also where today's choice is another."""
        request = self.job(besa={"epochs": 1})
        self.run_job(request)
        spec = self.read()["spec"]
        besa = {key: value for key, value in spec["besa"].items() if key != "safeguards"}
        other = "softmax"
        self.assertEqual(besa["parameterization"], "sigmoid")
        self.write(spec | {"besa": besa | {"parameterization": other, "d_coef": 50}})
        for given in ({"epochs": 1}, {"epochs": 1, "parameterization": None}, {"epochs": 1, "parameterization": "auto"},
                      {"epochs": 1, "parameterization": other}):
            with self.subTest(given):
                self.goes_on(request | {"besa": given})
        self.refused(request | {"besa": {"epochs": 1, "parameterization": "sigmoid", "d_coef": 50}},
                     '/besa/parameterization was "softmax" and is now "sigmoid"')
        self.refused(request | {"besa": {"epochs": 1, "parameterization": 3}}, "/besa/parameterization")
        self.refused(request | {"besa": {"epochs": 2}}, "/besa/epochs was 1 and is now 2")
        self.goes_on(request | {"besa": None})  # which is one epoch too
        self.refused(request | {"besa": "much"}, "/besa")
        # It had no safeguards, so today's are not asked for; where it has, they are.
        self.goes_on(request)
        self.write(spec)
        self.goes_on(request)
        self.write(spec | {"besa": {key: value for key, value in besa.items() if key != "parameterization"}})
        self.goes_on(request)

    def test_directories(self):
        """Those that a job cannot have; no job is begun."""
        base = os.path.join(self.place.directory, "d")
        long = base + "/" + "/".join(["x" * 200] * 30)
        self.assertIn("the path is too long", self.run_job(self.request, directory=long[:4090], status=2))  # with /job.json behind it
        shutil.rmtree(base)
        os.makedirs(os.path.join(base, "lock"))
        self.assertIn("Is a directory", self.run_job(self.request, directory=base, status=1))
        os.mkdir(os.path.join(self.place.output, "made"))
        self.assertIn("exists", self.run_job(self.request, directory=self.kept, status=1))
        self.assertEqual(os.listdir(os.path.join(self.place.output, "made")), [])

    def test_names(self):
        """A job is called after its file: odd characters become '-', and there may be no '.' nor '/' in it."""
        os.chdir(self.place.directory)
        self.addCleanup(os.chdir, ROOT)
        for name, job in (("a job: n\u00e4chtlich.json", "a-job--n--chtlich"), ("plain", "plain"), ("./.hidden", ".hidden")):
            with self.subTest(name):
                done = self.run_job(self.request | {"output": "of-{id}", "notify": {"url": "http://localhost/"}}, path=name,
                                    directory=os.path.join(self.place.directory, "kept-" + job))
                self.assertIn(f"{self.place.output}/of-{job}\n", done.stdout)
                self.assertIn("only the daemon tells", done.stderr)

    def test_nothing_is_pruned(self):
        done = self.run_job({"model": "small", "method": "none", "evaluation": {
            "perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]}})
        self.assertNotIn("output ", done.stdout)
        self.assertRegex(done.stdout, r"perplexity  tokens: dense [0-9.]+\n")


if __name__ == "__main__":
    unittest.main()
