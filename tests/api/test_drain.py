#!/usr/bin/env python3
"""A besad that is drained: it takes jobs, and begins none."""
import os
import re
import unittest

from support import Daemon, small_job, small_model, wait_for


class Drain(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "1"))
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon)
        small_model(self.daemon, 60, "long")
        self.daemon.start()

    def act(self, action, drained):
        answer = self.daemon.request("POST", f"/v1/{action}")
        self.assertEqual((answer.status, answer.json["drained"]), (200, drained), answer.body)
        return answer.json["since"]

    def gauge(self):
        return re.search(r"(?m)^besad_drained (.*)$", self.daemon.get("/metrics").body.decode())[1]

    def begun(self):
        job = self.daemon.submit(small_job(model="long", output="long", method="magnitude", progress={"perplexity_every": 0}))
        wait_for("a finished block", lambda: any(e["type"] == "block.finished" for e in self.daemon.events(job)))
        return job

    def test_jobs_wait(self):
        daemon = self.daemon
        self.assertEqual(daemon.get("/v1/drain").json, {"drained": False, "since": None})
        self.assertIsNone(daemon.get("/v1/info").json["drained_since"])
        self.assertEqual(self.gauge(), "0")
        running = self.begun()
        since = self.act("drain", True)
        self.assertEqual(self.act("drain", True), since)
        waiting = daemon.submit(small_job(output="waiting", method="magnitude"))
        self.assertEqual(daemon.finish(running)["state"], "succeeded")  # which was running already
        self.assertEqual(daemon.get("/readyz").status, 200)
        self.assertEqual((daemon.get("/v1/info").json["drained_since"], self.gauge()), (since, "1"))
        self.assertEqual(daemon.get("/v1/drain").json, {"drained": True, "since": since})
        self.assertEqual(daemon.job(waiting)["state"], "queued")

        daemon.stop()  # and it outlasts the process
        daemon.start()
        self.assertIn("the queue is drained", daemon.log())
        self.assertEqual((daemon.get("/v1/info").json["drained_since"], self.gauge()), (since, "1"))
        later = daemon.submit(small_job(output="later", method="magnitude", priority=5))
        self.assertEqual([daemon.job(j)["state"] for j in (waiting, later)], ["queued", "queued"])
        self.assertEqual([daemon.job(j)["attempt"] for j in (waiting, later)], [0, 0])
        self.assertIsNone(self.act("undrain", False))
        self.assertEqual([daemon.finish(j)["state"] for j in (waiting, later)], ["succeeded", "succeeded"])
        self.assertIsNone(self.act("undrain", False))
        noted = [e["action"] for e in daemon.get("/v1/audit").json["entries"] if e["outcome"] == "done" and e["target"] is None]
        self.assertEqual(noted, ["undrain", "undrain", "drain", "drain"])

    def test_at_once(self):
        daemon = self.daemon
        for wrong in ("/v1/drain?now=yes", "/v1/drain?now", "/v1/undrain?now=true", "/v1/drain?now=true&now=true"):
            self.assertEqual(daemon.request("POST", wrong).status, 400, wrong)
        running = self.begun()
        self.act("drain?now=true", True)
        wait_for("it to stop", lambda: daemon.job(running)["state"] == "queued")
        blocks = [e["data"]["block"] for e in daemon.events(running) if e["type"] == "block.finished"]
        self.assertLess(len(blocks), 60)
        self.act("undrain", False)
        self.assertEqual(daemon.finish(running)["state"], "succeeded")
        blocks = [e["data"]["block"] for e in daemon.events(running) if e["type"] == "block.finished"]
        self.assertEqual(blocks, list(range(60)))
        self.assertEqual([e["data"] for e in daemon.events(running) if e["type"] == "job.queued"],
                         [{"reason": "submitted"}, {"reason": "interrupted"}])
        self.assertEqual(daemon.job(running)["attempt"], 2)


if __name__ == "__main__":
    unittest.main()
