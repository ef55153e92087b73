#!/usr/bin/env python3
"""Makes small task files in the data sets' own field names, and golden.json: the scores and picks of a straightforward computation with
transformers on tests/data/tiny-qwen, with the semantics of lm-evaluation-harness. Needs torch, transformers and tokenizers.

Usage: tests/data/tasks/make.py [--check]"""
import json
import math
import pathlib
import random
import re
import sys

import tokenizers
import torch
import transformers

HERE = pathlib.Path(__file__).parent
MODEL = HERE.parent / "tiny-qwen"
TEXT = (HERE.parents[2] / "demo" / "wikitext2.test.txt").read_text()
QUESTIONS = 40


def sentences():
    found = [s.strip() for s in re.split(r" \. |\n", TEXT) if 60 < len(s) < 220 and "<unk>" not in s and "=" not in s]
    random.Random(1).shuffle(found)
    return found


def files():
    """{name: (format, records)}"""
    pool = iter(sentences())
    rng = random.Random(2)

    def halves():
        words = next(pool).split()
        cut = rng.randrange(4, len(words) - 3)
        return " ".join(words[:cut]), " ".join(words[cut:])

    def pick(n):
        """A beginning, n endings of which number `answer` is its own."""
        begin, own = halves()
        answer = rng.randrange(n)
        ends = [halves()[1] for _ in range(n)]
        ends[answer] = own
        return begin, ends, answer
    made = {name: (name.split("-")[0], []) for name in ("choices", "piqa", "boolq", "boolq-superglue", "hellaswag", "winogrande", "arc",
                                                        "arc-ai2")}
    for i in range(QUESTIONS):
        begin, ends, answer = pick(rng.randrange(2, 6))
        made["choices"][1].append({"context": begin + ("  " if i % 5 == 0 else ""), "choices": ends, "answer": answer})
        begin, ends, answer = pick(2)
        made["piqa"][1].append({"goal": begin, "sol1": ends[0], "sol2": ends[1], "label": answer})
        begin, end = halves()
        made["boolq"][1].append({"question": begin.lower(), "title": "x", "answer": bool(i % 2), "passage": end})
        made["boolq-superglue"][1].append({"question": begin.lower(), "passage": end, "idx": i, "label": i % 2})
        begin, ends, answer = pick(4)
        a, b = begin[:len(begin) // 2], begin[len(begin) // 2:]
        made["hellaswag"][1].append({"ind": i, "activity_label": "Reading [a book]", "ctx_a": a + (" [title]" if i % 3 == 0 else ""),
                                     "ctx_b": b.upper() if i % 4 == 0 else b, "ctx": begin,
                                     "endings": [e + (" [step]  Next  one." if i % 2 else "") for e in ends], "label": str(answer)})
        begin, end = halves()
        words = begin.split()
        made["winogrande"][1].append({"sentence": " ".join(words[:-1]) + " _ " + end, "option1": words[-1], "option2": rng.choice(end.split()),
                                      "answer": str(1 + i % 2)})
        begin, ends, answer = pick(4)
        labels = ["A", "B", "C", "D"] if i % 2 else ["1", "2", "3", "4"]
        made["arc"][1].append({"id": str(i), "question": begin, "choices": {"text": ends, "label": labels}, "answerKey": labels[answer]})
        made["arc-ai2"][1].append({"id": str(i), "question": {"stem": begin, "choices": [{"text": t, "label": l} for t, l in zip(ends, labels)]},
                                   "answerKey": labels[answer]})
    # Characters and bytes differ, and letters without sense are as unlikely as words of another language: dividing by the one or by the other
    # picks other choices.
    wide, words = random.Random(3), "Größe überall läuft éclair naïve façade größer für Ärger".split()
    made["piqa-wide"] = ("piqa", [{"goal": " ".join(wide.choices(words, k=4)), "sol1": " ".join(wide.choices(words, k=wide.randrange(1, 4))),
                                   "sol2": " ".join("".join(wide.choices("bdfgklmnpqrstvwxz", k=4)) for _ in range(wide.randrange(1, 4))),
                                   "label": wide.randrange(2)} for _ in range(QUESTIONS)])
    return made


def hellaswag_clean(text):  # lm_eval/tasks/hellaswag/utils.py
    text = text.strip()
    text = text.replace(" [title]", ". ")
    text = re.sub("\\[.*?\\]", "", text)
    return text.replace("  ", " ")


def requests(kind, d):
    """[(context, continuation, the choice whose length counts)], and the index of the right one."""
    def behind(context, choices):
        return [(context, " " + c, c) for c in choices]
    if kind == "choices":
        return behind(d["context"], d["choices"]), d["answer"]
    if kind == "piqa":
        return behind(f"Question: {d['goal']}\nAnswer:", [d["sol1"], d["sol2"]]), d["label"]
    if kind == "boolq":
        return behind(f"{d['passage']}\nQuestion: {d['question']}?\nAnswer:", ["no", "yes"]), int(d["answer"] if "answer" in d else d["label"])
    if kind == "hellaswag":
        context = hellaswag_clean(d["activity_label"] + ": " + d["ctx_a"] + " " + d["ctx_b"].capitalize())
        return behind(context, [hellaswag_clean(e) for e in d["endings"]]), int(d["label"])
    if kind == "winogrande":
        at = d["sentence"].index("_")
        rest = d["sentence"][at + 1:].strip()
        # doc_to_choice of preprocess_winogrande.py: a choice is the sentence up to there
        return [(d["sentence"][:at] + o, " " + rest, d["sentence"][:at] + o) for o in (d["option1"], d["option2"])], int(d["answer"]) - 1
    question = d["question"]
    if isinstance(question, dict):
        texts, labels = [c["text"] for c in question["choices"]], [c["label"] for c in question["choices"]]
        question = question["stem"]
    else:
        texts, labels = d["choices"]["text"], d["choices"]["label"]
    return behind(f"Question: {question}\nAnswer:", texts), labels.index(d["answerKey"])


def logprob(model, tokenizer, context, continuation):
    spaces = len(context) - len(context.rstrip())
    if spaces:
        continuation, context = context[-spaces:] + continuation, context[:-spaces]
    whole = tokenizer.encode(context + continuation, add_special_tokens=False).ids
    n = len(tokenizer.encode(context, add_special_tokens=False).ids)
    with torch.no_grad():
        logits = model(torch.tensor([whole])).logits[0].double().log_softmax(-1)
    return sum(logits[t - 1, whole[t]].item() for t in range(n, len(whole)))


def score(model, tokenizer, kind, records):
    """acc, acc_norm and acc_bytes of lm_eval/api/task.py (process_results of a multiple choice)."""
    names, picks, margins, right = ("acc", "acc_norm", "acc_bytes"), [], [], [0, 0, 0]
    for record in records:
        asked, answer = requests(kind, record)
        sums = [logprob(model, tokenizer, context, continuation) for context, continuation, _ in asked]
        ways = [sums, [s / len(c) for s, (_, _, c) in zip(sums, asked)], [s / len(c.encode()) for s, (_, _, c) in zip(sums, asked)]]
        picks.append([max(range(len(way)), key=way.__getitem__) for way in ways])
        margins.append(min(sorted(way)[-1] - sorted(way)[-2] for way in ways))
        right = [r + (p == answer) for r, p in zip(right, picks[-1])]
    n = len(records)
    scores = {}
    for name, r in zip(names, right):
        scores.update({name: r / n, name + "_stderr": math.sqrt(r / n * (1 - r / n) / (n - 1))})
    return {**scores, "questions": n, "picks": picks, "closest": min(margins)}


def main():
    check = "--check" in sys.argv
    tokenizer = tokenizers.Tokenizer.from_file(str(MODEL / "tokenizer.json"))  # transformers would take Qwen2's own splitting instead
    model = transformers.AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32).eval()
    golden = {}
    for name, (kind, records) in files().items():
        text = "".join(json.dumps(r) + "\n" for r in records)
        golden[name] = {"format": kind, **score(model, tokenizer, kind, records)}
        path = HERE / f"{name}.jsonl"
        if check:
            assert path.read_text() == text, path
        else:
            path.write_text(text)
        print(name, {k: v for k, v in golden[name].items() if k != "picks"})
    text = json.dumps(golden, indent=1) + "\n"
    if not check:
        (HERE / "golden.json").write_text(text)


if __name__ == "__main__":
    main()
