#!/usr/bin/env python3
"""An allocation fails, of each call stack once that allocates: while besad runs a job, and while it answers requests. It does not crash and does
not hang, it says what is wrong or goes on, it tells no half of an answer, and afterwards all is well again. In the environment:

    STACKS     how many call stacks of each kind are tried, spread evenly; or all
    REQUESTS   names of the requests, of REQUEST_KINDS below; all without
    COMMANDS   names of commands, of commands.py; all without

What ends besad inside of a library that does not heed a failed allocation is counted apart, and does not fail the test."""
import functools
import json
import mmap
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # else besad starts itself once more
sys.path.insert(0, os.path.join(ROOT, "tests", "api"))

from support import BESAD, FAULTS, FINISHED, Daemon, digests, sanitized  # noqa: E402
from test_crash_points import JOB, make_inputs  # noqa: E402
import commands  # noqa: E402

STACKS = os.environ.get("STACKS", "6")
REQUESTS = os.environ.get("REQUESTS", "").split()
COMMANDS = os.environ.get("COMMANDS", "").split()
LIBRARY = os.path.join(os.path.dirname(FAULTS), "allocations.so")
THREADS = os.environ.get("OMP_NUM_THREADS", "1")
HANG = 60  # seconds after which what should have ended is taken to hang
OFF, RECORD, FAIL = range(3)
ALLOWED = (501, 503, 505, 507)
C_LIBRARIES = ("libc.so.6", "libstdc++.so.6", "libgcc_s.so.1", "ld-linux-x86-64.so.2", "libm.so.6")


class Control:
    """What powers over the allocations of a program (struct control of allocations.c)."""

    def __init__(self, directory):
        self.path, self.log = os.path.join(directory, "control"), os.path.join(directory, "stacks")
        with open(self.path, "wb") as file:
            file.write(bytes(mmap.PAGESIZE))
        with open(self.path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        self.environment = {"LD_PRELOAD": LIBRARY, "ALLOC_CONTROL": self.path, "ALLOC_LOG": self.log}

    def set(self, mode, stack=None, lasting=False):
        struct.pack_into("<I", self.map, 0, OFF)
        site, hashed = (int(word, 16) for word in stack.split()[:2]) if stack else (0, 0)
        struct.pack_into("<IQQI", self.map, 4, 0, hashed, site, lasting)
        struct.pack_into("<I", self.map, 0, mode)

    def fired(self):
        return struct.unpack_from("<I", self.map, 4)[0]

    def stacks(self):
        """Those that were recorded since the last call."""
        if not os.path.exists(self.log):
            return []
        with open(self.log) as file:
            lines = file.read().splitlines()
        os.truncate(self.log, 0)
        return [line for line in lines if not line.startswith("crash") and not counts(line)]

    def crash(self):
        """The frames of where the program was ended; empties the log."""
        if not os.path.exists(self.log):
            return []
        with open(self.log) as file:
            lines = [line.split()[2:] for line in file if line.startswith("crash")]
        os.truncate(self.log, 0)
        return lines[-1] if lines else []


def told(frames):
    """Frames with names, where they are besad's own."""
    own = [frame for frame in frames if frame.startswith("+")][:12]
    try:
        names = subprocess.run(["addr2line", "-f", "-s", "-e", BESAD, *(hex(int(frame[3:], 16) - 1) for frame in own)],
                               capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = []
    spelled = dict(zip(own, (f"{name} ({line})" for name, line in zip(names[::2], names[1::2]))))
    return " < ".join(spelled.get(frame, frame) for frame in frames[:12])


@functools.cache
def counting():
    """Where in besad's program the functions lie by which a build with --coverage writes its counts, which heed no failed allocation."""
    if not os.environ.get("BESAD_COVERAGE"):
        return []
    lines = subprocess.run(["nm", "-n", "--defined-only", BESAD], capture_output=True, text=True, check=True).stdout.splitlines()
    symbols = [(int(line.split()[0], 16), line.split()[2]) for line in lines]
    return [(at, after) for (at, name), (after, _) in zip(symbols, symbols[1:]) if "gcov" in name]


def counts(stack):
    """Whether it is of such a function."""
    frames = (int(frame[3:], 16) for frame in stack.split()[2:] if frame.startswith("+0x"))
    return bool(counting()) and any(begin < frame <= end for frame in frames for begin, end in counting())


def in_library(frames):
    """The library that a crash is in; "" where it is in besad itself."""
    for frame in frames:
        module = frame.rsplit("+0x", 1)[0]
        if module not in C_LIBRARIES:
            return module
    return ""


def excused(library):
    """docs/reliability.md says of these that they end the process."""
    return library.startswith(("libdnnl", "libgomp", "libcudart", "libseccomp"))


def evenly(stacks):
    if STACKS == "all":
        return stacks
    wanted = min(int(STACKS), len(stacks))
    return [stacks[len(stacks) - 1 - i * len(stacks) // wanted] for i in range(wanted)] if wanted else []


class Allocations(unittest.TestCase):
    def setUp(self):
        if sanitized():
            self.skipTest("a sanitizer wants to be loaded first itself")
        self.assertTrue(os.path.exists(LIBRARY), f"{LIBRARY} was not built (make tests)")
        self.base = tempfile.mkdtemp(prefix="besad-allocations-")
        self.addCleanup(shutil.rmtree, self.base)
        self.control = Control(self.base)
        self.failures, self.libraries, self.started = [], {}, time.monotonic()

    def choose(self, stacks):
        """Of oneDNN, which makes its programs as they are first needed, by thousands of stacks, and mostly ends when it fails, a few."""
        own = [stack for stack in stacks if " libdnnl" not in stack]
        other = [stack for stack in stacks if " libdnnl" in stack]
        return evenly(own) + other[::max(len(other) // 4, 1)][:4]

    def wrong(self, stack, what):
        self.failures.append(f"{what}: {told(stack.split()[2:])}")
        print(self.failures[-1][:2500], flush=True)

    def crashed(self, stack, status):
        """Counts an end by a signal, or one that was not asked for, as besad's or a library's."""
        frames = self.control.crash()
        library = in_library(frames)
        if status > 0 and "libgomp: Out of memory" in self.daemon.log()[-2000:]:  # which it says, and exits
            library, frames = "libgomp.so.1", stack.split()[2:]
        where = told(frames)
        if "cudaRegister" in where:  # CUDA's runtime, linked in, before main
            library = "libcudart"
        if excused(library):
            self.libraries.setdefault(library, []).append(where)
        else:
            self.wrong(stack, f"it ended or answers no more (status {status}) in {where}; the allocation")

    def say(self, text):
        libraries = "".join(f"; ended inside of {name}: {len(found)}" for name, found in sorted(self.libraries.items()))
        for name, found in sorted(self.libraries.items()):
            print(f"in {name}: {found[0]}")
        print(f"{self.id()}: {text}, {len(self.failures)} went wrong{libraries}, {time.monotonic() - self.started:.0f} s", flush=True)
        self.assertFalse(self.failures, "\n".join(self.failures)[:4000])


class Run(Allocations):
    """besad run, from its start to its end."""

    def run_job(self, output):
        return subprocess.run([BESAD, "run", self.job, "--model-root", self.models, "--data-root", self.data, "--output-root", output,
                               "--threads", THREADS, "--checkpoint-every", "0"], env={**os.environ, **self.control.environment},
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=HANG)

    def attempt(self, stack, wanted):
        output = os.path.join(self.base, "output")
        os.mkdir(output)
        try:
            self.control.set(FAIL, stack)
            first = self.run_job(output)
            fired = self.control.fired()
            self.control.set(OFF)
            if first.returncode < 0:
                self.crashed(stack, first.returncode)
            elif first.returncode and not first.stderr.strip():
                self.wrong(stack, "nothing is said of it")
            if first.returncode:
                again = self.run_job(output)
                if again.returncode:
                    self.wrong(stack, f"not gone on with: {first.stderr[-300:]} then {again.stderr[-300:]}")
                    return fired
            if digests(os.path.join(output, "pruned")) != wanted:
                self.wrong(stack, "another output")
            return fired
        except subprocess.TimeoutExpired:
            self.wrong(stack, f"not over within {HANG} s")
            return 1
        finally:
            shutil.rmtree(output)

    def run_all(self, spec):
        self.models, self.data, self.job = (os.path.join(self.base, n) for n in ("models", "data", "job.json"))
        os.mkdir(self.models), os.mkdir(self.data)
        make_inputs(self.models, self.data)
        with open(self.job, "w") as file:
            json.dump(spec, file)
        output = os.path.join(self.base, "output")
        os.mkdir(output)
        self.control.set(RECORD)
        done = self.run_job(output)
        self.assertEqual(done.returncode, 0, done.stderr)
        wanted, stacks = digests(os.path.join(output, "pruned")), self.control.stacks()
        shutil.rmtree(output)
        chosen = self.choose(stacks)
        fired = sum(self.attempt(stack, wanted) for stack in chosen)
        self.assertTrue(fired, "no allocation failed")
        self.say(f"{len(stacks):,} call stacks, {len(chosen):,} tried, {fired:,} met")

    def test_run(self):
        self.run_all(JOB)


class Commands(Allocations):
    """The commands besides `serve` and `run`."""

    def setUp(self):
        super().setUp()
        self.place = commands.Place()
        self.addCleanup(self.place.remove)
        self.daemon = self.place.daemon  # whose log is looked at where one of them ends

    def attempt(self, name, stack, wanted):
        self.place.clear()
        self.control.set(FAIL, stack)
        try:
            done = self.place.run(name, self.control.environment)
        except subprocess.TimeoutExpired:
            self.wrong(stack, f"{name}: not over within {commands.HANG} s")
            return 1
        fired = self.control.fired()
        self.control.set(OFF)
        if done.returncode < 0:
            self.crashed(stack, done.returncode)
        else:
            wrong = self.place.wrong(name, done, wanted, lambda: self.place.run(name))
            if wrong:
                self.wrong(stack, f"{name}: {wrong}")
        return fired

    def test_commands(self):
        total = tried = fired = 0
        for name in COMMANDS or commands.COMMANDS:
            self.place.clear()
            self.control.set(RECORD)
            done = self.place.run(name, self.control.environment)
            self.control.set(OFF)
            wanted, stacks = self.place.outcome(done), self.control.stacks()
            self.assertEqual(done.returncode, commands.COMMANDS[name][1], (name, done))
            chosen = self.choose(stacks)
            total, tried = total + len(stacks), tried + len(chosen)
            fired += sum(self.attempt(name, stack, wanted) for stack in chosen)
        self.assertTrue(fired, "no allocation failed")
        self.say(f"{len(COMMANDS or commands.COMMANDS)} commands, {total:,} call stacks, {tried:,} tried, {fired:,} met")


# name: (method, path, body, what the request needs in front of it)
REQUEST_KINDS = {
    "list": ("GET", "/v1/jobs?limit=5", None, None), "show": ("GET", "/v1/jobs/{done}", None, None),
    "events": ("GET", "/v1/jobs/{done}/events", None, None), "stream": ("GET", "/v1/jobs/{done}/events", "stream", None),
    "report": ("GET", "/v1/jobs/{done}/report", None, None), "log": ("GET", "/v1/jobs/{done}/log", None, None),
    "artifacts": ("GET", "/v1/jobs/{done}/artifacts", None, None), "artifact": ("GET", "/v1/jobs/{done}/artifacts/config.json", None, None),
    "metrics": ("GET", "/metrics", None, None), "info": ("GET", "/v1/info", None, None), "ready": ("GET", "/readyz", None, None),
    "models": ("GET", "/v1/models", None, None), "data": ("GET", "/v1/data", None, None), "page": ("GET", "/", None, None),
    "contract": ("GET", "/openapi.yaml", None, None), "none": ("GET", "/v1/none", None, None),
    "submit": ("POST", "/v1/jobs", JOB, None), "wrong": ("POST", "/v1/jobs", {"model": "small", "sparsity": 2, "colour": 1}, None),
    "estimate": ("POST", "/v1/estimate", JOB, None),
    "study": ("POST", "/v1/studies", {"name": "s", "spec": {**JOB, "output": "study"}, "grid": {"sparsity": [0.4, 0.5]}}, None),
    "cancel": ("POST", "/v1/jobs/{queued}/cancel", None, "queued"), "delete": ("DELETE", "/v1/jobs/{ended}", None, "ended"),
    "retry": ("POST", "/v1/jobs/{ended}/retry", None, "ended"), "pause": ("POST", "/v1/jobs/{queued}/pause", None, "queued"),
    "resume": ("POST", "/v1/jobs/{paused}/resume", None, "paused"),
    "filter": ("GET", "/v1/jobs?metadata%5Bof%5D=none&state=queued", None, None), "query": ("GET", "/v1/jobs?limit=x&colour=1", None, None),
    "audit": ("GET", "/v1/audit?limit=3", None, None), "drained": ("GET", "/v1/drain", None, None), "drain": ("POST", "/v1/drain", None, None),
    "rules": ("GET", "/v1/gc", None, None), "gc": ("POST", "/v1/gc", None, None),
    "studies": ("GET", "/v1/studies?limit=3", None, None), "table": ("GET", "/v1/studies/{study}", None, "study"),
    "csv": ("GET", "/v1/studies/{study}", "csv", "study"), "stop-study": ("POST", "/v1/studies/{study}/cancel", None, "study"),
    "delete-study": ("DELETE", "/v1/studies/{stopped}", None, "stopped"),
    "text": ("POST", "/v1/completions", {"model": "words", "prompt": "The river", "max_tokens": 2}, None),
    "chat": ("POST", "/v1/chat/completions", {"model": "words", "messages": [{"role": "user", "content": "a"}]}, None),
}
ACCEPTED = {"stream": "text/event-stream", "csv": "text/csv"}
VARYING = ("resume", "gc", "audit", "studies", "table", "csv", "stop-study", "text",
           "metrics", "info", "list", "estimate", "study", "submit", "cancel", "retry", "pause", "log", "wrong")  # by times, ids, or what was there before


class Served(Allocations):
    """A daemon's requests. The queue is drained, so that no job runs meanwhile."""

    def setUp(self):
        super().setUp()
        self.daemon = Daemon("--threads", THREADS, "--max-attempts", "0", "--queue-limit", "100000", "--serve-models")
        self.addCleanup(self.daemon.remove)
        make_inputs(self.daemon.models, self.daemon.data)
        commands.make_model(self.daemon.models)
        self.start()
        self.done = self.daemon.submit({**JOB, "output": "done"})
        self.assertEqual(self.daemon.finish(self.done)["state"], "succeeded")
        self.assertEqual(self.daemon.request("POST", "/v1/drain").status, 200)
        self.number = 0
        self.counts = {"tried": 0, "met": 0, "answered": 0, "refused": 0, "closed": 0}

    def start(self):
        self.control.set(OFF)
        self.daemon.start(environment=self.control.environment)

    def need(self, what):
        """A job in front of a request."""
        if not what:
            return {}
        self.number += 1
        if what in ("study", "stopped"):
            answer = self.daemon.request("POST", "/v1/studies", {"name": "s", "spec": {**JOB, "output": f"needed-{self.number}"},
                                                                 "grid": {"sparsity": [0.4, 0.5]}})
            self.assertEqual(answer.status, 201, answer.body)
            if what == "stopped":
                self.assertEqual(self.daemon.request("POST", f"/v1/studies/{answer.json['id']}/cancel").status, 200)
            return {what: answer.json["id"]}
        job = self.daemon.submit({**JOB, "output": f"needed-{self.number}"})
        if what in ("ended", "paused"):
            action, state = ("cancel", "cancelled") if what == "ended" else ("pause", "paused")
            self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/{action}").json["state"], state)
        return {what: job}

    def ask(self, kind, jobs):
        """Status and body; 0 where the connection was closed instead."""
        method, path, body, _ = REQUEST_KINDS[kind]
        path = path.format(done=self.done, **jobs)
        headers = {"Idempotency-Key": f"key-{self.number}"} if kind in ("submit", "study") else {}
        if kind in ("submit", "study"):
            body = json.loads(json.dumps(body).replace('"pruned"', f'"asked-{self.number}"').replace('"study"', f'"study-{self.number}"'))
        if isinstance(body, str):
            headers, body = {"Accept": ACCEPTED[body]}, None
        try:
            answer = self.daemon.request(method, path, body, headers)
            return answer.status, answer.body
        except Exception:  # whatever http.client makes of half an answer
            return 0, b""

    def alive(self, stack, kind):
        """Whether the daemon answers; starts it again where it has ended."""
        self.control.set(OFF)
        status = self.daemon.process.poll()
        if status is None:
            try:
                asked = [self.daemon.get(path).status for path in ("/healthz", "/v1/jobs?limit=1", f"/v1/jobs/{self.done}")]
                status = None if asked == [200] * 3 else 1
            except AssertionError:
                status = self.daemon.process.wait(HANG)
        if status is None:
            return True
        if self.daemon.process.poll() is None:
            self.daemon.kill()
        self.crashed(stack, status)
        self.start()
        return False

    def keys(self, body):
        """The names in an answer in JSON, in their places."""
        def walk(value, at):
            if isinstance(value, dict):
                for name in value:
                    found.add(f"{at}/{name}")
                    walk(value[name], f"{at}/{name}")
            elif isinstance(value, list):
                for item in value:
                    walk(item, f"{at}[]")
        found = set()
        try:
            walk(json.loads(body), "")
        except ValueError:
            return None
        return found

    def judge(self, kind, stack, status, body, wanted):
        whole_status, whole_body = wanted
        if status == 0:
            self.counts["closed"] += 1
        elif status == whole_status:
            self.counts["answered"] += 1
            same = body == whole_body if kind not in VARYING and status < 400 else self.keys(body) == self.keys(whole_body)
            same = same or (kind == "stream" and whole_body.startswith(body))  # the client asks for the rest
            cut = b'"truncated":true' in body  # of models and data, what could not be looked at
            if not same and not cut and kind not in ("metrics", "list", "log", "retry", "estimate"):
                self.wrong(stack, f"{kind}: {status} with another answer: {body[:300]!r}")
        else:
            self.counts["refused"] += 1
            text = body.decode(errors="replace")
            if status == 500 and "json_valid" in text:  # which says no where it has no memory to look
                self.libraries.setdefault("libsqlite3.so.0 (its json_valid is wrong, a 500)", []).append(told(stack.split()[2:]))
            elif status >= 500 and status not in ALLOWED or "detail" not in text:
                self.wrong(stack, f"{kind}: {status} {text[-400:]}")

    def attempt(self, kind, stack, wanted):
        jobs = self.need(REQUEST_KINDS[kind][3])
        self.number += 1
        self.counts["tried"] += 1
        self.control.set(FAIL, stack)
        status, body = self.ask(kind, jobs)
        self.counts["met"] += self.control.fired()
        if not self.alive(stack, kind):
            return
        self.judge(kind, stack, status, body, wanted)
        if kind == "submit":
            again = self.ask(kind, jobs)
            if again[0] != 201 or (status == 201 and json.loads(again[1])["id"] != json.loads(body)["id"]):
                self.wrong(stack, f"submit: {status}, and the same again {again}")

    def test_requests(self):
        total = 0
        for kind in REQUESTS or REQUEST_KINDS:
            self.ask(kind, self.need(REQUEST_KINDS[kind][3]))  # what is made at the first request is there then
            self.number += 1
            jobs = self.need(REQUEST_KINDS[kind][3])
            self.control.stacks()
            self.control.set(RECORD)
            wanted = self.ask(kind, jobs)
            self.control.set(OFF)
            self.assertIn(wanted[0], (200, 201, 202, 204, 400, 404, 422), (kind, wanted))
            stacks = self.control.stacks()
            total += len(stacks)
            tried = evenly(stacks)
            # GnuTLS gives, and has freed, a hash where it had no memory for it.
            for stack in tried + [stack for stack in stacks if " libgnutls" in stack and stack not in tried][:3]:
                self.attempt(kind, stack, wanted)
            if os.environ.get("LAB_VERBOSE"):
                print(f"{kind}: {len(stacks)} stacks, {self.counts}", flush=True)
        counts = ", ".join(f"{number:,} {name}" for name, number in self.counts.items())
        self.assertTrue(self.counts["met"], "no allocation failed")
        self.say(f"{len(REQUESTS or REQUEST_KINDS)} requests, {total:,} call stacks: {counts}")


class Start(Allocations):
    """A daemon's start, with all that it may be given; it is ready then, or says why it is not."""

    def setUp(self):
        super().setUp()
        token = os.path.join(self.base, "token")
        limits, key = os.path.join(self.base, "limits"), os.path.join(self.base, "key")
        with open(token, "w") as file:
            file.write("board read board-s-token-is-this-one max-queued=3\nalice admin alice-s-token-is-this-one\nteam submit group:root\n")
        with open(key, "w") as file:
            file.write("the-key-of-notifications\n")
        os.chmod(token, 0o600), os.chmod(key, 0o600)
        with open(limits, "w") as file:
            file.write('{"queue": 10}')
        self.daemon = Daemon("--threads", THREADS, "--token-file", token, "--limits-file", limits, "--on-finish", "/bin/true",
                             "--serve-models", "--listen", f"unix:{self.base}/socket", "--notify-host", "localhost", "--notify-key-file", key,
                             "--keep-failed", "1h", "--keep-succeeded", "1h", "--max-state-bytes", "1G")
        self.daemon.options += ("--calibration", os.path.join(self.daemon.data, "tokens.safetensors"))
        self.addCleanup(self.daemon.remove)
        make_inputs(self.daemon.models, self.daemon.data)
        self.daemon.token = "alice-s-token-is-this-one"

    def life(self, fails=False):
        """Whether it was ready; its end. `fails`: an allocation does, which may be one for an answer."""
        daemon = self.daemon
        daemon.start(environment=self.control.environment, ready=False)
        port, deadline, ready = os.path.join(daemon.directory, "port"), time.monotonic() + HANG, False
        while daemon.process.poll() is None and not ready and time.monotonic() < deadline:
            if os.path.exists(port) and os.path.getsize(port):
                daemon.wait_for_port()
                try:
                    ready = daemon.get("/readyz").status == 200
                except AssertionError:
                    if not fails:
                        raise
            time.sleep(0.005)
        if daemon.process.poll() is None:
            return ready, daemon.stop()
        status, daemon.process = daemon.process.returncode, None
        return ready, status

    def attempt(self, stack):
        before = len(self.daemon.log())
        self.control.set(FAIL, stack)
        ready, status = self.life(fails=True)
        fired = self.control.fired()
        self.control.set(OFF)
        said = self.daemon.log()[before:]
        if status < 0:
            self.crashed(stack, status)
        elif status not in (0, 1, 2) or (status and not said.strip()) or not (ready or status):
            self.wrong(stack, f"ready: {ready}, status {status}: {said[-300:]}")
        return fired

    def test_start(self):
        self.life()  # what is made once is there then
        self.control.set(RECORD)
        self.assertEqual(self.life(), (True, 0), self.daemon.log())
        self.control.set(OFF)
        stacks = self.control.stacks()
        chosen = self.choose(stacks)
        fired = sum(map(self.attempt, chosen))
        self.assertEqual(self.life(), (True, 0), self.daemon.log())
        self.assertTrue(fired, "no allocation failed")
        self.say(f"{len(stacks):,} call stacks, {len(chosen):,} tried, {fired:,} met")


class Told(Allocations):
    """Who is to be told of a job's end is told, if later."""

    def setUp(self):
        super().setUp()
        self.daemon = Daemon("--threads", THREADS, "--on-finish", "/bin/true")
        self.addCleanup(self.daemon.remove)
        make_inputs(self.daemon.models, self.daemon.data)
        self.start()

    def start(self):
        self.control.set(OFF)
        self.daemon.start(environment=self.control.environment)
        self.assertEqual(self.daemon.request("POST", "/v1/drain").status, 200)

    def untold(self, jobs):
        deadline, seen = time.monotonic() + HANG, set()
        while not jobs <= seen and time.monotonic() < deadline:
            time.sleep(0.01)
            seen = {line.split("job=")[1].split()[0] for line in self.daemon.log().splitlines() if " told /usr/bin/true" in line or " told /bin/true" in line}
        return jobs - seen

    def cancelled(self, number):
        """The id of a job that is cancelled without a fault of its own: all allocations from then on are the notifier's."""
        job = self.daemon.submit({**JOB, "output": f"told-{number}"})
        return job if self.daemon.request("POST", f"/v1/jobs/{job}/cancel").status == 200 else None

    def test_told(self):
        self.assertFalse(self.untold({self.cancelled("first")}))
        self.control.set(RECORD)
        self.assertFalse(self.untold({self.cancelled("recorded")}))
        self.control.set(OFF)
        stacks, jobs, met = self.control.stacks(), set(), 0
        # Of the notifier's: it asks for the job, makes JSON of it and runs the program.
        own = [stack for stack in stacks if " libmicrohttpd" not in stack]
        chosen = evenly(own) + [stack for stack in own if " libcjson" in stack][-3:]
        for number, stack in enumerate(chosen):
            job = self.daemon.submit({**JOB, "output": f"told-{number}"})
            self.control.set(FAIL, stack)
            while self.daemon.request("POST", f"/v1/jobs/{job}/cancel").status != 200:
                pass  # this one met it
            time.sleep(0.05)
            met += self.control.fired()
            self.control.set(OFF)
            jobs.add(job)
        self.assertTrue(met, "no allocation failed")
        for job in sorted(self.untold(jobs)):
            self.failures.append(f"nobody was told of {job}: {[line for line in self.daemon.log().splitlines() if job in line]}")
        self.say(f"{len(stacks):,} call stacks, {len(chosen):,} tried, {met:,} met")


class Jobs(Served):
    """A daemon's jobs."""

    test_requests = None

    def end_of(self, job, stack):
        deadline = time.monotonic() + HANG
        while time.monotonic() < deadline:
            if self.daemon.process.poll() is not None:
                self.crashed(stack, self.daemon.process.poll())
                self.start()
            try:
                state = self.daemon.job(job)
            except AssertionError:  # this request met it, or besad has just ended
                continue
            if state.get("state") in FINISHED:  # else it may be this request that met it
                return state
            time.sleep(0.01)
        self.wrong(stack, "the job hangs")
        return {"state": "hangs", "error": None}

    def test_jobs(self):
        self.assertEqual(self.daemon.request("POST", "/v1/undrain").status, 200)
        wanted = digests(os.path.join(self.daemon.output, "done"))
        self.control.stacks()
        self.control.set(RECORD)
        job = self.daemon.submit({**JOB, "output": "recorded"})
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.control.set(OFF)
        stacks = self.control.stacks()
        chosen = self.choose(stacks)
        failed = met = 0
        for number, stack in enumerate(chosen):
            job = self.daemon.submit({**JOB, "output": f"job-{number}"})
            self.control.set(FAIL, stack)
            end = self.end_of(job, stack)
            met += self.control.fired()
            self.control.set(OFF)
            if end["state"] == "failed":
                failed += 1
                if not (end["error"] or {}).get("message"):
                    self.wrong(stack, f"nothing is said of it: {end['error']}")
                self.daemon.request("POST", f"/v1/jobs/{job}/retry")
                end = self.end_of(job, stack)
            output = os.path.join(self.daemon.output, f"job-{number}")
            events = self.daemon.events(job)
            if end["state"] != "succeeded" or digests(output) != wanted:
                self.wrong(stack, f"{end['state']} {end['error']}")
            elif [e["id"] for e in events] != list(range(1, len(events) + 1)):
                self.wrong(stack, "events are lost")
            shutil.rmtree(output, ignore_errors=True)
        self.assertTrue(met, "no allocation failed")
        self.say(f"{len(stacks):,} call stacks, {len(chosen):,} tried, {met:,} met, {failed:,} jobs failed and were retried")


if __name__ == "__main__":
    unittest.main()
