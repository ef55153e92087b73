#!/usr/bin/env python3
"""The filter of system calls: every thread of besad has it, what besad runs has it, and jobs are none the worse for it."""
import os
import stat
import unittest

from support import Daemon, small_job, small_model, wait_for

MODE_FILTER = "2"


def states(pid):
    """Of each thread: its mode of seccomp, and whether it can gain rights."""
    result = set()
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/status") as file:
            fields = dict(line.split(":", 1) for line in file)
        result.add((fields["Seccomp"].strip(), fields["NoNewPrivs"].strip()))
    return result


class Seccomp(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon("--threads", os.environ.get("OMP_NUM_THREADS", "2"), "--backend", "cpu")
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon)

    def program(self, text):
        path = os.path.join(self.daemon.directory, "program")
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(path, stat.S_IRWXU)
        return path

    def start(self, *options):
        self.daemon.start(*options)
        if "seccomp: off (built without libseccomp)" in self.daemon.log():
            self.skipTest("built without libseccomp")

    def test_every_thread(self):
        self.start()
        self.assertIn("fail from now on, execve among them", self.daemon.log())
        job = self.daemon.submit(small_job())
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        self.assertEqual(states(self.daemon.process.pid), {(MODE_FILTER, "1")})
        self.assertEqual(self.daemon.stop(), 0)

    def test_a_program_runs_under_it(self):
        found = os.path.join(self.daemon.directory, "found")
        self.start("--on-finish", self.program(f"grep Seccomp: /proc/self/status >{found}.new; mv {found}.new {found}\n"))
        self.assertNotIn("execve among them", self.daemon.log())
        self.daemon.finish(self.daemon.submit(small_job()))
        wait_for("the program", lambda: os.path.exists(found))
        with open(found) as file:
            self.assertEqual(file.read().split(), ["Seccomp:", MODE_FILTER])

    def test_off(self):
        self.start("--no-seccomp")
        self.assertEqual(states(self.daemon.process.pid), states(os.getpid()))
        self.assertIn("seccomp: off (--no-seccomp)", self.daemon.log())


if __name__ == "__main__":
    unittest.main()
