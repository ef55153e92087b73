#include "engine/model/families.h"

#include <stddef.h>
#include <string.h>

const struct family families[] = {
	{
		.model_type = "llama",
		.architecture = "LlamaForCausalLM",
		.attention_bias = true,
		.mlp_bias = true,
		.max_positions = 2048,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "mistral",
		.architecture = "MistralForCausalLM",
		.window = WINDOW_WHEN_GIVEN,
		.kv_heads = 8,
		.max_positions = 131072,
		.sliding_window = 4096,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "qwen2",
		.architecture = "Qwen2ForCausalLM",
		.qkv_bias = true,
		.window = WINDOW_WHEN_SWITCHED_ON,
		.kv_heads = 32,
		.max_positions = 32768,
		.sliding_window = 4096,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "qwen3",
		.architecture = "Qwen3ForCausalLM",
		.attention_bias = true,
		.qk_norm = true,
		.window = WINDOW_WHEN_SWITCHED_ON,
		.kv_heads = 32,
		.head_dim = 128,
		.max_positions = 32768,
		.sliding_window = 4096,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "phi3",
		.architecture = "Phi3ForCausalLM",
		.stored_fused = true,
		.window = WINDOW_WHEN_GIVEN,
		.max_positions = 4096,
		.rms_norm_eps = 1e-5,
		.rope_theta = 10000,
	},
	{
		.model_type = "gemma2",
		.architecture = "Gemma2ForCausalLM",
		.attention_bias = true,
		.output_norms = true,
		.scaled_embeddings = true,
		.tied_embeddings = true,
		.norm_offset = 1,
		.activation_key = "hidden_activation",
		.activation = "gelu_pytorch_tanh",
		.window = WINDOW_BY_PATTERN,
		.kv_heads = 4,
		.head_dim = 256,
		.max_positions = 8192,
		.sliding_window = 4096,
		.window_pattern = 2,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
		.query_pre_attn_scalar = 256,
		.attn_logit_softcapping = 50,
		.final_logit_softcapping = 30,
	},
	{
		.model_type = "gemma3_text",
		.architecture = "Gemma3ForCausalLM",
		.attention_bias = true,
		.qk_norm = true,
		.output_norms = true,
		.scaled_embeddings = true,
		.tied_embeddings = true,
		.norm_offset = 1,
		.activation_key = "hidden_activation",
		.activation = "gelu_pytorch_tanh",
		.window = WINDOW_BY_PATTERN,
		.kv_heads = 4,
		.head_dim = 256,
		.max_positions = 131072,
		.sliding_window = 4096,
		.window_pattern = 6,
		.heeds_window_pattern = true,
		.rms_norm_eps = 1e-6,
		.rope_theta = 1000000,
		.rope_local_base_freq = 10000,
		.query_pre_attn_scalar = 256,
	},
	{0},
};

const struct family *family_of_type(const char *model_type)
{
	for (const struct family *family = families; family->model_type; family++)
		if (strcmp(family->model_type, model_type) == 0) return family;
	return NULL;
}

const struct family *family_of_architecture(const char *architecture)
{
	for (const struct family *family = families; family->model_type; family++)
		if (strcmp(family->architecture, architecture) == 0) return family;
	return NULL;
}
