#!/usr/bin/env python3
"""The power goes while besad works: at each sync in turn, and at other calls, what was not synced is lost, all or a part of it; then besad starts
on what is left, and must bring every job that it had accepted to its end, with the same bytes, and with every event that a client had been told.

A life of besad is recorded (powercut.c); each cut is made of the records (powercut_disk.py), so that one life serves for all of them. In the
environment:

    CUTS     how many of the moments are tried, spread evenly, the last among them; or all
    TEARS    how many random parts of what was not synced are tried at each of them, besides none, all, and the first half
    TWICE    of the starts that follow a cut, every so many-th is recorded and cut at a random moment itself; 0: none
    SEED     of the random parts"""
import hashlib
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
os.environ.setdefault("GOMP_SPINCOUNT", "4000")  # else besad starts itself once more
sys.path.insert(0, os.path.join(ROOT, "tests", "api"))

from support import BESAD, FAULTS, PATIENCE, Daemon, digests, sanitized, wait_for  # noqa: E402
from test_crash_points import BLOCKS, JOB, TUNED, files, make_inputs  # noqa: E402
import powercut_disk  # noqa: E402

CUTS = os.environ.get("CUTS", "3")
TEARS = int(os.environ.get("TEARS", "1"))
TWICE = int(os.environ.get("TWICE", "4"))
SEED = int(os.environ.get("SEED", "1"))
LIBRARY = os.path.join(os.path.dirname(FAULTS), "powercut.so")
THREADS = os.environ.get("OMP_NUM_THREADS", "1")
SECOND = {"model": "small", "output": "second", "method": "magnitude", "sparsity": 0.5}


def recorded(test, directories, log):
    if sanitized():
        test.skipTest("a sanitizer wants to be loaded first itself")
    test.assertTrue(os.path.exists(LIBRARY), f"{LIBRARY} was not built (make tests)")
    return {"LD_PRELOAD": LIBRARY, "POWERCUT_DIR": ":".join(map(os.path.realpath, directories)), "POWERCUT_LOG": log}


def digest(tree):
    found = hashlib.sha256()
    for name in sorted(tree):
        node = tree[name]
        found.update(name.encode() + (b"/" + digest(node) if isinstance(node, dict) else b"=" + hashlib.sha256(node).digest()))
    return found.digest()


class Told:
    """What clients had been sent up to a record: how many jobs were accepted, and the last event that was streamed."""

    def __init__(self):
        self.accepted = self.event = 0

    def follow(self, record):
        if record.kind != "S":
            return
        self.accepted += record.bytes.count(b"HTTP/1.1 201")
        for number in re.findall(rb"(?:^|\n)id: (\d+)\n", record.bytes):
            self.event = int(number)


class Cuts(unittest.TestCase):
    def setUp(self):
        self.rng = random.Random(SEED)
        self.cuts = self.twice = 0
        self.started = time.monotonic()
        self.failures = []

    def points(self, records):
        """The numbers of the records in front of which the power goes: syncs, and all that changes names."""
        syncs = [i for i, r in enumerate(records) if r.kind == "F"]
        others = [i for i, r in enumerate(records) if r.kind in "CMRUS" and i not in syncs]
        if CUTS == "all":
            return sorted(syncs + others), len(syncs)
        # Syncs first: what is between two of them, the parts that are torn show too.
        wanted = min(int(CUTS), len(syncs))
        return sorted({syncs[len(syncs) - 1 - i * len(syncs) // wanted] for i in range(wanted)}), len(syncs)

    def kinds(self):
        return [("none", 0), ("half", 0), ("all", 0), *(("random", SEED * 1000 + i) for i in range(TEARS))]

    def cut_all(self, disk, records, attempt):
        """attempt(trees, told, name) for each cut; what does not differ from one before is left out."""
        points, syncs = self.points(records)
        seen, told, at = set(), Told(), 0
        for point in [*points, len(records)]:
            for record in records[at:point]:
                disk.follow(record)
                told.follow(record)
            at = point
            for kind, seed in self.kinds():
                trees = disk.cut(kind, seed + point)
                key = (*map(digest, trees.values()), told.accepted, told.event)
                if key in seen:
                    continue
                seen.add(key)
                self.cuts += 1
                name = f"record {point} of {len(records)} ({records[point].kind if point < len(records) else 'end'}), {kind} {seed + point}"
                try:
                    attempt(trees, told, name)
                except AssertionError as failure:
                    self.failures.append(f"{name}: {failure}")
                    print(self.failures[-1][:3000], flush=True)
        return len(points), syncs

    def check_followed(self, disk, records, roots):
        """That the records are all that happened: what they come to is what is there."""
        for record in records:
            disk.follow(record)
        for root, tree in disk.cut("all").items():
            self.assertEqual(files_of(powercut_disk.without_index(tree)), files_of(powercut_disk.without_index(powercut_disk.read_tree(root))))

    def say(self, what, points, syncs):
        wrong = f"{len(self.failures)} went wrong"
        print(f"{self.id()}: {self.cuts:,} cuts at {points:,} moments ({syncs:,} syncs){what}, {wrong}, "
              f"{time.monotonic() - self.started:.0f} s", flush=True)
        self.assertFalse(self.failures, "\n".join(self.failures)[:4000])


def files_of(tree, above=""):
    found = {}
    for name, node in tree.items():
        if isinstance(node, dict):
            found.update(files_of(node, f"{above}{name}/"))
            found[f"{above}{name}/"] = None
        else:
            found[above + name] = hashlib.sha256(node).hexdigest()
    return found


class Served(Cuts):
    """The daemon, with a job that is watched and one that waits behind it."""

    def setUp(self):
        super().setUp()
        self.daemon = Daemon("--threads", THREADS, "--checkpoint-every", "0", "--max-attempts", "0")
        self.addCleanup(self.daemon.remove)
        make_inputs(self.daemon.models, self.daemon.data)
        os.mkdir(self.daemon.state, 0o700)
        self.roots = [os.path.realpath(d) for d in (self.daemon.state, self.daemon.output)]

    def path(self, name):
        return os.path.join(self.daemon.directory, name)

    def submit_both(self):
        ids = []
        for key, spec in (("first", JOB), ("second", SECOND)):
            answer = self.daemon.request("POST", "/v1/jobs", spec, {"Idempotency-Key": key})
            self.assertEqual(answer.status, 201, answer.body)
            ids.append(answer.json["id"])
        return ids

    def watch(self, job):
        try:
            for _ in self.daemon.stream(job):
                pass
        except (OSError, AssertionError, ValueError):
            pass

    def record(self, name):
        """An undisturbed life: the disk in front of it, its records, and what came of it."""
        log = self.path(name)
        disk = powercut_disk.Disk(self.roots)
        self.daemon.start(environment=recorded(self, self.roots, log))
        ids = self.submit_both()
        watcher = threading.Thread(target=self.watch, args=(ids[0],))
        watcher.start()
        ends = [self.daemon.finish(job) for job in ids]
        self.assertEqual([end["state"] for end in ends], ["succeeded"] * 2)
        watcher.join()
        events = {job: self.daemon.events(job) for job in ids}
        self.assertEqual(self.daemon.stop(), 0)
        return disk, powercut_disk.read_records(log), ids, events

    def outcome(self):
        outputs = {name: digests(os.path.join(self.daemon.output, name)) for name in ("pruned", "second")}
        state = [os.path.dirname(name) if name.startswith("scores/") else name for name in files(self.daemon.state)]
        return outputs, sorted(set(state)), files(self.daemon.output)

    def check_events(self, events):
        self.assertEqual([e["id"] for e in events], list(range(1, len(events) + 1)), "events are lost or doubled")
        types = [e["type"] for e in events]
        self.assertEqual((types.count("job.succeeded"), types[-1]), (1, "job.succeeded"), types)
        self.assertEqual([e["data"]["block"] for e in events if e["type"] == "block.finished"], list(range(BLOCKS)))

    def start_again(self, name):
        """On what is left; every few starts the power goes again, and the next one starts on what is left of that."""
        self.starts = getattr(self, "starts", 0) + 1
        if not TWICE or self.starts % TWICE:
            self.daemon.start()
            return
        log, disk = self.path("again"), powercut_disk.Disk(self.roots)
        if os.path.exists(log):
            os.unlink(log)
        self.daemon.start(environment=recorded(self, self.roots, log))
        time.sleep(self.rng.uniform(0, 0.3))
        self.daemon.kill()
        records = powercut_disk.read_records(log)
        for record in records[:self.rng.randrange(len(records) + 1)]:
            disk.follow(record)
        kind = self.rng.choice(("none", "half", "all", "random", "random"))
        for root, tree in disk.cut(kind, self.rng.randrange(1 << 30)).items():
            powercut_disk.write_tree(root, tree)
        self.twice += 1
        self.daemon.start()

    def attempt(self, trees, told, name, ids, events, wanted):
        for root, tree in trees.items():
            powercut_disk.write_tree(root, powercut_disk.without_index(tree))
        try:
            self.start_again(name)
            for job in ids[:told.accepted]:
                self.assertEqual(self.daemon.get(f"/v1/jobs/{job}").status, 200, "an accepted job is lost")
            kept = self.daemon.events(ids[0]) if told.event else []
            self.assertEqual(kept[:told.event], events[ids[0]][:told.event], "an event that was told is lost or another")
            now = self.submit_both()
            self.assertEqual(now[:told.accepted], ids[:told.accepted], "an accepted job has another id")
            for job in now:
                end = self.daemon.finish(job)
                self.assertEqual(end["state"], "succeeded", end["error"])
                self.check_events(self.daemon.events(job))
            self.assertEqual(len(self.daemon.get("/v1/jobs").json["jobs"]), 2, "a job is doubled")
            self.assertEqual(self.daemon.stop(), 0)
            self.assertEqual(self.outcome(), wanted)
        except AssertionError as failure:
            raise AssertionError(f"{failure}\n{self.daemon.log()[-1500:]}") from failure
        finally:
            if self.daemon.process:
                self.daemon.kill()
            os.truncate(os.path.join(self.daemon.directory, "log"), 0)

    def test_served(self):
        disk, records, ids, events = self.record("records")
        wanted = self.outcome()
        self.check_followed(self.again(disk), records, self.roots)
        told, first = Told(), self.again(disk)
        for record in records:
            if not told.accepted:
                first.follow(record)
            told.follow(record)
        self.assertEqual((told.accepted, told.event), (2, len(events[ids[0]])))
        # Once it serves, a cut is known for what it is: the next start looks through the database first.
        self.assertTrue(first.cut("none")[self.roots[0]]["lock"], "an end that is not in order is not known for one")
        points, syncs = self.cut_all(disk, records, lambda *cut: self.attempt(*cut, ids, events, wanted))
        self.say(f", {self.twice:,} of them followed by a second one; no accepted job and no told event lost, outputs identical", points, syncs)

    @staticmethod
    def again(disk):
        """A copy: both were empty when it was made."""
        copy = powercut_disk.Disk([])
        for root, node in disk.roots.items():
            inode = next(i for i, n in disk.nodes.items() if n is node)
            copy.roots[root] = copy.nodes[inode] = powercut_disk.Directory()
        return copy


class Run(Cuts):
    """besad run: the job's events are a journal."""

    def setUp(self):
        super().setUp()
        self.base = tempfile.mkdtemp(prefix="besad-powercut-")
        self.addCleanup(shutil.rmtree, self.base)
        self.models, self.data, self.output, self.job = (os.path.join(self.base, n) for n in ("models", "data", "output", "job.json"))
        for directory in (self.models, self.data, self.output):
            os.mkdir(directory)
        make_inputs(self.models, self.data)

    def run_job(self, environment=None):
        return subprocess.run([BESAD, "run", self.job, "--model-root", self.models, "--data-root", self.data, "--output-root", self.output,
                               "--threads", THREADS, "--checkpoint-every", "0"], env={**os.environ, **(environment or {})},
                              stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, timeout=PATIENCE)

    def cut_run(self, spec):
        with open(self.job, "w") as file:
            json.dump(spec, file)
        root, log = os.path.realpath(self.output), os.path.join(self.base, "records")
        disk = powercut_disk.Disk([root])
        done = self.run_job(recorded(self, [root], log))
        self.assertEqual(done.returncode, 0, done.stderr)
        wanted, records = digests(os.path.join(self.output, "pruned")), powercut_disk.read_records(log)
        self.check_followed(Served.again(disk), records, [root])

        def attempt(trees, _, name):
            powercut_disk.write_tree(root, trees[root])
            again = self.run_job()
            self.assertEqual(again.returncode, 0, again.stderr)
            self.assertEqual(digests(os.path.join(self.output, "pruned")), wanted)
            self.assertEqual([n for n in os.listdir(self.output) if not n.startswith(".besad-replaced-")], ["pruned"])
        points, syncs = self.cut_all(disk, records, attempt)
        self.say("; outputs identical", points, syncs)

    def test_run(self):
        self.cut_run(dict(JOB, overwrite=True))

    def test_tuned(self):
        self.cut_run(dict(TUNED, overwrite=True))


class Disk(unittest.TestCase):
    """What is left behind a cut, of the disk alone."""

    def follow(self, *records):
        """(kind, a, b, c, first, second, bytes) of a disk with one directory, inode 1."""
        disk = powercut_disk.Disk([])
        disk.roots["root"] = disk.nodes[1] = powercut_disk.Directory()
        for kind, a, b, c, first, second, data in records:
            disk.follow(powercut_disk.Record((ord(kind), 0, a, b, c), first, second, data))
        return disk

    def left(self, disk):
        """Whatever may be."""
        return [disk.cut(kind, seed)["root"] for kind in ("none", "half", "all", "random") for seed in range(60)]

    def test_a_name_without_its_bytes(self):
        made = ("C", 1, 2, 0, "a.tmp", "", b""), ("W", 2, 0, 0, "", "", b"x" * 1000)
        renamed = ("R", 1, 1, 0, "a.tmp", "a", b"")
        left = self.left(self.follow(*made, renamed))
        self.assertTrue({"a": b""} in left and {} in left and {"a": b"x" * 1000} in left)
        self.assertTrue(any(0 < tree.get("a", b"").count(b"x") < 1000 for tree in left))
        synced = self.left(self.follow(*made, ("F", 2, 0, 0, "", "", b""), renamed, ("F", 1, 0, 0, "", "", b"")))
        self.assertEqual(synced, [{"a": b"x" * 1000}] * len(synced))

    def test_a_rename_between_directories(self):
        made = (("M", 1, 3, 0, "d", "", b""), ("C", 1, 2, 0, "a", "", b""), ("F", 1, 0, 0, "", "", b""), ("R", 1, 3, 0, "a", "b", b""))
        for sync in ((), (("F", 3, 0, 0, "", "", b""),), (("F", 1, 0, 0, "", "", b""),)):
            left = self.left(self.follow(*made, *sync))
            self.assertTrue(all("a" in tree or "b" in tree["d"] for tree in left))
            self.assertEqual({"d": {"b": b""}, "a": b""} in left, bool(sync) and sync[0][1] == 3)

    def test_what_was_unlinked_comes_back(self):
        left = self.left(self.follow(("C", 1, 2, 0, "a", "", b""), ("F", 1, 0, 0, "", "", b""), ("U", 1, 0, 0, "a", "", b"")))
        self.assertTrue({} in left and {"a": b""} in left)


if __name__ == "__main__":
    unittest.main()
