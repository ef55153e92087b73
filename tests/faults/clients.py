#!/usr/bin/env python3
"""Many clients at once, while besad is killed again and again: is what they were answered what one queue can answer?

    clients.py [--seconds 120] [--clients 8] [--watchers 4] [--kills 40] [--seed 1]

Clients submit with Idempotency-Keys, show, cancel, pause, resume, retry and delete, several of them the same jobs; others watch events.
Meanwhile besad is killed (kill -9) and started again. Then, for each key, the history of all calls must be one of the model's
(clients_model.py): what was acknowledged is there, exactly once; a key never has two jobs; a state that was answered follows from the one
before; what was cancelled or deleted stays so. Of each job's events every watcher has had each id once, in order, and the same behind any
restart, and so it is in the database at the end. BESAD says which besad; all traffic stays on the loopback address."""
import argparse
import collections
import http.client
import json
import os
import random
import sqlite3
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(ROOT, "tests", "api")]
from clients_model import ASKED, Call, check_events, explain  # noqa: E402
from support import PATIENCE, Daemon, small_job, small_model, wait_for  # noqa: E402

CALLS_OF_A_KEY = 40  # then it rests: a history that long is still checked in no time
KINDS = ["submit"] * 4 + ["show"] * 3 + ["cancel"] * 3 + ["retry"] * 3 + ["pause", "resume"] + ["delete"] * 2
QUEUE = 30
BODIES = {"one": 0.5, "another": 0.6}  # by sparsity


class Lab:
    """What the clients share: the keys in use, the ids that were told, the history, and the events that were seen."""

    def __init__(self, daemon, seed, hot):
        self.daemon, self.lock = daemon, threading.Lock()
        self.history = collections.defaultdict(list)  # of a key
        self.ids = collections.defaultdict(list)      # of a key, in the order in which they were told
        self.key_of = {}                              # an id
        self.seen = collections.defaultdict(dict)     # of an id: {event: (type, time, data)}
        self.counts = collections.Counter()
        self.wrong, self.stop = [], threading.Event()
        self.seed, self.made = seed, 0
        self.hot = [self.new_key() for _ in range(hot)]

    def new_key(self):
        self.made += 1
        return f"key-{self.seed}-{self.made}"

    def pick(self, rng):
        """A key, and ids of its jobs that are known, the newest first."""
        with self.lock:
            place = rng.randrange(len(self.hot))
            if len(self.history[self.hot[place]]) >= CALLS_OF_A_KEY:
                self.hot[place] = self.new_key()
            key = self.hot[place]
            return key, self.ids[key][::-1]

    def pick_job(self, rng):
        with self.lock:
            known = [self.ids[key][-1] for key in self.hot if self.ids[key]]
            return rng.choice(known) if known else None

    def note(self, key, call):
        with self.lock:
            self.history[key].append(call)
            self.counts["calls"] += 1
            self.counts["calls without an answer"] += call.status is None
            self.counts[f"{call.kind} {call.status or 'without an answer'}"] += 1
            if not call.id:
                return
            if self.key_of.setdefault(call.id, key) != key:
                self.wrong.append(f"job {call.id} was told for {key} and for {self.key_of[call.id]}")
            if call.id not in self.ids[key]:
                self.ids[key].append(call.id)

    def saw(self, job, event):
        told = event["type"], event["created_at"], json.dumps(event["data"], sort_keys=True)
        with self.lock:
            known = self.seen[job].setdefault(event["id"], told)
            self.counts["events seen"] += 1
            if known != told:
                self.wrong.append(f"event {event['id']} of job {job} was {known}, and is {told}")


class Client:
    def __init__(self, lab, seed):
        self.lab, self.rng, self.connection = lab, random.Random(seed), None

    def close(self):
        if self.connection:
            self.connection.close()
        self.connection = None

    def call(self, method, path, body=None, headers=None):
        """(status, JSON or None); (None, None) where no answer came; None where nothing was sent."""
        try:
            if not self.connection:
                self.connection = http.client.HTTPConnection("127.0.0.1", self.lab.daemon.port, timeout=PATIENCE)
                self.connection.connect()
        except OSError:
            self.close()
            return None
        try:
            self.connection.request(method, path, body, headers or {})
            answer = self.connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if text else None
        except (OSError, http.client.HTTPException):
            self.close()
            return None, None

    def submit(self, key, name):
        spec = small_job(method="magnitude", calibration=None, sparsity=BODIES[name], output="clients/{id}", metadata={"key": key})
        return self.call("POST", "/v1/jobs", json.dumps(spec), {"Idempotency-Key": key, "Content-Type": "application/json"})

    def ask(self, kind, job):
        if kind == "show":
            return self.call("GET", f"/v1/jobs/{job}")
        return self.call("DELETE", f"/v1/jobs/{job}") if kind == "delete" else self.call("POST", f"/v1/jobs/{job}/{kind}")

    def turn(self):
        key, ids = self.lab.pick(self.rng)
        kind = self.rng.choice(KINDS) if ids else "submit"
        what = self.rng.choice(["one"] * 9 + ["another"]) if kind == "submit" else ids[0] if self.rng.random() < 0.9 else self.rng.choice(ids)
        begin = time.monotonic()
        answer = self.submit(key, what) if kind == "submit" else self.ask(kind, what)
        end = time.monotonic()
        if answer is None:
            time.sleep(0.02)
            return
        status, told = answer
        if status == 503:  # the queue is full, or besad stops: nothing was done
            self.lab.counts["503"] += 1
            return
        if kind == "show" and status is None:
            return
        self.lab.note(key, Call(kind, what, begin, end, status, (told or {}).get("state"), told["id"] if status == 201 else None))

    def run(self):
        while not self.lab.stop.is_set():
            try:
                self.turn()
            except Exception as error:
                self.lab.wrong.append(f"a client: {error!r}")
                raise
        self.close()


class Watcher:
    """Follows one job to its end, or for a while, across restarts."""

    def __init__(self, lab, seed):
        self.lab, self.rng, self.last = lab, random.Random(seed), 0

    def stream(self, job):
        """Whether there will be more."""
        for number, kind, event in self.lab.daemon.stream(job, Last_Event_ID=str(self.last)):
            if kind == "comment" and not self.lab.stop.is_set():
                continue
            if kind == "end" or self.lab.stop.is_set():
                return False
            if number != self.last + 1:
                self.lab.wrong.append(f"a watcher of job {job} had event {number} behind {self.last}")
            self.last = number
            self.lab.saw(job, event)
        return True

    def follow(self, job):
        self.last, more = 0, True
        until = time.monotonic() + 5
        while more and time.monotonic() < until and not self.lab.stop.is_set():
            try:
                more = self.stream(job)
            except AssertionError:  # it is gone
                more = False
            except (OSError, http.client.HTTPException, ValueError):  # cut in the middle of an event
                self.lab.counts["streams cut"] += 1
                time.sleep(0.02)
        self.lab.counts["streams followed"] += 1

    def run(self):
        while not self.lab.stop.is_set():
            job = self.lab.pick_job(self.rng)
            if job:
                self.follow(job)
            else:
                time.sleep(0.05)


def kill_often(lab, kills, seconds, rng):
    """`kills` times within so many seconds."""
    start = time.monotonic()
    for number in range(kills):
        due = start + (number + rng.uniform(0.2, 1)) * seconds / (kills + 1)
        time.sleep(max(0, due - time.monotonic()))
        lab.daemon.kill()
        lab.daemon.start(port=lab.daemon.port)
        lab.counts["kills"] += 1
    time.sleep(max(0, start + seconds - time.monotonic()))


def pages(daemon, path, key):
    after, found = "", []
    while True:
        page = daemon.get(f"{path}?limit=1000{after}").json
        found += page[key]
        if page["next"] is None:
            return found
        after = f"&after={page['next']}"


def rest(daemon):
    """Nothing runs any more."""
    assert daemon.post("/v1/drain?now=true", None).status == 200
    moving = ("running", "cancelling", "pausing")
    wait_for("no job at work", lambda: not any(daemon.get(f"/v1/jobs?state={state}").json["jobs"] for state in moving))


def look_at_the_end(lab):
    """The list of all jobs, as calls of the history; and their events."""
    rest(lab.daemon)
    begin = time.monotonic()
    jobs = pages(lab.daemon, "/v1/jobs", "jobs")
    end = time.monotonic()
    keys = collections.Counter(job["spec"]["metadata"]["key"] for job in jobs)
    lab.wrong += [f"{key} has {count} jobs" for key, count in keys.items() if count > 1]
    for job in jobs:
        lab.history[job["spec"]["metadata"]["key"]].append(Call("show", job["id"], begin, end, 200, job["state"]))
        for event in lab.daemon.events(job["id"]):
            lab.saw(job["id"], event)
    for key in lab.history:
        if not keys[key]:
            lab.history[key].append(Call("absent", None, begin, end, 200))
    lab.counts["jobs at the end"] = len(jobs)
    lab.counts["jobs at the end by state"] = dict(collections.Counter(job["state"] for job in jobs))


def check(lab):
    undecided = 0
    for key, calls in lab.history.items():
        why = explain(calls)
        undecided += why == "undecided"
        if why and why != "undecided":
            lab.wrong.append(f"{key}: {why}")
    for job, events in lab.seen.items():
        why = check_events(events)
        if why:
            lab.wrong.append(f"job {job}: {why}")
    database = sqlite3.connect(f"file:{os.path.join(lab.daemon.state, 'besad.db')}?mode=ro", uri=True)
    for pragma, right in (("integrity_check", [("ok",)]), ("foreign_key_check", [])):
        found = database.execute(f"PRAGMA {pragma}").fetchall()
        if found != right:
            lab.wrong.append(f"PRAGMA {pragma}: {found}")
    database.close()
    lab.counts.update({"keys": len(lab.history), "jobs known": len(lab.key_of), "histories undecided": undecided})


def begin(workers):
    threads = [threading.Thread(target=worker.run, daemon=True) for worker in workers]
    for thread in threads:
        thread.start()
    return threads


def end(threads):
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a client hangs"


def run(seconds=120, clients=8, watchers=4, kills=40, seed=1):
    """{what: how often}. Fails with all that is wrong."""
    daemon = Daemon("--threads", "1", "--queue-limit", str(QUEUE))
    try:
        small_model(daemon, 1)
        daemon.start()
        lab = Lab(daemon, seed, 2 * clients)
        asking = begin(Client(lab, f"{seed} client {n}") for n in range(clients))
        looking = begin(Watcher(lab, f"{seed} watcher {n}") for n in range(watchers))
        try:
            kill_often(lab, kills, seconds, random.Random(f"{seed} kills"))
        finally:
            lab.stop.set()
        end(asking)
        assert daemon.stop() == 0  # streams of jobs that wait end by it
        end(looking)
        daemon.start(port=daemon.port)
        look_at_the_end(lab)
        assert daemon.stop() == 0
        check(lab)
        assert not lab.wrong, f"seed {seed}: {len(lab.wrong)} wrong:\n" + "\n".join(lab.wrong[:5])
        done = {kind for kind in ASKED if any(lab.counts[f"{kind} {status}"] for status in (200, 204))}
        lab.counts["kinds of change acknowledged"] = len(done)
        return dict(lab.counts)
    finally:
        daemon.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seconds", 120), ("clients", 8), ("watchers", 4), ("kills", 40), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    counts = run(**vars(parser.parse_args()))
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print("clients: nothing wrong")


if __name__ == "__main__":
    main()
