#!/usr/bin/env python3
"""Texts that transformers generates: of the small models, greedy, in fp32, as golden.json beside this: make.py
Or compares besad's with them, of any model: make.py --compare BESAD [--tokens N] MODEL...

Needs torch and transformers 5.24."""
import argparse
import json
import os
import subprocess

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(os.path.dirname(HERE)))
MODELS = ("demo/tiny-llama", "tests/data/tiny-qwen")
PROMPTS = ("The history of the river begins", "She did not", "\u00c9t\u00e9 \u2013 ")
NEAR = 1e-3  # two logits so near may change places


def generate(directory, prompt, tokens):
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    given = tokenizer(prompt, return_tensors="pt")
    out = model.generate(**given, do_sample=False, max_new_tokens=tokens, output_logits=True, return_dict_in_generate=True)
    count = given["input_ids"].shape[1]
    ids = out.sequences[0, count:].tolist()
    if ids and ids[-1] in (model.generation_config.eos_token_id or (), model.generation_config.eos_token_id):
        ids = ids[:-1]
    whole = tokenizer.decode(out.sequences[0, :count + len(ids)], skip_special_tokens=True)
    before = tokenizer.decode(out.sequences[0, :count], skip_special_tokens=True)
    return {"model": directory, "prompt": prompt, "prompt_tokens": count, "ids": ids, "text": whole[len(before):]}, out.logits


def compare(besad, directory, tokens):
    worst = 0
    for prompt in PROMPTS:
        expected, logits = generate(directory, prompt, tokens)
        command = [besad, "generate", "--json", "--precision", "f32", "--prompt", prompt, "--max-tokens", str(tokens), directory]
        got = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        same = [a == b for a, b in zip(got["ids"], expected["ids"])]
        first = same.index(False) if False in same else None
        if first is not None:
            row = logits[first][0]
            gap = float(row[expected["ids"][first]] - row[got["ids"][first]])
            print(f"{directory}, {prompt!r}: differ at token {first}, where the logits lie {gap:.2g} apart", flush=True)
            worst = max(worst, gap)
        else:
            equal = got["ids"] == expected["ids"] and got["text"] == expected["text"]
            print(f"{directory}, {prompt!r}: {len(same)} tokens {'and the text are the same' if equal else 'but not all are the same'}",
                  flush=True)
            worst = worst if equal else 1
    return worst < NEAR


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", metavar="BESAD")
    parser.add_argument("--tokens", type=int, default=200)
    parser.add_argument("models", nargs="*")
    options = parser.parse_args()
    if options.compare:
        done = [compare(options.compare, model, options.tokens) for model in options.models]
        raise SystemExit(0 if all(done) else 1)
    os.chdir(ROOT)
    texts = [generate(model, prompt, 40)[0] for model in MODELS for prompt in PROMPTS]
    with open(os.path.join(HERE, "golden.json"), "w") as file:
        json.dump(texts, file, indent=1, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
