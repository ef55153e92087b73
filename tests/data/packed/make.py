#!/usr/bin/env python3
"""Writes *.safetensors: small linears that compressed-tensors has packed (pack-quantized), and beside each, as "expected", the weights that it unpacks
them to.

Needs torch, safetensors, and compressed-tensors 0.20 or later. A file's name says bits, symmetric or not, group or row, rows, columns and type."""
import os

import torch
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from safetensors.torch import save_file

HERE = os.path.dirname(os.path.abspath(__file__))
CASES = [
    (4, True, 16, 3, 48, torch.bfloat16),
    (4, False, 8, 13, 24, torch.float16),
    (4, False, 0, 11, 21, torch.float32),
    (8, True, 0, 5, 7, torch.float16),
    (8, False, 16, 9, 32, torch.bfloat16),
    (8, False, 0, 6, 13, torch.bfloat16),
]


def main():
    torch.manual_seed(0)
    for bits, symmetric, group, rows, columns, dtype in CASES:
        weight = torch.randn(rows, columns) * 0.3 + (0 if symmetric else 0.1)
        groups = weight.view(rows, -1, group or columns)
        most, least = groups.amax(2).clamp_min(0), groups.amin(2).clamp_max(0)
        if symmetric:
            step = (torch.maximum(most, -least) / (2 ** (bits - 1) - 0.5)).to(dtype)
            zero = None
        else:
            step = ((most - least) / (2 ** bits - 1)).to(dtype)
            zero = ((-least / step.float()).round().clamp(0, 2 ** bits - 1) - 2 ** (bits - 1)).to(torch.int8)
        scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(
            num_bits=bits, symmetric=symmetric, strategy="group" if group else "channel", group_size=group or None))
        state = {"weight": weight.to(dtype), "weight_scale": step}
        if zero is not None:
            state["weight_zero_point"] = zero
        packed = PackedQuantizationCompressor.compress(state, scheme)
        expected = PackedQuantizationCompressor.decompress(packed, scheme)["weight"]
        name = f"{bits}-{'symmetric' if symmetric else 'zeros'}-{group or 'row'}-{rows}x{columns}-{str(dtype)[6:]}.safetensors"
        save_file({"P." + key: value.contiguous() for key, value in packed.items()} | {"expected": expected.contiguous()},
                  os.path.join(HERE, name))


main()
