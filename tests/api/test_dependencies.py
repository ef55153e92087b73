#!/usr/bin/env python3
"""Jobs that depend on others: they run once those have succeeded, others go past them, and they fail with them, also where besad is killed in between."""
import os
import sqlite3
import unittest

from support import Daemon, small_job, small_model, wait_for

UNKNOWN = "01m85j1whand51sh74m987j2rq"
LONG = {"besa": {"epochs": max(2, 20 // int(os.environ.get("SLOWNESS", "1")))}}  # runs on while something is asked of it, also where all is slow


class Dependencies(unittest.TestCase):
    options = ()

    def setUp(self):
        self.daemon = Daemon("--threads", "1", *self.options)
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, 4)
        self.daemon.start()

    def post(self, spec, **headers):
        return self.daemon.post("/v1/jobs", spec, **headers)

    def after(self, *jobs, **spec):
        return self.daemon.submit({**small_job(**spec), "depends_on": list(jobs)})

    def act(self, job, action, status=200):
        response = self.daemon.request("POST", f"/v1/jobs/{job}/{action}")
        self.assertEqual(response.status, status, response.body)
        return response.json

    def running(self, **spec):
        job = self.daemon.submit(small_job(**LONG, **spec))
        wait_for("a block", lambda: any(e["type"] == "block.finished" for e in self.daemon.events(job)))
        return job

    def types(self, job):
        return [e["type"] for e in self.daemon.events(job)]

    def lost(self, job, needed, how):
        shown = self.daemon.job(job)
        self.assertEqual((shown["state"], shown["error"], shown["waits_for"], shown["attempt"]),
                         ("failed", {"code": "dependency", "message": f"it depends on job {needed}, which {how}"}, [], 0))
        self.assertEqual(self.daemon.events(job)[-1]["data"], shown["error"])

    def test_runs_in_its_turn(self):
        first = self.running(output="first")
        second = self.after(first, output="second", priority=9)
        third = self.after(first, second, output="third", priority=9)
        shown = self.daemon.job(third)
        self.assertEqual((shown["state"], shown["depends_on"], shown["waits_for"]), ("queued", [first, second], [first, second]))
        self.assertNotIn("depends_on", shown["spec"])
        listed = {j["id"]: j["waits_for"] for j in self.daemon.get("/v1/jobs").json["jobs"]}
        self.assertEqual(listed, {first: [], second: [first], third: [first, second]})
        self.act(first, "pause")  # so that it is not the one that runs
        past = self.daemon.submit(small_job(output="past", method="magnitude", priority=-9))
        self.assertEqual(self.daemon.finish(past)["state"], "succeeded")
        self.assertEqual(self.daemon.job(second)["state"], "queued")
        self.act(first, "resume")
        for job in (first, second, third):
            self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        ends = [(shown := self.daemon.job(job))["started_at"] + shown["finished_at"] for job in (first, second, third)]
        self.assertEqual(ends, sorted(ends))
        self.assertEqual((shown["depends_on"], shown["waits_for"]), ([first, second], []))

    def test_a_model_that_a_job_makes_anew(self):
        """The output of one is the model of the next, where that is there at submission, and is replaced meanwhile."""
        self.daemon.stop()
        self.daemon.start("--model-root", self.daemon.output)
        self.assertEqual(self.daemon.finish(self.daemon.submit(small_job(output="made", method="magnitude", sparsity=0.25)))["state"], "succeeded")
        first = self.daemon.submit(small_job(output="made", method="magnitude", sparsity=0.5, overwrite=True))
        second = self.after(first, model="made", output="again", method="magnitude", sparsity=0.3)
        done = self.daemon.finish(second)
        self.assertEqual(done["state"], "succeeded", done)
        self.assertAlmostEqual(done["result"]["sparsity"], 0.5, places=3)  # of the new one

    def test_killed(self):
        """As besad was killed while the first ran, which is one time too many, all that wait for it have failed once besad is back."""
        self.daemon.stop()
        self.daemon.start("--max-attempts", "1")
        first = self.daemon.submit(small_job(output="first", besa={"epochs": 100}))
        second = self.after(first, output="second")
        third = self.after(second, output="third")
        other = self.daemon.submit(small_job(output="other", method="magnitude"))
        wait_for("a step", lambda: "block.step" in self.types(first))
        self.daemon.kill()
        self.daemon.start("--max-attempts", "1")
        self.assertEqual(self.daemon.finish(first)["error"]["code"], "crashed")
        self.lost(second, first, "has failed")
        self.lost(third, second, "has failed")
        self.assertEqual(self.daemon.finish(other)["state"], "succeeded")

    def test_cancelled_while_besad_is_killed(self):
        first = self.running(output="first")
        second = self.after(first, output="second")
        self.daemon.kill()
        database = sqlite3.connect(os.path.join(self.daemon.state, "besad.db"))
        with database:  # as if besad had died before the worker heard of it
            database.execute("UPDATE jobs SET state = 'cancelling' WHERE id = ?", (first,))
        database.close()
        self.daemon.start()
        self.assertEqual(self.daemon.finish(first)["state"], "cancelled")
        self.lost(second, first, "was cancelled")

    def test_refused(self):
        failed = self.daemon.submit(small_job(output="failed", **LONG))
        self.act(failed, "cancel")
        self.assertEqual(self.daemon.finish(failed)["state"], "cancelled")
        there = self.running(output="there")
        for given, pointer, detail in (
                (there, "/depends_on", "must be a list of at most 16 ids of jobs"), ({"0": there}, "/depends_on", "must be a list of at most 16 ids of jobs"),
                ([there] * 17, "/depends_on", "must be a list of at most 16 ids of jobs"), ([there, there], "/depends_on/1", "is there twice"),
                ([there, 5], "/depends_on/1", "must be the id of a job"), (["last"], "/depends_on/0", "must be the id of a job"),
                ([there, UNKNOWN], "/depends_on/1", f"there is no job {UNKNOWN}"),
                ([failed], "/depends_on/0", f"job {failed} was cancelled, so that this one would never run")):
            with self.subTest(given=given):
                response = self.post({**small_job(output="x"), "depends_on": given})
                self.assertEqual((response.status, response.json["type"]), (422, "urn:besad:problem:invalid-spec"), response.body)
                self.assertEqual(response.json["errors"], [{"pointer": pointer, "detail": detail}])
        self.assertEqual({j["id"] for j in self.daemon.get("/v1/jobs").json["jobs"]}, {failed, there})
        for nothing in (None, []):
            job = self.post({**small_job(output=f"nothing-{nothing}"), "depends_on": nothing}).json
            self.assertEqual((job["depends_on"], job["waits_for"]), ([], []))
        study = {"name": "", "spec": {**small_job(), "depends_on": [there]}, "grid": {"sparsity": [0.5, 0.6]}}
        self.assertEqual(self.daemon.request("POST", "/v1/studies", study).status, 422)
        estimate = self.daemon.request("POST", "/v1/estimate", {**small_job(), "depends_on": [there]})
        self.assertEqual(estimate.status, 200, estimate.body)

    def test_a_key_stands_for_what_is_waited_for_too(self):
        there = self.running(output="there")
        spec = {**small_job(output="keyed"), "depends_on": [there]}
        job = self.post(spec, Idempotency_Key="k").json
        self.assertEqual(self.post(spec, Idempotency_Key="k").json["id"], job["id"])
        self.assertEqual(self.post({**spec, "depends_on": []}, Idempotency_Key="k").status, 422)
        self.act(there, "cancel")
        wait_for("its end", lambda: self.daemon.job(there)["state"] == "cancelled")
        self.lost(job["id"], there, "was cancelled")
        self.assertEqual(self.post(spec, Idempotency_Key="k").json["state"], "failed")

    def test_failure_spreads_and_is_retried(self):
        first = self.running(output="first")
        second = self.after(first, output="second")
        third = self.after(second, output="third")
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{first}").status, 409)
        with open(os.path.join(self.daemon.models, "small", "config.json"), "a") as file:
            file.write(" ")  # it has changed since the job began
        self.assertEqual(self.daemon.finish(first)["error"]["code"], "invalid")
        self.lost(second, first, "has failed")
        self.lost(third, second, "has failed")
        self.assertEqual([kind for _, kind, _ in self.daemon.stream(third) if kind != "comment"], ["job.queued", "job.failed", "end"])
        refused = self.act(second, "retry", 409)
        self.assertEqual((refused["type"], first in refused["detail"]), ("urn:besad:problem:wrong-state", True))
        self.assertEqual(self.types(second), ["job.queued", "job.failed"])

        first = self.daemon.submit(small_job(output="first-anew", **LONG))
        second = self.after(first, output="second-anew", method="magnitude")
        self.act(first, "cancel")
        self.assertEqual(self.daemon.finish(first)["state"], "cancelled")
        self.lost(second, first, "was cancelled")
        self.act(first, "retry")
        self.act(second, "retry")
        self.assertEqual(self.daemon.finish(second)["state"], "succeeded")
        self.assertEqual(self.daemon.job(first)["state"], "succeeded")
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{first}").status, 204)
        self.assertEqual(self.daemon.job(second)["depends_on"], [first])
        self.assertEqual(self.post({**small_job(output="late"), "depends_on": [first]}).status, 422)


if __name__ == "__main__":
    unittest.main()
