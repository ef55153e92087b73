#!/usr/bin/env python3
"""What the zeros are worth on ViTCoD's accelerator: `besad bench --simulate` and the `hardware` of a job against an implementation of
its own, of random masks and of pruned models. That one is written from the published rules (docs/hardware.md), row by row and weight by
weight, and shares nothing with besad's. And what `besad bench` and jobs say of products that they time, but for the times."""
import json
import math
import os
import random
import shutil
import struct
import subprocess
import sys
import unittest
from fractions import Fraction

from support import BESAD, PATIENCE, ROOT, Daemon, family_model, small_job, small_model, wait_for, write_calibration

sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import read_safetensors, write_safetensors  # noqa: E402

PES = 64
BUS = Fraction(768, 5)  # bytes a cycle


def ceil(value):
    return math.ceil(Fraction(value))


# ---- the accelerator ----------------------------------------------------------------------------------------------------------

def split(rows, width, threshold):
    """The dense columns of a patch, whose rows are sets of columns, and the PE columns that they get."""
    counts = [0] * width
    for row in rows:
        for column in row:
            counts[column] += 1
    dense = {j for j, count in enumerate(counts) if count > threshold * len(rows)}
    inside = sum(counts[j] for j in dense)
    outside = sum(counts) - inside
    work = len(dense) * len(rows)
    return dense, inside, outside, math.floor(Fraction(PES * work, work + outside)) if work + outside else 0


def attempt(rows, width, threshold, size, last):
    """The cycles of one try by the three ways of counting, what the dense columns hold, and what all do."""
    height = len(rows)
    dense, inside, outside, wide = split(rows, width, threshold)
    rest, total = PES - wide, inside + outside
    published = max(ceil(Fraction(width * len(dense), wide * PES)) if wide else 0, ceil(Fraction(outside, rest * PES)) if rest else outside)
    if not wide:
        dense, outside, rest = set(), total, PES
    corrected = max(ceil(Fraction(height * len(dense), wide * PES)) if dense else 0, ceil(Fraction(outside, rest * PES)) if rest else outside)
    whole = ceil(Fraction(height, PES)) * ceil(Fraction(len(dense), wide)) if dense else 0
    parts = 0
    for first in range(0, height, PES):
        most = max(len(row - dense) for row in rows[first:first + PES])
        parts += ceil(Fraction(most, rest)) if most else 0
    stored = size * (height * len(dense) + outside) + ceil(Fraction(height * (width - len(dense)), 8)) + ceil(Fraction(width, 8))
    compute, transfer = max(whole, parts), ceil((stored + size * (width + (height if last else 0))) / BUS)
    return [published, corrected, max(compute, transfer), compute, transfer], inside, total


def least(rows, width, size, last):
    """The least cycles of up to five tries: [published, corrected, memory, its compute, its transfer]."""
    threshold, best = Fraction(1, 2), None
    for _ in range(5):
        cycles, inside, nonzeros = attempt(rows, width, threshold, size, last)
        if best is None:
            best = cycles
        else:
            best[0], best[1] = min(best[0], cycles[0]), min(best[1], cycles[1])
            if cycles[2] < best[2]:
                best[2:] = cycles[2:]
        if nonzeros == 0 or Fraction(2, 5) < Fraction(inside, nonzeros) < Fraction(3, 5):
            break
        threshold += Fraction(1, 10) if Fraction(inside, nonzeros) >= Fraction(3, 5) else -Fraction(1, 10)
    return best


def without_zeros(height, width, size, last):
    transfer = ceil(size * (height * width + width + (height if last else 0)) / BUS)
    compute = ceil(Fraction(height, PES)) * ceil(Fraction(width, PES))
    return [ceil(Fraction(width * width, PES * PES)), ceil(Fraction(height * width, PES * PES)), max(compute, transfer)]


def simulate(rows, cols, patch, size):
    """(cycles of the five kinds, of three without zeros) of a matrix whose rows are sets of columns."""
    pruned, dense = [0] * 5, [0] * 3
    for first in range(0, cols, patch):
        end = min(first + patch, cols)
        piece = [{j - first for j in row if first <= j < end} for row in rows]
        pruned = [a + b for a, b in zip(pruned, least(piece, end - first, size, end == cols))]
        dense = [a + b for a, b in zip(dense, without_zeros(len(rows), end - first, size, end == cols))]
    return pruned, dense


# ---- models -------------------------------------------------------------------------------------------------------------------

SIZES = {"F32": 4, "BF16": 2, "F16": 2}


def row_sets(kind, height, width, data):
    code, zero = ("I", 0x7fffffff) if kind == "F32" else ("H", 0x7fff)
    values = struct.unpack(f"<{height * width}{code}", data)
    return [{j for j, value in enumerate(values[i * width:(i + 1) * width]) if value & zero} for i in range(height)]


def linears(tensors):
    """(kind, type, rows as sets of columns, columns, expert or None) of each linear of the blocks, whose names are LLaMA's, Mixtral's or
    GPT-2's."""
    for name, (kind, shape, data) in tensors.items():
        parts = name.split(".")
        if parts[:2] == ["transformer", "h"] and parts[3] in ("attn", "mlp") and parts[-1] == "weight":  # GPT-2: transposed
            columns = row_sets(kind, *shape, data)
            layer = ".".join(parts[3:5]) if parts[4] == "c_proj" else parts[4]
            yield layer, kind, [{j for j, column in enumerate(columns) if i in column} for i in range(shape[1])], shape[0], None
            continue
        if "layers" not in parts or parts[-1] != "weight" or len(shape) != 2 or parts[-2] == "gate":
            continue
        layer = "experts." + parts[-2] if "experts" in parts else parts[-2]
        yield layer, kind, row_sets(kind, *shape, data), shape[1], int(parts[parts.index("experts") + 1]) if "experts" in parts else None


def expected(path):
    """{layer: {"linears", "params", "zeros", "pruned", "dense"}} of a model file."""
    found = {}
    for layer, kind, rows, cols, _ in linears(read_safetensors(path)[1]):
        squares = layer in ("down_proj", "experts.w2", "mlp.c_proj") and cols > len(rows)
        pruned, dense = simulate(rows, cols, len(rows) if squares else cols, SIZES[kind])
        sums = found.setdefault(layer, {"linears": 0, "params": 0, "zeros": 0, "pruned": [0] * 5, "dense": [0] * 3})
        sums["linears"] += 1
        sums["params"] += len(rows) * cols
        sums["zeros"] += len(rows) * cols - sum(map(len, rows))
        sums["pruned"] = [a + b for a, b in zip(sums["pruned"], pruned)]
        sums["dense"] = [a + b for a, b in zip(sums["dense"], dense)]
    return found


def write_masked(path, shapes, kind, rng):
    """A safetensors file of random zeros: of some linears none, of some all, else with a density of its own for each column."""
    tensors = {}
    for name, (height, width) in shapes.items():
        style = rng.choice(("columns", "columns", "even", "full", "empty", "few"))
        density = {"columns": None, "even": 0.5, "full": 1, "empty": 0, "few": 0.01}[style]
        columns = [rng.random() ** rng.choice((0.3, 1, 3)) if density is None else density for _ in range(width)]
        ones = {"F32": b"\0\0\x80\x3f", "BF16": b"\x80\x3f", "F16": b"\0\x3c"}[kind]
        zeros = (b"\0" * SIZES[kind], b"\0" * (SIZES[kind] - 1) + b"\x80")  # of either sign
        data = b"".join(ones if rng.random() < columns[j] else zeros[rng.random() < 0.1] for _ in range(height) for j in range(width))
        tensors[name] = kind, [height, width], data
    write_safetensors(path, tensors)


def random_model(directory, hidden, intermediate, heads, kv_heads, kind, rng):
    """A LLaMA of two blocks whose linears have random zeros."""
    head = hidden // heads
    shapes = {"model.embed_tokens.weight": (32, hidden), "lm_head.weight": (32, hidden)}
    for i in range(2):
        for name, shape in (("self_attn.q_proj", (hidden, hidden)), ("self_attn.k_proj", (kv_heads * head, hidden)),
                            ("self_attn.v_proj", (kv_heads * head, hidden)), ("self_attn.o_proj", (hidden, hidden)),
                            ("mlp.gate_proj", (intermediate, hidden)), ("mlp.up_proj", (intermediate, hidden)),
                            ("mlp.down_proj", (hidden, intermediate))):
            shapes[f"model.layers.{i}.{name}.weight"] = shape
    os.mkdir(directory)
    write_masked(os.path.join(directory, "linears.safetensors"), shapes, kind, rng)
    norm = kind, [hidden], bytes(hidden * SIZES[kind])
    norms = {f"model.layers.{i}.{name}.weight": norm for i in range(2) for name in
             ("input_layernorm", "post_attention_layernorm")} | {"model.norm.weight": norm}
    write_safetensors(os.path.join(directory, "norms.safetensors"), norms)
    index = {name: "linears.safetensors" for name in shapes} | {name: "norms.safetensors" for name in norms}
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {}, "weight_map": index}, file)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": hidden, "intermediate_size": intermediate,
                   "num_hidden_layers": 2, "num_attention_heads": heads, "num_key_value_heads": kv_heads, "vocab_size": 32,
                   "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "tie_word_embeddings": False}, file)


def bench(model, *options):
    return subprocess.run([BESAD, "bench", *options, model], capture_output=True, text=True, timeout=PATIENCE)


def read_by_token(path, experts=0):
    """{layer: (linears that a token goes through, bytes that are read of them packed)}: a bitmap of whole words, and the values of 16 rows at
    a time up to a multiple of 64 bytes."""
    weights = {}
    for layer, _, rows, cols, expert in linears(read_safetensors(path)[1]):
        if expert is not None and expert >= experts:
            continue
        values = sum(ceil(Fraction(2 * sum(map(len, rows[i:i + 16])), 64)) * 64 for i in range(0, len(rows), 16))
        count, read = weights.get(layer, (0, 0))
        weights[layer] = count + 1, read + len(rows) * ceil(Fraction(cols, 64)) * 8 + values
    return weights


class Hardware(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"))
        self.addCleanup(self.daemon.remove)

    def check_counts(self, simulated, pruned, dense):
        self.assertEqual(list(simulated), ["published", "corrected", "memory"])
        for i, counted in enumerate(simulated.values()):
            self.assertEqual((counted["cycles"], counted["dense_cycles"]), (pruned[i], dense[i]), list(simulated)[i])
            if pruned[i]:
                self.assertAlmostEqual(counted["speedup"], dense[i] / pruned[i])
            else:
                self.assertIsNone(counted["speedup"])
        self.assertEqual((simulated["memory"]["compute_cycles"], simulated["memory"]["transfer_cycles"]), (pruned[3], pruned[4]))

    def check(self, hardware, wanted):
        self.assertEqual({layer["layer"] for layer in hardware["layers"]}, set(wanted))
        for layer in hardware["layers"]:
            own = wanted[layer["layer"]]
            with self.subTest(layer=layer["layer"]):
                self.assertEqual({key: layer[key] for key in ("linears", "params", "zeros")}, {key: own[key] for key in ("linears", "params", "zeros")})
                self.assertEqual(layer["linears"] * layer["rows"] * layer["cols"], layer["params"])
                self.check_counts(layer["simulated"], own["pruned"], own["dense"])
        self.check_counts(hardware["simulated"], *([sum(own[key][i] for own in wanted.values()) for i in range(n)] for key, n in
                                                   (("pruned", 5), ("dense", 3))))

    def bench(self, model):
        done = bench(model, "--simulate", "--json")
        self.assertEqual(done.returncode, 0, done.stderr)
        return json.loads(done.stdout)

    def test_random_masks(self):
        """Of widths that are multiples of nothing, with a tail of columns in the last linear of the MLP."""
        rng = random.Random(7)
        shapes = [(64, 64, 4, 4, "BF16"), (72, 200, 6, 2, "F32"), (130, 65, 13, 1, "F16"), (192, 500, 6, 3, "BF16"), (40, 600, 4, 2, "BF16")]
        for i, shape in enumerate(shapes):
            with self.subTest(shape=shape):
                directory = os.path.join(self.daemon.models, str(i))
                random_model(directory, *shape, rng)
                self.check(self.bench(directory), expected(os.path.join(directory, "linears.safetensors")))

    def test_bundled_model(self):
        """Pruned by a job, whose result, report and file say the same as the independent figures."""
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(self.daemon.models, "tiny-llama"))
        shutil.copy(os.path.join(ROOT, "demo", "calibration.safetensors"), self.daemon.data)
        self.daemon.start()
        job = self.daemon.submit({"model": "tiny-llama", "output": "pruned", "method": "wanda", "sparsity": 0.5, "hardware": {"simulate": True},
                                  "calibration": {"path": "calibration.safetensors", "samples": 8, "sequence_length": 256}})
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done)
        self.assertEqual(done["spec"]["hardware"], {"simulate": True})
        hardware = done["result"]["hardware"]
        output = os.path.join(self.daemon.output, "pruned")
        self.check(hardware, expected(os.path.join(output, "model.safetensors")))
        self.assertEqual(self.daemon.get(f"/v1/jobs/{job}/report").json["hardware"], hardware)
        with open(os.path.join(output, "besad.json")) as file:
            self.assertEqual(json.load(file)["result"]["hardware"], hardware)
        self.assertEqual(self.bench(output), hardware)
        text = bench(output, "--simulate").stdout
        self.assertRegex(text, r"q_proj +published +\d+ +\d+ +\d\.\d\d\n +corrected .*\n +memory ")
        self.assertRegex(text, r"\nall +published +%d +%d +" % (hardware["simulated"]["published"]["dense_cycles"],
                                                                hardware["simulated"]["published"]["cycles"]))

    def check_family(self, family, length, sparsity, layer):
        """A job on a small model of the family; `layer` is one that the family is here for."""
        family_model(self.daemon, family)
        write_calibration(os.path.join(self.daemon.data, "tokens.safetensors"), 8, length, vocab=64)
        self.daemon.start()
        job = self.daemon.submit({"model": family, "output": "pruned", "method": "wanda", "sparsity": sparsity, "hardware": {"simulate": True},
                                  "calibration": {"path": "tokens.safetensors", "samples": 8, "sequence_length": length}})
        done = self.daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done)
        wanted = expected(os.path.join(self.daemon.output, "pruned", "model.safetensors"))
        self.assertIn(layer, wanted)
        self.check(done["result"]["hardware"], wanted)

    def test_experts(self):
        self.check_family("mixtral", 48, 0.5, "experts.w2")

    def test_linears_that_lie_transposed(self):
        """Of GPT-2, two of whose linears have the same last part of their names and other shapes."""
        self.check_family("gpt2", 32, 0.7, "mlp.c_proj")

    def test_not_asked_for(self):
        small_model(self.daemon, 2)
        self.daemon.start()
        for hardware in (None, {"simulate": False}):
            job = self.daemon.submit(small_job(output=str(hardware is None), **({"hardware": hardware} if hardware else {})))
            done = self.daemon.finish(job)
            self.assertEqual(done["state"], "succeeded", done)
            self.assertNotIn("hardware", done["spec"])
            self.assertNotIn("hardware", done["result"])
            self.assertNotIn("hardware", self.daemon.get(f"/v1/jobs/{job}/report").json)

    def test_model_itself(self):
        """The method none simulates what is there."""
        small_model(self.daemon, 2)
        self.daemon.start()
        spec = {key: value for key, value in small_job(method="none").items() if key not in ("output", "sparsity")}
        done = self.daemon.finish(self.daemon.submit({**spec, "hardware": {"simulate": True}}))
        self.assertEqual(done["state"], "succeeded", done)
        self.assertEqual(done["result"]["hardware"], self.bench(os.path.join(self.daemon.models, spec["model"])))

    def test_killed(self):
        """A job that was killed counts the files that it then makes."""
        small_model(self.daemon, 8)
        self.daemon.start()
        plain = self.daemon.finish(self.daemon.submit(small_job(output="plain", hardware={"simulate": True})))
        job = self.daemon.submit(small_job(output="killed", hardware={"simulate": True}))
        wait_for("some blocks", lambda: any(event["type"] == "block.finished" for event in self.daemon.events(job)))
        self.daemon.kill()
        self.daemon.start()
        done = self.daemon.finish(job)
        self.assertEqual((plain["state"], done["state"]), ("succeeded", "succeeded"), done)
        self.assertEqual(done["result"]["hardware"], plain["result"]["hardware"])

    def check_measured(self, report, threads, weights):
        """Times add up; {layer: (linears of a token, bytes that are read of them packed)} is `weights`."""
        decode = report["decode"]
        self.assertEqual(decode["threads"], threads)
        self.assertEqual({layer["layer"]: layer["measured"]["linears"] for layer in report["layers"]},
                         {name: count for name, (count, _) in weights.items()})
        for key in ("dense_us", "sparse_us"):
            self.assertAlmostEqual(decode[key], sum(layer["measured"][key] for layer in report["layers"]), delta=1e-6 * decode[key])
        read = dense = 0
        for layer in report["layers"]:
            count, own = weights[layer["layer"]]
            params = layer["rows"] * layer["cols"] * count
            self.assertAlmostEqual(layer["measured"]["bytes_per_weight"], own / params)
            self.assertAlmostEqual(layer["measured"]["speedup"], layer["measured"]["dense_us"] / layer["measured"]["sparse_us"])
            read, dense = read + own, dense + 2 * params
        self.assertAlmostEqual(decode["speedup"], decode["dense_us"] / decode["sparse_us"])
        self.assertAlmostEqual(decode["dense_gbps"], dense / decode["dense_us"] / 1e3, delta=1e-6 * decode["dense_gbps"])
        self.assertAlmostEqual(decode["sparse_gbps"], read / decode["sparse_us"] / 1e3, delta=1e-6 * decode["sparse_gbps"])
        self.assertGreater(decode["copy_gbps"], 0)

    def test_measured(self):
        """Of experts those that a token is sent to."""
        llama = os.path.join(self.daemon.models, "llama")
        random_model(llama, 72, 200, 6, 2, "F32", random.Random(3))
        mixtral = family_model(self.daemon, "mixtral")
        with open(os.path.join(mixtral, "config.json")) as file:
            chosen = json.load(file)["num_experts_per_tok"]
        several = min(2, int(os.environ.get("OMP_NUM_THREADS", "2")))  # the thread sanitizer does not know of OpenMP's
        for directory, name, threads in ((llama, "linears.safetensors", 1), (mixtral, "model.safetensors", several)):
            weights = read_by_token(os.path.join(directory, name), chosen)
            done = bench(directory, "--json", "--threads", str(threads))
            self.assertEqual(done.returncode, 0, done.stderr)
            self.check_measured(json.loads(done.stdout), threads, weights)
        self.assertRegex(bench(llama).stdout, r"\ndown_proj +\d+\.\d % +\d+\.\d +\d+\.\d +\d+\.\d\d\none token ")

    def test_measured_job(self):
        """Of the finished output, in the result, the report and besad.json; with a simulation beside it and without."""
        threads = int(os.environ.get("OMP_NUM_THREADS", "2"))
        small_model(self.daemon, 2)
        self.daemon.start()
        for wanted in ({"measure": True}, {"simulate": True, "measure": True}):
            name = "-".join(wanted)
            job = self.daemon.submit(small_job(output=name, hardware=wanted))
            done = self.daemon.finish(job)
            self.assertEqual(done["state"], "succeeded", done)
            self.assertEqual(done["spec"]["hardware"], {"simulate": False, **wanted})
            hardware = done["result"]["hardware"]
            output = os.path.join(self.daemon.output, name)
            self.check_measured(hardware, threads, read_by_token(os.path.join(output, "model.safetensors")))
            self.assertEqual(self.daemon.get(f"/v1/jobs/{job}/report").json["hardware"], hardware)
            with open(os.path.join(output, "besad.json")) as file:
                self.assertEqual(json.load(file)["result"]["hardware"], hardware)
            if "simulate" in wanted:
                self.check(hardware, expected(os.path.join(output, "model.safetensors")))
            else:
                self.assertNotIn("simulated", json.dumps(hardware))

    def test_refused(self):
        self.assertEqual(bench("one", "other").returncode, 2)
        done = bench(os.path.join(self.daemon.models, "gone"), "--simulate")
        self.assertEqual(done.returncode, 1)
        self.assertIn("gone", done.stderr)


if __name__ == "__main__":
    unittest.main()
