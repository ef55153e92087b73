#!/usr/bin/env python3
"""The short form of four programs of tests/faults, which run as long as one likes: concurrent clients and kills, load, hostile clients, a soak.
No time is asserted. LAB_SECONDS (5) and LAB_SCALE (1) make it longer and larger."""
import os
import sys
import unittest

from support import ROOT

sys.path.insert(0, os.path.join(ROOT, "tests", "faults"))
import clients  # noqa: E402
import http_attacks  # noqa: E402
import load  # noqa: E402
import soak  # noqa: E402
from clients_model import Call, check_events, explain  # noqa: E402

SECONDS = int(os.environ.get("LAB_SECONDS", "5"))
SCALE = float(os.environ.get("LAB_SCALE", "1"))
SEED = int(os.environ.get("SEED", "1"))


def scaled(count):
    return max(1, int(count * SCALE))


def submitted(begin, job, state="queued", body="one"):
    return Call("submit", body, begin, begin + 1, 201, state, job)


def answered(kind, begin, job, status, state=None, seconds=1):
    return Call(kind, job, begin, begin + seconds, status, state)


class Model(unittest.TestCase):
    """The judge must be able to condemn."""

    cancelled = [submitted(0, "a"), answered("cancel", 2, "a", 200, "cancelled")]

    def test_histories_that_can_be(self):
        for history in (
                [*self.cancelled, answered("retry", 4, "a", None), answered("show", 6, "a", 200, "running"),
                 answered("show", 8, "a", 200, "succeeded"), answered("delete", 10, "a", 204), answered("show", 12, "a", 404), submitted(14, "b")],
                [*self.cancelled, answered("retry", 4, "a", None), answered("show", 6, "a", 200, "cancelled")],
                [Call("submit", "one", 0, 1, None), submitted(2, "b")],
                [Call("submit", "one", 0, 1, None), Call("submit", "another", 2, 3, 422)],
                [submitted(0, "a"), answered("cancel", 2, "a", 200, "cancelled", 5), answered("show", 3, "a", 200, "cancelled"),
                 answered("delete", 4, "a", 204), answered("show", 6, "a", 404)],
                [submitted(0, "a"), answered("delete", 2, "a", 409), answered("show", 2, "a", 200, "running"),
                 answered("cancel", 4, "a", 200, "cancelling"), answered("show", 6, "a", 200, "cancelled")]):
            self.assertIsNone(explain(history), history)

    def test_histories_that_cannot(self):
        for what, history in {
                "a key with two jobs": [submitted(0, "a"), submitted(2, "b")],
                "a job that is lost": [submitted(0, "a"), answered("show", 2, "a", 404)],
                "a submission that is lost": [submitted(0, "a"), Call("absent", None, 2, 3, 200)],
                "a cancellation that does not hold": [*self.cancelled, answered("show", 4, "a", 200, "queued")],
                "one that a retry does not excuse": [*self.cancelled, answered("retry", 4, "a", None), answered("show", 6, "a", 200, "queued"),
                                                     answered("cancel", 8, "a", 200, "cancelled"), answered("show", 10, "a", 200, "running")],
                "a deletion that does not hold": [*self.cancelled, answered("delete", 4, "a", 204), answered("show", 6, "a", 200, "cancelled")],
                "an end that is none": [submitted(0, "a"), answered("show", 2, "a", 200, "succeeded"), answered("show", 4, "a", 200, "running")],
                "a refusal without a cause": [*self.cancelled, answered("delete", 4, "a", 409)],
                "another body": [submitted(0, "a"), submitted(2, "a", body="another")],
                "an effect behind the kill": [Call("submit", "one", 0, 1, None), Call("absent", None, 2, 3, 200), submitted(4, "a", "running")]}.items():
            self.assertIn("no order of these calls", explain(history) or "", what)

    def test_events(self):
        def of(*types):
            return {n: (t, None, None) for n, t in enumerate(types, 1)}
        self.assertIsNone(check_events(of("job.queued", "job.started", "block.started", "job.queued", "job.cancelled", "job.queued")))
        self.assertIn("gap", check_events({1: ("job.queued",), 3: ("job.started",)}))
        self.assertIn("succeeded behind queued", check_events(of("job.queued", "job.succeeded")))
        self.assertIn("does not run", check_events(of("job.queued", "block.started")))
        self.assertIn("queued behind succeeded", check_events(of("job.queued", "job.started", "job.succeeded", "job.queued")))


class Short(unittest.TestCase):
    def told(self, counts):
        print(counts)
        return counts

    def test_clients(self):
        counts = self.told(clients.run(seconds=SECONDS, kills=scaled(3), seed=SEED))
        self.assertEqual((counts["kills"], counts["histories undecided"]), (scaled(3), 0))
        self.assertGreater(counts["calls"], 5)
        self.assertGreater(counts["events seen"], 5)

    def test_load(self):
        counts = self.told(load.run(posts=scaled(200), connections=16, kills=1, queue=60, seed=SEED))
        self.assertEqual(counts["jobs listed"], scaled(200))

    def test_hostile_clients(self):
        """The counts of pages and bodies are such that without a bound they would take more memory than there may be (MOST_MIB)."""
        few = {name: scaled(count) for name, count in {"silent": 100, "slow": 40, "unread": 60, "pages": 90, "bodies": 330}.items()}
        counts = self.told(http_attacks.run(hold=1, leave=True, **few, crowd=0))
        for name, count in few.items():
            self.assertEqual(counts[f"{name}: healthz failed"], 0)
            # What was answered 503 may be closed before anybody has looked.
            self.assertGreaterEqual(counts[f"{name}: most descriptors more"] + counts[f"{name}: answered 503"], count)

    def test_soak(self):
        counts = self.told(soak.run(seconds=SECONDS, every=1))
        self.assertGreater(counts["jobs"], soak.SETTLED)


if __name__ == "__main__":
    unittest.main()
