#!/usr/bin/env python3
"""The units: systemd's own checks of them, and what the nightly one runs, twice for one date, against a live besad."""
import datetime
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "api"))
from support import BESAD, PATIENCE, ROOT, Daemon, small_job, small_model  # noqa: E402

UNITS = os.path.join(ROOT, "systemd")
WORST_EXPOSURE = 1.5


@unittest.skipUnless(shutil.which("systemd-analyze"), "there is no systemd here")
class Units(unittest.TestCase):
    def analyze(self, *arguments):
        return subprocess.run(["systemd-analyze", *arguments], capture_output=True, text=True)

    def installed(self):
        """The units in a root where the programs are that they start."""
        root = tempfile.mkdtemp(prefix="besad-units-")
        self.addCleanup(shutil.rmtree, root)
        subprocess.run(["make", "-s", "-C", ROOT, "install-files", "DESTDIR=" + root, "BUILD=" + os.path.dirname(BESAD)], check=True)
        for name in ("bin/kill",):
            os.makedirs(os.path.join(root, os.path.dirname(name)), exist_ok=True)
            shutil.copy("/bin/kill", os.path.join(root, name))
        return root

    def test_verify(self):
        root = self.installed()
        units = os.path.join(root, "lib", "systemd", "system")
        shutil.copy(os.path.join(units, "besad-nightly@.service"), os.path.join(units, "besad-nightly@x.service"))
        shutil.copy(os.path.join(units, "besad-nightly@.timer"), os.path.join(units, "besad-nightly@x.timer"))
        done = self.analyze("verify", "--recursive-errors=no", "--man=no", "--root=" + root, "besad.service", "besad.socket", "besad-gpu.service",
                            "besad-nightly@x.service", "besad-nightly@x.timer")
        self.assertEqual((done.returncode, done.stderr), (0, ""))

    def test_the_filter_allows_besads_own(self):
        """@system-service of Debian 12's systemd has no seccomp(2), and besad would not start."""
        with open(os.path.join(UNITS, "besad.service")) as file:
            allowed = [line.split("=", 1)[1].split() for line in file if line.startswith("SystemCallFilter=") and "~" not in line]
        self.assertIn("seccomp", sum(allowed, []))

    def test_gpu_before_the_service(self):
        """The nodes are there before besad's devices are looked up: by a unit of its own, since ExecStartPre, with + too, comes after that."""
        def values(unit, key):
            with open(os.path.join(UNITS, unit)) as file:
                return [word for line in file if line.startswith(key + "=") for word in line.split("=", 1)[1].split()]
        self.assertIn("besad-gpu.service", values("besad.service", "Wants"))
        self.assertLessEqual({"besad-gpu.service", "nvidia-persistenced.service"}, set(values("besad.service", "After")))
        self.assertIn("nvidia-persistenced.service", values("besad-gpu.service", "After"))
        self.assertEqual(values("besad-gpu.service", "ExecStart"), ["-/usr/bin/nvidia-modprobe", "-c", "0", "-u"])
        self.assertEqual(values("besad-gpu.service", "PrivateDevices"), [])

    def test_exposure(self):
        for unit in ("besad.service", "besad-nightly@.service"):
            done = self.analyze("security", "--offline=true", "--no-pager", os.path.join(UNITS, unit))
            score = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
            self.assertTrue(score, done.stdout + done.stderr)
            print(score[0])
            self.assertLessEqual(float(score[1]), WORST_EXPOSURE, done.stdout)


class Nightly(unittest.TestCase):
    def setUp(self):
        self.daemon = Daemon()
        self.addCleanup(self.daemon.remove)
        small_model(self.daemon)
        self.daemon.start()
        self.jobs = os.path.join(self.daemon.directory, "jobs")
        os.mkdir(self.jobs)

    def write(self, **spec):
        with open(os.path.join(self.jobs, "small.json"), "w") as file:
            json.dump(small_job(output="small/{date}", **spec), file)

    def run_night(self, instance="small", **environment):
        return subprocess.run(
            [os.path.join(UNITS, "besad-nightly"), instance], capture_output=True, text=True, timeout=PATIENCE,
            env={**os.environ, "PATH": os.path.dirname(BESAD) + ":" + os.environ["PATH"], "BESAD_JOBS": self.jobs,
                 "BESAD_URL": f"http://127.0.0.1:{self.daemon.port}", "OUTPUTS": self.daemon.output, **environment})

    def test_twice_a_night_is_one_job(self):
        self.write()
        for _ in range(2):
            done = self.run_night()
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("succeeded", done.stdout)
        self.assertEqual(len(self.daemon.get("/v1/jobs").json["jobs"]), 1)
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        self.assertEqual(os.listdir(os.path.join(self.daemon.output, "small")), [today])

    def test_old_nights_go(self):
        self.write()
        nights = os.path.join(self.daemon.output, "small")
        for day in ("2026-01-01", "2026-01-02", "2026-01-03", "keep-me"):
            os.makedirs(os.path.join(nights, day))
            with open(os.path.join(nights, day, "besad.json"), "w") as file:
                file.write("{}")
        os.remove(os.path.join(nights, "2026-01-01", "besad.json"))  # then it is not besad's
        done = self.run_night(KEEP_NIGHTS="2")
        self.assertEqual(done.returncode, 0, done.stderr)
        left = sorted(os.listdir(nights))
        self.assertEqual([left[0], left[1], left[3]], ["2026-01-01", "2026-01-03", "keep-me"])
        self.assertEqual(len(left), 4)

    def test_failures_fail(self):
        self.write(sparsity=2)
        self.assertEqual(self.run_night().returncode, 2)
        self.write(timeout_seconds=0.01, besa={"epochs": 50})
        self.assertEqual(self.run_night().returncode, 4)
        self.assertEqual(self.run_night("../small").returncode, 1)


if __name__ == "__main__":
    unittest.main()
