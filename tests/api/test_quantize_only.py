#!/usr/bin/env python3
"""The method none with quantization: the bytes are those of magnitude at a sparsity of 0, also where besad is killed in between; all else is as of any job
that makes an output."""
import json
import os
import unittest

from support import Daemon, digests, small_job, small_model, wait_for

BLOCKS = 8
EVALUATION = {"perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]}
WAYS = {
    "packed": ({"bits": 4}, False),
    "with-zero-points": ({"bits": 8, "group_size": "channel", "symmetric": False}, False),
    "dequantized": ({"bits": 3}, False),
    "measured": ({"bits": 4}, True),
    "with-feedback": ({"bits": 4, "rounding": "feedback"}, True),
    "first": ({"bits": 4, "order": "quantize_first", "format": "dequantized"}, True),
}


class QuantizeOnly(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", "1", "--backend", "cpu")
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, BLOCKS)
        self.daemon.start()

    def submit(self, method, output, quantization, calibrated, **spec):
        job = small_job(method=method, output=output, quantization=quantization, evaluation=EVALUATION, **spec)
        if method == "none" and "sparsity" not in spec:
            del job["sparsity"]
        if not calibrated:
            del job["calibration"]
        return self.daemon.submit(job)

    def succeeded(self, job):
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done["error"])
        return done

    def made(self, name):
        return digests(os.path.join(self.daemon.output, name))

    def read(self, name, file):
        with open(os.path.join(self.daemon.output, f"{name}-none", file)) as opened:
            return json.load(opened)

    def blocks(self, job):
        return [e["data"] for e in self.daemon.events(job) if e["type"] == "block.finished"]

    def test_bytes_of_magnitude_that_prunes_nothing(self):
        for name, (quantization, calibrated) in WAYS.items():
            with self.subTest(name):
                jobs = [self.submit("none", f"{name}-none", quantization, calibrated),
                        self.submit("magnitude", f"{name}-magnitude", quantization, calibrated, sparsity=0)]
                none, magnitude = map(self.succeeded, jobs)
                made = self.made(f"{name}-none")
                self.assertEqual(made, self.made(f"{name}-magnitude"))
                self.assertIn("config.json", made)
                packed = "quantization_config" in self.read(name, "config.json")
                self.assertEqual(packed, none["spec"]["quantization"]["format"] == "packed")
                self.assertEqual((none["spec"]["method"], none["spec"]["sparsity"]), ("none", 0))
                for key in ("perplexity", "zeros", "sparsity", "params"):
                    self.assertEqual(none["result"][key], magnitude["result"][key], key)
                self.assertNotEqual(none["result"]["perplexity"]["tokens"]["pruned"], none["result"]["perplexity"]["tokens"]["dense"])
                self.assertEqual(none["result"]["output"], f"{name}-none")
                passing = {"seconds", "phases"}
                blocks = [[{k: v for k, v in block.items() if k not in passing} for block in self.blocks(job)] for job in jobs]
                self.assertEqual(len(blocks[0]), BLOCKS)
                self.assertEqual(*blocks)
                report = self.read(name, "besad.json")
                self.assertEqual("self_check" in report, calibrated)
                self.assertEqual(len(self.daemon.get(f"/v1/jobs/{jobs[0]}/report").json["blocks"]), BLOCKS)
                self.assertIn("model.safetensors", {f["name"] for f in self.daemon.get(f"/v1/jobs/{jobs[0]}/artifacts").json["artifacts"]})

    def test_killed(self):
        spec = {"quantization": {"bits": 4, "rounding": "feedback"}, "calibrated": True}
        self.succeeded(self.submit("magnitude", "whole", sparsity=0, **spec))
        whole = self.made("whole")
        killed = self.submit("none", "killed", **spec)
        kills = 0
        for count in (1, BLOCKS // 2):
            wait_for("a block", lambda: len(self.blocks(killed)) >= count)
            kills += self.daemon.job(killed)["state"] == "running"
            self.daemon.kill()
            self.daemon.start()
        done = self.succeeded(killed)
        self.assertGreater(kills, 0)
        self.assertGreater(done["attempt"], 1)
        self.assertEqual([b["block"] for b in self.blocks(killed)], list(range(BLOCKS)))
        self.assertEqual(self.made("killed"), whole)

    def test_what_goes_with_an_output(self):
        first = self.succeeded(self.submit("none", "taken", {"bits": 4}, False, archive=True))
        self.assertIn("archive", os.listdir(os.path.join(self.daemon.output, "taken")))
        job = {"model": "small", "method": "none", "quantization": {"bits": 4}, "output": "taken"}
        self.assertEqual(self.daemon.request("POST", "/v1/jobs", job).status, 409)  # there is such an output
        self.assertEqual(self.daemon.finish(self.daemon.submit({**job, "overwrite": True}))["state"], "succeeded")
        estimate = self.daemon.request("POST", "/v1/estimate", {**job, "output": "other"}).json
        self.assertGreater(estimate["disk"]["output"]["bytes"], 1000)
        evaluates = self.daemon.finish(self.daemon.submit({"model": "small", "method": "none", "evaluation": EVALUATION}))
        self.assertIsNone(evaluates["result"]["output"])
        self.assertEqual(evaluates["result"]["perplexity"]["tokens"]["dense"], first["result"]["perplexity"]["tokens"]["dense"])

    def test_refused(self):
        for change, pointer in (({"sparsity": 0.5}, "/sparsity"), ({"pattern": "2:4"}, "/pattern"), ({"refit": {"method": "block"}}, "/refit/method"),
                                ({"allocation": {"method": "loss"}}, "/allocation/method"), ({"quantization": {"bits": 4, "order": "joint"}}, "/quantization/order"),
                                ({"quantization": {"bits": 4, "rounding": "feedback"}}, "/calibration/path"), ({"quantization": None, "archive": True}, "/archive")):
            with self.subTest(change):
                response = self.daemon.request("POST", "/v1/jobs", {"model": "small", "method": "none", "quantization": {"bits": 4}, **change})
                self.assertEqual(response.status, 422, response.body)
                self.assertIn(pointer, {e["pointer"] for e in response.json["errors"]})


if __name__ == "__main__":
    unittest.main()
