"""Reads GGUF files: an implementation of its own, from ggml's docs/gguf.md, for what besad writes; and safetensors."""
import os
import struct
import sys

from support import ROOT

sys.path.insert(0, os.path.join(ROOT, "bench"))
from random_models import read_safetensors  # noqa: E402

ALIGNMENT = 32
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, ARRAY = 8, 9
# Type: its name, weights in a block, bytes of a block.
TYPES = {0: ("F32", 1, 4), 1: ("F16", 1, 2), 2: ("Q4_0", 32, 18), 3: ("Q4_1", 32, 20), 8: ("Q8_0", 32, 34)}


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, code):
        values = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return values[0]

    def text(self):
        length = self.take("Q")
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def value(self, kind):
        if kind == TEXT:
            return self.text()
        if kind == ARRAY:
            inner, count = self.take("I"), self.take("Q")
            return [self.value(inner) for _ in range(count)]
        return self.take(SCALARS[kind])


class Gguf:
    """pairs: {key: value}; tensors: {name: (type's name, shape from the outermost on, bytes)}, in their order."""

    def __init__(self, path):
        with open(path, "rb") as file:
            reader = Reader(file.read())
        if reader.data[:4] != b"GGUF":
            raise ValueError("no GGUF")
        reader.at = 4
        version, tensors, pairs = reader.take("I"), reader.take("Q"), reader.take("Q")
        if version != 3:
            raise ValueError(f"version {version}")
        self.pairs = {}
        for _ in range(pairs):
            key = reader.text()
            if key in self.pairs:
                raise ValueError(f"{key} is there twice")
            self.pairs[key] = reader.value(reader.take("I"))
        heads = []
        for _ in range(tensors):
            name, rank = reader.text(), reader.take("I")
            shape = [reader.take("Q") for _ in range(rank)][::-1]
            heads.append((name, shape, *TYPES[reader.take("I")], reader.take("Q")))
        start = -(-reader.at // ALIGNMENT) * ALIGNMENT
        self.tensors, end = {}, 0
        for name, shape, kind, block, size, offset in heads:
            count = 1
            for length in shape:
                count *= length
            if offset != end or shape[-1] % block:
                raise ValueError(f"{name}: at {offset}, expected {end}")
            bytes_ = count // block * size
            end = -(-(offset + bytes_) // ALIGNMENT) * ALIGNMENT
            self.tensors[name] = (kind, shape, reader.data[start + offset:start + offset + bytes_])
        if start + end != len(reader.data):
            raise ValueError(f"{len(reader.data)} bytes, expected {start + end}")


def weights(kind, data):
    """The numbers that a tensor's bytes stand for, by the formulas of engine/export/blocks.h."""
    if kind in ("F32", "F16"):
        return list(struct.unpack(f"<{len(data) // (4 if kind == 'F32' else 2)}{'f' if kind == 'F32' else 'e'}", data))
    size, found = {"Q8_0": 34, "Q4_0": 18, "Q4_1": 20}[kind], []
    for at in range(0, len(data), size):
        block = data[at:at + size]
        (d,) = struct.unpack_from("<e", block)
        if kind == "Q8_0":
            found += [d * q for q in struct.unpack_from("<32b", block, 2)]
            continue
        codes = block[size - 16:]
        codes = [code & 15 for code in codes] + [code >> 4 for code in codes]
        m = struct.unpack_from("<e", block, 2)[0] if kind == "Q4_1" else -8 * d
        found += [d * code + m for code in codes]
    return found


def read_numbers(path):
    """{name: (shape, numbers)} of a safetensors file of BF16, F16 and F32."""
    found = {}
    for name, (dtype, shape, part) in read_safetensors(path)[1].items():
        if dtype == "BF16":
            wide = bytearray(2 * len(part))
            wide[2::4], wide[3::4] = part[::2], part[1::2]
            numbers = struct.unpack(f"<{len(wide) // 4}f", wide)
        else:
            numbers = struct.unpack({"F32": f"<{len(part) // 4}f", "F16": f"<{len(part) // 2}e"}[dtype], part)
        found[name] = (shape, list(numbers))
    return found
