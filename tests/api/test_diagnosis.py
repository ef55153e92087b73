#!/usr/bin/env python3
"""What goes wrong with a job is told with a rule, its figure and what to change, in the events and in both reports; healthy jobs have nothing told."""
import json
import os
import shutil
import unittest

from support import ROOT, Daemon, small_job, small_model

TINY = os.path.join(ROOT, "demo", "tiny-llama")


class Diagnosis(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "1"))
        self.addCleanup(self.daemon.remove)

    def bundled(self):
        shutil.copytree(TINY, os.path.join(self.daemon.models, "tiny-llama"))
        with open(os.path.join(ROOT, "demo", "wikitext2.test.txt"), encoding="utf-8") as file:
            text = file.read(60000)
        with open(os.path.join(self.daemon.data, "part.txt"), "w", encoding="utf-8") as file:
            file.write(text[:6000])
        shutil.copy(os.path.join(ROOT, "demo", "calibration.safetensors"), self.daemon.data)

    def findings(self, spec):
        """By rule, what the events say; the reports must say the same."""
        daemon = self.daemon
        job = daemon.submit(spec)
        done = daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done["error"])
        told = [e["data"] for e in daemon.events(job) if e["type"] == "warning" and "rule" in e["data"]]
        self.assertEqual(daemon.get(f"/v1/jobs/{job}/report").json["diagnosis"], told)
        with open(os.path.join(daemon.output, done["result"]["output"], "besad.json")) as file:
            self.assertEqual(json.load(file)["diagnosis"], told)
        for finding in told:
            self.assertTrue(finding["meaning"] and finding["change"] and finding["message"])
        return {finding["rule"]: finding for finding in told}

    def test_too_few_tokens(self):
        small_model(self.daemon.start(), 2)
        found = self.findings(small_job(output="o", method="sparsegpt", calibration={
            "path": "tokens.safetensors", "samples": 1, "sequence_length": 64}))
        self.assertEqual(list(found), ["few_tokens"])
        self.assertAlmostEqual(found["few_tokens"]["value"], 64 / 160)
        self.assertEqual(found["few_tokens"]["threshold"], 1)

    def test_a_plateau(self):
        small_model(self.daemon.start(), 2)
        found = self.findings(small_job(output="o", besa={"optimizer": "adamw", "learning_rate": 1e-8}, calibration={
            "path": "tokens.safetensors", "samples": 32, "sequence_length": 64}))
        self.assertEqual(list(found), ["plateau"])
        self.assertLess(found["plateau"]["value"], 1e-4)

    def test_a_perplexity_far_off(self):
        self.bundled()
        self.daemon.start()
        found = self.findings({"model": "tiny-llama", "output": "o", "method": "magnitude", "sparsity": 0.9, "evaluation": {
            "perplexity": [{"name": "part", "path": "part.txt", "sequence_length": 128}]}})
        self.assertEqual(list(found), ["perplexity"])
        self.assertGreater(found["perplexity"]["value"], 2)
        self.assertIn("times the dense model's", found["perplexity"]["message"])

    def test_healthy_jobs(self):
        self.bundled()
        self.daemon.start()
        for method in ("magnitude", "wanda", "sparsegpt", "admm", "besa"):
            with self.subTest(method=method):
                self.assertEqual(self.findings({
                    "model": "tiny-llama", "output": method, "method": method, "sparsity": 0.5,
                    "calibration": {"path": "calibration.safetensors", "samples": 16, "sequence_length": 256},
                    "evaluation": {"perplexity": [{"name": "part", "path": "part.txt", "sequence_length": 256}]}}), {})


if __name__ == "__main__":
    unittest.main()
