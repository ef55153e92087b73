#!/usr/bin/env python3
"""Runs besad on the bundled model, by each importance, against tests/data/reference/importance.py."""
import unittest

from bundled import BundledModel, reference


class Importance(BundledModel):
    def one_shot_by(self, importance):
        name = "one-shot-" + importance.replace("_", "-")
        expected = reference("importance-" + name)
        report = self.run_job(name, method="one_shot", sparsity=0.5, one_shot={"importance": importance})
        self.close(self.perplexity(report), expected["pruned_perplexity"], 0.003)
        self.close(report["result"]["sparsity"], expected["achieved_sparsity"], 1e-4)
        for block, wanted in zip(report["blocks"], expected["blocks"], strict=True):
            self.close(block["reconstruction"], wanted["reconstruction"], 0.01)

    def besa_by(self, importance):
        name = "besa-" + importance.replace("_", "-")
        expected = reference("importance-" + name)
        report = self.besa(50, name, besa={"importance": importance, "safeguards": False})
        for block, wanted in zip(report["blocks"], expected["blocks"], strict=True):
            for layer, rate in wanted["rates"].items():
                self.assertLess(abs(block["layers"][layer]["rate"] - rate), 0.01, (block["block"], layer))
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


if __name__ == "__main__":
    unittest.main()
