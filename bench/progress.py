#!/usr/bin/env python3
"""What the progress perplexity costs: pruning the bundled model with it (automatic, as is the default) and without, in turn.

    progress.py [--besad BESAD] [--runs 5]

Writes a JSON object to standard output; results are kept in bench/results/."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
CASES = {"besa, f32": {"method": "besa", "precision": "f32"}, "besa, bf16": {"method": "besa", "precision": "bf16"},
         "wanda, f32": {"method": "wanda", "precision": "f32"}}


def run(besad, every, spec):
    """The job's seconds, and the blocks of besad.json. Nothing is evaluated, so the time is pruning's, the probe's and start-up's."""
    with tempfile.TemporaryDirectory() as directory:
        job = os.path.join(directory, "job.json")
        with open(job, "w") as file:
            json.dump({"model": "tiny-llama", "output": "out", "method": "besa", "sparsity": 0.5, "progress": {"perplexity_every": every},
                       "calibration": {"path": "calibration.safetensors", "samples": 128, "sequence_length": 256}, **spec}, file)
        demo = os.path.join(ROOT, "demo")
        subprocess.run([besad, "run", job, "--model-root", demo, "--data-root", demo, "--output-root", directory], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with open(os.path.join(directory, "out", "besad.json")) as file:
            report = json.load(file)
            return report["result"]["seconds"], report["blocks"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--besad", default=os.path.join(ROOT, "build", "besad"))
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    results = {}
    for case, spec in CASES.items():
        ratios, probed = [], 0
        for i in range(args.runs):
            without, _ = run(args.besad, 0, spec)
            seconds, blocks = run(args.besad, "auto", spec)
            ratios.append(seconds / without)
            print(f"{case}, run {i + 1} of {args.runs}: {without:.1f} s without, {seconds:.1f} s with", file=sys.stderr, flush=True)
            probed = sum(b["perplexity"] is not None for b in blocks)
        results[case] = {"probed_blocks": probed, "blocks": len(blocks),
                         "time_against_without": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)}}
        print(case, results[case], file=sys.stderr)
    json.dump({"command": "bench/progress.py " + " ".join(sys.argv[1:]), "cores": os.cpu_count(), "runs": args.runs, "cases": results},
              sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
