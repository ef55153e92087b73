#!/usr/bin/env python3
"""Texts from models over HTTP (--serve-models): those of `besad generate`, whole and as they are made, what ends them, what is refused, and that
neither clients that go away nor SIGTERM leave one going."""
import contextlib
import http.client
import json
import os
import shutil
import socket
import subprocess
import time
import unittest

from support import BESAD, PATIENCE, ROOT, Daemon, small_job, small_model, wait_for

LLAMA, QWEN = os.path.join(ROOT, "demo", "tiny-llama"), os.path.join(ROOT, "tests", "data", "tiny-qwen")
PROMPT = "The history of the river begins"
THREADS = os.environ.get("OMP_NUM_THREADS", "2")  # more than one are not what a thread sanitizer understands of OpenMP
TEMPLATE = "{% for m in messages %}<{{ m['role'] }}> {{ m['content'] }}\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
MOST = 8  # completions at once


def generate(model, *options, prompt=PROMPT, tokens=20):
    done = subprocess.run([BESAD, "generate", "--json", "--threads", THREADS, "--prompt", prompt, "--max-tokens", str(tokens), *options, model],
                          check=True, capture_output=True, timeout=PATIENCE)
    return json.loads(done.stdout)


def change(directory, name, **fields):
    path = os.path.join(directory, name)
    with open(path) as file:
        known = json.load(file)
    with open(path, "w") as file:
        json.dump({**known, **fields}, file)


def events(response):
    """The data of an event stream, each of which is JSON or [DONE]."""
    for line in response:
        line = line.decode().rstrip("\n")
        if line:
            assert line.startswith("data: "), line
            yield line[6:] if line[6:] == "[DONE]" else json.loads(line[6:])


class Completions(unittest.TestCase):
    options = ("--serve-models",)

    def setUp(self):
        self.daemon = Daemon("--threads", THREADS, *self.options)
        self.addCleanup(self.daemon.remove)
        shutil.copytree(LLAMA, os.path.join(self.daemon.models, "llama"))
        self.prepare()
        self.daemon.start()

    def prepare(self):
        pass

    def add_endless(self):
        """A model that no token ends and that has many positions: its texts take seconds."""
        path = shutil.copytree(LLAMA, os.path.join(self.daemon.models, "endless"))
        change(path, "config.json", max_position_embeddings=100000, eos_token_id=None)
        change(path, "generation_config.json", eos_token_id=None)

    def post(self, path="/v1/completions", status=200, **body):
        response = self.daemon.post(path, {"model": "llama", **({"prompt": PROMPT, "max_tokens": 20} if "chat" not in path else {}), **body})
        self.assertEqual(response.status, status, response.body)
        return response

    def refused(self, status, pointer=None, path="/v1/completions", **body):
        response = self.post(path, status, **body)
        self.assertEqual(response.headers["Content-Type"], "application/problem+json")
        if pointer is not None:
            self.assertIn(pointer, [e["pointer"] for e in response.json["errors"]], response.json)
        return response.json

    @contextlib.contextmanager
    def opened(self, path="/v1/completions", **body):
        """A request whose answer has not been read; gone at the end."""
        connection = http.client.HTTPConnection("127.0.0.1", self.daemon.port, timeout=PATIENCE)
        connection.request("POST", path, json.dumps({"model": "llama", "prompt": PROMPT, **body}), {"Content-Type": "application/json"})
        try:
            yield connection
        finally:
            connection.close()

    def stream(self, path="/v1/completions", **body):
        """Text and all pieces but [DONE], which must be the last."""
        with self.opened(path, stream=True, max_tokens=20, **body) as connection:
            response = connection.getresponse()
            self.assertEqual(response.status, 200, response.headers)
            self.assertEqual(response.headers["Content-Type"], "text/event-stream")
            *pieces, done = events(response)
        self.assertEqual(done, "[DONE]")
        return "".join(c["text"] for p in pieces for c in p["choices"]), pieces


class Texts(Completions):
    def test_as_generate(self):
        for options, fields in (((), {}), (("--temperature", "1", "--top-p", "0.9", "--seed", "5"), {"temperature": 1, "top_p": 0.9, "seed": 5})):
            expected = generate(LLAMA, *options)
            whole = self.post(**fields).json
            self.assertEqual(whole["choices"], [{"index": 0, "text": expected["text"], "logprobs": None, "finish_reason": "length"}])
            usage = {"prompt_tokens": expected["prompt_tokens"], "completion_tokens": 20, "total_tokens": expected["prompt_tokens"] + 20}
            self.assertEqual((whole["object"], whole["model"], whole["usage"]), ("text_completion", "llama", usage))
            self.assertLess(abs(whole["created"] - time.time()), PATIENCE)
            text, pieces = self.stream(**fields, stream_options={"include_usage": True})
            self.assertEqual(text, expected["text"])
            self.assertGreater(len(pieces), 10)
            self.assertEqual({p["object"] for p in pieces}, {"text_completion"})
            self.assertEqual(len({p["id"] for p in pieces}), 1)
            self.assertEqual([c["finish_reason"] for p in pieces for c in p["choices"]][-2:], [None, "length"])
            self.assertEqual((pieces[-1]["choices"], pieces[-1]["usage"]), ([], usage))
        self.assertNotEqual(self.post(temperature=1, seed=6).json["choices"], self.post(temperature=1, seed=7).json["choices"])
        self.assertEqual(self.daemon.log().count("is loaded"), 1)
        self.assertTrue(self.daemon.get("/v1/info").json["serves_models"])

    def test_stops(self):
        whole = generate(LLAMA)["text"]
        words = whole.split(" ")
        stop = " ".join(words[4:7])  # of several tokens
        expected = whole[:whole.index(stop)]
        for stops in (stop, [stop], ["never there", stop + "x", stop, whole[-9:]]):
            choice = self.post(stop=stops).json["choices"][0]
            self.assertEqual((choice["text"], choice["finish_reason"]), (expected, "stop"))
            text, pieces = self.stream(stop=stops)
            self.assertEqual((text, pieces[-1]["choices"][0]["finish_reason"]), (expected, "stop"))
        text, pieces = self.stream(stop=[whole + "and more"])  # all of it is held back until the end
        self.assertEqual((text, pieces[-1]["choices"][0]["finish_reason"]), (whole, "length"))
        path = os.path.join(self.daemon.models, "llama")
        change(path, "generation_config.json", eos_token_id=[2, generate(LLAMA)["ids"][3]])  # the loaded model goes by it: it has changed
        self.assertEqual(self.post().json["choices"][0], {"index": 0, "text": generate(path)["text"], "logprobs": None, "finish_reason": "stop"})

    def test_an_output(self):
        """A pruned model beside its base, while other jobs run."""
        job = self.daemon.submit({"model": "llama", "output": "pruned", "method": "magnitude", "sparsity": 0.5})
        self.assertEqual(self.daemon.finish(job)["state"], "succeeded")
        small_model(self.daemon, 200)
        job = self.daemon.submit(small_job(besa={"epochs": 100}))
        wait_for("the job to run", lambda: self.daemon.job(job)["state"] == "running")
        texts = {model: self.post(model=model).json["choices"][0]["text"] for model in ("pruned", "llama", "pruned")}
        self.assertEqual(texts, {"pruned": generate(os.path.join(self.daemon.output, "pruned"))["text"], "llama": generate(LLAMA)["text"]})
        self.assertEqual(self.daemon.job(job)["state"], "running")
        os.rename(os.path.join(self.daemon.models, "llama"), os.path.join(self.daemon.models, ".llama"))
        self.refused(404, model=".llama")
        self.daemon.request("POST", f"/v1/jobs/{job}/cancel")

    def test_refusals(self):
        for pointer, fields in (("/n", {"n": 2}), ("/logprobs", {"logprobs": 1}), ("/echo", {"echo": True}), ("/best_of", {"best_of": 3}),
                                ("/suffix", {"suffix": "."}), ("/max_tokens", {"max_tokens": 0}), ("/max_tokens", {"max_tokens": 8193}),
                                ("/max_tokens", {"max_completion_tokens": 5}), ("/temperature", {"temperature": 2.5}), ("/top_p", {"top_p": "x"}),
                                ("/seed", {"seed": 1.5}), ("/stop", {"stop": [""]}), ("/stop", {"stop": ["a"] * 5}), ("/stop", {"stop": "a" * 65}),
                                ("/stream", {"stream": "yes"}), ("/stream_options", {"stream_options": {}}), ("/prompt", {"prompt": [1, 2]}),
                                ("/prompt", {"prompt": ["a", "b"]}), ("/prompt", {"prompt": None}), ("/model", {"model": None}),
                                ("/model", {"model": "../llama"}), ("/co~1l", {"co/l": 1}), ("/prompt", {"prompt": "river " * 600}),
                                ("/messages", {"path": "/v1/chat/completions"}), ("/prompt", {"path": "/v1/chat/completions", "prompt": "a"}),
                                ("/messages/0", {"path": "/v1/chat/completions", "messages": [{"role": "user"}]}),
                                ("/messages/0", {"path": "/v1/chat/completions", "messages": [{"role": "user", "content": "a", "name": "b"}]}),
                                ("/tools", {"path": "/v1/chat/completions", "messages": [], "tools": [{}]})):
            with self.subTest(pointer=pointer, fields=fields):
                self.refused(422, pointer, **fields)
        problem = self.refused(422, "/prompt", prompt="river " * 600, stream=True)  # told before the stream begins
        self.assertRegex(problem["detail"], "the prompt has [0-9]+ tokens, and the model positions for 512")
        self.assertEqual(self.refused(404, model="nothing")["type"], "urn:besad:problem:model-not-found")
        os.makedirs(os.path.join(self.daemon.models, "empty"))
        self.assertIn("config.json", self.refused(422, "/model", model="empty")["detail"])
        os.symlink("/etc", os.path.join(self.daemon.models, "etc"))
        self.refused(422, "/model", model="etc")
        self.assertEqual(self.daemon.post("/v1/completions", "{", Content_Type="application/json").status, 400)
        self.assertEqual(self.daemon.post("/v1/completions", " " * (2 << 20), Content_Type="application/json").status, 413)
        self.assertEqual(self.daemon.get("/v1/completions").status, 405)
        self.post(n=1, best_of=1, echo=False, logprobs=None, suffix=None, presence_penalty=0, frequency_penalty=0.0, logit_bias={}, user="me")
        self.assertEqual(self.post(prompt=[PROMPT]).json["choices"][0]["text"], generate(LLAMA)["text"])
        self.assertEqual(self.post(prompt="river " * 100, max_tokens=1000).json["usage"]["total_tokens"], 512)


    def test_names(self):
        """A name that leads to two models has neither answer; one that no file can have is no model; and no path of the operator's is told."""
        shutil.copytree(LLAMA, os.path.join(self.daemon.output, "llama"))
        said = self.refused(422, "/model")
        self.assertIn("'llama' is a model and an output", said["detail"])
        shutil.rmtree(os.path.join(self.daemon.output, "llama"))
        self.post()
        for name in ("a" * 300, "x/" + "b" * 300):
            said = self.refused(404, model=name)
            self.assertNotIn(self.daemon.directory, json.dumps(said))

    def test_large_prompts(self):
        """What a template makes of little is not all tokenized."""
        change(os.path.join(self.daemon.models, "llama"), "tokenizer_config.json", chat_template="{{ 'a' * 3000000 }}")
        said = self.refused(422, "/messages", "/v1/chat/completions", messages=[{"role": "user", "content": "a"}])
        self.assertIn("more than 2 MiB", said["detail"])


class Ends(Completions):
    def prepare(self):
        self.add_endless()

    def begin(self, **body):
        """The first pieces of an endless stream, and how long the rest of its tokens would take at least."""
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(self.opened(model="endless", max_tokens=8192, stream=True, **body))
            pieces = events(connection.getresponse())
            next(pieces)
            start = time.monotonic()
            for _ in range(40):
                next(pieces)
            seconds = (time.monotonic() - start) / 40 * 8000
            return stack.pop_all(), pieces, seconds

    def test_clients_that_go_away(self):
        stack, _, seconds = self.begin()
        start = time.monotonic()
        stack.close()
        self.post()
        self.assertLess(time.monotonic() - start, seconds / 4)
        with self.opened(model="endless", max_tokens=8192):  # whole: its connection is not read meanwhile
            wait_for("the model", lambda: self.daemon.log().count('"endless" is loaded') == 2)
            time.sleep(0.1)
            start = time.monotonic()
        self.post()
        self.assertLess(time.monotonic() - start, seconds / 4)

    def test_a_full_queue(self):
        stack, pieces, seconds = self.begin()
        with stack:
            for _ in range(MOST - 1):
                stack.enter_context(self.opened(model="endless", max_tokens=8192))
            full = wait_for("a full queue", lambda: (r := self.daemon.post("/v1/completions", {"model": "nothing", "prompt": "a"})).status == 503 and r)
            self.assertEqual(full.json["type"], "urn:besad:problem:too-many-completions")
            self.assertGreater(int(full.headers["Retry-After"]), 0)
            self.assertEqual(self.daemon.get("/readyz").status, 200)
            next(pieces)
            start = time.monotonic()
        wait_for("room", lambda: self.daemon.post("/v1/completions", {"model": "llama", "prompt": "a"}).status == 200)
        self.assertLess(time.monotonic() - start, seconds / 4)

    def test_sigterm(self):
        stack, pieces, _ = self.begin()
        with stack:
            waiting = stack.enter_context(self.opened())
            time.sleep(0.1)
            self.assertEqual(self.daemon.stop(), 0)
            *_, last = pieces
            self.assertEqual(last["error"]["type"], "stopping")
            answer = waiting.getresponse()
            self.assertEqual((answer.status, json.load(answer)["type"]), (503, "urn:besad:problem:stopping"))
        self.assertIn('"endless" is unloaded: besad stops', self.daemon.log())

    def test_half_a_request(self):
        """A client that sends no more counts as gone; the connection ends."""
        with socket.create_connection(("127.0.0.1", self.daemon.port), timeout=PATIENCE) as client:
            body = json.dumps({"model": "endless", "prompt": PROMPT, "max_tokens": 8192})
            client.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            client.shutdown(socket.SHUT_WR)
            while client.recv(65536):
                pass
        self.post()


class Bounds(Completions):
    options = ("--serve-models", "--serve-memory", "6M", "--serve-idle", "1s")

    def prepare(self):
        shutil.copytree(QWEN, os.path.join(self.daemon.models, "qwen"))
        self.add_endless()

    def test_bounds(self):
        self.assertRegex(self.refused(422, "/model")["detail"], "takes [0-9]+ MiB of memory, and may take 6")
        self.post(model="qwen")
        wait_for("the model to go", lambda: '"qwen" is unloaded: nobody asks for it' in self.daemon.log())


class Off(Completions):
    options = ()

    def test_off(self):
        for path in ("/v1/completions", "/v1/chat/completions"):
            self.assertEqual(self.refused(404, path=path)["type"], "urn:besad:problem:models-not-served")
        self.assertFalse(self.daemon.get("/v1/info").json["serves_models"])


class Chat(Completions):
    def prepare(self):
        path = shutil.copytree(LLAMA, os.path.join(self.daemon.models, "chat"))
        change(path, "tokenizer_config.json", chat_template=TEMPLATE, add_bos_token=False)  # the template puts none there
        self.messages = [{"role": "user", "content": [{"type": "text", "text": "Tell me of "}, {"type": "text", "text": "the river."}]}]
        self.expected = generate(path, prompt="<user> Tell me of the river.\n<assistant>")["text"]

    def test_a_conversation(self):
        body = {"model": "chat", "messages": self.messages, "max_tokens": 20}
        answer = self.daemon.post("/v1/chat/completions", body)
        self.assertEqual(answer.status, 200, answer.body)
        self.assertEqual(answer.json["choices"], [{"index": 0, "message": {"role": "assistant", "content": self.expected}, "logprobs": None,
                                                   "finish_reason": "length"}])
        self.assertEqual(answer.json["object"], "chat.completion")
        with self.opened("/v1/chat/completions", **body, prompt=None, stream=True) as connection:
            *pieces, done = events(connection.getresponse())
        deltas = [p["choices"][0]["delta"] for p in pieces]
        self.assertEqual((deltas[0], deltas[-1], done), ({"role": "assistant", "content": ""}, {}, "[DONE]"))
        self.assertEqual("".join(d.get("content", "") for d in deltas), self.expected)
        self.assertEqual({p["object"] for p in pieces}, {"chat.completion.chunk"})
        self.assertIn("has no chat template", self.refused(422, "/model", "/v1/chat/completions", messages=self.messages)["detail"])


class Client(Completions):
    """OpenAI's own client, where it is installed."""
    def prepare(self):
        try:
            import openai
        except ImportError:
            self.skipTest("the Python package openai is not installed")
        self.openai = openai

    def test_the_client(self):
        client = self.openai.OpenAI(base_url=f"http://127.0.0.1:{self.daemon.port}/v1", api_key="none", max_retries=0)
        expected = generate(LLAMA)["text"]
        whole = client.completions.create(model="llama", prompt=PROMPT, max_tokens=20)
        self.assertEqual((whole.choices[0].text, whole.choices[0].finish_reason, whole.usage.completion_tokens), (expected, "length", 20))
        pieces = list(client.completions.create(model="llama", prompt=PROMPT, max_tokens=20, stream=True, stream_options={"include_usage": True}))
        self.assertEqual("".join(c.text for p in pieces for c in p.choices), expected)
        self.assertEqual(pieces[-1].usage.completion_tokens, 20)
        with self.assertRaises(self.openai.NotFoundError):
            client.completions.create(model="nothing", prompt=PROMPT)
        with self.assertRaisesRegex(self.openai.UnprocessableEntityError, "/logprobs"):
            client.completions.create(model="llama", prompt=PROMPT, logprobs=3)
        with self.assertRaisesRegex(self.openai.UnprocessableEntityError, "no chat template"):
            client.chat.completions.create(model="llama", messages=[{"role": "user", "content": "a"}])
        path = shutil.copytree(LLAMA, os.path.join(self.daemon.models, "chat"))
        change(path, "tokenizer_config.json", chat_template=TEMPLATE, add_bos_token=False)
        messages, expected = [{"role": "user", "content": "A river"}], generate(path, prompt="<user> A river\n<assistant>")["text"]
        answer = client.chat.completions.create(model="chat", messages=messages, max_completion_tokens=20)
        self.assertEqual((answer.choices[0].message.content, answer.choices[0].message.role), (expected, "assistant"))
        pieces = client.chat.completions.create(model="chat", messages=messages, max_completion_tokens=20, stream=True)
        self.assertEqual("".join(p.choices[0].delta.content or "" for p in pieces), expected)


if __name__ == "__main__":
    unittest.main()
