#!/usr/bin/env python3
"""Restores an archive, from docs/format.md alone: archive_reader.py ARCHIVE_DIR MODEL_DIR. Slow, and of Python 3 alone: what besad
writes is read by something that shares no code with it."""
import hashlib
import json
import os
import struct
import sys
import zlib


class Damaged(Exception):
    pass


def check(condition, what):
    if not condition:
        raise Damaged(what)


def align(size, to=64):
    return -(-size // to) * to


def safetensors(data):
    """The bytes before the data, the metadata, and {name: (dtype, shape, bytes)} of a file."""
    length, = struct.unpack_from("<Q", data)
    tensors = json.loads(data[8:8 + length])
    metadata = tensors.pop("__metadata__", {})
    body = memoryview(data)[8 + length:]
    return data[:8 + length], metadata, {
        name: (tensor["dtype"], tensor["shape"], body[slice(*tensor["data_offsets"])]) for name, tensor in tensors.items()}


def decoder(lengths):
    """{(length, code): symbol}"""
    codes, code = {}, 0
    for length in range(1, 13):
        for symbol in range(256):
            if lengths[symbol] == length:
                codes[length, code] = symbol
                code += 1
        code *= 2
    return codes


def symbols(stream, count, codes):
    found, length, code, at = [], 0, 0, 0
    while len(found) < count:
        length, code, at = length + 1, code * 2 + (stream[at // 8] >> at % 8 & 1), at + 1
        check(length <= 12, "a code that is none")
        if (length, code) in codes:
            found.append(codes[length, code])
            length, code = 0, 0
    check(not any(stream[(at + 7) // 8:]) and (at % 8 == 0 or stream[at // 8] >> at % 8 == 0), "something behind the codes")
    return found


def block_of_codes(encoding, bits, zero, block, count, codes):
    """The kept codes of a block of a quantizer's, as they are in the tensor."""
    if "huffman" in encoding:
        values = symbols(block, count, codes)
    else:
        size = (count * bits + 7) // 8
        check(len(block) == align(size) and not any(block[size:]), "a block of another size")
        halves = [half for byte in block[:size] for half in ((byte,) if bits == 8 else (byte & 15, byte >> 4))]
        check(not any(halves[count:]), "something behind the codes")
        values = halves[:count]
    check(all(value < 1 << bits for value in values), "a code of more bits")
    check("mask" not in encoding or all(values), "a code that is kept, and left out")
    return [value ^ zero for value in values]


def block_of_floats(encoding, width, block, count, codes):
    """The kept values of a block, as bytes each."""
    if "huffman" not in encoding:
        check(len(block) == align(count * width) and not any(block[count * width:]), "a block of another size")
        return [bytes(block[i * width:(i + 1) * width]) for i in range(count)]
    rest, before = block[:count], align(count, 8)
    check(not any(block[count:before]), "something behind the rest")
    return [struct.pack("<H", (low & 0x80) << 8 | symbol << 7 | low & 0x7f)
            for symbol, low in zip(symbols(block[before:], count, codes), rest)]


def restore_tensor(name, entry, parts):
    encoding, shape = entry["encoding"], entry["shape"]
    if encoding == "plain":
        return bytes(parts[name][2])
    check(encoding in ("mask", "mask+huffman", "huffman"), f"the encoding {encoding}")
    bits, block_rows, zero = entry["value_bits"], entry["block_rows"], entry.get("zero")
    of_codes = entry["dtype"] == "I32"
    check(bits in ((4, 8) if of_codes else (16, 32)), f"values of {bits} bits")
    check(0 <= zero < 1 << bits if of_codes else zero is None, "the code that is left out")
    width, columns = bits // 8, shape[-1] * (32 // bits if of_codes else 1)
    left_out = zero if of_codes else bytes(width)
    rows = 1
    for size in shape[:-1]:
        rows *= size
    blocks, stride, result, kept = -(-rows // block_rows), -(-columns // 64) * 8, [], 0
    offsets = struct.unpack(f"<{blocks + 1}q", parts[name + ":offsets"][2][:8 * (blocks + 1)])
    values = parts[name + ":values"][2]
    mask = parts[name + ":mask"][2] if "mask" in encoding else None
    codes = decoder(parts[name + ":lengths"][2]) if "huffman" in encoding else None
    check(bits != 4 or codes is None or not any(parts[name + ":lengths"][2][16:]), "codes of symbols that are none")

    def block_values(data, count):
        return block_of_codes(encoding, bits, zero, data, count, codes) if of_codes else \
            block_of_floats(encoding, width, data, count, codes)

    check(mask is None or parts[name + ":mask"][1] == [blocks, block_rows, stride], "the shape of the bitmap")
    for block in range(blocks):
        here = min(block_rows, rows - block * block_rows)
        data = values[offsets[block]:offsets[block + 1]]
        if mask is None:
            result += block_values(data, here * columns)
            continue
        begin = block * block_rows * stride
        told = [int.from_bytes(mask[begin + row * stride:begin + (row + 1) * stride], "little") for row in range(block_rows)]
        check(all(row >> columns == 0 for row in told[:here]) and not any(told[here:]), "bits beyond the tensor")
        count = sum(bin(row).count("1") for row in told)
        found = iter(block_values(data, count))
        kept += count
        for row in told[:here]:
            result += [next(found) if row >> column & 1 else left_out for column in range(columns)]
    check(mask is None or kept == entry["nonzeros"], "the number of values")
    if not of_codes:
        return b"".join(result)
    return bytes(result) if bits == 8 else bytes(low | high << 4 for low, high in zip(result[::2], result[1::2]))


def restore(archive):
    """The bytes of what was packed, from those of the file that holds it, and those that the latter begins with."""
    own_head, metadata, parts = safetensors(archive)
    check(len(own_head) % 64 == 0, "the alignment")
    check(metadata.get("format") == "besad" and metadata.get("version") == "1", "the format")
    head = bytes(parts[":head"][2][:int(metadata["head_bytes"])])
    check(f"{zlib.crc32(head):08x}" == metadata["head_crc32"], "the checksum of the head")
    result = bytearray(int(metadata["file_bytes"]))
    result[:len(head)] = head
    header = json.loads(head[8:])
    for name, tensor in header.items():
        if name == "__metadata__":
            continue
        entry = json.loads(metadata["tensor:" + name])
        check(entry["shape"] == tensor["shape"] and entry["dtype"] == tensor["dtype"], "an entry")
        data = restore_tensor(name, entry, parts)
        check(f"{zlib.crc32(data):08x}" == entry["crc32"], f"the checksum of {name}")
        begin, end = tensor["data_offsets"]
        check(len(data) == end - begin, f"the size of {name}")
        result[len(head) + begin:len(head) + end] = data
    return bytes(result), own_head


def unpack(archive, model):
    with open(os.path.join(archive, "besad-archive.json")) as file:
        manifest = json.load(file)
    check(manifest["format"] == "besad-archive" and manifest["version"] == 1, "the manifest")
    for listed in manifest["files"]:
        with open(os.path.join(archive, listed.get("archive", listed["name"])), "rb") as file:
            data = hashed = file.read()
        if "archive" in listed:
            data, hashed = restore(data)
        check(hashlib.sha256(hashed).hexdigest() == listed.get("head_sha256", listed.get("sha256")), listed["name"])
        check(len(data) == listed["bytes"], listed["name"])
        path = os.path.join(model, listed["name"])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)


if __name__ == "__main__":
    unpack(*sys.argv[1:])
