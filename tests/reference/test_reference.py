#!/usr/bin/env python3
"""Runs besad on the bundled model against what the published code gave on it: magnitude, Wanda and BESA. At 50 %, by row, the whole
model and its perplexity; elsewhere its first blocks."""
import unittest

from bundled import LONG, BundledModel, reference

# What the defaults are, without what besad added to them.
PUBLISHED = {"parameterization": "sigmoid", "d_coef": 5, "safeguards": False}


class Reference(BundledModel):
    def test_dense_perplexity(self):
        self.close(self.perplexity(self.one_shot("wanda", 50), "dense"), reference("wanda-50")["dense_perplexity"], 0.001)

    def wanda_part(self, percent):
        return self.run_part(f"wanda-{percent}-part", method="wanda", sparsity=percent / 100)

    def test_wanda(self):
        for percent in (50, 60, 70):
            with self.subTest(percent=percent):
                expected = reference(f"wanda-{percent}")
                report = self.one_shot("wanda", 50) if percent == 50 else self.wanda_part(percent)
                if percent == 50 or LONG:
                    self.close(self.perplexity(report), expected["pruned_perplexity"], 0.003)
                self.close(report["result"]["sparsity"], expected["achieved_sparsity"], 1e-4)
                for block, wanted in self.beside(report, expected):
                    self.close(block["reconstruction"], wanted["reconstruction"], 0.01)

    def test_magnitude(self):
        report = self.run_job("magnitude-50", method="magnitude", sparsity=0.5, calibration=None)
        self.close(self.perplexity(report), reference("mag-50")["pruned_perplexity"], 0.003)

    def wanda_in_a_pattern(self):
        return self.run_part("wanda-24", method="wanda", pattern="2:4")

    def test_wanda_in_a_pattern(self):
        expected, report = reference("wanda-24"), self.wanda_in_a_pattern()
        if LONG:
            self.close(self.perplexity(report), expected["pruned_perplexity"], 0.01)
        for block, wanted in self.beside(report, expected):
            self.close(block["reconstruction"], wanted["reconstruction"], 0.01)
        self.exact(report, 50)
        self.two_of_four("wanda-24")

    def test_besa_in_a_pattern(self):
        """Nothing is learned, which is said once: of each four those go that go by Wanda."""
        report = self.run_part("besa-24", method="besa", pattern="2:4")
        self.wanda_in_a_pattern()
        self.exact(report, 50)
        self.assertEqual(self.weights("besa-24"), self.weights("wanda-24"))
        self.assertEqual(["learns no rates" in warning for warning in self.warnings("besa-24")], [True])

    def test_magnitude_in_a_pattern(self):
        """Of each four weights the two of the largest magnitude stay as they were."""
        unseen = {"method": "magnitude", "calibration": None, "evaluation": {}}
        self.run_job("magnitude-24", pattern="2:4", **unseen)
        self.run_job("magnitude-0", sparsity=0, **unseen)
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

    def test_besa_by_row(self):
        report = self.besa(50)
        self.assertLess(self.perplexity(report), reference("besa-row-50-d5")["pruned_perplexity"] * 1.005)
        self.exact(report, 50)

    def test_besa_by_layer(self):
        report = self.run_part("besa-layer", method="besa", sparsity=0.5, besa={"granularity": "layer"})
        if LONG:
            self.assertLess(self.perplexity(report), reference("besa-layer-50-d5")["pruned_perplexity"] * 1.012)
        self.safe(report)
        self.exact(report, 50)

    def published(self, **spec):
        return self.run_part("-".join(["published", *spec.values()]), method="besa", sparsity=0.5, besa={**PUBLISHED, **spec})

    def test_the_rates_of_the_published_code(self):
        for name, report in (("besa-row-50-d5", self.published()), ("besa-layer-50-d5", self.published(granularity="layer"))):
            with self.subTest(name):
                for block, wanted in self.beside(report, reference(name)):
                    for layer, rate in wanted["rates"].items():
                        self.assertLess(abs(block["layers"][layer]["rate"] - rate), 0.01, (block["block"], layer))

    def warnings(self, name):
        return [line for line in self.said[name].splitlines() if line.startswith("warning: ")]

    def safe(self, report):
        """No block ends worse than it began; on the first, that is where Wanda ends, but for the exact count of zeros."""
        for block in report["blocks"]:
            self.assertLessEqual(block["reconstruction"], block["reconstruction_start"])

    def test_safeguards_change_nothing_that_is_sound(self):
        report, published = self.besa(50), self.published()
        self.safe(report)
        self.assertEqual(self.warnings("besa-50"), [])
        for block, other in self.beside(published, report):
            self.assertEqual(block["reconstruction"], other["reconstruction"])
        self.assertNotIn("reconstruction_start", published["blocks"][0])
        self.close(report["blocks"][0]["reconstruction_start"], self.one_shot("wanda", 50)["blocks"][0]["reconstruction"], 1e-3)

    def test_diverging(self):
        """Steps far too large: each block says so, goes on with smaller ones, and ends better than Wanda."""
        wanda = self.one_shot("wanda", 50)
        report = self.run_part("diverging", method="besa", sparsity=0.5, besa={"parameterization": "softmax", "d_coef": 500})
        self.safe(report)
        self.exact(report, 50)
        if LONG:
            self.assertLess(self.perplexity(report), self.perplexity(wanda))
        self.assertEqual([finding["rule"] for finding in report["diagnosis"]], ["unstable"] * len(report["blocks"]))
        for block, before in self.beside(report, wanda):
            self.assertLess(block["reconstruction"], before["reconstruction"])
            said = [line for line in self.warnings("diverging") if line.startswith(f"warning: block {block['block']}: ")]
            self.assertLessEqual(len(said), 2)
            self.assertRegex(said[0], r"learning diverged at step 8 of 128: the loss, 0\.\d+ at the start, rose to 0\.\d+.* it went on from "
                                      r"where it was best, at step \d+, with besa\.d_coef [\d.]+ instead of 500, and the block ends with 0\.\d+")
            self.assertIn(f"ends with {block['reconstruction']:.6f}", said[0])

    def test_high_targets_beat_wanda(self):
        for percent in (60, 70) if LONG else (70,):
            with self.subTest(percent=percent):
                wanda = self.wanda_part(percent)
                report = self.run_part(f"besa-{percent}", method="besa", sparsity=percent / 100)
                self.safe(report)
                self.assertEqual(self.warnings(f"besa-{percent}"), [])
                if LONG:
                    self.assertLess(self.perplexity(report), self.perplexity(wanda))
                for block, before in self.beside(report, wanda):
                    self.assertLess(block["reconstruction"], before["reconstruction"])
                self.exact(report, percent)

    def test_bf16_ends_where_f32_does(self):
        report, whole = self.run_part("besa-bf16", method="besa", sparsity=0.5, precision="bf16"), self.besa(50)
        if LONG:
            self.close(self.perplexity(report), self.perplexity(whole), 0.003)
        for block, other in self.beside(report, whole):
            self.close(block["reconstruction"], other["reconstruction"], 0.003)
        self.exact(report, 50)


if __name__ == "__main__":
    unittest.main()
