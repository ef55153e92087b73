#!/usr/bin/env python3
"""Writes tiny-llama.joint-*.json: BESA's rates, row by row, and the clipping of a quantizer learned together, and the clipping alone, in PyTorch,
fp32, on the first blocks of the bundled model and the first 32 calibration sequences.

    quantize.py DIRECTORY_OF_TINY_LLAMA CALIBRATION

Needs torch and safetensors. An epoch in batches of one sequence; 101 candidate rates, sigmoids, Prodigy with d_coef 5 for the rates, AdamW at 0.01
for the logits of the clipping, which start at 4. Roundings are passed straight through. Steps have the model's type, bf16, as have the weights in
the end; what is pruned is 0, and of each block exactly as many as the target."""
import json
import math
import os
import sys

import torch

from admm import HERE, PATHS, SEQUENCES, STAGES, block, load_model, load_sequences

CANDIDATES, LAMBDA, GROUP, BLOCKS = 101, 5, 32, 3
CASES = {"joint-50": (0.5, 3, False), "joint-0": (0, 3, True)}


def straight(rounded, x):
    return x + (rounded - x).detach()


def quantized(w, strength, bits, symmetric):
    groups = w.view(w.shape[0], -1, GROUP)
    most, least = groups.amax(2, keepdim=True).clamp_min(0), groups.amin(2, keepdim=True).clamp_max(0)
    gamma, delta = strength.sigmoid().unsqueeze(-1).chunk(2, 1) if not symmetric else (strength.sigmoid().unsqueeze(-1),) * 2
    parts = (2 ** bits - 1) / 2 if symmetric else 2 ** bits - 1
    h = gamma * torch.maximum(most, -least) / parts if symmetric else (gamma * most - delta * least) / parts
    h = straight(h.bfloat16().float(), h)
    low, high = (-2 ** (bits - 1), 2 ** (bits - 1) - 1) if symmetric else (0, 2 ** bits - 1)
    z = torch.zeros_like(h) if symmetric else -delta * least / h
    z = straight(z.round(), z)
    u = groups / h
    return (((straight(u.round(), u) + z).clamp(low, high) - z) * h).view_as(w)


class Prodigy:
    def __init__(self, thetas):
        self.p, self.p0 = thetas, [t.detach().clone() for t in thetas]
        self.m, self.v, self.s = ([torch.zeros_like(t) for t in thetas] for _ in range(3))
        self.d = self.most = self.d0 = 1e-6
        self.r = 0.0

    @torch.no_grad()
    def step(self):
        root, old = math.sqrt(0.999), self.d
        dot = total = 0.0
        for p, p0, m, v, s in zip(self.p, self.p0, self.m, self.v, self.s):
            dot += (p.grad.double() * (p0 - p).double()).sum().item()
            m.mul_(0.9).add_(p.grad, alpha=0.1 * old)
            v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001 * old * old)
            s.mul_(root).add_(p.grad, alpha=old / self.d0 * old)
            total += s.double().abs().sum().item()
        if total == 0:
            return
        self.r = root * self.r + old / self.d0 * old * dot
        found = 5 * self.r / total
        if self.d == self.d0:
            self.d = max(self.d, found)
        self.most = max(self.most, found)
        self.d = self.most
        for p, m, v in zip(self.p, self.m, self.v):
            p.sub_(old * m / (v.sqrt() + self.d * 1e-8))


def ranks(p, x):
    inputs = {}
    block(p, x, inputs)
    found = {}
    for stage, names in STAGES:
        norms = (inputs[stage].pow(2).sum((0, 1)) / len(x)).sqrt()
        for n in names:
            found[n] = (p[n].abs() * norms).argsort(dim=1, stable=True).argsort(dim=1)
    return found


def exact(rates, columns, zeros):
    """How many of each row go: a common shift of the rates, and the rest by the largest fractions."""
    def wanted(shift):
        return (rates + shift).clamp(0, 1) * columns

    low, high = -1.0, 1.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if wanted(middle).floor().sum() <= zeros else (low, middle)
    whole = wanted(low).floor()
    order = (whole - wanted(low)).argsort(stable=True)
    missing = int(zeros - whole.sum())
    assert 0 <= missing <= len(order)
    whole[order[:missing]] += 1
    return whole


class Learned:
    """What is learned of a linear."""
    def __init__(self, weight, rank, bits, symmetric):
        rows, self.cols = weight.shape
        self.weight, self.rank, self.bits, self.symmetric = weight, rank, bits, symmetric
        self.theta = torch.zeros(rows, CANDIDATES, requires_grad=True)
        self.strength = torch.full((rows, (1 if symmetric else 2) * self.cols // GROUP), 4.0, requires_grad=True)
        self.p = torch.arange(CANDIDATES - 1, -1, -1).double() / (CANDIDATES - 1)
        k = torch.arange(CANDIDATES - 1, -1, -1) * self.cols // (CANDIDATES - 1)
        self.pruned = (k[:, None] > torch.arange(self.cols)).float()

    def quantized(self):
        return quantized(self.weight, self.strength, self.bits, self.symmetric)

    def rates(self):
        return self.theta.sigmoid().softmax(1) @ self.p.float()

    def masked(self):
        soft = (1 - self.theta.sigmoid().softmax(1) @ self.pruned).gather(1, self.rank)
        hard = (self.rank >= (self.rates().detach().double() * self.cols).floor()[:, None]).float()
        return self.quantized() * straight(hard, soft)


def learn(p, x, wanted, case):
    target, bits, symmetric = case
    found = ranks(p, x)
    learned = {n: Learned(p[n], found[n], bits, symmetric) for n in PATHS}
    params = sum(p[n].numel() for n in PATHS)
    prodigy = Prodigy([linear.theta for linear in learned.values()])
    adam = torch.optim.AdamW([linear.strength for linear in learned.values()], lr=0.01, weight_decay=0)
    for i in range(len(x)):
        adam.zero_grad()
        for linear in learned.values():
            linear.theta.grad = None
        now = {n: learned[n].masked() if target else learned[n].quantized() for n in PATHS}
        y = block(p | now, x[i:i + 1])
        loss = ((wanted[i:i + 1] - y) / wanted[i:i + 1].norm(dim=1, keepdim=True)).pow(2).sum() / x.shape[2]
        if target:
            sparsity = sum((linear.rates() * linear.cols).sum() for linear in learned.values()) / params
            loss = loss + LAMBDA * ((sparsity - target) / target) ** 2
        loss.backward()
        if target:
            prodigy.step()
        adam.step()
    with torch.no_grad():
        rates = torch.cat([linear.rates().double() for linear in learned.values()])
        columns = torch.cat([torch.full((len(p[n]),), p[n].shape[1]).double() for n in PATHS])
        gone = exact(rates if target else rates * 0, columns, round(target * params)).split([len(p[n]) for n in PATHS])
        return p | {n: (learned[n].quantized() * (learned[n].rank >= k[:, None])).bfloat16().float() for n, k in zip(PATHS, gone)}


def main(model, calibration):
    (t, blocks), ids = load_model(model), load_sequences(calibration)
    for name, case in CASES.items():
        x, losses = t["model.embed_tokens.weight"][ids[:SEQUENCES]], []
        for p in blocks[:BLOCKS]:
            with torch.no_grad():
                wanted = block(p, x)
            done = learn(p, x, wanted, case)
            with torch.no_grad():
                x = block(done, x)
            losses.append((((wanted - x) / wanted.norm(dim=1, keepdim=True)).pow(2).sum((1, 2)) / x.shape[2]).mean().item())
            print(name, losses[-1], flush=True)
        with open(os.path.join(HERE, f"tiny-llama.{name}.json"), "w") as file:
            json.dump({"blocks": [{"reconstruction": loss} for loss in losses]}, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
