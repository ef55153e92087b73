"""A besad daemon under test: started on a free loopback port over temporary directories, driven through HTTP. Python 3 alone."""
import atexit
import functools
import hashlib
import http.client
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BESAD = os.path.abspath(os.environ.get("BESAD", os.path.join(ROOT, "build", "besad")))
FAULTS = os.path.join(os.path.dirname(BESAD.replace("/emulated/", "/").replace("/tests/", "/")), "tests", "fault.so")
SAMPLES = int(os.environ.get("SAMPLES", "32"))  # of a small job: fewer where computing is slow
# Tests wait for something to happen, and on a busy machine that may take long: so many seconds only tell a hang. (A whole program gets
# 15 minutes of tests/run.py.) Sanitizer builds take longer by SLOWNESS.
PATIENCE = 600 * int(os.environ.get("SLOWNESS", "1"))
FINISHED = ("succeeded", "failed", "cancelled")

sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import write_calibration, write_model  # noqa: E402

__all__ = ["BESAD", "Daemon", "FINISHED", "PATIENCE", "ROOT", "write_calibration", "write_model", "wait_for"]


def wait_for(what, condition):
    """The condition's value when it holds. `what` may be a function that says more, called when it never does."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"{what() if callable(what) else what}: not within {PATIENCE} s")


@functools.cache
def sanitized():
    with open(BESAD, "rb") as file:
        program = file.read()
    return b"__asan_init" in program or b"__tsan_init" in program


def faults(test, directories, log, at=0, kind=""):
    """An environment in which the at-th file call below the directories fails, or kills besad (tests/faults/fault.c). Skips the test of a program
    that cannot be run so."""
    if sanitized():
        test.skipTest("a sanitizer wants to be loaded first itself")
    test.assertTrue(os.path.exists(FAULTS), f"{FAULTS} was not built (make tests)")
    return {"LD_PRELOAD": FAULTS, "FAULT_DIR": ":".join(map(os.path.realpath, directories)), "FAULT_AT": str(at), "FAULT_KIND": kind,
            "FAULT_LOG": log}


class Response:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self):
        return json.loads(self.body)


class Daemon:
    """Directories and, between start and stop or kill, a process."""

    def __init__(self, *options):
        self.directory = tempfile.mkdtemp(prefix="besad-api-")
        self.options = options
        self.models, self.data, self.output, self.state = (os.path.join(self.directory, n) for n in
                                                           ("models", "data", "output", "state"))
        for path in (self.models, self.data, self.output):
            os.mkdir(path)
        self.process, self.port, self.token = None, None, None

    def start(self, *options, port=0, environment=None, ready=True, descriptors=None):
        """ready: waits until it answers and says that it is ready. descriptors: how many it may have open."""
        port_file = os.path.join(self.directory, "port")
        if os.path.exists(port_file):
            os.unlink(port_file)
        log = open(os.path.join(self.directory, "log"), "ab")
        self.process = subprocess.Popen(
            [BESAD, "--listen", f"127.0.0.1:{port}", "--port-file", port_file, "--state-dir", self.state, "--model-root", self.models,
             "--data-root", self.data, "--output-root", self.output, *self.options, *options],
            stderr=log, stdout=log, env={**os.environ, **(environment or {})},
            preexec_fn=descriptors and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors, descriptors))))
        log.close()
        if ready:
            self.wait_for_port()
            wait_for("readiness", lambda: self.get("/readyz").status == 200)
        return self

    def wait_for_port(self):
        port_file = os.path.join(self.directory, "port")

        def bound_port():
            if self.process.poll() is not None:
                raise AssertionError(f"besad {self.condition()}")
            if not os.path.exists(port_file):
                return 0
            with open(port_file) as file:
                return int(file.read() or 0)
        self.port = wait_for("the port file", bound_port)

    def log(self):
        with open(os.path.join(self.directory, "log")) as file:
            return file.read()

    def condition(self):
        status = self.process.poll() if self.process else None
        return f"{'runs' if status is None else f'exited with {status}'}; its log ends: {self.log()[-2000:]}"

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process = None

    def stop(self):
        """Ends it as an operator does; returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(PATIENCE)
        self.process = None
        return status

    def remove(self):
        if self.process and os.environ.get("BESAD_COVERAGE") and self.process.poll() is None:
            self.stop()
        if self.process:
            self.kill()
        shutil.rmtree(self.directory)

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        headers = dict(headers or {})
        if self.token:
            headers.setdefault("Authorization", "Bearer " + self.token)
        if body is not None and not isinstance(body, (bytes, str)):
            body = json.dumps(body)
            headers.setdefault("Content-Type", "application/json")
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            return Response(response.status, response.headers, response.read())
        except OSError as error:
            raise AssertionError(f"{method} {path}: {error!r}; besad {self.condition()}") from error
        finally:
            connection.close()

    def get(self, path, **headers):
        return self.request("GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()})

    def post(self, path, body, **headers):
        return self.request("POST", path, body, {k.replace("_", "-"): v for k, v in headers.items()})

    def submit(self, spec):
        response = self.request("POST", "/v1/jobs", spec)
        assert response.status == 201, (response.status, response.body)
        return response.json["id"]

    def job(self, job):
        return self.get(f"/v1/jobs/{job}").json

    def finish(self, job):
        def what():
            return f"the end of job {job}; its last events: {self.events(job)[-10:]}; besad {self.condition()}"
        return wait_for(what, lambda: (j := self.job(job))["state"] in FINISHED and j)

    def events(self, job):
        events, after = [], 0
        while True:
            page = self.get(f"/v1/jobs/{job}/events?after={after}&limit=1000").json
            events += page["events"]
            if not page["events"] or page["next"] is None:
                return events
            after = page["next"]

    def stream(self, job, **headers):
        """Yields (id, type, data) of the event stream until its end; comments as (None, 'comment', text)."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=PATIENCE)
        lines = [f"GET /v1/jobs/{job}/events HTTP/1.1", f"Host: 127.0.0.1:{self.port}", "Accept: text/event-stream",
                 "Connection: close", *(f"{k.replace('_', '-')}: {v}" for k, v in headers.items())]
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        response = http.client.HTTPResponse(connection)
        response.begin()
        assert response.status == 200, response.read()
        assert response.headers["Content-Type"].startswith("text/event-stream")
        fields = {}
        try:
            for line in response:
                line = line.decode().rstrip("\n")
                if line.startswith(":"):
                    yield None, "comment", line[1:].strip()
                elif line:
                    key, _, value = line.partition(": ")
                    fields[key] = value
                elif "data" in fields:
                    yield fields.get("id") and int(fields["id"]), fields.get("event"), json.loads(fields.get("data") or "null")
                    fields = {}
        finally:
            response.close()
            connection.close()


def digests(directory):
    """Of every file but besad.json, which has times in it."""
    result = {}
    for name in sorted(os.listdir(directory)):
        with open(os.path.join(directory, name), "rb") as file:
            if name != "besad.json":
                result[name] = hashlib.sha256(file.read()).hexdigest()
    return result


@functools.cache
def made_model(blocks):
    """Made once: the tests of a file want the same ones again and again."""
    directory = tempfile.mkdtemp(prefix="besad-model-")
    atexit.register(shutil.rmtree, directory)
    write_model(directory, 64, 160, 4, 2, blocks, vocab=300, scale=0.1)
    return directory


def small_model(daemon, blocks=4, name="small"):
    """A random model of `blocks` blocks and calibration tokens for it."""
    shutil.copytree(made_model(blocks), os.path.join(daemon.models, name), copy_function=shutil.copy, dirs_exist_ok=True)
    write_calibration(os.path.join(daemon.data, "tokens.safetensors"), 32, 64, vocab=300)


def family_model(daemon, family, name="classic"):
    """A small model of another family, called by the family's name, with a vocabulary of 64."""
    directory, data = os.path.join(daemon.models, family), os.path.join(ROOT, "tests", "data", "families", family)
    os.mkdir(directory)
    shutil.copy(os.path.join(data, "model.safetensors"), directory)
    shutil.copy(os.path.join(data, name + ".json"), os.path.join(directory, "config.json"))
    return directory


def small_job(**spec):
    return {"model": "small", "method": "besa", "sparsity": 0.5,
            "calibration": {"path": "tokens.safetensors", "samples": SAMPLES, "sequence_length": 64}, **spec}
