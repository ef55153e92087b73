#!/usr/bin/env python3
"""Jobs whose blocks do not lose the same share: every block exactly what it was allotted, the model exactly its target, and the same again after a
stop or a crash at any time.

Needs Python 3 alone. BESAD names the program, build/besad by default."""
import json
import os
import unittest

from support import Daemon, digests, small_job, small_model, wait_for

BLOCKS = 6
SPARSITY = 0.617  # no whole number of weights


class Allocation(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"))
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, BLOCKS)
        self.daemon.start()

    def spec(self, output, method="besa", allocation="loss", **more):
        return {**small_job(output=output, method=method), "sparsity": SPARSITY, "allocation": {"method": allocation},
                "calibration": {"path": "tokens.safetensors", "samples": 8, "sequence_length": 64}, **more}

    def finished(self, job):
        return [e["data"] for e in self.daemon.events(job) if e["type"] == "block.finished"]

    def check(self, job):
        """What the job came to; what its blocks were allotted."""
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done["error"])
        zeros = params = 0
        blocks = self.finished(job)
        self.assertEqual(len(blocks), BLOCKS)
        for block in blocks:
            layers = block["layers"].values()
            weights = sum(layer["params"] for layer in layers)
            self.assertEqual(sum(layer["zeros"] for layer in layers), round(block["target"] * weights))
            self.assertAlmostEqual(block["sparsity"], block["target"], 12)
            zeros += round(block["target"] * weights)
            params += weights
        self.assertEqual(zeros, round(SPARSITY * params))
        self.assertEqual((done["result"]["zeros"], done["result"]["params"]), (zeros, params))
        targets = [block["target"] for block in blocks]
        self.assertGreater(max(targets) - min(targets), 0.01)
        return done, targets

    def test_exact_with_every_method(self):
        targets = {}
        for method in ("magnitude", "wanda", "besa", "sparsegpt", "admm"):
            for allocation in ("outlier", "loss"):
                with self.subTest(method=method, allocation=allocation):
                    done, found = self.check(self.daemon.submit(self.spec(f"{method}-{allocation}", method, allocation)))
                    self.assertEqual(done["spec"]["allocation"], {"method": allocation, "deviation": 0.08, "threshold": 5})
                    # The dense model is what is measured, whatever prunes it then.
                    self.assertEqual(targets.setdefault(allocation, found), found)
        for target in targets["loss"]:
            self.assertLess(abs(target - SPARSITY), 0.0801)

    def test_with_presets_and_stages(self):
        self.check(self.daemon.submit({**self.spec("preset"), "method": None, "preset": "balanced"}))
        self.check(self.daemon.submit(self.spec("global", "wanda", refit={"method": "global", "epochs": 1, "batch_size": 2})))
        self.check(self.daemon.submit(self.spec("layers", besa={"granularity": "layer", "parameterization": "softmax", "safeguards": False})))

    def test_uniform_says_nothing_of_it(self):
        job = self.daemon.submit(small_job(output="uniform", method="wanda"))
        done = self.daemon.finish(job)
        self.assertEqual(done["spec"]["allocation"]["method"], "uniform")
        self.assertNotIn("target", self.finished(job)[0])

    def test_refused(self):
        for spec, pointer, words in ((self.spec("o", "wanda", pattern="2:4", sparsity=None), "/pattern", "uniform"),
                                     (self.spec("o", "none", sparsity=None), "/allocation/method", "none"),
                                     (self.spec("o", "magnitude", calibration=None), "/calibration/path", "required")):
            with self.subTest(pointer=pointer):
                answer = self.daemon.request("POST", "/v1/jobs", {key: value for key, value in spec.items() if value is not None})
                self.assertEqual(answer.status, 422)
                problems = [p for p in answer.json["errors"] if p["pointer"] == pointer]
                self.assertEqual(len(problems), 1, answer.json)
                self.assertIn(words, problems[0]["detail"])

    def wait_for_pass(self, job):
        """Until the pass over the dense model has begun."""
        wait_for("the allocation", lambda: self.daemon.job(job)["progress"]["phase"] in ("allocating", "pruning"))

    def outputs(self, name):
        return digests(os.path.join(self.daemon.output, name))

    def test_killed_and_cancelled(self):
        plain, targets = self.check(self.daemon.submit(self.spec("plain")))
        wanted = self.outputs("plain")
        job = self.daemon.submit(self.spec("killed"))
        self.wait_for_pass(job)
        self.daemon.kill()
        self.daemon.start()
        wait_for("a block", lambda: self.finished(job))
        self.daemon.kill()
        self.daemon.start()
        self.assertEqual(self.check(job)[1], targets)
        self.assertEqual(self.outputs("killed"), wanted)
        job = self.daemon.submit(self.spec("cancelled"))
        self.wait_for_pass(job)
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/cancel").status, 200)
        self.assertEqual(self.daemon.finish(job)["state"], "cancelled")
        self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
        self.assertEqual(self.check(job)[1], targets)
        self.assertEqual(self.outputs("cancelled"), wanted)

    def test_one_that_does_not_add_up(self):
        job = self.daemon.submit(self.spec("damaged"))
        wait_for("a block", lambda: self.finished(job))
        self.daemon.kill()
        path = os.path.join(self.daemon.state, "jobs", job, "savepoint.json")
        with open(path) as file:
            savepoint = json.load(file)
        self.assertEqual((savepoint["format"], len(savepoint["allocation"])), (3, BLOCKS))
        savepoint["allocation"][BLOCKS - 1] += 1
        del savepoint["checksum"]  # as an earlier besad wrote it
        with open(path, "w") as file:
            json.dump(savepoint, file)
        self.daemon.start()
        done = self.daemon.finish(job)
        self.assertEqual((done["state"], done["error"]["code"]), ("failed", "invalid"))
        self.assertIn(f"its allocation is not one of {BLOCKS} blocks", done["error"]["message"])


if __name__ == "__main__":
    unittest.main()
