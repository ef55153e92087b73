#!/usr/bin/env python3
"""Runs besad with quantization on the bundled model, against the formula, PyTorch, and itself."""
import os
import struct
import unittest

from bundled import SHORT, BundledModel, reference
from random_models import read_safetensors

FEW = {"path": "calibration.safetensors", "samples": 8, "sequence_length": 256}
UNSEEN = {"method": "magnitude", "calibration": None, "evaluation": {}}  # where the weights tell it all


def as_float(word):
    return struct.unpack("f", struct.pack("I", word << 16))[0]


def as_bf16(value):
    """As a 16-bit word: rounded to nearest, halves to even."""
    bits = struct.unpack("I", struct.pack("f", value))[0]
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16


def single(value):
    return struct.unpack("f", struct.pack("f", value))[0]


def symmetric(weights, bits):
    """A group on its grid, by the formula; 16-bit words."""
    most = max(abs(w) for w in weights)
    step = as_float(as_bf16(single(most / (2 ** (bits - 1) - 0.5)))) or 1.0
    codes = [max(-2 ** (bits - 1), min(2 ** (bits - 1) - 1, round(single(w / step)))) for w in weights]
    return [as_bf16(code * step) for code in codes]


class Quantized(BundledModel):
    evaluation = SHORT

    def distinct(self, name, group, bits):
        """No group has more values than codes; and 0 is written as +0."""
        for tensor, rows in self.weights(name).items():
            for row in rows:
                for i in range(0, len(row), group):
                    self.assertLessEqual(len(set(row[i:i + group])), 2 ** bits, tensor)
                self.assertNotIn(0x8000, row, tensor)

    def magnitude_half(self):
        return self.run_job("magnitude-half", **UNSEEN, sparsity=0.5)

    def test_rounding_behind_a_method(self):
        """What magnitude pruning leaves, weight for weight; and norms and embeddings stay."""
        plain = self.magnitude_half()
        report = self.run_job("magnitude-4", quantization={"bits": 4, "group_size": 32, "format": "dequantized"}, **UNSEEN, sparsity=0.5)
        self.assertEqual(report["spec"]["quantization"], {
            "bits": 4, "group_size": 32, "symmetric": True, "order": "prune_first", "rounding": "nearest", "format": "dequantized"})
        self.assertGreaterEqual(report["result"]["zeros"], plain["result"]["zeros"])
        got = self.weights("magnitude-4")
        for tensor, rows in self.weights("magnitude-half").items():
            for row, found in zip(rows, got[tensor], strict=True):
                for i in range(0, len(row), 32):
                    self.assertEqual(list(found[i:i + 32]), symmetric([as_float(word) for word in row[i:i + 32]], 4), tensor)
        files = [read_safetensors(os.path.join(self.directory, "output", name, "model.safetensors"))[1]
                 for name in ("magnitude-half", "magnitude-4")]
        for tensor, (_, _, data) in files[0].items():
            if not tensor.endswith("_proj.weight"):
                self.assertEqual(data, files[1][tensor][2], tensor)

    def test_pruning_of_rounded_weights(self):
        """What stays is what rounding alone gives."""
        asked = {"bits": 4, "group_size": 32, "format": "dequantized"}
        self.run_job("rounded", quantization=asked, **UNSEEN, sparsity=0)
        report = self.run_job("rounded-half", method="wanda", sparsity=0.5, calibration=FEW, evaluation={},
                              quantization=dict(asked, order="quantize_first"))
        self.assertGreaterEqual(2 * report["result"]["zeros"], report["result"]["params"])
        rounded = self.weights("rounded")
        for tensor, rows in self.weights("rounded-half").items():
            for row, whole in zip(rows, rounded[tensor], strict=True):
                self.assertTrue(all(word in (0, other) for word, other in zip(row, whole, strict=True)), tensor)

    def test_a_whole_row_is_a_group(self):
        self.run_job("channel", quantization={"bits": 2, "group_size": "channel", "symmetric": False}, **UNSEEN, sparsity=0)
        self.distinct("channel", 1 << 30, 2)

    def test_against_pytorch(self):
        """tests/data/reference/quantize.py: 32 sequences."""
        calibration = dict(FEW, samples=32)
        for name, sparsity, symmetric_, bits in (("joint-50", 0.5, False, 3), ("joint-0", 0, True, 3)):
            with self.subTest(name):
                expected = reference(name)
                report = self.run_part(name, method="besa", sparsity=sparsity, calibration=calibration, besa={"safeguards": False},
                                       quantization={"bits": bits, "group_size": 32, "symmetric": symmetric_})
                for block, wanted in zip(report["blocks"], expected["blocks"]):  # of which there are some
                    self.close(block["reconstruction"], wanted["reconstruction"], 0.03)
                self.distinct(name, 32, bits)
                self.assertGreaterEqual(report["result"]["zeros"], round(sparsity * report["result"]["params"]))

    def test_joint_comes_nearer_than_rounding_behind(self):
        """At 2 bits; and no block is worse than where its learning began."""
        asked = {"bits": 2, "group_size": 64, "symmetric": False}
        few = {"method": "besa", "sparsity": 0.5, "calibration": dict(FEW, samples=32)}
        joint = self.run_job("joint-2", quantization=asked, besa={"epochs": 4}, **few)
        behind = self.run_job("behind-2", quantization=dict(asked, order="prune_first"), **few)
        self.assertEqual(joint["spec"]["quantization"]["order"], "joint")
        self.assertLess(self.perplexity(joint), 0.98 * self.perplexity(behind))
        for block in joint["blocks"]:
            self.assertLessEqual(block["reconstruction"], block["reconstruction_start"] * 1.02)  # of what is stored: bf16

    def test_clipping_that_is_learned_stays_in_a_refit(self):
        """Weights that are refitted behind joint learning lie on the grids that it learned, and are nearer than without."""
        asked = {"bits": 3, "group_size": 64, "format": "dequantized"}
        few = {"method": "besa", "sparsity": 0.5, "calibration": dict(FEW, samples=16), "quantization": asked}
        joint = self.run_job("joint-alone", **few)
        both = self.run_job("joint-refitted", refit={"method": "block", "epochs": 2}, **few)
        self.assertEqual(both["spec"]["quantization"]["order"], "joint")
        self.distinct("joint-refitted", 64, 3)
        self.assertLess(self.perplexity(both), 0.98 * self.perplexity(joint))
        self.assertGreaterEqual(2 * both["result"]["zeros"], both["result"]["params"])
        self.tuned_through_rounding(both, few)

    def tuned_through_rounding(self, refitted, few):
        """The global tune behind that: on such grids, nearer again, and from what the weights were before they were rounded, since some that were
        rounded to zero, other than those that were pruned, come back."""
        tuned = self.run_job("joint-tuned", refit={"method": "global", "epochs": 2, "global_epochs": 4}, **few)
        self.distinct("joint-tuned", 64, 3)
        self.assertLess(self.perplexity(tuned), 0.99 * self.perplexity(refitted))
        before, after = self.weights("joint-refitted"), self.weights("joint-tuned")
        zeros = back = 0
        for tensor, rows in before.items():
            for row, found in zip(rows, after[tensor], strict=True):
                zeros += sum(word & 0x7fff == 0 for word in found)
                back += sum(a & 0x7fff == 0 and b & 0x7fff != 0 for a, b in zip(row, found, strict=True))
        self.assertGreater(back, 100)
        self.assertEqual(zeros, tuned["result"]["zeros"])

    def compare_roundings(self, name, bits, **spec):
        """Feedback loses less than rounding to the nearest, in every block and at the end."""
        asked = {"bits": bits, "group_size": 64, "format": "dequantized"}
        nearest, feedback = (self.run_job(f"{name}-{rounding}", quantization=dict(asked, rounding=rounding), **spec)
                             for rounding in ("nearest", "feedback"))
        for block, other in zip(feedback["blocks"], nearest["blocks"], strict=True):
            self.assertLess(block["reconstruction"], other["reconstruction"])
        self.assertLess(self.perplexity(feedback), self.perplexity(nearest))
        self.distinct(f"{name}-feedback", 64, bits)

    def test_feedback_behind_nothing(self):
        self.compare_roundings("whole", 3, method="magnitude", sparsity=0, calibration=dict(FEW, samples=32))

    def test_feedback_behind_a_method(self):
        """What magnitude prunes hangs on no block before: what it makes zero stays zero, and is written as +0."""
        self.compare_roundings("magnitude-32", 4, method="magnitude", sparsity=0.5, calibration=dict(FEW, samples=32))
        self.magnitude_half()
        got = self.weights("magnitude-32-feedback")
        for tensor, rows in self.weights("magnitude-half").items():
            for row, found in zip(rows, got[tensor], strict=True):
                self.assertTrue(all(after == 0 for before, after in zip(row, found, strict=True) if before == 0), tensor)

    def test_feedback_in_a_pattern(self):
        """Behind a method that changes weights, and a refit."""
        self.compare_roundings("sparsegpt-24-fitted", 3, method="sparsegpt", pattern="2:4", calibration=dict(FEW, samples=32),
                               refit={"method": "least_squares"})

    def test_refitted_weights_are_rounded(self):
        self.run_job("refitted-3", method="wanda", sparsity=0.5, calibration=FEW, evaluation={}, refit={"method": "block", "epochs": 1},
                     quantization={"bits": 3, "group_size": 64})
        self.distinct("refitted-3", 64, 3)


if __name__ == "__main__":
    unittest.main()
