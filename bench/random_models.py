"""Safetensors files, read and written; random LLaMA-architecture models and calibration tokens on disk, for benchmarks and tests. Python 3 alone."""
import array
import json
import os
import random
import struct


def write_safetensors(path, tensors):
    """tensors: {name: (dtype, shape, bytes)}"""
    header, offset = {}, 0
    for name, (dtype, shape, data) in tensors.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, data in tensors.values():
            file.write(data)


def read_safetensors(path):
    """The header, and {name: (dtype, shape, bytes)}."""
    with open(path, "rb") as file:
        header = file.read(struct.unpack("<Q", file.read(8))[0])
        data = file.read()
    tensors = json.loads(header)
    tensors.pop("__metadata__", None)
    return header, {name: (tensor["dtype"], tensor["shape"], data[slice(*tensor["data_offsets"])])
                    for name, tensor in tensors.items()}


def write_model(directory, hidden, intermediate, heads, kv_heads, blocks, vocab=1000, scale=0.02):
    """Normal weights in BF16, all norms 1."""
    os.makedirs(directory, exist_ok=True)
    rng = random.Random(0)
    pool = [struct.pack("<f", rng.gauss(0, scale))[2:] for _ in range(65536)]

    def matrix(rows, cols):
        return "BF16", [rows, cols], b"".join(rng.choices(pool, k=rows * cols))

    ones = ("BF16", [hidden], struct.pack("<f", 1)[2:] * hidden)
    head = hidden // heads
    tensors = {"model.embed_tokens.weight": matrix(vocab, hidden)}
    for block in range(blocks):
        prefix = f"model.layers.{block}."
        for name, rows, cols in (("self_attn.q_proj", hidden, hidden), ("self_attn.k_proj", kv_heads * head, hidden),
                                 ("self_attn.v_proj", kv_heads * head, hidden), ("self_attn.o_proj", hidden, hidden),
                                 ("mlp.gate_proj", intermediate, hidden), ("mlp.up_proj", intermediate, hidden),
                                 ("mlp.down_proj", hidden, intermediate)):
            tensors[f"{prefix}{name}.weight"] = matrix(rows, cols)
        tensors[prefix + "input_layernorm.weight"] = ones
        tensors[prefix + "post_attention_layernorm.weight"] = ones
    tensors["model.norm.weight"] = ones
    tensors["lm_head.weight"] = matrix(vocab, hidden)
    write_safetensors(os.path.join(directory, "model.safetensors"), tensors)
    with open(os.path.join(directory, "config.json"), "w") as file:
        json.dump({"architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": hidden,
                   "intermediate_size": intermediate, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
                   "num_hidden_layers": blocks, "vocab_size": vocab, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5,
                   "rope_theta": 10000.0, "tie_word_embeddings": False, "torch_dtype": "bfloat16"}, file)


def write_calibration(path, samples, length, vocab=1000):
    rng = random.Random(1)
    ids = array.array("i", (rng.randrange(vocab) for _ in range(samples * length)))
    write_safetensors(path, {"input_ids": ("I32", [samples, length], ids.tobytes())})
