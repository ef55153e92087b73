#!/usr/bin/env python3
"""A file call fails, of each call stack once that makes, changes, opens, reads, syncs, renames or removes a file: while besad starts, a job is
submitted, runs and is published, and besad ends. It says what is wrong or goes on; once the fault is gone the job ends with the same bytes, and no
job that it has accepted is lost. In the environment:

    STACKS     how many call stacks are tried with each kind of fault, spread evenly; or all
    COMMANDS   names of commands, of commands.py; all without
    KINDS      of the faults: EIO, ENOSPC (the disk is full from then on, until besad ends) and EMFILE (of what opens files)"""
import os
import shutil
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # else besad starts itself once more
sys.path.insert(0, os.path.join(ROOT, "tests", "api"))

import commands  # noqa: E402
import test_crash_points  # noqa: E402
from support import FINISHED, digests, faults  # noqa: E402

STACKS = os.environ.get("STACKS", "3")
KINDS = os.environ.get("KINDS", "EIO ENOSPC EMFILE").split()
COMMANDS = os.environ.get("COMMANDS", "").split()
OPENS = ("open", "open64", "openat", "openat64", "openat2")
ALLOWED = (501, 503, 505, 507)
SAID = "Input/output error|No space left on device|Too many open files|disk I/O error|database or disk is full|unable to open database|database"


def stacks_of(path):
    """{hash: the call}, in their order."""
    found = {}
    with open(path) as file:
        for line in file:
            _, call, hashed, *frames = line.split()
            found.setdefault(hashed, (call, frames))
    return found


def evenly(items):
    if STACKS == "all":
        return items
    wanted = min(int(STACKS), len(items))
    return [items[len(items) - 1 - i * len(items) // wanted] for i in range(wanted)] if wanted else []


def tries(stacks):
    """(kind, hash) of what is tried."""
    for kind in KINDS:
        for hashed in evenly([h for h, (call, _) in stacks.items() if kind != "EMFILE" or call in OPENS]):
            yield kind, hashed


class Counting:
    """What both have: counts, and what went wrong."""

    def begin(self):
        self.stacks, self.started, self.failures, self.counts = 0, time.monotonic(), [], {"tried": 0, "met": 0, "failed and gone on with": 0}

    def try_each(self, stacks, attempt):
        self.stacks += len(stacks)
        for kind, hashed in tries(stacks):
            self.counts["tried"] += 1
            try:
                attempt(kind, hashed)
            except AssertionError as failure:
                call, frames = stacks[hashed]
                self.failures.append(f"{call} {kind} from {told(frames)}: {failure}")
                print(self.failures[-1][:3000], flush=True)

    def each(self, stacks, attempt):
        self.try_each(stacks, attempt)
        self.tell()

    def tell(self):
        counts = ", ".join(f"{number:,} {name}" for name, number in self.counts.items())
        print(f"{self.id()}: {self.stacks:,} call stacks, {counts}, {len(self.failures)} went wrong, "
              f"{time.monotonic() - self.started:.0f} s", flush=True)
        self.assertFalse(self.failures, "\n".join(self.failures)[:4000])
        self.assertGreater(self.counts["met"], 0, "no fault came to pass: this shows nothing")


def told(frames):
    own = [frame for frame in frames if frame.startswith("+")][:8]
    names = subprocess.run(["addr2line", "-f", "-s", "-e", test_crash_points.BESAD, *(hex(int(f[3:], 16) - 1) for f in own)],
                           capture_output=True, text=True, check=False).stdout.splitlines()
    return " < ".join(names[::2])


def met(path, hashed):
    """Whether a call came from there."""
    if not os.path.exists(path):
        return False
    with open(path) as file:
        return any(line.split()[2] == hashed for line in file)


class Run(test_crash_points.Run, Counting):
    """besad run."""

    def points(self, every):
        self.begin()
        plain, log, list_ = (os.path.join(self.base, n) for n in ("plain", "log", "list"))
        os.mkdir(plain)
        where = [plain, self.models, self.data]
        done = self.run_job(plain, every, {**faults(self, where, log), "FAULT_STACKS": list_, "FAULT_READS": "1"})
        self.assertEqual(done.returncode, 0, done.stderr)
        wanted, _ = self.outcome(plain)

        def attempt(kind, hashed):
            directory, log = (os.path.join(self.base, f"{n}{self.counts['tried']}") for n in ("d", "log"))
            os.mkdir(directory)
            first = self.run_job(directory, every, {**faults(self, [directory, self.models, self.data], log, 0, kind), "FAULT_STACK": hashed,
                                                    "FAULT_STACKS": log + ".stacks", "FAULT_READS": "1"})
            self.counts["met"] += met(log + ".stacks", hashed)
            self.assertIn(first.returncode, (0, 1, 2), first.stderr)
            if first.returncode:
                self.counts["failed and gone on with"] += 1
                self.assertRegex(first.stderr, SAID)
            again = self.run_job(directory, every)
            self.assertEqual(again.returncode, 0, f"{first.stderr} then {again.stderr}")
            self.assertEqual(self.outcome(directory)[0], wanted)
            shutil.rmtree(directory)
        self.each(stacks_of(list_), attempt)

    def test_looking_at_the_model(self):
        """What cannot be looked at is not said to be something else."""
        for n in range(1, 9):
            directory = os.path.join(self.base, f"looked-{n}")
            os.mkdir(directory)
            done = self.run_job(directory, "0", faults(self, [self.models], os.path.join(self.base, f"looked-{n}.log"), n, "EIO"))
            self.assertIn(done.returncode, (0, 1, 2), n)
            if done.returncode:
                self.assertIn("Input/output error", done.stderr)

    test_blocks_saved_together = test_allotted = test_quantized = test_tuned = test_cleaning_up = None


class Served(test_crash_points.Served, Counting):
    """The daemon."""

    def points(self, every):
        self.begin()
        plain = self.daemon(every)
        self.addCleanup(plain.remove)
        log, list_ = (os.path.join(self.base, n) for n in ("log", "list"))
        watched = [plain.state, plain.output, plain.models, plain.data]
        plain.start(environment={**faults(self, watched, log), "FAULT_STACKS": list_, "FAULT_READS": "1"})
        self.assertEqual(self.bring_to_its_end(plain), [])
        wanted = digests(os.path.join(plain.output, "pruned"))

        def attempt(kind, hashed):
            daemon, log = self.daemon(every), os.path.join(self.base, f"log{self.counts['tried']}")
            watched = [daemon.state, daemon.output, daemon.models, daemon.data]
            try:
                accepted = self.meet(daemon, {**faults(self, watched, log, 0, kind), "FAULT_STACK": hashed, "FAULT_STACKS": log + ".stacks",
                                              "FAULT_READS": "1"})
                self.counts["met"] += met(log + ".stacks", hashed)
                daemon.start()
                if accepted:
                    self.assertEqual(daemon.get(f"/v1/jobs/{accepted}").status, 200, "an accepted job is lost")
                self.bring_to_its_end(daemon)
                self.assertEqual(digests(os.path.join(daemon.output, "pruned")), wanted)
            except AssertionError as failure:
                raise AssertionError(f"{failure}\n{daemon.log()[-1500:]}") from failure
            finally:
                daemon.remove()
        self.each(stacks_of(list_), attempt)

    def ask(self, daemon, *request):
        """An answer: what was asked for, or a refusal that says why."""
        answer = daemon.request(*request)
        if answer.status >= 400:
            self.assertIn("detail", answer.json)
            self.assertTrue(answer.status < 500 or answer.status in ALLOWED, f"{request[:2]}: {answer.status} {answer.body}")
        return answer

    def meet(self, daemon, environment):
        """A life with the fault in it. The id of the job, where it was accepted."""
        daemon.start(environment=environment, ready=False)
        deadline = time.monotonic() + 30
        port = os.path.join(daemon.directory, "port")
        while daemon.process.poll() is None and not (os.path.exists(port) and os.path.getsize(port)):
            self.assertLess(time.monotonic(), deadline, "it neither starts nor ends")
            time.sleep(0.01)
        if daemon.process.poll() is not None:
            self.assertEqual(daemon.process.returncode, 1, "a start that failed")
            self.assertRegex(daemon.log(), SAID)
            return None
        daemon.wait_for_port()
        answer = self.ask(daemon, "POST", "/v1/jobs", test_crash_points.JOB, {"Idempotency-Key": "the-job"})
        job = answer.json["id"] if answer.status == 201 else None
        while job and "trying on" not in daemon.log():
            state = self.ask(daemon, "GET", f"/v1/jobs/{job}")
            if state.status == 200 and state.json["state"] in FINISHED:
                break
            self.assertLess(time.monotonic(), deadline, "the job hangs")
            time.sleep(0.02)
        self.ask(daemon, "GET", "/v1/jobs")
        self.assertIn(daemon.stop(), (0, 1))
        return job

    def bring_to_its_end(self, daemon):
        """[what the job failed with, at first]."""
        job = self.submit(daemon)
        self.assertIsNotNone(job)
        done, failed = daemon.finish(job), []
        if done["state"] == "failed":
            self.counts["failed and gone on with"] += 1
            failed.append(done["error"]["message"])
            self.assertRegex(failed[0], SAID)
            self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
            done = daemon.finish(job)
        self.assertEqual(done["state"], "succeeded", done)
        self.check_events(daemon.events(job))
        self.assertEqual(daemon.stop(), 0)
        return failed

    test_blocks_saved_together = None


class Commands(unittest.TestCase, Counting):
    """The commands besides `serve` and `run`."""

    def test_commands(self):
        self.begin()
        place = commands.Place()
        self.addCleanup(place.remove)
        base = tempfile.mkdtemp(prefix="besad-failures-")
        self.addCleanup(shutil.rmtree, base)
        for name in COMMANDS or commands.COMMANDS:
            place.clear()
            log, list_ = (os.path.join(base, f"{name}-{n}") for n in ("log", "list"))
            watched = {**faults(self, [place.base], log), "FAULT_READS": "1"}
            done = place.run(name, {**watched, "FAULT_STACKS": list_})
            wanted = place.outcome(done)
            self.assertEqual(done.returncode, commands.COMMANDS[name][1], (name, done))

            def attempt(kind, hashed):
                place.clear()
                seen = os.path.join(base, f"seen{self.counts['tried']}")
                done = place.run(name, {**watched, "FAULT_KIND": kind, "FAULT_STACK": hashed, "FAULT_STACKS": seen})
                self.counts["met"] += met(seen, hashed)
                self.counts["failed and gone on with"] += done.returncode != wanted[0]
                self.assertIsNone(place.wrong(name, done, wanted, lambda: place.run(name)), name)
            if os.path.exists(list_):  # not of a command that looks at no file
                self.try_each(stacks_of(list_), attempt)
        self.tell()


if __name__ == "__main__":
    unittest.main()
