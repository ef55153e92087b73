#!/usr/bin/env python3
"""What goes wrong with a job is told with a rule, its figure and what to change, in the events and in both reports; healthy jobs have nothing told."""
import json
import math
import os
import random
import shutil
import struct
import sys
import unittest

from support import ROOT, Daemon, small_job, small_model

sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import read_safetensors, write_safetensors  # noqa: E402

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

    def test_dependent_inputs(self):
        """One token all over: all inputs of the first block are the same but for their place."""
        small_model(self.daemon.start(), 1)
        same = {"input_ids": ("I32", [32, 64], struct.pack("<2048i", *[7] * 2048))}
        write_safetensors(os.path.join(self.daemon.data, "same.safetensors"), same)
        found = self.findings(small_job(output="o", method="sparsegpt", sparsegpt={"dampening": 1e-6}, calibration={
            "path": "same.safetensors", "samples": 32, "sequence_length": 64}))
        self.assertEqual(list(found), ["dependent_inputs"])
        self.assertGreaterEqual(found["dependent_inputs"]["value"], 10)

    def learn(self, rate):
        """Each layer's rate, by steps of that size, from nothing but the loss."""
        small_model(self.daemon.start(), 1)
        return self.findings(small_job(output="o", calibration={"path": "tokens.safetensors", "samples": 16, "sequence_length": 64}, besa={
            "optimizer": "adamw", "learning_rate": rate, "lambda": 0, "granularity": "layer", "candidates": 5}))

    def test_rates_at_the_edge(self):
        found = self.learn(10)
        self.assertIn("edge", found)
        self.assertGreater(found["edge"]["value"], 0.5)
        self.assertIn("0.3845 to 0.6155", found["edge"]["message"])

    def test_rates_off_the_target(self):
        """Nothing holds them there, and with fewer zeros the loss is less."""
        found = self.learn(2)
        self.assertIn("off_target", found)
        self.assertGreater(found["off_target"]["value"], 0.1)
        self.assertRegex(found["off_target"]["message"], r"come to a sparsity of 0\.4\d+, and 0\.5000 is asked for")

    def tokens(self, name, shape, first, last):
        """A file of tokens from `first` to `last`, the lower the more of them."""
        draw = random.Random(name)
        ids = [first + int((last - first) * draw.random() ** 2) for _ in range(math.prod(shape))]
        path = os.path.join(self.daemon.data, name)
        write_safetensors(path, {"input_ids": ("I32", shape, struct.pack(f"<{len(ids)}i", *ids))})

    def test_a_calibration_of_another_kind(self):
        small_model(self.daemon.start(), 1)
        self.tokens("text.safetensors", [32000], 0, 200)
        self.tokens("same.safetensors", [32, 64], 0, 200)
        self.tokens("other.safetensors", [32, 64], 50, 250)

        def found(name):
            return self.findings(small_job(output=name, method="wanda", calibration={
                "path": name + ".safetensors", "samples": 32, "sequence_length": 64}, evaluation={
                    "perplexity": [{"name": "text", "path": "text.safetensors", "sequence_length": 64}]}))
        self.assertEqual(found("same"), {})
        [finding] = found("other").values()
        self.assertEqual(finding["rule"], "other_text")
        self.assertGreater(finding["value"], 0.22)

    def misleading_model(self):
        """Every other input of its linears is 64 times as large as its neighbours and has weights 8 times as small."""
        small_model(self.daemon.start(), 2)
        path = os.path.join(self.daemon.models, "small", "model.safetensors")
        _, tensors = read_safetensors(path)
        for name, (dtype, shape, data) in tensors.items():
            if name.endswith("layernorm.weight"):
                factors = [8.0, 0.125]
            elif any(part in name for part in ("q_proj", "k_proj", "v_proj", "gate_proj", "up_proj")):
                factors = [0.25, 2.0]
            else:
                continue
            values = [struct.unpack("<f", b"\0\0" + data[i:i + 2])[0] * factors[i // 2 % 2] for i in range(0, len(data), 2)]
            tensors[name] = (dtype, shape, b"".join(struct.pack("<f", value)[2:] for value in values))
        write_safetensors(path, tensors)

    def test_an_importance_that_does_not_order(self):
        """Magnitude takes the weights of large inputs for the least."""
        self.misleading_model()
        calibration = {"path": "tokens.safetensors", "samples": 16, "sequence_length": 64}

        def found(method, **spec):
            return self.findings(small_job(output=f"{method}-{len(spec)}", method=method, calibration=calibration, **spec))
        self.assertEqual(found("wanda"), {})
        [finding] = found("magnitude").values()
        self.assertEqual(finding["rule"], "order")
        self.assertLess(finding["value"], 0.5)
        self.assertIn("importance (magnitude) does not order its weights", finding["message"])
        self.assertIn("order", found("besa", besa={"importance": "magnitude"}))
        self.assertEqual(found("magnitude", sparsity=0), {})

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
