/* config.json: both forms, the families' defaults, what is refused by name, and the rope tables against transformers' formulas. */
#include <math.h>

#include "tests/unit/scratch.h"

#include "base/json.h"
#include "engine/model/rope.h"

#define OPT_SIZES "\"hidden_size\":64,\"ffn_dim\":96,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100"
#define SIZES "\"hidden_size\":64,\"intermediate_size\":160,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"vocab_size\":100"

static enum status parse(struct scratch *s, const char *text, struct model_config *ret)
{
	cJSON *json = NULL;
	SUCCEEDS(json_parse_python(text, strlen(text), "text", &json, &s->err));
	enum status status = model_config_parse(json, "config.json", NULL, ret, &s->err);
	cJSON_Delete(json);
	return status;
}

/* A llama config with these fields besides the sizes. */
static enum status parse_llama(struct scratch *s, const char *fields, struct model_config *ret)
{
	char text[2048];
	snprintf(text, sizeof text, "{\"model_type\":\"llama\"," SIZES "%s%s}", *fields ? "," : "", fields);
	return parse(s, text, ret);
}

static void test_classic_form(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	SUCCEEDS(model_config_read(&PLACE("demo/tiny-llama"), NULL, &config, &s->err));
	assert_string_equal(config.family, "llama");
	assert_int_equal(config.hidden, 192);
	assert_int_equal(config.intermediate, 512);
	assert_int_equal(config.layers, 6);
	assert_int_equal(config.heads, 6);
	assert_int_equal(config.kv_heads, 6);
	assert_int_equal(config.head_dim, 32);
	assert_int_equal(config.vocab, 2048);
	assert_int_equal(config.max_positions, 512);
	assert_int_equal(config.norm.kind, NORM_RMS);
	assert_true(config.norm.eps == 1e-5f);
	assert_int_equal(config.norm.groups, 1);
	assert_int_equal(config.activation.kind, ACTIVATION_SILU);
	assert_true(config.gated_mlp);
	assert_false(config.qkv_bias || config.o_bias || config.mlp_bias || config.tied_embeddings);
	assert_int_equal(config.rope.kind, ROPE_DEFAULT);
	assert_true(config.rope.theta == 10000);
	assert_int_equal(config.rope.rotary, 32);
	assert_int_equal(config.sliding_window, 0);
	assert_true(config.embedding_scale == 1);
	assert_true(fabsf(config.attention_scale - 0.17677669f) < 1e-7f);
	assert_int_equal(config.bos_token, 1);
}

static void test_newer_form(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	SUCCEEDS(parse(s,
		       "{\"architectures\":[\"Qwen2ForCausalLM\"],\"model_type\":\"qwen2\",\"dtype\":\"bfloat16\"," SIZES
		       ",\"num_key_value_heads\":2,\"rope_parameters\":{\"rope_theta\":1000000.0,\"rope_type\":\"default\"},"
		       "\"layer_types\":[\"full_attention\",\"full_attention\"],\"max_window_layers\":28,\"sliding_window\":null,"
		       "\"use_sliding_window\":false,\"tie_word_embeddings\":true,\"max_position_embeddings\":512}",
		       &config));
	assert_string_equal(config.family, "qwen2");
	assert_int_equal(config.kv_heads, 2);
	assert_true(config.rope.theta == 1e6);
	assert_true(config.qkv_bias && config.tied_embeddings);
	assert_false(config.o_bias || config.mlp_bias);
	assert_int_equal(config.sliding_window, 0);
	assert_int_equal(config.bos_token, -1);
}

static void test_families(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	SUCCEEDS(parse_llama(s, "", &config));
	assert_int_equal(config.kv_heads, 4);
	assert_int_equal(config.head_dim, 16);
	assert_int_equal(config.max_positions, 2048);
	SUCCEEDS(parse_llama(s, "\"attention_bias\":true,\"mlp_bias\":true,\"head_dim\":32,\"hidden_act\":\"gelu\"", &config));
	assert_true(config.qkv_bias && config.o_bias && config.mlp_bias);
	assert_int_equal(config.head_dim, 32);
	assert_int_equal(config.activation.kind, ACTIVATION_GELU);
	SUCCEEDS(parse(s, "{\"architectures\":[\"MistralForCausalLM\"]," SIZES ",\"num_key_value_heads\":2,\"sliding_window\":128}",
		       &config));
	assert_string_equal(config.family, "mistral");
	assert_int_equal(config.sliding_window, 128);
	SUCCEEDS(parse(s, "{\"model_type\":\"mistral\"," SIZES ",\"num_key_value_heads\":2,\"sliding_window\":null}", &config));
	assert_int_equal(config.sliding_window, 0);
	SUCCEEDS(parse(s, "{\"model_type\":\"mistral\"," SIZES ",\"num_key_value_heads\":null}", &config));
	assert_int_equal(config.sliding_window, 4096);
	assert_int_equal(config.kv_heads, 4);
	SUCCEEDS(parse(s, "{\"model_type\":\"qwen3\"," SIZES ",\"num_key_value_heads\":2,\"attention_bias\":true}", &config));
	assert_true(config.qk_norm && config.qkv_bias && config.o_bias);
	assert_int_equal(config.head_dim, 128);
	assert_true(fabsf(config.attention_scale - 0.08838835f) < 1e-7f);
	SUCCEEDS(parse(s, "{\"architectures\":[\"Qwen3ForCausalLM\"]," SIZES ",\"num_key_value_heads\":2,\"head_dim\":24}",
		       &config));
	assert_int_equal(config.head_dim, 24);
	assert_false(config.qkv_bias || config.o_bias);
	SUCCEEDS(parse(s,
		       "{\"model_type\":\"phi3\"," SIZES ",\"sliding_window\":2047,\"attention_bias\":false,\"rope_scaling\":null}",
		       &config));
	assert_true(config.stored_qkv && config.stored_gate_up && config.norm.eps == 1e-5f);
	assert_int_equal(config.kv_heads, 4);
	assert_int_equal(config.max_positions, 4096);
	assert_int_equal(config.sliding_window, 2047);
	static const char qwen[] = "{\"model_type\":\"qwen2\"," SIZES ",\"num_key_value_heads\":4,\"sliding_window\":64,%s}";
	static const struct {
		const char *fields;
		int64_t window;
	} windows[] = {
		{"\"use_sliding_window\":false", 0},
		{"\"use_sliding_window\":true,\"max_window_layers\":0", 64},
		{"\"use_sliding_window\":true,\"max_window_layers\":2", 0},
		{"\"use_sliding_window\":true", 0},
		{"\"use_sliding_window\":true,\"max_window_layers\":1,\"layer_types\":[\"sliding_attention\",\"sliding_"
		 "attention\"]",
		 64},
		{"\"use_sliding_window\":true,\"layer_types\":[\"full_attention\",\"full_attention\"]", 0},
		{"\"use_sliding_window\":true,\"max_window_layers\":1", 64},
		{"\"use_sliding_window\":true,\"max_window_layers\":0,\"layer_types\":[\"full_attention\",\"sliding_attention\"]",
		 64},
	};
	for (size_t i = 0; i < sizeof windows / sizeof *windows; i++) {
		char text[1024];
		snprintf(text, sizeof text, qwen, windows[i].fields);
		SUCCEEDS(parse(s, text, &config));
		assert_int_equal(config.sliding_window, windows[i].window);
		assert_int_equal(model_window(&config, 1), windows[i].window);
		assert_int_equal(model_window(&config, 0), i < 6 ? windows[i].window : 0);
	}
	SUCCEEDS(parse(s, "{\"model_type\":\"gemma2\"," SIZES "}", &config));
	assert_int_equal(model_window(&config, 0), 4096);
	assert_int_equal(model_window(&config, 1), 0);
	assert_int_equal(config.activation.kind, ACTIVATION_GELU_TANH);
	assert_true(config.norm.weight_offset == 1 && config.tied_embeddings && config.output_norms);
	assert_true(config.embedding_scale == 8 && config.attention_scale == 0.0625f);
	assert_true(config.attention_softcap == 50 && config.logit_softcap == 30);
	SUCCEEDS(parse(s, "{\"model_type\":\"gemma2\"," SIZES ",\"attn_logit_softcapping\":null,\"final_logit_softcapping\":null}",
		       &config));
	assert_true(config.attention_softcap == 0 && config.logit_softcap == 0);
	assert_int_equal(config.local_rope.kind, ROPE_NONE);
	SUCCEEDS(parse(s, "{\"model_type\":\"gemma3_text\"," SIZES ",\"sliding_window\":512,\"sliding_window_pattern\":1}",
		       &config));
	assert_int_equal(config.sliding_window, 0);
	SUCCEEDS(parse(s, "{\"model_type\":\"gemma3_text\"," SIZES "}", &config));
	assert_true(config.rope.theta == 1e6 && config.local_rope.theta == 1e4);
	assert_true(config.attention_softcap == 0 && config.logit_softcap == 0 && config.qk_norm);
	assert_int_equal(model_window(&config, 1), 4096);
	SUCCEEDS(parse(s,
		       "{\"model_type\":\"gemma3_text\"," SIZES
		       ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"linear\",\"factor\":8,\"rope_theta\":5e5},"
		       "\"sliding_attention\":{\"rope_type\":\"default\",\"rope_theta\":2e4}}}",
		       &config));
	assert_true(config.rope.theta == 5e5 && config.rope.factor == 8 && config.local_rope.theta == 2e4);
	assert_int_equal(config.rope.kind, ROPE_LINEAR);
	assert_int_equal(config.local_rope.kind, ROPE_DEFAULT);
	SUCCEEDS(parse(s, "{\"model_type\":\"opt\"," OPT_SIZES "}", &config));
	assert_int_equal(config.intermediate, 96);
	assert_int_equal(config.norm.kind, NORM_LAYER);
	assert_int_equal(config.position_offset, 2);
	assert_int_equal(config.rope.kind, ROPE_NONE);
	assert_int_equal(config.activation.kind, ACTIVATION_RELU);
	assert_true(config.qkv_bias && config.o_bias && config.mlp_bias && config.tied_embeddings && !config.gated_mlp);
	SUCCEEDS(parse(s, "{\"model_type\":\"opt\"," OPT_SIZES ",\"enable_bias\":false,\"head_dim\":8,\"num_key_value_heads\":2}",
		       &config));
	assert_true(config.head_dim == 16 && config.kv_heads == 4);
	assert_false(config.qkv_bias || config.o_bias || config.mlp_bias);
}

static void test_experts(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	SUCCEEDS(parse(s, "{\"model_type\":\"mixtral\"," SIZES ",\"num_key_value_heads\":2,\"sliding_window\":null}", &config));
	assert_int_equal(config.experts, 8);
	assert_int_equal(config.experts_per_token, 2);
	assert_int_equal(config.intermediate, 160);
	assert_true(config.normalised_routing && config.rope.theta == 1e6 && config.norm.eps == 1e-5f);
	SUCCEEDS(parse(s,
		       "{\"model_type\":\"mixtral\"," SIZES ",\"num_key_value_heads\":2,\"num_local_experts\":4,"
		       "\"num_experts_per_tok\":4}",
		       &config));
	assert_true(config.experts == 4 && config.experts_per_token == 4);
	SUCCEEDS(parse(s,
		       "{\"model_type\":\"qwen3_moe\",\"num_key_value_heads\":2," SIZES
		       ",\"moe_intermediate_size\":24,\"decoder_sparse_step\":1,"
		       "\"mlp_only_layers\":[]}",
		       &config));
	assert_true(config.experts == 128 && config.experts_per_token == 8 && config.intermediate == 24 && config.qk_norm);
	assert_false(config.normalised_routing);
	SUCCEEDS(parse(s,
		       "{\"model_type\":\"qwen3_moe\",\"num_key_value_heads\":2," SIZES
		       ",\"moe_intermediate_size\":24,\"num_experts\":6,"
		       "\"num_experts_per_tok\":2,\"norm_topk_prob\":true}",
		       &config));
	assert_true(config.experts == 6 && config.normalised_routing);
	SUCCEEDS(parse_llama(s, "\"num_local_experts\":0", &config));
	assert_int_equal(config.experts, 0);
}

static void test_gpt2(void **state)
{
#define GPT2 "{\"model_type\":\"gpt2\",\"n_embd\":64,\"n_layer\":2,\"n_head\":4,\"vocab_size\":100"
	struct scratch *s = *state;
	struct model_config config;
	SUCCEEDS(parse(s, GPT2 ",\"architectures\":[\"GPT2Model\"],\"n_inner\":null,\"n_ctx\":512,\"summary_type\":\"cls_index\"}",
		       &config));
	assert_true(config.hidden == 64 && config.layers == 2 && config.heads == 4 && config.intermediate == 256);
	assert_true(config.max_positions == 1024 && config.position_offset == 0 && config.transposed && config.tied_embeddings);
	SUCCEEDS(parse(s, GPT2 ",\"architectures\":[\"GPT2LMHeadModel\"],\"n_inner\":96,\"n_positions\":32}", &config));
	assert_true(config.intermediate == 96 && config.max_positions == 32);
	assert_int_equal(parse(s, "{\"model_type\":\"gpt2\",\"n_layer\":2,\"n_head\":4,\"vocab_size\":100}", &config),
			 STATUS_INVALID);
	assert_non_null(strstr(s->err.message, "'n_embd' is missing"));
	assert_int_equal(parse(s, GPT2 ",\"hidden_size\":64}", &config), STATUS_UNSUPPORTED);
	assert_int_equal(parse(s, GPT2 ",\"scale_attn_weights\":false}", &config), STATUS_UNSUPPORTED);
	assert_int_equal(parse(s, GPT2 ",\"architectures\":[\"GPT2ForSequenceClassification\"]}", &config), STATUS_UNSUPPORTED);
	assert_int_equal(
		parse(s, "{\"model_type\":\"gpt2\",\"n_embd\":32768,\"n_layer\":2,\"n_head\":4,\"vocab_size\":100}", &config),
		STATUS_UNSUPPORTED);
	assert_non_null(strstr(s->err.message, "an MLP of 4 times 'n_embd' is wider"));
#undef GPT2
}

/* Whose field of attention's biases does not reach o. */
static void test_glm(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	SUCCEEDS(parse(s, "{\"model_type\":\"glm4\",\"num_key_value_heads\":2," SIZES "}", &config));
	assert_true(config.qkv_bias && !config.o_bias && !config.mlp_bias && config.turns_neighbours && config.output_norms);
	assert_true(config.stored_gate_up && !config.stored_qkv && config.head_dim == 128 && config.rope.rotary == 64);
	SUCCEEDS(parse(s, "{\"model_type\":\"glm\",\"num_key_value_heads\":2," SIZES ",\"attention_bias\":false}", &config));
	assert_false(config.qkv_bias || config.o_bias || config.output_norms);
}

/* Where fields say so: norms of each head by its own weights, and no second norm where attention and the MLP read the same. */
static void test_norms_of_heads(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	SUCCEEDS(parse(s,
		       "{\"model_type\":\"stablelm\",\"num_key_value_heads\":2," SIZES
		       ",\"use_parallel_residual\":true,\"qk_layernorm\":true}",
		       &config));
	assert_true(config.parallel && !config.names->norm2 && config.qk_norm && config.qk_norm_apart && config.names->q_norms);
	assert_int_equal(config_qk_norm(&config, config.kv_heads), 32);
	SUCCEEDS(parse(s, "{\"model_type\":\"stablelm\",\"num_key_value_heads\":2," SIZES "}", &config));
	assert_true(!config.parallel && config.names->norm2 && !config.qk_norm && !config.qk_norm_apart);
	SUCCEEDS(parse(s, "{\"model_type\":\"cohere\"," SIZES ",\"use_qk_norm\":true}", &config));
	assert_true(config.qk_norm_apart && !config.names->q_norms);
}

static void test_gpt_oss(void **state)
{
#define GPT_OSS "{\"model_type\":\"gpt_oss\",\"num_key_value_heads\":2," SIZES
	static const char rope[] = ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,\"truncate\":false,"
				   "\"original_max_position_embeddings\":4096}";
	struct scratch *s = *state;
	struct model_config config;
	char text[600];
	snprintf(text, sizeof text, GPT_OSS "%s,\"swiglu_limit\":7.0,\"experts_per_token\":4}", rope);
	SUCCEEDS(parse(s, text, &config));
	assert_true(config.experts == 128 && config.experts_per_token == 4 && config.normalised_routing && config.paired_experts);
	assert_true(config.activation.alpha == 1.702f && config.activation.limit == 7);
	assert_true(config.activation.kind == ACTIVATION_CLAMPED_SWIGLU && config.qkv_bias && config.o_bias && !config.mlp_bias);
	assert_true(model_window(&config, 0) == 128 && model_window(&config, 1) == 0 && config.head_dim == 64);
	assert_int_equal(parse(s, GPT_OSS "}", &config), STATUS_INVALID);
	assert_non_null(strstr(s->err.message, "neither 'rope_parameters' nor 'rope_scaling'"));
	snprintf(text, sizeof text, GPT_OSS "%s,\"swiglu_alpha\":1.5,\"swiglu_limit\":5.0}", rope);
	SUCCEEDS(parse(s, text, &config));
	assert_true(config.activation.alpha == 1.5f && config.activation.limit == 5);
	static const char *const wrong[] = {"null", "0", "-7", "1e-300", "1e7"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		snprintf(text, sizeof text, GPT_OSS "%s,\"swiglu_limit\":%s}", rope, wrong[i]);
		assert_int_equal(parse(s, text, &config), STATUS_INVALID);
		assert_non_null(strstr(s->err.message, "'swiglu_limit'"));
	}
	assert_int_equal(parse(s, "{\"model_type\":\"llama\"," SIZES ",\"swiglu_limit\":7.0}", &config), STATUS_UNSUPPORTED);
	snprintf(text, sizeof text, GPT_OSS "%s,\"hidden_act\":\"gelu\"}", rope);
	assert_int_equal(parse(s, text, &config), STATUS_UNSUPPORTED);
	snprintf(text, sizeof text, GPT_OSS "%s,\"quantization_config\":{\"quant_method\":\"mxfp4\"}}", rope);
	assert_int_equal(parse(s, text, &config), STATUS_UNSUPPORTED);
	assert_non_null(strstr(s->err.message, "mxfp4"));
#undef GPT_OSS
}

static void test_shared_expert(void **state)
{
#define QWEN2_MOE "{\"model_type\":\"qwen2_moe\",\"num_key_value_heads\":2,\"moe_intermediate_size\":24," SIZES
	struct scratch *s = *state;
	struct model_config config;
	SUCCEEDS(parse(s, QWEN2_MOE ",\"shared_expert_intermediate_size\":56,\"use_sliding_window\":false,\"sliding_window\":0}",
		       &config));
	assert_true(config.experts == 60 && config.experts_per_token == 4 && !config.normalised_routing);
	assert_true(config.intermediate == 24 && config.shared_intermediate == 56);
	assert_true(config.qkv_bias && !config.o_bias && config.sliding_window == 0);
	SUCCEEDS(parse(s,
		       QWEN2_MOE ",\"shared_expert_intermediate_size\":56,\"qkv_bias\":false,\"use_sliding_window\":true,"
				 "\"max_window_layers\":2}",
		       &config));
	assert_false(config.qkv_bias);
	assert_true(model_window(&config, 0) == 4096 && model_window(&config, 1) == 0);
	assert_int_equal(parse(s, QWEN2_MOE "}", &config), STATUS_INVALID);
	assert_non_null(strstr(s->err.message, "'shared_expert_intermediate_size' is missing"));
	assert_int_equal(parse(s, QWEN2_MOE ",\"shared_expert_intermediate_size\":56,\"num_experts\":512}", &config),
			 STATUS_UNSUPPORTED);
	assert_non_null(strstr(s->err.message, "512 experts and a shared one"));
#undef QWEN2_MOE
}

/* Fields that change nothing, as tools write them, and other names of fields. */
static void test_names(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	static const char *const accepted[] = {
		"\"pretraining_tp\":2",
		"\"_name_or_path\":\"x\",\"torch_dtype\":\"float16\",\"transformers_version\":\"4.31.0\",\"use_cache\":false,"
		"\"auto_map\":{\"a\":\"b\"}",
		"\"unsloth_version\":\"2024.11\",\"model_name\":\"x\",\"_attn_implementation_autoset\":true,\"max_sequence_"
		"length\":2048",
		"\"attention_dropout\":0.1,\"resid_pdrop\":0.2,\"pad_token_id\":-1,\"eos_token_id\":[1,2],\"temperature\":0.6,\"do_"
		"sample\":true",
		"\"learned_embeddings\":true,\"tokenizer_padding_side\":\"right\",\"dual_chunk_attention_config\":{\"chunk_size\":"
		"262144}",
		"\"rope_interleaved\":false,\"some_feature\":false,\"another\":null,\"list\":[],\"text\":\"\",\"object\":{}",
		"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"dense\",\"config_groups\":{},"
		"\"sparsity_config\":"
		"{\"format\":\"dense\",\"global_sparsity\":0.5,\"sparsity_structure\":\"2:4\"},\"kv_cache_scheme\":null}",
		"\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":false,\"load_in_8bit\":false}",
		"\"rope_scaling\":{},\"rope_parameters\":{}",
		"\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},\"rope_theta\":10000.0,\"rope_parameters\":{\"rope_type\":"
		"\"linear\",\"factor\":2.0,"
		"\"rope_theta\":10000}",
		"\"router_aux_loss_coef\":NaN,\"pretraining_tp\":1,\"pretraining_tp\":4",
		"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":1,\"high_freq_factor\":4}",
		"\"architectures\":[\"LLaMAForCausalLM\"]",
		"\"architectures\":[\"FSDPLlamaForCausalLM\"]",
		"\"architectures\":[\"LlamaModel\"]",
		"\"architectures\":[]",
		"\"bos_token_id\":-1",
	};
	for (size_t i = 0; i < sizeof accepted / sizeof *accepted; i++) {
		SUCCEEDS(parse_llama(s, accepted[i], &config));
		assert_string_equal(config.family, "llama");
	}
	assert_int_equal(config.bos_token, -1);
	SUCCEEDS(parse(s, "{\"model_type\":\"mixtral\"," SIZES ",\"num_key_value_heads\":4,\"num_experts\":4}", &config));
	assert_int_equal(config.experts, 4);
	/* transformers 5.24 writes num_local_experts for Qwen3-MoE. */
	SUCCEEDS(parse(s,
		       "{\"model_type\":\"qwen3_moe\"," SIZES
		       ",\"num_key_value_heads\":4,\"moe_intermediate_size\":24,\"num_local_experts\":16,\"max_window_layers\":1,"
		       "\"use_sliding_window\":true,\"sliding_window\":8}",
		       &config));
	assert_int_equal(config.experts, 16);
	assert_int_equal(model_window(&config, 0), 8);
	SUCCEEDS(parse(s,
		       "{\"architectures\":[\"Gemma3TextModel\"],\"model_type\":\"gemma3_text\"," SIZES
		       ",\"rope_theta\":1e6,\"rope_scaling\":{\"rope_type\":\"linear\",\"factor\":8},\"rope_parameters\":{\"full_"
		       "attention\":"
		       "{\"rope_type\":\"linear\",\"factor\":8,\"rope_theta\":1e6}}}",
		       &config));
	assert_true(config.rope.factor == 8 && config.local_rope.theta == 1e4);
}

static void test_warnings(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	struct warnings warnings = {0};
	scratch_text(s, "config.json",
		     "{\"model_type\":\"llama\"," SIZES
		     ",\"sliding_window\":4096,\"max_window_layers\":8,\"use_sliding_window\":false,"
		     "\"attention_dropout\":NaN}");
	SUCCEEDS(model_config_read(&PLACE(s->directory), &warnings, &config, &s->err));
	assert_int_equal(config.sliding_window, 0);
	assert_int_equal(warnings.count, 1);
	assert_non_null(strstr(warnings.messages[0], "'sliding_window' is ignored"));
	warnings_free(&warnings);
	scratch_text(s, "config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
	FAILS(STATUS_INVALID, "a git-lfs pointer", model_config_read(&PLACE(s->directory), &warnings, &config, &s->err));
}

static void test_refuses(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *fields, *part;
		enum status status;
	} cases[] = {
		{"\"hidden_act\":\"quick_gelu\"", "'hidden_act' 'quick_gelu'", STATUS_UNSUPPORTED},
		{"\"quantization_config\":{\"bits\":4}",
		 "'quantization_config' says that the weights are quantized or compressed (an unknown", STATUS_UNSUPPORTED},
		{"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"config_groups\":"
		 "{\"a\":{}}}",
		 "'quantization_config' has a 'weights' that is not supported", STATUS_UNSUPPORTED},
		{"\"quantization_config\":{\"quant_method\":\"compressed-tensors\",\"sparsity_config\":{\"format\":\"sparse-"
		 "bitmask\"}}",
		 "compressed-tensors", STATUS_UNSUPPORTED},
		{"\"quantization_config\":{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true}", "bitsandbytes",
		 STATUS_UNSUPPORTED},
		{"\"quantization\":{\"group_size\":64,\"bits\":4}", "'quantization' says", STATUS_UNSUPPORTED},
		{"\"logit_cap_of_mine\":30", "'logit_cap_of_mine' is 30: a field that is not known", STATUS_UNSUPPORTED},
		{"\"residual_scale\":Infinity", "'residual_scale' is NaN or infinite: a field", STATUS_UNSUPPORTED},
		{"\"odd\":"
		 "\"0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\u00e9"
		 "\u00e9\u00e9\"",
		 "'odd' is \"012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789012345678…: "
		 "a field",
		 STATUS_UNSUPPORTED},
		{"\"is_causal\":false", "'is_causal' is false", STATUS_UNSUPPORTED},
		{"\"rope_interleaved\":true", "'rope_interleaved' is true: rotary embeddings of neighbouring columns",
		 STATUS_UNSUPPORTED},
		{"\"rms_norm_eps\":NaN", "'rms_norm_eps' must be a number", STATUS_INVALID},
		{"\"rope_theta\":20000.0,\"rope_parameters\":{\"rope_type\":\"default\",\"rope_theta\":500000.0}",
		 "'rope_theta' 20000 and 'rope_theta' 500000 in 'rope_parameters' contradict", STATUS_INVALID},
		{"\"rope_theta\":1e6,\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},\"rope_parameters\":{\"rope_type\":"
		 "\"linear\",\"factor\":4}",
		 "'rope_scaling' (with 'rope_theta' 1e+06) and 'rope_parameters' (1e+06) contradict", STATUS_INVALID},
		/* transformers would go on with the default base here. */
		{"\"rope_scaling\":{\"type\":\"linear\",\"factor\":2},\"rope_parameters\":{\"rope_type\":\"linear\",\"factor\":2,"
		 "\"rope_theta\":1e6}",
		 "contradict", STATUS_INVALID},
		{"\"partial_rotary_factor\":0.5", "'partial_rotary_factor'", STATUS_UNSUPPORTED},
		{"\"attn_logit_softcapping\":50.0", "'attn_logit_softcapping'", STATUS_UNSUPPORTED},
		{"\"residual_multiplier\":0", "'residual_multiplier'", STATUS_UNSUPPORTED},
		{"\"layer_types\":[\"full_attention\",\"sliding_attention\"]", "'layer_types'", STATUS_UNSUPPORTED},
		{"\"layer_types\":[\"full_attention\"]", "'layer_types' must list 2", STATUS_INVALID},
		{"\"rope_scaling\":{\"type\":\"xpos\",\"factor\":4}", "'rope_type' 'xpos'", STATUS_UNSUPPORTED},
		{"\"rope_scaling\":{\"type\":\"yarn\"}", "'factor'", STATUS_INVALID},
		{"\"rope_theta\":1,\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4}", "above 1", STATUS_INVALID},
		{"\"rope_scaling\":{\"type\":\"longrope\",\"short_factor\":[1]}", "'short_factor' must be a list of 8",
		 STATUS_INVALID},
		{"\"rope_scaling\":{\"type\":\"yarn\",\"factor\":4,\"llama_4_scaling_beta\":1}", "'llama_4_scaling_beta'",
		 STATUS_UNSUPPORTED},
		{"\"rope_scaling\":{\"type\":\"linear\"}", "'factor'", STATUS_INVALID},
		{"\"rope_scaling\":{\"type\":\"linear\",\"factor\":0}", "'factor'", STATUS_INVALID},
		{"\"rope_scaling\":{\"type\":\"linear\",\"factor\":2,\"beta\":1}", "'beta' in 'rope_scaling'", STATUS_UNSUPPORTED},
		{"\"rope_scaling\":[]", "'rope_scaling' must be an object", STATUS_INVALID},
		{"\"rope_parameters\":{\"full_attention\":{\"rope_theta\":1}}", "'full_attention' in 'rope_parameters'",
		 STATUS_UNSUPPORTED},
		{"\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8,\"low_freq_factor\":4,\"high_freq_factor\":4,"
		 "\"original_max_position_embeddings\":8192}",
		 "'high_freq_factor'", STATUS_INVALID},
		{"\"rope_theta\":0", "'rope_theta'", STATUS_INVALID},
		{"\"rope_local_base_freq\":10000", "'rope_local_base_freq'", STATUS_UNSUPPORTED},
		{"\"num_key_value_heads\":3", "no multiple of 'num_key_value_heads' 3", STATUS_INVALID},
		{"\"num_key_value_heads\":0", "'num_key_value_heads'", STATUS_INVALID},
		{"\"head_dim\":15", "15 is odd", STATUS_INVALID},
		{"\"head_dim\":65536", "columns", STATUS_UNSUPPORTED},
		{"\"max_position_embeddings\":-1", "'max_position_embeddings'", STATUS_INVALID},
		{"\"rms_norm_eps\":0", "'rms_norm_eps'", STATUS_INVALID},
		{"\"rms_norm_eps\":\"1e-5\"", "'rms_norm_eps'", STATUS_INVALID},
		{"\"num_local_experts\":8", "'num_local_experts'", STATUS_UNSUPPORTED},
		{"\"num_experts\":8", "'num_experts'", STATUS_UNSUPPORTED},
		{"\"tie_word_embeddings\":1", "'tie_word_embeddings'", STATUS_INVALID},
	};
	struct model_config config;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		FAILS(cases[i].status, cases[i].part, parse_llama(s, cases[i].fields, &config));

	static const struct {
		const char *text, *part;
		enum status status;
	} wholes[] = {
		{"[]", "not a JSON object", STATUS_INVALID},
		{"{" SIZES "}", "neither 'model_type' nor 'architectures'", STATUS_INVALID},
		{"{\"model_type\":\"alien\",\"architectures\":[\"AlienForCausalLM\"]," SIZES "}",
		 "'alien' with architectures 'AlienForCausalLM' is not supported; supported: llama (LlamaForCausalLM), "
		 "mistral",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"deepseek_v3\"}",
		 "is not supported, as besad lacks multi-head latent attention; supported: llama", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"mamba\"}", "mistral3 (Mistral3ForConditionalGeneration)", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"gemma3\"}", "'text_config' must be an object", STATUS_INVALID},
		{"{\"model_type\":\"gemma3\",\"text_config\":{\"model_type\":\"llama\"," SIZES "}}",
		 "of a model_type 'gemma3' must be a 'gemma3_text', and its 'model_type' says 'llama'", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"mistral3\",\"text_config\":{},\"quantization_config\":{\"quant_method\":\"fp8\"}}",
		 "'quantization_config'", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"gptj\"}", "qwen3_moe (Qwen3MoeForCausalLM)", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"mistral\",\"architectures\":[\"LlamaForCausalLM\"]," SIZES "}",
		 "model_type 'mistral' and architectures 'LlamaForCausalLM' contradict", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"mistral\"," SIZES ",\"num_key_value_heads\":4,\"sliding_window\":8,"
		 "\"layer_types\":[\"full_attention\",\"full_attention\"]}",
		 "'layer_types' contradicts 'sliding_window'", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"mixtral\"," SIZES ",\"num_key_value_heads\":4,\"num_local_experts\":4,\"num_experts\":8}",
		 "'num_experts' 8 and 'num_local_experts' 4 contradict", STATUS_INVALID},
		{"{\"model_type\":\"llama\",\"architectures\":[\"LlamaForSequenceClassification\"]," SIZES "}",
		 "LlamaForSequenceClassification", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"llama\",\"architectures\":\"LlamaForCausalLM\"," SIZES "}", "'architectures' must be a list",
		 STATUS_INVALID},
		{"{\"model_type\":\"llama\"}", "'hidden_size' is missing", STATUS_INVALID},
		{"{\"model_type\":\"llama\",\"hidden_size\":1e9}", "'hidden_size' must be an integer from 1 to 65536",
		 STATUS_INVALID},
		{"{\"model_type\":\"qwen2\"," SIZES ",\"num_key_value_heads\":4,\"attention_bias\":true}", "'attention_bias'",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"phi3\"," SIZES
		 ",\"rope_scaling\":{\"type\":\"su\",\"long_factor\":[1,1,1,1,1,1,1,0],\"short_factor\":[1,1,1,1,1,1,1,1]}}",
		 "'long_factor' must be a list of numbers from", STATUS_INVALID},
		{"{\"model_type\":\"phi3\"," SIZES ",\"partial_rotary_factor\":0.2}",
		 "'partial_rotary_factor' 0.2 of a head size of 16", STATUS_INVALID},
		{"{\"model_type\":\"phi3\"," SIZES ",\"partial_rotary_factor\":2}", "'partial_rotary_factor' must be above 0",
		 STATUS_INVALID},
		{"{\"model_type\":\"ministral3\",\"num_key_value_heads\":4," SIZES "}", "'rope_parameters' is missing",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"smollm3\"," SIZES ",\"no_rope_layers\":[1]}", "'no_rope_layers' must be a list of a number",
		 STATUS_INVALID},
		{"{\"model_type\":\"smollm3\"," SIZES ",\"no_rope_layers\":[1,2]}", "'no_rope_layers' must be a list of 0 and 1",
		 STATUS_INVALID},
		{"{\"model_type\":\"llama\"," SIZES ",\"use_parallel_residual\":true}",
		 "'use_parallel_residual' is true: attention and MLP side by side", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"phi\"," SIZES ",\"layer_norm_eps\":0}", "'layer_norm_eps' must be above 0", STATUS_INVALID},
		{"{\"model_type\":\"cohere2\"," SIZES ",\"use_qk_norm\":true}",
		 "'use_qk_norm' is true: norms of queries and keys; this is not supported for model_type 'cohere2'",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"gpt_neox\"," SIZES ",\"rotary_pct\":2}", "'rotary_pct' must be above 0", STATUS_INVALID},
		{"{\"model_type\":\"gpt_neox\"," SIZES ",\"rotary_emb_base\":5,\"rope_parameters\":{\"rope_theta\":7}}",
		 "'rotary_emb_base' 5 and 'rope_theta' 7 in 'rope_parameters' contradict", STATUS_INVALID},
		{"{\"model_type\":\"llama\"," SIZES ",\"rotary_pct\":0.25}", "'rotary_pct' is 0.25", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"cohere2\"," SIZES ",\"logit_scale\":null}", "'logit_scale' is null", STATUS_INVALID},
		{"{\"model_type\":\"llama\"," SIZES ",\"use_parallel_block\":true}", "'use_parallel_block' is true",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"granite\"," SIZES ",\"logits_scaling\":0}", "'logits_scaling' must be above 0", STATUS_INVALID},
		{"{\"model_type\":\"granite\"," SIZES ",\"residual_multiplier\":null}", "a multiplier is null", STATUS_INVALID},
		{"{\"model_type\":\"qwen3\"," SIZES ",\"num_key_value_heads\":4,\"mlp_bias\":true}", "'mlp_bias'",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"mistral\"," SIZES
		 ",\"num_key_value_heads\":4,\"layer_types\":[\"full_attention\",\"sliding_attention\"]}",
		 "'layer_types'", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"gemma3_text\"," SIZES ",\"rope_parameters\":{\"rope_theta\":1}}",
		 "'rope_theta' in 'rope_parameters'", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"opt\"," OPT_SIZES ",\"do_layer_norm_before\":false}", "'do_layer_norm_before'",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"opt\"," OPT_SIZES ",\"word_embed_proj_dim\":32}", "'word_embed_proj_dim'", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"opt\"," OPT_SIZES ",\"_remove_final_layer_norm\":true}", "'_remove_final_layer_norm'",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"opt\"," SIZES "}", "'ffn_dim' is missing", STATUS_INVALID},
		{"{\"model_type\":\"mixtral\",\"num_key_value_heads\":2," SIZES ",\"num_local_experts\":513}",
		 "'num_local_experts'", STATUS_INVALID},
		{"{\"model_type\":\"mixtral\",\"num_key_value_heads\":2," SIZES ",\"num_experts_per_tok\":9}",
		 "'num_experts_per_tok' 9 is more than", STATUS_INVALID},
		{"{\"model_type\":\"qwen3_moe\",\"num_key_value_heads\":2," SIZES "}", "'moe_intermediate_size' is missing",
		 STATUS_INVALID},
		{"{\"model_type\":\"qwen3_moe\",\"num_key_value_heads\":2," SIZES
		 ",\"moe_intermediate_size\":24,\"mlp_only_layers\":[0]}",
		 "'mlp_only_layers'", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"qwen3_moe\",\"num_key_value_heads\":2," SIZES
		 ",\"moe_intermediate_size\":24,\"decoder_sparse_step\":2}",
		 "'decoder_sparse_step'", STATUS_UNSUPPORTED},
		{"{\"model_type\":\"gemma2\"," SIZES ",\"query_pre_attn_scalar\":null}", "'query_pre_attn_scalar'", STATUS_INVALID},
		{"{\"model_type\":\"gemma2\"," SIZES ",\"attn_logit_softcapping\":-1}", "'attn_logit_softcapping'", STATUS_INVALID},
		{"{\"model_type\":\"gemma2\"," SIZES ",\"hidden_activation\":\"tanh\"}", "'hidden_activation' 'tanh'",
		 STATUS_UNSUPPORTED},
		{"{\"model_type\":\"gemma2\"," SIZES ",\"use_bidirectional_attention\":true}", "'use_bidirectional_attention'",
		 STATUS_UNSUPPORTED},
	};
	for (size_t i = 0; i < sizeof wholes / sizeof *wholes; i++)
		FAILS(wholes[i].status, wholes[i].part, parse(s, wholes[i].text, &config));

	FAILS(STATUS_NOT_FOUND, "config.json", model_config_read(&PLACE(s->directory), NULL, &config, &s->err));
	scratch_text(s, "config.json", "{\"model_type\":");
	FAILS(STATUS_INVALID, "config.json: not valid JSON", model_config_read(&PLACE(s->directory), NULL, &config, &s->err));
}

/* Row t of a table has cos then sin of t · frequency. */
static void assert_angle(const float *table, int rotary, int64_t t, int i, double cosine, double sine)
{
	if (fabs(table[t * rotary + i] - cosine) > 1e-6 || fabs(table[t * rotary + rotary / 2 + i] - sine) > 1e-6)
		fail_msg("pair %d at %d: (%.9g, %.9g), expected (%.9g, %.9g)", i, (int)t, (double)table[t * rotary + i],
			 (double)table[t * rotary + rotary / 2 + i], cosine, sine);
}

static float *rope_table(struct scratch *s, const char *fields, int64_t positions, struct model_config *config)
{
	SUCCEEDS(parse_llama(s, fields, config));
	float *table = model_rope_table(config, &config->rope, positions);
	assert_non_null(table);
	return table;
}

/* The numbers are those of transformers' formulas (modeling_rope_utils.py), worked out in Python. */
static void test_rope_tables(void **state)
{
	struct scratch *s = *state;
	struct model_config config;
	float *table = rope_table(s, "\"head_dim\":32", 3, &config);
	assert_angle(table, 32, 0, 7, 1, 0);
	assert_angle(table, 32, 2, 0, cos(2), sin(2));
	assert_angle(table, 32, 2, 8, cos(0.02), sin(0.02)); /* 10000^(-16/32) = 0.01 */
	free(table);

	table = rope_table(s, "\"head_dim\":32,\"rope_scaling\":{\"type\":\"linear\",\"factor\":4.0}", 701, &config);
	assert_int_equal(config.rope.kind, ROPE_LINEAR);
	assert_angle(table, 32, 700, 0, 0.5984842190140996, -0.8011345951780408);
	assert_angle(table, 32, 700, 5, -0.9146337622279623, -0.40428341666796486);
	assert_angle(table, 32, 700, 15, 0.9995158153108012, 0.03111486692216816);
	free(table);

	static const char dynamic[] =
		"\"head_dim\":32,\"max_position_embeddings\":512,\"rope_scaling\":{\"type\":\"dynamic\",\"factor\":2.0}";
	table = rope_table(s, dynamic, 1024, &config);
	assert_angle(table, 32, 700, 0, -0.8391043258807425, 0.5439705233633756);
	assert_angle(table, 32, 700, 5, -0.5562457613252808, 0.8310178415699983);
	assert_angle(table, 32, 700, 15, 0.9991392812492079, 0.04148128089652357);
	free(table);
	table = rope_table(s, dynamic, 512, &config); /* within the trained length nothing is stretched */
	assert_angle(table, 32, 500, 8, cos(5), sin(5));
	free(table);

	table = rope_table(s,
			   "\"head_dim\":128,\"rope_theta\":500000.0,\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
			   "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,\"original_max_position_embeddings\":8192}",
			   1001, &config);
	assert_int_equal(config.rope.kind, ROPE_LLAMA3);
	assert_angle(table, 128, 1000, 0, 0.5623790762907029, 0.8268795405320025);
	assert_angle(table, 128, 1000, 28, -0.9975612472618343, -0.06979654691611613);
	assert_angle(table, 128, 1000, 32, 0.8654010374940257, 0.5010798781674073);
	assert_angle(table, 128, 1000, 34, 0.9841097430084358, 0.17756129565834583);
	assert_angle(table, 128, 1000, 40, 0.9994124633089483, 0.03427430791044675);
	assert_angle(table, 128, 1000, 63, 0.9999999529084668, 0.0003068925940741034);
	free(table);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_classic_form), SCRATCH_TEST(test_newer_form),    SCRATCH_TEST(test_families),
		SCRATCH_TEST(test_experts),      SCRATCH_TEST(test_shared_expert), SCRATCH_TEST(test_gpt2),
		SCRATCH_TEST(test_glm),          SCRATCH_TEST(test_gpt_oss),       SCRATCH_TEST(test_norms_of_heads),
		SCRATCH_TEST(test_names),        SCRATCH_TEST(test_warnings),      SCRATCH_TEST(test_refuses),
		SCRATCH_TEST(test_rope_tables),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
