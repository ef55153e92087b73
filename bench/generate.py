#!/usr/bin/env python3
"""Tokens a second of `besad generate`, with zeros multiplied and left out: generate.py BESAD [--threads N] [--tokens N] [--rounds N] [MODEL...]

Without models it makes a random LLaMA of about 1.1 billion weights with a vocabulary of 32,000 (some minutes and 2.2 GB, below --directory) and
sets the given shares of the linears' weights to zero. Models that are named are pruned by magnitude to these shares: how fast they are does not depend on
which zeros they have. Dense and sparse take turns, and of each the best round counts, and the fastest token of
all: beside other work that is what compares. Prints JSON."""
import argparse
import hashlib
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import write_model  # noqa: E402

PROMPT = "The history of the river begins"


def billion(directory):
    """A random model of TinyLlama's shape, with the demo's tokenizer, whose ids are the first of the 32,000."""
    model = os.path.join(directory, "random-1b")
    if not os.path.exists(os.path.join(model, "tokenizer.model")):
        write_model(model, 2048, 5632, 32, 4, 22, vocab=32000)
        for name in ("tokenizer.model", "tokenizer_config.json"):
            shutil.copy(os.path.join(ROOT, "demo", "tiny-llama", name), model)
    return model


def prune(besad, model, share, directory):
    path = os.path.realpath(model)
    known = hashlib.sha256(f"{path} {os.stat(os.path.join(path, 'config.json')).st_mtime_ns}".encode()).hexdigest()[:8]
    name = f"{os.path.basename(path)}-{round(100 * share)}-{known}"
    if not os.path.exists(os.path.join(directory, name)):
        job = os.path.join(directory, "job.json")
        with open(job, "w") as file:
            json.dump({"model": os.path.abspath(model), "output": name, "method": "magnitude", "sparsity": share}, file)
        subprocess.run([besad, "run", "--output-root", directory, job], check=True, capture_output=True)
    return os.path.join(directory, name)


def generate(besad, model, options, form):
    command = [besad, "generate", "--json", "--threads", str(options.threads), "--max-tokens", str(options.tokens), "--prompt", PROMPT,
               *form, model]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    if figures["completion_tokens"] != options.tokens:
        sys.exit(f"{model}: its text ended behind {figures['completion_tokens']} tokens; ask for fewer (--tokens)")
    return figures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("besad")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--shares", type=float, nargs="*", default=[0.5, 0.7])
    parser.add_argument("--directory", default=os.path.join(tempfile.gettempdir(), "besad-generate"))
    parser.add_argument("models", nargs="*")
    options = parser.parse_intermixed_args()
    os.makedirs(options.directory, exist_ok=True)
    results = []
    for model in options.models or [billion(options.directory)]:
        for share in options.shares:
            pruned = prune(options.besad, model, share, options.directory)
            best, fastest = {}, {}
            for _ in range(options.rounds):
                for form in ("--dense", "--sparse"):
                    figures = generate(options.besad, pruned, options, [form] if form == "--dense" else [])
                    fastest[form] = min(figures["fastest_token_seconds"], fastest.get(form, math.inf))
                    if form not in best or figures["tokens_per_second"] > best[form]["tokens_per_second"]:
                        best[form] = figures
            dense, sparse = best["--dense"], best["--sparse"]
            results.append({"model": os.path.basename(os.path.normpath(model)), "share": share, "threads": dense["threads"],
                            "zeros": dense["zeros"] / dense["weights"], "tokens": sparse["completion_tokens"],
                            "dense_per_second": dense["tokens_per_second"], "sparse_per_second": sparse["tokens_per_second"],
                            "ratio": sparse["tokens_per_second"] / dense["tokens_per_second"],
                            "ratio_of_fastest": fastest["--dense"] / fastest["--sparse"],
                            "dense_fastest_seconds": fastest["--dense"], "sparse_fastest_seconds": fastest["--sparse"],
                            "dense_bytes": dense["weight_bytes"], "sparse_bytes": sparse["weight_bytes"]})
            print(results[-1], file=sys.stderr, flush=True)
    json.dump(results, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
