#!/usr/bin/env python3
"""What besad forgets by rules: when jobs ended, and how much it may keep; and what a dry run of them says."""
import os
import re
import sqlite3
import unittest

from support import Daemon, small_job, small_model, wait_for


class Rules(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "1"))
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, 40)
        small_model(self.daemon, 200, "long")

    def files(self, job):
        return [path for path in (os.path.join(self.daemon.state, "jobs", job), os.path.join(self.daemon.output, f".besad-{job}"))
                if os.path.exists(path)]

    def act(self, job, action):
        answer = self.daemon.request("POST", f"/v1/jobs/{job}/{action}")
        self.assertEqual(answer.status, 200, answer.body)

    def begun(self, output):
        """A job that has finished a block, and is paused."""
        job = self.daemon.submit(small_job(output=output, progress={"perplexity_every": 0}))
        wait_for("a finished block", lambda: any(e["type"] == "block.finished" for e in self.daemon.events(job)))
        self.act(job, "pause")
        wait_for("its pause", lambda: self.daemon.job(job)["state"] == "paused")
        return job

    def jobs(self):
        return {job["id"] for job in self.daemon.get("/v1/jobs").json["jobs"]}

    def metric(self, name):
        found = re.search(rf"(?m)^{re.escape(name)} (.*)$", self.daemon.get("/metrics").body.decode())
        return float(found[1]) if found else None

    def test_a_dry_run_removes_nothing(self):
        daemon = self.daemon.start("--keep-failed", "0")
        self.assertEqual(daemon.get("/v1/gc").json["removals"], [])
        job = self.begun("begun")
        long = daemon.submit(small_job(model="long", besa={"epochs": 20}))  # while it runs the rules are not heeded
        wait_for("the other job to run", lambda: daemon.job(long)["state"] == "running")
        self.assertEqual(daemon.get("/v1/gc").json["removals"], [])
        self.act(job, "cancel")
        held = self.files(job)
        self.assertEqual(len(held), 2)
        plan = daemon.get("/v1/gc")
        self.assertEqual(plan.status, 200)
        [removal] = plan.json["removals"]
        self.assertEqual((removal["job"], removal["state"], removal["reason"]), (job, "cancelled", "keep_failed"))
        self.assertEqual(removal["finished_at"], daemon.job(job)["finished_at"])
        self.assertGreater(removal["bytes"], 10000)
        self.assertEqual(plan.json["bytes"], removal["bytes"])
        self.assertGreater(plan.json["state"]["unfinished_output_bytes"], 10000)
        self.assertIsNone(plan.json["state"]["limit_bytes"])
        self.assertEqual(daemon.get("/v1/gc").json["removals"], [removal])
        self.assertEqual((self.files(job), self.jobs()), (held, {job, long}))

        done = daemon.request("POST", "/v1/gc")
        self.assertEqual((done.status, done.json["removals"]), (200, [removal]))
        self.assertEqual((self.files(job), self.jobs()), ([], {long}))
        self.assertEqual(daemon.request("POST", "/v1/gc").json["removals"], [])
        self.assertEqual(self.metric("besad_ended_jobs_held_bytes"), 0)
        self.assertIn("job=" + job + " is forgotten", daemon.log())

    def test_outputs_that_were_replaced(self):
        def replace(*options):
            daemon.start(*options)
            for sparsity in (0.5, 0.6):
                job = daemon.submit(small_job(output="out", method="magnitude", sparsity=sparsity, overwrite=True))
                self.assertEqual(daemon.finish(job)["state"], "succeeded")
            return daemon.job(job)["result"]["replaced"]
        daemon = self.daemon
        name = replace()
        self.assertEqual(daemon.get("/v1/gc").json["replaced"], [])  # kept for a day
        self.assertEqual(daemon.request("POST", "/v1/gc").json["replaced"], [])
        daemon.stop()
        older = name.replace(name.split("-")[2], "1000000000", 1)  # it was replaced long ago; the rule is not heeded while a job runs
        daemon.start()
        running = daemon.submit(small_job(model="long", output="long", besa={"epochs": 20}))
        wait_for("it to run", lambda: daemon.job(running)["state"] == "running")
        os.rename(os.path.join(daemon.output, name), os.path.join(daemon.output, older))
        plan = daemon.get("/v1/gc").json
        [replaced] = plan["replaced"]
        self.assertEqual((replaced["output"], replaced["replaced_at"]), (older, "2001-09-09T01:46:40.000Z"))
        self.assertGreater(replaced["bytes"], 10000)
        self.assertEqual((plan["removals"], plan["bytes"]), ([], replaced["bytes"]))
        self.assertIn(older, os.listdir(daemon.output))
        self.assertEqual(daemon.request("POST", "/v1/gc").json["replaced"], [replaced])
        self.assertNotIn(older, os.listdir(daemon.output))
        self.assertEqual(daemon.get("/v1/gc").json["replaced"], [])

    def test_what_ended_first_goes_where_there_is_too_much(self):
        daemon = self.daemon.start()
        first = daemon.submit(small_job(output="first", method="magnitude"))
        self.assertEqual(daemon.finish(first)["state"], "succeeded")
        second, paused = self.begun("second"), self.begun("paused")
        self.act(second, "cancel")
        daemon.stop()
        with sqlite3.connect(os.path.join(daemon.state, "besad.db")) as database:
            [last] = database.execute("SELECT last_event FROM jobs WHERE id = ?", (first,)).fetchone()
            for n in range(20):
                database.execute("INSERT INTO events VALUES (?, ?, 'warning', 1, json_object('message', ?))",
                                 (first, last + 1 + n, "x" * 20000))
            database.execute("UPDATE jobs SET last_event = last_event + 20 WHERE id = ?", (first,))
        database.close()
        daemon.start()
        state = daemon.get("/v1/gc").json["state"]
        total = state["database_bytes"] + state["checkpoint_bytes"] + state["unfinished_output_bytes"]
        size = os.path.getsize(os.path.join(daemon.state, "besad.db"))
        daemon.stop()

        daemon.start("--max-state-bytes", str(int(total) - 100000))
        wait_for("the first to go", lambda: self.jobs() == {second, paused})
        self.assertEqual(wait_for("the bound", lambda: self.metric("besad_state_limit_bytes")), int(total) - 100000)
        parts = [self.metric(f'besad_state_bytes{{part="{part}"}}') for part in ("database", "checkpoints", "unfinished_outputs")]
        self.assertLessEqual(sum(parts), int(total) - 100000)
        database = os.path.join(daemon.state, "besad.db")
        wait_for("its pages to go", lambda: daemon.request("POST", "/v1/gc").status == 200 and os.path.getsize(database) < size - 300000)
        self.assertEqual(len(self.files(second)), 2)
        daemon.stop()
        daemon.start("--max-state-bytes", "0")
        wait_for("the second to go", lambda: self.jobs() == {paused})
        wait_for("its files to go", lambda: not self.files(second))
        daemon.stop()
        daemon.start()
        self.act(paused, "resume")
        self.assertEqual(daemon.finish(paused)["state"], "succeeded")
        self.assertEqual(sorted(os.listdir(daemon.output)), ["first", "paused"])


if __name__ == "__main__":
    unittest.main()
