#!/usr/bin/env python3
"""Makes a small random model of every family as transformers saves it, and its perplexity: needs torch, transformers 5 and tokenizers.

Usage: tests/data/saved/make.py [FAMILY...]; with families, only these are made anew

A folder is what save_pretrained writes for a family. The tokenizer beside them is theirs all, as save_pretrained writes it: byte-level BPE, learned
from WikiText-2's validation text, and read by AutoTokenizer, which splits text in its own way for a qwen2. golden.json holds the perplexity of each on the first TEXT characters of that text, in fp32, over windows of WINDOW tokens; `other_head` is
that of the llama with a head beside its tied embeddings, whose rows are the embeddings' in the reverse order."""

import gzip
import json
import math
import pathlib
import shutil
import sys
import tempfile

import torch
import transformers
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).parent
TEXT, WINDOW, VOCAB = 9000, 64, 320
SIZES = dict(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=256, bos_token_id=0,
             eos_token_id=1, pad_token_id=None, initializer_range=0.1)
GROUPED = dict(SIZES, intermediate_size=48, num_key_value_heads=2)
LLAMA3 = dict(rope_type="llama3", rope_theta=5e5, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
              original_max_position_embeddings=32)

# Family: its configuration class, and what differs from the class's defaults.
FAMILIES = {
    "llama": ("LlamaConfig", dict(GROUPED, rope_parameters=LLAMA3, tie_word_embeddings=True)),
    "mistral": ("MistralConfig", dict(GROUPED, sliding_window=20)),
    "qwen2": ("Qwen2Config", dict(GROUPED, use_sliding_window=True, sliding_window=20, max_window_layers=1)),
    "qwen3": ("Qwen3Config", dict(GROUPED, head_dim=12, tie_word_embeddings=True)),
    "phi3": ("Phi3Config", dict(GROUPED, sliding_window=40)),
    "gemma2": ("Gemma2Config", dict(GROUPED, head_dim=12, query_pre_attn_scalar=16, sliding_window=20, attn_logit_softcapping=5.0,
                                    final_logit_softcapping=8.0)),
    "gemma3_text": ("Gemma3TextConfig", dict(GROUPED, num_hidden_layers=3, head_dim=12, query_pre_attn_scalar=16, sliding_window=20,
                                             layer_types=["sliding_attention", "full_attention", "sliding_attention"])),
    "opt": ("OPTConfig", dict({key: value for key, value in SIZES.items() if key != "initializer_range"}, ffn_dim=64, init_std=0.1,
                              word_embed_proj_dim=32)),
    "mixtral": ("MixtralConfig", dict(GROUPED, num_local_experts=4, num_experts_per_tok=2)),
    "qwen3_moe": ("Qwen3MoeConfig", dict(GROUPED, head_dim=12, moe_intermediate_size=24, num_experts=6, num_experts_per_tok=2,
                                         norm_topk_prob=True)),
    "vaultgemma": ("VaultGemmaConfig", dict(GROUPED, head_dim=12, query_pre_attn_scalar=16, sliding_window=20, attn_logit_softcapping=5.0,
                                            final_logit_softcapping=8.0)),
    "ministral": ("MinistralConfig", dict(GROUPED, head_dim=8, sliding_window=20, layer_types=["sliding_attention", "full_attention"])),
    "gemma": ("GemmaConfig", dict(GROUPED, head_dim=12)),
    "smollm3": ("SmolLM3Config", dict(GROUPED, no_rope_layer_interval=2)),
    "granite": ("GraniteConfig", dict(GROUPED, embedding_multiplier=6.0, attention_multiplier=0.3, residual_multiplier=0.4,
                                      logits_scaling=0.5)),
    "olmo2": ("Olmo2Config", dict(GROUPED)),
    "olmo3": ("Olmo3Config", dict(GROUPED, sliding_window=20, layer_types=["sliding_attention", "full_attention"])),
    "phi4_mini": ("Phi3Config", dict(GROUPED, original_max_position_embeddings=32, tie_word_embeddings=True,
                                     rope_parameters=dict(rope_type="longrope", rope_theta=1e4, partial_rotary_factor=0.75,
                                                          short_factor=[1.0] * 3, long_factor=[1.0, 2.0, 5.0],
                                                          original_max_position_embeddings=32))),
    "ministral3": ("Ministral3Config", dict(GROUPED, head_dim=12, rope_parameters=dict(
        rope_type="yarn", rope_theta=1e4, factor=4.0, original_max_position_embeddings=16, beta_fast=32.0, beta_slow=1.0, mscale=1.0,
        mscale_all_dim=1.0, llama_4_scaling_beta=0.3))),
    "starcoder2": ("Starcoder2Config", dict(GROUPED, sliding_window=20)),
    "stablelm": ("StableLmConfig", dict(GROUPED, use_qkv_bias=True)),
    "phi": ("PhiConfig", dict(GROUPED)),
    "cohere": ("CohereConfig", dict(GROUPED, logit_scale=0.5)),
    "cohere2": ("Cohere2Config", dict(GROUPED, logit_scale=0.5, sliding_window=20, layer_types=["sliding_attention", "full_attention"])),
    "gpt_neox": ("GPTNeoXConfig", dict(SIZES, intermediate_size=48)),
    "qwen2_moe": ("Qwen2MoeConfig", dict(GROUPED, moe_intermediate_size=24, shared_expert_intermediate_size=40, num_experts=6,
                                         num_experts_per_tok=2)),
    "gpt2": ("GPT2Config", dict(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=256, bos_token_id=0, eos_token_id=1,
                                initializer_range=0.1)),
    "falcon3": ("LlamaConfig", dict(GROUPED, head_dim=12, rope_parameters=dict(rope_type="default", rope_theta=1000042.0))),
    "glm": ("GlmConfig", dict(GROUPED, head_dim=12)),
    "glm4": ("Glm4Config", dict(GROUPED, head_dim=12)),
    "command_r_plus": ("CohereConfig", dict(GROUPED, logit_scale=0.5, use_qk_norm=True)),
    "stablelm_2_12b": ("StableLmConfig", dict(GROUPED, qk_layernorm=True, use_parallel_residual=True)),
    "gpt_oss": ("GptOssConfig", dict(GROUPED, head_dim=12, sliding_window=20, num_local_experts=6, num_experts_per_tok=2)),
}


def evaluation_text():
    with gzip.open(HERE.parent / "wikitext2.valid.txt.gz", "rt", encoding="utf-8", newline="") as file:
        return file.read(TEXT)


def make_tokenizer(text):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator([text], trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=["<s>", "</s>"], show_progress=False,
                                                              initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>").save_pretrained(HERE)


def perplexity(directory, text):
    """Of a saved model, in fp32, over whole windows."""
    with tempfile.TemporaryDirectory() as place:
        for file in (directory / "config.json", HERE / "tokenizer.json", HERE / "tokenizer_config.json"):
            shutil.copy(file, place)
        ids = transformers.AutoTokenizer.from_pretrained(place)(text).input_ids
    windows = torch.tensor(ids[:len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        logits = model(windows).logits[:, :-1].double()
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), windows[:, 1:].flatten())
    return math.exp(loss.item())


def make_model(family, seed):
    name, fields = FAMILIES[family]
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(getattr(transformers, name)(**fields))
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter.dim() == 1:  # norms and biases, which are made as ones and zeros
                parameter.add_(torch.randn_like(parameter) * 0.1)
    directory = HERE / family
    shutil.rmtree(directory, ignore_errors=True)
    model.to(torch.float16 if family == "opt" else torch.bfloat16).save_pretrained(directory)
    (directory / "generation_config.json").unlink(missing_ok=True)
    return directory


def other_head(text):
    with tempfile.TemporaryDirectory() as directory:
        directory = pathlib.Path(directory)
        shutil.copy(HERE / "llama" / "config.json", directory)
        tensors = load_file(HERE / "llama" / "model.safetensors")
        tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].flip(0).contiguous()
        save_file(tensors, directory / "model.safetensors", metadata={"format": "pt"})
        return perplexity(directory, text)


def main():
    text = evaluation_text()
    asked = sys.argv[1:]
    golden = {"text": TEXT, "window": WINDOW, "perplexity": {}}
    if asked:
        golden = json.loads((HERE / "golden.json").read_text())
    else:
        make_tokenizer(text)
    for seed, family in enumerate(FAMILIES):
        if not asked or family in asked:
            golden["perplexity"][family] = perplexity(make_model(family, seed), text)
    if not asked or "llama" in asked:
        golden["other_head"] = other_head(text)
    (HERE / "golden.json").write_text(json.dumps(golden, indent=1) + "\n")
    print(json.dumps(golden, indent=1))


if __name__ == "__main__":
    main()
