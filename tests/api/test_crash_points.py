#!/usr/bin/env python3
"""Every file and database call of a small job fails, or is the one at which the process is killed; then the job goes on, and ends as if nothing
had happened: the same bytes, no event lost or doubled, no block twice, nothing left behind.

There are some hundred such calls; a few of each kind are tried, spread evenly, or CRASH_POINTS of them, or each: CRASH_POINTS=all, which takes an
hour. KINDS names what happens to them. tests/faults/fault.c makes them fail."""
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

from support import BESAD, PATIENCE, Daemon, digests, faults, wait_for, write_calibration, write_model

POINTS = os.environ.get("CRASH_POINTS", "5")
KINDS = os.environ.get("KINDS", "kill EIO ENOSPC").split()
BLOCKS = 3
THREADS = os.environ.get("OMP_NUM_THREADS", "1")
# Of three blocks the last is probed, so with --checkpoint-every 1h the first is not saved: the second, in front of the probe, and the third are.
JOB = {"model": "small", "output": "pruned", "method": "besa", "sparsity": 0.5, "calibration": {"path": "tokens.safetensors", "samples": 2, "sequence_length": 32},
       "progress": {"perplexity_every": BLOCKS},
       "evaluation": {"perplexity": [{"name": "tokens", "path": "tokens.safetensors", "sequence_length": 32}]}}

# The same, rounded by clipping that is learned, and a global tune of two steps behind it, which begins with the weights before they were rounded.
TUNED = dict(JOB, quantization={"bits": 4}, refit={"method": "global", "batch_size": 2, "epochs": 1, "global_epochs": 2})


# Blocks that are allotted shares of their own before the first.
ALLOTTED = dict(JOB, allocation={"method": "loss"})


# Nothing is pruned: the weights are rounded.
QUANTIZED = {**{key: value for key, value in JOB.items() if key != "sparsity"}, "method": "none", "quantization": {"bits": 4, "rounding": "feedback"}}


def make_inputs(models, data):
    write_model(os.path.join(models, "small"), 32, 48, 4, 2, BLOCKS, vocab=300, scale=0.1)
    write_calibration(os.path.join(data, "tokens.safetensors"), 4, 32, vocab=300)


def files(directory):
    return sorted(os.path.relpath(os.path.join(d, n), directory) for d, _, names in os.walk(directory) for n in names)


def evenly(count):
    """The numbers of the calls to try, of `count`; the last among them."""
    wanted = count if POINTS == "all" else min(count, int(POINTS))
    return sorted({count - i * count // wanted for i in range(wanted)})


class CrashPoints(unittest.TestCase):
    def check_events(self, events):
        self.assertEqual([e["id"] for e in events], list(range(1, len(events) + 1)))
        self.assertEqual([e["data"]["block"] for e in events if e["type"] == "block.finished"], list(range(BLOCKS)))
        types = [e["type"] for e in events]
        self.assertEqual(types.count("job.succeeded"), 1)
        self.assertEqual(types[-1], "job.succeeded")
        evaluations = [e["data"]["model"] for e in events if e["type"] == "eval.finished"]
        self.assertEqual(sorted(evaluations), ["dense", "pruned"])

    def try_all(self, count, attempt):
        """Calls attempt(n, kind) for the points that are tried."""
        tried, failures = 0, []
        for kind in KINDS:
            for n in evenly(count):
                tried += 1
                try:
                    attempt(n, kind)
                except AssertionError as failure:
                    failures.append(f"call {n}, {kind}: {failure}")
                    print(failures[-1], flush=True)
        print(f"{self.id()}: {count} calls, {tried} tried ({', '.join(KINDS)}), {len(failures)} went wrong", flush=True)
        self.assertFalse(failures, "\n".join(failures))


class Run(CrashPoints):
    """besad run: the job's events are a journal."""

    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="besad-crash-")
        self.addCleanup(shutil.rmtree, self.base)
        self.models, self.data = (os.path.join(self.base, n) for n in ("models", "data"))
        os.mkdir(self.models), os.mkdir(self.data)
        make_inputs(self.models, self.data)
        self.job = os.path.join(self.base, "job.json")
        with open(self.job, "w") as file:
            json.dump(JOB, file)

    def run_job(self, directory, every, environment=None, keep=True):
        """keep: the job's directory stays when it is done."""
        output, checkpoint = (os.path.join(directory, n) for n in ("output", "checkpoint"))
        os.makedirs(output, exist_ok=True)
        return subprocess.run(
            [BESAD, "run", self.job, "--model-root", self.models, "--data-root", self.data, "--output-root", output,
             *(["--checkpoint-dir", checkpoint] if keep else []), "--threads", THREADS, "--checkpoint-every", every],
            env={**os.environ, **(environment or {})}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)

    def outcome(self, directory):
        with open(os.path.join(directory, "checkpoint", "events.jsonl")) as file:
            self.check_events([json.loads(line) for line in file])
        return digests(os.path.join(directory, "output", "pruned")), files(directory)

    def points(self, every):
        log = os.path.join(self.base, f"log-{every}")
        plain = os.path.join(self.base, f"plain-{every}")
        os.mkdir(plain)
        done = self.run_job(plain, every, faults(self, [plain], log))
        self.assertEqual(done.returncode, 0, done.stderr)
        wanted = self.outcome(plain)
        with open(log) as file:
            count = len(file.readlines())
        self.assertGreater(count, 100)

        def attempt(n, kind):
            directory = os.path.join(self.base, f"{kind}-{n}")
            os.mkdir(directory)
            log = os.path.join(self.base, f"{kind}-{n}.log")
            first = self.run_job(directory, every, faults(self, [directory], log, n, kind))
            with open(log) as file:
                lines = file.read().splitlines()
            point = lines[n - 1] if n <= len(lines) else "no such call"
            if kind == "kill" and n <= len(lines):
                self.assertEqual(first.returncode, -signal.SIGKILL, point)
            else:
                self.assertIn(first.returncode, (0, 1, 2), point)
            if first.returncode > 0:
                self.assertRegex(first.stderr, "Input/output error|No space left on device", point)
            again = self.run_job(directory, every)
            self.assertEqual(again.returncode, 0, f"{point}: {first.stderr} then {again.stderr}")
            made, left = self.outcome(directory)
            if kind != "kill":  # what cannot be removed stays
                left = [name for name in left if os.path.join(directory, name) != point.partition(" unlinkat ")[2]]
            self.assertEqual((made, left), wanted, point)
            shutil.rmtree(directory)
        self.try_all(count, attempt)

    def test_each_block_saved(self):
        self.points("0")

    def test_blocks_saved_together(self):
        self.points("1h")

    def test_tuned(self):
        """With --checkpoint-every 0 each step is saved, and with 1h none but the last."""
        with open(self.job, "w") as file:
            json.dump(TUNED, file)
        for every in ("0", "1h"):
            with self.subTest(every=every):
                self.points(every)

    def test_allotted(self):
        with open(self.job, "w") as file:
            json.dump(ALLOTTED, file)
        self.points("0")

    def test_quantized(self):
        with open(self.job, "w") as file:
            json.dump(QUANTIZED, file)
        self.points("0")

    def test_cleaning_up(self):
        """Killed at each removal from the job's directory, once it is done."""
        def output(directory):
            return digests(os.path.join(directory, "output", "pruned"))

        for overwrite in (False, True):
            with open(self.job, "w") as file:
                json.dump(dict(JOB, overwrite=overwrite), file)
            plain, log = os.path.join(self.base, f"plain-{overwrite}"), os.path.join(self.base, f"{overwrite}.log")
            os.mkdir(plain)
            done = self.run_job(plain, "0", faults(self, [plain], log), keep=False)
            self.assertEqual(done.returncode, 0, done.stderr)
            with open(log) as file:
                calls = [line.split(" ", 2) for line in file.read().splitlines()]
            removals = [int(n) for n, call, path in calls if call == "remove" and "/.besad-run-job" in path]
            self.assertGreater(len(removals), 5)
            for n in removals:
                with self.subTest(overwrite=overwrite, point=calls[n - 1]):
                    directory = os.path.join(self.base, f"{overwrite}-{n}")
                    os.mkdir(directory)
                    first = self.run_job(directory, "0", faults(self, [directory], log, n, "kill"), keep=False)
                    self.assertEqual(first.returncode, -signal.SIGKILL)
                    again = self.run_job(directory, "0", keep=False)
                    self.assertEqual(again.returncode, 0, again.stderr)
                    if "/checkpoint" in calls[n - 1][2]:
                        self.assertNotIn("block ", again.stderr)
                    self.assertEqual(output(directory), output(plain))
                    left = [name for name in os.listdir(os.path.join(directory, "output")) if not name.startswith(".besad-replaced-")]
                    self.assertEqual(left, ["pruned"])


class Served(CrashPoints):
    """The daemon: events and blocks are rows of its database."""

    def setUp(self):
        self.base = tempfile.mkdtemp(prefix="besad-crash-")
        self.addCleanup(shutil.rmtree, self.base)

    def daemon(self, every):
        daemon = Daemon("--threads", THREADS, "--checkpoint-every", every)
        make_inputs(daemon.models, daemon.data)
        return daemon

    def submit(self, daemon):
        """The job's id; the same one however often it is asked for."""
        answer = daemon.request("POST", "/v1/jobs", JOB, {"Idempotency-Key": "the-job"})
        return answer.json["id"] if answer.status == 201 else None

    def brought_to_its_end(self, daemon):
        job = self.submit(daemon)
        self.assertIsNotNone(job)
        done = daemon.finish(job)
        if done["state"] == "failed":
            self.assertRegex(done["error"]["message"], "Input/output error|No space left on device|disk I/O error|database or disk is full")
            self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
            done = daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done)
        self.check_events(daemon.events(job))
        report = daemon.get(f"/v1/jobs/{job}/report").json
        self.assertEqual([b["block"] for b in report["blocks"]], list(range(BLOCKS)))
        self.assertEqual(daemon.stop(), 0)
        # What is kept of the dense model is named by the identity of the files, which each daemon here has of its own.
        state = [os.path.dirname(name) if name.startswith("scores/") else name for name in files(daemon.state)]
        return digests(os.path.join(daemon.output, "pruned")), state, files(daemon.output)

    def meet_fault(self, daemon, environment):
        """A life of the daemon with a fault in it, which may end it at any time; its job is over, or it has ended. Where its
        database cannot be written any more, it tries until it is stopped."""
        try:
            daemon.start(environment=environment)
            job = self.submit(daemon)
            while job and daemon.job(job)["state"] not in ("succeeded", "failed") and "trying on" not in daemon.log():
                time.sleep(0.02)
            daemon.stop()
        except (OSError, AssertionError):
            wait_for("the end", lambda: daemon.process.poll() is not None)

    def points(self, every):
        log, plain = os.path.join(self.base, "log"), self.daemon(every)
        self.addCleanup(plain.remove)
        plain.start(environment=faults(self, [plain.state, plain.output], log))
        wanted = self.brought_to_its_end(plain)
        with open(log) as file:
            count = len(file.readlines())

        def attempt(n, kind):
            daemon, log = self.daemon(every), os.path.join(self.base, f"{kind}-{n}.log")
            try:
                self.meet_fault(daemon, faults(self, [daemon.state, daemon.output], log, n, kind))
                with open(log) as file:
                    lines = file.read().splitlines()
                point = lines[n - 1] if n <= len(lines) else "no such call"
                daemon.start()
                self.assertEqual(self.brought_to_its_end(daemon), wanted, f"{point}\n{daemon.log()}")
            finally:
                daemon.remove()
        self.try_all(count, attempt)

    def test_each_block_saved(self):
        self.points("0")

    def test_blocks_saved_together(self):
        self.points("1h")


if __name__ == "__main__":
    unittest.main()
