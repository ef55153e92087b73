#!/usr/bin/env python3
"""Prunes the models here and has transformers load what comes out: needs what make.py needs. BESAD names the program.

For each family (or those named) and for Wanda, BESA and the preset balanced at 50 %, the perplexity that transformers gets of the output must be besad's own of it, to 0.01 %."""

import json
import os
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
sys.path += [str(HERE), str(HERE.parent.parent / "reference")]
from make import evaluation_text, perplexity  # noqa: E402
from test_saved import GOLDEN, Workplace  # noqa: E402


def main():
    place, text, failed = Workplace(), evaluation_text(), 0
    for family in sys.argv[1:] or GOLDEN["perplexity"]:
        for how in dict(method="wanda"), dict(method="besa"), dict(preset="balanced"):
            name = f"{family}-{''.join(how.values())}"
            done = place.run(family, **how, output=name, sparsity=0.5,
                             calibration={"path": "text.txt", "samples": 16, "sequence_length": GOLDEN["window"]})
            if done.returncode:
                sys.exit(f"{name}: {done.stderr}")
            output = pathlib.Path(place.output) / name
            ours = json.loads((output / "besad.json").read_text())["result"]["perplexity"]["text"]
            theirs = perplexity(output, text)
            off = abs(theirs / ours["pruned"] - 1)
            failed += off > 1e-4
            print(f"{name:20} dense {ours['dense']:9.4f}  pruned {ours['pruned']:9.4f}  transformers {theirs:9.4f}  off {off:.1e}", flush=True)
    place.remove()
    sys.exit(failed > 0)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
