#!/usr/bin/env python3
"""How many files an addition touched: what the seams of the house are worth.

    bench/touched.py COMMIT...        of the commits that made one addition, together

Counts files by what they are: code of the product by its room, tests, what `make generate` writes, data and words. A seam is in the wrong
place where an addition has to change code in rooms that have nothing to do with it. Needs git and Python 3 alone."""
import collections
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "engine", "spec"))
from generate import PARTS, WHOLE  # noqa: E402

WORDS = (".md",)


def git(*arguments):
    return subprocess.run(["git", "-C", ROOT, *arguments], check=True, capture_output=True, text=True).stdout


def files(commit):
    """[(new, path)] of a commit."""
    lines = git("show", "--no-renames", "--name-status", "--format=", commit).split("\n")
    return [(line.split("\t")[0] == "A", line.split("\t")[1]) for line in lines if line]


def kind(path):
    if path in WHOLE or path in PARTS:
        return "generated"
    if path.startswith("tests/data/"):
        return "data"
    if path.startswith("tests/"):
        return "tests"
    if path.endswith(WORDS) or path.startswith(("docs/", "man/")):
        return "words"
    return "code"


def room(path):
    """engine/methods/sparsegpt/factor.c → engine/methods; cuda/rank.cu → cuda"""
    parts = path.split("/")
    return "/".join(parts[:2]) if parts[0] == "engine" and len(parts) > 2 else parts[0]


def main():
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    touched = {}
    for commit in sys.argv[1:]:
        for new, path in files(commit):
            touched[path] = touched.get(path, False) or new
    kinds, rooms = collections.Counter(map(kind, touched)), collections.defaultdict(lambda: [0, 0])
    for path, new in touched.items():
        if kind(path) == "code":
            rooms[room(path)][new] += 1
    print(", ".join(git("show", "-s", "--format=%h %s", commit).strip() for commit in sys.argv[1:]))
    print("  " + ", ".join(f"{name} {kinds[name]}" for name in ("code", "tests", "generated", "data", "words") if kinds[name]))
    for name, (changed, new) in sorted(rooms.items()):
        print(f"  {name}: {changed} changed" + (f", {new} new" if new else ""))


if __name__ == "__main__":
    main()
