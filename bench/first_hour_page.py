#!/usr/bin/env python3
"""The page that a person reads, of what first_hour.py found: first_hour_page.py RESULTS [--write]. To standard output, or, where the results
are a device's, with --write into bench/results/first-hour.md."""
import json
import os
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "bench"))
from first_hour import Hour  # noqa: E402


def cell(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def table(heads, rows):
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join("---" for _ in heads) + " |"]
    return lines + ["| " + " | ".join(cell(v) for v in row) + " |" for row in rows] + [""]


def machine(r):
    return table(("what", "found"), [(k, json.dumps(v) if isinstance(v, (dict, list)) else v) for k, v in r.items()])


def conformance(r):
    return table(("program", "passed", "seconds", "device"), [(n, v, "", "") if isinstance(v, str) else
                                                             (n, v["passed"], v["seconds"], v["device"] or "") for n, v in r.items()])


def sanitizers(r):
    return table(("checker and program", "found"), r.items())


def compare(r):
    return table(("", "cuda", "cpu", "apart"), [(which if which.startswith(name) else f"{which}, {name.partition(' ')[2]}", v["cuda"], v["cpu"], f"{100 * (v['cuda'] / v['cpu'] - 1):+.3f} %")
                                               for name, values in r.items() for which, v in values.items()])


def ops(r):
    first = r["unpadded"]
    lines = [f"Matmul {first['matmul']['size']}³ bf16: {first['matmul']['tflops']:.1f} TFLOP/s; copy: {first['copy']['gbs']:.0f} GB/s.", ""]
    padded = {(o["op"], o["shape"]): o for o in r["padded"]["operations"]}
    rows = [(o["op"], o["shape"], 1e6 * o["seconds"], 1e6 * padded[o["op"], o["shape"]]["seconds"], o.get("of_matmul", ""), o.get("of_copy", ""))
            for o in first["operations"] if (o["op"], o["shape"]) in padded]
    return lines + table(("operation", "shape", "µs", "µs, rows 64 elements apart", "of the matmul's rate", "of the copy's"), rows)


def torch(r):
    lines = [f"torch {r['torch']}, CUDA {r['cuda']}."]
    rows = [(p["product"], p["tflops"]) for p in r["products"]]
    rows += [(f"attention of {a['batch']} × 2048, {w}", a[f"{w}_tflops"]) for a in r["attention"] for w in ("forward", "backward")]
    return [*lines, "", *table(("torch", "TFLOP/s"), rows)]


def blocks(r):
    rows = []
    for name, b in r.items():
        rows.append((name, "computing", b["computing"], b["computing_of_matmul"]))
        rows.append((name, "with what waits for the disk", b["seconds"], b["of_matmul"]))
        rows += [(name, phase, p["seconds"], p.get("of_matmul", "")) for phase, p in b["phases"].items()]
    return ["The middle one of three blocks.", "", *table(("block", "phase", "seconds", "of the matmul's rate"), rows)]


def choices(r):
    rows = [(p["product"], f"{p['m']} × {p['n']} × {p['k']}", p["tflops"][0] if p["tflops"] else "", max(p["tflops"], default=""),
             p["tflops"].index(max(p["tflops"])) + 1 if p["tflops"] else "") for p in r["products"]]
    lines = table(("product", "m × n × k", "TFLOP/s of the first choice", "of the best", "which is number"), rows)
    sizes = [k for k in r["panels"][0] if k.startswith("mb_")]
    return lines + table(("gradient", *(f"{k[3:]} MB, µs" for k in sizes)),
                         [(f"[{p['rows']}, {p['cols']}], {p['tokens']} tokens", *(1e6 * p[k] for k in sizes)) for p in r["panels"]])


def ncu(r):
    return table(("kernel", "metric", "value"), [(k, m, v) for k, found in r.items()
                                                 for m, v in (found.items() if isinstance(found, dict) else [("", found)])])


def fault(r):
    return table(("what", "found"), r.items())


def memory(r):
    return table(("job", "predicted, MiB", "measured, MiB"), [(n, v["predicted_mib"], v["peak_mib"] - v["before_mib"]) for n, v in r.items()])


def matvec(r):
    lines = [f"{r['checked']} products were compared with double precision first. Copy: {r['copy']['gbs']:.0f} GB/s, read and written; cuBLAS is "
             f"{'among' if r['cublas'] else 'not among'} the dense ones. Factors are of the fastest dense product; in brackets what bytes alone "
             "would give.", ""]
    shares = list(r["products"][0]["sparse"])
    rows = []
    for p in r["products"]:
        best = p["dense"].get(p["dense"]["best"], {})
        row = [f"{p['rows']} × {p['cols']}", p["vectors"], best.get("us", ""), p["dense"]["best"], best.get("gbs", "")]
        for share in shares:
            s = p["sparse"][share]
            row += [s["us"], f"{s['speedup']:.2f} ({s['bound']:.2f})" if "speedup" in s else "", s["of_copy"]]
        rows.append(row)
    heads = ["matrix", "vectors", "dense, µs", "by", "GB/s"]
    for share in shares:
        heads += [f"{share} zeros, µs", "times as fast", "of the copy's rate"]
    return lines + table(heads, rows)


def page(groups):
    kinds = {(g["kind"], g["small"]) for g in groups.values()}
    lines = ["# The first hour on a device", ""]
    if kinds != {("device", False)}:
        lines = ["# A trial of first-hour.sh without a device", "",
                 "**No figure here is a device's.** This was computed by an emulator of the kernels on a processor, at small sizes, to try the script "
                 "itself. Times and rates mean nothing. What only a device can tell is shown as skipped.", ""]
    done = {name: step for g in groups.values() for name, step in g["steps"].items()}
    lines += table(("step", "", "seconds", "why"), [(name, done[name]["state"], done[name]["seconds"], done[name].get("why", "")) if name in done
                                                    else (name, "not run", "", "") for steps in Hour.GROUPS.values() for name in steps])
    for steps in Hour.GROUPS.values():
        for name in steps:
            if done.get(name, {}).get("state") == "done":
                lines += [f"## {name}", ""]
                try:
                    lines += globals()[name](done[name]["result"])
                except Exception as error:  # a table that cannot be made hides no other
                    lines += [f"Not shown ({type(error).__name__}: {error}); the JSON has it.", ""]
    return "\n".join(lines)


def main():
    directory = sys.argv[1]
    groups = {}
    for group in Hour.GROUPS:
        path = os.path.join(directory, f"group-{group}.json")
        if os.path.exists(path):
            with open(path) as file:
                groups[group] = json.load(file)
    text = page(groups)
    if "--write" not in sys.argv[2:]:
        print(text)
    elif any(g["kind"] != "device" or g["small"] for g in groups.values()) or not groups:
        sys.exit("these results are not a device's: bench/results keeps measurements alone")
    else:
        with open(os.path.join(ROOT, "bench", "results", "first-hour.md"), "w") as file:
            file.write(text)


main()
