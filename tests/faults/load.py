#!/usr/bin/env python3
"""Many submissions at once: is every acknowledged job there, exactly once, and are the bounds kept?

    load.py [--posts 10000] [--connections 64] [--kills 0] [--queue 100]

POSTs with an Idempotency-Key each, every tenth of them sent twice at the same time, over so many connections; with --kills besad is killed
so often meanwhile, and what was not answered is sent again. Then the list has each key once, under the id that was told. Then the bounds:
of more submissions at once than the queue takes, exactly as many are taken; the others are 503 queue-full; with quotas 429 (docs/operator.md).
Throughput and latency are told: they are of this machine, with the client on the same cores. BESAD says which besad."""
import argparse
import collections
import json
import os
import random
import selectors
import socket
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(ROOT, "tests", "api")]
from clients import pages  # noqa: E402
from support import PATIENCE, Daemon, small_job, small_model, wait_for  # noqa: E402

QUEUED, DAILY, ADMIN = "queued-0123456789", "daily-01234567890", "admin-01234567890"
MAX_QUEUED, MAX_PER_DAY = 20, 15


class Answer:
    def __init__(self, head, body, seconds):
        lines = head.decode().split("\r\n")
        self.status, self.seconds, self.at = int(lines[0].split()[1]), seconds, time.monotonic()
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        self.json = json.loads(body)


class Posts:
    """Sends submissions over kept connections, one in flight on each; [(key, answer)] in the order of the answers."""

    def __init__(self, daemon, connections, token=None):
        self.daemon, self.connections, self.token = daemon, connections, token
        self.selector = selectors.DefaultSelector()
        self.flying, self.text = {}, {}  # of a connection: (key, since when), and what came so far
        self.again = 0                   # sent again, because no answer came

    def request(self, key):
        body = json.dumps(small_job(method="magnitude", calibration=None, output="load/" + key, metadata={"key": key})).encode()
        token = f"Authorization: Bearer {self.token}\r\n" if self.token else ""
        return (f"POST /v1/jobs HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nIdempotency-Key: {key}\r\n{token}"
                f"Content-Length: {len(body)}\r\n\r\n").encode() + body

    def connect(self):
        def dial():
            try:
                return socket.create_connection(("127.0.0.1", self.daemon.port), timeout=PATIENCE)
            except ConnectionError:  # it is being started
                return None
        connection = wait_for("a connection", dial)
        self.selector.register(connection, selectors.EVENT_READ)
        self.text[connection] = b""
        return connection

    def drop(self, connection):
        self.selector.unregister(connection)
        connection.close()
        return self.flying.pop(connection, (None,))[0]

    def take(self, connection):
        """The answer, None: not whole yet, or False: there will be none."""
        try:
            piece = connection.recv(65536)
        except OSError:
            piece = b""
        if not piece:
            return False
        self.text[connection] += piece
        head, found, body = self.text[connection].partition(b"\r\n\r\n")
        if not found:
            return None
        length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")).split(b":")[1])
        if len(body) < length:
            return None
        self.text[connection] = body[length:]
        return Answer(head, body, time.monotonic() - self.flying[connection][1])

    def send(self, connection, key):
        self.flying[connection] = key, time.monotonic()
        try:
            connection.sendall(self.request(key))
        except OSError:
            pass  # the selector tells of its end

    def run(self, keys, meanwhile=lambda answers: None):
        waiting, answers = collections.deque(keys), []
        free = [self.connect() for _ in range(min(self.connections, len(waiting)))]
        while waiting or self.flying:
            while waiting and free:
                self.send(free.pop(), waiting.popleft())
            for event, _ in self.selector.select(PATIENCE):
                connection = event.fileobj
                answer = self.take(connection)
                if answer:
                    answers.append((self.flying.pop(connection)[0], answer))
                    free.append(connection)
                elif answer is False:
                    key = self.drop(connection)
                    if key is None:
                        free.remove(connection)
                    else:
                        self.again += 1
                        waiting.appendleft(key)
                    free.append(self.connect())
            meanwhile(answers)
        for connection in free:
            self.drop(connection)
        return answers


def percentiles(seconds):
    ordered = sorted(seconds)
    return {f"p{p} ms": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * p // 100)], 1) for p in (50, 90, 99, 100)}


def rates(begin, answers):
    """Of the first tenth and of the last one: each submission is compared with the outputs of all jobs that wait."""
    tenth = max(1, len(answers) // 10)
    first, last = answers[tenth - 1].at - begin, answers[-1].at - answers[-tenth].at
    return {"posts a second, first tenth": round(tenth / first, 1), "posts a second, last tenth": round((tenth - 1) / last, 1) if last else 0}


def idempotent(posts, connections, kills, rng):
    daemon = Daemon("--threads", "1", "--queue-limit", str(posts + 1))
    try:
        small_model(daemon, 1)
        daemon.start()
        assert daemon.post("/v1/drain", None).status == 200  # jobs wait
        keys = [f"post-{n}" for n in range(posts)]
        sent = [key for n, key in enumerate(keys) for _ in range(2 if n % 10 == 0 else 1)]
        due = sorted(rng.sample(range(1, len(sent)), kills))

        def kill(answers):
            if due and len(answers) >= due[0]:
                due.pop(0)
                daemon.kill()
                daemon.start(port=daemon.port)
        sender = Posts(daemon, connections)
        begin = time.monotonic()
        answers = sender.run(sent, kill)
        seconds = time.monotonic() - begin
        statuses = collections.Counter(answer.status for _, answer in answers)
        assert statuses == {201: len(sent)}, statuses
        ids = collections.defaultdict(set)
        for key, answer in answers:
            ids[key].add(answer.json["id"])
        jobs = pages(daemon, "/v1/jobs", "jobs")
        listed = collections.Counter(job["spec"]["metadata"]["key"] for job in jobs)
        wrong = [key for key in keys if len(ids[key]) != 1 or listed[key] != 1]
        assert not wrong and len(jobs) == posts, (len(jobs), wrong[:5])
        assert {job["id"] for job in jobs} == set().union(*ids.values())
        assert all(job["state"] == "queued" for job in jobs)
        assert daemon.stop() == 0
        return {"posts": len(sent), "keys": posts, "connections": connections, "kills": kills, "sent again": sender.again, "acknowledged 201": statuses[201],
                "jobs listed": len(jobs), "posts a second": round(len(sent) / seconds, 1),
                **rates(begin, [answer for _, answer in answers]), **percentiles(answer.seconds for _, answer in answers)}
    finally:
        daemon.remove()


def flood(daemon, connections, name, count, token, taken, status, problem):
    """Of so many submissions exactly `taken` are taken, and the others refused so."""
    answers = Posts(daemon, connections, token).run([f"{name}-{n}" for n in range(count)])
    statuses = collections.Counter(answer.status for _, answer in answers)
    assert statuses == {201: taken, status: count - taken}, (name, statuses)
    for _, answer in answers:
        if answer.status == status:
            assert answer.json["type"] == "urn:besad:problem:" + problem, answer.json
            assert int(answer.headers["retry-after"]) > 0
    return {f"{name}: taken": taken, f"{name}: {status} {problem}": count - taken}


def bounds(queue, connections):
    daemon = Daemon("--threads", "1", "--queue-limit", str(queue))
    try:
        small_model(daemon, 1)
        tokens = os.path.join(daemon.directory, "tokens")
        with open(os.open(tokens, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
            file.write(f"root admin {ADMIN}\nqueued submit {QUEUED} max-queued={MAX_QUEUED}\ndaily submit {DAILY} max-per-day={MAX_PER_DAY}\n")
        daemon.token = ADMIN
        daemon.start("--token-file", tokens)
        assert daemon.post("/v1/drain", None).status == 200
        counts = flood(daemon, connections, "max-queued", 3 * MAX_QUEUED, QUEUED, MAX_QUEUED, 429, "quota-queued")
        counts |= flood(daemon, connections, "max-per-day", 3 * MAX_PER_DAY, DAILY, MAX_PER_DAY, 429, "quota-day")
        left = queue - MAX_QUEUED - MAX_PER_DAY
        counts |= flood(daemon, connections, "queue", 3 * queue, ADMIN, left, 503, "queue-full")
        jobs = daemon.get("/v1/jobs?state=queued&limit=1000").json["jobs"]
        assert len(jobs) == queue, len(jobs)
        for job in jobs[:5]:
            assert daemon.request("POST", f"/v1/jobs/{job['id']}/cancel").status == 200
        counts |= flood(daemon, connections, "room-again", 3 * 5, ADMIN, 5, 503, "queue-full")
        assert len(daemon.get("/v1/jobs?state=queued&limit=1000").json["jobs"]) == queue
        return counts
    finally:
        daemon.remove()


def run(posts=10000, connections=64, kills=0, queue=100, seed=1):
    """{what: how much}. Fails where something is wrong."""
    return idempotent(posts, connections, kills, random.Random(seed)) | bounds(queue, connections)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("posts", 10000), ("connections", 64), ("kills", 0), ("queue", 100), ("seed", 1)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, count in run(**vars(parser.parse_args())).items():
        print(f"{name}: {count}")
    print("load: nothing wrong")


if __name__ == "__main__":
    main()
