#!/usr/bin/env python3
"""Golden data of chat templates, by transformers: golden.json, of the templates beside this and of the lines of snippets.txt, each of
which is a template. Or compares besad's test program of templates elsewhere with transformers: make.py --compare PROGRAM TEMPLATE...
(see `compare` below).

Needs transformers 5.24 and jinja2 3.1.6."""
import glob
import json
import os
import subprocess
import sys
import tempfile

from transformers.utils.chat_template_utils import render_jinja_template

HERE = os.path.dirname(os.path.abspath(__file__))
SPECIAL = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
CONVERSATIONS = [
    [("user", "Hello")],
    [("system", "You are terse.\n"), ("user", "What is 1 + 1?")],
    [("user", "Hi"), ("assistant", "Hello! How can I help?"), ("user", "A joke,\nplease ")],
    [("system", "  Be kind. "), ("user", " h\u00e9llo w\u00f6rld \u65e5\u672c\u8a9e \U0001f642 "),
     ("assistant", "<think>\nhm\n</think>\n\nThe 'answer' \"is\" <b>\\n</b> & {{ more }}\n"), ("user", "{% if %}")],
    [("user", "a"), ("assistant", "b"), ("user", "c"), ("assistant", "<think>x</think>d"), ("user", "e"), ("assistant", "f")],
    [("system", ""), ("user", "")],
    [("user", "one"), ("user", "two")],
    [("assistant", "first"), ("tool", '{"a": [1, 2.5, null]}')],
]
SNIPPET_CONVERSATION = 3


def render(template, conversation, prompt):
    """The text, or None where transformers refuses it."""
    messages = [{"role": role, "content": content} for role, content in conversation]
    try:
        return render_jinja_template([messages], chat_template=template, add_generation_prompt=prompt, **SPECIAL)[0][0]
    except Exception:  # of Jinja, or of Python below it
        return None


def read(path):
    with open(path, encoding="utf-8", newline="") as file:
        return file.read()


def golden():
    templates = {}
    for path in sorted(glob.glob(os.path.join(HERE, "*.jinja"))):
        source = read(path)
        templates[os.path.basename(path)] = [[render(source, conversation, prompt) for prompt in (False, True)]
                                             for conversation in CONVERSATIONS]
    lines = [line for line in read(os.path.join(HERE, "snippets.txt")).split("\n") if line and not line.startswith("## ")]
    snippets = [[line, render(line, CONVERSATIONS[SNIPPET_CONVERSATION], True)] for line in lines]
    return {"special": SPECIAL, "conversations": CONVERSATIONS, "snippet_conversation": SNIPPET_CONVERSATION, "templates": templates,
            "snippets": snippets}


def compare(program, paths):
    """`program DIRECTORY` is given a conversation as JSON on standard input, and prints its text, or fails."""
    equal = refused = 0
    total = len(paths) * len(CONVERSATIONS) * 2
    for path in paths:
        source = read(path)
        with tempfile.TemporaryDirectory() as directory:
            with open(os.path.join(directory, "chat_template.jinja"), "w", encoding="utf-8", newline="") as file:
                file.write(source)
            with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as file:
                json.dump(SPECIAL, file)
            for index, conversation in enumerate(CONVERSATIONS):
                for prompt in (False, True):
                    expected = render(source, conversation, prompt)
                    asked = json.dumps({"conversation": conversation, "prompt": prompt})
                    done = subprocess.run([program, directory], input=asked, capture_output=True, text=True, check=False)
                    got = done.stdout if done.returncode == 0 else None
                    equal += got == expected
                    refused += expected is None and got is None
                    if got != expected:
                        print(f"{path}, conversation {index}, {prompt}: {done.stderr.strip() or repr(got)[:300]}")
    print(f"{len(paths)} templates: {equal} of {total} equal, {refused} of them refused by both")
    return equal == total


def main():
    if sys.argv[1:2] == ["--compare"]:
        sys.exit(not compare(sys.argv[2], sys.argv[3:]))
    with open(os.path.join(HERE, "golden.json"), "w", encoding="utf-8") as file:
        json.dump(golden(), file, indent=1)
        file.write("\n")


main()
