#!/usr/bin/env python3
"""Writes tiny-llama.importance-*.json: BESA by row and one-shot pruning, each by SparseGPT's importance in its two forms and by
weight × gradient, by the published classes
(`models/sparse_layers.py`, `optimizers/prodigy.py` of github.com/OpenGVLab/LLMPrune-BESA), in PyTorch, fp32, on the bundled model.

    importance.py DIRECTORY_OF_THE_PUBLISHED_CODE DIRECTORY_OF_TINY_LLAMA CALIBRATION WIKITEXT2 [besa-wanda …]

Needs torch and safetensors. Batches of one sequence, one epoch, Prodigy with a d_coef of 5, lambda 5, 101 candidates. `besa-wanda` is the run of
tiny-llama.besa-row-50-d5.json again, and is not written. The classes know no importance by gradient: it is put into them. It is Σ |w·g| over the
sequences, g being the gradient of Σ ±y/‖y‖, the norms those of a sequence's channels, the signs besad's (base/random.h)."""
import functools
import importlib
import json
import os
import sys
import types

import torch

from admm import HEADS, HERE, PATHS, load_model, load_sequences, perplexity, rms, rotated
from refit import MOST, mix

SPARSITY, LAMBDA, D_COEF = 0.5, 5, 5
METRICS = {"wanda": "Wanda", "sparsegpt": "SparseGPT-Git", "sparsegpt-published": "SparseGPT", "gradient": "Weight"}
F = torch.nn.functional


def published_classes(directory):
    """The class has its masks made by a kernel for CUDA: of each row, so many of the lowest go."""
    def mask_gen_forward(mask, order, counts):
        place = torch.empty_like(order).scatter_(1, order, torch.arange(order.shape[1]).expand_as(order))
        return (mask * (place >= counts[:, None]),)

    sys.modules["mask_gen_cuda"] = types.SimpleNamespace(mask_gen_forward=mask_gen_forward)
    sys.path.insert(0, directory)
    return importlib.import_module("models.sparse_layers").SparseLinear, importlib.import_module("optimizers.prodigy").Prodigy


def forward(p, x):
    """The block, its linears being modules."""
    batch, length, hidden = x.shape
    inner = rms(x, p["norm1"])
    q, k, v = (p[n](inner).view(batch, length, HEADS, -1).transpose(1, 2) for n in "qkv")
    a = F.scaled_dot_product_attention(rotated(q), rotated(k), v, is_causal=True)
    h = x + p["o"](a.transpose(1, 2).reshape(batch, length, hidden))
    inner = rms(h, p["norm2"])
    return h + p["down"](F.silu(p["gate"](inner)) * p["up"](inner))


def loss_of(y, wanted):
    return ((wanted - y) / wanted.norm(dim=1, keepdim=True)).pow(2).sum() / y.shape[2]


def batches(p, x):
    with torch.no_grad():
        return torch.cat([forward(p, x[i:i + 1]) for i in range(len(x))])


def learn(layers, p, x, wanted, prodigy):
    optimizer = prodigy([layer.sparsity_probabilities for layer in layers.values()], 1, d_coef=D_COEF)
    params = sum(layer.param_num for layer in layers.values())
    for i in range(len(x)):
        y = forward(p, x[i:i + 1])
        rate = sum(layer.sparsity * layer.param_num for layer in layers.values()) / params
        optimizer.zero_grad()
        (loss_of(y, wanted[i:i + 1]) + LAMBDA * ((rate - SPARSITY) / SPARSITY) ** 2).backward()
        optimizer.step()


def signs(tokens, hidden):
    bits = [mix(mix(0) + (i + 1) * 0x9e3779b97f4a7c15 & MOST) for i in range(0, tokens * hidden, 64)]
    return torch.tensor([1. if word >> j & 1 else -1. for word in bits for j in range(64)])[:tokens * hidden].view(1, tokens, hidden)


def rank_by_gradient(layers, weights, x, wanted):
    leaves = {n: weights[n].clone().requires_grad_() for n in layers}
    p = {**weights, **{n: functools.partial(lambda n, x: F.linear(x, leaves[n]), n) for n in leaves}}
    scores, moved = {n: torch.zeros_like(weights[n]) for n in layers}, signs(*x.shape[1:])
    for i in range(len(x)):
        loss = (forward(p, x[i:i + 1]) / wanted[i:i + 1].norm(dim=1, keepdim=True) * moved).sum()
        for n, gradient in zip(leaves, torch.autograd.grad(loss, list(leaves.values()))):
            scores[n] += (weights[n] * gradient).abs()
    for n, layer in layers.items():
        layer.W_metric, layer.get_w_metric = scores[n], lambda: None
        layer.sort_indices = torch.sort(scores[n], dim=-1, stable=True)[1]


def prune_block(weights, x, metric, learns, classes):
    """The pruned weights, what the block gives with them, and a record of it."""
    sparse_linear, prodigy = classes
    layers = {}
    for n in PATHS:
        linear = torch.nn.Linear(weights[n].shape[1], weights[n].shape[0], bias=False)
        linear.weight.data = weights[n].clone()
        layers[n] = sparse_linear(linear, METRICS[metric])
    p = {**weights, **layers}
    hooks = [layer.register_forward_hook(lambda layer, inputs, y: layer.add_batch(inputs[0].data, y.data)) for layer in layers.values()]
    wanted = batches(p, x)
    for hook in hooks:
        hook.remove()
    if metric == "gradient":
        rank_by_gradient(layers, weights, x, wanted)
    for layer in layers.values():
        if not learns:
            layer.sparsity = SPARSITY
        layer.init_learn_sparsity(0.01, blocksize=1 if learns else -1, sigmoid_smooth=True)
    if learns:
        learn(layers, p, x, wanted, prodigy)
    record = {}
    if learns:
        record["rates"] = {PATHS[n].split(".")[1]: layer.update_sparsity().item() for n, layer in layers.items()}
        for layer in layers.values():
            layer.finish_learn_sparsity()
    y = batches(p, x)
    record["reconstruction"] = sum(loss_of(y[i:i + 1], wanted[i:i + 1]).item() for i in range(len(x))) / len(x)
    return {**weights, **{n: layer.weight.data for n, layer in layers.items()}}, y, record


def main(published, model, calibration, wikitext, *names):
    classes = published_classes(published)
    (t, blocks), ids, text = load_model(model), load_sequences(calibration), load_sequences(wikitext)
    for name in names or [f"{way}-{metric}" for metric in list(METRICS)[1:] for way in ("one-shot", "besa")]:
        way, metric = name.rsplit("-", 1) if "published" not in name else (name.split("-sparsegpt")[0], "sparsegpt-published")
        x, pruned, records = t["model.embed_tokens.weight"][ids], [], []
        for weights in blocks:
            new, x, record = prune_block(weights, x, metric, way == "besa", classes)
            pruned.append(new)
            records.append(record)
        with torch.no_grad():
            zeros = sum((block[n] == 0).sum().item() for block in pruned for n in PATHS)
            params = sum(block[n].numel() for block in pruned for n in PATHS)
            result = {"method": way, "importance": metric, "sparsity": SPARSITY, "pruned_perplexity": perplexity(pruned, t, text),
                      "achieved_sparsity": zeros / params, "blocks": records}
        print(name, result["pruned_perplexity"], result["achieved_sparsity"], [r["reconstruction"] for r in records], flush=True)
        if metric == "wanda":
            continue
        with open(os.path.join(HERE, f"tiny-llama.importance-{name}.json"), "w") as file:
            json.dump(result, file, indent=1)
            file.write("\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
