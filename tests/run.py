#!/usr/bin/env python3
"""Runs every test that was built in BUILD, and the ones that drive the programs: run.py [BUILD]

Prints what failed, what was skipped and why, and, last, 'N passed, N failed, N skipped': programs that passed and failed; tests, or
programs, that were skipped. Behind each test are the seconds that it took, and those that its processes computed. In the environment:

    TESTS      limits it to some parts: make, unit, backend, cuda, reference, ctl, api, faults, systemd; or to tests, by their names
    WITHOUT    leaves tests out, by their names
    AT_ONCE    how many processors' worth of them run side by side; as many as there are otherwise. Most take one; those of api and ctl,
               which wait for a daemon for most of their time, a third.
    PATIENCE   seconds that a test may take (15 minutes), times SLOWNESS

No test waits for less than it takes on a busy machine; one that takes longer than its time is killed with everything that it started, as
are the running ones when this is interrupted."""
import collections
import glob
import os
import re
import signal
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PARTS = ("make", "unit", "backend", "cuda", "reference", "ctl", "api", "faults", "systemd")
FAULTS = ("powercut", "failures", "allocations", "kills")  # the fault laboratory, in short
WAITING = ("api", "ctl")
LAST = 60  # lines of a failed test that are shown

# unittest with -v and cmocka name what they skip.
SKIPPED = re.compile(r"^(.*) \.\.\. skipped [\"'](.*)[\"']$|^\[  SKIPPED \] ([a-z].*)$", re.M)

Test = collections.namedtuple("Test", "name command environment takes", defaults=({}, 1))


class Interrupted(Exception):
    pass


class Count:
    """What became of the tests, told while they end."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0

    def ok(self, name, seconds, computed):
        self.passed += 1
        print(f"ok      {name} ({seconds} s, computing {computed} s)", flush=True)

    def fail(self, name, reason):
        self.failed += 1
        print(f"FAILED  {name}: {reason}", flush=True)

    def skip(self, *what):
        self.skipped += 1
        print("skipped", ": ".join(what), flush=True)

    def __str__(self):
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def text_of(path):
    """Of a file; none of one that is not there."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def names(pattern):
    return [os.path.splitext(os.path.basename(path))[0] for path in sorted(glob.glob(pattern))]


def programs_of(part, build):
    """Tests that are programs in C."""
    return [Test(name, [f"{build}/tests/{name}"]) for name in names(f"tests/{part}/test_*.c")]


def scripts_of(part, build):
    """Tests that drive besad's programs, which compute on one thread: several run side by side, and on a full machine threads that wait
    for each other take half as much again. What is killed at any moment computes on all that there are."""
    def environment(name):
        return {"BESAD": f"{build}/besad", **({} if name == "test_durability" else {"OMP_NUM_THREADS": "1"})}
    return [Test(f"{part}-{name}", ["python3", f"tests/{part}/{name}.py", "-v"], environment(name), 0.33 if part in WAITING else 1)
            for name in names(f"tests/{part}/test_*.py")]


def emulated_of(build, count):
    """Tests of the CUDA backend's code on the host (tests/cuda/emulator): they need no toolkit, and every build but a sanitizer's has
    them."""
    emulated = f"{build}/tests/emulated"
    besad = f"{emulated}/besad"
    if "-fsanitize=" in text_of(f"{build}/flags/compile"):
        count.skip("cuda", "a sanitizer does not follow the emulator's coroutines")
        return []
    if not os.access(besad, os.X_OK):
        count.fail("cuda", f"{besad} is not there; was it built (make tests)?")
        return []
    without = {f"test_{name}" for name in text_of("tests/cuda/without-cuda").split()}
    found = [f"test_cuda_{name[len('test_'):]}" for name in names("tests/backend/test_*.c") + names("tests/cuda/test_*.c")
             if name not in without]
    whole_list = os.environ.get("LONG")
    slow = {"BESAD_TEST_BACKEND": "cuda", **({} if whole_list else {"FEW": "1"})}  # FEW: what takes long is tried on less
    tests = [Test(name, [f"{emulated}/{name}"], slow) for name in [*found, "test_cuda_fault_drill"]]
    whole = ["--other", f"{build}/besad", "--precision", "f32", "--samples", "1", "--windows", "1"]
    few = {"BESAD": besad, "CRASHES": "3", "BLOCKS": "3", "SAMPLES": "6"}
    # A device's blocks go to disk beside the next one, which a CPU's never do: that is what these are for. How shares are allotted, and
    # what goes once a job is done, the CPU's tests try; packed codes on their way to disk, one of the kills.
    crashes = ["Run"] if whole_list else ["Run.test_each_block_saved", "Run.test_blocks_saved_together", "Run.test_tuned"]
    kills = [] if whole_list else [f"Durability.test_{name}" for name in (
        "killed_at_random_moments", "stopped_politely_goes_on", "a_stop_saves_what_is_finished", "blocks_that_were_not_saved_are_done_again",
        "cancel_and_retry_resumes", "feedback_is_the_same_behind_a_kill")]
    return tests + [
        Test("cuda-whole-blocks", ["tests/cuda/compare.py", besad, *whole]),
        Test("cuda-durability", ["python3", "tests/api/test_durability.py", "-v", *kills], few),
        Test("cuda-crash-points", ["python3", "tests/api/test_crash_points.py", "-v", *crashes],
             {"BESAD": besad, "CRASH_POINTS": "10" if whole_list else "2"}),
        Test("cuda-first-hour", ["python3", "tests/cuda/test_first_hour.py", "-v"]),
        Test("cuda-lost-device", ["python3", "tests/cuda/test_lost_device.py", "-v"], {"BESAD": besad}),
        Test("cuda-device-memory", ["python3", "tests/cuda/test_device_memory.py", "-v"], {"BESAD": besad})]


def parts_of(name):
    """Where a test of that name may be; a part is there itself."""
    part = name.partition("-")[0]
    return (part,) if part in PARTS else ("unit", "backend", *(["cuda"] if name.startswith("test_cuda_") else ()))


def chosen(build, count):
    """What TESTS and WITHOUT ask for."""
    asked = os.environ.get("TESTS", " ".join(PARTS)).split()
    without = os.environ.get("WITHOUT", "").split()
    by_name, tests = {}, []
    for part in dict.fromkeys(part for name in asked for part in parts_of(name)):
        found = tests_of(part, build, count)
        by_name.update({part: found, **{test.name: [test] for test in found}})
    for name in asked + without:
        if name not in by_name:
            count.fail(name, "there is no such part or test")
    for name in asked:
        tests += [test for test in by_name.get(name, []) if test.name not in without and test not in tests]
    return tests


def tests_of(part, build, count):
    if part == "cuda":
        return emulated_of(build, count)
    if part == "faults":
        return [Test(f"faults-{name}", ["python3", f"tests/faults/{name}.py", "-v"], {"BESAD": f"{build}/besad"}) for name in FAULTS]
    return programs_of(part, build) if part in ("unit", "backend") else scripts_of(part, build)


def log_of(test, build):
    return f"{build}/tests/log/{test.name}.log"


def ended(test, status, seconds, computed, build, count):
    log = log_of(test, build)
    text = text_of(log)
    if status == 0:
        count.ok(test.name, seconds, computed)
        for what in sorted(set(SKIPPED.findall(text))):
            count.skip(test.name, *filter(None, what))
        return
    reasons = {124: f"killed after {seconds} s", 125: f"it left processes behind ({seconds} s)"}
    count.fail(test.name, f"{reasons.get(status, f'status {status} ({seconds} s)')}; the end of {log}:")
    print("\n".join(text.splitlines()[-LAST:]), flush=True)


def run(tests, build, at_once, count):
    limit = int(os.environ.get("PATIENCE", "900")) * int(os.environ.get("SLOWNESS", "1"))
    waiting, running = collections.deque(tests), {}
    try:
        while waiting or running:
            while waiting and (not running or waiting[0].takes + sum(test.takes for test, _, _ in running.values()) <= at_once):
                test = waiting.popleft()
                watcher = subprocess.Popen(["tests/watch.py", str(limit), log_of(test, build), *test.command],
                                           env={**os.environ, **test.environment})
                running[watcher.pid] = test, watcher, time.monotonic()
            pid, status, used = os.wait3(0)  # of it and of all that it waited for
            test, watcher, start = running.pop(pid)
            watcher.returncode = os.waitstatus_to_exitcode(status)
            ended(test, watcher.returncode, round(time.monotonic() - start), round(used.ru_utime + used.ru_stime), build, count)
    finally:  # interrupted: the running ones end first, each with all that it started
        for _, watcher, _ in running.values():
            watcher.send_signal(signal.SIGTERM)
        for _, watcher, _ in running.values():
            watcher.wait()


def interrupted(number, _):
    for other in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(other, signal.SIG_IGN)
    raise Interrupted(number)


def main():
    build = os.path.relpath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "build"), ROOT)
    os.chdir(ROOT)
    os.makedirs(f"{build}/tests/log", exist_ok=True)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    count = Count()
    try:
        run(chosen(build, count), build, int(os.environ.get("AT_ONCE") or len(os.sched_getaffinity(0))), count)
    except Interrupted as signaled:
        number = signal.Signals(signaled.args[0])
        print(f"interrupted by {number.name}: {count}", flush=True)
        return 128 + number
    print(count)
    return 1 if count.failed else 0


if __name__ == "__main__":
    sys.exit(main())
