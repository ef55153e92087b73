#!/usr/bin/env python3
"""Runs one test with its own group of processes, and leaves none of them behind: watch.py SECONDS LOG COMMAND...

The test's output goes to LOG. When SECONDS are over, the test is asked where it is (SIGABRT: Python tells each thread's stack) and killed
with all that it started. A test that ends and leaves a process behind has failed too. When a test failed, what its daemons' jobs did last
is added to LOG. When this program is told to end, or whoever started it does, the test ends with it.

Exits with the test's status; 124 when the time was over, 125 when processes were left behind, 127 when it cannot be started, 128 + N on
signal N. GRACE in the environment are the seconds for what ends by itself."""
import ctypes
import glob
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
GRACE = float(os.environ.get("GRACE", "10"))
LAST = 12  # lines and events that are shown


# Threads that wait for each other sleep at once: on a busy machine a thread that spins is most of what runs.
ENVIRONMENT = {"OMP_WAIT_POLICY": "passive", "PYTHONFAULTHANDLER": "1", "PYTHONUNBUFFERED": "1"}


def prctl(option, value):
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")


def descendants():
    """{pid: command line} of what this process started, however deep; the dead that nobody waited for are not among them."""
    parents, commands = {}, {}
    for path in glob.glob("/proc/[0-9]*"):
        try:
            with open(path + "/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
            with open(path + "/cmdline") as file:
                command = file.read().replace("\0", " ").strip()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if state not in "ZX":
            pid = int(path[6:])
            parents[pid], commands[pid] = int(parent), command
    ours = {os.getpid()}
    while more := {pid for pid, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {pid: commands[pid] for pid in ours - {os.getpid()}}


def reap():
    """Waits for what has ended: a subreaper gets the orphans too."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def kill_all():
    """Again until nothing is left: what is killed last may have started something."""
    while left := descendants():
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        time.sleep(0.01)
        reap()


def wait_gone(seconds):
    """Whether everything that this process started ended within so many seconds."""
    deadline = time.monotonic() + seconds
    while descendants():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
        reap()
    return True


def tell_jobs(directory, log):
    """What the daemons and the jobs below a directory did last."""
    for path in glob.glob(directory + "/**/*.db", recursive=True):
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                for job, state in database.execute("SELECT id, state FROM jobs ORDER BY id DESC LIMIT 3"):
                    print(f"---- job {job} is {state}; its last events:", file=log)
                    events = "SELECT id, type, data FROM events WHERE job_id = ? ORDER BY id DESC LIMIT ?"
                    for event in reversed(database.execute(events, (job, LAST)).fetchall()):
                        print(*event, file=log)
        except sqlite3.Error as error:
            print(f"---- {path}: {error}", file=log)
    for pattern in ("events.jsonl", "log"):
        for path in glob.glob(f"{directory}/**/{pattern}", recursive=True):
            with open(path, errors="replace") as file:
                lines = file.readlines()[-LAST:]
            print(f"---- the end of {path[len(directory) + 1:]}:\n{''.join(lines)}", end="", file=log)


def main():
    seconds, log_path, command = float(sys.argv[1]), sys.argv[2], sys.argv[3:]
    told = []
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda n, _: told.append(n))
    parent = os.getppid()
    prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    directory = tempfile.mkdtemp(prefix="besad-test-", dir="/tmp")  # short: it holds the names of sockets
    status = None
    try:
        open(log_path, "w").close()
        with open(log_path, "a") as log:
            try:
                test = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
                                        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
                                        env={**os.environ, **ENVIRONMENT, "TMPDIR": directory})
            except OSError as error:
                print(f"{error}; was it built (make tests)?", file=log)
                return 127
            deadline = time.monotonic() + seconds
            while status is None and not told and os.getppid() == parent and time.monotonic() < deadline:
                try:
                    status = test.wait(0.1)
                except subprocess.TimeoutExpired:
                    pass
        with open(log_path, "a") as log:
            if status is None and not told and os.getppid() == parent:
                status = 124
                print(f"\n---- killed after {seconds:.0f} s; where it was:", file=log, flush=True)
                test.send_signal(signal.SIGABRT)
                try:
                    test.wait(GRACE)
                except subprocess.TimeoutExpired:
                    pass
                kill_all()
            elif status is not None and not wait_gone(GRACE):
                print("\n---- left behind, and killed:", *descendants().values(), sep="\n", file=log)
                status = status or 125
            if status:
                tell_jobs(directory, log)
    finally:
        kill_all()
        shutil.rmtree(directory, ignore_errors=True)
    if status is None:
        return 128 + (told[0] if told else signal.SIGTERM)
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
