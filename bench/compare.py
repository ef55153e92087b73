#!/usr/bin/env python3
"""besad against the published code on the same cores in the same run, in turn; and besad's memory against the number of blocks.

    compare.py --besa DIR --python PYTHON tiny     the bundled model, row-wise BESA, 128 x 256 tokens, 50 %, pruning only
    compare.py --besa DIR --python PYTHON block    one random block: hidden 2048, intermediate 5632, 8 x 512 tokens
    compare.py memory                              peak memory of a 4-block and a 16-block model of one width

DIR is a checkout of the published code and PYTHON an interpreter with torch and transformers (see published.py). Writes a JSON object
to standard output; results are kept in bench/results/."""
import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile

import random_models

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def run_besad(besad, directory, model, calibration, samples, length, precision, method="besa"):
    """besad.json of one job without evaluation, and the process's peak memory in bytes."""
    with tempfile.TemporaryDirectory(dir=directory) as work:
        job = os.path.join(work, "job.json")
        with open(job, "w") as file:
            json.dump({"model": os.path.basename(model), "output": "out", "method": method, "sparsity": 0.5,
                       "precision": precision, "progress": {"perplexity_every": 0}, "calibration": {"path": os.path.basename(calibration), "samples": samples,
                                                               "sequence_length": length}}, file)
        process = subprocess.Popen(
            [besad, "run", job, "--model-root", os.path.dirname(model), "--data-root", os.path.dirname(calibration),
             "--output-root", os.path.join(work, "output")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        log = process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"besad failed: {log.decode()}")
        with open(os.path.join(work, "output", "out", "besad.json")) as file:
            return json.load(file), usage.ru_maxrss * 1024


def run_published(args, *what):
    out = subprocess.run([args.python, os.path.join(ROOT, "bench", "published.py"), "--besa", args.besa, *what], check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    return json.loads(out)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": values}


def versus(args, directory, model, calibration, samples, length, published):
    ours, theirs, phases = {p: [] for p in args.precision}, [], {}
    for _ in range(args.runs):
        for precision in args.precision:
            report, _ = run_besad(args.besad, directory, model, calibration, samples, length, precision)
            ours[precision].append(sum(b["seconds"] for b in report["blocks"]))
            phases[precision] = {name: sum(b["phases"][name] for b in report["blocks"]) for name in report["blocks"][0]["phases"]}
            device = report["device"]
        theirs.append(run_published(args, *published)["seconds"])
    result = {"device": device, "published_seconds": spread(theirs)}
    for precision in args.precision:
        result[precision] = {"seconds": spread(ours[precision]), "phases_of_last_run": phases[precision],
                             "fraction_of_published": spread([o / t for o, t in zip(ours[precision], theirs)])}
    return result


def tiny(args, directory):
    demo = os.path.join(ROOT, "demo")
    model, calibration = os.path.join(demo, "tiny-llama"), os.path.join(demo, "calibration.safetensors")
    return versus(args, directory, model, calibration, 128, 256, ("model", model, calibration))


def block(args, directory):
    model, calibration = os.path.join(directory, "model"), os.path.join(directory, "tokens.safetensors")
    random_models.write_model(model, 2048, 5632, 32, 4, 1)
    random_models.write_calibration(calibration, 8, 512)
    result = versus(args, directory, model, calibration, 8, 512, ("block",))
    # Forward, dX (not of q, k, v: nothing needs it) and dW of the linears; the causal half of attention's products.
    linears = 2048 * (2048 + 2 * 256 + 2048 + 3 * 5632)
    through = linears - 2048 * (2048 + 2 * 256)
    attention = 2048 * 512 // 2 * 2
    flop = 8 * 512 * 2 * (2 * linears + through) + 8 * 512 * 2 * attention * 3.5
    rates = json.loads(subprocess.run([args.rate], check=True, stdout=subprocess.PIPE).stdout)
    result["learning_flop"] = flop
    result["large_matmul_gflops"] = rates
    for precision in args.precision:
        rate = flop / result[precision]["phases_of_last_run"]["learn"] / 1e9
        result[precision]["learning_gflops"] = rate
        if precision in rates:
            result[precision]["fraction_of_large_matmul"] = rate / rates[precision]
    return result


def in_child(function, *arguments):
    """A program's ru_maxrss starts at that of the process that forked it, so this one must stay small."""
    child = multiprocessing.Process(target=function, args=arguments)
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"{function.__name__} failed")


def memory(args, directory):
    result = {}
    calibration = os.path.join(directory, "tokens.safetensors")
    in_child(random_models.write_calibration, calibration, 16, 256)
    for blocks in (4, 16):
        model = os.path.join(directory, f"model-{blocks}")
        in_child(random_models.write_model, model, 768, 2048, 12, 12, blocks)
        report, peak = run_besad(args.besad, directory, model, calibration, 16, 256, "f32")
        size = os.path.getsize(os.path.join(model, "model.safetensors"))
        result[f"{blocks} blocks"] = {"model_bytes": size, "peak_rss_bytes": peak, "seconds": report["result"]["seconds"]}
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tiny", "block", "memory"))
    parser.add_argument("--besad", default=os.path.join(ROOT, "build", "besad"))
    parser.add_argument("--rate", default=os.path.join(ROOT, "build", "bench", "matmul_rate"), help="built by `make build/bench/matmul_rate`")
    parser.add_argument("--besa", help="checkout of the published code")
    parser.add_argument("--python", default=sys.executable, help="interpreter with torch and transformers")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--precision", nargs="+", default=["f32"], choices=("f32", "bf16"))
    args = parser.parse_args()
    if args.what != "memory" and not args.besa:
        parser.error("--besa is needed")
    with tempfile.TemporaryDirectory() as directory:
        result = {"tiny": tiny, "block": block, "memory": memory}[args.what](args, directory)
    command = "bench/compare.py " + " ".join(a for a in sys.argv[1:] if not a.startswith("/"))
    print(json.dumps({"what": args.what, "command": command, "cores": os.cpu_count(), "machine": platform.machine(), **result},
                     indent=1))


main()
