#!/usr/bin/env python3
"""Methods that use Gram matrices, given too little for one: fewer tokens than columns, columns that are never anything but zero, experts that ten tokens
reach. Each says so by a finding, leaves no number that is none, and is no worse than Wanda on the same tokens."""
import array
import json
import math
import os
import shutil
import unittest

from bundled import ROOT, BundledModel, read_safetensors
from random_models import write_safetensors

# Those that make up for what goes must be no worse than Wanda; who only ranks by such a matrix is only to be sound.
MAKE_UP = {"sparsegpt": {"method": "sparsegpt"}, "wanda-fitted": {"method": "wanda", "refit": {"method": "least_squares"}},
           "balanced": {"preset": "balanced"}}
RANK = {"besa": {"method": "besa", "besa": {"importance": "sparsegpt"}}}
DEAD = (3, 100, 101)  # channels


class Starved(BundledModel):
    def tokens(self, count):
        """The calibration's first ones, as one sequence."""
        return {"path": self.first("calibration", os.path.join(ROOT, "demo", "calibration.safetensors"), [1, count]), "samples": 1,
                "sequence_length": count}

    def evaluation(self):
        source = os.path.join(ROOT, "tests", "data", "tiny-llama.wikitext2-64k.safetensors")
        return {"perplexity": [{"name": "wikitext2", "path": self.first("evaluation", source, [8192]), "sequence_length": 256}]}

    def first(self, name, source, shape):
        """A file of as many of the source's tokens as the shape has."""
        _, tensors = read_safetensors(source)
        name = f"{name}-{math.prod(shape)}.safetensors"
        write_safetensors(os.path.join(self.directory, name), {"input_ids": ("I32", shape, tensors["input_ids"][2][:4 * math.prod(shape)])})
        return name

    def pruned(self, name, method, spec, **job):
        report = self.run_job(f"{name}-{method}", sparsity=0.5, **spec, **job)
        if method != "wanda":
            self.assertIn("few_tokens", [finding["rule"] for finding in report["diagnosis"]])
        self.assertGreaterEqual(report["result"]["zeros"], report["result"]["params"] // 2)
        for block in report["blocks"]:
            self.assertTrue(math.isfinite(block["reconstruction"]))
        self.finite(f"{name}-{method}")
        return report

    def each(self, name, **job):
        """Of Wanda, and of each method that makes up for what goes."""
        wanda = self.pruned(name, "wanda", {"method": "wanda"}, **job)
        for method, spec in RANK.items():
            self.pruned(name, method, spec, **job)
        return wanda, [self.pruned(name, method, spec, **job) for method, spec in MAKE_UP.items()]

    def finite(self, name):
        """All weights that were written."""
        _, tensors = read_safetensors(os.path.join(self.directory, "output", name, "model.safetensors"))
        for tensor, (dtype, _, data) in tensors.items():
            self.assertEqual(dtype, "BF16")
            self.assertFalse(any(half & 0x7f80 == 0x7f80 for half in array.array("H", data)), tensor)

    def test_fewer_tokens_than_columns(self):
        wanda, reports = self.each("few", calibration=self.tokens(64), evaluation=self.evaluation())
        for report in reports:
            self.assertLessEqual(self.perplexity(report), self.perplexity(wanda))

    def test_dead_columns(self):
        """What norms of 0 leave of three channels: nothing, for the linears behind them."""
        model = os.path.join(self.models, "dead")
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), model)
        path = os.path.join(model, "model.safetensors")
        _, tensors = read_safetensors(path)
        for name, (dtype, shape, data) in tensors.items():
            if "layernorm" in name:
                values = array.array("H", data)
                for channel in DEAD:
                    values[channel] = 0
                tensors[name] = (dtype, shape, values.tobytes())
        write_safetensors(path, tensors)
        wanda, reports = self.each("dead", calibration=self.tokens(128), evaluation=self.evaluation(), model="dead")
        for report in reports:
            self.assertLessEqual(self.perplexity(report), self.perplexity(wanda))

    def test_experts_that_ten_tokens_reach(self):
        """Of thirty tokens, each to two of six experts. A model of random weights knows nothing to lose: its perplexity stays what it was, and what its
        blocks are pruned for is what the methods must not be worse at."""
        model = os.path.join(self.models, "experts")
        shutil.copytree(os.path.join(ROOT, "tests", "data", "saved", "qwen3_moe"), model)
        with open(os.path.join(model, "config.json")) as file:
            vocabulary = json.load(file)["vocab_size"]

        def write(name, shape, step):
            ids = array.array("i", [step * i * i % vocabulary for i in range(math.prod(shape))])
            write_safetensors(os.path.join(self.directory, name), {"input_ids": ("I32", shape, ids.tobytes())})
        write("thirty.safetensors", [1, 30], 7)
        write("other.safetensors", [16, 64], 11)
        evaluation = {"perplexity": [{"name": "wikitext2", "path": "other.safetensors", "sequence_length": 64}]}
        wanda, reports = self.each("experts", calibration={"path": "thirty.safetensors", "samples": 1, "sequence_length": 30},
                                   evaluation=evaluation, model="experts")
        for report in reports:
            self.assertLess(abs(self.perplexity(report) / self.perplexity(wanda) - 1), 0.1)
            for block, other in zip(report["blocks"], wanda["blocks"], strict=True):
                self.assertLessEqual(block["reconstruction"], other["reconstruction"] * 1.001)


if __name__ == "__main__":
    unittest.main()
