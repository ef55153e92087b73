#!/usr/bin/env python3
"""Writes tiny-llama.admm-*.json and tiny-llama.fit-*.json: ADMM's masks and least squares on what is kept (Boža, arXiv 2401.02938), stage by stage,
in PyTorch, fp32, on the bundled model and the first 32 calibration sequences.

    admm.py DIRECTORY_OF_TINY_LLAMA CALIBRATION WIKITEXT2

Needs torch and safetensors. The sparsity rises as a cubic over 15 of 20 iterations, rho is 1, and the smallest of a whole linear go; a
reconstruction loss is the mean over the sequences of Σ((ref − y)/‖ref‖)²/H, the norms being those of a sequence's channels."""
import json
import math
import os
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

HERE = os.path.dirname(os.path.abspath(__file__))
SEQUENCES, LENGTH = 32, 256
HEADS, EPS, THETA = 6, 1e-5, 10000.0
PATHS = {"q": "self_attn.q_proj", "k": "self_attn.k_proj", "v": "self_attn.v_proj", "o": "self_attn.o_proj",
         "gate": "mlp.gate_proj", "up": "mlp.up_proj", "down": "mlp.down_proj"}
STAGES = (("qkv", ("q", "k", "v")), ("o", ("o",)), ("in", ("gate", "up")), ("down", ("down",)))


def rms(x, weight):
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * weight


def rotated(x):
    half = x.shape[-1] // 2
    width = x.shape[-1]
    angle = torch.arange(x.shape[-2]).float()[:, None] / THETA ** (torch.arange(0, width, 2).float() / width)
    angle = torch.cat([angle, angle], 1)
    return x * angle.cos() + torch.cat([-x[..., half:], x[..., :half]], -1) * angle.sin()


def block(p, x, inputs=None):
    """inputs: receives what goes into each stage."""
    batch, length, hidden = x.shape
    inputs = {} if inputs is None else inputs
    inputs["qkv"] = rms(x, p["norm1"])
    q, k, v = (F.linear(inputs["qkv"], p[n]).view(batch, length, HEADS, -1).transpose(1, 2) for n in "qkv")
    a = F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True)
    inputs["o"] = a.transpose(1, 2).reshape(batch, length, hidden)
    h = x + F.linear(inputs["o"], p["o"])
    inputs["in"] = rms(h, p["norm2"])
    inputs["down"] = F.silu(F.linear(inputs["in"], p["gate"])) * F.linear(inputs["in"], p["up"])
    return h + F.linear(inputs["down"], p["down"])


def smallest(score, sparsity, pattern, share):
    """What stays where `share` of the final number of weights goes."""
    rows, cols = score.shape
    keep = torch.ones(rows * cols, dtype=torch.bool)
    if not pattern:
        keep[torch.topk(score.flatten(), round(sparsity * share * rows * cols), largest=False).indices] = False
        return keep.view(rows, cols)
    groups = score.view(rows, cols // 4, 4)
    candidates = torch.zeros_like(groups, dtype=torch.bool).scatter_(2, groups.argsort(dim=2, stable=True)[..., :2], True)
    order = torch.where(candidates.view(rows, cols), score, torch.inf).argsort(dim=1, stable=True)
    return keep.view(rows, cols).scatter_(1, order[:, :round(share * cols // 2)], False)


def admm(weight, gram, sparsity, pattern):
    d = gram.diag().clamp_min(1e-8).sqrt()
    h = gram / d / d[:, None] + 0.1 * torch.eye(len(d))
    inverse = torch.linalg.inv(h + torch.eye(len(d)))
    w = weight * d
    b, u = w @ h, torch.zeros_like(w)
    for t in range(20):
        keep = smallest((w + u).abs(), sparsity, pattern, 1 - (1 - min(1, (t + 1) / 15)) ** 3)
        z = (w + u) * keep
        u = u + w - z
        w = (b + z - u) @ inverse
    return keep


def fit(weight, keep, gram):
    keep, damping = keep.float(), 0.01 * gram.diag().mean()
    inverse = 1 / (gram.diag() + damping)
    x = weight * keep
    r = keep * ((weight - x) @ gram + damping * (weight - x))
    p = r * inverse
    energy = (r * p).sum(1, keepdim=True)
    for _ in range(30):
        a = keep * (p @ gram + damping * p)
        step = energy / (p * a).sum(1, keepdim=True).clamp_min(1e-30)
        x, r = x + step * p, r - step * a
        new = (r * r * inverse).sum(1, keepdim=True)
        p = r * inverse + new / energy.clamp_min(1e-30) * p
        energy = new
    return x * keep


def wanda(p, x, sparsity):
    inputs = {}
    block(p, x, inputs)
    keep = {}
    for stage, names in STAGES:
        norms = inputs[stage].flatten(0, 1).pow(2).sum(0).sqrt()
        for n in names:
            order = (p[n].abs() * norms).argsort(dim=1, stable=True)
            keep[n] = torch.ones_like(p[n], dtype=torch.bool).scatter_(1, order[:, :int(sparsity * p[n].shape[1])], False)
    return keep


def prune_block(p, x, method, sparsity, pattern):
    masks = wanda(p, x, sparsity) if method == "fit" else None
    new = dict(p)
    for stage, names in STAGES:
        inputs = {}
        block(new, x, inputs)
        flat = inputs[stage].flatten(0, 1)
        gram = flat.T @ flat
        for n in names:
            keep = masks[n] if masks else admm(p[n], gram, sparsity, pattern)
            new[n] = fit(p[n], keep, gram).bfloat16().float()
    return new


def perplexity(blocks, t, ids):
    loss = 0
    for i in range(0, len(ids), 8):
        x = t["model.embed_tokens.weight"][ids[i:i + 8]]
        for p in blocks:
            x = block(p, x)
        logits = F.linear(rms(x, t["model.norm.weight"]), t["lm_head.weight"])[:, :-1]
        loss += F.cross_entropy(logits.reshape(-1, logits.shape[-1]), ids[i:i + 8, 1:].reshape(-1), reduction="sum").item()
    return math.exp(loss / ids[:, 1:].numel())


def load_model(model):
    """The tensors of a LLaMA model by their names, in fp32, and each block's by their names here."""
    t = {name: tensor.float() for name, tensor in load_file(os.path.join(model, "model.safetensors")).items()}
    blocks = []
    while f"model.layers.{len(blocks)}.input_layernorm.weight" in t:
        prefix = f"model.layers.{len(blocks)}."
        blocks.append({n: t[f"{prefix}{path}.weight"] for n, path in PATHS.items()})
        blocks[-1].update(norm1=t[prefix + "input_layernorm.weight"], norm2=t[prefix + "post_attention_layernorm.weight"])
    return t, blocks


def load_sequences(path):
    tokens = load_file(path)["input_ids"].long().flatten()
    return tokens[:len(tokens) // LENGTH * LENGTH].view(-1, LENGTH)


@torch.no_grad()
def main(model, calibration, wikitext):
    (t, blocks), ids, text = load_model(model), load_sequences(calibration), load_sequences(wikitext)
    dense = perplexity(blocks, t, text)
    for name, method, sparsity, pattern in (("admm-50", "admm", 0.5, None), ("admm-70", "admm", 0.7, None),
                                            ("admm-24", "admm", 0.5, "2:4"), ("fit-50", "fit", 0.5, None)):
        x, pruned, losses = t["model.embed_tokens.weight"][ids[:SEQUENCES]], [], []
        for p in blocks:
            pruned.append(prune_block(p, x, method, sparsity, pattern))
            wanted, x = block(p, x), block(pruned[-1], x)
            error = (wanted - x) / wanted.norm(dim=1, keepdim=True)
            losses.append((error.pow(2).sum((1, 2)) / x.shape[2]).mean().item())
        result = {"method": method, "sparsity": sparsity, "pattern": pattern or "unstructured", "dense_perplexity": dense,
                  "pruned_perplexity": perplexity(pruned, t, text), "blocks": [{"reconstruction": loss} for loss in losses]}
        with open(os.path.join(HERE, f"tiny-llama.{name}.json"), "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")
        print(name, result["pruned_perplexity"], flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
