#!/usr/bin/env python3
"""Golden blocks of ggml's types: what the package `gguf` (0.19, pip install gguf), which llama.cpp's converter quantizes with, makes of weights that
are spelled out here. tests/unit/test_export_blocks.c reads the file.

Usage: make.py (writes blocks.bin beside itself: per case 32 float32, then its Q8_0, Q4_0 and Q4_1 block, 34, 18 and 20 bytes)"""
import os
import struct

import numpy
from gguf import GGMLQuantizationType as Type
from gguf import quants

HERE = os.path.dirname(os.path.abspath(__file__))


def cases():
    random = numpy.random.default_rng(7)
    for scale in (1, 0.02, 1e-3, 300):
        for _ in range(8):
            yield random.standard_normal(32) * scale
    yield numpy.full(32, 0.25)
    yield numpy.full(32, -0.25)
    yield numpy.abs(random.standard_normal(32)) + 1
    yield -numpy.abs(random.standard_normal(32)) - 1
    yield numpy.where(numpy.arange(32) == 5, -3.0, 3.0)  # two of the same magnitude
    yield numpy.arange(32) * 1e-6 + 1e-7                 # scales below the smallest normal half
    yield numpy.arange(-16, 16) + 0.5                    # codes half way between two
    for part in (0.5, 0.9):                              # with zeros; Q4_1 has rules of its own there
        for _ in range(8):
            yield random.standard_normal(32) * (random.random(32) > part)
    yield numpy.zeros(32)


def main():
    with open(os.path.join(HERE, "blocks.bin"), "wb") as file:
        for case in cases():
            weights = case.astype(numpy.float32)
            file.write(weights.tobytes())
            for kind in (Type.Q8_0, Type.Q4_0, Type.Q4_1):
                file.write(quants.quantize(weights.reshape(1, 32), kind).tobytes())
    assert struct.calcsize("32f") + 34 + 18 + 20 == 200


if __name__ == "__main__":
    main()
