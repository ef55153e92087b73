#!/usr/bin/env python3
"""tests/data/tiny-qwen (Qwen2: grouped heads, biases, tied embeddings, tokenizer.json) pruned over HTTP, against what the published code gave on it
with the same calibration tokens in fp32, and from text end to end.

Needs Python 3 alone. BESAD names the program, build/besad by default. With LONG in the environment (`make check-long`) by layer as well, and by BESA
from text, which Wanda stands for."""
import json
import os
import shutil
import sys
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
from support import ROOT, Daemon  # noqa: E402

DATA = os.path.join(ROOT, "tests", "data")
TOKENS = {"path": "tiny-qwen.calibration.safetensors", "samples": 128, "sequence_length": 256}
PERPLEXITY = [{"name": "tokens", "path": "tiny-qwen.wikitext2-64k.safetensors", "sequence_length": 256}]
LONG = bool(os.environ.get("LONG"))
TEXT_BYTES = 186835  # of the test text: the 65,536 tokens


def reference(name):
    with open(os.path.join(DATA, "reference", f"tiny-qwen.{name}.json")) as file:
        return json.load(file)


class Qwen(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = daemon = Daemon()
        cls.addClassCleanup(daemon.remove)
        shutil.copytree(os.path.join(DATA, "tiny-qwen"), os.path.join(daemon.models, "tiny-qwen"))
        for name in os.listdir(os.path.join(DATA, "tasks")):
            shutil.copy(os.path.join(DATA, "tasks", name), daemon.data)
        for name in ("tiny-qwen.calibration.safetensors", "tiny-qwen.wikitext2-64k.safetensors", "wikitext2.valid.txt.gz"):
            shutil.copy(os.path.join(DATA, name), daemon.data)
        with open(os.path.join(ROOT, "demo", "wikitext2.test.txt"), "rb") as source:
            with open(os.path.join(daemon.data, "text.txt"), "wb") as file:
                file.write(source.read(TEXT_BYTES))
        daemon.start()

    def prune(self, **spec):
        """The job's result and its blocks; nothing is wrong with it."""
        job = self.daemon.submit({
            "model": "tiny-qwen", "sparsity": 0.5, "precision": "f32", "calibration": TOKENS, "evaluation": {"perplexity": PERPLEXITY}, **spec})
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done["error"])
        report = self.daemon.get(f"/v1/jobs/{job}/report").json
        self.assertEqual(report["diagnosis"], [])
        return done["result"], report["blocks"]

    def close(self, value, expected, relative):
        self.assertLess(abs(value / expected - 1), relative, f"{value} against {expected}")

    def exact(self, blocks):
        for block in blocks:
            layers = block["layers"].values()
            self.assertEqual(sum(l["zeros"] for l in layers), round(0.5 * sum(l["params"] for l in layers)))

    def test_wanda(self):
        """And the tasks, of the same job."""
        with open(os.path.join(DATA, "tasks", "golden.json")) as file:
            golden = json.load(file)
        result, blocks = self.prune(method="wanda", evaluation={
            "perplexity": PERPLEXITY, "tasks": [{"name": name, "path": name + ".jsonl", "format": task["format"]} for name, task in golden.items()]})
        self.check_tasks(result, golden)
        expected = reference("wanda-50")
        self.close(result["perplexity"]["tokens"]["dense"], expected["dense_perplexity"], 0.001)
        self.close(result["perplexity"]["tokens"]["pruned"], expected["pruned_perplexity"], 0.003)
        for block, wanted in zip(blocks, expected["blocks"], strict=True):
            self.close(block["reconstruction"], wanted["reconstruction"], 0.01)

    def test_magnitude(self):
        result, _ = self.prune(method="magnitude", calibration=None)
        self.close(result["perplexity"]["tokens"]["pruned"], reference("mag-50")["pruned_perplexity"], 0.003)

    def test_besa_by_row(self):
        result, blocks = self.prune()
        self.assertLess(result["perplexity"]["tokens"]["pruned"], reference("besa-row-50-d5")["pruned_perplexity"] * 1.005)
        self.exact(blocks)

    @unittest.skipUnless(LONG, "the bundled model is pruned by layer; both are by make check-long")
    def test_besa_by_layer(self):
        result, blocks = self.prune(besa={"granularity": "layer"})
        self.assertLess(result["perplexity"]["tokens"]["pruned"], reference("besa-layer-50-d5")["pruned_perplexity"] * 1.012)
        self.exact(blocks)

    def check_tasks(self, result, golden):
        self.assertEqual(set(result["tasks"]), set(golden))
        for name, scores in result["tasks"].items():
            for key in ("acc", "acc_stderr", "acc_norm", "acc_norm_stderr", "questions"):
                self.assertAlmostEqual(scores["dense"][key], golden[name][key], 12, (name, key))
            self.assertEqual(scores["pruned"]["questions"], golden[name]["questions"])
        self.assertNotEqual([s["dense"] for s in result["tasks"].values()], [s["pruned"] for s in result["tasks"].values()])

    def test_from_text(self):
        result, blocks = self.prune(
            method="besa" if LONG else "wanda", calibration={"path": "wikitext2.valid.txt.gz", "samples": 128, "sequence_length": 256},
            evaluation={"perplexity": [*PERPLEXITY, {"name": "text", "path": "text.txt", "sequence_length": 256}]})
        expected = reference("besa-row-50-d5" if LONG else "wanda-50")
        for name in ("tokens", "text"):
            with self.subTest(name):
                self.close(result["perplexity"][name]["dense"], expected["dense_perplexity"], 0.03)
                self.close(result["perplexity"][name]["pruned"], expected["pruned_perplexity"], 0.03)
        self.close(result["perplexity"]["text"]["dense"], result["perplexity"]["tokens"]["dense"], 1e-6)  # the tokens are the text's
        self.exact(blocks)


if __name__ == "__main__":
    unittest.main()
