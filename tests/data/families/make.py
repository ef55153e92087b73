#!/usr/bin/env python3
"""Makes the golden data that tests/backend/test_families.c compares besad with: needs torch, transformers and safetensors.

Usage: tests/data/families/make.py [--check] [FAMILY...]

A folder holds one family: model.safetensors (bf16, random), and per case CASE.json (its config.json) and CASE.golden.safetensors: `ids`
I32 [tokens], `logits` F32 [tokens, vocab] of the ids, and `gradient.LINEAR` F32 in LINEAR's shape: the gradient of Σ y ⊙ dy by the
linear's weight, y being the output of the last block and dy what `output_gradient` makes. Logits are computed in fp32, gradients in
double. With --check nothing is written: it fails unless the files there hold what would be made."""

import json
import pathlib
import sys

import torch
import transformers
from safetensors.torch import load_file, save_file

HERE = pathlib.Path(__file__).parent
TOKENS = 40

SIZES = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64,
             bos_token_id=1, eos_token_id=2, pad_token_id=None)


def classic(**fields):
    return dict(SIZES, torch_dtype="bfloat16", **fields)


def newer(**fields):
    return dict(SIZES, dtype="bfloat16", **fields)


LLAMA = dict(model_type="llama", architectures=["LlamaForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5, tie_word_embeddings=True)

OPT = dict(model_type="opt", architectures=["OPTForCausalLM"], hidden_size=32, ffn_dim=40, num_hidden_layers=2, num_attention_heads=4,
           vocab_size=64, activation_function="relu", dropout=0.1, bos_token_id=1, eos_token_id=2, pad_token_id=1)

PHI3 = dict(model_type="phi3", architectures=["Phi3ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5, max_position_embeddings=512,
            sliding_window=None, attention_bias=False, tie_word_embeddings=False)
LONGROPE = dict(type="longrope", short_factor=[1.0, 1.1, 1.3], long_factor=[1.0, 2.5, 7.0])
YARN = dict(rope_type="yarn", factor=4.0, original_max_position_embeddings=16)

# Family: the cases' configurations, as in a model's config.json. The weights are those of the first case.
FAMILIES = {
    "llama": {
        "llama3-classic": classic(**LLAMA, max_position_embeddings=512, rope_theta=10000.0,
                                  rope_scaling=dict(rope_type="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                                                    original_max_position_embeddings=128)),
        "linear-newer": newer(**LLAMA, max_position_embeddings=512,
                              rope_parameters=dict(rope_type="linear", rope_theta=20000.0, factor=3.0)),
        "dynamic-classic": classic(**LLAMA, max_position_embeddings=16, rope_theta=10000.0,
                                   rope_scaling=dict(type="dynamic", factor=2.0)),
    },
    "mistral": {
        "window-classic": classic(model_type="mistral", architectures=["MistralForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5,
                                  max_position_embeddings=512, rope_theta=10000.0, sliding_window=7, tie_word_embeddings=False),
    },
    "qwen2": {
        "biases-newer": newer(model_type="qwen2", architectures=["Qwen2ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6,
                              max_position_embeddings=512, rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
                              use_sliding_window=False, sliding_window=None, max_window_layers=2,
                              layer_types=["full_attention", "full_attention"], tie_word_embeddings=True),
        "some-windows-classic": classic(model_type="qwen2", architectures=["Qwen2ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6,
                                        max_position_embeddings=512, rope_theta=1000000.0, use_sliding_window=True, sliding_window=5,
                                        max_window_layers=1, tie_word_embeddings=True),
    },
    "phi3": {
        "fused-classic": classic(model_type="phi3", architectures=["Phi3ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5,
                                 max_position_embeddings=512, original_max_position_embeddings=512, rope_theta=10000.0,
                                 rope_scaling=None, sliding_window=11, attention_bias=False, resid_pdrop=0.0, embd_pdrop=0.0,
                                 attention_dropout=0.0, tie_word_embeddings=False),
        "long-classic": classic(**PHI3, partial_rotary_factor=0.75, rope_scaling=LONGROPE, original_max_position_embeddings=16),
        "short-newer": newer(**PHI3, original_max_position_embeddings=64,
                             rope_parameters=dict(LONGROPE, type="longrope", rope_type="longrope", rope_theta=10000.0,
                                                  partial_rotary_factor=0.75, original_max_position_embeddings=64)),
    },
    "gemma2": {
        "newer": newer(model_type="gemma2", architectures=["Gemma2ForCausalLM"], hidden_activation="gelu_pytorch_tanh",
                       rms_norm_eps=1e-6, head_dim=12, max_position_embeddings=512, query_pre_attn_scalar=20, sliding_window=9,
                       attn_logit_softcapping=4.0, final_logit_softcapping=9.0, attention_bias=False,
                       layer_types=["full_attention", "sliding_attention"],
                       rope_parameters=dict(rope_type="default", rope_theta=10000.0), tie_word_embeddings=True),
        "classic": classic(model_type="gemma2", architectures=["Gemma2ForCausalLM"], hidden_act="gelu_pytorch_tanh",
                           hidden_activation="gelu_pytorch_tanh", rms_norm_eps=1e-6, head_dim=12, max_position_embeddings=512,
                           query_pre_attn_scalar=12, sliding_window=6, rope_theta=10000.0, attention_bias=False),
    },
    "gemma3": {
        "newer": newer(model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], hidden_activation="gelu_pytorch_tanh",
                       rms_norm_eps=1e-6, head_dim=12, max_position_embeddings=512, query_pre_attn_scalar=20, sliding_window=9,
                       attn_logit_softcapping=None, final_logit_softcapping=None, attention_bias=False,
                       layer_types=["full_attention", "sliding_attention"], use_bidirectional_attention=False,
                       rope_parameters=dict(full_attention=dict(rope_type="linear", rope_theta=1000000.0, factor=8.0),
                                            sliding_attention=dict(rope_type="default", rope_theta=10000.0)),
                       tie_word_embeddings=True),
        "classic": classic(model_type="gemma3_text", architectures=["Gemma3ForCausalLM"], hidden_activation="gelu_pytorch_tanh",
                           rms_norm_eps=1e-6, head_dim=12, max_position_embeddings=512, query_pre_attn_scalar=12, sliding_window=6,
                           sliding_window_pattern=2, rope_theta=50000.0, rope_local_base_freq=500.0, attention_bias=False,
                           rope_scaling=dict(rope_type="linear", factor=2.0)),
    },
    "vaultgemma": {
        "newer": newer(model_type="vaultgemma", architectures=["VaultGemmaForCausalLM"], hidden_activation="gelu_pytorch_tanh",
                       rms_norm_eps=1e-6, head_dim=12, max_position_embeddings=512, query_pre_attn_scalar=20, sliding_window=9,
                       attn_logit_softcapping=4.0, final_logit_softcapping=9.0, attention_bias=False,
                       layer_types=["full_attention", "sliding_attention"],
                       rope_parameters=dict(rope_type="default", rope_theta=10000.0), tie_word_embeddings=True),
    },
    "opt": {
        "classic": dict(OPT, torch_dtype="bfloat16", max_position_embeddings=48),
        "newer": dict(OPT, dtype="bfloat16", max_position_embeddings=48, word_embed_proj_dim=32, do_layer_norm_before=True,
                      enable_bias=True, layer_norm_elementwise_affine=True, _remove_final_layer_norm=False, tie_word_embeddings=True),
    },
    "qwen3": {
        "newer": newer(model_type="qwen3", architectures=["Qwen3ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6, head_dim=12,
                       max_position_embeddings=512, rope_parameters=dict(rope_type="default", rope_theta=1000000.0),
                       attention_bias=False, use_sliding_window=False, sliding_window=None, max_window_layers=2,
                       layer_types=["full_attention", "full_attention"], tie_word_embeddings=True),
        "yarn-classic": classic(model_type="qwen3", architectures=["Qwen3ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6, head_dim=12,
                                max_position_embeddings=64, rope_theta=10000.0, rope_scaling=YARN, tie_word_embeddings=True),
    },
}


# Experts: transformers keeps them in one tensor, checkpoints one by one, under these names.
EXPERTS = {"mixtral": ("mlp.", "block_sparse_moe.", ("w1", "w3"), "w2"),
           "qwen2_moe": ("mlp.", "mlp.", ("gate_proj", "up_proj"), "down_proj"),
           "qwen3_moe": ("mlp.", "mlp.", ("gate_proj", "up_proj"), "down_proj")}
FAMILIES["mixtral"] = {
    "classic": classic(model_type="mixtral", architectures=["MixtralForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5,
                       max_position_embeddings=512, rope_theta=1000000.0, sliding_window=None, num_local_experts=5,
                       num_experts_per_tok=2, output_router_logits=False, router_aux_loss_coef=0.02, tie_word_embeddings=False),
    "window-newer": newer(model_type="mixtral", architectures=["MixtralForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5,
                          head_dim=8, max_position_embeddings=512, rope_parameters=dict(rope_type="default", rope_theta=20000.0),
                          sliding_window=9, num_local_experts=5, num_experts_per_tok=1, output_router_logits=False,
                          router_aux_loss_coef=0.02, router_jitter_noise=0.0, tie_word_embeddings=False),
}
QWEN3_MOE = dict(model_type="qwen3_moe", architectures=["Qwen3MoeForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6, head_dim=12,
                 max_position_embeddings=512, attention_bias=False, use_sliding_window=False, sliding_window=None, max_window_layers=2,
                 moe_intermediate_size=24, num_experts=12, num_experts_per_tok=3, decoder_sparse_step=1, mlp_only_layers=[],
                 output_router_logits=False, router_aux_loss_coef=0.001, tie_word_embeddings=False)
FAMILIES["qwen3_moe"] = {
    "classic": classic(**QWEN3_MOE, norm_topk_prob=True, rope_theta=1000000.0, rope_scaling=None),
    "shares-of-all-newer": newer(**QWEN3_MOE, norm_topk_prob=False,
                                 rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
}

GPT_OSS = dict(model_type="gpt_oss", architectures=["GptOssForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5, head_dim=12,
               max_position_embeddings=64, sliding_window=9, num_local_experts=6, num_experts_per_tok=2, attention_bias=True,
               swiglu_limit=7.0, attention_dropout=0.0, output_router_logits=False, router_aux_loss_coef=0.9, tie_word_embeddings=False)
FAMILIES["gpt_oss"] = {
    "classic": classic(**GPT_OSS, rope_theta=150000, rope_scaling=dict(YARN, beta_fast=32.0, beta_slow=1.0, truncate=False),
                       layer_types=["full_attention", "sliding_attention"]),
    "newer": newer(**dict(GPT_OSS, swiglu_limit=0.75), swiglu_alpha=1.25, layer_types=["sliding_attention", "full_attention"],
                   rope_parameters=dict(YARN, rope_theta=150000, beta_fast=32.0, beta_slow=1.0, truncate=False)),
}
QWEN2_MOE = dict(model_type="qwen2_moe", architectures=["Qwen2MoeForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6,
                 max_position_embeddings=512, moe_intermediate_size=24, shared_expert_intermediate_size=56, num_experts=6,
                 num_experts_per_tok=2, decoder_sparse_step=1, output_router_logits=False, router_aux_loss_coef=0.001,
                 tie_word_embeddings=False)
FAMILIES["qwen2_moe"] = {
    "windows-in-turn-classic": classic(**QWEN2_MOE, norm_topk_prob=False, rope_theta=1000000.0, use_sliding_window=True, sliding_window=7,
                                       max_window_layers=2),
    "newer": newer(**QWEN2_MOE, norm_topk_prob=True, qkv_bias=False, use_sliding_window=False, sliding_window=0, max_window_layers=28,
                   layer_types=["full_attention", "full_attention"], mlp_only_layers=[],
                   rope_parameters=dict(rope_type="default", rope_theta=1000000.0)),
}
FAMILIES["qwen2_moe_stacked"] = {"newer": FAMILIES["qwen2_moe"]["newer"]}

FAMILIES["ministral"] = {
    "newer": newer(model_type="ministral", architectures=["MinistralForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5, head_dim=12,
                   max_position_embeddings=512, sliding_window=9, layer_types=["sliding_attention", "full_attention"],
                   rope_parameters=dict(rope_type="default", rope_theta=20000.0), tie_word_embeddings=False),
}

FAMILIES["gemma"] = {
    "classic": classic(model_type="gemma", architectures=["GemmaForCausalLM"], hidden_act="gelu", hidden_activation=None,
                       rms_norm_eps=1e-6, head_dim=12, max_position_embeddings=512, rope_theta=10000.0, rope_scaling=None,
                       attention_bias=False),
}

SMOLLM3 = dict(model_type="smollm3", architectures=["SmolLM3ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6, max_position_embeddings=512,
               attention_bias=False, mlp_bias=False, max_window_layers=28)
FAMILIES["smollm3"] = {
    "classic": classic(**SMOLLM3, no_rope_layers=[0, 1], rope_theta=30000.0, rope_scaling=None, use_sliding_window=False, sliding_window=None,
                       layer_types=["full_attention", "full_attention"]),
    "window-newer": newer(**SMOLLM3, no_rope_layer_interval=2, use_sliding_window=True, sliding_window=7,
                          rope_parameters=dict(rope_type="default", rope_theta=30000.0)),
}

FAMILIES["falcon3"] = {
    "classic": classic(**dict(LLAMA, tie_word_embeddings=False, rms_norm_eps=1e-6), head_dim=12, max_position_embeddings=512,
                       rope_theta=1000042, rope_scaling=None, attention_bias=False, mlp_bias=False, attention_dropout=0.0,
                       pretraining_tp=1),
}

FAMILIES["granite"] = {
    "classic": classic(model_type="granite", architectures=["GraniteForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5,
                       max_position_embeddings=512, rope_theta=10000.0, rope_scaling=None, attention_bias=False, mlp_bias=False,
                       embedding_multiplier=12.0, attention_multiplier=0.3, residual_multiplier=0.22, logits_scaling=8.0,
                       tie_word_embeddings=True),
}

FAMILIES["olmo2"] = {
    "classic": classic(model_type="olmo2", architectures=["Olmo2ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6, max_position_embeddings=512,
                       rope_theta=500000.0, rope_scaling=None, attention_bias=False, tie_word_embeddings=False),
}

OLMO3 = dict(model_type="olmo3", architectures=["Olmo3ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-6, max_position_embeddings=64,
             sliding_window=9, attention_bias=False, tie_word_embeddings=False)
FAMILIES["olmo3"] = {
    "classic": classic(**OLMO3, rope_theta=500000.0, rope_scaling=dict(YARN, beta_fast=8, beta_slow=1, attention_factor=1.2),
                       layer_types=["sliding_attention", "full_attention"]),
    "newer": newer(**OLMO3, layer_types=["full_attention", "sliding_attention"],
                   rope_parameters=dict(full_attention=dict(YARN, rope_theta=500000.0),
                                        sliding_attention=dict(rope_type="default", rope_theta=20000.0))),
}
FAMILIES["ministral3"] = {
    "newer": newer(model_type="ministral3", architectures=["Ministral3ForCausalLM"], hidden_act="silu", rms_norm_eps=1e-5, head_dim=12,
                   max_position_embeddings=64, sliding_window=None, tie_word_embeddings=False,
                   rope_parameters=dict(YARN, rope_theta=10000.0, type="yarn", beta_fast=32.0, beta_slow=1.0, truncate=False, mscale=1.0,
                                        mscale_all_dim=1.0, llama_4_scaling_beta=0.3, max_position_embeddings=64)),
}

FAMILIES["starcoder2"] = {
    "classic": classic(model_type="starcoder2", architectures=["Starcoder2ForCausalLM"], hidden_act="gelu_pytorch_tanh", norm_epsilon=1e-5,
                       max_position_embeddings=512, rope_theta=100000.0, sliding_window=9, use_bias=True, residual_dropout=0.0,
                       embedding_dropout=0.0),
}
FAMILIES["stablelm"] = {
    "classic": classic(model_type="stablelm", architectures=["StableLmForCausalLM"], hidden_act="silu", layer_norm_eps=1e-5,
                       max_position_embeddings=512, rope_theta=10000.0, partial_rotary_factor=0.25, use_qkv_bias=True,
                       qk_layernorm=False, use_parallel_residual=False, tie_word_embeddings=False),
}
FAMILIES["phi"] = {
    "classic": classic(model_type="phi", architectures=["PhiForCausalLM"], hidden_act="gelu_new", layer_norm_eps=1e-5,
                       max_position_embeddings=512, rope_theta=10000.0, rope_scaling=None, partial_rotary_factor=0.5, qk_layernorm=False,
                       embd_pdrop=0.0, resid_pdrop=0.1, tie_word_embeddings=False),
}
COHERE = dict(architectures=["CohereForCausalLM"], hidden_act="silu", layer_norm_eps=1e-5, max_position_embeddings=512, attention_bias=False)
FAMILIES["cohere"] = {
    "classic": classic(model_type="cohere", **COHERE, rope_theta=8000000.0, logit_scale=0.25, use_qk_norm=False, model_max_length=131072,
                       pretraining_tp=1),
}
COHERE2 = dict(COHERE, model_type="cohere2", architectures=["Cohere2ForCausalLM"], sliding_window=9, num_hidden_layers=3)
FAMILIES["cohere2"] = {
    "classic": dict(classic(), **COHERE2, head_dim=12, rope_theta=50000.0, rope_scaling=None, rotary_pct=1.0, logit_scale=0.5,
                    sliding_window_pattern=2, layer_switch=2, order_of_interleaved_layers="local_attn_first",
                    position_embedding_type="rope_gptj", use_embedding_sharing=True, use_gated_activation=True, use_parallel_block=True,
                    use_parallel_embedding=False, cache_implementation="hybrid"),
    "newer": dict(newer(), **COHERE2, head_dim=12, logit_scale=0.0625, rope_parameters=dict(rope_type="default", rope_theta=20000.0),
                  layer_types=["full_attention", "sliding_attention", "full_attention"], tie_word_embeddings=True),
}
NEOX = dict(model_type="gpt_neox", architectures=["GPTNeoXForCausalLM"], hidden_size=32, intermediate_size=40, num_hidden_layers=2,
            num_attention_heads=4, vocab_size=64, bos_token_id=1, eos_token_id=2, hidden_act="gelu", layer_norm_eps=1e-5,
            max_position_embeddings=512, tie_word_embeddings=False)
FAMILIES["gpt_neox"] = {
    "classic": dict(NEOX, torch_dtype="float16", rotary_pct=0.25, rotary_emb_base=2000, use_parallel_residual=True, use_cache=True),
    "one-by-one-newer": dict(NEOX, dtype="bfloat16", use_parallel_residual=False, attention_bias=True, is_decoder=False,
                             hidden_dropout=0.0, classifier_dropout=0.1, attention_dropout=0.0, initializer_range=0.02,
                             rope_parameters=dict(rope_type="default", rope_theta=10000, partial_rotary_factor=0.5)),
}

GPT2 = dict(model_type="gpt2", architectures=["GPT2LMHeadModel"], n_embd=32, n_layer=2, n_head=4, n_positions=48, n_ctx=48, vocab_size=64,
            activation_function="gelu_new", layer_norm_epsilon=1e-5, attn_pdrop=0.1, embd_pdrop=0.1, resid_pdrop=0.1, initializer_range=0.02,
            bos_token_id=1, eos_token_id=2, summary_type="cls_index", summary_use_proj=True, summary_activation=None,
            summary_first_dropout=0.1, summary_proj_to_labels=True)
FAMILIES["gpt2"] = {
    "classic": GPT2,
    "newer": dict(GPT2, dtype="bfloat16", n_inner=None, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False,
                  reorder_and_upcast_attn=False, add_cross_attention=False, use_cache=True, tie_word_embeddings=True),
}

FAMILIES["cohere_qk_norm"] = {
    "classic": classic(model_type="cohere", **COHERE, rope_theta=75000000.0, logit_scale=0.8333, use_qk_norm=True),
}
FAMILIES["stablelm_parallel"] = {
    "classic": classic(model_type="stablelm", architectures=["StableLmForCausalLM"], hidden_act="silu", layer_norm_eps=1e-5,
                       max_position_embeddings=512, rope_theta=10000.0, partial_rotary_factor=0.25, use_qkv_bias=False,
                       qk_layernorm=True, use_parallel_residual=True, tie_word_embeddings=False),
}
GLM = dict(hidden_act="silu", rms_norm_eps=1.5625e-7, head_dim=12, max_position_embeddings=512, attention_dropout=0.0, tie_word_embeddings=False)
FAMILIES["glm"] = {
    "classic": classic(model_type="glm", architectures=["GlmForCausalLM"], **GLM, attention_bias=True, partial_rotary_factor=0.5,
                       rope_theta=10000.0),
    "newer": newer(model_type="glm", architectures=["GlmForCausalLM"], **GLM, attention_bias=False,
                   rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
}
FAMILIES["glm4"] = {
    "newer": newer(model_type="glm4", architectures=["Glm4ForCausalLM"], **GLM, attention_bias=True,
                   rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5)),
}

TEXT_SIZES = dict(hidden_size=32, intermediate_size=40, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=64)
VISION = dict(hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4)
FAMILIES["gemma3_multimodal"] = {
    "newer": dict(model_type="gemma3", architectures=["Gemma3ForConditionalGeneration"], dtype="bfloat16", mm_tokens_per_image=1,
                  boi_token_index=60, eoi_token_index=61, image_token_index=62, vision_config=dict(VISION, model_type="siglip_vision_model"),
                  text_config=dict(TEXT_SIZES, model_type="gemma3_text", head_dim=12, query_pre_attn_scalar=20, sliding_window=9,
                                   rope_scaling=dict(rope_type="linear", factor=8.0))),
}
FAMILIES["mistral3"] = {
    "classic": dict(model_type="mistral3", architectures=["Mistral3ForConditionalGeneration"], torch_dtype="bfloat16", image_token_index=10,
                    tie_word_embeddings=False, multimodal_projector_bias=False, projector_hidden_act="gelu", spatial_merge_size=2,
                    vision_feature_layer=-1, vision_config=dict(VISION, model_type="pixtral", head_dim=8),
                    text_config=dict(TEXT_SIZES, model_type="mistral", head_dim=12, hidden_act="silu", rms_norm_eps=1e-5,
                                     max_position_embeddings=512, rope_theta=1e6, sliding_window=None)),
}

FAMILIES["qwen3_moe_stacked"] = {"newer": FAMILIES["qwen3_moe"]["shares-of-all-newer"]}


def checkpoint_tensors(family, tensors):
    """The tensors of one model or block, by transformers' names, as a checkpoint has them."""
    if family == "mistral3":  # as transformers 4 wrote it
        return {("language_model." + name.replace("model.language_model.", "model.") if "language_model" in name or "lm_head" in name
                 else name.removeprefix("model.")): tensor for name, tensor in tensors.items()}
    if family == "gpt_neox":
        return {name.replace("lm_head", "embed_out"): tensor for name, tensor in tensors.items()}
    if family not in EXPERTS:
        return tensors
    here, there, (gate, up), down = EXPERTS[family]
    kept = {}
    for name, tensor in tensors.items():
        name = name.replace(here, there)
        if name.endswith("experts.gate_up_proj"):
            for i, both in enumerate(tensor):
                base = f"{name.removesuffix('gate_up_proj')}{i}."
                kept[base + gate + ".weight"], kept[base + up + ".weight"] = both.chunk(2)
        elif name.endswith("experts.down_proj"):
            for i, part in enumerate(tensor):
                kept[f"{name.removesuffix('down_proj')}{i}.{down}.weight"] = part
        else:
            kept[name] = tensor
    return {name: tensor.contiguous() for name, tensor in kept.items()}


def randomise(model, seed):
    """Weights large enough that every part of a block shows in the logits; in bf16's values."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        value = torch.randn(parameter.shape, generator=generator)
        if "norm" in name or ".ln_" in name:
            value = parameter.detach() + 0.3 * value
        elif parameter.dim() == 1:
            value = 0.3 * value
        elif "embed" not in name and ".wte." not in name and ".wpe." not in name:
            value = value * 1.5 / parameter.shape[-1] ** 0.5
        parameter.data = value.bfloat16().float()


def output_gradient(tokens, hidden):
    """Element i is the upper half of i · 2654435761 mod 2³² as a fraction, less one half."""
    i = torch.arange(tokens * hidden, dtype=torch.int64)
    return (((i * 2654435761) % 2**32 // 2**16).double() / 65536 - 0.5).reshape(tokens, hidden)


def build(fields, seed):
    config = transformers.AutoConfig.for_model(**{k: v for k, v in fields.items() if k not in ("torch_dtype", "dtype")})
    kind = transformers.AutoModelForImageTextToText if "text_config" in fields else transformers.AutoModelForCausalLM
    model = kind.from_config(config, attn_implementation="eager", experts_implementation="eager",
                                                          dtype=torch.float32).eval()
    if seed is not None:
        randomise(model, seed)
    return model


def as_in_memory(name, gradient):
    """A gpt-oss' experts lie transposed, and gate and up column by column in turn: turned around, and gate first."""
    turned = gradient.transpose(1, 2)
    return torch.cat([turned[:, ::2], turned[:, 1::2]], 1) if name.endswith("gate_up_proj") else turned.contiguous()


def golden(family, model, seed, linears):
    """linears: parts of names of the gradients to keep, or None for all."""
    config = model.config.get_text_config()
    ids = torch.randint(0, config.vocab_size, (TOKENS,), generator=torch.Generator().manual_seed(seed + 1))
    kept = {"ids": ids.int()}
    kept["logits"] = model(ids[None], use_cache=False).logits[0].detach().float().contiguous()
    trunk = getattr(model.base_model, "language_model", model.base_model)
    decoder = getattr(trunk, "decoder", trunk)
    layer = (decoder.h if hasattr(decoder, "h") else decoder.layers)[-1]
    outputs = []
    model.double()
    hook = layer.register_forward_hook(
        lambda module, args, output: outputs.append(output[0] if isinstance(output, tuple) else output))
    model(ids[None], use_cache=False)
    hook.remove()
    outputs[0][0].backward(output_gradient(TOKENS, config.hidden_size))
    gradients = {name + ".weight": module.weight.grad for name, module in layer.named_modules()
                 if isinstance(module, torch.nn.Linear) and not name.endswith("shared_expert_gate")}
    gradients |= {name + ".weight": module.weight.grad.T.contiguous() for name, module in layer.named_modules()
                  if isinstance(module, transformers.pytorch_utils.Conv1D)}
    gradients |= {name: as_in_memory(name, parameter.grad) if family == "gpt_oss" else parameter.grad for name, parameter in layer.named_parameters()
                  if "experts." in name and not name.endswith("_bias")}
    for name, gradient in checkpoint_tensors(family, gradients).items():
        name = name.removesuffix(".weight")
        if linears is None or name.split(".")[-1] in linears:
            kept["gradient." + name] = gradient.float().contiguous()
    model.float()
    return kept


def write(path, tensors, check):
    if not check:
        path.parent.mkdir(exist_ok=True)
        save_file(tensors, path)
        path.chmod(0o644)
        return
    there = load_file(path)
    assert there.keys() == tensors.keys(), path
    for name, tensor in tensors.items():
        torch.testing.assert_close(there[name], tensor, rtol=1e-5, atol=1e-6)


def make(family, cases, check):
    state = None
    for number, (case, fields) in enumerate(cases.items()):
        model = build(fields, seed=sum(family.encode()) if state is None else None)
        if state is None:
            state = {name: tensor.bfloat16().contiguous() for name, tensor in model.state_dict().items()
                     if name != "lm_head.weight" or not model.config.tie_word_embeddings}
            write(HERE / family / "model.safetensors", checkpoint_tensors(family, state), check)
        else:
            model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
            model.tie_weights()
        kept = golden(family, model, number, None if number == 0 else ("q_proj", "k_proj", "qkv_proj", "query_key_value", "c_attn"))
        write(HERE / family / f"{case}.golden.safetensors", kept, check)
        text = json.dumps(fields, indent=1) + "\n"
        if check:
            assert (HERE / family / f"{case}.json").read_text() == text
        else:
            (HERE / family / f"{case}.json").write_text(text)
        print(family, case)


if __name__ == "__main__":
    asked = [argument for argument in sys.argv[1:] if argument != "--check"]
    for family in asked or FAMILIES:
        make(family, FAMILIES[family], "--check" in sys.argv)
