#!/usr/bin/env python3
"""Times the published BESA code on the GPU, with its own layer and optimizer classes, on one random block: main.py's steps as it runs them
(fp32 weights under fp16 autocast, gradients scaled, batches of one sequence, a validation pass after the learning).

    cuda_published.py --besa DIR [--samples N] [--length T] HIDDEN INTERMEDIATE HEADS KV_HEADS

DIR is a checkout of the code (github.com/OpenGVLab/LLMPrune-BESA). Needs torch and transformers. Its CUDA extension mask_gen_cuda is used
where it is built; else torch fills the mask on the GPU, and the result says so. Prints one JSON object."""
import argparse
import json
import sys
import time
import types

import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding

LINEARS = [("self_attn", n) for n in ("q_proj", "k_proj", "v_proj", "o_proj")] + [
    ("mlp", n) for n in ("gate_proj", "up_proj", "down_proj")]
TARGET, D_COEF, PENALTY = 0.5, 5.0, 5.0


def import_published(path):
    sys.path.insert(0, path)
    try:
        import mask_gen_cuda  # noqa: F401
        extension = "mask_gen_cuda"
    except ImportError:
        def mask_gen_forward(mask, sort_indices, counts):
            keep = torch.arange(mask.shape[1], device=mask.device)[None, :] >= counts[:, None]
            return [mask.scatter_(1, sort_indices, keep.to(mask.dtype))]
        stand_in = types.ModuleType("mask_gen_cuda")
        stand_in.mask_gen_forward = mask_gen_forward
        sys.modules["mask_gen_cuda"] = stand_in
        extension = "torch"
    from models.sparse_layers import SparseLinear
    from optimizers.prodigy import Prodigy
    return SparseLinear, Prodigy, extension


def now():
    torch.cuda.synchronize()
    return time.perf_counter()


def prune_block(layer, rope, inputs, SparseLinear, Prodigy):
    phases = {}

    def forward(x):
        with torch.autocast("cuda", dtype=torch.float16):
            out = layer(x, position_embeddings=rope, attention_mask=None)
        return out[0] if isinstance(out, tuple) else out

    def norms(x):
        return torch.norm(x.float().reshape(-1, x.shape[-1]).t(), p=2, dim=1)

    start = now()
    sparse = {}
    for module, name in LINEARS:
        owner = getattr(layer, module)
        sparse[name] = SparseLinear(getattr(owner, name), "Wanda", "row")
        setattr(owner, name, sparse[name])
    hooks = [s.register_forward_hook(lambda _, i, o, s=s: s.add_batch(i[0].data, o.data)) for s in sparse.values()]
    reference = torch.empty_like(inputs)
    with torch.no_grad():
        for i in range(inputs.shape[0]):
            reference[i] = forward(inputs[i:i + 1])[0]
    for hook in hooks:
        hook.remove()
    phases["reference"] = now() - start

    start = now()
    for s in sparse.values():
        s.init_learn_sparsity(0.01, blocksize=1, sigmoid_smooth=True)
    phases["rank"] = now() - start

    start = now()
    thetas = [s.sparsity_probabilities for s in sparse.values()]
    optimizer = Prodigy(thetas, 1.0, weight_decay=0.0, decouple=True, d_coef=D_COEF)
    scaler = torch.amp.GradScaler("cuda")
    total = sum(s.param_num for s in sparse.values())
    losses = []
    for i in range(inputs.shape[0]):
        wanted, out = reference[i:i + 1], forward(inputs[i:i + 1])
        rate = sum(s.sparsity * s.param_num for s in sparse.values()) / total
        loss = (((wanted - out) / norms(wanted)) ** 2).sum() / wanted.shape[-1] + PENALTY * ((rate - TARGET) / TARGET) ** 2
        losses.append(loss.item())
        optimizer.zero_grad()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        torch.cuda.empty_cache()
    phases["learn"] = now() - start

    start = now()
    with torch.no_grad():
        for i in range(inputs.shape[0]):
            out = forward(inputs[i:i + 1])
            losses.append((((reference[i:i + 1] - out) / norms(reference[i:i + 1])) ** 2).sum().item())
    phases["validation"] = now() - start

    start = now()
    for s in sparse.values():
        s.finish_learn_sparsity()
    with torch.no_grad():
        for i in range(inputs.shape[0]):
            forward(inputs[i:i + 1])
    phases["final"] = now() - start
    return {"seconds": sum(phases.values()), "phases": phases, "sparsity": float(rate), "last_loss": losses[inputs.shape[0] - 1]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--besa", required=True, help="path of the published code")
    parser.add_argument("--samples", type=int, default=128)
    parser.add_argument("--length", type=int, default=2048)
    parser.add_argument("sizes", type=int, nargs=4, metavar="SIZE", help="hidden, intermediate, heads, kv_heads")
    args = parser.parse_args()
    hidden, intermediate, heads, kv_heads = args.sizes
    SparseLinear, Prodigy, extension = import_published(args.besa)
    config = LlamaConfig(hidden_size=hidden, intermediate_size=intermediate, num_attention_heads=heads, num_key_value_heads=kv_heads,
                         num_hidden_layers=1, max_position_embeddings=4096)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    layer = LlamaDecoderLayer(config, 0).cuda()
    with torch.no_grad():
        for _, parameter in layer.named_parameters():
            if parameter.dim() == 2:
                parameter.normal_(0, 0.02)
    inputs = torch.randn(args.samples, args.length, hidden, device="cuda")
    rope = LlamaRotaryEmbedding(config).cuda()(inputs[:1], torch.arange(args.length, device="cuda")[None])
    prune = prune_block(layer, rope, inputs, SparseLinear, Prodigy)
    print(json.dumps({"device": torch.cuda.get_device_name(), "torch": torch.__version__, "mask": extension,
                      "peak_memory_bytes": torch.cuda.max_memory_allocated(), **prune}))


main()
