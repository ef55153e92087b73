#!/usr/bin/env python3
"""Models as people have them: files that disagree, other names, parts that are missing, weights that are sparse already.

Each is one of tests/data/saved, changed so that transformers reads it as before, or refuses it. Needs Python 3 alone. BESAD names the program,
build/besad by default."""
import json
import os
import random
import shutil
import struct
import sys
import unittest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from test_families import read_safetensors, values, write_safetensors  # noqa: E402
from test_saved import GOLDEN, Workplace  # noqa: E402

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393\nsize 12345\n"


class Inputs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.place = Workplace()

    @classmethod
    def tearDownClass(cls):
        cls.place.remove()

    def setUp(self):
        self.model = os.path.join(self.place.models, "changed")

    def tearDown(self):
        shutil.rmtree(self.model)

    def start(self, family):
        """A copy of the family's model as `changed`; its tensors."""
        shutil.rmtree(self.model, ignore_errors=True)
        shutil.copytree(os.path.join(self.place.models, family), self.model)
        return read_safetensors(os.path.join(self.model, "model.safetensors"))[1]

    def write(self, name, tensors):
        write_safetensors(os.path.join(self.model, name), tensors)

    def put(self, name, text):
        with open(os.path.join(self.model, name), "w") as file:
            file.write(text)

    def config(self, **fields):
        path = os.path.join(self.model, "config.json")
        with open(path) as file:
            config = json.load(file)
        with open(path, "w") as file:
            json.dump({**config, **fields}, file)

    def check(self, right, warning=None):
        done = self.place.run("changed", method="none")
        self.assertEqual(done.returncode, 0, done.stderr)
        value = float(done.stdout.split("text: dense")[1].split()[0])
        self.assertLess(abs(value / right - 1), 1e-4, f"{value} and {right}")
        if warning:
            self.assertEqual(done.stderr.count("warning: "), 1, done.stderr)
            self.assertIn(warning, done.stderr)
        else:
            self.assertNotIn("warning: ", done.stderr)

    def refused(self, *parts):
        done = self.place.run("changed", method="none")
        self.assertNotEqual(done.returncode, 0)
        for part in parts:
            self.assertIn(part, done.stderr)

    def prune(self, method):
        done = self.place.run("changed", output="pruned", overwrite=True, sparsity=0.5, method=method,
                              calibration={"path": "text.txt", "samples": 4, "sequence_length": 64})
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(os.path.join(self.place.output, "pruned", "besad.json")) as file:
            return done.stderr, json.load(file)

    def test_fields(self):
        llama = GOLDEN["perplexity"]["llama"]
        with open(os.path.join(self.place.models, "llama", "config.json")) as file:
            rope = json.load(file)["rope_parameters"]
        scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
        for fields in (dict(pretraining_tp=2), dict(architectures=["LLaMAForCausalLM"]), dict(architectures=["LlamaModel"]),
                       dict(rope_scaling=scaling, rope_theta=rope["rope_theta"]), dict(rope_interleaved=False, attention_dropout=0.1),
                       dict(rope_scaling=scaling, rope_theta=rope["rope_theta"], rope_parameters=None),
                       dict(router_aux_loss_coef=float("nan"), max_length=float("inf")),
                       dict(quantization_config={"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}})):
            with self.subTest(fields):
                self.start("llama")
                self.config(**fields)
                self.check(llama)
        self.start("llama")
        self.config(mlp_bias=True)
        self.refused("tensor 'model.layers.0.mlp.gate_proj.bias' is missing: config.json asks for biases")
        self.start("mixtral")
        self.config(num_local_experts=None, num_experts=4)
        self.check(GOLDEN["perplexity"]["mixtral"])
        for fields, part in ((dict(rope_theta=1234.0), "'rope_theta' 1234 and 'rope_theta' 500000 in 'rope_parameters' contradict"),
                             (dict(logits_warp=2), "'logits_warp' is 2: a field that is not known"),
                             (dict(quantization_config={"quant_method": "gptq", "bits": 4}), "(gptq)"),
                             (dict(model_type="mamba"), "qwen3_moe (Qwen3MoeForCausalLM)")):
            with self.subTest(fields):
                self.start("llama")
                self.config(**fields)
                self.refused(part)

    def test_index(self):
        tensors = self.start("llama")
        names = sorted(tensors)
        halves = names[::2], names[1::2]
        for i, half in enumerate(halves):
            self.write(f"model-{i}.safetensors", {name: tensors[name] for name in half})
        weight_map = {name: f"model-{i}.safetensors" for i, half in enumerate(halves) for name in half}
        os.unlink(os.path.join(self.model, "model.safetensors"))
        llama = GOLDEN["perplexity"]["llama"]
        for change, warning in (({}, None), ({"mtp.fc.weight": "model-1.safetensors"}, "1 tensor is in no shard (mtp.fc.weight)"),
                                ({names[0]: "model-1.safetensors"}, f"1 tensor is in another shard than it says ({names[0]})")):
            self.put("model.safetensors.index.json", json.dumps({"weight_map": {**weight_map, **change}}))
            self.check(llama, warning)
        self.put("model.safetensors.index.json", json.dumps({"weight_map": dict(list(weight_map.items())[1:])}))
        self.check(llama, "1 tensor is not listed (")
        self.put("model.safetensors.index.json", json.dumps({"weight_map": {**weight_map, "x": "model-2.safetensors"}}))
        self.refused("names the shard model-2.safetensors, which is not there; fetch it")
        self.write("model.safetensors", tensors)
        self.check(llama, "model.safetensors and model.safetensors.index.json are both there")

    def test_heads(self):
        tensors = self.start("llama")
        dtype, shape, data = embeddings = tensors["model.embed_tokens.weight"]
        row = len(data) // shape[0]
        turned = b"".join(data[i:i + row] for i in reversed(range(0, len(data), row)))
        self.write("model.safetensors", {**tensors, "lm_head.weight": (dtype, shape, turned)})
        self.check(GOLDEN["other_head"], "has a 'lm_head.weight' that differs from 'model.embed_tokens.weight'")
        self.write("model.safetensors", {**tensors, "lm_head.weight": embeddings})
        self.check(GOLDEN["perplexity"]["llama"])
        del tensors["model.embed_tokens.weight"]
        self.write("model.safetensors", {**tensors, "lm_head.weight": embeddings})
        self.check(GOLDEN["perplexity"]["llama"])

    def test_names(self):
        for family, base in ("llama", "model."), ("opt", "model."), ("gpt2", "transformer."):
            tensors = self.start(family)
            self.write("model.safetensors", {name.removeprefix(base): tensor for name, tensor in tensors.items()})
            self.check(GOLDEN["perplexity"][family])
            _, report = self.prune("wanda")
            _, pruned = read_safetensors(os.path.join(self.place.output, "pruned", "model.safetensors"))
            self.assertEqual(sorted(pruned), sorted(name.removeprefix(base) for name in tensors))
            self.assertGreater(report["result"]["sparsity"], 0.49)
        tensors = self.start("mistral")
        del tensors["lm_head.weight"]
        self.write("model.safetensors", {name.removeprefix("model."): tensor for name, tensor in tensors.items()})
        self.refused("tensor 'lm_head.weight' is missing, and the embeddings are not tied")

    def test_tensors_that_are_not_asked_for(self):
        self.start("llama")
        self.config(num_hidden_layers=1)
        done = self.place.run("changed", method="none")
        self.assertIn("the weights have 9 tensors that config.json does not ask for (model.layers.1.input_layernorm.weight, ", done.stderr)
        tensors = self.start("llama")
        self.write("model.safetensors", {**tensors, "model.layers.0.self_attn.q_proj.bias": ("BF16", [32], bytes(64)),
                                         "model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", [4], bytes(16))})
        self.check(GOLDEN["perplexity"]["llama"], "1 tensor that config.json does not ask for (model.layers.0.self_attn.q_proj.bias)")
        tensors = self.start("gpt_neox")
        self.write("model.safetensors", {**tensors, "gpt_neox.layers.0.attention.bias": ("BOOL", [1, 1, 256, 256], bytes(65536)),
                                         "gpt_neox.layers.0.attention.masked_bias": ("F16", [], bytes(2))})
        self.check(GOLDEN["perplexity"]["gpt_neox"])

    def test_experts_in_one_tensor(self):
        tensors = self.start("mixtral")
        fused = {name: tensor for name, tensor in tensors.items() if ".experts." not in name}
        fused["model.layers.0.mlp.experts.gate_up_proj"] = ("BF16", [4, 96, 32], bytes(2 * 4 * 96 * 32))
        self.write("model.safetensors", fused)
        self.refused("the experts are fused into 'model.layers.0.mlp.experts.gate_up_proj'")

    def test_files(self):
        tensors = self.start("llama")
        self.put("model.safetensors", POINTER)
        self.refused("model.safetensors: a git-lfs pointer", "git lfs pull")
        os.unlink(os.path.join(self.model, "model.safetensors"))
        self.put("pytorch_model.bin", "x")
        self.refused("but pytorch_model.bin: weights in PyTorch's pickle format", "save_pretrained")
        self.write("model.safetensors", tensors)
        self.put("config.json", POINTER)
        self.refused("config.json: a git-lfs pointer")

    def test_sparse(self):
        """A block that is sparser than the target keeps its zeros, and that is told."""
        tensors = self.start("llama")
        rng = random.Random(0)
        weights = zeros = 0
        for name, (dtype, shape, data) in tensors.items():
            if ".layers.1." not in name or len(shape) != 2:
                continue
            sparse = [0 if rng.random() < 0.7 else value for value in struct.unpack(f"<{len(data) // 2}H", data)]
            tensors[name] = dtype, shape, struct.pack(f"<{len(sparse)}H", *sparse)
            weights += len(sparse)
            zeros += sum(value in (0, 0x8000) for value in sparse)
        self.write("model.safetensors", tensors)
        for method in "wanda", "besa":
            told, report = self.prune(method)
            self.assertEqual(told.count("warning: "), 1, told)
            self.assertIn(f"block 1: {100 * zeros / weights:.2f} % of its weights ({zeros} of {weights}) are zero already", told)
            reported = sum(layer["zeros"] for layer in report["blocks"][1]["layers"].values())
            self.assertGreaterEqual(reported, zeros)
            _, pruned = read_safetensors(os.path.join(self.place.output, "pruned", "model.safetensors"))
            written = sum(values(pruned[name]).count(0) for name in pruned if ".layers.1." in name and len(pruned[name][1]) == 2)
            self.assertEqual(written, reported)


if __name__ == "__main__":
    unittest.main()
