#include "engine/model/config_fields.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"

/* ---- what changes no maths -------------------------------------------------------------------------------------------------- */

/* As transformers 5.24 and its predecessors write them for the families here, and tools beside it. */
static const char *const harmless[] = {
	/* what the model is */
	"model_type",
	"architectures",
	"_name_or_path",
	"_model_name_or_path", /* from GGUF */
	"name_or_path",
	"model_name",
	"_commit_hash",
	"transformers_version",
	"auto_map",
	"custom_pipelines",
	"revision",
	"trust_remote_code",
	"torch_dtype",
	"dtype",
	"_auto_class",
	"is_composition",
	"_from_model_config",
	"is_llama_config",
	"base_model",
	"description",
	"license",
	"license_name",
	"license_link",
	"language",
	"tags",
	"author",
	"version",
	"library_name",
	"pipeline_tag",
	"datasets",
	"sentence_transformers",
	"model_version",
	"_class_name",
	"mergekit_version",
	/* how it is run */
	"use_cache",
	"return_dict",
	"use_return_dict",
	"output_attentions",
	"output_hidden_states",
	"torchscript",
	"use_bfloat16",
	"pretraining_tp",
	"tensor_parallel",
	"tp_size",
	"sequence_parallel",
	"chunk_size_feed_forward",
	"attn_implementation",
	"experts_implementation",
	"attention_implementation",
	"use_flash_attn",
	"use_flash_attention",
	"use_flash_attention_2",
	"use_sdpa",
	"flash_attn",
	"use_memory_efficient_attention",
	"gradient_checkpointing",
	"use_gradient_checkpointing",
	"use_reentrant",
	"keys_to_ignore_at_inference",
	"tf_legacy_loss",
	"cache_implementation",
	"cache_config",
	"tie_last_hidden_states",
	"use_kernels",
	"is_decoder",
	"tie_encoder_decoder",
	"cross_attention_hidden_size",
	"prefill_chunk_size",
	"max_batch_size",
	"torch_compile",
	"_flash_attn_2_enabled",
	"use_liger_kernel",
	"use_mtp",
	"num_nextn_predict_layers",
	"num_mtp_layers",
	"mtp_num_layers",
	/* how it was trained */
	"initializer_range",
	"initializer_factor",
	"init_std",
	"init_method",
	"init_method_std",
	"initializer_cutoff_factor",
	"layerdrop",
	"output_router_logits",
	"router_aux_loss_coef",
	"router_z_loss_coef",
	"router_jitter_noise",
	"aux_loss_alpha",
	"seq_aux",
	"moe_aux_loss_coeff",
	"loss_type",
	"label_smoothing",
	"ignore_index",
	"neftune_noise_alpha",
	"max_grad_norm",
	"learning_rate",
	"training_precision",
	"train_batch_size",
	"seed",
	"z_loss",
	"z_loss_weight",
	"pretrained_path",
	/* how long its texts are: the positions are counted by max_position_embeddings */
	"max_sequence_length",
	"model_max_length",
	"max_seq_len",
	"max_seq_length",
	"seq_length",
	"n_ctx",
	"reorder_and_upcast_attn", /* in which order fp32 is rounded */
	"original_max_position_embeddings",
	"training_seq_len",
	"seq_len",
	"_sliding_window_pattern",
	/* its tokenizer */
	"tokenizer_class",
	"tokenizer_model_max_length",
	"tokenizer_padding_side",
	"padding_side",
	"tokenizer_type",
	"tokenizer_file",
	"bos_token",
	"eos_token",
	"pad_token",
	"unk_token",
	"add_bos_token",
	"add_eos_token",
	"chat_template",
	"prefix",
	"pad_vocab_size_multiple_of",
	"make_vocab_size_divisible_by",
	"vocab_file",
	/* tasks */
	"finetuning_task",
	"task_specific_params",
	"problem_type",
	"id2label",
	"label2id",
	"num_labels",
	"pooling_mode",
	"output_projection",
	"matryoshka_dimensions",
	/* generation */
	"assistant_confidence_threshold",
	"assistant_lookbehind",
	"bad_words_ids",
	"begin_suppress_tokens",
	"diversity_penalty",
	"do_sample",
	"early_stopping",
	"encoder_no_repeat_ngram_size",
	"encoder_repetition_penalty",
	"epsilon_cutoff",
	"eta_cutoff",
	"exponential_decay_length_penalty",
	"length_penalty",
	"max_length",
	"min_length",
	"max_new_tokens",
	"min_new_tokens",
	"no_repeat_ngram_size",
	"num_assistant_tokens",
	"num_assistant_tokens_schedule",
	"num_beam_groups",
	"num_beams",
	"num_return_sequences",
	"output_scores",
	"output_logits",
	"remove_invalid_values",
	"repetition_penalty",
	"return_dict_in_generate",
	"suppress_tokens",
	"target_lookbehind",
	"temperature",
	"top_k",
	"top_p",
	"min_p",
	"typical_p",
	"penalty_alpha",
	"guidance_scale",
	"low_memory",
	"max_time",
	"stop_strings",
	"forced_decoder_ids",
	"renormalize_logits",
	"constraints",
	"force_words_ids",
	"sequence_bias",
	"generation_config",
	"max_matching_ngram_size",
	"prompt_lookup_num_tokens",
	"presence_penalty",
	"frequency_penalty",
};

/* The same by how a name begins or ends. */
static const char *const harmless_starts[] = {"unsloth",
					      "_unsloth",
					      "_attn_implementation",
					      "_experts_implementation",
					      "transformers.js",
					      "use_fused_",
					      "wandb",
					      "trl_",
					      "_dynamic_",
					      "summary_"};
static const char *const harmless_ends[] = {"dropout",   "_pdrop",     "dropout_prob", "dropout_rate", "dropout_p",
					    "_token_id", "_token_ids", "_token_index", "_drop_rate",   "_pdropout"};

static bool is_harmless(const char *key)
{
	for (size_t i = 0; i < sizeof harmless / sizeof *harmless; i++)
		if (strcmp(harmless[i], key) == 0) return true;
	for (size_t i = 0; i < sizeof harmless_starts / sizeof *harmless_starts; i++)
		if (text_starts_with(key, harmless_starts[i])) return true;
	for (size_t i = 0; i < sizeof harmless_ends / sizeof *harmless_ends; i++)
		if (text_ends_with(key, harmless_ends[i])) return true;
	return false;
}

/* ---- what the family heeds --------------------------------------------------------------------------------------------------- */

static bool is_one_of(const char *key, const char *const *keys)
{
	for (; *keys; keys++)
		if (strcmp(*keys, key) == 0) return true;
	return false;
}

static bool is_heeded(const struct family *f, const char *key)
{
	const struct size_names *sizes = family_sizes(f);
	const char *const all[] = {sizes->hidden, sizes->layers, sizes->heads,          sizes->positions,
				   "vocab_size",  "layer_types", "tie_word_embeddings", NULL};
	static const char *const turning[] = {"rope_scaling", "rope_parameters", NULL};
	static const char *const heads[] = {"num_key_value_heads", "head_dim", NULL};
	static const char *const switched[] = {"use_sliding_window", "max_window_layers", NULL};
	static const char *const multipliers[] = {"embedding_multiplier", "attention_multiplier", "residual_multiplier",
						  "logits_scaling", NULL};
	static const char *const still[] = {"no_rope_layers", "no_rope_layer_interval", NULL};
	static const char *const experts[] = {"num_experts", "num_local_experts", "num_experts_per_tok", NULL};
	static const char *const capping[] = {"query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping", NULL};
	static const char *const swiglu[] = {"swiglu_alpha", "swiglu_limit", NULL};
	if (is_one_of(key, all)) return true;
	if (strcmp(key, f->intermediate_key ? f->intermediate_key : "intermediate_size") == 0) return true;
	if (strcmp(key, f->activation_key ? f->activation_key : "hidden_act") == 0) return true;
	if (!f->learned_positions && is_one_of(key, turning)) return true;
	if (!f->learned_positions && strcmp(key, f->theta_key ? f->theta_key : "rope_theta") == 0) return true;
	if (!f->learned_positions && !f->names->qkv && is_one_of(key, heads)) return true;
	if (f->parallel_key && strcmp(key, f->parallel_key) == 0) return true;
	if (f->qk_norm_key && strcmp(key, f->qk_norm_key) == 0) return true;
	if (f->learned_positions && strcmp(key, "word_embed_proj_dim") == 0) return true;
	if (f->norm_eps_key ? strcmp(key, f->norm_eps_key) == 0 : !f->layer_norm && strcmp(key, "rms_norm_eps") == 0) return true;
	if (f->bias_key && strcmp(key, f->bias_key) == 0) return true;
	if (f->qkv_bias_key && strcmp(key, f->qkv_bias_key) == 0) return true;
	if (f->window != WINDOW_NEVER && strcmp(key, "sliding_window") == 0) return true;
	if (window_is_switched(f->window) && is_one_of(key, switched)) return true;
	if (f->partial_rotary && strcmp(key, f->rotary_key ? f->rotary_key : "partial_rotary_factor") == 0) return true;
	if (f->multipliers && is_one_of(key, multipliers)) return true;
	if (f->still_interval && is_one_of(key, still)) return true;
	if (f->heeds_window_pattern && strcmp(key, "sliding_window_pattern") == 0) return true;
	if (f->experts_key && is_one_of(key, experts)) return true;
	if (f->shared_key && strcmp(key, f->shared_key) == 0) return true;
	if (f->paired_experts && is_one_of(key, swiglu)) return true;
	if (f->logit_scale && strcmp(key, "logit_scale") == 0) return true;
	if (f->heeds_norm_topk_prob && strcmp(key, "norm_topk_prob") == 0) return true;
	if (f->query_pre_attn_scalar && is_one_of(key, capping)) return true;
	if (f->rope_local_base_freq && strcmp(key, "rope_local_base_freq") == 0) return true;
	if (f->attention_bias && strcmp(key, "attention_bias") == 0) return true;
	return f->mlp_bias && strcmp(key, "mlp_bias") == 0;
}

/* What transformers leaves in the configuration and does not look at, because the family calls it otherwise or lacks it. Where
 * it is usual, nothing is said of it. */
static bool is_ignored(const struct family *f, const char *key, bool *ret_usual)
{
	static const char *const fields[] = {"intermediate_size",
					     "hidden_act",
					     "hidden_activation",
					     "max_window_layers",
					     "head_dim",
					     "sliding_window",
					     "norm_topk_prob",
					     "rms_norm_eps",
					     "num_key_value_heads",
					     "rope_theta",
					     "num_experts_per_tok",
					     "sliding_window_size",
					     "experts_per_token",
					     "initial_context_length",
					     "dual_chunk_attention_config",
					     NULL};
	static const char *const cohere[] = {
		"layer_switch",         "order_of_interleaved_layers", "position_embedding_type", "use_embedding_sharing",
		"use_gated_activation", "use_parallel_block",          "use_parallel_embedding",  NULL};
	*ret_usual = (f->gelu_is_tanh && strcmp(key, "hidden_activation") == 0) ||
		     (f->activation_key && strcmp(key, "hidden_act") == 0) ||
		     (f->intermediate_key && strcmp(key, "intermediate_size") == 0) || strcmp(key, "max_window_layers") == 0;
	if (f->full_are_still && is_one_of(key, cohere)) return *ret_usual = true;
	return is_one_of(key, fields);
}

/* ---- what is off ------------------------------------------------------------------------------------------------------------- */

/* Features that besad lacks, or has for other families, and the number at which they do nothing, besides null, false and empty. */
static const struct feature {
	const char *key;
	double neutral;
	const char *what;
} features[] = {
	{"partial_rotary_factor", 1, "rotary embeddings of a part of each head"},
	{"rotary_pct", 1, "rotary embeddings of a part of each head"},
	{"rope_percent", 1, "rotary embeddings of a part of each head"},
	{"rope_interleaved", 0, "rotary embeddings of neighbouring columns"},
	{"rope_ratio", 1, "stretched rotary embeddings"},
	{"no_rope_layers", 0, "layers without rotary embeddings"},
	{"no_rope_layer_interval", 0, "layers without rotary embeddings"},
	{"rope_local_base_freq", 0, "rotary embeddings of their own in sliding layers"},
	{"alibi", 0, "ALiBi"},
	{"use_qk_norm", 0, "norms of queries and keys"},
	{"qk_norm", 0, "norms of queries and keys"},
	{"qk_layernorm", 0, "norms of queries and keys"},
	{"scale_attn_by_inverse_layer_idx", 0, "another scale of attention in each layer"},
	{"swiglu_alpha", 0, "another SwiGLU"},
	{"swiglu_limit", 0, "another SwiGLU"},
	{"clip_qkv", 0, "clipped queries, keys and values"},
	{"attention_chunk_size", 0, "attention in chunks"},
	{"attention_multiplier", 0, "another scale of attention"},
	{"query_pre_attn_scalar", 0, "another scale of attention"},
	{"attn_logit_softcapping", 0, "capped attention"},
	{"final_logit_softcapping", 0, "capped logits"},
	{"logit_scale", 1, "scaled logits"},
	{"logits_scaling", 1, "scaled logits"},
	{"embedding_multiplier", 1, "scaled embeddings"},
	{"scale_emb", 1, "scaled embeddings"},
	{"residual_multiplier", 1, "scaled residuals"},
	{"use_parallel_residual", 0, "attention and MLP side by side"},
	{"use_bidirectional_attention", 0, "attention to what comes later"},
	{"use_sliding_window", 0, "attention in a window"},
	{"full_attn_mod", 1, "attention in a window in some layers"},
	{"interpolate_factor", 1, "stretched positions"},
	{"attention_bias", 0, "biases of attention"},
	{"mlp_bias", 0, "biases of the MLP"},
	{"lm_head_bias", 0, "a bias of the head"},
	{"use_qkv_bias", 0, "biases of attention"},
	{"num_experts", 0, "experts"},
	{"num_local_experts", 0, "experts"},
	{"n_routed_experts", 0, "experts"},
	{"n_shared_experts", 0, "shared experts"},
	{"num_shared_experts", 0, "shared experts"},
	{"shared_expert_intermediate_size", 0, "shared experts"},
	{"moe_intermediate_size", 0, "experts"},
	{"mlp_only_layers", 0, "layers without experts"},
	{"decoder_sparse_step", 1, "layers without experts"},
	{"is_encoder_decoder", 0, "an encoder beside the decoder"},
	{"add_cross_attention", 0, "an encoder beside the decoder"},
	{"_remove_final_layer_norm", 0, "no norm before the head"},
	{"per_layer_config", 0, "layers of different sizes"},
	{"pruned_heads", 0, "layers of different sizes"},
};

/* Features that every family here has, where they are switched off. */
static const char *const always_on[] = {"do_layer_norm_before",
					"layer_norm_elementwise_affine",
					"is_causal",
					"causal",
					"use_rope",
					"scale_attn_weights",
					"use_rms_norm",
					"learned_embeddings",
					NULL};

static bool is_empty(const cJSON *value)
{
	if (cJSON_IsNull(value) || cJSON_IsFalse(value)) return true;
	if (cJSON_IsString(value)) return !*value->valuestring;
	return (cJSON_IsArray(value) || cJSON_IsObject(value)) && value->child == NULL;
}

/* Cuts a text of more than `bytes`, between characters. */
static void shorten(char *text, size_t bytes)
{
	static const char dots[] = "…";
	if (strlen(text) < bytes + sizeof dots) return;
	while (bytes > 0 && ((unsigned char)text[bytes] & 0xc0) == 0x80)
		bytes--;
	memcpy(text + bytes, dots, sizeof dots);
}

static enum status refuse(const cJSON *field, const char *what, const char *path, struct error *err)
{
	bool special = cJSON_IsNumber(field) && !isfinite(field->valuedouble);
	char *value = special ? strdup("NaN or infinite") : cJSON_PrintUnformatted(field);
	char *key = strdup(field->string);
	if (value) shorten(value, 100);
	if (key) shorten(key, 100);
	error_set(err, STATUS_UNSUPPORTED, "%s: '%s' is %s: %s", path, key ? key : "a field", value ? value : "set", what);
	free(key);
	free(value);
	return STATUS_UNSUPPORTED;
}

/* ---- quantization ------------------------------------------------------------------------------------------------------------ */

static const cJSON *member(const cJSON *object, const char *key)
{
	const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
	return value && is_empty(value) ? NULL : value;
}

static bool is_text(const cJSON *value, const char *text)
{
	return cJSON_IsString(value) && strcmp(value->valuestring, text) == 0;
}

/* What compressed-tensors says of a model whose weights are plain, and bitsandbytes of one that it does not change. */
static bool is_plain(const cJSON *quantization)
{
	const cJSON *method = member(quantization, "quant_method"), *format = member(quantization, "format");
	const cJSON *sparsity = member(quantization, "sparsity_config"), *sparse_format = member(sparsity, "format");
	if (is_text(method, "bitsandbytes"))
		return !member(quantization, "load_in_4bit") && !member(quantization, "load_in_8bit") &&
		       !member(quantization, "_load_in_4bit") && !member(quantization, "_load_in_8bit");
	if (!is_text(method, "compressed-tensors") && !is_text(method, "compressed_tensors") &&
	    !(method == NULL && (format || sparsity)))
		return false;
	if (member(quantization, "config_groups") || member(quantization, "kv_cache_scheme") ||
	    member(quantization, "transform_config"))
		return false;
	return (!format || is_text(format, "dense")) && (!sparsity || !sparse_format || is_text(sparse_format, "dense"));
}

/* ret_packing: as in config_fields_check. */
static enum status check_quantization(const cJSON *field, const char *path, struct packed_form *ret_packing, struct error *err)
{
	if (is_empty(field) || (cJSON_IsObject(field) && is_plain(field))) return STATUS_OK;
	if (ret_packing && packed_form_is_meant(field)) return packed_form_parse(field, path, field->string, ret_packing, err);
	const cJSON *method = member(field, "quant_method"), *format = member(field, "format");
	return error_set(err, STATUS_UNSUPPORTED,
			 "%s: '%s' says that the weights are quantized or compressed (%.60s%s%.60s); weights in F32, BF16 or F16 "
			 "are wanted: use "
			 "the model this one was made from, or dequantize it",
			 path, field->string, cJSON_IsString(method) ? method->valuestring : "an unknown method",
			 format ? ", " : "", cJSON_IsString(format) ? format->valuestring : "");
}

/* ---- the whole --------------------------------------------------------------------------------------------------------------- */

static const char *const quantizations[] = {"quantization_config", "compression_config", "quantization", NULL};

static enum status check_field(const cJSON *field, const struct family *family, const char *path, struct packed_form *ret_packing,
			       struct warnings *warnings, struct error *err)
{
	const char *key = field->string;
	bool usual;
	if (is_one_of(key, quantizations)) return check_quantization(field, path, ret_packing, err);
	if (is_one_of(key, always_on)) return cJSON_IsFalse(field) ? refuse(field, "this is not supported", path, err) : STATUS_OK;
	if (is_heeded(family, key) || is_harmless(key) || is_empty(field)) return STATUS_OK;
	if (family->window_pattern && strcmp(key, "sliding_window_pattern") == 0 &&
	    cJSON_GetNumberValue(field) == (double)family->window_pattern)
		return STATUS_OK;
	for (size_t i = 0; i < sizeof features / sizeof *features; i++) {
		char what[160];
		if (strcmp(features[i].key, key) != 0) continue;
		if (cJSON_IsNumber(field) && field->valuedouble == features[i].neutral) return STATUS_OK;
		snprintf(what, sizeof what, "%s; this is not supported for model_type '%s'", features[i].what, family->model_type);
		return refuse(field, what, path, err);
	}
	if (is_ignored(family, key, &usual)) {
		if (!usual)
			warnings_add(warnings, "config.json: '%s' is ignored, as transformers does for model_type '%s'", key,
				     family->model_type);
		return STATUS_OK;
	}
	return refuse(
		field,
		"a field that is not known, and could change what the model computes; remove it from config.json if it does not",
		path, err);
}

enum status config_fields_check(const cJSON *json, const struct family *family, const char *path, struct packed_form *ret_packing,
				struct warnings *warnings, struct error *err)
{
	const cJSON *field;
	cJSON_ArrayForEach(field, json) TRY(check_field(field, family, path, ret_packing, warnings, err));
	return STATUS_OK;
}

enum status config_fields_check_quantization(const cJSON *json, const char *path, struct packed_form *ret_packing,
					     struct error *err)
{
	const cJSON *field;
	cJSON_ArrayForEach(field, json) if (is_one_of(field->string, quantizations))
		TRY(check_quantization(field, path, ret_packing, err));
	return STATUS_OK;
}
