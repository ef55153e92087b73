#!/usr/bin/env python3
"""Runs tests on a build with --coverage (make coverage), and prints which part of the lines and branches they have run, by folder, and which files are
below the goal: coverage.py BUILD [--report]

    --report   runs nothing: tells of what was run before

In the environment: TESTS, the parts of tests/run.py that are run (without: those of TESTS below), STACKS, how many call stacks of each kind
the fault laboratory has fail (20), and what tests/run.py heeds. What a killed program has run is not counted, but for that which the laboratory
kills itself (tests/faults/calls.h).

What no test can reach is left out between `GCOV_EXCL_START: why` and `GCOV_EXCL_STOP`, or on a line with `GCOV_EXCL_LINE: why` or, of its branches alone,
`GCOV_EXCL_BR_LINE: why`; of all lines no more than 2 % may be. Exit status 1 where that is not so, or a test has failed."""
import collections
import glob
import json
import os
import re
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
FOLDERS = ("api", "db", "daemon", "engine")
# That which loses a device is of the emulated backend, but what it asks is what the daemon then does.
TESTS = "unit backend api ctl cuda-lost-device faults"
GOAL = {"line": 95, "branch": 85}  # per cent
MOST_EXCLUDED = 2  # per cent
# Nobody wrote these branches: the macro asks whether there is an array at all. gcovr can leave out those of a line alone, all of them.
MACROS = r".*\bcJSON_ArrayForEach\(.*"
MARK = re.compile(r"GCOV_EXCL_(START|STOP|LINE|BR_LINE)(: *\S)?")


def run_tests(build):
    for path in glob.glob(f"{build}/**/*.gcda", recursive=True):
        os.unlink(path)
    # BESAD_COVERAGE has tests end besad in order where they would kill it, since what it has run is written at its end.
    environment = {"TESTS": TESTS, "SLOWNESS": "4", "STACKS": "20", **os.environ, "BESAD_COVERAGE": "1"}
    return subprocess.run([sys.executable, "tests/run.py", build], env=environment).returncode


def measure(build):
    """gcovr's figures of each file."""
    command = ["gcovr", "--root", ".", "--object-directory", build, "--json-summary", "--gcov-ignore-parse-errors",
               "--exclude-unreachable-branches", "--exclude-branches-by-pattern", MACROS]
    for folder in FOLDERS:
        command += ["--filter", folder + "/"]
    done = subprocess.run(command + [build], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"gcovr failed:\n{done.stderr}")
    return json.loads(done.stdout)["files"]


def excluded(path):
    """How many lines of a file are left out; and where that is done without a reason, or has no end."""
    lines, wrong, begun = 0, [], 0
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            lines += bool(begun)
            for kind, reason in MARK.findall(line):
                if kind != "STOP" and not reason:
                    wrong.append(f"{path}:{number}: no reason")
                if kind == "START":
                    begun = number
                elif kind == "STOP":
                    begun = 0
                elif kind == "LINE":
                    lines += 1
    return lines, wrong + [f"{path}:{begun}: has no GCOV_EXCL_STOP"] * bool(begun)


def percent(covered, total):
    return 100 * covered / total if total else 100


def folder_of(path):
    """Two levels of the engine, one of the others."""
    parts = path.split("/")
    return "/".join(parts[:2 if parts[0] == "engine" and len(parts) > 2 else 1])


def row(name, figures):
    texts = [f"{percent(figures[kind + '_covered'], figures[kind + '_total']):5.1f} % of {figures[kind + '_total']:6d}" for kind in GOAL]
    return f"{name:44} {texts[0]} lines {texts[1]} branches"


def tell(files):
    folders = collections.defaultdict(collections.Counter)
    for file in files:
        figures = {f"{kind}_{what}": file[f"{kind}_{what}"] for kind in GOAL for what in ("covered", "total")}
        for name in {folder_of(file["filename"]), file["filename"].split("/")[0], "all"}:
            folders[name].update(figures)
    for name in sorted(folders, key=lambda name: (name == "all", name)):
        print(row(name, folders[name]))
    below = [file for file in files if any(percent(file[k + "_covered"], file[k + "_total"]) < goal for k, goal in GOAL.items())]
    print(f"\n{len(below)} of {len(files)} files are below {GOAL['line']} % of lines or {GOAL['branch']} % of branches:")
    for file in sorted(below, key=lambda file: percent(file["branch_covered"], file["branch_total"])):
        print(row(file["filename"], file))
    return folders["all"]


def check_exclusions(files, total):
    found = [excluded(file["filename"]) for file in files]
    lines, wrong = sum(count for count, _ in found), [text for _, texts in found for text in texts]
    share = percent(lines, total + lines)
    print(f"\n{lines} lines are left out, {share:.2f} %")
    if share > MOST_EXCLUDED:
        wrong.append(f"more than {MOST_EXCLUDED} % of the lines are left out")
    print("\n".join(wrong), end="\n" * bool(wrong))
    return not wrong


def main():
    build = sys.argv[1]
    os.chdir(ROOT)
    failed = 0 if "--report" in sys.argv[2:] else run_tests(build)
    files = measure(build)
    everything = tell(files)
    sound = check_exclusions(files, everything["line_total"])
    sys.exit(1 if failed or not sound else 0)


if __name__ == "__main__":
    main()
