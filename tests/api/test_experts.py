#!/usr/bin/env python3
"""Models with experts, pruned over HTTP: exact counts, experts' tokens, and an expert that sees none."""
import json
import math
import os
import re
import shutil
import struct
import unittest

from support import ROOT, Daemon, write_calibration

SAMPLES, LENGTH, EXPERTS, CHOSEN = 16, 48, 5, 2


def read_tensors(path):
    """{name: (shape, bytes)} of a safetensors file."""
    with open(path, "rb") as file:
        data = file.read()
    size = struct.unpack("<Q", data[:8])[0]
    body = data[8 + size:]
    return {name: (info["shape"], body[slice(*info["data_offsets"])])
            for name, info in json.loads(data[8:8 + size]).items() if name != "__metadata__"}


def rows(tensor):
    """Rows of a bf16 matrix as the bits of its elements without their signs: ordered as the magnitudes are."""
    (height, width), data = tensor
    bits = [b & 0x7fff for b in struct.unpack(f"<{height * width}H", data)]
    return [bits[i * width:(i + 1) * width] for i in range(height)]


def blind_expert(path, name, hidden):
    """Writes a router that sends no token to the last of its five experts: their logits are d, -d, d/2, -d/2 and 0."""
    with open(path, "r+b") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        first = json.loads(file.read(size))[name]["data_offsets"][0]
        file.seek(8 + size + first)
        for bits in (0x3f80, 0xbf80, 0x3f00, 0xbf00, 0):
            file.write(struct.pack(f"<{hidden}H", *[bits] * hidden))


class Experts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"))
        data = os.path.join(ROOT, "tests", "data", "families")
        for family, case in (("mixtral", "classic"), ("qwen3_moe", "shares-of-all-newer")):
            directory = os.path.join(cls.daemon.models, family)
            os.mkdir(directory)
            shutil.copy(os.path.join(data, family, "model.safetensors"), directory)
            shutil.copy(os.path.join(data, family, case + ".json"), os.path.join(directory, "config.json"))
        cls.model = os.path.join(cls.daemon.models, "mixtral", "model.safetensors")
        blind_expert(cls.model, "model.layers.0.block_sparse_moe.gate.weight", 32)
        write_calibration(os.path.join(cls.daemon.data, "tokens.safetensors"), SAMPLES, LENGTH, vocab=64)
        cls.daemon.start()

    @classmethod
    def tearDownClass(cls):
        cls.daemon.remove()

    def prune(self, model, **spec):
        job = self.daemon.submit({"model": model, "method": "besa", "sparsity": 0.5, "progress": {"perplexity_every": 1},
                                  "calibration": {"path": "tokens.safetensors", "samples": SAMPLES, "sequence_length": LENGTH},
                                  "evaluation": {"perplexity": [{"path": "tokens.safetensors", "sequence_length": LENGTH}]}, **spec})
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done)
        return done, self.daemon.events(job)

    def finished(self, events):
        return [e["data"] for e in events if e["type"] == "block.finished"]

    def check_blocks(self, done, events, experts, chosen):
        params = zeros = 0
        for block in self.finished(events):
            own = sum(layer["params"] for layer in block["layers"].values())
            self.assertEqual(sum(layer["zeros"] for layer in block["layers"].values()), round(own / 2))
            self.assertEqual(len(block["experts"]), experts)
            self.assertEqual(sum(e["tokens"] for e in block["experts"]), SAMPLES * LENGTH * chosen)
            self.assertTrue(all(0 < e["sparsity"] < 1 for e in block["experts"]))
            params, zeros = params + own, zeros + round(own / 2)
        self.assertEqual(done["result"]["sparsity"], zeros / params)
        report = self.daemon.get(f"/v1/jobs/{done['id']}/report").json
        self.assertEqual([b["experts"] for b in report["blocks"]], [b["experts"] for b in self.finished(events)])

    def test_mixtral(self):
        for besa in ({"granularity": "row"}, {"granularity": "layer"}, {"reconstruct": "two_blocks"}):
            done, events = self.prune("mixtral", besa=besa)
            self.check_blocks(done, events, EXPERTS, CHOSEN)
            layers = self.finished(events)[0]["layers"]
            self.assertEqual(sorted(layers), sorted(["q_proj", "k_proj", "v_proj", "o_proj", "experts.w1", "experts.w2", "experts.w3"]))
            self.assertEqual(layers["experts.w1"]["params"], EXPERTS * 40 * 32)

    def test_an_expert_without_tokens_is_told_and_pruned_by_magnitude(self):
        done, events = self.prune("mixtral", method="wanda")
        self.assertEqual([e["tokens"] == 0 for e in self.finished(events)[0]["experts"]], [False] * 4 + [True])
        messages = [e["data"]["message"] for e in events if e["type"] == "warning"]
        self.assertEqual(sum("block 0: no calibration token reached expert 4 (1 of 5)" in m for m in messages), 1, messages)
        before = read_tensors(self.model)
        after = read_tensors(os.path.join(self.daemon.output, done["result"]["output"], "model.safetensors"))
        self.assertEqual(before.keys(), after.keys())
        ordered = {}
        for expert in (0, 4):
            name = f"model.layers.0.block_sparse_moe.experts.{expert}.w1.weight"
            by_magnitude = []
            for old, new in zip(rows(before[name]), rows(after[name])):
                pruned = [o for o, n in zip(old, new) if n == 0]
                self.assertEqual(len(pruned), 16)
                by_magnitude.append(max(pruned) <= min(n for n in new if n))
            ordered[expert] = all(by_magnitude)
        self.assertEqual(ordered, {0: False, 4: True})

    def test_admm_leaves_an_expert_without_tokens_as_it_is_but_for_the_smallest(self):
        done, events = self.prune("mixtral", method="admm")
        self.check_blocks(done, events, EXPERTS, CHOSEN)
        before = read_tensors(self.model)
        after = read_tensors(os.path.join(self.daemon.output, done["result"]["output"], "model.safetensors"))
        for expert in (0, 4):
            name = f"model.layers.0.block_sparse_moe.experts.{expert}.w1.weight"
            pairs = [pair for old, new in zip(rows(before[name]), rows(after[name])) for pair in zip(old, new)]
            pruned, kept = [o for o, n in pairs if n == 0], [pair for pair in pairs if pair[1]]
            self.assertEqual(len(pruned), len(pairs) / 2)
            self.assertEqual(all(o == n for o, n in kept) and max(pruned) <= min(o for o, _ in kept), expert == 4)

    def test_experts_with_fewer_tokens_than_columns(self):
        """No NaN, exact counts, and one warning for each of a block's two layers of experts."""
        few = {"path": "tokens.safetensors", "samples": 1, "sequence_length": LENGTH}
        for spec in ({"method": "sparsegpt"}, {"method": "admm"}, {"method": "wanda", "refit": {"method": "least_squares"}}):
            with self.subTest(spec):
                done, events = self.prune("mixtral", calibration=few, **spec)
                perplexity = done["result"]["perplexity"]
                self.assertTrue(all(math.isfinite(value["pruned"]) for value in perplexity.values()), perplexity)
                messages = [e["data"]["message"] for e in events if e["type"] == "warning"]
                for block in range(2):
                    told = [m for m in messages if re.match(rf"block {block}: only \d+ tokens of the calibration reach \S+\.experts\.", m)]
                    self.assertEqual(len(told), 2, messages)

    def test_feedback_rounds_an_expert_without_tokens_to_the_nearest(self):
        outputs = []
        for rounding in ("nearest", "feedback"):
            done, events = self.prune("mixtral", method="wanda", quantization={"bits": 3, "group_size": "channel", "rounding": rounding})
            self.assertTrue(all(math.isfinite(block["reconstruction"]) for block in self.finished(events)))
            outputs.append(read_tensors(os.path.join(self.daemon.output, done["result"]["output"], "model.safetensors")))
        for expert in (0, 4):
            for linear in ("w1", "w2", "w3"):
                nearest, feedback = (tensors[f"model.layers.0.block_sparse_moe.experts.{expert}.{linear}.weight"] for tensors in outputs)
                self.assertEqual(nearest == feedback, expert == 4, linear)

    def test_a_refit_trains_experts_and_norms_but_no_router(self):
        plain, _ = self.prune("mixtral", method="wanda")
        done, events = self.prune("mixtral", method="wanda", refit={"method": "block"})
        self.check_blocks(done, events, EXPERTS, CHOSEN)
        steps = [e["data"] for e in events if e["type"] == "block.step"]
        self.assertEqual({step["stage"] for step in steps}, {"refit"})
        self.assertEqual({step["steps"] for step in steps}, {2 * SAMPLES // 4})
        before, after = (read_tensors(os.path.join(self.daemon.output, d["result"]["output"], "model.safetensors")) for d in (plain, done))
        block = "model.layers.0."
        same = {name.removeprefix(block): before[name] == after[name] for name in before if name.startswith(block)}
        moe = "block_sparse_moe."
        self.assertTrue(same.pop(f"{moe}gate.weight"))
        self.assertEqual({name for name in same if same[name]}, {f"{moe}experts.4.{linear}.weight" for linear in ("w1", "w2", "w3")})
        for name in same:
            if len(before[block + name][0]) == 2:
                zeros = [[[not bits for bits in row] for row in rows(tensors[block + name])] for tensors in (before, after)]
                self.assertEqual(*zeros, name)
        losses = [[b["reconstruction"] for b in self.finished(e)] for e in (events, self.daemon.events(plain["id"]))]
        self.assertLess(losses[0][0], losses[1][0])

    def test_what_is_not_pruned_stays(self):
        done, _ = self.prune("mixtral", method="magnitude")
        before = read_tensors(self.model)
        after = read_tensors(os.path.join(self.daemon.output, done["result"]["output"], "model.safetensors"))
        for name, tensor in before.items():
            same = "_proj" not in name and ".w" not in name.removesuffix(".weight")
            self.assertEqual(tensor == after[name], same, name)

    def test_qwen3_moe(self):
        done, events = self.prune("qwen3_moe")
        self.check_blocks(done, events, 12, 3)
        again, _ = self.prune("qwen3_moe")
        paths = [os.path.join(self.daemon.output, d["result"]["output"], "model.safetensors") for d in (done, again)]
        with open(paths[0], "rb") as first, open(paths[1], "rb") as second:
            self.assertEqual(first.read(), second.read())

    def test_dense_models_have_no_experts(self):
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(self.daemon.models, "dense"))
        job = self.daemon.submit({"model": "dense", "sparsity": 0.5, "method": "magnitude"})
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.assertIsNone(self.daemon.get(f"/v1/jobs/{job}/report").json["blocks"][0]["experts"])
        self.assertNotIn("experts", self.finished(self.daemon.events(job))[0])


if __name__ == "__main__":
    unittest.main(verbosity=2)
