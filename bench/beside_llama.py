#!/usr/bin/env python3
"""`besad generate` beside llama.cpp, and perplexity of the same GGUF files: beside_llama.py BESAD [--threads N] [--tokens N] [--rounds N]
[--types T,...] [--evaluation TEXT] MODEL...

Wants Python with the package llama-cpp-python (built from source, so that it is built for this machine). Every model is written as GGUF of
each type; then besad with zeros multiplied and left out, and llama.cpp with each type, take turns to write --tokens greedy tokens behind the same
prompt on the same number of threads: the best round counts, and the fastest token of all. llama.cpp is driven by its own C functions, one
token a call. --evaluation is a text whose perplexity both tell, over windows of 256 tokens without overlap (besad's of the directory, llama.cpp's of
each file). Prints JSON."""
import argparse
import ctypes
import json
import math
import os
import subprocess
import sys
import tempfile
import time

import llama_cpp
import numpy

PROMPT = "The history of the river begins"
WINDOW = 256


def besad_generates(besad, model, threads, tokens, form):
    command = [besad, "generate", "--json", "--threads", str(threads), "--max-tokens", str(tokens), "--prompt", PROMPT, *form, model]
    figures = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return {"tokens_per_second": figures["tokens_per_second"], "fastest_token_seconds": figures["fastest_token_seconds"],
            "weight_bytes": figures["weight_bytes"]}


class Llama:
    """A GGUF file in llama.cpp, for one sequence of WINDOW tokens at a time."""

    def __init__(self, path, threads, context):
        self.path = path
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), llama_cpp.llama_model_default_params())
        if not self.model:
            sys.exit(f"{path}: llama.cpp does not load it")
        self.vocabulary = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocabulary)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = context
        params.n_threads = params.n_threads_batch = threads
        self.context = llama_cpp.llama_init_from_model(self.model, params)

    def close(self):
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def tokens(self, text):
        data = text.encode()
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocabulary, data, len(data), ids, len(ids), True, False)
        if count < 0:
            sys.exit(f"{self.path}: llama.cpp cannot tokenize")
        return list(ids[:count])

    def forward(self, ids, all_logits):
        """Logits, [len(ids) or 1, size], behind what went before."""
        ids_there = (llama_cpp.llama_token * len(ids))(*ids)
        batch = llama_cpp.llama_batch_get_one(ids_there, len(ids))
        flags = (ctypes.c_int8 * len(ids))(*[1 if all_logits or i == len(ids) - 1 else 0 for i in range(len(ids))])
        batch.logits = flags
        if llama_cpp.llama_decode(self.context, batch):
            sys.exit(f"{self.path}: llama.cpp cannot decode")
        rows = len(ids) if all_logits else 1
        logits = llama_cpp.llama_get_logits(self.context)
        return numpy.ctypeslib.as_array(logits, shape=(rows, self.size))

    def forget(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def generate(self, count):
        self.forget()
        following = int(self.forward(self.tokens(PROMPT), False)[0].argmax())
        seconds = []
        for _ in range(count - 1):
            began = time.monotonic()
            following = int(self.forward([following], False)[0].argmax())
            seconds.append(time.monotonic() - began)
        return {"tokens_per_second": len(seconds) / sum(seconds), "fastest_token_seconds": min(seconds)}

    def perplexity(self, ids):
        loss, count = 0.0, 0
        for start in range(0, len(ids) - WINDOW + 1, WINDOW):
            window = ids[start:start + WINDOW]
            self.forget()
            logits = self.forward(window, True)[:-1].astype(numpy.float64)
            top = logits.max(axis=1, keepdims=True)
            scores = logits - top - numpy.log(numpy.exp(logits - top).sum(axis=1, keepdims=True))
            loss -= scores[numpy.arange(WINDOW - 1), window[1:]].sum()
            count += WINDOW - 1
        return math.exp(loss / count)


def evaluated(besad, model, text, work):
    """besad's own perplexity of a model, and the windows' token ids: of a job that prunes nothing."""
    job = os.path.join(work, "job.json")
    with open(job, "w") as file:
        json.dump({"model": os.path.basename(model), "output": f"{os.path.basename(model)}-same", "method": "magnitude", "sparsity": 0.0, "precision": "f32",
                   "evaluation": {"perplexity": [{"name": "own", "path": os.path.basename(text), "sequence_length": WINDOW}]}}, file)
    subprocess.run([besad, "run", "--model-root", os.path.dirname(model), "--data-root", os.path.dirname(text), "--output-root", work, job],
                   check=True, capture_output=True)
    with open(os.path.join(work, f"{os.path.basename(model)}-same", "besad.json")) as file:
        return json.load(file)["result"]["perplexity"]["own"]["pruned"]


def stored_ids(path):
    """The token ids of a safetensors file of calibration or evaluation tokens."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        data = file.read()
    tensor = next(value for name, value in header.items() if name != "__metadata__")
    kind = {"I64": "<i8", "I32": "<i4", "U16": "<u2", "U32": "<u4"}[tensor["dtype"]]
    return numpy.frombuffer(data[slice(*tensor["data_offsets"])], kind).reshape(-1).tolist()


def measure(options, model, work):
    model = os.path.realpath(model)
    result = {"model": os.path.basename(model), "threads": options.threads, "tokens": options.tokens, "rounds": {}}
    rivals = {}
    for kind in options.types.split(","):
        path = os.path.join(work, f"{os.path.basename(model)}-{kind}.gguf")
        subprocess.run([options.besad, "export", "--type", kind, model, path], check=True, capture_output=True)
        rivals[kind] = Llama(path, options.threads, 512)
        result.setdefault("gguf_bytes", {})[kind] = os.path.getsize(path)
    ways = {"besad dense": lambda: besad_generates(options.besad, model, options.threads, options.tokens, ["--dense"]),
            "besad": lambda: besad_generates(options.besad, model, options.threads, options.tokens, [])}
    ways |= {f"llama.cpp {kind}": lambda rival=rival: rival.generate(options.tokens) for kind, rival in rivals.items()}
    for _ in range(options.rounds):
        for name, way in ways.items():
            there, best = way(), result["rounds"].get(name)
            if best:
                fastest = min(best["fastest_token_seconds"], there["fastest_token_seconds"])
                best = max(best, there, key=lambda one: one["tokens_per_second"]) | {"fastest_token_seconds": fastest}
            result["rounds"][name] = best or there
    if options.evaluation:
        ids = stored_ids(options.evaluation)
        result["perplexity"] = {"besad": evaluated(options.besad, model, os.path.realpath(options.evaluation), work)}
        result["perplexity"] |= {kind: rival.perplexity(ids) for kind, rival in rivals.items()}
    for rival in rivals.values():
        rival.close()
    return result


@llama_cpp.llama_log_callback
def silent(_level, _text, _user):
    pass


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("besad")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--tokens", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--types", default="f16,q8_0")
    parser.add_argument("--evaluation", help="token ids, safetensors")
    parser.add_argument("models", nargs="+")
    options = parser.parse_args()
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    with tempfile.TemporaryDirectory() as work:
        results = [measure(options, model, work) for model in options.models]
    json.dump(results, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
