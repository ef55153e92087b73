#!/usr/bin/env python3
"""What besad does when the machine under it fails: it is killed again and again, its disk is full, its database is locked, descriptors run out."""
import os
import signal
import unittest

from support import BESAD, PATIENCE, Daemon, small_job, small_model, wait_for

FAULTS = os.path.join(os.path.dirname(BESAD.replace("/emulated/", "/").replace("/tests/", "/")), "tests", "fault.so")


def sanitized():
    with open(BESAD, "rb") as file:
        program = file.read()
    return b"__asan_init" in program or b"__tsan_init" in program


class Faults(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "1"))
        self.addCleanup(self.daemon.remove)

    def faults(self, directory, at, kind):
        """An environment in which the at-th file call below the directory fails, or kills besad (tests/faults/fault.c)."""
        if sanitized():
            self.skipTest("a sanitizer wants to be loaded first itself")
        self.assertTrue(os.path.exists(FAULTS), f"{FAULTS} was not built (make tests)")
        return {"LD_PRELOAD": FAULTS, "FAULT_DIR": os.path.realpath(directory), "FAULT_AT": str(at), "FAULT_KIND": kind,
                "FAULT_LOG": os.path.join(self.daemon.directory, "faults")}

    def wait_for_death(self):
        self.assertEqual(self.daemon.process.wait(PATIENCE), -signal.SIGKILL)

    def test_a_job_that_kills_besad_is_given_up(self):
        daemon = self.daemon.start("--max-attempts", "2")
        small_model(daemon)
        daemon.stop()
        # Of a job's calls the third below the checkpoints: its own directory is there, no block is.
        deadly = self.faults(os.path.join(daemon.state, "jobs"), 3, "kill")
        daemon.start("--max-attempts", "2", environment=deadly)
        try:
            daemon.submit(small_job(output="deadly", priority=1))
        except AssertionError:
            pass  # it died before it answered
        self.wait_for_death()
        daemon.start("--max-attempts", "2", environment=deadly, ready=False)
        self.wait_for_death()

        daemon.start("--max-attempts", "2")
        [given_up] = daemon.get("/v1/jobs").json["jobs"]
        job = given_up["id"]
        self.assertEqual((given_up["state"], given_up["error"]["code"], given_up["attempt"]), ("failed", "crashed", 2))
        self.assertIn("2 times in a row", given_up["error"]["message"])
        self.assertEqual([e["type"] for e in daemon.events(job)][-1], "job.failed")
        other = daemon.submit(small_job(output="other"))
        self.assertEqual(daemon.finish(other)["state"], "succeeded")
        self.assertEqual(daemon.request("POST", f"/v1/jobs/{job}/retry").status, 200)
        self.assertEqual(daemon.finish(job)["state"], "succeeded")


if __name__ == "__main__":
    unittest.main()
