#!/usr/bin/env python3
"""Blocks of LLaMA-7B and LLaMA-2-70B with random weights, 128 x 2048 tokens, row-wise BESA at 50 %, on the GPU: seconds phase by phase
and the fraction of the bf16 matmul rate that the device reaches in the same run; the operations' rates; and, with --besa, a block by
the published code. A model has three blocks and the middle one is reported: as in a whole model, the one before is written and the one
after read while it is computed. `computing` is the time of its passes and its learning, `seconds` is all of it: what is between them is the
disk's. `make bench-cuda` runs it. Prints one JSON object; needs Python 3 alone, and torch and
transformers for --besa.

FLOPs are counted as what must be computed: per token 2 per weight forward (reference pass, learning, final pass), 2 per weight for dX
(not of q, k, v: nothing needs it), 2 per weight for dW, and the causal half of attention's products (5 in the backward)."""
import argparse
import json
import os
import random
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
import random_models  # noqa: E402

SHAPES = {  # hidden, intermediate, heads, kv_heads
    "llama-7b": (4096, 11008, 32, 32),
    "llama-2-70b": (8192, 28672, 64, 8),
    "small": (256, 512, 4, 2),  # to try this script without a GPU: --backend cpu --shapes small --samples 4 --length 64
}
VOCAB, BLOCKS, MIDDLE = 1000, 3, 1
COMPUTING = ("reference", "rank", "learn", "final")


class RandomBytes:
    """BF16 normal weights, cut at random places from a pool: quick enough for a billion of them."""

    def __init__(self, scale=0.02, size=1 << 22):
        rng = random.Random(0)
        values = [struct.pack("<f", rng.gauss(0, scale))[2:] for _ in range(65536)]
        self.pool, self.rng = b"".join(rng.choices(values, k=size)), rng

    def matrix(self, rows, cols):
        parts, left = [], rows * cols * 2
        while left:
            start = self.rng.randrange(len(self.pool) // 4) * 2
            part = self.pool[start:start + left]
            parts.append(part)
            left -= len(part)
        return "BF16", [rows, cols], b"".join(parts)


def write_model(directory, hidden, intermediate, heads, kv_heads):
    os.makedirs(directory)
    rand, head = RandomBytes(), hidden // heads
    ones = ("BF16", [hidden], struct.pack("<f", 1)[2:] * hidden)
    tensors = {"model.embed_tokens.weight": rand.matrix(VOCAB, hidden), "lm_head.weight": rand.matrix(VOCAB, hidden),
               "model.norm.weight": ones}
    linears = (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv_heads * head, hidden),
               ("self_attn.v_proj", kv_heads * head, hidden), ("self_attn.o_proj", hidden, hidden),
               ("mlp.gate_proj", intermediate, hidden), ("mlp.up_proj", intermediate, hidden), ("mlp.down_proj", hidden, intermediate))
    for block in range(BLOCKS):
        for name, rows, cols in linears:
            tensors[f"model.layers.{block}.{name}.weight"] = rand.matrix(rows, cols)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"model.layers.{block}.{name}.weight"] = ones
    random_models.write_safetensors(os.path.join(directory, "model.safetensors"), tensors)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
                   "intermediate_size": intermediate, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
                   "num_hidden_layers": BLOCKS, "vocab_size": VOCAB, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
                   "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}, file)


def phase_flop(hidden, intermediate, heads, kv_heads, samples, length):
    key = hidden // heads * kv_heads
    qkv = hidden * (hidden + 2 * key)
    linears = qkv + hidden * hidden + 3 * hidden * intermediate
    tokens = samples * length
    attention = 2 * 2 * hidden * (length + 1) / 2  # per token: q.k and p.v over half of the keys
    forward = tokens * (2 * linears + attention)
    learn = forward + tokens * (2 * (linears - qkv) + 2 * linears + 2.5 * attention)
    return {"reference": forward, "learn": learn, "final": forward}


def prepare(directory, shape, samples, length):
    """The model, its calibration and the job's file, whose path comes back."""
    model, calibration = os.path.join(directory, shape), os.path.join(directory, "tokens.safetensors")
    write_model(model, *SHAPES[shape])
    random_models.write_calibration(calibration, samples, length, VOCAB)
    job = os.path.join(directory, "job.json")
    with open(job, "w") as file:
        json.dump({"model": shape, "output": f"{shape}-out", "overwrite": True, "method": "besa", "sparsity": 0.5, "besa": {"safeguards": False},
                   "precision": "bf16", "progress": {"perplexity_every": 0},
                   "calibration": {"path": os.path.basename(calibration), "samples": samples, "sequence_length": length}}, file)
    return job


def run_block(args, directory, shape, peak):
    hidden, intermediate, heads, kv_heads = SHAPES[shape]
    job, runs = prepare(directory, shape, args.samples, args.length), []
    for _ in range(args.runs):
        done = subprocess.run([args.besad, "run", "--backend", args.backend, "--model-root", directory, "--data-root", directory,
                               "--output-root", directory, job], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode:
            sys.exit(f"{shape}: besad ended with status {done.returncode}: {done.stderr[-2000:]}")
        with open(os.path.join(directory, f"{shape}-out", "besad.json")) as file:
            runs.append(json.load(file)["blocks"][MIDDLE])
    best = sorted(runs, key=lambda block: block["seconds"])[len(runs) // 2]
    flop = phase_flop(hidden, intermediate, heads, kv_heads, args.samples, args.length)
    total, computing = sum(flop.values()), sum(best["phases"][name] for name in COMPUTING)
    phases = {name: {"seconds": seconds, **({"tflop": flop[name] / 1e12, "of_matmul": flop[name] / seconds / peak}
                                            if name in flop else {})} for name, seconds in best["phases"].items()}
    return {"shape": {"hidden": hidden, "intermediate": intermediate, "heads": heads, "kv_heads": kv_heads},
            "samples": args.samples, "length": args.length, "blocks": BLOCKS, "reported": MIDDLE, "seconds": best["seconds"],
            "computing": computing, "computing_of_matmul": total / computing / peak,
            "seconds_of_runs": [block["seconds"] for block in runs], "tflop": total / 1e12,
            "of_matmul": total / best["seconds"] / peak, "phases": phases}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--besad", default=os.path.join(ROOT, "build", "besad"))
    parser.add_argument("--ops", default=os.path.join(ROOT, "build", "bench", "cuda_ops"))
    parser.add_argument("--backend", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--shapes", nargs="+", default=["llama-7b", "llama-2-70b"], choices=tuple(SHAPES))
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--besa", default=os.environ.get("BESA_PATH"), help="checkout of the published code (or $BESA_PATH)")
    parser.add_argument("--python", default=sys.executable, help="interpreter with torch and transformers")
    parser.add_argument("--matmul-tflops", type=float, help="the matmul rate, where it is known: --ops is not run")
    args = parser.parse_args()
    ops = [args.ops, args.backend] + (["16"] if args.backend == "cpu" else [])
    result = {"blocks": {}}
    if args.matmul_tflops:
        peak = args.matmul_tflops * 1e12
    else:
        rates = json.loads(subprocess.run(ops, check=True, stdout=subprocess.PIPE).stdout)
        result |= {"device": rates["device"], "rates": rates}
        peak = rates["matmul"]["tflops"] * 1e12
    for shape in args.shapes:
        with tempfile.TemporaryDirectory() as directory:
            block = run_block(args, directory, shape, peak)
            if args.besa:
                out = subprocess.run([args.python, os.path.join(ROOT, "bench", "cuda_published.py"), "--besa", args.besa,
                                      "--samples", str(args.samples), "--length", str(args.length),
                                      *map(str, SHAPES[shape])], check=True, stdout=subprocess.PIPE).stdout
                block["published"] = json.loads(out)
                block["times_faster"] = block["published"]["seconds"] / block["computing"]
        result["blocks"][shape] = block
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
