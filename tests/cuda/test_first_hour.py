#!/usr/bin/env python3
"""bench/first_hour.py over a kit of stand-ins: what is skipped, what breaks, what is wrong, a group that runs out of time and goes on, and the
page that is made of it."""
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TESTS = ("test_conformance", "test_conformance_experts", "test_gradients", "test_refusals", "test_recorded_learning", "test_device_sizes")
PASSES = "echo '[       OK ] test_one' >&2"
CHOICES = {"device": "x", "products": [{"product": "o forward", "m": 1, "n": 2, "k": 3, "tflops": [1.5, 2.5]}],
           "panels": [{"rows": 1, "cols": 2, "tokens": 3, "mb_16": 1e-6}]}
MATVEC = {"device": "x", "copy": {"gbs": 1.0}, "cublas": False, "checked": 7, "products": [
    {"rows": 8, "cols": 9, "vectors": 1, "sets": 2, "dense": {"own": {"us": 3.5, "gbs": 2.0}, "choice": 0, "best": "own"},
     "sparse": {"0.5": {"us": 2.5, "gbs": 1.5, "of_copy": 0.75, "speedup": 1.4, "bound": 1.77}}},
    {"rows": 8, "cols": 9, "vectors": 4, "sets": 2, "dense": {"choice": 0, "best": ""},
     "sparse": {"0.5": {"us": 2.5, "gbs": 1.5, "of_copy": 0.75, "bound": 1.77}}}]}
FAULT = {"before": True, "lost": True, "same_process_refused": True, "next_process": True}


class FirstHour(unittest.TestCase):
    def setUp(self):
        self.kit = tempfile.mkdtemp(prefix="besad-kit-")
        self.addCleanup(shutil.rmtree, self.kit)
        os.makedirs(os.path.join(self.kit, "bin"))
        os.makedirs(os.path.join(self.kit, "bench"))
        for name in ("first_hour.py", "first_hour_page.py", "cuda_block.py", "random_models.py"):
            shutil.copy(os.path.join(ROOT, "bench", name), os.path.join(self.kit, "bench", name))
        self.write_kit("emulated")
        for name in TESTS:
            self.program(name, PASSES)
        self.program("besad", "echo besad 0.1.0")
        self.program("cuda_choices", f"echo '{json.dumps(CHOICES)}'")
        self.program("cuda_fault", f"echo '{json.dumps(FAULT)}'")
        self.program("cuda_matvec", f"echo '{json.dumps(MATVEC)}'")

    def write_kit(self, kind):
        with open(os.path.join(self.kit, "kit.json"), "w") as file:
            json.dump({"kind": kind, "commit": "x", "glibc_needed": "2.36"}, file)

    def program(self, name, script):
        path = os.path.join(self.kit, "bin", name)
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + script + "\n")
        os.chmod(path, 0o755)

    def run_parts(self, *parts, path=""):
        """`path` comes before the directories of PATH."""
        out = os.path.join(self.kit, "out")
        done = subprocess.run([sys.executable, os.path.join(self.kit, "bench", "first_hour.py"), "--out", out, *parts], capture_output=True,
                              text=True, env={**os.environ, "PATH": ":".join(filter(None, (path, os.environ["PATH"])))})
        self.assertNotIn("Traceback", done.stderr)
        self.assertLessEqual(len(os.listdir(out)), 8)
        return done

    def steps(self, group):
        with open(os.path.join(self.kit, "out", f"group-{group}.json")) as file:
            return json.load(file)["steps"]

    def states(self, group):
        return {name: step["state"] for name, step in self.steps(group).items()}

    def page(self):
        with open(os.path.join(self.kit, "out", "first-hour.md")) as file:
            return file.read()

    def test_skipped_and_failed(self):
        self.program("test_gradients", "exit 7")
        self.assertEqual(self.run_parts("--small", "machine", "conformance", "sanitizers").returncode, 0)
        steps = self.steps(1)
        self.assertEqual(self.states(1), {"machine": "done", "conformance": "done", "sanitizers": "skipped"})
        self.assertIn("needs a device", steps["sanitizers"]["why"])
        self.assertIn("status 7", steps["conformance"]["result"]["test_gradients"])
        self.assertEqual(steps["conformance"]["result"]["test_refusals"]["passed"], 1)
        self.assertEqual(self.run_parts("--small", "3").returncode, 0)
        self.assertEqual(self.states(3), {"choices": "done", "ncu": "skipped", "fault": "done", "memory": "skipped", "matvec": "done"})

    def test_a_wrong_number_ends_it(self):
        self.program("test_refusals", "echo '[  FAILED  ] test_shapes' >&2; exit 1")
        done = self.run_parts("--small", "1")
        self.assertEqual(done.returncode, 1)
        self.assertEqual(self.states(1), {"machine": "done", "conformance": "wrong"})
        self.assertIn("test_shapes", self.steps(1)["conformance"]["why"])
        self.assertIn("test_shapes", self.page())

    def test_a_wrong_product_is_no_time(self):
        self.program("cuda_matvec", "echo 'sparse, [8, 9], 1 vectors: element 3 is 1, not 2' >&2; exit 4")
        self.assertEqual(self.run_parts("--small", "matvec").returncode, 1)
        self.assertEqual(self.states(3), {"matvec": "wrong"})
        with open(os.path.join(self.kit, "out", "group-3.log")) as file:
            self.assertIn("element 3 is 1, not 2", file.read())
        self.program("cuda_matvec", "echo 'no CUDA driver is installed' >&2; exit 1")
        self.assertEqual(self.run_parts("--small", "matvec").returncode, 0)
        self.assertEqual(self.states(3), {"matvec": "failed"})

    def test_no_device_is_no_wrong_number(self):
        self.program("test_refusals", "echo 'no backend: no CUDA driver is installed' >&2; exit 1")
        self.program("test_recorded_learning", "echo '[  FAILED  ] test_recorded_learning' >&2; exit 1")
        self.assertEqual(self.run_parts("--small", "conformance").returncode, 0)
        self.assertEqual(self.states(1), {"conformance": "failed"})
        self.assertIn("no CUDA driver is installed", self.steps(1)["conformance"]["why"])

    def test_it_goes_on(self):
        """What broke is done again, what is done is not."""
        self.program("cuda_choices", "exit 1")
        self.run_parts("--small", "choices", "fault")
        self.assertEqual(self.states(3), {"choices": "failed", "fault": "done"})
        self.program("cuda_choices", f"echo '{json.dumps(CHOICES)}'")
        self.program("cuda_fault", "exit 1")
        self.assertIn("fault: done before", self.run_parts("--small", "choices", "fault").stdout)
        self.assertEqual(self.states(3), {"choices": "done", "fault": "done"})

    def test_the_log_has_the_reason(self):
        self.program("cuda_ops", """echo '{"device": "x", "matmul": {"tflops": 1}}'""")
        self.program("besad", "echo 'error: no room on the device' >&2; exit 3")
        self.run_parts("--small", "blocks")
        self.assertEqual(self.states(2), {"blocks": "failed"})
        with open(os.path.join(self.kit, "out", "group-2.log")) as file:
            self.assertIn("small: besad ended with status 3: error: no room on the device", file.read())

    def test_what_nobody_foresaw(self):
        """It fails its own step, or its own table, and nothing else."""
        self.write_kit("device")
        self.program("ncu", "echo '\"no\",\"table\"'; echo '\"at\",\"all\"'")
        self.program("cuda_ops", "true")
        self.program("cuda_choices", "echo '{}'")
        done = self.run_parts("choices", "ncu", "fault", path=os.path.join(self.kit, "bin"))
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertEqual(self.states(3), {"choices": "done", "ncu": "failed", "fault": "done"})
        self.assertIn("Not shown (KeyError", self.page())
        self.assertIn("| same_process_refused | True |", self.page())

    def test_out_of_time(self):
        done = self.run_parts("--small", "--seconds", "1", "3")
        self.assertEqual(done.returncode, 0)
        self.assertEqual(self.states(3)["choices"], "not done")
        self.run_parts("--small", "choices")
        self.assertEqual(self.states(3)["choices"], "done")

    def test_the_page_says_what_it_is_of(self):
        self.run_parts("--small", "3")
        self.assertIn("No figure here is a device's", self.page())
        self.assertIn("| o forward | 1 × 2 × 3 | 1.5 | 2.5 | 2 |", self.page())
        self.assertIn("| 8 × 9 | 1 | 3.5 | own | 2 | 2.5 | 1.40 (1.77) | 0.75 |", self.page())
        self.assertIn("| 8 × 9 | 4 |  |  |  | 2.5 |  | 0.75 |", self.page())
        write = [sys.executable, os.path.join(self.kit, "bench", "first_hour_page.py"), os.path.join(self.kit, "out"), "--write"]
        self.assertIn("not a device's", subprocess.run(write, capture_output=True, text=True).stderr)
        self.assertFalse(os.path.exists(os.path.join(self.kit, "bench", "results")))
        shutil.rmtree(os.path.join(self.kit, "out"))
        shutil.rmtree(os.path.join(self.kit, "results"))
        self.write_kit("device")
        self.run_parts("fault")
        self.assertNotIn("No figure here", self.page())
        os.mkdir(os.path.join(self.kit, "bench", "results"))
        subprocess.run(write, check=True)
        with open(os.path.join(self.kit, "bench", "results", "first-hour.md")) as file:
            self.assertEqual(file.read().rstrip(), self.page().rstrip())


if __name__ == "__main__":
    unittest.main()
