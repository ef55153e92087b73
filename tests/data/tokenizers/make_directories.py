#!/usr/bin/env python3
"""Makes the model directories below directories/, without weights, and the ids that transformers' AutoTokenizer gives for
texts.bin.

Each has what such directories are found with: a tokenizer.model alone, with added_tokens.json, with special_tokens_map.json; a
tokenizer.json whose class transformers builds anew; tokens that only tokenizer_config.json lists. Needs transformers,
tokenizers and sentencepiece (run make.py first); CI uses what is committed.

    python3 tests/data/tokenizers/make_directories.py [--out DIR] [--vocab N] [--corpus FILE ...]
"""
import argparse
import collections
import io
import json
import os
import pathlib
import shutil
import struct

os.environ["HF_HUB_OFFLINE"] = "1"

import sentencepiece  # noqa: E402
from transformers import AutoTokenizer, logging  # noqa: E402

import make  # noqa: E402

logging.set_verbosity_error()
HERE = pathlib.Path(__file__).parent

BPE = {"model_type": "bpe", "byte_fallback": True, "normalization_rule_name": "identity", "remove_extra_whitespaces": False}
UNIGRAM = {"model_type": "unigram", "normalization_rule_name": "identity"}
TOOLS = ["<tool>", "<|end|>", "</a>", "a b"]


def token(content, **flags):
    return {"content": content, "lstrip": False, "rstrip": False, "normalized": False, "single_word": False,
            "special": True} | flags


def config(tokenizer_class=None, **rest):
    return ({"tokenizer_class": tokenizer_class} if tokenizer_class else {}) | rest


# name: model type, SentencePiece settings or a family of make.py or None, files
DIRECTORIES = {
    # tokenizer.model alone
    "llama-model": ("llama", BPE, {"tokenizer_config.json": config("LlamaTokenizer", add_bos_token=True, legacy=True)}),
    "llama-new": ("llama", BPE, {"tokenizer_config.json": config("LlamaTokenizer", legacy=False)}),
    "llama-no-prefix": ("llama", BPE, {"tokenizer_config.json": config("LlamaTokenizerFast", add_prefix_space=False,
                                                                      add_bos_token=True)}),
    "code-llama": ("llama", BPE, {"tokenizer_config.json": config("CodeLlamaTokenizer")}),
    "nothing-said": ("llama", BPE, {}),
    "mistral-model": ("mistral", BPE, {"tokenizer_config.json": config("LlamaTokenizer", add_bos_token=True, added_tokens_decoder={
        "0": token("<unk>"), "1": token("<s>"), "2": token("</s>", rstrip=True), "900": token("<tool>", special=False)})}),
    "phi3-model": ("phi3", BPE, {"tokenizer_config.json": config("LlamaTokenizer", legacy=False, add_bos_token=True,
                                                                 pad_token="<pad>"),
                                 "added_tokens.json": {"<|user|>": 402, "<|end|>": 401, "<|x|>": 400}}),
    "special-map": ("llama", BPE, {"tokenizer_config.json": config("LlamaTokenizer", add_bos_token=True),
                                   "special_tokens_map.json": {"bos_token": token("</s>", rstrip=True), "eos_token": "<|end|>",
                                                               "additional_special_tokens": ["<|user|>", "[x]"]},
                                   "added_tokens.json": {"<|user|>": 400, "the ": 401}}),
    "renamed": ("mistral", BPE, {"tokenizer_config.json": config(added_tokens_decoder={
        "1": token("<|begin|>"), "2": token("<s>"), "10": token("<|im_start|>")}, bos_token="<|begin|>", add_bos_token=True)}),
    "user-defined": ("mistral", BPE | {"user_defined_symbols": TOOLS, "control_symbols": ["[INST]"]}, {}),
    "user-defined-llama": ("llama", BPE | {"user_defined_symbols": TOOLS, "control_symbols": ["[INST]"]},
                           {"tokenizer_config.json": config("LlamaTokenizer")}),
    "gemma-model": ("gemma2", BPE | {"add_dummy_prefix": False, "user_defined_symbols": ["<start>"]},
                    {"tokenizer_config.json": config("GemmaTokenizer", bos_token="<s>", eos_token="</s>", pad_token=None,
                                                     add_bos_token=True)}),
    "bpe-plain": ("llama", {"model_type": "bpe", "normalization_rule_name": "identity"}, {}),
    "unigram-model": ("llama", UNIGRAM, {}),
    "unigram-bytes-model": ("mistral", UNIGRAM | {"byte_fallback": True, "add_dummy_prefix": False,
                                                  "remove_extra_whitespaces": False,
                                                  "user_defined_symbols": TOOLS},
                            {"tokenizer_config.json": config(legacy=False)}),
    "unigram-charsmap": ("stablelm", UNIGRAM | {"normalization_rule_tsv": "small"},
                         {"tokenizer_config.json": config(legacy=False)}),
    "unigram-as-llama": ("llama", UNIGRAM | {"byte_fallback": True}, {"tokenizer_config.json": config("LlamaTokenizer")}),
    # tokenizer.json
    "llama-json": ("llama", "llama2", {"tokenizer_config.json": config("LlamaTokenizer", add_bos_token=False, legacy=False)}),
    "llama-json-legacy": ("llama", "llama2", {"tokenizer_config.json": config("LlamaTokenizer", legacy=True, added_tokens_decoder={
        "0": token("<unk>"), "1": token("<s>"), "2": token("</s>")})}),
    "mistral-json": ("mistral", "llama2", {"tokenizer_config.json": config("LlamaTokenizer", legacy=False)}),
    "llama3-json": ("llama", "llama3", {"tokenizer_config.json": config("LlamaTokenizerFast")}),
    "qwen-json": ("qwen3", "qwen2.5", {"tokenizer_config.json": config("Qwen2Tokenizer", add_bos_token=False, bos_token=None,
                                                                       eos_token="<|im_end|>", pad_token="<|endoftext|>",
                                                                       additional_special_tokens=["<|im_start|>", "<think>"])}),
    "gemma-json": ("gemma3_text", "gemma3", {"tokenizer_config.json": config("GemmaTokenizerFast", image_token="<img>")}),
    "opt-json": ("opt", "gpt2", {"tokenizer_config.json": config("GPT2Tokenizer", add_prefix_space=True, bos_token="</s>")}),
    "neox-json": ("gpt_neox", "gpt2", {"tokenizer_config.json": config("GPTNeoXTokenizer")}),
    "config-added": ("llama", "mistral", {"tokenizer_config.json": config("PreTrainedTokenizerFast", added_tokens_decoder={
        "0": token("<unk>"), "1": token("<s>"), "2": token("</s>"), "700": token("<|user|>", rstrip=True),
        "650": token("the", special=False, single_word=True, normalized=True), "651": token("ab", lstrip=True, special=False)},
        pad_token="[x]", extra_special_tokens=["<|end|>", "[y]"])}),
    "split-special": ("llama", "mistral", {"tokenizer_config.json": config("PreTrainedTokenizerFast", split_special_tokens=True)}),
    "unigram-json-as-llama": ("llama", "unigram-bytes", {"tokenizer_config.json": config("LlamaTokenizer")}),
    "no-class": ("qwen2", "qwen3", {}),
}


def train_model(settings, corpus, vocab, directory):
    settings = dict(settings)
    if settings.get("normalization_rule_tsv"):
        settings.pop("normalization_rule_name")
        settings["normalization_rule_tsv"] = make.write_rules(directory)
    made = io.BytesIO()
    # of the characters only the most frequent, so that a small vocabulary has room for pieces
    frequent = {character for character, _ in collections.Counter("".join(corpus)).most_common(110)}
    lines = ["".join(c for c in line if c in frequent) for text in corpus for line in text.splitlines()]
    lines = [line for line in lines if line.strip()]
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(lines), model_writer=made, vocab_size=vocab, minloglevel=2,
                                             character_coverage=1.0, hard_vocab_limit=False, **settings)
    for path in directory.glob("*.tsv"):
        path.unlink()
    return made.getvalue()


def make_directory(path, name, corpus, vocab, families):
    model_type, source, files = DIRECTORIES[name]
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    (path / "config.json").write_text(json.dumps({"model_type": model_type}))
    for file, content in files.items():
        (path / file).write_text(json.dumps(content, ensure_ascii=False))
    if isinstance(source, dict):
        (path / "tokenizer.model").write_bytes(train_model(source, corpus, vocab, path))
    else:
        shutil.copyfile(families / f"{source}.json", path / "tokenizer.json")


def leading_id(tokenizer):
    """The id in front of a text, or -1."""
    plain, whole = (tokenizer("x", add_special_tokens=flag)["input_ids"] for flag in (False, True))
    return whole[0] if whole != plain and whole[1:1 + len(plain)] == plain else -1


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, default=HERE / "directories")
    parser.add_argument("--families", type=pathlib.Path, default=HERE, help="where make.py put its tokenizers")
    parser.add_argument("--vocab", type=int, default=500)
    parser.add_argument("--corpus", nargs="*", default=[HERE / "sample.txt"])
    args = parser.parse_args()
    corpus = [pathlib.Path(path).read_text(errors="replace") for path in args.corpus]
    texts = [record.decode("utf-8", "replace") for record in make.read_records(HERE / "texts.bin")]
    for name in DIRECTORIES:
        make_directory(args.out / name, name, corpus, args.vocab, args.families)
        tokenizer = AutoTokenizer.from_pretrained(args.out / name)
        # the id in front, and ids below 65536 for each text: two bytes each
        records = [struct.pack("<i", leading_id(tokenizer))]
        records += [struct.pack(f"<{len(ids)}H", *ids) for ids in (
            tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts)]
        make.write_records(args.out / name / "ids", records)
        print(f"{name}: {type(tokenizer).__name__}, {len(tokenizer)} tokens")


if __name__ == "__main__":
    main()
