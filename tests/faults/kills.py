#!/usr/bin/env python3
"""The daemon is killed, at random moments under a stream of small jobs, and at each step that touches a file; it loses no job that it had accepted
and no event that it had told, doubles none, and every output is the same as without. In the environment:

    KILLS      how often it is killed at random moments
    STEPS      at how many of the steps (the call stacks that make, change, sync, rename or remove a file), spread evenly; or all
    SEED       of the moments
    BESAD      the program: build/tests/emulated/besad finishes blocks in the background, build/besad in line"""
import http.client
import json
import os
import random
import signal
import sqlite3
import sys
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # else besad starts itself once more
sys.path.insert(0, os.path.join(ROOT, "tests", "api"))

import failures  # noqa: E402
import test_crash_points  # noqa: E402
from support import FINISHED, Daemon, digests, faults  # noqa: E402

KILLS = int(os.environ.get("KILLS", "8"))
STEPS = os.environ.get("STEPS", "3")
SEED = int(os.environ.get("SEED", "1"))
WAITING = 3  # jobs that are not over
KINDS = {"besa": test_crash_points.JOB, "tuned": test_crash_points.TUNED, "quantized": test_crash_points.QUANTIZED,
         "packed": {**test_crash_points.JOB, "method": "wanda", "quantization": {"bits": 4}}}


def untimed(directory):
    """The report without what may differ between two runs."""
    with open(os.path.join(directory, "besad.json")) as file:
        report = json.load(file)
    for key in ("job", "attempt", "artifacts"):
        report.pop(key, None)
    for key in ("seconds", "pruning_seconds", "output"):
        report["result"].pop(key, None)
    del report["spec"]["output"], report["spec"]["name"]
    for block in report["blocks"]:
        del block["seconds"], block["phases"]
    return report


class Job:
    """What a client knows of a job: the key that it asks with, the id once that was answered, and the events it was told."""

    def __init__(self, number, kind):
        self.kind, self.key, self.spec = kind, f"key-{number}", {**KINDS[kind], "output": f"out-{number}", "name": f"out-{number}"}
        self.id, self.events, self.over = None, [], False


class Random(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "1"), "--max-attempts", "0", "--checkpoint-every",
                             os.environ.get("EVERY", "0"))
        self.addCleanup(self.daemon.remove)
        test_crash_points.make_inputs(self.daemon.models, self.daemon.data)
        self.rng = random.Random(SEED)
        self.unanswered = self.lost = self.doubled = self.identical = self.events = 0

    def ask(self, job):
        """Submits it, again where it is not known whether that was heard."""
        answer = self.daemon.request("POST", "/v1/jobs", job.spec, {"Idempotency-Key": job.key})
        self.assertEqual(answer.status, 201, answer.body)
        if job.id not in (None, answer.json["id"]):
            self.lost += 1
        job.id = answer.json["id"]

    def look(self, job):
        """Reads the job and its events: those that were told before are there, as they were."""
        if not job.id:
            return
        state = self.daemon.get(f"/v1/jobs/{job.id}")
        if state.status != 200:
            self.lost += 1
            return
        events = self.daemon.events(job.id)
        if events[:len(job.events)] != job.events:
            self.lost += 1
        job.events, job.over = events, state.json["state"] in FINISHED
        if job.over:
            self.assertEqual(state.json["state"], "succeeded", state.json["error"])

    def check(self, job):
        """Of a job that is over."""
        output = os.path.join(self.daemon.output, job.spec["output"])
        ids, types = [e["id"] for e in job.events], [e["type"] for e in job.events]
        blocks = [e["data"]["block"] for e in job.events if e["type"] == "block.finished"]
        if ids != list(range(1, len(ids) + 1)) or types.count("job.succeeded") != 1 or blocks != list(range(test_crash_points.BLOCKS)):
            self.doubled += 1
        self.events += len(ids)
        found, wanted = (digests(output), untimed(output)), self.wanted[job.kind]
        self.identical += found == wanted
        for got, expected in zip(found, wanted):
            for key in sorted(set(got) | set(expected)):
                if got.get(key) != expected.get(key):
                    print(f"{job.spec['output']}, {job.kind}: {key} is\n{got.get(key)}\ninstead of\n{expected.get(key)}", flush=True)
        test_crash_points.shutil.rmtree(output)

    def life(self, jobs):
        """Asks and looks on until the moment comes, which may be in the middle of a request; some moments come while besad starts."""
        process = self.daemon.start(ready=False).process
        killer = threading.Timer(self.rng.uniform(0, self.longest), process.kill)
        killer.start()
        try:
            while process.poll() is None:
                if not self.port():
                    time.sleep(0.005)
                    continue
                for job in jobs:
                    if not job.id:
                        self.ask(job)
                for job in jobs:
                    self.look(job)
                time.sleep(0.02)
        except (AssertionError, http.client.HTTPException) as error:
            if isinstance(error, AssertionError) and not isinstance(error.__cause__, OSError):
                raise
            self.unanswered += 1
        finally:
            killer.join()
            process.wait()
        self.assertEqual(process.returncode, -signal.SIGKILL, self.daemon.log()[-2000:])
        self.daemon.process = None

    def port(self):
        path = os.path.join(self.daemon.directory, "port")
        with open(path) if os.path.exists(path) else open(os.devnull) as file:
            self.daemon.port = int(file.read() or 0)
        return self.daemon.port

    def undisturbed(self):
        self.wanted, started = {}, time.monotonic()
        self.daemon.start()
        for kind, spec in KINDS.items():
            job = self.daemon.submit({**spec, "output": kind, "name": kind})
            self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
            output = os.path.join(self.daemon.output, kind)
            self.wanted[kind] = digests(output), untimed(output)
        self.longest = 0.2 + 2 * (time.monotonic() - started) / len(KINDS)  # a start, and a job and a half
        self.assertEqual(self.daemon.stop(), 0)

    def test_random_moments(self):
        self.undisturbed()
        jobs, number, over, began = [], 0, 0, time.monotonic()
        for _ in range(KILLS):
            while len(jobs) < WAITING:
                jobs.append(Job(number, sorted(KINDS)[number % len(KINDS)]))
                number += 1
            self.life(jobs)
            for job in [job for job in jobs if job.over]:
                self.check(job)
                jobs.remove(job)
                over += 1
        self.daemon.start()
        for job in jobs:
            self.ask(job)
            self.daemon.finish(job.id)
            self.look(job)
            self.check(job)
            over += 1
        listed = self.daemon.get("/v1/jobs?limit=1000").json["jobs"]
        names = [job["name"] for job in listed]
        self.assertEqual(len(names), len(set(names)), "a job is doubled")
        self.assertEqual(self.daemon.stop(), 0)
        database = sqlite3.connect(os.path.join(self.daemon.state, "besad.db"))
        self.assertEqual(database.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        database.close()
        self.assertEqual(sorted(os.listdir(self.daemon.output)), sorted(KINDS))
        print(f"{self.id()}: {KILLS:,} kills at random moments in {over:,} jobs with {self.events:,} events, "
              f"{self.unanswered:,} in the middle of a request: {self.lost} lost, {self.doubled} doubled, "
              f"{self.identical:,} of {over:,} outputs identical, {time.monotonic() - began:.0f} s", flush=True)
        self.assertEqual((self.lost, self.doubled, self.identical), (0, 0, over))


class Steps(failures.Served):
    """Killed at the first call from each call stack."""

    def points(self, every):
        failures.STACKS, failures.KINDS = STEPS, ["kill"]
        self.begin()
        plain = self.daemon(every)
        self.addCleanup(plain.remove)
        log, list_ = (os.path.join(self.base, n) for n in ("log", "list"))
        plain.start(environment={**faults(self, [plain.state, plain.output], log), "FAULT_STACKS": list_})
        wanted = self.brought_to_its_end(plain)

        def attempt(_, hashed):
            daemon, log = self.daemon(every), os.path.join(self.base, f"log{self.counts['tried']}")
            try:
                environment = {**faults(self, [daemon.state, daemon.output], log, 0, "kill"), "FAULT_STACK": hashed,
                               "FAULT_STACKS": log + ".stacks"}
                self.meet_fault(daemon, environment)
                self.counts["met"] += failures.met(log + ".stacks", hashed)
                daemon.start()
                self.assertEqual(self.brought_to_its_end(daemon), wanted, daemon.log()[-1500:])
            finally:
                daemon.remove()
        self.each(failures.stacks_of(list_), attempt)


if __name__ == "__main__":
    unittest.main()
