#!/usr/bin/env python3
"""How many bytes a model takes by what was done to it and by format: sizes.py --besad BESAD MODEL=CALIBRATION... > sizes.json

Each model, a directory with calibration tokens (safetensors), is pruned by Wanda to 0 and 50 % and rounded to 8, 4, 3 and 2 bits, or not; of
each output the weights' files, an archive of them, plain and with coded exponents, and a GGUF file of each type are made and counted. --table FILE
prints results as Markdown, in parts of what the dense model's weights take."""
import argparse
import glob
import json
import os
import subprocess
import sys
import tempfile

TYPES = ("f16", "q8_0", "q4_0", "q4_1")
SPARSITIES = (0, 0.5)
BITS = (None, 8, 4, 3, 2)
FORMATS = ("safetensors", "archive", "archive, coded", *(f"GGUF {kind.upper()}" for kind in TYPES))


def weights_of(directory):
    return sum(os.path.getsize(path) for path in glob.glob(os.path.join(directory, "*.safetensors")))


def sizes(besad, model, calibration, sparsity, bits, directory):
    """{format: bytes}; None of one that cannot be made of it."""
    spec = {"model": os.path.basename(model), "output": "pruned", "method": "wanda", "sparsity": sparsity,
            "calibration": {"path": os.path.basename(calibration), "samples": 16, "sequence_length": 256}}
    if bits:
        spec["quantization"] = {"bits": bits}
    job, output = os.path.join(directory, "job.json"), os.path.join(directory, "output")
    with open(job, "w") as file:
        json.dump(spec, file)
    subprocess.run([besad, "run", job, "--model-root", os.path.dirname(model), "--data-root", os.path.dirname(calibration), "--output-root", output],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pruned = os.path.join(output, "pruned")
    found = {"safetensors": weights_of(pruned)}
    for name, form in (("archive", []), ("archive, coded", ["--coded"])):
        archive = os.path.join(directory, name)
        subprocess.run([besad, "pack", *form, pruned, archive], check=True, stdout=subprocess.DEVNULL)
        found[name] = weights_of(archive)
    for kind in TYPES:
        path = os.path.join(directory, kind + ".gguf")
        done = subprocess.run([besad, "export", "--type", kind, pruned, path], capture_output=True, text=True)
        if done.returncode:
            print(f"{os.path.basename(model)}, {bits} bits: {done.stderr.strip()}", file=sys.stderr)
        found[f"GGUF {kind.upper()}"] = None if done.returncode else os.path.getsize(path)
    return found


def measure(besad, models):
    results = []
    for model, calibration in models:
        dense = weights_of(model)
        for sparsity in SPARSITIES:
            for bits in BITS:
                with tempfile.TemporaryDirectory(prefix="besad-sizes-") as directory:
                    results.append({"model": os.path.basename(model), "dense_bytes": dense, "sparsity": sparsity, "bits": bits,
                                    "bytes": sizes(besad, model, calibration, sparsity, bits, directory)})
    return results


def print_table(results):
    print("| " + " | ".join(("model", "sparsity", "bits", *FORMATS)) + " |\n" + "| --- " * (3 + len(FORMATS)) + "|")
    for row in results:
        parts = ("-" if row["bytes"][form] is None else f"{row['bytes'][form] / row['dense_bytes']:.3f}" for form in FORMATS)
        print("| " + " | ".join((row["model"], f"{100 * row['sparsity']:g} %", str(row["bits"] or 16), *parts)) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--besad")
    parser.add_argument("--table", metavar="FILE")
    parser.add_argument("models", nargs="*", metavar="MODEL=CALIBRATION")
    arguments = parser.parse_args()
    if arguments.table:
        with open(arguments.table) as file:
            print_table(json.load(file))
        return
    models = [tuple(os.path.abspath(path) for path in model.split("=")) for model in arguments.models]
    json.dump(measure(os.path.abspath(arguments.besad), models), sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
