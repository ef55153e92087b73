#!/usr/bin/env python3
"""Event streams: heartbeats, a restart in the middle, many watchers; and what a deletion or a crash leaves on disk."""
import os
import threading
import unittest

from support import Daemon, small_job, small_model, wait_for


class Events(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"))
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon, 200, "long")
        small_model(self.daemon, 4)
        self.daemon.start()

    def running(self, **spec):
        job = self.daemon.submit(small_job(model="long", besa={"epochs": 20}, **spec))
        wait_for("a finished step", lambda: any(e["type"] == "block.step" for e in self.daemon.events(job)))
        return job

    def test_heartbeat(self):
        busy = self.running(output="busy")
        waiting = self.daemon.submit(small_job(output="waiting", priority=-1))
        stream = self.daemon.stream(waiting)
        self.assertEqual(next(stream)[:2], (1, "job.queued"))
        self.assertEqual(next(stream), (None, "comment", "heartbeat"))
        stream.close()
        self.daemon.request("POST", f"/v1/jobs/{waiting}/cancel")
        self.daemon.request("POST", f"/v1/jobs/{busy}/cancel")

    def test_stream_across_a_restart(self):
        job, seen = self.running(output="restarted"), []
        stream = self.daemon.stream(job)
        while len(seen) < 4:
            event = next(stream)
            if event[0]:
                seen.append(event[0])
        ended = []
        reader = threading.Thread(target=lambda: ended.extend(stream))
        reader.start()
        self.assertEqual(self.daemon.stop(), 0)
        reader.join()
        self.assertNotIn("end", [e[1] for e in ended])
        seen += [e[0] for e in ended if e[0]]
        self.daemon.start()
        self.daemon.request("POST", f"/v1/jobs/{job}/cancel")
        rest = list(self.daemon.stream(job, Last_Event_ID=str(seen[-1])))
        self.assertEqual(rest[-1], (None, "end", {"state": "cancelled"}))
        seen += [e[0] for e in rest if e[0]]
        self.assertEqual(seen, [e["id"] for e in self.daemon.events(job)])

    def test_many_watchers_see_every_event(self):
        busy = self.running(output="first")
        job, seen = self.daemon.submit(small_job(output="watched")), [[] for _ in range(50)]

        def watch(ids):
            ids.extend(e[0] or e[1] for e in self.daemon.stream(job) if e[1] != "comment")
        threads = [threading.Thread(target=watch, args=(ids,)) for ids in seen]
        for thread in threads:
            thread.start()
        self.daemon.request("POST", f"/v1/jobs/{busy}/cancel")
        for thread in threads:
            thread.join()
        expected = [e["id"] for e in self.daemon.events(job)] + ["end"]
        for ids in seen:
            self.assertEqual(ids, expected)

    def test_blocks_follow_each_other(self):
        """A block may be on its way to disk while the next one is pruned: its end is told before the next one's beginning all the same."""
        specs = [{"progress": {"perplexity_every": every}, **spec} for every in (0, 3) for spec in (
            {}, {"besa": {"target": "dense_stream"}}, {"method": "wanda"}, {"method": "magnitude"},
            {"method": "magnitude", "calibration": None})]
        for number, spec in enumerate(specs):
            job = self.daemon.submit(small_job(output=f"order-{number}", **spec))
            self.assertEqual(self.daemon.finish(job)["state"], "succeeded", self.daemon.job(job))
            blocks = [(e["data"]["block"], e["type"]) for e in self.daemon.events(job) if e["type"].startswith("block.")]
            self.assertEqual([b for b, _ in blocks], sorted(b for b, _ in blocks))
            for block in range(4):
                types = [t for b, t in blocks if b == block]
                self.assertEqual((types[0], types[-1]), ("block.started", "block.finished"))
                self.assertEqual(types.count("block.started") + types.count("block.finished"), 2)
                self.assertEqual("block.step" in types, "method" not in spec)

    def test_deletion_leaves_nothing(self):
        job = self.running(output="gone")
        wait_for("a finished block", lambda: any(e["type"] == "block.finished" for e in self.daemon.events(job)))
        self.daemon.request("POST", f"/v1/jobs/{job}/cancel")
        self.daemon.finish(job)
        checkpoint, work = os.path.join(self.daemon.state, "jobs", job), os.path.join(self.daemon.output, f".besad-{job}")
        self.assertTrue(os.path.exists(checkpoint) and os.path.exists(work))
        self.assertEqual(self.daemon.request("DELETE", f"/v1/jobs/{job}").status, 204)
        self.assertFalse(os.path.exists(checkpoint) or os.path.exists(work))

    def test_files_of_forgotten_jobs_go_at_the_start(self):
        forgotten = "01hzzzzzzz0123456789abcdef"
        checkpoint, work = os.path.join(self.daemon.state, "jobs", forgotten), os.path.join(self.daemon.output, f".besad-{forgotten}")
        self.daemon.stop()
        os.mkdir(checkpoint)
        os.mkdir(work)
        self.daemon.start()
        self.assertFalse(os.path.exists(checkpoint) or os.path.exists(work))

    def test_what_a_killed_submission_left_goes_at_the_start(self):
        left = os.path.join(self.daemon.output, ".besad-try-01hzzzzzzz0123456789abcdef")
        os.mkdir(left)
        self.daemon.kill()
        self.daemon.start()
        self.assertFalse(os.path.exists(left))

    def test_expanded_outputs(self):
        job = self.daemon.job(self.daemon.submit(small_job(output="nightly/{date}-{id}", method="magnitude")))
        self.assertEqual(job["spec"]["output"], f"nightly/{job['created_at'][:10]}-{job['id']}")
        self.assertEqual(self.daemon.finish(job["id"])["state"], "succeeded")
        os.symlink("/tmp", os.path.join(self.daemon.output, "elsewhere"))
        refused = self.daemon.request("POST", "/v1/jobs", small_job(output="elsewhere/model"))
        self.assertEqual((refused.status, refused.json["errors"][0]["pointer"]), (422, "/output"))


if __name__ == "__main__":
    unittest.main()
