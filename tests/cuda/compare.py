#!/usr/bin/env python3
"""Prunes the bundled model, by BESA or as a spec says, on two backends and compares perplexity: no more than 0.5 % apart, dense and pruned, and the same count
of zeros.

    compare.py BESAD [--other BESAD] [--precision f32|bf16] [--samples N] [--windows N] [--spec JSON] [--prefix COMMAND]

BESAD runs with --backend cuda; the other (default: the same program) with --backend cpu. Without a GPU, a BESAD linked with the emulated
backend (tests/cuda/emulator) and few samples do."""
import argparse
import json
import os
import shlex
import struct
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
LENGTH = 256


def read_ids(path):
    with open(path, "rb") as file:
        size = struct.unpack("<Q", file.read(8))[0]
        json.loads(file.read(size))
        return file.read()


def write_ids(path, ids, rows):
    data = ids[:rows * LENGTH * 4]
    header = json.dumps({"input_ids": {"dtype": "I32", "shape": [len(data) // 4 // LENGTH, LENGTH],
                                       "data_offsets": [0, len(data)]}}).encode()
    header += b" " * (-len(header) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header + data)


def run(prefix, besad, backend, directory, spec, precision, samples):
    job = os.path.join(directory, "job.json")
    with open(job, "w") as file:
        json.dump({"model": "tiny-llama", "output": "out", "overwrite": True, "sparsity": 0.5, **spec, "precision": precision,
                   "calibration": {"path": "calibration.safetensors", "samples": samples, "sequence_length": LENGTH},
                   "evaluation": {"perplexity": [{"name": "test", "path": "test.safetensors", "sequence_length": LENGTH}]}}, file)
    out = subprocess.run([*prefix, besad, "run", "--json", "--backend", backend, "--model-root", os.path.join(ROOT, "demo"),
                          "--data-root", directory, "--output-root", directory, job], stdout=subprocess.PIPE)
    if out.returncode:
        sys.exit(f"{backend}: besad failed with {out.returncode}")
    text = out.stdout.decode()
    return json.loads(text[text.index("{"):text.rindex("}") + 1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("besad")
    parser.add_argument("--other")
    parser.add_argument("--precision", default="bf16", choices=("f32", "bf16"))
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--windows", type=int, default=256)
    parser.add_argument("--spec", type=json.loads, default={"method": "besa"}, help="how to prune, as in a job")
    parser.add_argument("--prefix", default="", help="a command to run the CUDA side under")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        write_ids(os.path.join(directory, "calibration.safetensors"),
                  read_ids(os.path.join(ROOT, "demo", "calibration.safetensors")), args.samples)
        write_ids(os.path.join(directory, "test.safetensors"),
                  read_ids(os.path.join(ROOT, "tests", "data", "tiny-llama.wikitext2-64k.safetensors")), args.windows)
        cuda = run(shlex.split(args.prefix), args.besad, "cuda", directory, args.spec, args.precision, args.samples)
        cpu = run([], args.other or args.besad, "cpu", directory, args.spec, args.precision, args.samples)
    bad = cuda["zeros"] != cpu["zeros"]
    for which in ("dense", "pruned"):
        a, b = cuda["perplexity"]["test"][which], cpu["perplexity"]["test"][which]
        print(f"{args.precision} {which}: cuda {a:.4f}, cpu {b:.4f}: {100 * (a / b - 1):+.3f} %")
        bad = bad or not abs(a / b - 1) <= 0.005
    print(f"zeros: cuda {cuda['zeros']}, cpu {cpu['zeros']}")
    sys.exit(1 if bad else 0)


main()
