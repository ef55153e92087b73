#!/usr/bin/env python3
"""Runs besad on the bundled model against what the published code gave on it (tests/data/reference): same calibration tokens, fp32.

Needs Python 3 alone. BESAD names the program, build/besad by default."""
import array
import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BESAD = os.environ.get("BESAD", os.path.join(ROOT, "build", "besad"))
DATASET = "wikitext2"
sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import read_safetensors  # noqa: E402


def reference(name):
    with open(os.path.join(ROOT, "tests", "data", "reference", f"tiny-llama.{name}.json")) as file:
        return json.load(file)


class Reference(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="besad-reference-")
        cls.results, cls.said = {}, {}

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.directory)

    def run_job(self, name, **spec):
        """besad.json of a finished job; each job runs once."""
        if name in self.results:
            return self.results[name]
        job = {
            "model": "tiny-llama", "output": name, "precision": "f32",
            "calibration": {"path": "calibration.safetensors", "samples": 128, "sequence_length": 256},
            "evaluation": {"perplexity": [
                {"name": DATASET, "path": "tiny-llama.wikitext2-64k.safetensors", "sequence_length": 256}]}, **spec}
        path = os.path.join(self.directory, name + ".json")
        with open(path, "w") as file:
            json.dump(job, file)
        done = subprocess.run(
            [BESAD, "run", path, "--model-root", os.path.join(ROOT, "demo"), "--data-root", os.path.join(ROOT, "demo"),
             "--data-root", os.path.join(ROOT, "tests", "data"), "--output-root", os.path.join(self.directory, "output")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        sys.stderr.write(done.stderr)
        done.check_returncode()
        self.said[name] = done.stderr
        with open(os.path.join(self.directory, "output", name, "besad.json")) as file:
            self.results[name] = json.load(file)
        return self.results[name]

    def perplexity(self, report, which="pruned"):
        return report["result"]["perplexity"][DATASET][which]

    def close(self, value, expected, relative):
        self.assertLess(abs(value / expected - 1), relative, f"{value} against {expected}")

    def one_shot(self, method, percent):
        return self.run_job(f"{method}-{percent}", method=method, sparsity=percent / 100)

    def besa(self, percent, name=None, **spec):
        return self.run_job(name or f"besa-{percent}", method="besa", sparsity=percent / 100, **spec)

    def exact(self, report, percent):
        params = sum(layer["params"] for block in report["blocks"] for layer in block["layers"].values())
        for block in report["blocks"]:
            layers = block["layers"].values()
            self.assertEqual(sum(l["zeros"] for l in layers), round(percent / 100 * sum(l["params"] for l in layers)))
        self.assertEqual(report["result"]["params"], params)

    def test_dense_perplexity(self):
        self.close(self.perplexity(self.one_shot("wanda", 50), "dense"), reference("wanda-50")["dense_perplexity"], 0.001)

    def test_wanda(self):
        for percent in (50, 60, 70):
            with self.subTest(percent=percent):
                expected = reference(f"wanda-{percent}")
                report = self.one_shot("wanda", percent)
                self.close(self.perplexity(report), expected["pruned_perplexity"], 0.003)
                self.close(report["result"]["sparsity"], expected["achieved_sparsity"], 1e-4)
                for block, wanted in zip(report["blocks"], expected["blocks"], strict=True):
                    self.close(block["reconstruction"], wanted["reconstruction"], 0.01)

    def test_magnitude(self):
        self.close(self.perplexity(self.one_shot("magnitude", 50)), reference("mag-50")["pruned_perplexity"], 0.003)

    def weights(self, name):
        """{tensor: rows} of a finished job's model, each row a list of 16-bit words."""
        _, tensors = read_safetensors(os.path.join(self.directory, "output", name, "model.safetensors"))
        rows = {}
        for tensor, (_, shape, data) in tensors.items():
            if tensor.endswith("_proj.weight"):
                words = array.array("H", data)
                rows[tensor] = [words[i:i + shape[1]] for i in range(0, len(words), shape[1])]
        return rows

    def two_of_four(self, name):
        for tensor, rows in self.weights(name).items():
            for row in rows:
                for i in range(0, len(row), 4):
                    self.assertEqual(sum(word == 0 for word in row[i:i + 4]), 2, tensor)

    def test_wanda_in_a_pattern(self):
        expected = reference("wanda-24")
        report = self.run_job("wanda-24", method="wanda", pattern="2:4")
        self.close(self.perplexity(report), expected["pruned_perplexity"], 0.01)
        self.exact(report, 50)
        self.two_of_four("wanda-24")

    def test_magnitude_in_a_pattern(self):
        """Of each four weights the two of the largest magnitude stay as they were."""
        self.run_job("magnitude-24", method="magnitude", pattern="2:4")
        self.run_job("magnitude-0", method="magnitude", sparsity=0)
        dense, pruned = self.weights("magnitude-0"), self.weights("magnitude-24")
        self.two_of_four("magnitude-24")
        for tensor, rows in pruned.items():
            for row, before in zip(rows, dense[tensor], strict=True):
                for i in range(0, len(row), 4):
                    order = sorted(range(i, i + 4), key=lambda j: before[j] & 0x7fff)
                    for j in order[:2]:
                        self.assertTrue(row[j] == 0 or before[j] & 0x7fff == before[order[2]] & 0x7fff)
                    kept = [j for j in range(i, i + 4) if row[j]]
                    self.assertEqual([row[j] for j in kept], [before[j] for j in kept])

    def test_sparsegpt(self):
        for name, spec in (("50", {"sparsity": 0.5}), ("60", {"sparsity": 0.6}), ("70", {"sparsity": 0.7}), ("24", {"pattern": "2:4"})):
            with self.subTest(name):
                expected = reference(f"sgpt-{name}")
                report = self.run_job(f"sparsegpt-{name}", method="sparsegpt", **spec)
                self.close(self.perplexity(report), expected["pruned_perplexity"], 0.01)
                for block, wanted in zip(report["blocks"], expected["blocks"], strict=True):
                    self.close(block["reconstruction"], wanted["reconstruction"], 0.02)
                self.exact(report, 100 * expected["sparsity"])
        self.two_of_four("sparsegpt-24")

    def fitted(self, name, **spec):
        """Against tests/data/reference/admm.py or refit.py: 32 sequences."""
        expected = reference(name)
        report = self.run_job(name, calibration={"path": "calibration.safetensors", "samples": 32, "sequence_length": 256}, **spec)
        self.close(self.perplexity(report), expected["pruned_perplexity"], 0.005)
        for block, wanted in zip(report["blocks"], expected["blocks"], strict=True):
            self.close(block["reconstruction"], wanted["reconstruction"], 0.03)
        return report

    def test_admm(self):
        for percent in (50, 70):
            with self.subTest(percent=percent):
                self.exact(self.fitted(f"admm-{percent}", method="admm", sparsity=percent / 100), percent)

    def test_refit_of_blocks(self):
        for percent in (50, 70):
            with self.subTest(percent=percent):
                report = self.fitted(f"refit-{percent}", method="wanda", sparsity=percent / 100,
                                     refit={"method": "block", "epochs": 4, "learning_rate": 0.002})
                wanda = self.one_shot("wanda", percent)
                self.assertEqual(report["result"]["zeros"], wanda["result"]["zeros"])
                self.assertLess(self.perplexity(report), self.perplexity(wanda))

    def test_tune_of_the_whole_model(self):
        """It comes nearer to the dense model than the refit of its blocks, and keeps every zero."""
        few = {"method": "wanda", "sparsity": 0.7,
               "calibration": {"path": "calibration.safetensors", "samples": 32, "sequence_length": 256}}
        reports = [self.run_job(f"tuned-{method}", refit={"method": method, "epochs": 1, "learning_rate": 0.002, "global_epochs": 2}, **few)
                   for method in ("block", "global")]
        zeros = [{(tensor, i, j) for tensor, rows in self.weights(f"tuned-{method}").items()
                  for i, row in enumerate(rows) for j, word in enumerate(row) if word & 0x7fff == 0} for method in ("block", "global")]
        self.assertEqual(*zeros)
        self.assertLess(self.perplexity(reports[1]), 0.98 * self.perplexity(reports[0]))

    def test_a_refit_that_makes_a_block_worse_is_taken_back(self):
        few = {"method": "wanda", "sparsity": 0.5,
               "calibration": {"path": "calibration.safetensors", "samples": 4, "sequence_length": 256}}
        self.run_job("wanda-few", **few)
        self.run_job("refit-too-fast", refit={"method": "block", "learning_rate": 1}, **few)
        files = [os.path.join(self.directory, "output", name, "model.safetensors") for name in ("wanda-few", "refit-too-fast")]
        with open(files[0], "rb") as plain, open(files[1], "rb") as refitted:
            self.assertEqual(plain.read(), refitted.read())
        self.assertEqual(self.said["refit-too-fast"].count("the refit left it with a loss"), 6)

    def test_admm_in_a_pattern(self):
        self.exact(self.fitted("admm-24", method="admm", pattern="2:4"), 50)
        self.two_of_four("admm-24")

    def test_wanda_fitted(self):
        self.fitted("fit-50", 50, method="wanda", sparsity=0.5, refit={"method": "least_squares"})

    def zeros(self, name):
        return {tensor: [[word & 0x7fff == 0 for word in row] for row in rows] for tensor, rows in self.weights(name).items()}

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

    def test_besa_by_row(self):
        report = self.besa(50)
        self.assertLess(self.perplexity(report), reference("besa-row-50-d5")["pruned_perplexity"] * 1.005)
        self.exact(report, 50)

    def test_besa_by_layer(self):
        report = self.besa(50, "besa-layer", besa={"granularity": "layer"})
        self.assertLess(self.perplexity(report), reference("besa-layer-50-d5")["pruned_perplexity"] * 1.012)
        self.exact(report, 50)

    def test_sigmoid_learns_the_rates_of_the_published_code(self):
        for name, spec in (("besa-row-50-d5", {}), ("besa-layer-50-d5", {"granularity": "layer"})):
            with self.subTest(name):
                report = self.besa(50, "sigmoid-" + name, besa={
                    "parameterization": "sigmoid", "d_coef": 5, "safeguards": False, **spec})
                for block, wanted in zip(report["blocks"], reference(name)["blocks"], strict=True):
                    for layer, rate in wanted["rates"].items():
                        self.assertLess(abs(block["layers"][layer]["rate"] - rate), 0.01, (block["block"], layer))

    def warnings(self, name):
        return [line for line in self.said[name].splitlines() if line.startswith("warning: ")]

    def safe(self, report):
        """No block ends worse than it began; on the first, that is where Wanda ends, but for the exact count of zeros."""
        for block in report["blocks"]:
            self.assertLessEqual(block["reconstruction"], block["reconstruction_start"])

    def test_safeguards_change_nothing_that_is_sound(self):
        report, published = self.besa(50), self.besa(50, "published", besa={"safeguards": False})
        self.safe(report)
        self.assertEqual(self.warnings("besa-50"), [])
        self.assertEqual([block["reconstruction"] for block in report["blocks"]], [block["reconstruction"] for block in published["blocks"]])
        self.assertNotIn("reconstruction_start", published["blocks"][0])
        self.close(report["blocks"][0]["reconstruction_start"], self.one_shot("wanda", 50)["blocks"][0]["reconstruction"], 1e-3)

    def test_diverging(self):
        """Steps far too large: each block says so, goes on with smaller ones, and ends better than Wanda."""
        wanda = self.one_shot("wanda", 50)
        report = self.besa(50, "diverging", besa={"parameterization": "softmax", "d_coef": 500})
        self.safe(report)
        self.exact(report, 50)
        self.assertLess(self.perplexity(report), self.perplexity(wanda))
        for block, before in zip(report["blocks"], wanda["blocks"], strict=True):
            self.assertLess(block["reconstruction"], before["reconstruction"])
            said = [line for line in self.warnings("diverging") if line.startswith(f"warning: block {block['block']}: ")]
            self.assertLessEqual(len(said), 2)
            self.assertRegex(said[0], r"learning diverged at step 8 of 128: the loss, 0\.\d+ at the start, rose to 0\.\d+.* it went on from "
                                      r"where it was best, at step \d+, with besa\.d_coef [\d.]+ instead of 500, and the block ends with 0\.\d+")
            self.assertIn(f"ends with {block['reconstruction']:.6f}", said[0])

    def test_high_targets_beat_wanda(self):
        for percent in (60, 70):
            with self.subTest(percent=percent):
                report = self.besa(percent)
                self.safe(report)
                self.assertEqual(self.warnings(f"besa-{percent}"), [])
                self.assertLess(self.perplexity(report), self.perplexity(self.one_shot("wanda", percent)))
                self.exact(report, percent)

    def test_bf16_ends_where_f32_does(self):
        report = self.besa(50, "besa-bf16", precision="bf16")
        self.close(self.perplexity(report), self.perplexity(self.besa(50)), 0.003)
        self.exact(report, 50)


if __name__ == "__main__":
    unittest.main()
