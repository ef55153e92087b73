#!/usr/bin/env python3
"""Makes the half-done jobs of earlier versions that tests/api/test_upgrade.py goes on with: needs git, what besad is built with, and strace.

Usage: tests/data/upgrade/make.py [COMMIT ...]

Each version is built from its commit and given two jobs, one by `besad run` and one by the daemon, which are killed when two of four blocks
are done. fsync is slowed down, so that a kill finds such a moment. What is kept is what lies on disk then: state/ with the database, into which
its journal has been worked, and the checkpoint, and output/ with the unfinished outputs. models/ and data/ are what all of them read."""

import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parent.parent.parent
sys.path.insert(0, str(ROOT / "bench"))
from random_models import write_calibration, write_model  # noqa: E402

# The method, and whether `besad run` makes a job too. What each has not yet:
VERSIONS = {
    "6d143de": ("wanda", False),  # the table of notifications (user_version 1); notify and tasks in specs; a savepoint's tasks
    "7d978ae": ("besa", True),    # a savepoint's format and inputs; `field` in specs
    "d3ecd7c": ("wanda", True),   # `field` in specs; the savepoint has inputs (format 2)
}
SLOW = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=100000"]


def spec(name, method):
    return {"model": "small", "output": name, "method": method, "sparsity": 0.5, "progress": {"perplexity_every": 1},
            "calibration": {"path": "tokens.safetensors", "samples": 4, "sequence_length": 32},
            "evaluation": {"perplexity": [{"path": "tokens.safetensors", "sequence_length": 32}]}}


def build(commit, directory):
    tree = subprocess.run(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x", "-C", directory], input=tree, check=True)
    subprocess.run(["make", "-C", directory, "CUDA=0", "all"], check=True, stdout=subprocess.DEVNULL)
    return str(directory / "build" / "besad")


def kill_when(process, done):
    """Kills the program, which strace runs, once done() holds."""
    while not done():
        assert process.poll() is None, process.returncode
        time.sleep(0.01)
    children = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True, check=True).stdout
    for pid in children.split():
        os.kill(int(pid), signal.SIGKILL)
    process.wait()


def run_job(besad, method, here, options):
    job = here / "job.json"
    job.write_text(json.dumps(spec("run", method)))
    events = here / "output" / ".besad-run-job" / "events.jsonl"
    process = subprocess.Popen([*SLOW, besad, "run", *options, str(job)], stderr=subprocess.DEVNULL)
    kill_when(process, lambda: events.exists() and events.read_text().count("block.finished") == 2)


def serve_job(besad, method, here, options):
    port_file, state = here / "port", here / "state"
    process = subprocess.Popen([*SLOW, besad, *options, "--state-dir", str(state), "--listen", "127.0.0.1:0", "--port-file",
                                str(port_file)], stderr=subprocess.DEVNULL)
    while not port_file.exists() or not port_file.read_text():
        time.sleep(0.01)
    url = f"http://127.0.0.1:{port_file.read_text().strip()}/v1/jobs"
    request = urllib.request.Request(url, json.dumps(spec("served", method)).encode(), {"Content-Type": "application/json"})
    job = json.load(urllib.request.urlopen(request))["id"]
    kill_when(process, lambda: len(json.load(urllib.request.urlopen(f"{url}/{job}/report"))["blocks"]) == 2)
    connection = sqlite3.connect(state / "besad.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def make(commit, method, with_run):
    with tempfile.TemporaryDirectory() as directory:
        besad = build(commit, pathlib.Path(directory))
        here = pathlib.Path(directory, "job")
        (here / "output").mkdir(parents=True)
        options = ["--backend", "cpu", "--threads", "1", "--model-root", str(HERE / "models"), "--data-root", str(HERE / "data"),
                   "--output-root", str(here / "output")]
        if with_run:
            run_job(besad, method, here, options)
        serve_job(besad, method, here, options)
        shutil.rmtree(HERE / commit, ignore_errors=True)
        for name in ("state", "output"):
            shutil.copytree(here / name, HERE / commit / name, ignore=shutil.ignore_patterns("lock"))
        if with_run:
            shutil.copy(here / "job.json", HERE / commit)


if __name__ == "__main__":
    if not (HERE / "models").exists():
        write_model(HERE / "models" / "small", 32, 48, 4, 2, 4, vocab=64, scale=0.1)
        (HERE / "data").mkdir()
        write_calibration(HERE / "data" / "tokens.safetensors", 4, 32, vocab=64)
    for commit in sys.argv[1:] or VERSIONS:
        make(commit, *VERSIONS[commit])
