#!/usr/bin/env python3
"""`besad generate`: the texts that transformers generates (tests/data/generate), pruned models with their zeros and without, what is drawn, how a
text goes to a pipe, and what is refused."""
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import termios
import time
import unittest

from support import BESAD, PATIENCE, ROOT

LLAMA, QWEN = os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(ROOT, "tests", "data", "tiny-qwen")
PROMPT = "The history of the river begins"
THREADS = os.environ.get("OMP_NUM_THREADS", "2")  # more than one are not what a thread sanitizer understands of OpenMP


def generate(*arguments, text="", status=0):
    done = subprocess.run([BESAD, "generate", "--threads", THREADS, *arguments], input=text.encode(), capture_output=True, timeout=PATIENCE)
    if done.returncode != status:
        raise AssertionError(f"{arguments}: {done.returncode}, {done.stderr.decode()}")
    return done


def figures(*arguments, **options):
    return json.loads(generate("--json", *arguments, **options).stdout)


class Generate(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.mkdtemp(prefix="besad-generate-")
        self.addCleanup(shutil.rmtree, self.directory)

    def prune(self, model, sparsity):
        output = os.path.join(self.directory, "pruned")
        job = os.path.join(self.directory, "job.json")
        with open(job, "w") as file:
            json.dump({"model": model, "output": "pruned", "method": "magnitude", "sparsity": sparsity}, file)
        subprocess.run([BESAD, "run", "--output-root", self.directory, job], check=True, capture_output=True, timeout=PATIENCE)
        return output

    def model(self, **config):
        """A copy of the demo's model with other fields."""
        directory = os.path.join(self.directory, "copy")
        shutil.copytree(LLAMA, directory)
        path = os.path.join(directory, "config.json")
        with open(path) as file:
            fields = json.load(file)
        with open(path, "w") as file:
            json.dump({**fields, **config}, file)
        return directory

    def test_as_transformers(self):
        with open(os.path.join(ROOT, "tests", "data", "generate", "golden.json")) as file:
            texts = json.load(file)
        self.assertEqual(len(texts), 6)
        for text in texts:
            with self.subTest(model=text["model"], prompt=text["prompt"]):
                got = figures("--precision", "f32", "--prompt", text["prompt"], "--max-tokens", "40", os.path.join(ROOT, text["model"]))
                self.assertEqual({key: got[key] for key in ("ids", "text", "prompt_tokens")},
                                 {key: text[key] for key in ("ids", "text", "prompt_tokens")})
                self.assertEqual((got["finish_reason"], got["completion_tokens"]), ("length", 40))
                self.assertGreater(got["tokens_per_second"], 0)
                self.assertLessEqual(got["fastest_token_seconds"] * got["tokens_per_second"], 1)

    def test_a_pruned_model(self):
        """Its zeros are left out, which changes what is read, and the logits by rounding alone."""
        pruned = self.prune(LLAMA, 0.5)
        options = ("--prompt", PROMPT, "--max-tokens", "20")
        exact, sparse, dense = (figures(*options, *more, pruned) for more in (("--precision", "f32"), (), ("--dense",)))
        self.assertEqual([r["sparse_matrices"] for r in (exact, sparse, dense)], [0, 24, 0])  # the head has no zeros
        self.assertEqual([r["matrices"] for r in (exact, sparse, dense)], [25] * 3)
        for r in (exact, sparse, dense):
            self.assertEqual(r["ids"][0], exact["ids"][0])
            self.assertEqual(r["zeros"], exact["zeros"])
        self.assertEqual(exact["weight_bytes"], 2 * dense["weight_bytes"])
        self.assertLess(sparse["weight_bytes"], 0.7 * dense["weight_bytes"])
        base = figures(*options, LLAMA)
        self.assertEqual(base["sparse_matrices"], 0)
        self.assertNotEqual(base["ids"], dense["ids"])
        forced = figures(*options, "--sparse", LLAMA)
        self.assertEqual(forced["sparse_matrices"], 24)
        self.assertGreater(forced["weight_bytes"], base["weight_bytes"])

    def test_drawn(self):
        def drawn(*options):
            return figures("--prompt", PROMPT, "--max-tokens", "30", "--temperature", "1", *options, QWEN)["ids"]
        self.assertEqual(drawn("--seed", "5"), drawn("--seed", "5"))
        self.assertNotEqual(drawn("--seed", "5"), drawn("--seed", "6"))
        self.assertEqual(drawn("--top-p", "0"), figures("--prompt", PROMPT, "--max-tokens", "30", QWEN)["ids"])

    def test_to_a_pipe(self):
        """The text goes out as it is; a prompt comes in the same way."""
        expected = figures("--max-tokens", "20", LLAMA, text=PROMPT)
        done = generate("--max-tokens", "20", LLAMA, text=PROMPT)
        self.assertEqual(done.stdout.decode(), expected["text"] + "\n")
        self.assertIn("20 tokens at ", done.stderr.decode())
        self.assertEqual(figures("--prompt", PROMPT, "--max-tokens", "20", LLAMA)["ids"], expected["ids"])

    def test_ends(self):
        ids = figures("--prompt", PROMPT, "--max-tokens", "20", LLAMA)["ids"]
        directory = self.model()
        os.remove(os.path.join(directory, "generation_config.json"))
        with open(os.path.join(directory, "generation_config.json"), "w") as file:
            json.dump({"eos_token_id": [2, ids[4]]}, file)
        got = figures("--prompt", PROMPT, "--max-tokens", "20", directory)
        self.assertEqual((got["finish_reason"], got["ids"]), ("stop", ids[:ids.index(ids[4])]))

    def test_a_full_context(self):
        directory = self.model(max_position_embeddings=16)
        got = figures("--prompt", PROMPT, "--max-tokens", "20", directory)
        self.assertEqual((got["finish_reason"], got["prompt_tokens"] + got["completion_tokens"]), ("length", 16))
        self.assertEqual(got["ids"], figures("--prompt", PROMPT, "--max-tokens", "6", LLAMA)["ids"])
        said = generate("--prompt", PROMPT + " " + PROMPT, directory, status=1).stderr.decode()
        self.assertIn("the prompt has 19 tokens, and the model positions for 16", said)

    def test_chat(self):
        """The text of the model's chat template is the whole prompt: the token before a text is the template's."""
        directory = self.model()
        said = generate("--chat", "--prompt", PROMPT, directory, status=1).stderr.decode()
        self.assertIn("the model has no chat template", said)
        plain = figures("--prompt", PROMPT, "--max-tokens", "5", LLAMA)
        for template, text in (("{{ bos_token }}{{ messages[0].content }}", {}), ("{{ bos_token }}{{ messages[0]['content'] }}", {"text": PROMPT})):
            with open(os.path.join(directory, "chat_template.jinja"), "w") as file:
                file.write(template)
            prompt = () if text else ("--prompt", PROMPT)
            chat = figures("--chat", *prompt, "--max-tokens", "5", directory, **text)
            self.assertEqual((chat["ids"], chat["prompt_tokens"]), (plain["ids"], plain["prompt_tokens"]))
        with open(os.path.join(directory, "chat_template.jinja"), "w") as file:
            file.write("{{ messages[0].content }}{% if add_generation_prompt %} and{% endif %}")
        self.assertEqual(figures("--chat", "--prompt", PROMPT, directory)["prompt_tokens"],
                         figures("--prompt", PROMPT + " and", directory)["prompt_tokens"] - 1)
        with open(os.path.join(directory, "chat_template.jinja"), "w") as file:
            file.write("{{ raise_exception('No ' + messages[0].role) }}")
        said = generate("--chat", "--prompt", PROMPT, directory, status=1).stderr.decode()
        self.assertIn("chat_template.jinja, line 1: the template refuses the conversation: No user", said)

    def test_a_signal(self):
        command = [BESAD, "generate", "--threads", THREADS, "--prompt", PROMPT, "--max-tokens", "500", "--temperature", "0.7", LLAMA]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            self.assertTrue(process.stdout.read(1))
            process.send_signal(signal.SIGINT)
            text, said = process.stdout.read(), process.stderr.read()
        self.assertEqual(process.returncode, 128 + signal.SIGINT, said)
        self.assertTrue(text.endswith(b"\n"))
        self.assertIn(b"; stopped", said)

    def test_prompts_that_cannot_be_read(self):
        """Standard input is a directory, or holds more than any model reads; or besad is stopped while it waits for it."""
        command = [BESAD, "generate", "--threads", "1", LLAMA]
        directory = os.open(self.directory, os.O_RDONLY)
        self.addCleanup(os.close, directory)
        done = subprocess.run(command, stdin=directory, capture_output=True, text=True, timeout=PATIENCE)
        self.assertEqual(done.returncode, 1)
        self.assertIn("standard input: Is a directory", done.stderr)
        self.assertIn("the prompt on standard input has more than 16 MiB", generate(LLAMA, text="a" * (17 << 20), status=1).stderr.decode())
        # What was read of it is no prompt where a signal comes before its end.
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
            process.stdin.write(b"a")
            deadline = time.monotonic() + PATIENCE
            while self.unread(process.stdin):
                self.assertIsNone(process.poll())
                self.assertLess(time.monotonic(), deadline)
                time.sleep(0.01)
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(BrokenPipeError):
                while process.poll() is None:  # a read that the signal broke off is one more than those that it did not
                    process.stdin.write(b"a")
                    time.sleep(0.01)
            self.assertEqual((process.stdout.read(), process.stderr.read()), (b"", b""))
        self.assertEqual(process.returncode, 128 + signal.SIGTERM)

    @staticmethod
    def unread(pipe):
        """How many bytes of it nobody has read."""
        return int.from_bytes(fcntl.ioctl(pipe.fileno(), termios.FIONREAD, bytes(4)), sys.byteorder)

    def test_texts_that_cannot_be_told(self):
        with open("/dev/full", "w") as full:
            for options in ((), ("--json",)):
                done = subprocess.run([BESAD, "generate", "--threads", "1", *options, "--prompt", "a", "--max-tokens", "2", LLAMA], stdout=full,
                                      stderr=subprocess.PIPE, text=True, timeout=PATIENCE)
                self.assertEqual(done.returncode, 1)
                self.assertIn("standard output: No space left on device", done.stderr)

    def test_nothing_is_said(self):
        """An empty message is one; a zero byte is in none."""
        directory = self.model()
        with open(os.path.join(directory, "chat_template.jinja"), "w") as file:
            file.write("{{ bos_token }}[{{ messages[0].content }}]")
        self.assertEqual(figures("--chat", "--max-tokens", "2", directory)["ids"], figures("--chat", "--prompt", "", "--max-tokens", "2", directory)["ids"])
        self.assertIn("has a zero byte", generate("--chat", directory, text="a\0b", status=1).stderr.decode())
        done = generate("--precision", "f32", "--prompt", "a", "--max-tokens", "2", LLAMA)
        self.assertIn("(f32, ", done.stderr.decode())

    def test_refusals(self):
        for options in (("--temperature", "-1"), ("--temperature", "warm"), ("--top-p", "1.5"), ("--max-tokens", "0"), ("--seed", "-1"),
                        ("--precision", "f16"), ("--dense", "--sparse"), ("--sparse", "--precision", "f32"), ("--what",)):
            with self.subTest(options):
                generate(*options, LLAMA, status=2)
        generate(status=2)
        generate("--prompt", "a", os.path.join(self.directory, "nothing"), status=1)
        directory = self.model()
        os.remove(os.path.join(directory, "tokenizer.model"))
        self.assertIn("tokenizer.json: is not there, nor is a tokenizer.model", generate("--prompt", "a", directory, status=1).stderr.decode())
        os.remove(os.path.join(directory, "tokenizer_config.json"))  # it names a class, which would build another
        shutil.copy(os.path.join(ROOT, "tests", "data", "tokenizers", "wordlevel.json"), os.path.join(directory, "tokenizer.json"))
        self.assertIn("makes no text", generate("--prompt", "a", directory, status=1).stderr.decode())
        with open("/dev/full", "w") as full:
            done = subprocess.run([BESAD, "generate", "--prompt", PROMPT, LLAMA], stdout=full, stderr=subprocess.PIPE, timeout=PATIENCE)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"standard output", done.stderr)


if __name__ == "__main__":
    unittest.main()
