#include "engine/model/families.h"

#include <stddef.h>
#include <string.h>
#include <strings.h>

#define TRUNK .embeddings = "model.embed_tokens", .final_norm = "model.norm", .blocks = "model.layers", .o = "self_attn.o_proj"
#define TRUNK_NAMES TRUNK, .norm1 = "input_layernorm"
#define MLP_NAMES .gate = "mlp.gate_proj", .up = "mlp.up_proj", .down = "mlp.down_proj"
#define DECODER_NAMES TRUNK_NAMES, MLP_NAMES
#define EXPERT_NAMES TRUNK_NAMES, .norm2 = "post_attention_layernorm"

static const struct weight_names llama_names = {DECODER_NAMES, .norm2 = "post_attention_layernorm"};
static const struct weight_names gemma_names = {DECODER_NAMES, .norm2 = "pre_feedforward_layernorm",
						.attention_norm = "post_attention_layernorm",
						.mlp_norm = "post_feedforward_layernorm"};
static const struct weight_names olmo2_names = {TRUNK, MLP_NAMES, .attention_norm = "post_attention_layernorm",
						.mlp_norm = "post_feedforward_layernorm"};
static const struct weight_names opt_names = {
	.embeddings = "model.decoder.embed_tokens",
	.positions = "model.decoder.embed_positions",
	.final_norm = "model.decoder.final_layer_norm",
	.blocks = "model.decoder.layers",
	.norm1 = "self_attn_layer_norm",
	.norm2 = "final_layer_norm",
	.o = "self_attn.out_proj",
	.gate = "fc1",
	.down = "fc2",
};
static const struct weight_names mixtral_names = {
	EXPERT_NAMES, .router = "block_sparse_moe.gate", .experts = "block_sparse_moe.experts", .gate = "w1", .up = "w3",
	.down = "w2"};
static const struct weight_names qwen3_moe_names = {EXPERT_NAMES,        .router = "mlp.gate", .experts = "mlp.experts",
						    .gate = "gate_proj", .up = "up_proj",      .down = "down_proj"};

const struct family families[] = {
	{
		.model_type = "llama",
		.architecture = "LlamaForCausalLM",
		.names = &llama_names,
		.attention_bias = true,
		.mlp_bias = true,
		.max_positions = 2048,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "mistral",
		.architecture = "MistralForCausalLM",
		.names = &llama_names,
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
		.names = &llama_names,
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
		.names = &llama_names,
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
		.names = &llama_names,
		.stored_fused = true,
		.window = WINDOW_WHEN_GIVEN,
		.max_positions = 4096,
		.partial_rotary = 1,
		.original_positions = 4096,
		.rms_norm_eps = 1e-5,
		.rope_theta = 10000,
	},
	{
		.model_type = "gemma2",
		.architecture = "Gemma2ForCausalLM",
		.names = &gemma_names,
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
		.text_model = true,
		.names = &gemma_names,
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
	{
		.model_type = "vaultgemma",
		.architecture = "VaultGemmaForCausalLM",
		.names = &gemma_names,
		.attention_bias = true,
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
		.model_type = "opt",
		.architecture = "OPTForCausalLM",
		.names = &opt_names,
		.layer_norm = true,
		.learned_positions = true,
		.plain_mlp = true,
		.all_biases = true,
		.intermediate_key = "ffn_dim",
		.tied_embeddings = true,
		.activation_key = "activation_function",
		.activation = "relu",
		.max_positions = 2048,
	},
	{
		.model_type = "mixtral",
		.architecture = "MixtralForCausalLM",
		.names = &mixtral_names,
		.window = WINDOW_WHEN_GIVEN,
		.experts_key = "num_local_experts",
		.experts = 8,
		.experts_per_token = 2,
		.normalised_routing = true,
		.kv_heads = 8,
		.max_positions = 131072,
		.rms_norm_eps = 1e-5,
		.rope_theta = 1000000,
	},
	{
		.model_type = "qwen3_moe",
		.architecture = "Qwen3MoeForCausalLM",
		.names = &qwen3_moe_names,
		.intermediate_key = "moe_intermediate_size",
		.attention_bias = true,
		.qk_norm = true,
		.window = WINDOW_WHEN_SWITCHED_ON_IN_ALL,
		.experts_key = "num_experts",
		.experts = 128,
		.experts_per_token = 8,
		.heeds_norm_topk_prob = true,
		.kv_heads = 4,
		.max_positions = 32768,
		.sliding_window = 4096,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "ministral",
		.architecture = "MinistralForCausalLM",
		.names = &llama_names,
		.window = WINDOW_BY_PATTERN,
		.kv_heads = 8,
		.max_positions = 131072,
		.sliding_window = 4096,
		.window_pattern = INT32_MAX,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "gemma",
		.architecture = "GemmaForCausalLM",
		.names = &llama_names,
		.attention_bias = true,
		.scaled_embeddings = true,
		.tied_embeddings = true,
		.norm_offset = 1,
		.activation = "gelu_pytorch_tanh",
		.gelu_is_tanh = true,
		.kv_heads = 16,
		.head_dim = 256,
		.max_positions = 8192,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "smollm3",
		.architecture = "SmolLM3ForCausalLM",
		.names = &llama_names,
		.attention_bias = true,
		.mlp_bias = true,
		.tied_embeddings = true,
		.window = WINDOW_WHERE_STILL,
		.kv_heads = 4,
		.max_positions = 32768,
		.still_interval = 4,
		.rms_norm_eps = 1e-6,
		.rope_theta = 2000000,
	},
	{
		.model_type = "granite",
		.architecture = "GraniteForCausalLM",
		.names = &llama_names,
		.attention_bias = true,
		.mlp_bias = true,
		.multipliers = true,
		.max_positions = 2048,
		.rms_norm_eps = 1e-6,
		.rope_theta = 10000,
	},
	{
		.model_type = "olmo2",
		.architecture = "Olmo2ForCausalLM",
		.names = &olmo2_names,
		.attention_bias = true,
		.qk_norm = true,
		.qk_norm_whole = true,
		.output_norms = true,
		.max_positions = 2048,
		.rms_norm_eps = 1e-5,
		.rope_theta = 10000,
	},
	{
		.model_type = "olmo3",
		.architecture = "Olmo3ForCausalLM",
		.names = &olmo2_names,
		.attention_bias = true,
		.qk_norm = true,
		.qk_norm_whole = true,
		.output_norms = true,
		.window = WINDOW_BY_PATTERN,
		.max_positions = 2048,
		.sliding_window = 4096,
		.window_pattern = 4,
		.rms_norm_eps = 1e-5,
		.rope_theta = 500000,
		.rope_local_base_freq = 500000,
	},
	{
		.model_type = "ministral3",
		.architecture = "Ministral3ForCausalLM",
		.names = &llama_names,
		.window = WINDOW_WHEN_GIVEN,
		.kv_heads = 8,
		.head_dim = 128,
		.max_positions = 262144,
		.scaled_queries = true,
		.rms_norm_eps = 1e-5,
		.rope_theta = 10000,
	},
	{0},
};

const struct family *family_of_type(const char *model_type)
{
	for (const struct family *family = families; family->model_type; family++)
		if (strcmp(family->model_type, model_type) == 0) return family;
	return NULL;
}

bool family_has_architecture(const struct family *family, const char *architecture)
{
	static const char causal[] = "ForCausalLM", model[] = "Model", sharded[] = "FSDP";
	size_t stem = strlen(family->architecture) - strlen(causal);
	if (strncmp(architecture, sharded, strlen(sharded)) == 0) architecture += strlen(sharded);
	if (strcasecmp(architecture, family->architecture) == 0) return true;
	if (strncasecmp(architecture, family->architecture, stem) != 0) return false;
	const char *rest = architecture + stem;
	if (family->text_model && strncmp(rest, "Text", 4) == 0) rest += 4;
	return strcmp(rest, model) == 0 || (family->text_model && strcmp(rest, causal) == 0);
}

const struct family *family_of_architecture(const char *architecture)
{
	for (const struct family *family = families; family->model_type; family++)
		if (family_has_architecture(family, architecture)) return family;
	return NULL;
}
