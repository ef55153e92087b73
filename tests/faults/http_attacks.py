#!/usr/bin/env python3
"""Hostile clients: connections that stay silent, requests that trickle, streams and pages that nobody reads, bodies without an end.

    http_attacks.py [--silent 1000] [--slow 200] [--unread 500] [--pages 300] [--bodies 900] [--crowd 1200] [--hold 20] [--leave]

Each attack comes from an address of its own (127.0.0.2 …), since besad bounds what one address may have; meanwhile another
process asks GET /healthz from 127.0.0.1, over a kept connection and over new ones, and a client submits a job, has it run, and
watches its events. `crowd` comes from two addresses, and takes every connection there is. What is told: how /healthz was answered,
memory, descriptors. What must be: everybody else is answered, memory is bounded, and the descriptors are given back when the
attackers go (--leave), or when besad has had enough of those who stay, in two minutes. BESAD says which besad. Times are told, and no
test asserts them: they are of this machine, with all clients on the same cores."""
import argparse
import http.client
import multiprocessing
import os
import resource
import socket
import sqlite3
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(ROOT, "tests", "api")]
from load import percentiles  # noqa: E402
from support import PATIENCE, Daemon, sanitized, small_job, small_model, wait_for  # noqa: E402

MOST_MIB = 250          # more than before an attack: 128 for large bodies, 64 KiB for each of a thousand connections, and something beside
FEW = 12                # descriptors that may be open more than before: what besad opens for its own work
WARNINGS = 390          # events of the job whose streams and pages are not read,
WARNING_BYTES = 10000   # of that size: a page nearly as large as one gets, more than sockets hold
DIAL_SECONDS = 5
CROWD_SECONDS = 9       # a connection that is silent for about as long is closed in a crowd


class Ping(multiprocessing.Process):
    """Asks for /healthz until told to end; then [seconds] over the kept connection, over new ones, and [errors]."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.ours, self.theirs = multiprocessing.Pipe()

    def once(self, connection):
        begin = time.monotonic()
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise OSError(f"/healthz: {answer.status}")
        return time.monotonic() - begin

    def run(self):
        kept, new, errors, last = [], [], [], time.monotonic()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        while not self.theirs.poll():
            for seconds, client in ((kept, connection), (new, http.client.HTTPConnection("127.0.0.1", self.port, timeout=60))):
                try:
                    seconds.append(self.once(client))
                except (OSError, http.client.HTTPException) as error:
                    # In a crowd the kept connection, silent while the new one waits, is among those that make way.
                    if client is not connection or time.monotonic() - last < CROWD_SECONDS:
                        errors.append(repr(error))
                    client.close()
                if client is not connection:
                    client.close()
                else:
                    last = time.monotonic()
            time.sleep(0.01)
        connection.close()
        self.theirs.send((kept, new, errors))

    def end(self):
        self.ours.send(None)
        told = self.ours.recv()
        self.join()
        return told


class Attack:
    """So many connections, from these addresses in turn, each with those bytes sent; with `trickle` a byte each half second of them."""

    def __init__(self, port, addresses, count, request=b"", trickle=False):
        self.port, self.addresses, self.count, self.request, self.trickle = port, addresses, count, request, trickle
        self.connections, self.refused, self.stop = [], 0, threading.Event()
        self.thread = threading.Thread(target=self.drip, daemon=True)

    def dial(self, address):
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        if len(self.request) < 10000:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # the kernel sizes the other side's buffer by it
        connection.settimeout(DIAL_SECONDS)
        connection.bind((address, 0))
        try:
            connection.connect(("127.0.0.1", self.port))
            if not self.trickle:
                connection.sendall(self.request)
            self.connections.append(connection)
        except OSError:
            self.refused += 1
            connection.close()

    def begin(self):
        for n in range(self.count):
            self.dial(self.addresses[n % len(self.addresses)])
        if self.trickle:
            self.thread.start()
        return self

    def drip(self):
        for n in range(len(self.request)):
            for connection in self.connections:
                try:
                    connection.send(self.request[n:n + 1])
                except OSError:
                    pass
            if self.stop.wait(0.5):
                return

    def answers(self):
        """How many of them besad has not ended, and how many it has answered 503."""
        still = refused = 0
        for connection in self.connections:
            connection.setblocking(False)
            try:
                head = connection.recv(12, socket.MSG_PEEK)
                still += head != b""
                refused += head == b"HTTP/1.1 503"
            except BlockingIOError:
                still += 1
            except OSError:
                pass
        return still, refused

    def end(self):
        self.stop.set()
        if self.trickle:
            self.thread.join()
        for connection in self.connections:
            connection.close()


class Lab:
    def __init__(self):
        self.daemon = Daemon("--threads", "1")
        self.number = 0

    def start(self):
        """With a job whose events are more than a socket holds."""
        daemon = self.daemon
        small_model(daemon, 2)
        daemon.start()
        self.told = daemon.submit(small_job(output="told", method="magnitude", calibration=None))
        assert daemon.finish(self.told)["state"] == "succeeded"
        assert daemon.stop() == 0
        database = sqlite3.connect(os.path.join(daemon.state, "besad.db"))
        with database:
            [last] = database.execute("SELECT last_event FROM jobs").fetchone()
            database.executemany("INSERT INTO events VALUES (?, ?, 'warning', 1, json_object('message', ?))",
                                 [(self.told, last + 1 + n, "x" * WARNING_BYTES) for n in range(WARNINGS)])
            database.execute("UPDATE jobs SET last_event = last_event + ?", (WARNINGS,))
        database.close()
        daemon.start()
        self.work()  # what besad opens and keeps, it has then

    def memory(self):
        with open(f"/proc/{self.daemon.process.pid}/status") as file:
            return int(next(line for line in file if line.startswith("VmRSS")).split()[1]) // 1024

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))

    def work(self):
        """What everybody else does: a job, its events, the lists. Returns how many requests it was."""
        daemon = self.daemon
        self.number += 1
        job = daemon.submit(small_job(output=f"work-{self.number}", method="magnitude", calibration=None))
        ids = [number for number, _, _ in daemon.stream(job) if number]
        assert ids == [event["id"] for event in daemon.events(job)] and daemon.job(job)["state"] == "succeeded"
        for path in ("/v1/jobs", "/v1/models", "/v1/info", "/metrics", f"/v1/jobs/{job}/report"):
            assert daemon.get(path).status == 200, path
        return 9

    def measure(self, name, attack, hold, leave):
        before, memory = self.descriptors(), self.memory()
        ping = Ping(self.daemon.port)
        ping.start()
        begin = time.monotonic()
        attack.begin()
        held, served, peak = 0, 0, 0
        while True:
            served += self.work()
            held, peak = max(held, self.descriptors() - before), max(peak, self.memory())
            if time.monotonic() - begin >= hold:
                break
            time.sleep(0.1)
        kept, new, errors = ping.end()
        still, refused = attack.answers()
        if leave:
            attack.end()
        wait_for("the descriptors", lambda: self.descriptors() <= before + FEW)
        seconds = time.monotonic() - begin
        attack.end()
        served += self.work()
        assert not errors, errors[:3]
        assert sanitized() or peak - memory < MOST_MIB, (name, memory, peak)
        figures = {"clients": attack.count, "refused when they came": attack.refused, "answered 503": refused, "most descriptors more": held,
                   "still open at the end of the hold": still, "others' requests served": served, "MiB before": memory, "MiB at most": peak,
                   "descriptors after": self.descriptors() - before, "descriptors back after s": round(seconds, 1),
                   "healthz asked": len(kept) + len(new), "healthz failed": len(errors)}
        for kind, times in (("kept", kept), ("new", new)):
            figures |= {f"healthz {kind} {p}": ms for p, ms in percentiles(times).items()}
        return {f"{name}: {what}": count for what, count in figures.items()}


def room_for_descriptors(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(count, hard), hard))


def attacks_of(lab, counts):
    port, host = lab.daemon.port, "Host: 127.0.0.1\r\n"
    post = f"POST /v1/jobs HTTP/1.1\r\n{host}Content-Type: application/json\r\nContent-Length: %d\r\n\r\n{{"
    events = f"GET /v1/jobs/{lab.told}/events%s HTTP/1.1\r\n{host}%s\r\n"
    requests = {"silent": b"", "slow": (post % 1000).encode() + b" " * 900, "unread": (events % ("", "Accept: text/event-stream\r\n")).encode(),
                "pages": (events % ("?limit=1000", "")).encode(), "bodies": (post % (1 << 20)).encode() + b" " * ((1 << 20) - 100), "crowd": b""}
    for number, (name, request) in enumerate(requests.items(), 2):
        addresses = [f"127.0.0.{number}", f"127.0.1.{number}"][:2 if name == "crowd" else 1]
        if counts[name]:
            yield name, Attack(port, addresses, counts[name], request, trickle=name == "slow")


def run(hold=20, leave=False, **counts):
    """{what: how much}. Fails where somebody else was not served, or something was not given back. counts: of clients, of each attack."""
    room_for_descriptors(4096)
    lab = Lab()
    try:
        lab.start()
        figures = {}
        for name, attack in attacks_of(lab, counts):
            figures |= lab.measure(name, attack, hold, leave)
        assert lab.daemon.stop() == 0
        return figures
    finally:
        lab.daemon.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("silent", 1000), ("slow", 200), ("unread", 500), ("pages", 300), ("bodies", 900), ("crowd", 1200), ("hold", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--leave", action="store_true", help="the attackers go by themselves")
    for name, count in run(**vars(parser.parse_args())).items():
        print(f"{name}: {count}")
    print("http_attacks: nothing wrong")


if __name__ == "__main__":
    main()
