#!/usr/bin/env python3
"""Writes tiny-llama.refit-*.json: Wanda's masks, and Adam on a block's kept weights and norms behind them, in PyTorch, fp32, on the bundled model
and the first 32 calibration sequences; and refit-50-3.json, through weights of 3 bits in groups of 32.

    refit.py DIRECTORY_OF_TINY_LLAMA CALIBRATION WIKITEXT2

Needs torch and safetensors. 4 epochs in batches of 4 sequences; the loss is the mean of (y − Y)² / mean_t Y_h²; products use the weights rounded
to bf16. The order of the sequences is besad's (base/random.h), so that results are close enough to tell a mistake from chance."""
import json
import math
import os
import sys

import torch

from admm import HERE, PATHS, SEQUENCES, block, load_model, load_sequences, perplexity, wanda

EPOCHS, BATCH, RATE, GROUP = 4, 4, 2e-3, 32
MOST = (1 << 64) - 1


def mix(x):
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9 & MOST
    x = (x ^ x >> 27) * 0x94d049bb133111eb & MOST
    return x ^ x >> 31


def order(seed, epoch):
    found = list(range(SEQUENCES))
    for i in range(SEQUENCES - 1, 0, -1):
        number = mix(mix(seed) + (epoch * SEQUENCES + i + 1) * 0x9e3779b97f4a7c15 & MOST)
        other = number * (i + 1) >> 64
        found[i], found[other] = found[other], found[i]
    return found


def rate_at(step, steps):
    warm = max(1, int(0.05 * steps))
    return RATE * ((step + 1) / warm if step < warm else 0.5 * (1 + math.cos(math.pi * (step - warm) / (steps - warm))))


def nearest(w, bits):
    """As it is stored: on its groups' grids, which the extremes of these weights give."""
    w = w.detach()
    if bits:
        groups = w.view(len(w), -1, GROUP)
        h = (groups.abs().amax(2, keepdim=True) / (2 ** (bits - 1) - 0.5)).bfloat16().float()
        h[h == 0] = 1
        w = ((groups / h).round().clamp(-2 ** (bits - 1), 2 ** (bits - 1) - 1) * h).view_as(w)
    return w.bfloat16().float()


def rounded(weights, bits):
    """Gradients go through as if nothing were rounded."""
    return {n: w + nearest(w, bits) - w.detach() if n in PATHS else w for n, w in weights.items()}


def refit(weights, keep, x, wanted, seed, bits):
    leaves = {n: w.clone().requires_grad_() for n, w in weights.items()}
    channels = 1 / wanted.pow(2).mean((0, 1)).clamp_min(1e-12)
    adam = torch.optim.Adam(leaves.values(), betas=(0.9, 0.99), eps=1e-10)
    sequences = [i for epoch in range(EPOCHS) for i in order(seed, epoch)]
    steps = len(sequences) // BATCH
    for step in range(steps):
        batch = sequences[step * BATCH:(step + 1) * BATCH]
        adam.param_groups[0]["lr"] = rate_at(step, steps)
        adam.zero_grad()
        ((block(rounded(leaves, bits), x[batch]) - wanted[batch]).pow(2) * channels).mean().backward()
        for n in keep:
            leaves[n].grad *= keep[n]
        adam.step()
    return {n: nearest(w, bits if n in PATHS else 0) for n, w in leaves.items()}


def main(model, calibration, wikitext):
    (t, blocks), ids, text = load_model(model), load_sequences(calibration), load_sequences(wikitext)
    for name, percent, bits in (("50", 50, 0), ("70", 70, 0), ("50-3", 50, 3)):
        x, pruned, losses = t["model.embed_tokens.weight"][ids[:SEQUENCES]], [], []
        for index, p in enumerate(blocks):
            with torch.no_grad():
                keep, wanted = wanda(p, x, percent / 100), block(p, x)
            pruned.append(refit({n: w * keep[n] if n in keep else w for n, w in p.items()}, keep, x, wanted, index, bits))
            with torch.no_grad():
                x = block(pruned[-1], x)
            error = (wanted - x) / wanted.norm(dim=1, keepdim=True)
            losses.append((error.pow(2).sum((1, 2)) / x.shape[2]).mean().item())
        with torch.no_grad():
            result = {"pruned_perplexity": perplexity(pruned, t, text), "blocks": [{"reconstruction": loss} for loss in losses]}
        with open(os.path.join(HERE, f"tiny-llama.refit-{name}.json"), "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
        print(name, result["pruned_perplexity"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
