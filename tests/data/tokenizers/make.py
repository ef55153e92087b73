#!/usr/bin/env python3
"""Makes the small tokenizers of this directory and the ids that the tokenizers package gives for texts.bin.

Each tokenizer has the normalizer, pre-tokenizer, post-processor, model options and kinds of added tokens of the family it is named
after, and a vocabulary of a few hundred tokens trained on sample.txt. Needs the tokenizers and sentencepiece
packages; CI uses what is committed.

    python3 tests/data/tokenizers/make.py [--out DIR] [--vocab N] [--corpus FILE ...]
"""
import argparse
import base64
import io
import json
import pathlib
import random
import struct
import tempfile
import unicodedata

from tokenizers import Regex, Tokenizer, pre_tokenizers, trainers

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

KIMI = (r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+"
        r"[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+")
CLIP = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def bert_template(cls="[CLS]", sep="[SEP]"):
    made = template(cls)
    made["single"].append({"SpecialToken": {"id": sep, "type_id": 0}})
    made["special_tokens"][sep] = {"id": sep, "ids": [sep], "tokens": [sep]}
    return made


BERT = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None}
BERT_TOKENS = [special(f"[{name}]") for name in ("PAD", "UNK", "CLS", "SEP", "MASK")]
WORDPIECE = {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100}

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
    # DeepSeek LLM and Coder: an anchor, and classes with ranges of many scripts.
    "deepseek-llm": (None, sequence(split(r"[\r\n]"), split(r"\s?[A-Za-zµÀ-ÖØ-öø-ƺΆΈ-ΊΌΎ-ΡΣ-ϵＡ-Ｚａ-ｚ]+"),
                                    split(r"\s?[!-/:-~！-／‘-‟　-。]+"),
                                    split(r"\s+$"), split(r"[一-龥ࠀ-一가-퟿]+"), {"type": "Digits", "individual_digits": True},
                                    byte_level()),
                     template("<s>"), {}, [], [special("<s>"), added("<|User|>")]),
    # Kimi K2: intersections of classes.
    "kimi": (None, sequence(split(KIMI), byte_level()), None, {}, [], [special("[BOS]"), special("<|im_end|>")]),
    "clip": ({"type": "Sequence", "normalizers": [{"type": "NFC"}, replace(r"\s+", " ", "Regex"), {"type": "Lowercase"}]},
             sequence(split(CLIP, "Removed", True), byte_level()),
             {"type": "RobertaProcessing", "sep": ["<|endoftext|>", 0], "cls": ["<|startoftext|>", 0], "trim_offsets": False,
              "add_prefix_space": False},
             {"end_of_word_suffix": "</w>", "continuing_subword_prefix": "", "unk_token": "<|endoftext|>"},
             [special("<|startoftext|>", normalized=True), special("<|endoftext|>")], []),
    "openai-gpt": ({"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None,
                    "lowercase": True}, {"type": "BertPreTokenizer"}, None,
                   {"end_of_word_suffix": "</w>", "unk_token": "<unk>"}, [special("<unk>")], []),
    "prefixed": ({"type": "StripAccents"}, {"type": "Whitespace"}, None,
                 {"continuing_subword_prefix": "##", "end_of_word_suffix": "@", "unk_token": "<unk>", "byte_fallback": True},
                 BASE, []),
    "bert-uncased": (BERT | {"lowercase": True}, {"type": "BertPreTokenizer"}, bert_template(), WORDPIECE, BERT_TOKENS, []),
    "bert-cased": (BERT | {"lowercase": False, "strip_accents": True}, {"type": "BertPreTokenizer"},
                   {"type": "BertProcessing", "sep": ["[SEP]", 0], "cls": ["[CLS]", 0]},
                   WORDPIECE | {"max_input_chars_per_word": 12, "continuing_subword_prefix": "@@"}, BERT_TOKENS,
                   [added("ing", single_word=True, normalized=True)]),
    "wordlevel": ({"type": "Sequence", "normalizers": [{"type": "Nmt"}, {"type": "NFKC"}]}, {"type": "Whitespace"}, None,
                  {"type": "WordLevel", "unk_token": "<unk>"}, [special("<unk>")], [special("<mask>", lstrip=True)]),
    "t5": ({"type": "Precompiled"}, sequence({"type": "WhitespaceSplit"}, metaspace("always", True)), None,
           {"type": "Unigram"}, [special("<pad>"), special("</s>"), special("<unk>")],
           [special(f"<extra_id_{i}>") for i in range(4)]),
    "xlm-r": ({"type": "Sequence", "normalizers": [{"type": "Precompiled"}, replace(" {2,}", " ", "Regex")]},
              {"type": "Metaspace", "replacement": SPACE, "add_prefix_space": True}, bert_template("<s>", "</s>"),
              {"type": "Unigram"}, [special("<s>"), special("<pad>"), special("</s>"), special("<unk>")],
              [special("<mask>", lstrip=True)]),
    "unigram-bytes": ({"type": "NFKC"}, metaspace("first", False), template("<s>"), {"type": "Unigram", "byte_fallback": True},
                      BASE, [added("<tool>")]),
    "albert": ({"type": "Sequence", "normalizers": [replace("``", '"'), {"type": "NFKD"}, {"type": "StripAccents"},
                                                    {"type": "Lowercase"}, replace(r"^\s+|\s+$", "", "Regex")]},
               metaspace("never", True), bert_template(), {"type": "Unigram"},
               [special("<pad>"), special("<unk>"), special("[CLS]"), special("[SEP]")], []),
    # ByteLevel before other steps, in the normalizer, and where the model does not take bytes.
    "bytes-first": (None, sequence(byte_level(True, True), {"type": "Digits", "individual_digits": False},
                                   split("Ġ", "MergedWithNext")), None, {}, [], [special("<|endoftext|>")]),
    "bytes-twice": (None, sequence({"type": "CharDelimiterSplit", "delimiter": "e"}, byte_level(), split("[¡-ÿ]+", "Contiguous"),
                                   byte_level()), None, {}, [], []),
    "bytes-normalized": ({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "ByteLevel"}]},
                         sequence(split("Ġ?[^Ġ]+"), {"type": "FixedLength", "length": 7}), None, {}, [],
                         [added("é", normalized=True)]),
    "bytes-pieces": (None, byte_level(False, True), None, {"type": "Unigram"}, [special("<unk>")], []),
    # What Oniguruma's expressions may say.
    "odd-regex": (None, sequence(split(r"(?<=\n)", "Isolated"), split(r"^[ \t]+", "MergedWithNext"),
                                 split(r"(?=[A-Z])|\bthe\b", "Isolated"),
                                 split(r"[\p{L}&&[^a-e]]{2}+|[[:digit:]x[yz]]+", "MergedWithPrevious"),
                                 split(r"(?m:b.b)|\h{3}|(?<q>['\"])[a-z]*\k<q>|\R$|\A\s|\s\z|x{,2}!|\p{^Alpha}{4}", "Isolated")),
                  None, {"unk_token": "<unk>"}, BASE, []),
    "odd-scripts": (replace(r"$", ";", "Regex"), sequence({"type": "UnicodeScripts"},
                                                          {"type": "Punctuation", "behavior": "Removed"},
                                                          {"type": "Split", "pattern": {"String": "th"}, "behavior": "Removed",
                                                           "invert": False}),
                    None, {"unk_token": "<unk>", "fuse_unk": True}, BASE, []),
    "odd-words": ({"type": "NFKD"}, sequence({"type": "WhitespaceSplit"}, {"type": "Digits", "individual_digits": False},
                                            {"type": "Punctuation", "behavior": "MergedWithPrevious"},
                                            split(r"(?i:the)|[aeiou]|\p{Greek}", "MergedWithNext"),
                                            split(r"[^z]+", "Contiguous", True)),
                  None, {"unk_token": "<unk>", "fuse_unk": True}, BASE, []),
}


RULES = {"\t": " ", "\n": " ", "\r": " ", "\u00a0": " ", "\u3000": " ", "\u2581": " ", "½": "1⁄2", "Ⅷ": "VIII", "ſ": "s",
         "e\u0301": "é",
         "\u200b": " ", "\x01": "", "\x7f": "", "，": ",", "…": "...", "ﬁ": "fi", "a\u0300": "à", "\u0301": ""}


def write_rules(directory):
    """A table of rules for SentencePiece, of the kinds that its nmt_nfkc has, but few."""
    path = pathlib.Path(directory) / "rules.tsv"
    path.write_text("".join(" ".join(f"{ord(c):X}" for c in old) + "\t" + " ".join(f"{ord(c):X}" for c in new) + "\n"
                            for old, new in RULES.items()))
    return str(path)


def small_charsmap():
    """Their charsmap, in base64."""
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2
    with tempfile.TemporaryDirectory() as directory:
        made = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(["a b c d e f"] * 50), model_writer=made, vocab_size=12,
                                                 normalization_rule_tsv=write_rules(directory), hard_vocab_limit=False,
                                                 minloglevel=2)
        proto = sentencepiece_model_pb2.ModelProto.FromString(made.getvalue())
    return base64.b64encode(proto.normalizer_spec.precompiled_charsmap).decode()


def fill_charsmap(node):
    if isinstance(node, dict):
        return {key: fill_charsmap(value) for key, value in node.items()} | (
            {"precompiled_charsmap": small_charsmap()} if node.get("type") == "Precompiled" else {})
    return [fill_charsmap(value) for value in node] if isinstance(node, list) else node


def trainer_of(kind, vocab, first, alphabet, options):
    common = {"vocab_size": vocab, "special_tokens": first, "show_progress": False}
    if kind == "Unigram":
        unk = next((token for token in first if "unk" in token.lower()), None)
        return trainers.UnigramTrainer(**common, unk_token=unk, initial_alphabet=alphabet)
    if kind == "WordLevel":
        return trainers.WordLevelTrainer(**common)
    affixes = {key: options[key] for key in ("continuing_subword_prefix", "end_of_word_suffix") if options.get(key)}
    trainer = trainers.WordPieceTrainer if kind == "WordPiece" else trainers.BpeTrainer
    return trainer(**common, **affixes, limit_alphabet=vocab // 3, initial_alphabet=alphabet)


def empty_model(kind, options):
    if kind == "Unigram":
        return ({"type": kind, "unk_id": None, "vocab": [["<unk>", 0.0]]}
                | {k: v for k, v in options.items() if k == "byte_fallback"})
    if kind == "BPE":
        return {"type": kind} | options | {"unk_token": None, "vocab": {}, "merges": []}
    return {"type": kind} | options | {"vocab": {}}


def train(family, corpus, vocab):
    """A tokenizer.json as a dict; the ids of added tokens behind the vocabulary follow it."""
    normalizer, pre_tokenizer, post_processor, options, front, behind = FAMILIES[family]
    options = dict(options)
    kind = options.pop("type", "BPE")
    if kind == "BPE":
        options = {"dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                   "fuse_unk": False, "byte_fallback": False} | options
    shell = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": fill_charsmap(normalizer),
             "pre_tokenizer": pre_tokenizer, "post_processor": None, "decoder": None, "model": empty_model(kind, options)}
    learner = Tokenizer.from_str(json.dumps(shell))
    is_bytes = "ByteLevel" in json.dumps([normalizer, pre_tokenizer])
    if kind == "BPE" and (pre_tokenizer is None or pre_tokenizer.get("split") is False or family == "gemma2"):
        # SentencePiece learns from words and from runs of spaces.
        learner.pre_tokenizer = pre_tokenizers.Split(Regex(f"{SPACE}+[^{SPACE}\\n]*|\\n+"), "isolated")
    if family in ("unigram-bytes", "odd-regex"):
        learner.pre_tokenizer = pre_tokenizers.Metaspace(split=True)
    first = [token["content"] for token in front]
    if options.get("byte_fallback"):
        first += [f"<0x{byte:02X}>" for byte in range(256)]
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet()) if is_bytes else []
    learner.train_from_iterator([text[i:i + 1000] for text in corpus for i in range(0, len(text), 1000)],
                                trainer_of(kind, vocab, first, alphabet, options))
    model = json.loads(learner.to_str())["model"]
    if kind == "Unigram":
        ids = {token: i for i, (token, _) in enumerate(model["vocab"])}
        model["vocab"] = [[token, round(score, 6)] for token, score in model["vocab"]]
        shell["model"] = model | {k: v for k, v in options.items() if k == "byte_fallback"}
    elif kind == "BPE":
        legacy = family in ("gpt2", "llama2", "qwen2.5", "openai-gpt")
        merges = [" ".join(pair) for pair in model["merges"]] if legacy else model["merges"]
        shell["model"] = {"type": "BPE"} | options | {"vocab": model["vocab"], "merges": merges}
        if family == "gpt2":
            del shell["model"]["type"]  # as in the first files
        ids = dict(model["vocab"])
    else:
        shell["model"] = {"type": kind} | options | {"vocab": model["vocab"]}
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


def read_records(path):
    data, at, records = pathlib.Path(path).read_bytes(), 0, []
    while at < len(data):
        size = struct.unpack_from("<I", data, at)[0]
        records.append(data[at + 4:at + 4 + size])
        at += 4 + size
    return records


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
