#!/usr/bin/env python3
"""Compares besad's token ids with those of the tokenizers package and of transformers, and their speed on one core.

    make tests && python3 tests/text/compare_tokenizers.py [--out bench/results/tokenizer.json]

The text is English (the demo's), code (this repository's), other scripts and emoji (sample.txt's lines, shuffled), control
characters and broken UTF-8, with special tokens strewn in, once as documents and once in one piece; and random strings, with
characters that all versions of Unicode have, and with any. The tokenizers are those of tests/data/tokenizers, and the directories
there, trained anew with a larger vocabulary. Needs the packages tokenizers, sentencepiece and transformers.
"""
import argparse
import array
import json
import os
import pathlib
import platform
import random
import struct
import subprocess
import sys
import tempfile
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
ROOT = pathlib.Path(__file__).resolve().parents[2]
HERE = ROOT / "tests/data/tokenizers"
sys.path.insert(0, str(HERE))

import make  # noqa: E402
import make_directories  # noqa: E402
import tokenizers  # noqa: E402
import transformers  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

# Where classes finer than letter, number and white space decide, "any_unicode" may differ: for expressions the package has tables
# of Unicode 16, for punctuation of 8 and for lower case of the newest, besad those of Debian's libraries, 14 and 15.
NEWER_UNICODE = {"deepseek", "deepseek-llm", "kimi", "clip", "prefixed", "openai-gpt", "albert", "bert-uncased", "wordlevel",
                 "odd-bytes", "odd-spaces", "odd-words", "odd-regex"}


def shuffled(rng, line):
    """The line's words in another order, or its characters where it has few spaces."""
    parts = line.split(" ")
    if len(parts) < 6:
        parts, glue = list(line), ""
    else:
        glue = " "
    start = rng.randrange(len(parts))
    parts = parts[start:] + parts[:start]
    for _ in range(len(parts) // 4):
        i, j = rng.randrange(len(parts)), rng.randrange(len(parts))
        parts[i], parts[j] = parts[j], parts[i]
    return glue.join(parts)


def other_scripts(rng, size):
    lines = [line for line in (ROOT / "tests/data/tokenizers/sample.txt").read_text().splitlines() if not line.isascii()]
    out = []
    while size > 0:
        out.append(shuffled(rng, rng.choice(lines)))
        size -= len(out[-1].encode()) + 1
    return "\n".join(out)


def damaged(rng, data, every):
    """Control characters and bytes that are not UTF-8, one per `every` bytes."""
    data = bytearray(data)
    for _ in range(len(data) // every):
        data[rng.randrange(len(data))] = rng.choice([rng.randrange(32), 0x7F, rng.randrange(0x80, 0x100)])
    return bytes(data)


def strewn(rng, data):
    """Special tokens, one per 500 bytes or so."""
    data = bytearray(data)
    for _ in range(len(data) // 500):
        at = rng.randrange(len(data))
        data[at:at] = rng.choice(make.all_tokens()).encode()
    return bytes(data)


def mixed_documents(rng, extra):
    """At least 2 MB: documents of 0.2 to 8 kB from each source in turn, as bytes."""
    english = (ROOT / "demo/wikitext2.test.txt").read_text()[:1_000_000]
    code = "".join(path.read_text() for pattern in ("*.c", "*.h", "*.py") for path in sorted(ROOT.glob(f"[a-z]*/**/{pattern}"))
                   if "build" not in path.parts)
    sources = [english, code[:600_000], other_scripts(rng, 700_000)]
    sources += [pathlib.Path(path).read_text(errors="replace") for path in extra]
    documents = []
    for source in sources:
        data, at = source.encode(), 0
        while at < len(data):
            size = rng.randint(200, 8000)
            documents.append(data[at:at + size])  # may cut a character in two
            at += size
    rng.shuffle(documents)
    documents = [strewn(rng, document) for document in documents]
    return [damaged(rng, document, 200) if rng.random() < 0.1 else document for document in documents]


def read_records(path):
    data = array.array("i", path.read_bytes())
    records, at = [], 0
    while at < len(data):
        records.append(data[at + 1:at + 1 + data[at]].tolist())
        at += 1 + data[at]
    return records


def run_besad(binary, tokenizer, records, ids, repeats=1):
    done = subprocess.run([binary, tokenizer, records, ids, str(repeats)], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{tokenizer}: {done.stderr}")
    return float(done.stdout.split()[1])


def first_difference(texts, got, want):
    for text, ours, theirs in zip(texts, got, want, strict=True):
        if ours != theirs:
            at = next((i for i, (a, b) in enumerate(zip(ours, theirs)) if a != b), min(len(ours), len(theirs)))
            return {"text": repr(text[:300]), "at": at, "besad": ours[at:at + 8], "package": theirs[at:at + 8]}
    return None


def best_seconds(run, rounds):
    best = float("inf")
    for _ in range(rounds):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


def compare(name, path, encode, encode_fast, work, args, sets):
    """One tokenizer against its package: every set's ids, and the time of the documents and of the whole text."""
    result = {}
    for label, records in sets.items():
        run_besad(args.binary, path, work / f"{label}.bin", work / "ids")
        texts = [record.decode("utf-8", "replace") for record in records]
        want = [encode(text) for text in texts]
        got = read_records(work / "ids")
        difference = first_difference(records, got, want)
        result[label] = {"texts": len(records), "tokens": sum(map(len, want)), "identical": difference is None}
        if difference:
            result[label]["difference"] = difference
        if label in ("documents", "whole"):
            size = sum(map(len, records)) / 1e6
            # Turn by turn, so that both see the machine in the same state.
            ours, theirs = float("inf"), float("inf")
            for _ in range(args.rounds):
                ours = min(ours, run_besad(args.binary, path, work / f"{label}.bin", work / "none", 2))
                theirs = min(theirs, best_seconds(lambda: encode_fast(texts), 1))
            result[label] |= {"besad_mb_per_s": round(size / ours, 2), "package_mb_per_s": round(size / theirs, 2),
                              "times_as_fast": round(theirs / ours, 2)}
    line = ", ".join(f"{label} {'identical' if r['identical'] else 'DIFFERENT'}"
                     + (f" x{r['times_as_fast']}" if "times_as_fast" in r else "") for label, r in result.items())
    print(f"{name}: {line}", flush=True)
    for r in result.values():
        if "difference" in r:
            print("   ", r["difference"])
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", default=ROOT / "build/tests/encode_text")
    parser.add_argument("--out", type=pathlib.Path)
    parser.add_argument("--strings", type=int, default=10_000)
    parser.add_argument("--vocab", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--corpus", nargs="*", default=[], help="more text files to mix in")
    parser.add_argument("--tokenizer", nargs="*", default=[ROOT / "tests/data/tiny-qwen/tokenizer.json"],
                        help="more tokenizer.json files")
    parser.add_argument("--model", nargs="*", default=[ROOT / "demo/tiny-llama"],
                        help="more directories, as AutoTokenizer reads them")
    parser.add_argument("--only", nargs="*", help="these tokenizers")
    args = parser.parse_args()

    cpu = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cpu})
    rng = random.Random(args.seed)
    documents = mixed_documents(rng, args.corpus)
    sets = {"documents": documents, "whole": [b"".join(documents)],
            "strings": [make.random_text(rng, make.all_tokens()).encode() for _ in range(args.strings * 4 // 5)]
            + [make.random_bytes(rng) for _ in range(args.strings // 5)],
            "any_unicode": [make.random_text(rng, make.all_tokens(), any_version=True).encode() for _ in range(args.strings)]}
    print(f"{len(documents)} documents, {sum(map(len, documents))} bytes; {args.strings} random strings")

    results = {}
    with tempfile.TemporaryDirectory() as directory:
        work = pathlib.Path(directory)
        for label, records in sets.items():
            make.write_records(work / f"{label}.bin", records)
        # without NUL, which besad refuses in JSON
        text = [document.decode("utf-8", "replace").replace("\0", "") for document in documents[::3]]
        files = {}
        for family in make.FAMILIES:
            if not args.only or family in args.only:
                files[family] = work / f"{family}.json"
                files[family].write_text(json.dumps(make.train(family, text, args.vocab)))
        files |= {f"{pathlib.Path(path).parent.name} (tokenizer.json)": pathlib.Path(path) for path in args.tokenizer if not args.only}
        for name, path in files.items():
            tokenizer = tokenizers.Tokenizer.from_file(str(path))
            results[name] = compare(name, path, lambda t: tokenizer.encode(t, add_special_tokens=False).ids,
                                    lambda ts: tokenizer.encode_batch_fast(ts, add_special_tokens=False), work, args, sets)
        directories = {} if args.only else {pathlib.Path(path).name: pathlib.Path(path) for path in args.model}
        for name in make_directories.DIRECTORIES:
            if not args.only or name in args.only:
                directories[name] = work / "directories" / name
                make_directories.make_directory(directories[name], name, text, args.vocab, HERE)
        for name, path in directories.items():
            tokenizer = AutoTokenizer.from_pretrained(path)
            results[f"{name}/"] = compare(name, path, lambda t: tokenizer(t, add_special_tokens=False)["input_ids"],
                                          lambda ts: tokenizer._tokenizer.encode_batch_fast(ts, add_special_tokens=False), work,
                                          args, sets)

    names = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    summary = {"command": "make tests && python3 tests/text/compare_tokenizers.py " + " ".join(sys.argv[1:]),
               "cpu": (names + [platform.machine()])[0], "tokenizers": tokenizers.__version__,
               "transformers": transformers.__version__, "vocabulary": args.vocab,
               "document_bytes": sum(map(len, documents)), "random_strings": args.strings, "rounds": args.rounds,
               "results": results}
    if args.out:
        args.out.write_text(json.dumps(summary, indent=1, ensure_ascii=False) + "\n")
    sys.exit(0 if all(r["identical"] for name, result in results.items() for label, r in result.items()
                      if not (label == "any_unicode" and name in NEWER_UNICODE)) else 1)


if __name__ == "__main__":
    main()
