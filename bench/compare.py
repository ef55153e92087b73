#!/usr/bin/env python3
"""besad's speed, memory and perplexity; with --besa against the published code on the same cores in the same run, in turn.

    compare.py tiny      the bundled model, row-wise BESA, 128 x 256 tokens, 50 %, pruning only
    compare.py block     one random block: hidden 2048, intermediate 5632, 8 x 512 tokens
    compare.py growth    one block as it, the samples and their length grow: what a FLOP costs
    compare.py memory    peak memory of a 4-block and a 16-block model of one width
    compare.py estimate [--model DIR --calibration FILE]    what POST /v1/estimate says of memory against what jobs take, on a random
                         block of that size and, where one is given, on a model
    compare.py presets --model DIR --calibration FILE    any model, by every preset: time, phases, memory
    compare.py model --model DIR --calibration FILE --evaluation FILE ...    any model, by every method: time, memory, perplexity

With --beside `tiny` and `block` are run a second time each, in turn, beside a busy loop of another program, and the published code
once: "beside" has those seconds, and what part that is of the run before. Nothing else should run; and the loop competes as an
equal only where it is in the same group of the scheduler's as besad, as here, where both are of one session.

--besa DIR is a checkout of the published code and --python an interpreter with torch and transformers (see published.py). Shows on
standard error how far it is, and writes a JSON object to standard output; results are kept in bench/results/. `make bench` builds
what this needs and runs it; bench/smollm2.py makes a model worth measuring."""
import argparse
import json
import multiprocessing
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request

import random_models

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


class Progress:
    """What is being done: on a terminal a line that changes, elsewhere a line now and then."""

    def __init__(self):
        self.terminal, self.shown = sys.stderr.isatty(), 0.0

    def step(self, text):
        if self.terminal:
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
        elif time.monotonic() - self.shown > 15:
            print(text, file=sys.stderr, flush=True)
            self.shown = time.monotonic()

    def done(self, text):
        print(f"\r\x1b[K{text}" if self.terminal else text, file=sys.stderr, flush=True)


progress = Progress()
PRESETS = ("paper", "fast", "balanced", "best")


def run_besad(command, directory, model, calibration, samples, length, precision, method="besa", evaluation=(), **settings):
    """besad.json of one job that `command` runs, and the process's peak memory in bytes."""
    what = f"{os.path.basename(model)}, {method}, {precision}"
    progress.step(what)
    with tempfile.TemporaryDirectory(dir=directory) as work:
        job = os.path.join(work, "job.json")
        with open(job, "w") as file:
            json.dump({"model": os.path.basename(model), "output": "out", "preset" if method in PRESETS else "method": method,
                       "sparsity": 0.5, "precision": precision, "progress": {"perplexity_every": 0}, **settings,
                       "calibration": {"path": os.path.basename(calibration), "samples": samples, "sequence_length": length},
                       "evaluation": {"perplexity": [{"name": os.path.basename(path), "path": os.path.basename(path),
                                                      "sequence_length": length} for path in evaluation]}}, file)
        process = subprocess.Popen(
            [*command, job, "--model-root", os.path.dirname(model),
             *(option for path in (calibration, *evaluation) for option in ("--data-root", os.path.dirname(path))),
             "--output-root", os.path.join(work, "output")],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        log = []
        for line in process.stderr:
            log.append(line)
            progress.step(f"{what}: {line.strip()}")
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"besad failed: {''.join(log)}")
        with open(os.path.join(work, "output", "out", "besad.json")) as file:
            report = json.load(file)
    progress.done(f"{what}: {report['result']['pruning_seconds']:.2f} s of pruning, {usage.ru_maxrss / 1024:.0f} MiB at most")
    return report, usage.ru_maxrss * 1024


class Loop:
    """Another program that takes all of a core that it gets, while this is entered. The shell ends by itself if this process is
    killed: its standard input ends."""

    COMMAND = "(while :; do :; done) & trap 'kill $!' EXIT; read -r nothing"

    def __enter__(self):
        self.shell = subprocess.Popen(["sh", "-c", self.COMMAND], stdin=subprocess.PIPE)
        time.sleep(0.2)

    def __exit__(self, *what):
        self.shell.stdin.close()
        self.shell.wait()


def run_published(args, *what):
    """Its JSON, or nothing where it is not asked for."""
    if not args.besa:
        return None
    progress.step("the published code")
    out = subprocess.run([args.python, os.path.join(ROOT, "bench", "published.py"), "--besa", args.besa, *what], check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    progress.done(f"the published code: {json.loads(out)['seconds']:.2f} s")
    return json.loads(out)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values), "runs": values}


def flop_of(model, samples, length, forwards):
    """(learning, the other passes) of BESA for one epoch over all blocks of a LLaMA: a forward pass, dX (not of q, k, v: nothing
    needs it) and dW of the linears, and the causal half of attention's products; `forwards`: the passes that learn nothing."""
    with open(os.path.join(model, "config.json")) as file:
        config = json.load(file)
    hidden, heads = config["hidden_size"], config["num_attention_heads"]
    attended = hidden * (hidden + 2 * hidden // heads * config.get("num_key_value_heads", heads))
    linears = attended + hidden * (hidden + 3 * config["intermediate_size"])
    attention = hidden * length  # multiplications for a token: two products, of half the tokens on average
    twice = 2 * samples * length * config["num_hidden_layers"]
    return twice * (3 * linears - attended + 3.5 * attention), twice * forwards * (linears + attention)


def order_check_flop(model, samples, length):
    """Of the seven passes over 128 tokens, the first of a sequence, by which engine/methods/one_shot/order.c asks of each block
    whether importance orders its weights."""
    return flop_of(model, min(samples, -(-128 // length)), min(length, 128), 7)[1]


def versus(args, directory, model, calibration, samples, length, published):
    ours, theirs, phases, beside, theirs_beside = {p: [] for p in args.precision}, [], {}, {p: [] for p in args.precision}, []
    rates = []  # of a large matrix product: in each turn, as what a machine has to give may change while this runs

    def run(precision):
        report, _ = run_besad(args.command, directory, model, calibration, samples, length, precision, besa={"safeguards": False})
        return report, sum(b["seconds"] for b in report["blocks"])

    for _ in range(args.runs):
        rates.append(json.loads(subprocess.run([args.rate], check=True, stdout=subprocess.PIPE).stdout))
        for precision in args.precision:
            report, seconds = run(precision)
            ours[precision].append(seconds)
            phases[precision] = {name: sum(b["phases"][name] for b in report["blocks"]) for name in report["blocks"][0]["phases"]}
            device = report["device"]
            if args.beside:
                with Loop():
                    beside[precision].append(run(precision)[1])
        if them := run_published(args, *published):
            theirs.append(them["seconds"])
            if args.beside and not theirs_beside:  # once: it takes minutes
                with Loop():
                    theirs_beside.append(run_published(args, *published)["seconds"])
    result = {"device": device, "large_matmul_gflops": {p: spread([r[p] for r in rates]) for p in rates[0]}}
    if theirs:
        result["published_seconds"] = spread(theirs)
    if theirs_beside:
        result["published_seconds_beside"] = theirs_beside[0]
    for precision in args.precision:
        result[precision] = {"seconds": spread(ours[precision]), "phases_of_last_run": phases[precision]}
        if theirs:
            result[precision]["fraction_of_published"] = spread([o / t for o, t in zip(ours[precision], theirs)])
        if args.beside:
            result[precision]["beside"] = {"seconds": spread(beside[precision]),
                                           "of_alone": spread([b / o for b, o in zip(beside[precision], ours[precision])])}
        if theirs_beside:
            result[precision]["beside"]["fraction_of_published"] = spread([o / theirs_beside[0] for o in beside[precision]])
    return result


def add_rates(args, result, model, samples, length):
    """Of the learning, and of the whole pruning, which reads, ranks and writes too: their FLOP a second, and what part that is of
    a large matrix product's. Five passes are counted; "with_order_check" counts that check's forward passes besides.
    "fraction_by_turn" is of the rate that was measured next to each job, the best of a dozen products, and
    "fraction_of_median_by_turn" of their median."""
    learning, others = flop_of(model, samples, length, 2)  # a reference and a final pass
    checked = order_check_flop(model, samples, length)
    result |= {"learning_flop": learning, "flop": learning + others, "order_check_flop": checked}
    for precision in args.precision:
        own = result[precision]
        own["learning_gflops"] = learning / own["phases_of_last_run"]["learn"] / 1e9
        own["gflops"] = (learning + others) / own["seconds"]["median"] / 1e9
        rates, limit = result["large_matmul_gflops"], precision
        if limit not in rates:  # a processor without bf16's instructions multiplies it in fp32
            limit = "f32"
        own["fraction_of_large_matmul"] = own["learning_gflops"] / rates[limit]["median"]
        own["whole_fraction_of_large_matmul"] = own["gflops"] / rates[limit]["median"]
        own["with_order_check"] = own["whole_fraction_of_large_matmul"] * (1 + checked / (learning + others))
        for name, of in (("fraction_by_turn", limit), ("fraction_of_median_by_turn", f"{limit}_median")):
            own[name] = spread([(learning + others) / seconds / 1e9 / rate
                                for seconds, rate in zip(own["seconds"]["runs"], rates[of]["runs"])])


def tiny(args, directory):
    demo = os.path.join(ROOT, "demo")
    model, calibration = os.path.join(demo, "tiny-llama"), os.path.join(demo, "calibration.safetensors")
    result = versus(args, directory, model, calibration, 128, 256, ("model", model, calibration))
    add_rates(args, result, model, 128, 256)
    return result


def block(args, directory):
    model, calibration = os.path.join(directory, "model"), os.path.join(directory, "tokens.safetensors")
    random_models.write_model(model, 2048, 5632, 32, 4, 1)
    random_models.write_calibration(calibration, 8, 512)
    result = versus(args, directory, model, calibration, 8, 512, ("block",))
    add_rates(args, result, model, 8, 512)
    return result


def model(args, directory):
    """Each method on a model of the caller's: its perplexity, time and memory."""
    result = {}
    for method in args.method:
        for precision in args.precision:
            runs = [run_besad(args.command, directory, args.model, args.calibration, args.samples, args.length, precision, method,
                              args.evaluation) for _ in range(args.runs)]
            report = runs[-1][0]
            result["device"], result["model"] = report["device"], os.path.basename(args.model)
            result[f"{method}, {precision}"] = {
                "perplexity": report["result"]["perplexity"], "sparsity": report["result"]["sparsity"],
                "pruning_seconds": spread([r["result"]["pruning_seconds"] for r, _ in runs]),
                "seconds": spread([r["result"]["seconds"] for r, _ in runs]), "peak_rss_bytes": max(peak for _, peak in runs)}
            for name, values in report["result"]["perplexity"].items():
                progress.done(f"    perplexity on {name}: dense {values['dense']:.3f}, pruned {values['pruned']:.3f}")
    return result


def presets(args, directory):
    """A model of the caller's by each preset, with as many samples for all, from its files to the output: time, where it goes,
    memory; in turn with the published code."""
    result, theirs, ours = {}, [], {preset: [] for preset in args.preset}
    calibration = os.path.join(directory, "tokens.safetensors")  # the published code takes all that is there
    kind, (rows, length), ids = random_models.read_safetensors(args.calibration)[1]["input_ids"]
    if rows < args.samples or length != args.length:
        sys.exit(f"{args.calibration} has {rows} sequences of {length} tokens, not {args.samples} of {args.length}")
    random_models.write_safetensors(calibration, {"input_ids": (kind, [args.samples, length], ids[:len(ids) // rows * args.samples])})
    for _ in range(args.runs):
        for preset in args.preset:
            report, peak = run_besad(args.command, directory, args.model, calibration, args.samples, args.length, args.precision[0], preset)
            ours[preset].append(report["result"]["seconds"])
            phases = {name: sum(b["phases"][name] for b in report["blocks"]) for name in report["blocks"][0]["phases"]}
            phases["other"] = report["result"]["seconds"] - sum(phases.values())
            result["device"] = report["device"]
            result[preset] = {"phases_of_last_run": phases, "peak_rss_bytes": peak}
        if them := run_published(args, "model", args.model, calibration):
            theirs.append(them["seconds"])
    for preset in args.preset:
        result[preset]["seconds"] = spread(ours[preset])
    result |= {"model": os.path.basename(args.model), "samples": args.samples, "length": args.length, "precision": args.precision[0]}
    return result | ({"published_seconds": spread(theirs)} if theirs else {})


def in_child(function, *arguments):
    """A program's ru_maxrss starts at that of the process that forked it, so this one must stay small."""
    child = multiprocessing.Process(target=function, args=arguments)
    child.start()
    child.join()
    if child.exitcode:
        sys.exit(f"{function.__name__} failed")


# (width, samples, length) of one block. Its intermediate width is 8/3 of that; heads are of 64, a fourth of them for keys.
GROWTH = ([(768, samples, 256) for samples in (32, 64, 128, 256, 512)] + [(768, 32, length) for length in (512, 1024, 2048)] +
          [(width, 32, 256) for width in (192, 384, 1024, 1536, 2048, 3072, 4096)])


def growth(args, directory):
    """What a FLOP costs as work grows, in that of the cheapest; below a width of 768 it is told, and left out of the bound."""
    result = {}
    for precision in args.precision:
        rows = []
        for width, samples, length in GROWTH:
            model, calibration = os.path.join(directory, f"wide-{width}"), os.path.join(directory, f"tokens-{samples}-{length}.safetensors")
            if not os.path.exists(model):
                in_child(random_models.write_model, model, width, width * 8 // 3 // 64 * 64, width // 64, max(1, width // 256), 1)
            if not os.path.exists(calibration):
                in_child(random_models.write_calibration, calibration, samples, length)
            seconds = []
            for _ in range(args.runs):
                report, peak = run_besad(args.command, directory, model, calibration, samples, length, precision,
                                         besa={"safeguards": False})
                seconds.append(report["result"]["pruning_seconds"])
            flop = sum(flop_of(model, samples, length, 2)) + order_check_flop(model, samples, length)
            rows.append({"width": width, "samples": samples, "length": length, "flop": flop, "seconds": spread(seconds),
                         "peak_rss_bytes": peak, "gflops": flop / min(seconds) / 1e9})
            result["device"] = report["device"]
        best = max(row["gflops"] for row in rows)
        for row in rows:
            row["of_the_best"] = best / row["gflops"]
            progress.done(f"    {precision}, width {row['width']}, {row['samples']} x {row['length']}: {row['of_the_best']:.2f}")
        result[precision] = rows
    return result


def memory(args, directory):
    result = {}
    calibration = os.path.join(directory, "tokens.safetensors")
    in_child(random_models.write_calibration, calibration, 16, 256)
    for blocks in (4, 16):
        model = os.path.join(directory, f"model-{blocks}")
        in_child(random_models.write_model, model, 768, 2048, 12, 12, blocks)
        report, peak = run_besad(args.command, directory, model, calibration, 16, 256, "f32")
        size = os.path.getsize(os.path.join(model, "model.safetensors"))
        result[f"{blocks} blocks"] = {"model_bytes": size, "peak_rss_bytes": peak, "seconds": report["result"]["seconds"]}
    return result


def ask_estimate(besad, directory, model, data, spec):
    """What a daemon says that the job would take."""
    with tempfile.TemporaryDirectory(dir=directory) as work:
        port_file = os.path.join(work, "port")
        os.mkdir(os.path.join(work, "output"))
        daemon = subprocess.Popen([besad, "--listen", "127.0.0.1:0", "--port-file", port_file, "--state-dir", os.path.join(work, "state"),
                                   "--model-root", os.path.dirname(model), *(o for d in data for o in ("--data-root", d)),
                                   "--output-root", os.path.join(work, "output")], stderr=subprocess.DEVNULL)
        try:
            while not os.path.exists(port_file) or not os.path.getsize(port_file):
                if daemon.poll() is not None:
                    sys.exit("besad does not start")
                time.sleep(0.02)
            with open(port_file) as file:
                request = urllib.request.Request(f"http://127.0.0.1:{int(file.read())}/v1/estimate", json.dumps(spec).encode(),
                                                 {"Content-Type": "application/json"})
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        finally:
            daemon.terminate()
            daemon.wait()


def estimate(args, directory):
    """By few samples and windows: what a job takes grows with them by what is exactly known."""
    block, tokens = os.path.join(directory, "block-2048"), os.path.join(directory, "tokens.safetensors")
    in_child(random_models.write_model, block, 2048, 5632, 32, 4, 1)
    in_child(random_models.write_calibration, tokens, 4, 256)
    models = [(block, tokens, 256)]
    if args.model:
        models.append((args.model, args.calibration, args.length))
    result = {}
    for model, calibration, length in models:
        evaluation = os.path.join(directory, f"windows-{length}.safetensors")
        in_child(random_models.write_calibration, evaluation, 4, length)
        for method in args.method:
            for precision in args.precision:
                for windows in ((), (evaluation,)):
                    spec = {"model": os.path.basename(model), "method": method, "sparsity": 0.5, "precision": precision,
                            "progress": {"perplexity_every": 0},
                            "calibration": {"path": os.path.basename(calibration), "samples": 4, "sequence_length": length},
                            "evaluation": {"perplexity": [{"name": os.path.basename(path), "path": os.path.basename(path),
                                                           "sequence_length": length} for path in windows]}}
                    said = ask_estimate(args.besad, directory, model, sorted({os.path.dirname(calibration), directory}), spec)
                    report, peak = run_besad(args.command, directory, model, calibration, 4, length, precision, method, windows)
                    result["device"] = report["device"]
                    memory = said["memory"]
                    name = f"{os.path.basename(model)}, {method}, {precision}{', evaluated' if windows else ''}"
                    result[name] = {"process_peak_bytes": peak, "estimated_bytes": memory["process"]["peak_bytes"],
                                    "of_them_the_backend's": memory["device"]["peak_bytes"],
                                    "estimate_over_peak": memory["process"]["peak_bytes"] / peak}
                    progress.done(f"    {name}: {result[name]['estimate_over_peak']:.3f} of that was estimated")
    return result


def check(parser, args):
    """Whatever is missing is told before anything is measured."""
    needed = [args.besad] + ([args.rate] if args.what in ("tiny", "block") else [])
    for program in needed:
        if not os.access(program, os.X_OK):
            parser.error(f"there is no program {program}: `make bench` builds it")
    if args.beside and args.what not in ("tiny", "block"):
        parser.error("--beside is for `tiny` and `block`")
    if args.what == "estimate" and bool(args.model) != bool(args.calibration):
        parser.error("`estimate` needs --model and --calibration, or neither")
    if args.what in ("model", "presets"):
        given = [("--model", [args.model]), ("--calibration", [args.calibration])]
        for option, paths in given + [("--evaluation", args.evaluation)] * (args.what == "model"):
            for path in paths or [None]:
                if not path:
                    parser.error(f"`{args.what}` needs {option}")
                if not os.path.exists(path):
                    parser.error(f"{option}: there is no {path}")
    if args.backend and args.what == "estimate":
        parser.error("--backend is not for `estimate`, whose daemon takes the one it finds")
    if args.besa and args.what in ("tiny", "block", "presets"):
        if not os.path.exists(os.path.join(args.besa, "models", "sparse_layers.py")):
            parser.error(f"--besa: {args.besa} is no checkout of the published code: it has no models/sparse_layers.py")
        if subprocess.run([args.python, "-c", "import torch, transformers, safetensors"], stderr=subprocess.DEVNULL).returncode:
            parser.error(f"--python: {args.python} has no torch, transformers or safetensors")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("tiny", "block", "growth", "memory", "estimate", "model", "presets"))
    parser.add_argument("--besad", default=os.path.join(ROOT, "build", "besad"))
    parser.add_argument("--backend", choices=("cpu", "cuda"), help="of besad, in place of the one it takes by itself")
    parser.add_argument("--rate", default=os.path.join(ROOT, "build", "bench", "matmul_rate"), help="the program, for `tiny` and `block`")
    parser.add_argument("--besa", help="checkout of the published code")
    parser.add_argument("--python", default=sys.executable, help="interpreter with torch and transformers")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--beside", action="store_true", help="for `tiny` and `block`: once more each, beside a busy loop")
    parser.add_argument("--precision", nargs="+", default=["f32"], choices=("f32", "bf16"))
    parser.add_argument("--model", type=os.path.abspath, help="a Hugging Face directory, for `model`")
    parser.add_argument("--calibration", type=os.path.abspath, help="text or tokens, for `model`")
    parser.add_argument("--evaluation", type=os.path.abspath, nargs="+", default=[], help="text or tokens, for `model`")
    parser.add_argument("--preset", nargs="+", default=list(PRESETS), choices=PRESETS)
    parser.add_argument("--method", nargs="+", default=["magnitude", "wanda", "besa"])
    parser.add_argument("--samples", type=int, default=128, help="of calibration, for `model`")
    parser.add_argument("--length", type=int, default=256, help="tokens of a sequence, for `model`")
    args = parser.parse_args()
    check(parser, args)
    args.command = [args.besad, "run", *(["--backend", args.backend] if args.backend else [])]
    with tempfile.TemporaryDirectory() as directory:
        measure = {"tiny": tiny, "block": block, "growth": growth, "memory": memory, "estimate": estimate, "model": model,
                   "presets": presets}[args.what]
        result = measure(args, directory)
    command = "bench/compare.py " + " ".join(a for a in sys.argv[1:] if not a.startswith("/"))
    print(json.dumps({"what": args.what, "command": command, "cores": os.cpu_count(), "machine": platform.machine(), **result},
                     indent=1))


main()
