#!/usr/bin/env python3
"""Many watchers and requests beside a job that keeps every core busy, against the same job undisturbed, in turn.

    watchers.py [--watchers 500] [--rate 100] [--runs 5]

Every watcher follows the job's event stream to its end and must get every event in order; meanwhile GET /v1/jobs/{id} goes out at
the given rate over 8 kept connections. All traffic stays on the loopback address, and this process is on the same cores as besad, so
that what it costs counts against the job. Writes a JSON object to standard output; results are kept in bench/results/."""
import argparse
import heapq
import json
import os
import selectors
import shutil
import socket
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "api"))
os.environ.setdefault("BESAD", os.path.join(ROOT, "build", "besad"))
from support import Daemon  # noqa: E402

CONNECTIONS = 8


def job_spec(epochs):
    return {"model": "tiny-llama", "sparsity": 0.5, "precision": "f32", "besa": {"epochs": epochs},
            "calibration": {"path": "calibration.safetensors", "samples": 128, "sequence_length": 256}}


def connect(port):
    connection = socket.create_connection(("127.0.0.1", port))
    connection.setblocking(False)
    return connection


class Watchers:
    def __init__(self, port, job, count):
        request = (f"GET /v1/jobs/{job}/events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
                   "Connection: close\r\n\r\n").encode()
        self.received = {}
        for _ in range(count):
            connection = connect(port)
            connection.send(request)
            self.received[connection] = []

    def ids(self):
        """Of each watcher: the ids of its events in order of arrival, and whether its stream was ended properly."""
        for pieces in self.received.values():
            text = b"".join(pieces)
            yield [int(line[4:]) for line in text.split(b"\n") if line.startswith(b"id: ")], b"event: end\n" in text


class Requests:
    """Answers come in the order of the requests of a connection; one is in flight on each at most, others wait their turn."""

    def __init__(self, port, job, rate):
        self.request = f"GET /v1/jobs/{job} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode()
        self.interval, self.due, self.waiting = 1 / rate, time.monotonic(), []
        self.free = [connect(port) for _ in range(CONNECTIONS)]
        self.flying, self.text, self.seconds = {}, {c: b"" for c in self.free}, []
        self.connections = list(self.free)

    def send(self, now):
        while self.due <= now:
            heapq.heappush(self.waiting, self.due)
            self.due += self.interval
        while self.waiting and self.free:
            connection = self.free.pop()
            self.flying[connection] = heapq.heappop(self.waiting)  # timed from when it was due: waiting for a connection counts
            connection.send(self.request)

    def take(self, connection, piece):
        text = self.text[connection] + piece
        head, separator, body = text.partition(b"\r\n\r\n")
        if separator:
            length = int(next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")).split(b":")[1])
            if len(body) >= length:
                assert head.startswith(b"HTTP/1.1 200"), head
                self.seconds.append(time.monotonic() - self.flying.pop(connection))
                self.free.append(connection)
                text = body[length:]
        self.text[connection] = text


def disturb(daemon, job, args):
    watchers, requests = Watchers(daemon.port, job, args.watchers), Requests(daemon.port, job, args.rate)
    selector = selectors.EpollSelector()
    for connection in [*watchers.received, *requests.connections]:
        selector.register(connection, selectors.EVENT_READ)
    open_streams = args.watchers
    while open_streams:
        now = time.monotonic()
        requests.send(now)
        for key, _ in selector.select(max(requests.due - now, 0)):
            piece = key.fileobj.recv(262144)
            if key.fileobj in requests.text:
                requests.take(key.fileobj, piece)
            elif piece:
                watchers.received[key.fileobj].append(piece)
            else:
                selector.unregister(key.fileobj)
                open_streams -= 1
    for connection in [*watchers.received, *requests.connections]:
        connection.close()
    return watchers, requests


def pruning_seconds(daemon, job):
    finished = daemon.finish(job, 600)
    assert finished["state"] == "succeeded", finished
    return finished["result"]["pruning_seconds"]


def run(args, disturbed):
    daemon = Daemon()
    try:
        shutil.copytree(os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(daemon.models, "tiny-llama"))
        shutil.copy(os.path.join(ROOT, "demo", "calibration.safetensors"), daemon.data)
        daemon.start()
        job = daemon.submit(job_spec(args.epochs))
        if not disturbed:
            return {"seconds": pruning_seconds(daemon, job)}
        watchers, requests = disturb(daemon, job, args)
        events = [event["id"] for event in daemon.events(job)]
        whole = sum(ids == events and ended for ids, ended in watchers.ids())
        ordered = sorted(requests.seconds)
        return {"seconds": pruning_seconds(daemon, job), "events": len(events), "watchers_with_every_event_in_order": whole,
                "requests": len(ordered), "p50_ms": 1000 * ordered[len(ordered) // 2],
                "p99_ms": 1000 * ordered[len(ordered) * 99 // 100], "max_ms": 1000 * ordered[-1]}
    finally:
        daemon.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watchers", type=int, default=500)
    parser.add_argument("--rate", type=float, default=100, help="requests a second")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--runs", type=int, default=5)
    args = parser.parse_args()
    plain, disturbed = [], []
    for _ in range(args.runs):
        plain.append(run(args, False))
        disturbed.append(run(args, True))
        print(plain[-1], disturbed[-1], file=sys.stderr)
    ratios = [d["seconds"] / p["seconds"] for p, d in zip(plain, disturbed)]
    json.dump({"command": "bench/watchers.py " + " ".join(sys.argv[1:]), "machine": os.uname().machine,
               "cores": os.cpu_count(), "watchers": args.watchers, "requests_per_second": args.rate,
               "undisturbed_seconds": [p["seconds"] for p in plain], "disturbed": disturbed,
               "slowdown": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
               "worst_p99_ms": max(d["p99_ms"] for d in disturbed)}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
