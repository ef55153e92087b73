#!/usr/bin/env python3
"""Small jobs for hours: do memory, descriptors, threads and the database stay as they are?

    soak.py [--seconds 7200] [--every 10] [--kept 20]

One job behind another is submitted, watched, read (report, log, artifacts, lists, metrics) and, of all but the last 20, deleted; some are cancelled
and retried, some refused, some are studies. Every 10 seconds besad's memory, descriptors, threads and database are measured. Told are the
first and the last, and the slope of the second half, by least squares; what must be: descriptors, threads, memory and the database,
less its audit, which is bounded by itself, grow by no more than a bound. BESAD says which besad."""
import argparse
import collections
import os
import shutil
import sqlite3
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path[:0] = [os.path.dirname(os.path.abspath(__file__)), os.path.join(ROOT, "tests", "api")]
from support import Daemon, sanitized, small_job, small_model, wait_for  # noqa: E402

MOST = {"resident KiB": 48 << 10, "descriptors": 12, "threads": 8, "database KiB without the audit": 2 << 10}  # more than at the beginning
AUDIT_ENTRY_KIB = 0.1  # of the database; of them 100,000 are kept (db/audit.h)
SETTLED = 30  # jobs before the beginning: caches are filled, and as many are kept as there will be


class Soak:
    def __init__(self, daemon, kept):
        self.daemon, self.kept = daemon, kept
        self.jobs, self.counts, self.samples = collections.deque(), collections.Counter(), []
        self.begin = time.monotonic()

    def job(self, **spec):
        self.counts["jobs"] += 1
        return self.daemon.submit(small_job(method="magnitude", calibration=None, output=f"soak-{self.counts['jobs']}", **spec))

    def get(self, path, status=200):
        self.counts["requests"] += 1
        assert self.daemon.get(path).status == status, path

    def act(self, job, action, status=200):
        self.counts["requests"] += 1
        assert self.daemon.request("POST", f"/v1/jobs/{job}/{action}").status == status, action

    def one(self):
        """A job from its submission to its end, as a client sees it."""
        daemon, job = self.daemon, self.job()
        events = [number for number, _, _ in daemon.stream(job) if number]
        assert events == list(range(1, len(events) + 1)) and daemon.job(job)["state"] == "succeeded"
        self.counts["events"] += len(events)
        for path in ("", "/report", "/log", "/artifacts", "/events"):
            self.get(f"/v1/jobs/{job}{path}")
        for path in ("/v1/jobs?limit=10", "/v1/models", "/v1/data", "/v1/info", "/metrics", "/", "/healthz", "/readyz"):
            self.get(path)
        self.jobs.append((job, f"soak-{self.counts['jobs']}"))

    def odd(self):
        """What does not go well: cancelled, tried again, refused; and a study."""
        daemon, job = self.daemon, self.job(priority=-1)
        daemon.request("POST", f"/v1/jobs/{job}/cancel")
        if daemon.finish(job)["state"] == "cancelled":
            self.act(job, "retry")
            assert daemon.finish(job)["state"] == "succeeded"
        self.act(job, "retry", 409)
        self.jobs.append((job, f"soak-{self.counts['jobs']}"))
        self.get("/v1/jobs/01hzzzzzzz0123456789abcdef", 404)
        assert daemon.request("POST", "/v1/jobs", {"model": "none"}).status == 422
        assert daemon.request("POST", "/v1/estimate", small_job(method="magnitude", calibration=None)).status == 200
        name = f"study-{self.counts['jobs']}"
        spec = {"model": "small", "method": "magnitude"}
        study = daemon.request("POST", "/v1/studies", {"name": name, "spec": spec, "grid": {"sparsity": [0.5, 0.6]}})
        assert study.status == 201, study.body
        path = f"/v1/studies/{study.json['id']}"
        rows = wait_for("the study's end", lambda: (told := daemon.get(path).json)["finished"] and told["rows"])
        assert [row["state"] for row in rows] == ["succeeded"] * 2, rows
        assert daemon.request("DELETE", path).status == 204
        for row in rows:
            shutil.rmtree(os.path.join(daemon.output, row["output"]))
        self.counts["studies"] += 1

    def forget(self):
        while len(self.jobs) > self.kept:
            job, output = self.jobs.popleft()
            assert self.daemon.request("DELETE", f"/v1/jobs/{job}").status == 204
            shutil.rmtree(os.path.join(self.daemon.output, output))
            self.counts["deleted"] += 1

    def turn(self):
        self.one()
        if self.counts["jobs"] % 10 == 0:
            self.odd()
        self.forget()

    def measure(self):
        pid, state = self.daemon.process.pid, self.daemon.state
        with open(f"/proc/{pid}/status") as file:
            status = dict(line.split(":", 1) for line in file)
        database = sqlite3.connect(f"file:{os.path.join(state, 'besad.db')}?mode=ro", uri=True)
        [entries] = database.execute("SELECT count(*) FROM audit").fetchone()
        database.close()
        files = [os.path.join(state, name) for name in os.listdir(state) if name.startswith("besad.db")]
        size = os.path.getsize(os.path.join(state, "besad.db")) >> 10
        return {"resident KiB": int(status["VmRSS"].split()[0]), "descriptors": len(os.listdir(f"/proc/{pid}/fd")),
                "threads": int(status["Threads"]), "database KiB": size, "audit entries": entries,
                "database KiB without the audit": round(size - entries * AUDIT_ENTRY_KIB),
                "database and journal KiB": sum(map(os.path.getsize, files)) >> 10,
                "checkpoints": len(os.listdir(os.path.join(state, "jobs")))}

    def sample(self):
        self.samples.append((time.monotonic() - self.begin, self.measure()))

    def run(self, seconds, every):
        for _ in range(SETTLED):
            self.turn()
        self.begin, due = time.monotonic(), 0
        while time.monotonic() - self.begin < seconds:
            if time.monotonic() - self.begin >= due:
                self.sample()
                due += every
            self.turn()
        self.sample()


def slope(points):
    """By least squares, an hour; points: [(seconds, value)]."""
    n = len(points)
    mean_x, mean_y = (sum(p[i] for p in points) / n for i in (0, 1))
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return 3600 * sum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0


def run(seconds=7200, every=10, kept=20):
    """{what: how much}. Fails where something grew beyond its bound."""
    daemon = Daemon("--threads", "1")
    try:
        small_model(daemon, 1)
        daemon.start()
        soak = Soak(daemon, kept)
        soak.run(seconds, every)
        figures = {**soak.counts, "seconds": round(soak.samples[-1][0]), "samples": len(soak.samples)}
        half = soak.samples[len(soak.samples) // 2:] if len(soak.samples) > 3 else soak.samples
        for what in soak.samples[0][1]:
            values = [sample[what] for _, sample in soak.samples]
            figures[what] = f"{values[0]} at first, {values[-1]} at last, at most {max(values)}"
            figures[what + " an hour, second half"] = round(slope([(at, sample[what]) for at, sample in half]), 1)
            if what in MOST and not (sanitized() and what == "resident KiB"):
                assert max(values) - values[0] <= MOST[what], (what, values)
        assert daemon.stop() == 0
        return figures
    finally:
        daemon.remove()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("seconds", 7200), ("every", 10), ("kept", 20)):
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, count in run(**vars(parser.parse_args())).items():
        print(f"{name}: {count}")
    print("soak: nothing wrong")


if __name__ == "__main__":
    main()
