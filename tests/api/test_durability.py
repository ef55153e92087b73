#!/usr/bin/env python3
"""A job survives kill -9 at any moment: the same bytes, no event lost or doubled, no block twice."""
import json
import os
import random
import sqlite3
import time
import unittest

from support import FINISHED, Daemon, digests, small_job, small_model, wait_for

CRASHES = int(os.environ.get("CRASHES", "30"))
BLOCKS = int(os.environ.get("BLOCKS", "40"))


def untimed(path):
    """besad.json without what may differ between two runs."""
    with open(path) as file:
        report = json.load(file)
    for key in ("job", "attempt"):
        del report[key]
    for key in ("seconds", "pruning_seconds", "output"):
        del report["result"][key]
    del report["spec"]["output"], report["spec"]["name"]
    for block in report["blocks"]:
        del block["seconds"], block["phases"]
    return report


class Durability(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"), "--max-attempts", "0")
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, BLOCKS)

    def spec(self, output):
        return small_job(output=output, name=output, progress={"perplexity_every": 5}, evaluation={"perplexity": [
            {"name": "tokens", "path": "tokens.safetensors", "sequence_length": 64}]})

    def check_history(self, job, attempts):
        events = self.daemon.events(job)
        self.assertEqual([e["id"] for e in events], list(range(1, len(events) + 1)))
        finished = [e["data"]["block"] for e in events if e["type"] == "block.finished"]
        self.assertEqual(finished, list(range(BLOCKS)))
        types = [e["type"] for e in events]
        self.assertEqual((types.count("job.queued"), types.count("job.succeeded")), (attempts, 1))
        evaluations = [e["data"]["model"] for e in events if e["type"] == "eval.finished"]
        self.assertEqual(evaluations.count("dense"), 1)
        report = self.daemon.get(f"/v1/jobs/{job}/report").json
        self.assertEqual([b["block"] for b in report["blocks"]], list(range(BLOCKS)))
        self.assertEqual(self.daemon.job(job)["attempt"], attempts)
        database = [os.path.join(self.daemon.state, n) for n in os.listdir(self.daemon.state) if n.endswith(".db")]
        self.assertEqual(len(database), 1, os.listdir(self.daemon.state))
        connection = sqlite3.connect(f"file:{database[0]}?mode=ro", uri=True)
        self.assertEqual(connection.execute("PRAGMA integrity_check").fetchall(), [("ok",)])
        connection.close()

    def test_killed_at_random_moments(self):
        daemon, rng = self.daemon.start(), random.Random(int(os.environ.get("SEED", "1")))
        started = time.monotonic()
        plain = daemon.submit(self.spec("plain"))
        self.assertEqual(daemon.finish(plain)["state"], "succeeded")
        whole = time.monotonic() - started

        jobs, kills = [], 0
        while kills < CRASHES:
            jobs.append(daemon.submit(self.spec(f"crashed-{len(jobs)}")))
            kills += self.crash(jobs[-1], CRASHES - kills, 1.8 * whole / BLOCKS, rng)
            self.assertLess(len(jobs), 20)
        print(f"killed {kills} times in {len(jobs)} jobs, undisturbed {whole:.2f} s")
        for number, job in enumerate(jobs):
            done = daemon.finish(job)
            self.assertEqual(done["state"], "succeeded")
            output = os.path.join(daemon.output, f"crashed-{number}")
            self.assertEqual(digests(output), digests(os.path.join(daemon.output, "plain")))
            self.assertEqual(untimed(os.path.join(output, "besad.json")), untimed(os.path.join(daemon.output, "plain", "besad.json")))
            self.check_history(job, done["attempt"])
        self.assertEqual(sorted(os.listdir(daemon.output)), [*(f"crashed-{n}" for n in range(len(jobs))), "plain"])

    def crash(self, job, most, longest, rng):
        """Kills and restarts the daemon up to `most` times while the job runs; how often that was. A life is long enough to get on by about
        one block, short enough to end anywhere in one; on a machine that was slower before, a job may end before it was killed so often."""
        kills = 0
        while kills < most:
            time.sleep(rng.uniform(0, longest))
            if self.daemon.job(job)["state"] in FINISHED:
                break
            self.daemon.kill()
            kills += 1
            self.daemon.start()
        return kills

    def test_a_packed_output_is_the_same_behind_a_kill(self):
        self.compare_packed("nearest")

    def test_feedback_is_the_same_behind_a_kill(self):
        self.compare_packed("feedback")

    def compare_packed(self, rounding):
        daemon = self.daemon.start()
        jobs = {name: daemon.submit(small_job(method="wanda", output=name, quantization={
                    "bits": 4, "symmetric": False, "rounding": rounding}))
                for name in ("plain", "killed")}
        self.assertEqual(daemon.finish(jobs["plain"])["state"], "succeeded")
        wait_for("two finished blocks", lambda: len(self.finished(jobs["killed"])) >= 2)
        daemon.kill()
        daemon.start()
        done = daemon.finish(jobs["killed"])
        self.assertEqual((done["state"], done["result"]["format"]), ("succeeded", "packed"))
        self.assertEqual(digests(os.path.join(daemon.output, "killed")), digests(os.path.join(daemon.output, "plain")))

    def test_two_blocks_are_the_same_behind_kills(self):
        """What was learned of the second block is not kept, so that a job goes on behind any block."""
        options, calibration = ("--checkpoint-every", "0"), {"path": "tokens.safetensors", "samples": 6, "sequence_length": 64}
        besa = {"optimizer": "adamw", "learning_rate": 0.1}  # so that few steps learn something
        daemon = self.daemon.start(*options)
        by_block = daemon.submit(small_job(output="by-block", calibration=calibration, besa=besa))
        jobs = {name: daemon.submit(small_job(output=name, calibration=calibration, besa={**besa, "reconstruct": "two_blocks"}))
                for name in ("plain", "killed")}
        self.assertEqual(daemon.finish(jobs["plain"])["state"], "succeeded")
        for blocks in (1, 2):
            wait_for("finished blocks", lambda: len(self.finished(jobs["killed"])) >= blocks)
            daemon.kill()
            daemon.start(*options)
        self.assertEqual(daemon.finish(jobs["killed"])["state"], "succeeded")
        self.assertGreater(self.started(jobs["killed"], 2)[0], 0)
        self.assertEqual(digests(os.path.join(daemon.output, "killed")), digests(os.path.join(daemon.output, "plain")))
        self.assertEqual(daemon.finish(by_block)["state"], "succeeded")
        self.assertNotEqual(digests(os.path.join(daemon.output, "plain")), digests(os.path.join(daemon.output, "by-block")))

    def test_stopped_politely_goes_on(self):
        daemon = self.daemon.start()
        job = daemon.submit(self.spec("stopped"))
        wait_for("a finished block", lambda: any(e["type"] == "block.finished" for e in daemon.events(job)))
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        done = daemon.finish(job)
        self.assertEqual(done["state"], "succeeded")
        self.check_history(job, done["attempt"])

    def submit_unsaved(self):
        """A job that saves nothing before its last block, and has told of two."""
        self.daemon.start("--checkpoint-every", "1h")
        job = self.daemon.submit(small_job(output="unsaved", progress={"perplexity_every": 0}))
        wait_for("two finished blocks", lambda: len(self.finished(job)) >= 2)
        return job

    def finished(self, job):
        return [e["data"]["block"] for e in self.daemon.events(job) if e["type"] == "block.finished"]

    def started(self, job, attempt):
        return [e["data"]["block"] for e in self.daemon.events(job) if e["type"] == "block.started" and e["data"]["attempt"] == attempt]

    def test_a_stop_saves_what_is_finished(self):
        job = self.submit_unsaved()
        self.assertEqual(self.daemon.stop(), 0)
        with open(os.path.join(self.daemon.state, "jobs", job, "savepoint.json")) as file:
            saved = [b["block"] for b in json.load(file)["blocks"]]
        self.daemon.start("--checkpoint-every", "1h")
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.assertEqual(self.finished(job), list(range(BLOCKS)))
        self.assertGreaterEqual(len(saved), 2)
        self.assertEqual(self.started(job, 2), list(range(len(saved), BLOCKS)))

    def test_blocks_that_were_not_saved_are_done_again(self):
        job = self.submit_unsaved()
        self.daemon.kill()
        self.daemon.start("--checkpoint-every", "1h")
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.assertEqual(self.finished(job), list(range(BLOCKS)))
        self.assertEqual(self.started(job, 2), list(range(BLOCKS)))

    def test_a_block_that_comes_out_otherwise_fails_the_job(self):
        job = self.submit_unsaved()
        self.daemon.kill()
        database = sqlite3.connect(os.path.join(self.daemon.state, "besad.db"))
        with database:
            database.execute("UPDATE events SET data = json_set(data, '$.reconstruction', 0.0625)"
                             " WHERE job_id = ? AND type = 'block.finished' AND json_extract(data, '$.block') = 1", (job,))
        database.close()
        self.daemon.start("--checkpoint-every", "0")
        for _ in range(2):  # what differs is not saved, so that a retry does not go on behind it
            done = self.daemon.finish(job)
            self.assertEqual(done["state"], "failed")
            self.assertIn("block 1 was finished with reconstruction 0.0625, and comes to ", done["error"]["message"])
            self.assertEqual(self.daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)

    def test_cancel_and_retry_resumes(self):
        daemon = self.daemon.start()
        job = daemon.submit(self.spec("cancelled"))
        wait_for("a finished block", lambda: any(e["type"] == "block.finished" for e in daemon.events(job)))
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/cancel").status, 200)
        self.assertEqual(daemon.finish(job)["state"], "cancelled")
        self.assertFalse(os.path.exists(os.path.join(daemon.output, "cancelled")))
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
        done = daemon.finish(job)
        self.assertEqual(done["state"], "succeeded")
        events = daemon.events(job)
        self.assertEqual([e["data"]["block"] for e in events if e["type"] == "block.finished"], list(range(BLOCKS)))
        self.assertEqual([e["id"] for e in events], list(range(1, len(events) + 1)))


if __name__ == "__main__":
    unittest.main()
