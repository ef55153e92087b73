#!/usr/bin/env python3
"""How long GET /v1/models and GET /v1/data take: the first time, when every file is read, and then, when all is known.

    lists.py [--models 200] [--blocks 32] [--shards 4] [--files 2000] [--calls 50]

The models have the tensors of a model of that many blocks (9 each, small ones, in shards with an index), so that their headers are as
long as real ones; of the data files half are gzipped. Times are of whole requests over a kept connection on the loopback address. Writes
a JSON object to standard output; results are kept in bench/results/."""
import argparse
import gzip
import http.client
import json
import os
import statistics
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "api"))
os.environ.setdefault("BESAD", os.path.join(ROOT, "build", "besad"))
from support import Daemon  # noqa: E402
from random_models import write_safetensors  # noqa: E402

OF_A_BLOCK = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj",
              "mlp.down_proj", "input_layernorm", "post_attention_layernorm")


def write_model(directory, blocks, shards):
    os.makedirs(directory)
    names = [f"model.layers.{b}.{n}.weight" for b in range(blocks) for n in OF_A_BLOCK]
    names += ["model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    index = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05}-of-{shards:05}.safetensors"
        mine = names[shard::shards]
        write_safetensors(os.path.join(directory, file), {name: ("BF16", [8], bytes(16)) for name in mine})
        index.update({name: file for name in mine})
    with open(os.path.join(directory, "model.safetensors.index.json"), "w") as file:
        json.dump({"metadata": {}, "weight_map": index}, file)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": 64,
                   "intermediate_size": 160, "num_attention_heads": 4, "num_key_value_heads": 4, "num_hidden_layers": blocks,
                   "vocab_size": 1000, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
                   "tie_word_embeddings": False, "torch_dtype": "bfloat16"}, file)


def write_data(directory, count):
    rows = b"".join(json.dumps({"text": f"row {n} of a file for the list"}).encode() + b"\n" for n in range(2000))
    packed = gzip.compress(rows)
    for number in range(count):
        part = os.path.join(directory, f"part-{number // 100:03}")
        os.makedirs(part, exist_ok=True)
        with open(os.path.join(part, f"{number:05}.jsonl" + (".gz" if number % 2 else "")), "wb") as file:
            file.write(packed if number % 2 else rows)


def measure(port, path, key, count, calls):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    seconds = []
    for _ in range(calls + 1):
        begin = time.monotonic()
        connection.request("GET", path)
        body = connection.getresponse().read()
        seconds.append(time.monotonic() - begin)
        answer = json.loads(body)
        assert len(answer[key]) == count and all(entry["supported"] for entry in answer[key]), answer[key][:3]
    first, later = seconds[0], sorted(seconds[1:])
    return {"entries": count, "answer_bytes": len(body), "first_ms": 1000 * first,
            "then_median_ms": 1000 * statistics.median(later), "then_max_ms": 1000 * later[-1]}


def resident(daemon):
    with open(f"/proc/{daemon.process.pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS:"))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("models", 200), ("blocks", 32), ("shards", 4), ("files", 2000), ("calls", 50)):
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    daemon = Daemon()
    try:
        for number in range(args.models):
            write_model(os.path.join(daemon.models, f"family-{number % 10}", f"model-{number:04}"), args.blocks, args.shards)
        write_data(daemon.data, args.files)
        daemon.start()
        before = resident(daemon)
        models = measure(daemon.port, "/v1/models", "models", args.models, args.calls)
        data = measure(daemon.port, "/v1/data", "data", args.files, args.calls)
        json.dump({"command": " ".join(["bench/lists.py", *sys.argv[1:]]), "machine": os.uname().machine, "cores": os.cpu_count(), "load_average": os.getloadavg()[0],
                   "blocks": args.blocks, "shards": args.shards, "models": models, "data": data,
                   "resident_kib": {"before": before, "after": resident(daemon)}}, sys.stdout, indent=1)
        print()
    finally:
        daemon.remove()


if __name__ == "__main__":
    main()
