#!/usr/bin/env python3
"""Runs besad on the bundled model against what the published code and PyTorch gave on it: methods and stages that change the
weights that stay. SparseGPT once on the whole model, with its perplexity; else on its first blocks."""
import os
import unittest

from bundled import LONG, ROOT, SHORT, BundledModel, read_safetensors, reference
from random_models import write_safetensors


class Refitted(BundledModel):
    def test_sparsegpt(self):
        for name, spec in (("50", {"sparsity": 0.5}), ("60", {"sparsity": 0.6}), ("70", {"sparsity": 0.7}), ("24", {"pattern": "2:4"})):
            with self.subTest(name):
                expected = reference(f"sgpt-{name}")
                whole = LONG or name == "50"
                report = (self.run_job if whole else self.run_part)(f"sparsegpt-{name}", method="sparsegpt", **spec)
                if whole:
                    self.close(self.perplexity(report), expected["pruned_perplexity"], 0.01)
                for block, wanted in self.beside(report, expected):
                    self.close(block["reconstruction"], wanted["reconstruction"], 0.02)
                self.exact(report, 100 * expected["sparsity"])
        self.two_of_four("sparsegpt-24")

    def fitted(self, name, **spec):
        """Against tests/data/reference/admm.py or refit.py: 32 sequences."""
        expected = reference(name)
        report = self.run_part(name, calibration={"path": "calibration.safetensors", "samples": 32, "sequence_length": 256}, **spec)
        if LONG:
            self.close(self.perplexity(report), expected["pruned_perplexity"], 0.005)
        for block, wanted in self.beside(report, expected):
            self.close(block["reconstruction"], wanted["reconstruction"], 0.03)
        return report

    def test_allocation(self):
        """Against tests/data/reference/allocation.py, of the dense model on 32 sequences."""
        for method, wanted in reference("allocation-70").items():
            report = self.run_job(f"allocation-{method}", method="wanda", sparsity=0.7, allocation={"method": method}, evaluation={}, calibration={
                "path": "calibration.safetensors", "samples": 32, "sequence_length": 256})
            for block, target in zip(report["blocks"], wanted, strict=True):
                self.assertLess(abs(block["target"] - target), 0.002, method)  # whole weights of each row go there

    def test_admm(self):
        for percent in (50, 70):
            with self.subTest(percent=percent):
                self.exact(self.fitted(f"admm-{percent}", method="admm", sparsity=percent / 100), percent)

    def test_refit_of_blocks(self):
        for percent in (50, 70):
            with self.subTest(percent=percent):
                report = self.fitted(f"refit-{percent}", method="wanda", sparsity=percent / 100,
                                     refit={"method": "block", "epochs": 4, "learning_rate": 0.002})
                wanda = self.run_part(f"wanda-{percent}", method="wanda", sparsity=percent / 100)
                self.assertEqual(report["result"]["zeros"], wanda["result"]["zeros"])
                if LONG:
                    self.assertLess(self.perplexity(report), self.perplexity(wanda))
                for block, before in self.beside(report, wanda):
                    self.assertLess(block["reconstruction"], before["reconstruction"])

    def test_refit_through_a_quantizer(self):
        """Rounded when it is done, it would leave blocks with a fifth to a half more of the loss."""
        self.fitted("refit-50-3", method="wanda", sparsity=0.5, refit={"method": "block", "epochs": 4, "learning_rate": 0.002},
                    quantization={"bits": 3, "group_size": 32})

    def test_tune_of_the_whole_model(self):
        """It comes nearer to the dense model than the refit of its blocks, and keeps every zero."""
        few = {"method": "wanda", "sparsity": 0.7, "evaluation": SHORT,
               "calibration": {"path": "calibration.safetensors", "samples": 32, "sequence_length": 256}}
        reports = [self.run_job(f"tuned-{method}", refit={"method": method, "epochs": 1, "learning_rate": 0.002, "global_epochs": 2}, **few)
                   for method in ("block", "global")]
        zeros = [{(tensor, i, j) for tensor, rows in self.weights(f"tuned-{method}").items()
                  for i, row in enumerate(rows) for j, word in enumerate(row) if word & 0x7fff == 0} for method in ("block", "global")]
        self.assertEqual(*zeros)
        self.assertLess(self.perplexity(reports[1]), 0.98 * self.perplexity(reports[0]))

    def test_a_refit_that_makes_a_block_worse_is_taken_back(self):
        few = {"method": "wanda", "sparsity": 0.5, "evaluation": {},
               "calibration": {"path": "calibration.safetensors", "samples": 4, "sequence_length": 256}}
        self.run_job("wanda-few", **few)
        self.run_job("refit-too-fast", refit={"method": "block", "learning_rate": 1}, **few)
        files = [os.path.join(self.directory, "output", name, "model.safetensors") for name in ("wanda-few", "refit-too-fast")]
        with open(files[0], "rb") as plain, open(files[1], "rb") as refitted:
            self.assertEqual(plain.read(), refitted.read())
        self.assertEqual(self.said["refit-too-fast"].count("the refit left it with a loss"), 6)

    def test_a_tune_that_makes_the_model_worse_is_taken_back(self):
        few = {"method": "wanda", "sparsity": 0.5, "evaluation": {},
               "calibration": {"path": "calibration.safetensors", "samples": 4, "sequence_length": 256}}
        refit = {"learning_rate": 0.0005, "epochs": 1, "batch_size": 2}
        self.run_job("refit-slow", refit=dict(refit, method="block"), **few)
        self.run_job("tuned-too-fast", refit=dict(refit, method="global", global_epochs=2, global_learning_rate=1), **few)
        files = [os.path.join(self.directory, "output", name, "model.safetensors") for name in ("refit-slow", "tuned-too-fast")]
        with open(files[0], "rb") as refitted, open(files[1], "rb") as tuned:
            self.assertEqual(refitted.read(), tuned.read())
        self.assertEqual(self.said["tuned-too-fast"].count("the global tune diverged"), 1)

    def test_fewer_tokens_than_columns(self):
        """What cannot be known of inputs is not made use of: no method comes out below Wanda, which looks at norms alone."""
        _, tensors = read_safetensors(os.path.join(ROOT, "demo", "calibration.safetensors"))
        (name, (kind, _, data)), = tensors.items()
        size = len(data) // (128 * 256)
        short = b"".join(data[256 * size * i:][:32 * size] for i in range(4))
        write_safetensors(os.path.join(self.directory, "few.safetensors"), {name: (kind, [4, 32], short)})
        calibration = {"calibration": {"path": "few.safetensors", "samples": 4, "sequence_length": 32}, "sparsity": 0.5,
                       "evaluation": SHORT}
        wanda = self.run_job("few-wanda", method="wanda", **calibration)
        for job, spec in (("few-sparsegpt", {"method": "sparsegpt"}), ("few-admm", {"method": "admm"}),
                          ("few-fit", {"method": "wanda", "refit": {"method": "least_squares"}})):
            with self.subTest(job):
                report = self.run_job(job, **spec, **calibration)
                self.assertLess(self.perplexity(report), self.perplexity(wanda))
                self.assertEqual(self.said[job].count("only 128 tokens of the calibration reach mlp.down_proj"), 1)

    def test_admm_in_a_pattern(self):
        self.exact(self.fitted("admm-24", method="admm", pattern="2:4"), 50)
        self.two_of_four("admm-24")

    def test_wanda_fitted(self):
        self.fitted("fit-50", method="wanda", sparsity=0.5, refit={"method": "least_squares"})

    def test_what_is_fitted_keeps_its_zeros(self):
        short = {"calibration": {"path": "calibration.safetensors", "samples": 8, "sequence_length": 256}, "evaluation": {}}
        for method, spec in (("magnitude", {"sparsity": 0.6}), ("sparsegpt", {"pattern": "2:4"})):
            with self.subTest(method):
                plain = self.run_job(f"{method}-plain", method=method, **short, **spec)
                fitted = self.run_job(f"{method}-fitted", method=method, refit={"method": "least_squares"}, **short, **spec)
                self.assertLess(fitted["blocks"][0]["reconstruction"], plain["blocks"][0]["reconstruction"])
                self.assertEqual(fitted["result"]["sparsity"], plain["result"]["sparsity"])
        self.assertEqual(self.zeros("magnitude-plain"), self.zeros("magnitude-fitted"))
        self.two_of_four("sparsegpt-fitted")


if __name__ == "__main__":
    unittest.main()
