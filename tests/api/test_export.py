#!/usr/bin/env python3
"""GGUF files: of jobs, and by `besad export`. Every tensor is compared with the safetensors beside it, by a reader of its own (gguf_file.py)."""
import hashlib
import json
import os
import shutil
import struct
import subprocess
import unittest

from gguf_file import Gguf, read_numbers, weights
from support import BESAD, PATIENCE, ROOT, Daemon, faults

DATA = os.path.join(ROOT, "tests", "data")
LLAMA, QWEN = os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(DATA, "tiny-qwen")
TYPES = ("f16", "q8_0", "q4_0", "q4_1")
NAMES = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
         "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm"}
ENDS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def single(number):
    return struct.unpack("<f", struct.pack("<f", number))[0]


def gguf_name(name, names=NAMES):
    stem, kind = name.rsplit(".", 1)
    if stem in ENDS:
        return f"{ENDS[stem]}.{kind}"
    block, rest = stem.removeprefix("model.layers.").split(".", 1)
    return f"blk.{block}.{names[rest]}.{kind}"


def in_neighbours(shape, numbers, heads):
    """Rows in the order in which llama.cpp turns them: those of the two halves of a head by turns."""
    cols = shape[1] if len(shape) > 1 else 1
    rows = [numbers[i:i + cols] for i in range(0, len(numbers), cols)]
    size = len(rows) // heads
    order = [head * size + half * (size // 2) + i for head in range(heads) for i in range(size // 2) for half in (0, 1)]
    return [number for row in order for number in rows[row]]


def q8_0(numbers):
    """As ggml's reference does it, in single precision."""
    made = b""
    for at in range(0, len(numbers), 32):
        block = numbers[at:at + 32]
        d = single(max(map(abs, block)) / 127)
        scale = single(1 / d) if d else 0
        scaled = [single(number * scale) for number in block]
        made += struct.pack("<e32b", d, *(int(abs(x) + 0.5) * (1 if x > 0 else -1) for x in scaled))
    return made


def run(*arguments, environment=None):
    return subprocess.run(arguments, capture_output=True, text=True, timeout=PATIENCE, env={**os.environ, **(environment or {})})


class Case(unittest.TestCase):
    def setUp(self):
        self.place = Daemon()  # for its directories; it is not started
        self.addCleanup(self.place.remove)

    def path(self, *names):
        return os.path.join(self.place.output, *names)

    def export(self, model, name="out.gguf", kind=None):
        done = run(BESAD, "export", *(["--type", kind] if kind else []), model, self.path(name))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.said = done.stderr
        return Gguf(self.path(name))

    def copy(self, model, **config):
        """A copy of a model with other fields in its config."""
        copy = os.path.join(self.place.models, "copy")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(model, copy)
        with open(os.path.join(copy, "config.json")) as file:
            changed = {**json.load(file), **config}
        with open(os.path.join(copy, "config.json"), "w") as file:
            json.dump(changed, file)
        return copy

    def compare(self, gguf, model, kind):
        """Every tensor, bit for bit where the type is F32, F16 or Q8_0; else within a step of its block's grid, and zeros as zeros."""
        with open(os.path.join(model, "config.json")) as file:
            config = json.load(file)
        stored = read_numbers(os.path.join(model, "model.safetensors"))
        tied = config["tie_word_embeddings"]
        head = "token_embd.weight" if tied else "output.weight"
        self.assertEqual(set(map(gguf_name, stored)), set(gguf.tensors))
        for name, (shape, numbers) in stored.items():
            heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}.get(name.split(".")[-2])
            if heads and config["model_type"] == "llama":
                numbers = in_neighbours(shape, numbers, heads)
            found, found_shape, data = gguf.tensors[gguf_name(name)]
            wanted = "F32" if len(shape) == 1 else "Q8_0" if gguf_name(name) == head and kind.startswith("q4") else kind.upper()
            self.assertEqual((found, found_shape), (wanted, shape), name)
            if found == "F32":
                self.assertEqual(data, struct.pack(f"<{len(numbers)}f", *numbers), name)
            elif found == "F16":
                self.assertEqual(data, struct.pack(f"<{len(numbers)}e", *numbers), name)
            elif found == "Q8_0":
                self.assertEqual(data, q8_0(numbers), name)
            else:
                self.compare_coarse(name, numbers, weights(found, data))

    def compare_coarse(self, name, numbers, found):
        self.assertEqual(len(numbers), len(found), name)
        for at in range(0, len(numbers), 32):
            block, back = numbers[at:at + 32], found[at:at + 32]
            most = max(map(abs, block)) * 1.02 / 8 + 2 ** -20
            for number, other in zip(block, back):
                if number == 0:
                    self.assertEqual(other, 0, name)
                elif abs(number - other) > most:
                    self.fail(f"{name}: {number} became {other}")


class Files(Case):
    def test_llama(self):
        gguf = self.export(LLAMA)
        self.compare(gguf, LLAMA, "f16")
        pairs = gguf.pairs
        self.assertEqual({key: pairs[key] for key in pairs if not key.startswith("tokenizer.")}, {
            "general.architecture": "llama", "general.type": "model", "general.name": "tiny-llama", "general.size_label": "3.4M",
            "general.file_type": 1, "general.quantization_version": 2, "llama.block_count": 6, "llama.context_length": 512,
            "llama.embedding_length": 192, "llama.feed_forward_length": 512, "llama.attention.head_count": 6, "llama.attention.head_count_kv": 6,
            "llama.rope.freq_base": 10000, "llama.attention.layer_norm_rms_epsilon": single(1e-5), "llama.attention.key_length": 32,
            "llama.attention.value_length": 32, "llama.vocab_size": 2048, "llama.rope.dimension_count": 32})
        self.assertEqual({key: pairs["tokenizer.ggml." + key] for key in ("model", "pre", "bos_token_id", "eos_token_id", "add_bos_token")},
                         {"model": "llama", "pre": "default", "bos_token_id": 1, "eos_token_id": 2, "add_bos_token": True})
        self.assertEqual(pairs["tokenizer.ggml.tokens"][:5], ["<unk>", "<s>", "</s>", "<0x00>", "<0x01>"])
        # Unknown, control, byte, normal.
        self.assertEqual([pairs["tokenizer.ggml.token_type"][id_] for id_ in (0, 1, 2, 3, 258, 300)], [2, 3, 3, 6, 6, 1])
        self.assertEqual([pairs["tokenizer.ggml.scores"][id_] for id_ in (3, 259, 300)], [0, 0, -41])
        self.assertEqual(len(pairs["tokenizer.ggml.tokens"]), 2048)

    def test_qwen(self):
        for kind in TYPES:
            gguf = self.export(QWEN, f"{kind}.gguf", kind)
            self.compare(gguf, QWEN, kind)
            self.assertEqual(gguf.pairs["general.file_type"], {"f16": 1, "q8_0": 7, "q4_0": 2, "q4_1": 3}[kind])
        pairs = gguf.pairs
        self.assertEqual((pairs["general.architecture"], pairs["qwen2.attention.head_count_kv"]), ("qwen2", 2))
        with open(os.path.join(QWEN, "tokenizer.json")) as file:
            tokenizer = json.load(file)
        self.assertEqual(pairs["tokenizer.ggml.model"], "gpt2")
        self.assertEqual(pairs["tokenizer.ggml.pre"], "default")
        self.assertIn("tokenizer.ggml.pre", self.said)  # a warning
        merges = tokenizer["model"]["merges"]
        self.assertEqual(pairs["tokenizer.ggml.merges"], [merge if isinstance(merge, str) else " ".join(merge) for merge in merges])
        for token, id_ in tokenizer["model"]["vocab"].items():
            self.assertEqual(pairs["tokenizer.ggml.tokens"][id_], token)
        for added in tokenizer["added_tokens"]:
            self.assertEqual(pairs["tokenizer.ggml.token_type"][added["id"]], 3 if added["special"] else 4)

    def test_rows_without_tokens(self):
        copy = self.copy(QWEN)
        with open(os.path.join(copy, "tokenizer.json")) as file:
            tokenizer = json.load(file)
        last = max(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
        tokenizer["model"]["vocab"].pop(last)
        tokenizer["model"]["merges"] = [merge for merge in tokenizer["model"]["merges"] if "".join(merge).replace(" ", "") != last]
        id_ = len(tokenizer["model"]["vocab"])
        with open(os.path.join(copy, "tokenizer.json"), "w") as file:
            json.dump(tokenizer, file)
        pairs = self.export(copy).pairs
        unused = [i for i, kind in enumerate(pairs["tokenizer.ggml.token_type"]) if kind == 5]
        self.assertTrue(unused)
        self.assertEqual([pairs["tokenizer.ggml.tokens"][i] for i in unused], [f"[PAD{i}]" for i in unused])
        self.assertLessEqual(len(unused), len(pairs["tokenizer.ggml.tokens"]) - id_ + 1)

    def test_chat_template(self):
        copy = self.copy(QWEN)
        with open(os.path.join(copy, "chat_template.jinja"), "w") as file:
            file.write("{{ messages }}")
        self.assertEqual(self.export(copy).pairs["tokenizer.chat_template"], "{{ messages }}")

    def test_rope_of_llama_3(self):
        scaled = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
        gguf = self.export(self.copy(LLAMA, rope_scaling=scaled))
        kind, shape, data = gguf.tensors["rope_freqs.weight"]
        factors = weights(kind, data)
        self.assertEqual((kind, shape), ("F32", [16]))
        self.assertEqual(factors[0], 1)   # turns ten times in 64 tokens
        self.assertEqual(factors[-1], 8)  # not once
        self.assertEqual(factors, sorted(factors))

    def test_other_families(self):
        """What differs from Llama: names, norms, and what is told of the maths."""
        saved = os.path.join(DATA, "saved")
        norms = {"input_layernorm": "attn_norm", "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                 "post_feedforward_layernorm": "post_ffw_norm"}
        fused = {"self_attn.qkv_proj": "attn_qkv", "mlp.gate_up_proj": "ffn_up"}
        gemma = {"query_pre_attn_scalar": 12, "layer_types": None}
        for family, changes, names, added, told in (
                ("qwen3", {}, {}, 0, {"qwen3.attention.key_length": 12}),
                ("mistral", {}, {}, 0, {"general.architecture": "llama"}),
                ("phi3", {}, fused, 0, {"phi3.rope.dimension_count": 8}),
                ("gemma2", gemma, norms, 1, {"gemma2.attention.sliding_window": 20, "gemma2.attn_logit_softcapping": 5}),
                ("gemma3_text", gemma, norms, 1, {"gemma3.attention.sliding_window": 20, "gemma3.rope.freq_base_swa": 10000})):
            with self.subTest(family=family):
                copy = self.copy(os.path.join(saved, family), **changes)
                for name in ("tokenizer.json", "tokenizer_config.json"):
                    shutil.copy(os.path.join(saved, name), copy)
                gguf = self.export(copy, family + ".gguf")
                self.assertEqual({key: gguf.pairs[key] for key in told}, told)
                stored = read_numbers(os.path.join(copy, "model.safetensors"))
                wanted = {}
                for name, (shape, numbers) in stored.items():
                    mapped = gguf_name(name, {**NAMES, **names})
                    wanted[mapped] = [number + added for number in numbers] if "norm" in mapped else numbers
                self.assertEqual(set(wanted), set(gguf.tensors))
                for name, numbers in wanted.items():
                    kind, _, data = gguf.tensors[name]
                    if family != "mistral" or not {"attn_q", "attn_k"} & set(name.split(".")):
                        self.assertEqual(data, struct.pack(f"<{len(numbers)}{'f' if kind == 'F32' else 'e'}", *numbers), name)

    def test_refusals(self):
        for model, part in ((self.copy(LLAMA, hidden_act="gelu"), "hidden_act"), (os.path.join(DATA, "saved", "opt"), "'opt'"),
                            (os.path.join(DATA, "saved", "llama"), "tokenizer")):
            done = run(BESAD, "export", model, self.path("none.gguf"))
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn(part, done.stderr)
            self.assertEqual(os.listdir(self.place.output), [])
        self.export(QWEN)
        self.assertEqual(run(BESAD, "export", QWEN, self.path("out.gguf")).returncode, 1)
        for line in (("--type", "q5_0", QWEN, "x"), (QWEN,), (QWEN, "x", "y")):
            self.assertEqual(run(BESAD, "export", *line).returncode, 2)


class Jobs(Case):
    def command(self, output, **spec):
        job = self.path("..", output + ".json")
        with open(job, "w") as file:
            json.dump({"model": QWEN, "output": output, "method": "magnitude", "sparsity": 0.5, "progress": {"perplexity_every": 0},
                       **spec}, file)
        return (BESAD, "run", "--threads", "1", "--model-root", DATA, "--output-root", self.place.output, job)

    def test_all_types(self):
        done = run(*self.command("all", export=["gguf-" + kind for kind in TYPES]))
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(self.path("all", "besad.json")) as file:
            report = json.load(file)
        listed = {entry["name"]: entry for entry in report["artifacts"]}
        for kind in TYPES:
            name = f"model-{kind}.gguf"
            gguf = Gguf(self.path("all", name))
            self.compare(gguf, self.path("all"), kind)
            self.assertEqual(gguf.pairs["general.name"], "all")
            zeros = weights(*[gguf.tensors["blk.0.ffn_up.weight"][i] for i in (0, 2)]).count(0)
            self.assertGreaterEqual(zeros, 0.49 * 448 * 160)
            with open(self.path("all", name), "rb") as file:
                data = file.read()
            self.assertEqual((listed[name]["bytes"], listed[name]["sha256"]), (len(data), hashlib.sha256(data).hexdigest()))
        self.assertEqual(report["spec"]["export"], ["gguf-" + kind for kind in TYPES])

    def test_gguf_alone(self):
        """It is one of F16, and the spec says so."""
        done = run(*self.command("plain", export=["gguf", "gguf-f16"]))
        self.assertEqual(done.returncode, 0, done.stderr)
        self.compare(Gguf(self.path("plain", "model-f16.gguf")), self.path("plain"), "f16")
        with open(self.path("plain", "besad.json")) as file:
            self.assertEqual(json.load(file)["spec"]["export"], ["gguf-f16"])
        done = run(*self.command("twice", export=["gguf", "gguf"]))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("'gguf' is there twice", done.stderr)

    def test_of_packed_weights(self):
        """What is written of packed codes is what is written of the weights that they stand for."""
        made = []
        for form in ("packed", "dequan"):
            quantization = {"bits": 4, "format": "packed" if form == "packed" else "dequantized"}
            done = run(*self.command(form, quantization=quantization, export=["gguf-q8_0"]))
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(self.path(form, "model-q8_0.gguf"), "rb") as file:
                made.append(file.read().replace(form.encode(), b"called", 1))
        self.assertEqual(*made)

    def test_killed_while_it_writes(self):
        log = self.path("..", "calls")
        counting = faults(self, [self.place.output], log)
        done = run(*self.command("whole", export=["gguf-q8_0"]), environment=counting)
        self.assertEqual(done.returncode, 0, done.stderr)
        with open(log) as file:
            calls = [line.split()[0] for line in file if "gguf" in line]
        self.assertGreater(len(calls), 4)
        with open(self.path("whole", "model-q8_0.gguf"), "rb") as file:
            whole = file.read().replace(b"whole", b"again", 1)
        for call in (calls[0], calls[1], calls[len(calls) // 2], calls[-1]):
            shutil.rmtree(self.path("again"), ignore_errors=True)
            command = self.command("again", export=["gguf-q8_0"])
            killed = run(*command, environment={**counting, "FAULT_AT": call, "FAULT_KIND": "kill"})
            self.assertEqual(killed.returncode, -9, killed.stderr)
            self.assertFalse(os.path.exists(self.path("again")))
            done = run(*command)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(self.path("again", "model-q8_0.gguf"), "rb") as file:
                self.assertEqual(file.read(), whole)
            self.assertEqual([name for name in os.listdir(self.path("again")) if name.startswith(".")], [])

    def test_refused_specs(self):
        for spec, part in ((dict(export=["gguf-q5_0"]), "gguf-f16"), (dict(export="gguf-f16"), "list"), (dict(export=["gguf-f16"] * 2), "twice"),
                           (dict(export=[1]), "gguf-f16"), (dict(export=["gguf-f16"], method="none", sparsity=0), "none")):
            done = run(*self.command("refused", **spec))
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn(part, done.stderr)
        done = run(*self.command("refused", export=["gguf-f16"], model=os.path.join(DATA, "saved", "opt")))
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn("'opt'", done.stderr)


if __name__ == "__main__":
    unittest.main()
