/* The tensors of a GGUF: their names, and which of the model's they are. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/export/architecture.h"

enum { MOST_OF_A_BLOCK = 24, MOST_BESIDE = 6 };

struct lister {
	const struct architecture *row;
	const struct model *model;
	struct parts *parts;
	int64_t block; /* -1: outside the blocks */
};

static struct part *new_part(const struct lister *lister, const char *name, const char *kind)
{
	struct part *part = &lister->parts->items[lister->parts->count++];
	*part = (struct part){.tensor = {.type = BLOCK_F32, .rank = 1, .rows = 1}};
	if (lister->block < 0)
		snprintf(part->tensor.name, sizeof part->tensor.name, "%s.%s", name, kind);
	else
		snprintf(part->tensor.name, sizeof part->tensor.name, "blk.%d.%s.%s", (int)lister->block, name, kind);
	return part;
}

/* A tensor `stem`.`kind` of the model, below its block where it is in one, as `name`.`kind`. */
static enum status list(const struct lister *lister, const char *stem, const char *name, const char *kind, struct part **ret,
			struct error *err)
{
	char whole[192];
	const struct model *model = lister->model;
	if (lister->block < 0)
		snprintf(whole, sizeof whole, "%s.%s", stem, kind);
	else
		snprintf(whole, sizeof whole, "%s.%d.%s.%s", model->config.names->blocks, (int)lister->block, stem, kind);
	const struct tensor_info *info = model_find(model, whole);
	if (!info) return error_set(err, STATUS_INVALID, "tensor '%s' is missing from the model", whole);
	if (info->rank < 1 || info->rank > GGUF_MAX_RANK ||
	    (info->dtype != DTYPE_F32 && info->dtype != DTYPE_BF16 && info->dtype != DTYPE_F16))
		return error_set(err, STATUS_UNSUPPORTED, "tensor '%s' is no matrix or vector of F32, BF16 or F16", whole);
	struct part *part = new_part(lister, name, kind);
	part->info = info;
	part->tensor.rank = info->rank;
	part->tensor.rows = info->rank > 1 ? info->shape[0] : 1;
	part->tensor.cols = info->shape[info->rank - 1];
	*ret = part;
	return STATUS_OK;
}

static enum status list_norm(const struct lister *lister, const char *stem, const char *name, struct error *err)
{
	struct part *part;
	if (!stem) return STATUS_OK;
	TRY(list(lister, stem, name, "weight", &part, err));
	part->added = lister->model->config.norm.weight_offset;
	return STATUS_OK;
}

static enum status list_linear(const struct lister *lister, const char *stem, const char *name, bool bias, int64_t heads,
			       struct error *err)
{
	struct part *part;
	int turned = lister->row->turns_neighbours ? (int)heads : 0;
	TRY(list(lister, stem, name, "weight", &part, err));
	part->heads = turned;
	if (!bias) return STATUS_OK;
	TRY(list(lister, stem, name, "bias", &part, err));
	part->heads = turned;
	return STATUS_OK;
}

static enum status list_attention(const struct lister *lister, struct error *err)
{
	const struct model_config *config = &lister->model->config;
	bool bias = config->qkv_bias;
	if (lister->row->fused) {
		TRY(list_linear(lister, "self_attn.qkv_proj", "attn_qkv", bias, 0, err));
	} else {
		TRY(list_linear(lister, "self_attn.q_proj", "attn_q", bias, config->heads, err));
		TRY(list_linear(lister, "self_attn.k_proj", "attn_k", bias, config->kv_heads, err));
		TRY(list_linear(lister, "self_attn.v_proj", "attn_v", bias, 0, err));
	}
	TRY(list_norm(lister, config->qk_norm ? "self_attn.q_norm" : NULL, "attn_q_norm", err));
	TRY(list_norm(lister, config->qk_norm ? "self_attn.k_norm" : NULL, "attn_k_norm", err));
	return list_linear(lister, config->names->o, "attn_output", config->o_bias, 0, err);
}

static enum status list_block(const struct lister *lister, struct error *err)
{
	const struct model_config *config = &lister->model->config;
	const struct weight_names *names = config->names;
	TRY(list_norm(lister, names->norm1, "attn_norm", err));
	TRY(list_attention(lister, err));
	TRY(list_norm(lister, names->attention_norm, "post_attention_norm", err));
	TRY(list_norm(lister, names->norm2, "ffn_norm", err));
	if (lister->row->fused) {
		TRY(list_linear(lister, "mlp.gate_up_proj", "ffn_up", config->mlp_bias, 0, err));
	} else {
		TRY(list_linear(lister, names->gate, "ffn_gate", config->mlp_bias, 0, err));
		TRY(list_linear(lister, names->up, "ffn_up", config->mlp_bias, 0, err));
	}
	TRY(list_linear(lister, names->down, "ffn_down", config->mlp_bias, 0, err));
	return list_norm(lister, names->mlp_norm, "post_ffw_norm", err);
}

/* ---- what divides the frequencies of the rotary embeddings ------------------------------------------------------------------- */

/* By which llama3's rope divides the frequency of pair i. */
static double llama3_divisor(const struct rope *rope, int i)
{
	double frequency = pow(rope->theta, -2.0 * i / rope->rotary);
	double turns = (double)rope->original_max_positions * frequency / (2 * M_PI);
	double keep = fmin(fmax((turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor), 0), 1);
	return 1 / (keep + (1 - keep) / rope->factor);
}

/* `factors`: one for each pair; NULL: llama3's. */
static enum status list_divisors(const struct lister *lister, const char *name, const double *factors, struct error *err)
{
	const struct rope *rope = &lister->model->config.rope;
	int pairs = rope->rotary / 2;
	float *values = calloc((size_t)pairs + 1, sizeof *values);
	if (!values) return error_set(err, STATUS_NO_MEMORY, "no memory for a rope");
	for (int i = 0; i < pairs; i++)
		values[i] = (float)(factors ? factors[i] : llama3_divisor(rope, i));
	struct part *part = new_part(lister, name, "weight");
	part->values = values;
	part->tensor.cols = pairs;
	return STATUS_OK;
}

/* ---- the whole --------------------------------------------------------------------------------------------------------------- */

static enum status list_all(struct lister *lister, struct error *err)
{
	const struct model *model = lister->model;
	const struct rope *rope = &model->config.rope;
	struct part *part;
	bool own_head = strcmp(model->head, model->embeddings) != 0;
	lister->block = -1;
	if (rope->kind == ROPE_LLAMA3) TRY(list_divisors(lister, "rope_freqs", NULL, err));
	if (rope->kind == ROPE_LONG) {
		TRY(list_divisors(lister, "rope_factors_long", rope->long_factor, err));
		TRY(list_divisors(lister, "rope_factors_short", rope->short_factor, err));
	}
	TRY(list(lister, model->embeddings, "token_embd", "weight", &part, err));
	part->head = !own_head;
	for (lister->block = 0; lister->block < model->config.layers; lister->block++)
		TRY(list_block(lister, err));
	lister->block = -1;
	TRY(list_norm(lister, model->config.names->final_norm, "output_norm", err));
	if (!own_head) return STATUS_OK;
	TRY(list(lister, model->head, "output", "weight", &part, err));
	part->head = true;
	return STATUS_OK;
}

enum status parts_list(const struct architecture *row, const struct model *model, struct parts *ret, struct error *err)
{
	size_t most = (size_t)model->config.layers * MOST_OF_A_BLOCK + MOST_BESIDE;
	struct parts parts = {calloc(most, sizeof *parts.items), 0};
	struct lister lister = {row, model, &parts, -1};
	if (!parts.items) return error_set(err, STATUS_NO_MEMORY, "no memory to list tensors");
	enum status status = list_all(&lister, err);
	if (status == STATUS_OK)
		*ret = parts;
	else
		parts_free(&parts);
	return status;
}

void parts_free(struct parts *parts)
{
	for (size_t i = 0; i < parts->count; i++)
		free(parts->items[i].values);
	free(parts->items);
	*parts = (struct parts){0};
}
