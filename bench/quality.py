#!/usr/bin/env python3
"""How good besad's pruned models are: perplexity, exact zeros, seconds and cost of every way to prune, by model, sparsity and seed.

    quality.py --results FILE --model NAME=DIR,TOKENS,TEXT,EVALUATION ... [--ways W,...] [--cells C,...] [--seeds N] [--other TEXT]
               [--backend cpu|cuda] [--at-once N] [--threads N] [--samples N] [--seconds S]
    quality.py --results FILE --table

A model is given with its calibration of seed 0 (token ids, safetensors), the text that other seeds draw theirs from, and what it is evaluated
on, which may be of either kind; windows of 256 tokens. Results are kept in FILE, one by one, and what is there is not run again, so it can be
stopped and gone on with. --other is a text of another domain: besides, everything at 60 % is calibrated on its first four fifths, and every
model is evaluated on its last fifth too. --at-once runs several jobs beside each other, which a GPU gains by where a model is small (their
seconds are then of a shared machine); --seconds starts no more after so long, and tells what is missing. Of what learns, the results say in
how many blocks its loss over all sequences ended above where it started (`worse_blocks`). --table prints the results as Markdown, the mean
over the seeds and, with several, their spread. Without --ways it is the methods and the presets; WAYS has the ablations besides."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
LENGTH = 256

# Ways to prune, each as fields of a spec.
STANDARD_WAYS = {
    "magnitude": {"method": "magnitude"},
    "wanda": {"method": "wanda"},
    "sparsegpt": {"method": "sparsegpt"},
    "besa-layer": {"method": "besa", "besa": {"granularity": "layer"}},
    "besa": {"method": "besa"},
    "wanda+refit": {"method": "wanda", "refit": {"method": "block"}},
    "besa+refit": {"method": "besa", "refit": {"method": "block"}},
    "admm": {"method": "admm"},
    "admm-layer": {"method": "admm", "admm": {"rates": "layer"}},
    "admm+refit": {"method": "admm", "refit": {"method": "block"}},
    "fast": {"preset": "fast"},
    "balanced": {"preset": "balanced"},
    "best": {"preset": "best"},
}
ABLATIONS = {
    **{f"besa-{importance}": {"method": "besa", "besa": {"importance": importance}}
       for importance in ("magnitude", "sparsegpt", "sparsegpt_published", "gradient")},
    **{f"{way}-{allocation}": {**spec, "allocation": {"method": allocation}} for allocation in ("outlier", "loss")
       for way, spec in (("fast", {"preset": "fast"}), ("balanced", {"preset": "balanced"}))},
    "besa-half-block": {"method": "besa", "besa": {"reconstruct": "half_block"}},
    "besa-two-blocks": {"method": "besa", "besa": {"reconstruct": "two_blocks"}},
    **{f"besa-rows-{rows}": {"method": "besa", "besa": {"rows_per_group": rows}} for rows in (8, 64)},
    "besa-diverging": {"method": "besa", "besa": {"d_coef": 500}},
    "admm-row": {"method": "admm", "admm": {"rates": "row"}},
    "balanced-row": {"preset": "balanced", "admm": {"rates": "row"}},
    "best-uniform": {"preset": "best", "admm": {"rates": "uniform"}},
}
BITS = (2, 3, 4, 8)
# What is quantized: how it is pruned, and when and how it is rounded.
QUANTIZED = {
    "wanda+{}bit": ({"method": "wanda"}, {}),
    "wanda+{}bit-feedback": ({"method": "wanda"}, {"rounding": "feedback"}),
    "wanda+{}bit-before": ({"method": "wanda"}, {"order": "quantize_first"}),
    "besa+{}bit-after": ({"method": "besa"}, {"order": "prune_first"}),
    "besa+{}bit-before": ({"method": "besa"}, {"order": "quantize_first"}),
    "besa+{}bit-joint": ({"method": "besa"}, {"order": "joint"}),
    "besa+refit+{}bit-joint": ({"method": "besa", "refit": {"method": "block"}}, {"order": "joint"}),
    "besa+tune+{}bit-joint": ({"method": "besa", "refit": {"method": "global"}}, {"order": "joint"}),
    "balanced+{}bit": ({"preset": "balanced"}, {}),
    "best+{}bit": ({"preset": "best"}, {}),
    "balanced+{}bit-feedback": ({"preset": "balanced"}, {"rounding": "feedback"}),
}
WAYS = {**STANDARD_WAYS, **ABLATIONS}
for template, (pruned, rounded) in QUANTIZED.items():
    WAYS |= {template.format(bits): {**pruned, "quantization": {"bits": bits, "format": "dequantized", **rounded}} for bits in BITS}
CELLS = {"0%": {"sparsity": 0.0}, "50%": {"sparsity": 0.5}, "60%": {"sparsity": 0.6}, "70%": {"sparsity": 0.7}, "80%": {"sparsity": 0.8},
         "2:4": {"pattern": "2:4"}, "4:8": {"pattern": "4:8"}}


class Model:
    def __init__(self, text):
        self.name, _, files = text.partition("=")
        parts = files.split(",")
        if len(parts) != 4:
            sys.exit(f"--model {text}: wants NAME=DIR,TOKENS,TEXT,EVALUATION")
        self.directory, self.tokens, self.text, self.evaluation = (os.path.abspath(part) for part in parts)


def merged(*specs):
    result = {}
    for spec in specs:
        for key, value in spec.items():
            result[key] = merged(result.get(key, {}), value) if isinstance(value, dict) else value
    return result


def spec_of(model, way, cell, seed, other, samples):
    """`other`: the two parts of the other domain's text, and whether it is calibrated on; or None."""
    data = [("own", model.evaluation)]
    if other:
        data.append(("other", other[1]))
    spec = {"model": os.path.basename(model.directory), "output": "out", "precision": "f32", "progress": {"perplexity_every": 0},
            "evaluation": {"perplexity": [{"name": name, "path": os.path.basename(path), "sequence_length": LENGTH}
                                          for name, path in data]}}
    roots = [path for _, path in data]
    samples = {"calibration": {"samples": samples}} if not way.startswith("best") else {}
    source = other[0] if other and other[2] else model.tokens if seed == 0 and not way.startswith("best") else model.text
    calibration = {"calibration": {"path": os.path.basename(source), "sequence_length": LENGTH, "seed": seed}}
    return merged(spec, samples, calibration, CELLS[cell], WAYS[way]), [source, *roots]


class Failed(Exception):
    """besad's own words."""


def run(args, model, spec, roots):
    """The report of besad."""
    with tempfile.TemporaryDirectory() as work:
        with open(os.path.join(work, "job.json"), "w") as file:
            json.dump(spec, file)
        options = [option for path in roots for option in ("--data-root", os.path.dirname(path))]
        options += ["--scores-dir", args.scores] + (["--backend", args.backend] if args.backend else [])
        options += ["--threads", str(args.threads)] if args.threads else []
        done = subprocess.run([args.besad, "run", os.path.join(work, "job.json"), "--model-root", os.path.dirname(model.directory),
                               "--output-root", os.path.join(work, "output"), *options], capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"besad failed with {json.dumps(spec)}:\n{done.stderr}")
        with open(os.path.join(work, "output", "out", "besad.json")) as file:
            return json.load(file)


def entry_of(report):
    result, blocks = report["result"], report["blocks"]
    entry = {"perplexity": result["perplexity"], "zeros": result.get("zeros"), "sparsity": result.get("sparsity"),
             "seconds": result.get("pruning_seconds"), "diagnosis": [finding["rule"] for finding in report.get("diagnosis") or []]}
    learned = [block for block in blocks if "reconstruction_start" in block]
    if learned:
        entry["worse_blocks"] = sum(block["reconstruction"] > block["reconstruction_start"] for block in learned)
    return entry


def cells_of(way, cells):
    """Under a pattern BESA learns nothing, and is what it starts from."""
    return [cell for cell in cells if not (":" in cell and way.startswith("besa"))]


def measure(args, results):
    models = [Model(text) for text in args.model]
    with tempfile.TemporaryDirectory() as directory:
        args.scores = os.path.join(directory, "scores")  # the dense models' are found once
        halves = split(args.other, directory) if args.other else None
        wanted = [(model, way, cell, seed, domain)
                  for model in models for seed in range(args.seeds) for way in args.ways for cell in cells_of(way, args.cells)
                  for domain in (("own", "other") if halves and cell == "60%" else ("own",))]
        began, lock, problems = time.monotonic(), threading.Lock(), []

        def do(one):
            model, way, cell, seed, domain = one
            key = "|".join((model.name, way, cell, str(seed), domain))
            if key in results:
                return
            if args.seconds and time.monotonic() - began > args.seconds:
                problems.append(f"{key}: no time was left")
                return
            spec, roots = spec_of(model, way, cell, seed, halves and (*halves, domain == "other"), args.samples)
            try:
                entry = entry_of(run(args, model, spec, roots))
            except Failed as problem:
                problems.append(f"{key}: {problem}")
                return
            with lock:
                results[key] = entry
                print(key, json.dumps(entry), file=sys.stderr, flush=True)
                save(args.results, results)

        with ThreadPoolExecutor(args.at_once) as pool:
            list(pool.map(do, wanted))
    if problems:
        sys.exit("\n".join(problems))


def split(path, directory):
    """The first four fifths and the last one of a text, in files of their own."""
    with open(path, encoding="utf-8") as file:
        lines = file.readlines()
    cut = len(lines) * 4 // 5
    names = []
    for name, part in (("calibration.txt", lines[:cut]), ("evaluation.txt", lines[cut:])):
        names.append(os.path.join(directory, name))
        with open(names[-1], "w", encoding="utf-8") as file:
            file.writelines(part)
    return names


def save(path, results):
    with open(path + ".part", "w") as file:
        json.dump(results, file, indent=1, sort_keys=True)
        file.write("\n")
    os.replace(path + ".part", path)


def value(result, dataset="own"):
    return result["perplexity"][dataset]["pruned"]


def entry(found):
    values = [value(result) for result in found]
    spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{spread}" if values else "–"


def table(results):
    keys = [key.split("|") for key in results]
    for model in dict.fromkeys(key[0] for key in keys):
        found = {}  # (way, cell) -> results, of all seeds
        for key in keys:
            if key[0] == model and key[4] == "own":
                found.setdefault((key[1], key[2]), []).append(results["|".join(key)])
        cells = [cell for cell in CELLS if any(there == cell for _, there in found)]
        dense = next(iter(found.values()))[0]["perplexity"]["own"]["dense"]
        print(f"**{model}**, dense {dense:.2f}\n\n| way | " + " | ".join(cells) + " | seconds |\n|" + " --- |" * (len(cells) + 2))
        for way in WAYS:
            rows = [found.get((way, cell), []) for cell in cells]
            if any(rows):
                seconds = statistics.median(result["seconds"] for row in rows for result in row)
                print(f"| {way} | " + " | ".join(entry(row) for row in rows) + f" | {seconds:.0f} |")
        print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--besad", default=os.path.join(ROOT, "build", "besad"))
    parser.add_argument("--results", required=True)
    parser.add_argument("--backend", choices=("cpu", "cuda"))
    parser.add_argument("--at-once", type=int, default=1)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--samples", type=int, default=128, help="of the calibration; the preset best has its own")
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--model", action="append", default=[])
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(STANDARD_WAYS))
    parser.add_argument("--cells", type=lambda text: text.split(","), default=["50%", "60%", "70%", "2:4", "4:8"])
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--other")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    for word in [way for way in args.ways if way not in WAYS] + [cell for cell in args.cells if cell not in CELLS]:
        parser.error(f"{word}: there are the ways {', '.join(WAYS)} and the cells {', '.join(CELLS)}")
    results = {}
    if os.path.exists(args.results):
        with open(args.results) as file:
            results = json.load(file)
    measure(args, results)
    if args.table:
        table(results)


if __name__ == "__main__":
    main()
