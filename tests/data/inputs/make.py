#!/usr/bin/env python3
"""Makes data files as people have them: rows.jsonl, and the same rows or some ids in formats that need more than Python's own library to write.
Needs numpy, pyarrow, torch and zstandard.

Usage: tests/data/inputs/make.py"""
import json
import pathlib
import textwrap

import numpy
import pyarrow
import pyarrow.feather
import pyarrow.parquet
import torch
import zstandard

HERE = pathlib.Path(__file__).parent
ROWS = 24


def main():
    text = (HERE.parents[2] / "demo" / "wikitext2.test.txt").read_text()[:200 * ROWS]
    rows = [{"text": part} for part in textwrap.wrap(text, 200, drop_whitespace=False, replace_whitespace=False)][:ROWS]
    lines = "".join(json.dumps(row) + "\n" for row in rows).encode()
    (HERE / "rows.jsonl").write_bytes(lines)
    # Two frames, and one to be skipped before each.
    pack, skippable = zstandard.ZstdCompressor(), b"\x50\x2a\x4d\x18\x03\0\0\0xyz"
    (HERE / "rows.jsonl.zst").write_bytes(skippable + pack.compress(lines[:1000]) + skippable + pack.compress(lines[1000:]))
    table = pyarrow.table({"text": [row["text"] for row in rows[:2]]})
    pyarrow.parquet.write_table(table, HERE / "rows.parquet", compression="none")
    pyarrow.feather.write_feather(table, HERE / "rows.feather", compression="uncompressed")
    with pyarrow.ipc.new_stream(HERE / "rows.arrow", table.schema) as stream:
        stream.write_table(table)
    ids = numpy.arange(64).reshape(4, 16)
    numpy.save(HERE / "ids.npy", ids)
    torch.save(torch.tensor(ids), HERE / "ids.pt")
    torch.save(torch.tensor(ids), HERE / "ids-old.pt", _use_new_zipfile_serialization=False)
    ids.astype("uint16").tofile(HERE / "ids.bin")


if __name__ == "__main__":
    main()
