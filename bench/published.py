#!/usr/bin/env python3
"""Times the published BESA code on the CPU, with its own layer and optimizer classes, on the job that besad runs.

    published.py --besa DIR model   MODEL_DIR CALIBRATION.safetensors    a whole model, block by block (pruning only)
    published.py --besa DIR block                                       one random block: hidden 2048, 8 x 512 tokens

DIR is a checkout of the code (github.com/OpenGVLab/LLMPrune-BESA). Needs torch, transformers and safetensors. Its CUDA
extension only fills a mask from sorted indices; here torch does that on the CPU. Prints one JSON object."""
import argparse
import json
import sys
import time
import types

import torch


def mask_gen_forward(mask, sort_indices, counts):
    keep = torch.arange(mask.shape[1])[None, :] >= counts[:, None]
    return [mask.scatter_(1, sort_indices, keep.to(mask.dtype))]


def import_published(path):
    extension = types.ModuleType("mask_gen_cuda")
    extension.mask_gen_forward = mask_gen_forward
    sys.modules["mask_gen_cuda"] = extension
    sys.path.insert(0, path)
    from models.sparse_layers import SparseLinear
    from optimizers.prodigy import Prodigy
    return SparseLinear, Prodigy


LINEARS = [("self_attn", n) for n in ("q_proj", "k_proj", "v_proj", "o_proj")] + [
    ("mlp", n) for n in ("gate_proj", "up_proj", "down_proj")]


def prune_block(layer, rope, inputs, published, target=0.5, d_coef=5.0, penalty=5.0):
    """main.py's steps for one block: reference pass, learning, validation pass. Returns the block's outputs and its figures."""
    SparseLinear, Prodigy = published
    phases = {}

    def forward(x):
        out = layer(x, position_embeddings=rope, attention_mask=None)
        return out[0] if isinstance(out, tuple) else out

    start = time.perf_counter()
    sparse = {}
    for module, name in LINEARS:
        owner = getattr(layer, module)
        sparse[name] = SparseLinear(getattr(owner, name), "Wanda", "row")
        setattr(owner, name, sparse[name])
    hooks = [s.register_forward_hook(lambda _, i, o, s=s: s.add_batch(i[0].data, o.data)) for s in sparse.values()]
    with torch.no_grad():
        reference = torch.cat([forward(x[None]) for x in inputs])
    for hook in hooks:
        hook.remove()
    phases["reference"] = time.perf_counter() - start

    start = time.perf_counter()
    for s in sparse.values():
        s.init_learn_sparsity(0.01, blocksize=1, sigmoid_smooth=True)
    phases["ranking"] = time.perf_counter() - start

    start = time.perf_counter()
    thetas = [s.sparsity_probabilities for s in sparse.values()]
    optimizer = Prodigy(thetas, 1.0, weight_decay=0.0, decouple=True, d_coef=d_coef)
    total = sum(s.param_num for s in sparse.values())
    for x, wanted in zip(inputs, reference):
        out = forward(x[None])
        rate = sum(s.sparsity * s.param_num for s in sparse.values()) / total
        scale = torch.norm(wanted.t(), p=2, dim=1)
        loss = (((wanted[None] - out) / scale) ** 2).sum() / wanted.shape[-1] + penalty * ((rate - target) / target) ** 2
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    phases["learning"] = time.perf_counter() - start

    start = time.perf_counter()
    with torch.no_grad():
        outputs = torch.cat([forward(x[None]) for x in inputs])
        scale = reference.norm(dim=1, keepdim=True)
        reconstruction = ((((reference - outputs) / scale) ** 2).sum(dim=(1, 2)) / inputs.shape[-1]).mean().item()
        for (module, name), s in zip(LINEARS, sparse.values()):
            s.finish_learn_sparsity()
            setattr(getattr(layer, module), name, s.layer)
    phases["final"] = time.perf_counter() - start
    return outputs, {"seconds": sum(phases.values()), "phases": phases, "reconstruction": reconstruction, "sparsity": float(rate)}


def run_model(args, published):
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM
    model = LlamaForCausalLM.from_pretrained(args.model, dtype=torch.float32)
    ids = load_file(args.calibration)["input_ids"].long()
    with torch.no_grad():
        hidden = model.model.embed_tokens(ids)
        rope = model.model.rotary_emb(hidden, torch.arange(ids.shape[1])[None])
    blocks = []
    for layer in model.model.layers:
        hidden, figures = prune_block(layer, rope, hidden.detach(), published)
        blocks.append(figures)
    return {"seconds": sum(b["seconds"] for b in blocks), "blocks": blocks}


def run_block(published):
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaDecoderLayer, LlamaRotaryEmbedding
    config = LlamaConfig(hidden_size=2048, intermediate_size=5632, num_attention_heads=32, num_key_value_heads=4,
                         num_hidden_layers=1)
    config._attn_implementation = "sdpa"
    torch.manual_seed(0)
    layer = LlamaDecoderLayer(config, 0)
    inputs = torch.randn(8, 512, 2048)
    rope = LlamaRotaryEmbedding(config)(inputs, torch.arange(512)[None])
    return prune_block(layer, rope, inputs, published)[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--besa", required=True, help="path of the published code")
    parser.add_argument("--threads", type=int, default=0)
    kinds = parser.add_subparsers(dest="kind", required=True)
    model = kinds.add_parser("model")
    model.add_argument("model")
    model.add_argument("calibration")
    kinds.add_parser("block")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    published = import_published(args.besa)
    result = run_model(args, published) if args.kind == "model" else run_block(published)
    print(json.dumps({"what": args.kind, "torch": torch.__version__, "threads": torch.get_num_threads(), **result}))


main()
