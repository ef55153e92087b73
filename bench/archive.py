#!/usr/bin/env python3
"""How fast `besad pack`, `unpack` and `verify` are, and how small what they make is: of a pruned model's directory, plain and with
coded exponents, in turn with a plain copy and, where it is installed, zstd, in one run. MB/s are of the model's bytes, medians over
the runs; `cpu_mb_per_s` is what as many threads would reach that do nothing else: it counts the processor's seconds, and so holds
on a machine that has other things to do. DIR is where all of it lies, on a disk or in memory.

archive.py --besad BESAD --model DIR [--runs N] [--threads N] [--directory DIR] > archive.json"""
import argparse
import array
import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import read_safetensors  # noqa: E402


def size_of(directory):
    return sum(os.path.getsize(os.path.join(top, name)) for top, _, names in os.walk(directory) for name in names)


def timed(command):
    """Seconds by the clock, and of the processor."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def same(a, b):
    return subprocess.run(["diff", "-r", a, b]).returncode == 0


def pruned_bytes(path):
    """{name: bytes} of the 16-bit matrices of a file of which a quarter is zero at least."""
    _, tensors = read_safetensors(path)
    found = {}
    for name, (dtype, shape, data) in tensors.items():
        if dtype in ("BF16", "F16") and len(shape) > 1 and array.array("H", data).count(0) * 8 >= len(data):
            found[name] = len(data)
    return found


def sizes(model, archive):
    """Bytes of the archive by those of the model: of all, and of the matrices that were pruned."""
    pruned = packed = 0
    for top, _, names in os.walk(model):
        for name in names:
            if not name.endswith(".safetensors"):
                continue
            found = pruned_bytes(os.path.join(top, name))
            there = os.path.join(archive, os.path.relpath(top, model), name.replace(".safetensors", ".besad.safetensors"))
            _, tensors = read_safetensors(there)
            parts = {}
            for part, (_, _, data) in tensors.items():
                whole = part if part in found else part.rpartition(":")[0]
                parts[whole] = parts.get(whole, 0) + len(data)
            pruned += sum(found.values())
            packed += sum(parts[name] for name in found)
    return {"of_all": round(size_of(archive) / size_of(model), 4), "of_pruned": round(packed / pruned, 4) if pruned else None}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--besad", default=os.path.join(ROOT, "build", "besad"))
    parser.add_argument("--model", required=True)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--directory", help="where archives go (default: the system's)")
    args = parser.parse_args()
    threads, total, times, ratios = str(args.threads), size_of(args.model), {}, {}
    with tempfile.TemporaryDirectory(prefix="besad-bench-", dir=args.directory) as top:
        model, restored, packed = (os.path.join(top, name) for name in ("model", "restored", "packed"))
        shutil.copytree(args.model, model)
        weights = [os.path.join(model, name) for name in os.listdir(model) if name.endswith(".safetensors")]

        def measure(name, command, *made):
            seconds, processor = timed(command)
            times.setdefault(name, []).append((seconds, processor))
            for path in made:
                shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)

        for _ in range(args.runs):
            measure("copy", ["cp", "-r", "--reflink=never", model, restored], restored)
            if shutil.which("zstd"):
                for path in weights:
                    measure("zstd", ["zstd", "-q", "-T" + threads, "-3", path, "-o", path + ".zst"])
                    ratios["zstd"] = {"of_all": round(os.path.getsize(path + ".zst") / os.path.getsize(path), 4)}
                    measure("unzstd", ["zstd", "-q", "-d", path + ".zst", "-o", restored], restored, path + ".zst")
            for how, options in (("", []), ("_coded", ["--coded"])):
                measure("pack" + how, [args.besad, "pack", *options, "--threads", threads, model, packed])
                measure("verify" + how, [args.besad, "verify", "--threads", threads, packed])
                measure("unpack" + how, [args.besad, "unpack", "--threads", threads, packed, restored])
                if not same(model, restored):
                    sys.exit("what was unpacked differs from what was packed")
                ratios["pack" + how] = sizes(model, packed)
                shutil.rmtree(packed)
                shutil.rmtree(restored)
    rates = {name: {"mb_per_s": round(total / 1e6 / statistics.median(seconds for seconds, _ in runs)),
                    "cpu_mb_per_s": round(total / 1e6 / statistics.median(processor for _, processor in runs) * args.threads)}
             for name, runs in times.items()}
    print(json.dumps({"machine": platform.processor() or platform.machine(), "threads": args.threads, "runs": args.runs,
                      "model_bytes": total, "load": os.getloadavg()[0], "rates": rates, "sizes": ratios}, indent=1))


if __name__ == "__main__":
    main()
