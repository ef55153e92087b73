#!/usr/bin/env python3
"""Writes tiny-llama.allocation-70.json: what each block is allotted at 70 %, in PyTorch, fp32, on the dense bundled model and the first 32
calibration sequences.

    allocation.py DIRECTORY_OF_TINY_LLAMA CALIBRATION

`outlier` is OWL (arXiv 2310.05175) as its published code has it, with M 5 and lambda 0.08. `loss` makes the sum of the blocks' losses least by small
exchanges between blocks, the losses being those under Wanda's masks, in between on a line of their logarithms. Needs torch and safetensors."""
import json
import math
import os
import sys

import torch

from admm import HERE, SEQUENCES, STAGES, block, load_model, load_sequences, wanda

TARGET, DEVIATION, THRESHOLD = 0.7, 0.08, 5
LOW, HIGH = TARGET - DEVIATION, TARGET + DEVIATION
STEP = 1e-4


def outliers(p, x):
    inputs = {}
    block(p, x, inputs)
    scores = []
    for stage, names in STAGES:
        norms = inputs[stage].flatten(0, 1).pow(2).sum(0).sqrt()
        scores += [(p[n].abs() * norms).flatten() for n in names]
    scores = torch.cat(scores).double()
    return (scores > THRESHOLD * scores.mean()).double().mean().item()


def loss(p, x, wanted, sparsity):
    keep = wanda(p, x, sparsity)
    error = (wanted - block({n: w * keep[n] if n in keep else w for n, w in p.items()}, x)) / wanted.norm(dim=1, keepdim=True)
    return (error.pow(2).sum((1, 2)) / x.shape[2]).mean().item()


def by_outliers(found):
    ratios = [(ratio - min(found)) / (max(found) - min(found)) * 2 * DEVIATION for ratio in found]
    return [TARGET - ratio + sum(ratios) / len(ratios) for ratio in ratios]


def by_losses(low, high):
    shares = [TARGET] * len(low)

    def slope(b, share):
        rate = math.log(high[b] / low[b]) / (HIGH - LOW)
        return rate * low[b] * math.exp(rate * (share - LOW))
    while True:
        gives = max((b for b in range(len(low)) if shares[b] > LOW + STEP / 2), key=lambda b: slope(b, shares[b]))
        takes = min((b for b in range(len(low)) if shares[b] < HIGH - STEP / 2), key=lambda b: slope(b, shares[b]))
        if slope(gives, shares[gives] - STEP / 2) <= slope(takes, shares[takes] + STEP / 2):
            return shares
        shares[gives] -= STEP
        shares[takes] += STEP


@torch.no_grad()
def main(model, calibration):
    t, blocks = load_model(model)
    x = t["model.embed_tokens.weight"][load_sequences(calibration)[:SEQUENCES]]
    found, low, high = [], [], []
    for p in blocks:
        wanted = block(p, x)
        found.append(outliers(p, x))
        low.append(loss(p, x, wanted, LOW))
        high.append(loss(p, x, wanted, HIGH))
        x = wanted
    result = {"outlier": by_outliers(found), "loss": by_losses(low, high)}
    with open(os.path.join(HERE, "tiny-llama.allocation-70.json"), "w") as file:
        json.dump(result, file, indent=1)
        file.write("\n")
    print(result, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
