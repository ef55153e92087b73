#!/usr/bin/env python3
"""Writes engine/text/unicode_tables.c: the character classes in which the tokenizers package follows old versions of Unicode.

Each is asked of the package, character by character, since its tables are of different versions, older than those of Debian's
libraries, and models were trained on what they say.

    python3 tests/text/make_unicode_tables.py
"""
import pathlib

from tokenizers import normalizers, pre_tokenizers

OUT = pathlib.Path(__file__).resolve().parents[2] / "engine/text/unicode_tables.c"
ALL = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]

HEAD = """/* Made by tests/text/make_unicode_tables.py from what the tokenizers package does; not to be edited. */
#include "engine/text/unicode_tables.h"

/* clang-format off */
"""


def ranges(values):
    """(first, last, value) of runs of equal values; None is left out."""
    out = []
    for code, value in values:
        if value is None:
            continue
        if out and out[-1][1] == code - 1 and out[-1][2] == value:
            out[-1][1] = code
        else:
            out.append([code, code, value])
    return out


def table(name, entries, with_value):
    cells = [f"{{{a:#x}, {b:#x}, {v}}}" if with_value else f"{{{a:#x}, {b:#x}, 0}}" for a, b, v in entries]
    lines, line = [], "\t"
    for cell in cells:
        if len(line) + len(cell) > 118:
            lines.append(line.rstrip())
            line = "\t"
        line += cell + ", "
    lines.append(line.rstrip())
    return (f"const struct unicode_range {name}[] = {{\n" + "\n".join(lines) + "\n};\n"
            f"const size_t {name}_count = sizeof {name} / sizeof *{name};\n")


def members(keeps):
    """The characters that `keeps` says are not kept."""
    return ranges((c, None if keeps(chr(c)) else 0) for c in ALL)


def script_groups():
    split = pre_tokenizers.UnicodeScripts().pre_tokenize_str
    known, last, out = [], None, []  # a character of each group
    for c in ALL:
        text = chr(c)
        if not split(text):
            out.append((c, None))
            continue
        if last is None or len(split(known[last] + text)) > 1:
            last = next((i for i, other in enumerate(known) if len(split(other + text)) == 1), None)
            if last is None:
                last = len(known)
                known.append(text)
        out.append((c, last))
    return ranges(out)


def main():
    bert = normalizers.BertNormalizer
    accents = bert(clean_text=False, handle_chinese_chars=False, strip_accents=True, lowercase=False)
    clean = bert(clean_text=True, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    punctuation = pre_tokenizers.Punctuation("removed")
    parts = [
        table("unicode_nonspacing", members(accents.normalize_str), False),
        table("unicode_combining", members(normalizers.StripAccents().normalize_str), False),
        table("unicode_unprintable", members(clean.normalize_str), False),
        table("unicode_punctuation", members(punctuation.pre_tokenize_str), False),
        table("unicode_scripts", script_groups(), True),
    ]
    OUT.write_text(HEAD + "\n" + "\n".join(parts))


if __name__ == "__main__":
    main()
