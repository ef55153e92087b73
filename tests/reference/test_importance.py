#!/usr/bin/env python3
"""Runs besad on the bundled model's first blocks, by each importance, against tests/data/reference/importance.py."""
import array
import os
import shutil
import unittest

from bundled import LONG, ROOT, SHORT, BundledModel, reference
from random_models import read_safetensors, write_safetensors


class Importance(BundledModel):
    def one_shot_by(self, importance):
        name = "one-shot-" + importance.replace("_", "-")
        expected = reference("importance-" + name)
        report = self.run_part(name, method="one_shot", sparsity=0.5, one_shot={"importance": importance})
        if LONG:
            self.close(self.perplexity(report), expected["pruned_perplexity"], 0.003)
        self.close(report["result"]["sparsity"], expected["achieved_sparsity"], 1e-4)
        for block, wanted in self.beside(report, expected):
            self.close(block["reconstruction"], wanted["reconstruction"], 0.01)

    def besa_by(self, importance):
        name = "besa-" + importance.replace("_", "-")
        expected = reference("importance-" + name)
        report = self.run_part(name, method="besa", sparsity=0.5, besa={"importance": importance, "safeguards": False})
        for block, wanted in self.beside(report, expected):
            for layer, rate in wanted["rates"].items():
                self.assertLess(abs(block["layers"][layer]["rate"] - rate), 0.01, (block["block"], layer))
        if LONG:
            self.assertLess(self.perplexity(report), expected["pruned_perplexity"] * 1.02)  # it has fewer zeros
        self.exact(report, 50)

    def test_sparsegpt(self):
        self.one_shot_by("sparsegpt")
        self.besa_by("sparsegpt")

    def test_sparsegpt_as_published(self):
        self.one_shot_by("sparsegpt_published")
        self.besa_by("sparsegpt_published")

    def test_gradient(self):
        self.one_shot_by("gradient")
        self.besa_by("gradient")

    def test_dead_columns(self):
        """Inputs that are zero all over the calibration, which weights of SparseGPT's go first, and all are told of."""
        dead = (3, 77, 130)
        source, target = os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(self.models, "dead")
        shutil.copytree(source, target)
        _, tensors = read_safetensors(os.path.join(source, "model.safetensors"))
        for name, (dtype, shape, data) in tensors.items():
            if name.endswith("input_layernorm.weight"):
                words = array.array("H", data)
                for channel in dead:
                    words[channel] = 0
                tensors[name] = (dtype, shape, words.tobytes())
        write_safetensors(os.path.join(target, "model.safetensors"), tensors)
        few = {"model": "dead", "sparsity": 0.5, "evaluation": SHORT, "calibration": {"path": "calibration.safetensors", "samples": 16, "sequence_length": 256}}
        wanda, report = (self.run_job(f"dead-{method}", method=method, **few) for method in ("wanda", "sparsegpt"))
        self.run_job("dead-importance", method="one_shot", one_shot={"importance": "sparsegpt"}, **few)
        self.assertLess(self.perplexity(report), self.perplexity(wanda))
        self.exact(report, 50)
        for name in ("dead-sparsegpt", "dead-importance"):
            told = [line for line in self.said[name].splitlines() if line.startswith("warning: ")]
            self.assertEqual(told, [f"warning: block {i}: 3 of the 192 inputs of self_attn.q_proj are zero all over the calibration: their "
                                    "weights go first" for i in range(6)])
            for tensor, rows in self.weights(name).items():
                if tensor.split(".")[-2] in ("q_proj", "k_proj", "v_proj"):
                    self.assertTrue(all(row[channel] == 0 for row in rows for channel in dead), tensor)


if __name__ == "__main__":
    unittest.main()
