#!/usr/bin/env python3
"""Prunes the tiny model of every family in tests/data/families with the program, and looks at the files that come out.

Needs Python 3 alone. BESAD names the program, build/besad by default."""
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BESAD = os.environ.get("BESAD", os.path.join(ROOT, "build", "besad"))
FAMILIES = os.path.join(ROOT, "tests", "data", "families")
sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import read_safetensors, write_calibration, write_safetensors  # noqa: E402

LINEARS = ("w1", "w2", "w3", "q_proj", "k_proj", "v_proj", "qkv_proj", "o_proj", "gate_proj", "up_proj", "gate_up_proj", "down_proj",
           "out_proj", "fc1", "fc2", "dense", "c_attn", "c_fc", "c_proj", "query_key_value", "dense_h_to_4h", "dense_4h_to_h")


def is_linear(name):
    """A linear of a text model's block, or all experts' in one tensor."""
    parts = name.removesuffix(".weight").split(".")
    return "vision_tower" not in parts and parts[-1] in LINEARS


def values(tensor):
    """A bf16 tensor's elements as integers; zeros of either sign are 0."""
    return [value & 0x7FFF and value for value in struct.unpack(f"<{len(tensor[2]) // 2}H", tensor[2])]


class Families(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.directory = tempfile.mkdtemp(prefix="besad-families-")
        cls.models = os.path.join(cls.directory, "models")
        write_calibration(os.path.join(cls.directory, "tokens.safetensors"), 12, 32, vocab=64)
        for family in sorted(os.listdir(FAMILIES)):
            source = os.path.join(FAMILIES, family)
            if os.path.isdir(source):
                os.makedirs(os.path.join(cls.models, family))
                shutil.copy(os.path.join(source, "model.safetensors"), os.path.join(cls.models, family))
                case = max(name for name in os.listdir(source) if name.endswith(".json"))
                shutil.copy(os.path.join(source, case), os.path.join(cls.models, family, "config.json"))

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.directory)

    def prune(self, model, **spec):
        """The report, and the output's header and tensors."""
        name = f"{model}-{spec['method']}"
        path = os.path.join(self.directory, name + ".json")
        with open(path, "w") as file:
            json.dump({"model": model, "output": name, "overwrite": True, "sparsity": 0.5, "precision": "f32", "calibration":
                       {"path": "tokens.safetensors", "samples": 12, "sequence_length": 32}, **spec}, file)
        subprocess.run([BESAD, "run", path, "--model-root", self.models, "--data-root", self.directory, "--output-root",
                        os.path.join(self.directory, "output")], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        output = os.path.join(self.directory, "output", name)
        with open(os.path.join(output, "besad.json")) as file:
            return json.load(file), *read_safetensors(os.path.join(output, "model.safetensors"))

    def check_files(self, model):
        report, header, pruned = self.prune(model, method="besa")
        dense_header, dense = read_safetensors(os.path.join(self.models, model, "model.safetensors"))
        self.assertEqual(header, dense_header)
        for block in report["blocks"]:
            weights = zeros = 0
            for name in dense:
                inside = any(f".{blocks}.{block['block']}." in name for blocks in ("layers", "h"))
                if inside and is_linear(name):
                    before, after = values(dense[name]), values(pruned.pop(name))
                    self.assertTrue(all(new in (0, old) for old, new in zip(before, after)), name)
                    weights += len(after)
                    zeros += after.count(0)
            self.assertEqual(zeros, round(weights / 2))
            self.assertEqual(zeros, sum(layer["zeros"] for layer in block["layers"].values()))
            self.assertEqual(weights, sum(layer["params"] for layer in block["layers"].values()))
        for name, tensor in pruned.items():
            self.assertEqual(tensor, dense[name], name)

    def test_files(self):
        families = os.listdir(self.models)
        self.assertIn("llama", families)
        for family in families:
            with self.subTest(family):
                self.check_files(family)

    def test_fused_tensors_are_pruned_as_their_parts(self):
        """Phi-3's blocks are Mistral's, stored otherwise: both must lose the same weights."""
        _, tensors = read_safetensors(os.path.join(self.models, "phi3", "model.safetensors"))
        shutil.copy(os.path.join(FAMILIES, "phi3", "fused-classic.json"), os.path.join(self.models, "phi3", "config.json"))
        with open(os.path.join(self.models, "phi3", "config.json")) as file:
            config = json.load(file)
        head = config["hidden_size"] // config["num_attention_heads"]
        query, key, wide = config["hidden_size"], config["num_key_value_heads"] * head, config["intermediate_size"]
        parts = {"qkv_proj": (("q_proj", query), ("k_proj", key), ("v_proj", key)),
                 "gate_up_proj": (("gate_proj", wide), ("up_proj", wide))}

        def split(tensors):
            for name, (dtype, shape, data) in tensors.items():
                kind, row = name.split(".")[-2], len(data) // shape[0]
                first = 0
                for part, rows in parts.get(kind, ((kind, shape[0]),)):
                    yield name.replace(kind, part), (dtype, [rows, *shape[1:]], data[first * row:(first + rows) * row])
                    first += rows

        os.mkdir(os.path.join(self.models, "split"))
        write_safetensors(os.path.join(self.models, "split", "model.safetensors"), dict(split(tensors)))
        with open(os.path.join(self.models, "split", "config.json"), "w") as file:
            json.dump({**config, "model_type": "mistral", "architectures": ["MistralForCausalLM"]}, file)
        for method in "besa", "wanda":
            fused_report, _, fused = self.prune("phi3", method=method)
            report, _, pruned = self.prune("split", method=method)
            self.assertEqual(dict(split(fused)), pruned)
            self.assertEqual([block["layers"] for block in fused_report["blocks"]], [block["layers"] for block in report["blocks"]])
        shutil.rmtree(os.path.join(self.models, "split"))


if __name__ == "__main__":
    unittest.main()
