#!/usr/bin/env python3
"""The fault laboratory: run.py [--short] [NAME …]

Runs the parts that are named, all without: each at its full length, which may take hours, or, with --short, as tests/run.py does in
seconds; of clients, load, http_attacks and soak tests/api/test_load.py is the short form. The counts are printed as they come and again
at the end. BESAD names the program. What a part takes from the environment (the head of each says it) may be given here as NAME=VALUE;
it has the last word."""
import argparse
import os
import re
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
EMULATED = os.path.join(ROOT, "build", "tests", "emulated", "besad")

ALWAYS_LONG = ("clients", "load", "http_attacks", "soak")  # tests/api/test_load.py is their short form

# What makes each of them long.
PARTS = {
    "powercut": {"CUTS": "all", "TEARS": "4", "TWICE": "4"},
    "failures": {"STACKS": "all"},
    "allocations": {"STACKS": "all"},
    "kills": {"KILLS": "1000", "STEPS": "all"},
    "kills-background": {"KILLS": "1000", "STEPS": "all", "BESAD": EMULATED},
    **{name: {} for name in ALWAYS_LONG},
}


def run(name, settings):
    """The exit status, and the lines with counts."""
    script = os.path.join(HERE, name.removesuffix("-background") + ".py")
    if settings.get("BESAD") and not os.path.exists(settings["BESAD"]):
        return 0, [f"{name}: left out, {settings['BESAD']} is not there (make tests builds it)"]
    process = subprocess.Popen([sys.executable, script], env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               text=True, errors="replace")
    counts = []
    for line in process.stdout:
        print(line, end="", flush=True)
        if re.match(r"__main__\.\w+\.\w+: ", line) or (name in ALWAYS_LONG and re.match(r"[\w ,-]+: ", line)):
            counts.append(line.strip().replace("__main__.", f"{name} ", 1))
    return process.wait(), counts


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="a few of each")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(PARTS)}, or SETTING=VALUE")
    options = parser.parse_args()
    given = dict(word.split("=", 1) for word in options.names if "=" in word)
    names = [word for word in options.names if "=" not in word] or [n for n in PARTS if not (options.short and n in ALWAYS_LONG)]
    for name in set(names) - set(PARTS):
        parser.error(f"there is no part '{name}'")
    started, failed, counts = time.monotonic(), [], []
    for name in names:
        settings = {k: v for k, v in PARTS[name].items() if not options.short or k == "BESAD"}
        status, lines = run(name, {**settings, **given})
        counts += lines
        failed += [name] if status else []
    print("\n" + "\n".join(counts))
    print(f"{len(names)} parts in {time.monotonic() - started:.0f} s" + (f"; failed: {', '.join(failed)}" if failed else ""))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
