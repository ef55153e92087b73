#!/usr/bin/env python3
"""Whether a change of the CPU backend's products is one: builds take turns of 12 ms at each shape, and of the ratios to the first one's
time the medians are told. Where other machines share the processor, whose rate doubles and halves within seconds, that tells
differences of a hundredth or two; whole jobs in turn do not tell a tenth. `make benches` in each build's checkout makes the program.

    bench/products.py ../before/build/bench/products build/bench/products

Results on standard output as JSON: of each shape and build the median ratio and the median GFLOP/s. Nothing else should run."""
import argparse
import json
import math
import statistics
import subprocess
import sys

# Of the bundled model, forward in passes that learn nothing and in steps, and backward; of a 2048-wide block; of SmolLM2.
SHAPES = """1024x1024x192t 1024x576x192t 1024x192x512t 256x1024x192t 256x576x192t 256x192x512t 256x192x192t 256x192x1024 256x512x192
512x2048x2048t 512x2048x5632t 512x2048x2048 256x1536x576t 256x576x1536t 256x576x1536""".split()


class Build:
    def __init__(self, program, precision, shapes):
        self.process = subprocess.Popen([program, precision, *shapes], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def seconds(self, shape):
        self.process.stdin.write(f"{shape}\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.process.args[0]} ended")
        return float(line)


def flop_of(shape):
    return 2 * math.prod(int(side) for side in shape.rstrip("t").split("x"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="+", metavar="PROGRAM",
                        help="build/bench/products of each build, the one to compare with first")
    parser.add_argument("--precision", choices=("f32", "bf16"), default="f32")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    args = parser.parse_args()
    builds = [Build(program, args.precision, args.shapes) for program in args.programs]
    ratios, rows = [[] for _ in builds], []
    for number, shape in enumerate(args.shapes):
        rounds = []
        for turn in range(args.rounds):
            order = range(len(builds)) if turn % 2 else range(len(builds) - 1, -1, -1)
            taken = {i: builds[i].seconds(number) for i in order}
            rounds.append([taken[i] for i in range(len(builds))])
        row = {"shape": shape}
        for i in range(len(builds)):
            ratio = statistics.median(seconds[i] / seconds[0] for seconds in rounds)
            gflops = flop_of(shape) / statistics.median(seconds[i] for seconds in rounds) * 1e-9
            ratios[i].append(ratio)
            row[args.programs[i]] = {"of_first": round(ratio, 3), "gflops": round(gflops, 1)}
        print(f"{shape}: " + ", ".join(f"{row[p]['of_first']:.3f} ({row[p]['gflops']:.0f})" for p in args.programs), file=sys.stderr)
        rows.append(row)
    mean = {program: round(statistics.geometric_mean(ratios[i]), 4) for i, program in enumerate(args.programs)}
    json.dump({"command": " ".join(["bench/products.py", *sys.argv[1:]]), "precision": args.precision, "rounds": args.rounds,
               "shapes": rows, "mean": mean}, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
