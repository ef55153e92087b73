#include "engine/export/architecture.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

static const struct architecture rows[] = {
	{
		.family = "llama",
		.name = "llama",
		.turns_neighbours = true,
		.o_and_mlp_biases = true,
		.sizes = true,
	},
	{
		.family = "mistral",
		.name = "llama",
		.turns_neighbours = true,
		.sizes = true,
	},
	{.family = "qwen2", .name = "qwen2"},
	{.family = "qwen3", .name = "qwen3"},
	{.family = "phi3", .name = "phi3", .fused = true},
	{
		.family = "gemma2",
		.name = "gemma2",
		.activation = ACTIVATION_GELU_TANH,
		.tied = true,
		.no_space = true,
		.softcaps = true,
		.logit_softcap = true,
		.windows = 2,
		.scaled_layers = 46,
	},
	{
		.family = "gemma3_text",
		.name = "gemma3",
		.activation = ACTIVATION_GELU_TANH,
		.no_space = true,
		.logit_softcap = true,
		.windows = 6,
		.scaled_layers = 62,
	},
};
enum { ROWS = sizeof rows / sizeof *rows };

/* ---- what can be told ------------------------------------------------------------------------------------------------------- */

static enum status refuse_family(const struct model_config *config, struct error *err)
{
	char list[256] = "", *end = list;
	for (int i = 0; i < ROWS; i++)
		end += snprintf(end, sizeof list - (size_t)(end - list), "%s%s", i ? ", " : "", rows[i].family);
	return error_set(err, STATUS_UNSUPPORTED, "a model of the family '%s'%s cannot be written as a GGUF; those that can are %s",
			 config->family, config->multimodal ? ", inside one of texts and images," : "", list);
}

static bool has_windows(const struct model_config *config)
{
	for (int64_t layer = 0; layer < config->layers; layer++)
		if (model_window(config, (int)layer)) return true;
	return false;
}

static bool has_still_layers(const struct model_config *config)
{
	for (int64_t layer = 0; layer < config->layers; layer++)
		if (layer_bit(config->still_layers, layer)) return true;
	return false;
}

/* Whether the layers with a window are those that llama.cpp takes for it. */
static bool windows_fit(const struct architecture *row, const struct model_config *config)
{
	for (int64_t layer = 0; layer < config->layers; layer++)
		if ((model_window(config, (int)layer) == 0) != ((layer + 1) % row->windows == 0)) return false;
	return true;
}

static bool attention_fits(const struct architecture *row, const struct model_config *config)
{
	bool scaled = row->scaled_layers && config->layers == row->scaled_layers;
	double size = scaled ? (double)(config->hidden / config->heads) : (double)config->head_dim;
	return fabs(config->attention_scale * sqrt(size) - 1) < 1e-5;
}

/* What llama.cpp would compute otherwise; NULL: nothing. */
static const char *find_objection(const struct architecture *row, const struct model_config *config)
{
	enum rope_kind kind = config->rope.kind;
	if (config->activation.kind != row->activation) return "another activation ('hidden_act')";
	if ((config->o_bias || config->mlp_bias) && !row->o_and_mlp_biases) return "biases ('attention_bias', 'mlp_bias')";
	if (!attention_fits(row, config)) return "another scale of attention ('query_pre_attn_scalar')";
	if (config->attention_softcap != 0 && !row->softcaps) return "'attn_logit_softcapping'";
	if (config->logit_softcap != 0 && !row->logit_softcap) return "'final_logit_softcapping'";
	if (has_still_layers(config)) return "layers without rotary embeddings";
	if (row->windows && !windows_fit(row, config)) return "sliding windows in other layers ('layer_types')";
	if (row->tied && !config->tied_embeddings) return "a head of its own ('tie_word_embeddings')";
	if (kind == ROPE_LONG && !row->fused) return "the rope 'longrope'";
	if (row->fused && kind != ROPE_LONG && kind != ROPE_DEFAULT) return "a rope other than 'longrope'";
	if (kind == ROPE_YARN &&
	    (!config->rope.truncate || fabs(config->rope.attention - (0.1 * log(config->rope.factor) + 1)) > 1e-5))
		return "a yarn of its own ('truncate', 'attention_factor', 'mscale')";
	if (!row->fused && config->rope.rotary != config->head_dim) return "heads that turn in part ('partial_rotary_factor')";
	return NULL;
}

enum status architecture_find(const struct model_config *config, struct warnings *warnings, const struct architecture **ret,
			      struct error *err)
{
	const struct architecture *row = NULL;
	for (int i = 0; i < ROWS && !config->multimodal; i++)
		if (strcmp(rows[i].family, config->family) == 0) row = &rows[i];
	if (!row) return refuse_family(config, err);
	const char *objection = find_objection(row, config);
	if (objection)
		return error_set(err, STATUS_UNSUPPORTED,
				 "the model cannot be written as a GGUF: llama.cpp's '%s' has no counterpart of what it has, %s",
				 row->name, objection);
	if (!row->windows && has_windows(config) && config->sliding_window < config->max_positions)
		warnings_add(warnings,
			     "llama.cpp's '%s' has no sliding window: beyond %" PRId64
			     " tokens the GGUF computes otherwise than this "
			     "model",
			     row->name, config->sliding_window);
	if (config->rope.kind == ROPE_DYNAMIC)
		warnings_add(warnings,
			     "llama.cpp has no 'dynamic' rope: beyond %" PRId64
			     " tokens the GGUF computes otherwise than this model",
			     config->max_positions);
	*ret = row;
	return STATUS_OK;
}

/* ---- telling it ------------------------------------------------------------------------------------------------------------ */

struct teller {
	struct gguf *gguf;
	const char *name;
	char room[96];
};

static const char *key(struct teller *teller, const char *what)
{
	snprintf(teller->room, sizeof teller->room, "%s.%s", teller->name, what);
	return teller->room;
}

static void tell_count(struct teller *teller, const char *what, int64_t value)
{
	gguf_u32(teller->gguf, key(teller, what), (uint32_t)value);
}

static void tell_number(struct teller *teller, const char *what, double value)
{
	gguf_f32(teller->gguf, key(teller, what), value);
}

static void tell_rope(struct teller *teller, const struct model_config *config)
{
	const struct rope *rope = &config->rope;
	if (rope->kind == ROPE_LINEAR || rope->kind == ROPE_YARN) {
		gguf_text(teller->gguf, key(teller, "rope.scaling.type"), rope->kind == ROPE_YARN ? "yarn" : "linear");
		tell_number(teller, "rope.scaling.factor", rope->factor);
	}
	if (rope->kind == ROPE_YARN) {
		tell_count(teller, "rope.scaling.original_context_length", rope->original_max_positions);
		tell_number(teller, "rope.scaling.yarn_beta_fast", rope->beta_fast);
		tell_number(teller, "rope.scaling.yarn_beta_slow", rope->beta_slow);
	}
	if (rope->kind == ROPE_LONG) {
		tell_count(teller, "rope.scaling.original_context_length", rope->original_max_positions);
		tell_number(teller, "rope.scaling.attn_factor", rope->attention);
	}
	tell_number(teller, "rope.freq_base", rope->theta);
	if (config->local_rope.kind != ROPE_NONE) tell_number(teller, "rope.freq_base_swa", config->local_rope.theta);
}

void architecture_add(struct gguf *gguf, const struct architecture *row, const struct model_config *config)
{
	struct teller teller = {.gguf = gguf, .name = row->name};
	tell_count(&teller, "block_count", config->layers);
	tell_count(&teller, "context_length", config->max_positions);
	tell_count(&teller, "embedding_length", config->hidden);
	tell_count(&teller, "feed_forward_length", config->intermediate);
	tell_count(&teller, "attention.head_count", config->heads);
	tell_count(&teller, "attention.head_count_kv", config->kv_heads);
	tell_rope(&teller, config);
	tell_number(&teller, "attention.layer_norm_rms_epsilon", config->norm.eps);
	tell_count(&teller, "attention.key_length", config->head_dim);
	tell_count(&teller, "attention.value_length", config->head_dim);
	if (row->softcaps) tell_number(&teller, "attn_logit_softcapping", config->attention_softcap);
	if (row->softcaps || config->logit_softcap != 0) tell_number(&teller, "final_logit_softcapping", config->logit_softcap);
	if (row->windows) tell_count(&teller, "attention.sliding_window", config->sliding_window);
	if (row->sizes) tell_count(&teller, "vocab_size", config->vocab);
	if (row->sizes || row->fused) tell_count(&teller, "rope.dimension_count", config->rope.rotary);
}
