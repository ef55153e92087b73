#!/usr/bin/env python3
"""The Makefile's manner: what is built again when flags change, what it says, on how many cores; and tests/watch.py, which ends tests; and
tests/run.py, which counts them."""
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
WATCH = os.path.join(ROOT, "tests", "watch.py")


class Make(unittest.TestCase):
    def setUp(self):
        self.build = tempfile.mkdtemp(prefix="besad-build-")
        self.addCleanup(shutil.rmtree, self.build)
        self.error = os.path.join(self.build, "base", "error.o")
        self.none = os.path.join(self.build, "engine", "compute", "backend_none.o")

    def make(self, *arguments, **environment):
        # Not as a part of the make that runs the tests.
        ours = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "CUDA_HOME", "CUDA", "V", "OPT", "CC")
        clean = {key: value for key, value in os.environ.items() if key not in ours}
        done = subprocess.run(["make", "-C", ROOT, "--no-print-directory", "BUILD=" + self.build, *arguments],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**clean, **environment})
        self.assertEqual(done.returncode, 0, done.stdout)
        return done.stdout

    def a_toolkit(self):
        """A directory that looks like one."""
        nvcc = os.path.join(self.build, "toolkit", "bin", "nvcc")
        os.makedirs(os.path.dirname(nvcc), exist_ok=True)
        with open(nvcc, "w") as file:
            file.write("#!/bin/sh\nexit 1\n")
        os.chmod(nvcc, 0o755)
        return os.path.dirname(os.path.dirname(nvcc))

    def test_quiet(self):
        self.assertEqual(self.make(self.error), "CC base/error.c\n")
        os.remove(self.error)
        self.assertIn(" -c -o " + self.error, self.make("V=1", self.error))
        os.remove(self.error)
        self.assertEqual(self.make("V=0", self.error), "")
        os.remove(self.error)
        self.assertEqual(self.make("-s", self.error), "")

    def test_other_flags_build_again(self):
        self.make(self.error)
        self.assertNotIn("CC", self.make(self.error))
        self.assertNotIn("CC", self.make("WERROR=1", self.error))
        self.assertIn("CC base/error.c", self.make("OPT=-O1", self.error))
        self.assertNotIn("CC", self.make("OPT=-O1", self.error))
        self.assertIn("CC base/error.c", self.make(self.error))

    def test_with_and_without_cuda_in_one_directory(self):
        """The stand-in for the CUDA backend has its function where there is no backend, and only what depends on it is built again."""
        toolkit = self.a_toolkit()
        for _ in range(2):
            for arguments, stands_in in ((("CUDA=0",), True), (("CUDA_HOME=" + toolkit,), False)):
                said = self.make(*arguments, self.error, self.none)
                symbols = subprocess.run(["nm", "--defined-only", self.none], check=True, stdout=subprocess.PIPE, text=True).stdout
                self.assertEqual("backend_cuda_create" in symbols, stands_in, said)
        self.assertNotIn("base/error.c", said)
        for arguments in (("CUDA=0",), ("CUDA_HOME=" + toolkit,)):
            self.assertIn(f"LD {self.build}/besad", self.make("-n", *arguments, "all"))

    def test_a_source_that_has_moved(self):
        """What a build knows of files since moved or deleted is forgotten; what it knows of the others is not."""
        header = os.path.join(self.build, "header.h")
        for name, source in (("moved", "engine/gone.c"), ("far_moved", "\\\n engine/gone.c"), ("tool_moved", "engine/gone.cu")):
            with open(os.path.join(self.build, name + ".d"), "w") as file:
                file.write(f"{self.error}{' ' * (name == 'tool_moved')}: {source} \\\n {header}\n\n{header}:\n")
        self.assertEqual(self.make(self.error), "CC base/error.c\n")
        self.assertEqual(self.make(self.error), "")
        with open(os.path.join(self.build, "known.d"), "w") as file:
            file.write(f"{self.error}: \\\n base/error.c \\\n {header}\n\n{header}:\n")
        self.assertEqual(self.make(self.error), "CC base/error.c\n")

    def test_kernels_are_built_once(self):
        toolkit = self.a_toolkit()
        with open(os.path.join(toolkit, "bin", "nvcc"), "w") as file:
            file.write('#!/bin/sh\nwhile [ "$1" != -o ]; do shift; done\n: >"$2"\n')
        kernel = os.path.join(self.build, "cuda", "activation.o")
        self.assertIn("NVCC cuda/activation.cu", self.make("CUDA_HOME=" + toolkit, kernel))
        self.assertNotIn("NVCC", self.make("CUDA_HOME=" + toolkit, kernel))

    def test_note_names_where_it_looked(self):
        self.assertIn("without CUDA (CUDA=0)", self.make("-n", "CUDA=0", "all"))
        toolkit = self.a_toolkit()
        self.assertIn(f"with CUDA by {toolkit}/bin/nvcc", self.make("-n", "all", CUDA_HOME=toolkit))

    @unittest.skipIf(os.path.exists("/usr/local/cuda/bin/nvcc") or shutil.which("nvcc"), "this machine has a CUDA toolkit")
    def test_note_without_a_toolkit(self):
        self.assertIn("no nvcc in /nowhere/bin ($CUDA_HOME) or a directory of PATH or /usr/local/cuda/bin)",
                      self.make("-n", "all", CUDA_HOME="/nowhere"))
        self.assertIn("no nvcc in a directory of PATH or /usr/local/cuda/bin; CUDA_HOME is not set)", self.make("-n", "all"))

    def test_cores(self):
        """Those of the machine, or as many as the caller says."""
        text = "show: ; @echo '[$(JOBS)]'\n"
        cores = subprocess.check_output(["nproc"], text=True).strip()
        for flags, jobs in (((), f"-j{cores}"), (("-j1",), ""), (("-j3",), ""), (("-j",), "")):
            said = self.make(*flags, "--eval=" + text, "show")
            self.assertEqual(said, f"[{jobs}]\n", flags)


class Watch(unittest.TestCase):
    """Processes are known by a pipe that they hold: it ends when all of them have."""

    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="besad-watch-")
        self.addCleanup(shutil.rmtree, self.directory)
        self.log = os.path.join(self.directory, "log")
        self.held, self.hold = os.pipe()
        self.addCleanup(os.close, self.held)

    def watch(self, seconds, script):
        """The watcher of a test that is this Python program."""
        process = subprocess.Popen([WATCH, str(seconds), self.log, sys.executable, "-c", script.replace("HOLD", str(self.hold))],
                                   pass_fds=[self.hold], env={**os.environ, "GRACE": "0.1"})
        os.close(self.hold)
        return process

    def ended(self, process, status):
        self.assertEqual(process.wait(), status, self.text())
        self.assertEqual(os.read(self.held, 1), b"")  # would wait while anybody lives

    def text(self):
        with open(self.log) as file:
            return file.read()

    START = "import os, subprocess, sys, time; subprocess.Popen(['sleep', 'infinity'], pass_fds=[HOLD], start_new_session=True); "

    def test_a_good_test(self):
        self.ended(self.watch(600, "print('fine')"), 0)
        self.assertEqual(self.text(), "fine\n")

    def test_a_failure(self):
        self.ended(self.watch(600, self.START + "sys.exit(3)"), 3)
        self.assertIn("left behind, and killed:\nsleep infinity", self.text())

    def test_a_process_left_behind_is_a_failure(self):
        self.ended(self.watch(600, self.START), 125)

    def test_time_over(self):
        self.ended(self.watch(1, self.START + "time.sleep(10**6)"), 124)
        self.assertIn("killed after 1 s", self.text())
        self.assertIn('File "<string>", line 1', self.text())  # where it was

    def test_interrupted(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.watch(600, self.START + "print('started', flush=True); time.sleep(10**6)")
            while not (os.path.exists(self.log) and "started" in self.text()):
                time.sleep(0.01)
            process.send_signal(number)
            self.ended(process, 128 + number)
            os.remove(self.log)
            os.close(self.held)
            self.held, self.hold = os.pipe()
        os.close(self.hold)

    def test_what_is_not_there(self):
        process = subprocess.run([WATCH, "600", self.log, os.path.join(self.directory, "nothing")])
        os.close(self.hold)
        self.assertEqual(process.returncode, 127)
        self.assertIn("make tests", self.text())

    def test_jobs_are_told(self):
        """What a daemon's database says of its jobs."""
        script = ("import os, sqlite3, sys; d = sqlite3.connect(os.environ['TMPDIR'] + '/besad.db'); "
                  "d.execute('CREATE TABLE jobs (id, state)'); d.execute('CREATE TABLE events (job_id, id, type, data)'); "
                  "d.execute(\"INSERT INTO jobs VALUES ('j', 'running')\"); "
                  "d.execute(\"INSERT INTO events VALUES ('j', 7, 'block.started', '{}')\"); d.commit(); sys.exit(1)")
        self.ended(self.watch(600, script), 1)
        self.assertIn("job j is running; its last events:\n7 block.started {}\n", self.text())


class Run(unittest.TestCase):
    def test_side_by_side_and_interrupted(self):
        """Two tests that never end run at once, and both end with the program that runs them."""
        with tempfile.TemporaryDirectory(prefix="besad-build-") as build:
            started = os.path.join(build, "started")
            os.mkdir(os.path.join(build, "tests"))
            for source in os.listdir(os.path.join(ROOT, "tests", "unit")):
                path = os.path.join(build, "tests", os.path.splitext(source)[0])
                with open(path, "w") as file:
                    file.write(f"#!/bin/sh\necho $$ >>{started}\nexec sleep 1000\n")
                os.chmod(path, 0o755)
            process = subprocess.Popen([os.path.join(ROOT, "tests", "run.py"), build], stdout=subprocess.PIPE, text=True,
                                       env={**os.environ, "TESTS": "unit", "WITHOUT": "", "AT_ONCE": "2"})
            pids = []
            while len(pids) < 2 and process.poll() is None:
                time.sleep(0.02)
                if os.path.exists(started):
                    with open(started) as file:
                        pids = file.read().split()
            process.send_signal(signal.SIGTERM)
            text, _ = process.communicate()
            self.assertEqual((text, process.returncode), ("interrupted by SIGTERM: 0 passed, 0 failed, 0 skipped\n", 143))
            self.assertEqual(len(pids), 2)
            for pid in pids:
                self.assertFalse(os.path.exists(f"/proc/{pid}"), pid)

    def run_cuda(self, flags):
        """What run.py says of the CUDA backend's tests where a build made with these flags has none of their programs."""
        with tempfile.TemporaryDirectory(prefix="besad-build-") as build:
            os.mkdir(os.path.join(build, "flags"))
            with open(os.path.join(build, "flags", "compile"), "w") as file:
                file.write(flags)
            return subprocess.run([os.path.join(ROOT, "tests", "run.py"), build], env={**os.environ, "TESTS": "cuda", "WITHOUT": ""},
                                  stdout=subprocess.PIPE, text=True)

    def test_programs_that_were_not_built_are_a_failure(self):
        done = self.run_cuda("gcc -O2")
        self.assertEqual(done.returncode, 1, done.stdout)
        self.assertIn("besad is not there; was it built (make tests)?\n0 passed, 1 failed, 0 skipped\n", done.stdout)

    def test_a_sanitizer_has_none(self):
        done = self.run_cuda("gcc -O2 -fsanitize=address,undefined")
        self.assertEqual(done.returncode, 0, done.stdout)
        self.assertIn("0 passed, 0 failed, 1 skipped\n", done.stdout)


if __name__ == "__main__":
    unittest.main()
