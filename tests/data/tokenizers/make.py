#!/usr/bin/env python3
"""Makes the small tokenizers of this directory and the ids that the tokenizers package gives for texts.bin.

Each tokenizer has the normalizer, pre-tokenizer, post-processor, model options and kinds of added tokens of the family it is named
after, and a vocabulary of a few hundred tokens trained on sample.txt. Needs the tokenizers package; CI uses what is committed.

    python3 tests/data/tokenizers/make.py [--out DIR] [--vocab N] [--corpus FILE ...]
"""
import argparse
import json
import pathlib
import random
import struct
import unicodedata

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

HERE = pathlib.Path(__file__).parent
SPACE = "\u2581"

GPT4 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
CL100K = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]"
          r"|\s+(?!\S)|\s+")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
TEKKEN = (r"[^\r\n\p{L}\p{N}]?" + UPPER + "*" + LOWER + r"+|[^\r\n\p{L}\p{N}]?" + UPPER + "+" + LOWER
          + r"*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+")
DEEPSEEK = (r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
            r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def split(regex, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": regex}, "behavior": behavior, "invert": invert}


def byte_level(prefix=False, use_regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": use_regex}


def metaspace(scheme, do_split):
    return {"type": "Metaspace", "replacement": SPACE, "prepend_scheme": scheme, "split": do_split}


def replace(pattern, content, kind="String"):
    return {"type": "Replace", "pattern": {kind: pattern}, "content": content}


def sequence(*parts):
    return {"type": "Sequence", "pretokenizers": list(parts)}


def template(token):
    return {"type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": token, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {token: {"id": token, "ids": [token], "tokens": [token]}}}  # ids are filled in at the end


def special(content, **flags):
    return {"content": content, "special": True, "normalized": False} | flags


def added(content, **flags):
    return {"content": content, "special": False, "normalized": False} | flags


PREPEND = {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": SPACE}, replace(" ", SPACE)]}
LLAMA2 = {"unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True}
BASE = [special("<unk>"), special("<s>"), special("</s>")]

# name: normalizer, pre_tokenizer, post_processor, model options, tokens at the start of the vocabulary, tokens behind it
FAMILIES = {
    "gpt2": (None, byte_level(use_regex=True), byte_level(True, True),
             {"continuing_subword_prefix": "", "end_of_word_suffix": ""}, [], [special("<|endoftext|>", normalized=True)]),
    "llama3": (None, sequence(split(GPT4 % "{1,3}"), byte_level()),
               {"type": "Sequence", "processors": [byte_level(True, True), template("<|begin_of_text|>")]},
               {"ignore_merges": True}, [],
               [special("<|begin_of_text|>"), special("<|end_of_text|>"), special("<|start_header_id|>"), special("<|eot_id|>")]
               + [special(f"<|reserved_special_token_{i}|>") for i in range(12)]),
    "qwen2.5": ({"type": "NFC"}, sequence(split(GPT4 % ""), byte_level()), byte_level(), {}, [],
                [special("<|endoftext|>"), special("<|im_start|>"), special("<|im_end|>"), added("<tool_call>"),
                 added("</tool_call>"), added("<|fim_prefix|>")]),
    "qwen3": ({"type": "NFC"}, sequence(split(GPT4 % ""), byte_level()), byte_level(), {"unk_token": None}, [],
              [special("<|endoftext|>"), special("<|im_start|>"), added("<think>"), added("</think>")]),
    "llama2": (PREPEND, None, template("<s>"), LLAMA2, BASE, []),
    "mistral": (None, metaspace("first", False), template("<s>"), LLAMA2, BASE + [special("[INST]"), special("[/INST]")], []),
    "nemo": (None, sequence(split(TEKKEN), byte_level()), template("<s>"), {},
             BASE + [special("[INST]"), special("<SPECIAL_18>")], []),
    "gemma2": (replace(" ", SPACE),
               {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False},
               template("<bos>"), LLAMA2,
               [special("<pad>"), special("<eos>"), special("<bos>"), special("<unk>"), added("<unused0>"), added("<unused1>"),
                special("<start_of_turn>"), added("\n"), added("\n\n"), added("\n\n\n"), added(SPACE * 2), added(SPACE * 3),
                added("<table>"), added("</h1>")], []),
    "gemma3": (replace(" ", SPACE), None, template("<bos>"), LLAMA2 | {"ignore_merges": False},
               [special("<pad>"), special("<eos>"), special("<bos>"), special("<unk>"), added("\n"), added("\t\t")], []),
    "phi3": (PREPEND, None, template("<s>"), LLAMA2, [special("<unk>"), special("<s>"), special("</s>", rstrip=True)],
             [special("<|endoftext|>"), special("<|assistant|>", rstrip=True), special("<|user|>", rstrip=True),
              special("<|end|>", rstrip=True)]),
    "phi4": (None, sequence(split(CL100K, "Removed", True), byte_level()), None, {}, [],
             [special("<|endoftext|>", lstrip=True, rstrip=True), special("<|im_sep|>", lstrip=True, rstrip=True)]),
    "deepseek": (None, sequence(split(r"\p{N}{1,3}"), split(r"[一-龥぀-ゟ゠-ヿ]+"), split(DEEPSEEK), byte_level()),
                 template("<｜begin▁of▁sentence｜>"), {}, [], [special("<｜begin▁of▁sentence｜>"), added("<｜User｜>")]),
    "starcoder": (None, sequence({"type": "Digits", "individual_digits": True}, byte_level(use_regex=True)), None, {},
                  [special("<|endoftext|>"), special("<fim_prefix>")], []),
    # What the listed families leave out.
    "odd-bytes": ({"type": "Sequence", "normalizers": [{"type": "NFKC"}, {"type": "Lowercase"},
                                                       {"type": "Strip", "strip_left": True, "strip_right": True}]},
                  sequence({"type": "Punctuation", "behavior": "Contiguous"}, byte_level(True, True)),
                  {"type": "RobertaProcessing", "sep": ["</s>", 2], "cls": ["<s>", 1], "trim_offsets": True,
                   "add_prefix_space": True},
                  {}, BASE,
                  [added("<Word>", normalized=True, single_word=True), added("É", normalized=True),
                   added("the", normalized=True, single_word=True, lstrip=True)]),
    "odd-spaces": ({"type": "Sequence", "normalizers": [{"type": "NFD"}, replace(r"\s{2,}|\w\d", " ", "Regex")]},
                   metaspace("always", True),
                   template("<s>"), {"unk_token": "<unk>", "fuse_unk": False}, BASE,
                   [added("[x]", lstrip=True, rstrip=True), added(" [y]", lstrip=True), added("[y]", single_word=True)]),
    "odd-words": ({"type": "NFKD"}, sequence({"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": False},
                                            {"type": "Punctuation", "behavior": "MergedWithPrevious"},
                                            split(r"(?i:the)|[aeiou]|\p{Greek}", "MergedWithNext"),
                                            split(r"[^z]+", "Contiguous", True)),
                  None, {"unk_token": "<unk>", "fuse_unk": True}, BASE, []),
}


def train(family, corpus, vocab):
    """A tokenizer.json as a dict; the ids of added tokens behind the vocabulary follow it."""
    normalizer, pre_tokenizer, post_processor, options, front, behind = FAMILIES[family]
    options = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None, "fuse_unk": False,
               "byte_fallback": False} | options
    shell = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": normalizer,
             "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None,
             "model": {"type": "BPE"} | options | {"unk_token": None, "vocab": {}, "merges": []}}
    learner = Tokenizer.from_str(json.dumps(shell))
    is_bytes = "ByteLevel" in json.dumps(pre_tokenizer)
    if pre_tokenizer is None or pre_tokenizer.get("split") is False or family == "gemma2":
        # SentencePiece learns from words and from runs of spaces.
        learner.pre_tokenizer = pre_tokenizers.Split(Regex(f"{SPACE}+[^{SPACE}\\n]*|\\n+"), "isolated")
    first = [token["content"] for token in front]
    if options["byte_fallback"]:
        first += [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(vocab_size=vocab, special_tokens=first, show_progress=False, limit_alphabet=vocab // 3,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()) if is_bytes else [])
    learner.train_from_iterator([text[i:i + 1000] for text in corpus for i in range(0, len(text), 1000)], trainer)
    model = json.loads(learner.to_str())["model"]
    legacy = family in ("gpt2", "llama2", "qwen2.5")
    merges = [" ".join(pair) for pair in model["merges"]] if legacy else model["merges"]
    shell["model"] = {"type": "BPE"} | options | {"vocab": model["vocab"], "merges": merges}
    if family == "gpt2":
        del shell["model"]["type"]  # as in the first files
    ids = dict(model["vocab"])
    for token in front + behind:
        ids.setdefault(token["content"], len(ids))
        shell["added_tokens"].append({"id": ids[token["content"]], "single_word": False, "lstrip": False, "rstrip": False} | token)
    shell["post_processor"] = json.loads(json.dumps(post_processor))
    fill_ids(shell["post_processor"], ids)
    return shell


def fill_ids(node, ids):
    """Replaces names by ids in a post-processor's special tokens."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "ids":
                node[key] = [ids[name] for name in value]
            elif key in ("cls", "sep"):
                node[key] = [value[0], ids[value[0]]]
            else:
                fill_ids(value, ids)
    elif isinstance(node, list):
        for value in node:
            fill_ids(value, ids)


ALPHABETS = ["abc", "ab ", "ABCdef 123", "  \t\n\r", "'sStTrReEvVmMlLdD ", "e\u0301\u0300a\u0323 \u1100\u1161\u11a8가",
             "中文字 国，。", "ابتث ًّ ١٢", "😀👩\u200d👧\ufe0f🏽🇩 ", "<|>/[]{}=;", "\u00a0\u2003\u3000\u200b\u180e\u0085 x", "½²Ⅷ③٣3",
             "\u2581 a", "ſKéÉßİ", "\x01\x02\x7f\x1b"]


def random_character(rng, any_version):
    """Any code point, or one that was a character in Unicode 3.2 already, on which tables of all versions agree."""
    while True:
        character = chr(rng.randrange(rng.choice([0x300, 0x3000, 0x110000])))
        if "\ud800" <= character < "\ue000":
            continue
        if any_version or unicodedata.ucd_3_2_0.category(character) != "Cn":
            return character


def random_text(rng, tokens, any_version=False):
    """Characters of a few alphabets, pieces of tokens, and now and then a character from anywhere."""
    parts = []
    for _ in range(rng.randint(0, 24)):
        kind = rng.random()
        if kind < 0.75:
            alphabet = rng.choice(ALPHABETS)
            parts.append("".join(rng.choice(alphabet) for _ in range(rng.randint(1, 6))))
        elif kind < 0.85:
            parts.append(rng.choice(tokens)[:rng.randint(1, 30)])
        else:
            parts.append(random_character(rng, any_version))
    return "".join(parts)


def random_bytes(rng):
    """Text with damage: bytes changed, left out and put in."""
    data = bytearray("aé中😀".encode() * rng.randint(1, 3))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data))
        telling = [0x80, 0xBF, 0xC0, 0xC2, 0xE0, 0xE2, 0xED, 0xF0, 0xF4, 0xFF, rng.randrange(256)]
        data[at:at + rng.randint(0, 1)] = bytes(rng.choice(telling) for _ in range(rng.randint(0, 2)))
    return bytes(data)


def all_tokens():
    return sorted({token["content"] for family in FAMILIES.values() for token in family[4] + family[5]})


def golden_texts():
    rng = random.Random(5)
    texts = [line.encode() for line in (HERE / "sample.txt").read_text().splitlines(True)]
    # Classes that libraries see differently; marks out of order, many of them, and newer ones.
    texts += ["\u03b1\u0342\u03b2\u0345 x\u180ey z\u00b23 \u00bc5 \u18067 \u203f8".encode()]
    texts += [("e" + "\u0301\u0323\u0334\u0308" * 12 + " o\u0898\u064b\u0323\u0302").encode()]
    texts += [b"", b" ", b"\n", b"  \n\n  x", b"\0", b"a\0b", b"\r\n\r\n", b"x" * 300, ("長" * 120).encode()]
    texts += [b"ab" * 90 + b" " * 70 + b"c"]
    texts += ["Hello <|user|>  \n world</s>  x <|endoftext|> y[x] [y] [y]z\u00e9 <Word>s <word> The the theme É E\u0301".encode()]
    spaces = ["", " ", "  \n", "a"]
    texts += ["".join(rng.choice(all_tokens()) + rng.choice(spaces) for _ in range(8)).encode() for _ in range(6)]
    texts += [random_text(rng, all_tokens(), any_version=i % 2 == 1).encode() for i in range(40)]
    texts += [random_bytes(rng) for _ in range(24)]
    texts += [b"\xe2\x96", b"\xf0\x9f\x98", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf8\x88\x80\x80\x80", b"a\xff\xfeb",
              b"\xf4\x90\x80\x80", b"\xe0\x80\x80"]
    return texts


def write_records(path, records):
    path.write_bytes(b"".join(struct.pack("<I", len(record)) + record for record in records))


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=pathlib.Path, default=HERE)
    parser.add_argument("--vocab", type=int, default=600)
    parser.add_argument("--corpus", nargs="*", default=[HERE / "sample.txt"])
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    corpus = [pathlib.Path(path).read_text(errors="replace") for path in args.corpus]
    texts = golden_texts()
    write_records(args.out / "texts.bin", texts)
    for family in FAMILIES:
        made = json.dumps(train(family, corpus, args.vocab), ensure_ascii=False, separators=(",", ":"))
        (args.out / f"{family}.json").write_text(made)
        tokenizer = Tokenizer.from_str(made)
        # ids are below 65536: two bytes each
        write_records(args.out / f"{family}.ids", [struct.pack(f"<{len(ids)}H", *ids) for ids in (
            tokenizer.encode(text.decode("utf-8", "replace"), add_special_tokens=False).ids for text in texts)])
        print(f"{family}: {tokenizer.get_vocab_size()} tokens")


if __name__ == "__main__":
    main()
