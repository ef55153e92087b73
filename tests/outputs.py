#!/usr/bin/env python3
"""What `besad run` makes, as hashes: of every method on every small model, in one go, killed, stopped, and with blocks finished in
the background. For before and after a change that must not change what comes out:

    tests/outputs.py --save before.json          of the program as it was
    tests/outputs.py --compare before.json       of the program as it is: says which cases differ, and where

A line is a case: the hash of the output directory, the hash of the events in their order, and "METHOD MODEL WAY". Times, attempts
and what only says which machine and which files it was (inode, mtime, device) are left out of both. Exits with 1 where a case
differs, did not come to its end, or made other files when resumed than in one go.

WAY is `whole`, `killed` or `stopped` (SIGKILL or SIGTERM once half of the blocks are committed, and gone on with) on the CPU,
where a block is finished before the next; `beside`, `beside-killed` and `beside-stopped` are the same on the emulated CUDA backend,
which finishes a block while the next is pruned (and in line where the block is probed, or the target is dense_stream). That one is
tests/emulated/besad in the build directory, where `make tests` puts it; without it, these cases are skipped.

Results are those of a machine and its libraries: compare what was made on one. Needs Python 3 alone."""
import argparse
import array
import concurrent.futures
import contextlib
import fcntl
import gzip
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
DATA = os.path.join(ROOT, "tests", "data")
sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import read_safetensors, write_safetensors  # noqa: E402

# ---- the table ------------------------------------------------------------------------------------------------------------------

# A row's models: all; those that transformers saved, and the trained ones; or a few. DEVICE are those of the emulator, which is
# slow: of two blocks, and of three, so that after the first one is left to be finished beside the next.
ALL = ""
SAVED = "^(saved|tiny)"
FEW = "^(saved-(llama|qwen3_moe|llama-sharded)|tiny-llama)$"
DEVICE = "^saved-(llama|gemma3_text|qwen3_moe)$"
ONE = "^saved-llama$"

CPU = ("whole", "killed", "stopped")
BESIDE = ("beside", "beside-killed", "beside-stopped")

BESA = {"method": "besa", "sparsity": 0.5}
WANDA = {"method": "wanda", "sparsity": 0.5}
MAGNITUDE = {"method": "magnitude", "sparsity": 0.5}

# Name, models on the CPU, models on the emulator (None: none), what the job says besides what all say.
ROWS = [
    ("magnitude", ALL, DEVICE, MAGNITUDE),
    ("magnitude-no-data", FEW, ONE, dict(MAGNITUDE, calibration=None)),
    ("magnitude-bf16", FEW, None, dict(MAGNITUDE, precision="bf16")),
    ("wanda", ALL, DEVICE, WANDA),
    ("wanda-70", SAVED, None, dict(WANDA, sparsity=0.7)),
    ("wanda-bf16", SAVED, ONE, dict(WANDA, precision="bf16")),
    ("wanda-probed", SAVED, ONE, dict(WANDA, progress={"perplexity_every": 1})),
    ("wanda-archive", "^(saved-llama-sharded|tiny-llama)$", None, dict(WANDA, archive=True)),
    ("wanda-archive-coded", ONE, ONE, dict(WANDA, archive=True, archive_coded=True)),
    ("wanda-mixed", ONE, None, dict(WANDA, calibration={"samples": 6, "sequence_length": 24, "sources": [
        {"path": "text.txt", "weight": 1}, {"path": "ids.safetensors", "weight": 2}]})),
    ("wanda-tasks", ONE, None, dict(WANDA, evaluation={"tasks": [
        {"name": "boolq", "path": "boolq.jsonl", "format": "boolq", "limit": 2}]})),
    ("besa", ALL, DEVICE, BESA),
    ("besa-bf16", ALL, ONE, dict(BESA, precision="bf16")),
    ("besa-layer", SAVED, DEVICE, dict(BESA, besa={"granularity": "layer"})),
    ("besa-layer-bf16", FEW, None, dict(BESA, precision="bf16", besa={"granularity": "layer"})),
    ("besa-rows", SAVED, DEVICE, dict(BESA, besa={"rows_per_group": 3})),
    ("besa-many-rows-bf16", FEW, None, dict(BESA, precision="bf16", besa={"rows_per_group": 24})),
    ("besa-halves", SAVED, DEVICE, dict(BESA, besa={"reconstruct": "half_block"})),
    ("besa-by-layers", SAVED, DEVICE, dict(BESA, besa={"reconstruct": "layer"})),
    ("besa-by-layers-bf16", FEW, None, dict(BESA, precision="bf16", besa={"reconstruct": "layer", "granularity": "layer"})),
    ("besa-two-blocks", SAVED, DEVICE, dict(BESA, besa={"reconstruct": "two_blocks"})),
    ("besa-two-blocks-rows-bf16", FEW, None, dict(BESA, precision="bf16", besa={"reconstruct": "two_blocks", "rows_per_group": 3})),
    ("besa-sigmoid-60", SAVED, None, dict(BESA, sparsity=0.6, besa={"parameterization": "sigmoid"})),
    ("besa-softmax", SAVED, ONE, dict(BESA, besa={"parameterization": "softmax"})),
    ("besa-softmax-70", SAVED, None, dict(BESA, sparsity=0.7)),
    ("besa-layer-softmax-70", FEW, None, dict(BESA, sparsity=0.7, besa={"granularity": "layer"})),
    ("besa-dense-stream", SAVED, ONE, dict(BESA, besa={"target": "dense_stream"})),
    ("besa-layer-dense-stream", FEW, None, dict(BESA, besa={"granularity": "layer", "target": "dense_stream"})),
    ("besa-by-magnitude", FEW, None, dict(BESA, besa={"importance": "magnitude"})),
    ("besa-by-sparsegpt", FEW, ONE, dict(BESA, besa={"importance": "sparsegpt"})),
    ("besa-by-gradient", FEW, ONE, dict(BESA, besa={"importance": "gradient"})),
    ("besa-by-sparsegpt-published", FEW, None, dict(BESA, besa={"importance": "sparsegpt_published"})),
    ("besa-adamw", FEW, None, dict(BESA, besa={
        "optimizer": "adamw", "epochs": 2, "batch_size": 2, "candidates": 21, "lambda": 2})),
    ("besa-probed", FEW, None, dict(BESA, progress={"perplexity_every": 1})),
    ("besa-nothing", FEW, None, dict(BESA, sparsity=0)),
    ("besa-24", SAVED, ONE, {"method": "besa", "pattern": "2:4"}),
    ("magnitude-24", SAVED, ONE, {"method": "magnitude", "pattern": "2:4"}),
    ("wanda-48", SAVED, ONE, {"method": "wanda", "pattern": "4:8"}),
    ("one-shot-by-sparsegpt", SAVED, DEVICE, {"method": "one_shot", "sparsity": 0.5, "one_shot": {"importance": "sparsegpt"}}),
    ("one-shot-by-gradient", SAVED, DEVICE, {"method": "one_shot", "sparsity": 0.5, "one_shot": {"importance": "gradient"}}),
    ("one-shot-by-gradient-24-bf16", FEW, ONE, {"method": "one_shot", "pattern": "2:4", "precision": "bf16", "one_shot": {
        "importance": "gradient"}}),
    ("one-shot-by-sparsegpt-published-24", FEW, None, {"method": "one_shot", "pattern": "2:4", "one_shot": {
        "importance": "sparsegpt_published"}}),
    ("sparsegpt", ALL, DEVICE, {"method": "sparsegpt", "sparsity": 0.5}),
    ("sparsegpt-24", SAVED, ONE, {"method": "sparsegpt", "pattern": "2:4", "precision": "bf16"}),
    ("admm", ALL, DEVICE, {"method": "admm", "sparsity": 0.5}),
    ("admm-24", SAVED, ONE, {"method": "admm", "pattern": "2:4", "precision": "bf16"}),
    ("wanda-refit", ALL, DEVICE, dict(WANDA, refit={"method": "block", "batch_size": 2})),
    ("sparsegpt-refit-24", SAVED, ONE, {"method": "sparsegpt", "pattern": "2:4", "precision": "bf16", "refit": {
        "method": "block", "epochs": 3, "learning_rate": 0.002, "norms": False}}),
    ("besa-refit-dense-stream", FEW, ONE, dict(BESA, besa={"target": "dense_stream"}, refit={"method": "block"})),
    ("wanda-global", ALL, DEVICE, dict(WANDA, refit={"method": "global", "batch_size": 2, "epochs": 1})),
    ("wanda-fitted", SAVED, DEVICE, dict(WANDA, refit={"method": "least_squares"})),
    ("sparsegpt-24-fitted", FEW, None, {"method": "sparsegpt", "pattern": "2:4", "refit": {"method": "least_squares"}}),
    ("magnitude-fitted-bf16", FEW, None, dict(MAGNITUDE, precision="bf16", refit={"method": "least_squares"})),
    ("besa-joint", SAVED, DEVICE, dict(BESA, quantization={"bits": 3, "group_size": "channel", "symmetric": False})),
    ("besa-joint-layer-bf16", FEW, ONE, dict(BESA, precision="bf16", besa={"granularity": "layer"}, quantization={
        "bits": 4, "group_size": "channel"})),
    ("besa-4-first", FEW, ONE, dict(BESA, quantization={"bits": 4, "group_size": "channel", "order": "quantize_first"})),
    ("wanda-4", SAVED, ONE, dict(WANDA, quantization={"bits": 4, "group_size": "channel"})),
    ("wanda-4-dequantized", FEW, None, dict(WANDA, quantization={"bits": 4, "group_size": "channel", "format": "dequantized"})),
    ("wanda-4-feedback", SAVED, DEVICE, dict(WANDA, quantization={"bits": 4, "group_size": "channel", "rounding": "feedback"})),
    ("sparsegpt-24-fitted-3-feedback", FEW, ONE, {"method": "sparsegpt", "pattern": "2:4", "refit": {"method": "least_squares"}, "quantization": {
        "bits": 3, "group_size": "channel", "symmetric": False, "rounding": "feedback"}}),
    ("none-4-feedback", SAVED, DEVICE, {"method": "none", "quantization": {"bits": 4, "group_size": "channel", "rounding": "feedback"}}),
    ("none-3", FEW, ONE, {"method": "none", "quantization": {"bits": 3, "group_size": "channel"}, "calibration": None}),
    ("besa-8", SAVED, DEVICE, dict(BESA, quantization={"bits": 8, "group_size": "channel", "symmetric": False})),
    ("wanda-by-outliers", SAVED, DEVICE, dict(WANDA, allocation={"method": "outlier", "threshold": 3})),
    ("besa-by-loss-60", FEW, ONE, dict(BESA, sparsity=0.6, allocation={"method": "loss"})),
    ("admm-by-loss-refit", FEW, ONE, {"method": "admm", "sparsity": 0.5, "allocation": {"method": "loss"}, "refit": {"method": "block"}}),
    ("none", SAVED, ONE, {"method": "none"}),
]


def evaluates_only(spec):
    return spec["method"] == "none" and "quantization" not in spec


# ---- models and data ------------------------------------------------------------------------------------------------------------

TOKENS, SAMPLES = 24, 6                  # of the calibration of the random models
DEVICE_TOKENS, DEVICE_SAMPLES = 12, 2    # on the emulator
TRAINED_TOKENS, TRAINED_SAMPLES = 256, 4  # of the trained models
VOCAB = 64                               # the smallest model's
TEXT, FEW_TEXT = 20000, 600              # characters to calibrate with, and to evaluate on


def write_ids(path, ids, length):
    write_safetensors(path, {"input_ids": ("I32", [len(ids) // 4 // length, length], ids)})


def random_ids(rows, length, seed):
    rng = random.Random(seed)
    return array.array("i", (rng.randrange(VOCAB) for _ in range(rows * length))).tobytes()


def shard(source, target):
    """The model in two files, tensors dealt out in turn."""
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    _, tensors = read_safetensors(os.path.join(source, "model.safetensors"))
    dealt = {name: files[number % 2] for number, name in enumerate(sorted(tensors))}
    for file in files:
        write_safetensors(os.path.join(target, file), {name: tensors[name] for name in dealt if dealt[name] == file})
    with open(os.path.join(target, "model.safetensors.index.json"), "w") as index:
        json.dump({"metadata": {"total_size": sum(len(t[2]) for t in tensors.values())}, "weight_map": dealt}, index)


def ids_spec(file, samples, length):
    return {"calibration": {"path": file, "samples": samples, "sequence_length": length},
            "evaluation": {"perplexity": [{"name": "few", "path": f"few-{file}", "sequence_length": length}]}}


class Place:
    """A directory with the models and the data, and {model: (blocks, what its jobs say)}."""

    def __init__(self, directory):
        self.models, self.data = os.path.join(directory, "models"), os.path.join(directory, "data")
        self.directory, self.specs = directory, {}
        os.mkdir(self.data)
        with gzip.open(os.path.join(DATA, "wikitext2.valid.txt.gz"), "rt", encoding="utf-8", newline="") as text:
            for name, characters in (("text.txt", TEXT), ("few.txt", FEW_TEXT)):
                with open(os.path.join(self.data, name), "w", encoding="utf-8", newline="") as file:
                    file.write(text.read(characters))
        shutil.copy(os.path.join(DATA, "tasks", "boolq.jsonl"), self.data)
        self.add_ids("ids.safetensors", TOKENS, SAMPLES)
        self.add_ids("device.safetensors", DEVICE_TOKENS, DEVICE_SAMPLES)
        self.add_saved()
        self.add_families()
        self.add_trained("tiny-llama", os.path.join(ROOT, "demo"), "calibration.safetensors")
        self.add_trained("tiny-qwen", DATA, "tiny-qwen.calibration.safetensors")

    def add_ids(self, name, length, rows):
        write_ids(os.path.join(self.data, name), random_ids(rows, length, 1), length)
        write_ids(os.path.join(self.data, "few-" + name), random_ids(2, length, 2), length)

    def add(self, name, files, spec):
        """A model of these {name in the model: path}."""
        place = os.path.join(self.models, name)
        os.makedirs(place)
        for file, path in files.items():
            shutil.copyfile(path, os.path.join(place, file))
        with open(os.path.join(place, "config.json")) as file:
            config = json.load(file)
            text = config.get("text_config", config)
            self.specs[name] = (text.get("num_hidden_layers") or text["n_layer"], spec)
        return place

    def add_saved(self):
        top = os.path.join(DATA, "saved")
        tokenizer = {name: os.path.join(top, name) for name in ("tokenizer.json", "tokenizer_config.json")}
        spec = {"calibration": {"path": "text.txt", "samples": SAMPLES, "sequence_length": TOKENS},
                "evaluation": {"perplexity": [{"name": "few", "path": "few.txt", "sequence_length": TOKENS}]}}
        for family in sorted(next(os.walk(top))[1]):
            source = os.path.join(top, family)
            self.add("saved-" + family, {**{name: os.path.join(source, name) for name in os.listdir(source)}, **tokenizer}, spec)
        source = os.path.join(top, "llama")
        shard(source, self.add("saved-llama-sharded", {"config.json": os.path.join(source, "config.json"), **tokenizer}, spec))

    def add_families(self):
        top = os.path.join(DATA, "families")
        for family in sorted(next(os.walk(top))[1]):
            source = os.path.join(top, family)
            for name in sorted(name for name in os.listdir(source) if name.endswith(".json")):
                with open(os.path.join(source, name)) as file:
                    config = json.load(file)
                text = config.get("text_config", config)
                short = text.get("max_position_embeddings", text.get("n_positions", TOKENS)) < TOKENS
                self.add(f"{family}-{name[:-5]}", {"config.json": os.path.join(source, name),
                                                   "model.safetensors": os.path.join(source, "model.safetensors")},
                         ids_spec("device.safetensors", DEVICE_SAMPLES, DEVICE_TOKENS) if short else
                         ids_spec("ids.safetensors", SAMPLES, TOKENS))

    def add_trained(self, name, top, calibration):
        row = TRAINED_TOKENS * 4
        for path, to, rows in ((os.path.join(top, calibration), f"{name}.safetensors", TRAINED_SAMPLES),
                               (os.path.join(DATA, f"{name}.wikitext2-64k.safetensors"), f"few-{name}.safetensors", 2)):
            ids = next(iter(read_safetensors(path)[1].values()))[2][:rows * row]
            write_ids(os.path.join(self.data, to), ids, TRAINED_TOKENS)
        source = os.path.join(top, name)
        self.add(name, {file: os.path.join(source, file) for file in os.listdir(source)},
                 ids_spec(f"{name}.safetensors", TRAINED_SAMPLES, TRAINED_TOKENS))

    def job(self, model, row, beside):
        """The job of a row of the table."""
        spec = ids_spec("device.safetensors", DEVICE_SAMPLES, DEVICE_TOKENS) if beside else self.specs[model][1]
        spec = {"model": model, "output": "output", "precision": "f32", **spec, **row}
        if row.get("calibration", spec) is None or evaluates_only(row):
            del spec["calibration"]
        return spec


# ---- a run ----------------------------------------------------------------------------------------------------------------------

PATIENCE = 600  # seconds: only tells a hang
PIPE = 4096     # bytes that a pipe holds: a page
SLACK = 16      # the seconds in the lines before may have more digits


class Failure(Exception):
    pass


@contextlib.contextmanager
def patience(process):
    """Kills what does not end."""
    timer = threading.Timer(PATIENCE, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class Job:
    """A job in a directory of its own, run once or more."""

    def __init__(self, place, besad, backend, name, spec):
        self.place, self.top = place, os.path.join(place.directory, "jobs", name.replace(" ", "_"))
        self.output, self.checkpoint = os.path.join(self.top, "output"), os.path.join(self.top, "checkpoint")
        os.makedirs(self.output)
        path = os.path.join(self.top, "job.json")
        with open(path, "w") as file:
            json.dump(spec, file)
        self.command = [besad, "run", path, "--backend", backend, "--threads", "2", "--model-root", place.models, "--data-root",
                        place.data, "--output-root", self.output, "--checkpoint-dir", self.checkpoint]
        self.environment = {**os.environ, "OMP_NUM_THREADS": "2", "OMP_WAIT_POLICY": "passive"}

    def start(self, stderr):
        return subprocess.Popen(self.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr,
                                env=self.environment)

    def finish(self):
        """Runs to the end; what it wrote to its standard error."""
        process = self.start(subprocess.PIPE)
        with patience(process):
            said = process.communicate()[1]
        if process.returncode:
            raise Failure(f"status {process.returncode}: {said.decode(errors='replace').strip()}")
        return said

    def interrupt(self, said, blocks, number):
        """Sends the signal once `blocks` are committed. The program tells of a block on its standard error when it has committed
        it: that is a pipe with room for what it said before, `said` when undisturbed, but not for that line: there it stays."""
        room = said.index(b"block %d of " % blocks) + SLACK
        end, other = os.pipe()
        fcntl.fcntl(other, 1031, PIPE)  # F_SETPIPE_SZ
        os.write(other, b"." * (PIPE - room))
        process = self.start(other)
        os.close(other)
        with open(end, "rb") as held, patience(process):
            self.wait(process, blocks)
            process.send_signal(number)
            if number == signal.SIGTERM:
                self.wait_for_signal(process)
                held.read()
            status = process.wait()
        if status != (143 if number == signal.SIGTERM else -number):
            raise Failure(f"status {status} after signal {number}")

    def wait(self, process, blocks):
        path, committed = os.path.join(self.checkpoint, "events.jsonl"), 0
        while committed < blocks:
            ended = process.poll() is not None
            if os.path.exists(path):
                with open(path, "rb") as file:
                    committed = file.read().count(b'"type":"block.finished"')
            if ended and committed < blocks:
                raise Failure(f"ended with status {process.returncode} before it had committed {blocks} blocks")
            time.sleep(0.005)

    def wait_for_signal(self, process):
        """Until the process has taken the signal."""
        pending = True
        while pending:
            with open(f"/proc/{process.pid}/status") as file:
                masks = re.findall(r"^S(?:ig|hd)Pnd:\s*(\w+)$", file.read(), re.MULTILINE)
            pending = any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)
            time.sleep(0.005)

    def result(self):
        """What it made."""
        here = os.path.join(self.output, "output")
        result = {"device": None, "files": {}, "report": None, "events": [], "beside": False}
        for path in sorted(os.path.join(top, name) for top, _, names in os.walk(here) for name in names):
            with open(path, "rb") as file:
                content = file.read()
            if os.path.relpath(path, here) == "besad.json":
                report = json.loads(content)
                result["device"], result["report"] = report["device"], self.lasting(report)
            else:
                result["files"][os.path.relpath(path, here)] = hashlib.sha256(content).hexdigest()
        before, stepped = "", set()
        with open(os.path.join(self.checkpoint, "events.jsonl")) as file:
            for event in map(json.loads, file):
                data = event["data"]
                # A block that was finished beside the next is told of before what that did meanwhile.
                result["beside"] |= event["created_at"] < before
                before = event["created_at"]
                if event["type"] == "block.step":  # by the clock, all but the first
                    step = data["block"], data["attempt"]
                    if step in stepped:
                        continue
                    stepped.add(step)
                attempt = {"attempt": data["attempt"]} if "attempt" in data else {}
                result["events"].append([event["type"], {**self.lasting(data), **attempt}])
        result["sha256"] = digest([result["files"], result["report"]])
        result["events_sha256"] = digest(result["events"])
        return result

    def lasting(self, data):
        """Without what differs from run to run."""
        passing = {"seconds", "pruning_seconds", "phases", "attempt", "device", "inode", "mtime"}
        if isinstance(data, dict):
            return {key: self.lasting(value) for key, value in data.items() if key not in passing}
        if isinstance(data, list):
            return [self.lasting(value) for value in data]
        return data.replace(self.place.directory, "") if isinstance(data, str) else data


def digest(value):
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def run_ways(place, besad, row, model, ways, only):
    """{case: its result} of a row of the table on a model, for those ways that `only` is found in. The first, undisturbed, shows
    what the others are to make and when they are to be interrupted."""
    name, spec = row
    beside = ways == BESIDE
    spec, whole, said = place.job(model, spec, beside), None, None
    results = {}
    for way in ways if not evaluates_only(spec) else ways[:1]:
        case = f"{name} {model} {way}"
        if way != ways[0] and not re.search(only, case):
            continue
        job = Job(place, besad, "cuda" if beside else "cpu", case, spec)
        try:
            if way == ways[0]:
                said = job.finish()
            else:
                job.interrupt(said, place.specs[model][0] // 2, signal.SIGKILL if way.endswith("killed") else signal.SIGTERM)
                job.finish()
            result = results[case] = job.result()
            whole = whole or result
            if result["sha256"] != whole["sha256"]:
                result["failure"] = f"not as in one go: {first_difference(whole, result)}"
        except (Failure, OSError, ValueError, KeyError) as error:
            results[case] = {"failure": str(error) or repr(error), "sha256": "-", "events_sha256": "-"}
        shutil.rmtree(job.top)
        if not whole:
            break
    return results


# ---- comparison -----------------------------------------------------------------------------------------------------------------

def first_difference(old, new, path=""):
    """Where two values differ first, and how."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(key for key in new if key not in old)]:
            if key not in old or key not in new:
                return f"{path}/{key} is {'new' if key in new else 'gone'}"
            if old[key] != new[key] and not key.endswith("sha256") and key not in ("beside", "failure"):
                return first_difference(old[key], new[key], f"{path}/{key}")
        return f"{path}: the order of the keys"
    if isinstance(old, list) and isinstance(new, list):
        for index, (a, b) in enumerate(zip(old, new)):
            if a != b:
                return first_difference(a, b, f"{path}/{index}")
        return f"{path}: {len(old)} and now {len(new)}"
    return f"{path}: {str(old)[:60]} and now {str(new)[:60]}"


def compare(old, results, only, beside):
    """Prints which cases differ; how many do."""
    different = 0
    for case, result in results.items():
        before = old.get(case)
        if before and (before["sha256"], before["events_sha256"]) != (result["sha256"], result["events_sha256"]):
            different += 1
            print(f"differs: {case}: {result.get('failure') or before.get('failure') or first_difference(before, result)}")
    for case in old:
        if case not in results and re.search(only, case) and (beside or " beside" not in case):
            different += 1
            print(f"missing: {case}")
    new = sum(case not in old for case in results)
    print(f"{different} cases differ, {len(results) - new} compared" + (f", {new} are new" if new else ""))
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--besad", default=os.path.join(ROOT, "build", "besad"))
    parser.add_argument("--emulated", help="default: tests/emulated/besad beside besad")
    parser.add_argument("--only", metavar="PATTERN", default="", help="cases in whose name the regular expression is found")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="how many at once (default: one for each processor)")
    parser.add_argument("--save", metavar="FILE")
    parser.add_argument("--compare", metavar="FILE")
    args = parser.parse_args()
    besad = os.path.abspath(args.besad)
    emulated = os.path.abspath(args.emulated or os.path.join(os.path.dirname(besad), "tests", "emulated", "besad"))
    beside = os.path.exists(emulated)
    old = None
    if args.compare:
        with open(args.compare) as file:
            old = json.load(file)
    results, started = {}, time.monotonic()
    with tempfile.TemporaryDirectory(prefix="besad-outputs-") as directory:
        place = Place(directory)
        tasks = [(place, program, (name, spec), model, ways, args.only)
                 for name, on_cpu, on_device, spec in ROWS for model in place.specs
                 for program, models, ways in ((besad, on_cpu, CPU), (emulated, on_device, BESIDE))
                 if models is not None and re.search(models, model) and (beside or ways == CPU)
                 and any(re.search(args.only, f"{name} {model} {way}") for way in ways)]
        with concurrent.futures.ThreadPoolExecutor(args.jobs) as pool:
            for task in pool.map(lambda task: run_ways(*task), tasks):
                for case, result in task.items():
                    if re.search(args.only, case):
                        results[case] = result
                        print(f"{result['sha256'][:16]} {result['events_sha256'][:16]} {case}", flush=True)
    failed = [case for case, result in results.items() if "failure" in result]
    for case in failed:
        print(f"failed: {case}: {results[case]['failure']}")
    in_background = sum(result.get("beside", False) for result in results.values())
    print(f"{len(results)} cases in {time.monotonic() - started:.0f} s, {len(failed)} failed, {in_background} finished a block "
          "beside the next" + ("" if beside else f"; those in the background are skipped: no {emulated} (make tests builds it)"))
    if args.save:
        with open(args.save, "w") as file:
            json.dump(results, file, indent=0)
    if not results:
        sys.exit(f"no case is called {args.only}")
    sys.exit(1 if failed or (old is not None and compare(old, results, args.only, beside)) else 0)


if __name__ == "__main__":
    main()
