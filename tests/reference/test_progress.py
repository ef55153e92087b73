#!/usr/bin/env python3
"""The perplexity that comes after each block, against that of a model put together from pruned and dense blocks.

Needs Python 3 alone. BESAD names the program, build/besad by default."""
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BESAD = os.environ.get("BESAD", os.path.join(ROOT, "build", "besad"))
LENGTH, SEQUENCES = 256, 2
sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import write_safetensors  # noqa: E402


def read_safetensors(path):
    """The whole file, where its data begins, and {name: its place in the data}."""
    with open(path, "rb") as file:
        content = file.read()
    size = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8:8 + size])
    return content, 8 + size, {n: t["data_offsets"] for n, t in header.items() if n != "__metadata__"}


class Progress(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="besad-progress-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.models = os.path.join(self.directory, "models")
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(self.models, "tiny-llama"))
        ids, at, _ = read_safetensors(os.path.join(ROOT, "tests", "data", "tiny-llama.wikitext2-64k.safetensors"))
        write_safetensors(os.path.join(self.directory, "few.safetensors"),
                          {"input_ids": ("I32", [SEQUENCES, LENGTH], ids[at:at + SEQUENCES * LENGTH * 4])})

    def run_job(self, name, **spec):
        job = {"output": name, "precision": "f32", "calibration": {"path": "calibration.safetensors", "samples": 16,
                                                                   "sequence_length": LENGTH},
               "evaluation": {"perplexity": [{"name": "few", "path": "few.safetensors", "sequence_length": LENGTH}]}, **spec}
        path = os.path.join(self.directory, name + ".json")
        with open(path, "w") as file:
            json.dump(job, file)
        done = subprocess.run([BESAD, "run", "--json", path, "--model-root", self.models, "--data-root", self.directory, "--data-root",
                               os.path.join(ROOT, "demo"), "--output-root", os.path.join(self.directory, "output")],
                              check=True, capture_output=True, text=True)
        return json.loads(done.stdout)

    def report(self, name):
        with open(os.path.join(self.directory, "output", name, "besad.json")) as file:
            return json.load(file)

    def mix(self, name, pruned, blocks):
        """A model whose first `blocks` blocks are those of the output `pruned`, the rest being dense; its perplexity."""
        place = os.path.join(self.models, name)
        shutil.copytree(os.path.join(self.models, "tiny-llama"), place)
        path = os.path.join(place, "model.safetensors")
        content, at, tensors = read_safetensors(path)
        other, _, _ = read_safetensors(os.path.join(self.directory, "output", pruned, "model.safetensors"))
        mixed = bytearray(content)
        for tensor, (begin, end) in tensors.items():
            block = re.match(r"model\.layers\.(\d+)\.", tensor)
            if block and int(block[1]) < blocks:
                mixed[at + begin:at + end] = other[at + begin:at + end]
        with open(path, "wb") as file:
            file.write(mixed)
        return self.run_job("eval-" + name, model=name, method="none")["perplexity"]["few"]["dense"]

    def test_every_block(self):
        result = self.run_job("pruned", model="tiny-llama", method="wanda", sparsity=0.5, progress={"perplexity_every": 1})
        report = self.report("pruned")
        self.assertEqual(report["progress_perplexity"]["dataset"], "few")
        blocks = [block["perplexity"] for block in report["blocks"]]
        self.assertEqual(report["progress_perplexity"]["sequences"], SEQUENCES)
        self.assertTrue(all(blocks), blocks)
        for block in report["blocks"]:
            self.assertLess(abs(block["perplexity_dense"] / result["perplexity"]["few"]["dense"] - 1), 1e-4)
        self.assertLess(abs(blocks[-1] / result["perplexity"]["few"]["pruned"] - 1), 1e-4)
        for index in (0, 2):
            expected = self.mix(f"mixed-{index}", "pruned", index + 1)
            self.assertLess(abs(blocks[index] / expected - 1), 1e-4, (index, blocks[index], expected))

    def test_every_third_and_never(self):
        self.run_job("third", model="tiny-llama", method="wanda", sparsity=0.5, progress={"perplexity_every": 4})
        self.assertEqual([block["perplexity"] is not None for block in self.report("third")["blocks"]],
                         [False, False, False, True, False, True])
        self.run_job("never", model="tiny-llama", method="wanda", sparsity=0.5, progress={"perplexity_every": 0})
        self.assertEqual([block["perplexity"] for block in self.report("never")["blocks"]], [None] * 6)
        with open(os.path.join(self.directory, "output", "never", "model.safetensors"), "rb") as a:
            with open(os.path.join(self.directory, "output", "third", "model.safetensors"), "rb") as b:
                self.assertEqual(a.read(), b.read())  # looking changes nothing


if __name__ == "__main__":
    unittest.main()
