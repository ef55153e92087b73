#!/usr/bin/env python3
"""Golden data of chat templates, by transformers: golden.json, of the templates beside this and of the lines of snippets.txt, each of
which is a template. Or compares what besad makes of templates elsewhere: make.py --compare BUILD/tests/chat_text TEMPLATE...

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


def besad(program, source, asked):
    """The texts, or what is said instead of each, as an object."""
    with tempfile.TemporaryDirectory() as directory:
        with open(os.path.join(directory, "chat_template.jinja"), "w", encoding="utf-8", newline="") as file:
            file.write(source)
        with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as file:
            json.dump(SPECIAL, file)
        given = json.dumps([{"conversation": conversation, "prompt": prompt} for conversation, prompt in asked])
        done = subprocess.run([program, directory], input=given, capture_output=True, text=True, check=False)
    return json.loads(done.stdout) if done.returncode == 0 else [{"error": done.stderr.strip()}] * len(asked)


def compare(program, paths):
    equal = refused = total = 0
    asked = [(conversation, prompt) for conversation in CONVERSATIONS for prompt in (False, True)]
    for path in paths:
        source = read(path)
        for (conversation, prompt), got in zip(asked, besad(program, source, asked)):
            expected = render(source, conversation, prompt)
            same = isinstance(got, dict) if expected is None else got == expected
            equal += same
            refused += same and expected is None
            total += 1
            if not same:
                print(f"{path}, {conversation}, {prompt}: {got}, expected {expected!r}")
    print(f"{len(paths)} templates: {equal} of {total} equal, {refused} of them refused by both")
    return equal == total


def main():
    if sys.argv[1:2] == ["--compare"]:
        sys.exit(not compare(sys.argv[2], sys.argv[3:]))
    with open(os.path.join(HERE, "golden.json"), "w", encoding="utf-8") as file:
        json.dump(golden(), file, indent=1)
        file.write("\n")


main()
