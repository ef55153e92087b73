#include "engine/model/norms.h"

#include <stdio.h>

/* The norm of q or k, which has so many heads. */
static struct norm_vector qk_vector(const struct model_config *config, const char *path, const char *paths, int64_t heads,
				    struct tensor *place)
{
	struct norm_vector vector = {path, "weight", config_qk_norm(config, heads), place, 0, 0};
	if (config->qk_norm_apart && paths) {
		vector.path = paths;
		vector.heads = heads;
	} else if (config->qk_norm_apart) {
		vector.rows = heads;
	}
	return vector;
}

int norm_vectors(const struct model_config *config, struct block *block, struct norm_vector ret[MAX_NORM_VECTORS])
{
	static struct block nowhere;
	struct block *b = block ? block : &nowhere;
	const struct weight_names *names = config->names;
	const struct {
		bool there;
		struct norm_vector vector;
	} all[MAX_NORM_VECTORS] = {
		{names->norm1, {names->norm1, "weight", config->hidden, &b->norm1, 0, 0}},
		{names->norm2, {names->norm2, "weight", config->hidden, &b->norm2, 0, 0}},
		{config->norm_bias && names->norm1, {names->norm1, "bias", config->hidden, &b->norm1_bias, 0, 0}},
		{config->norm_bias && names->norm2, {names->norm2, "bias", config->hidden, &b->norm2_bias, 0, 0}},
		{config->qk_norm, qk_vector(config, "self_attn.q_norm", names->q_norms, config->heads, &b->q_norm)},
		{config->qk_norm, qk_vector(config, "self_attn.k_norm", names->k_norms, config->kv_heads, &b->k_norm)},
		{config->output_norms, {names->attention_norm, "weight", config->hidden, &b->attention_norm, 0, 0}},
		{config->output_norms, {names->mlp_norm, "weight", config->hidden, &b->mlp_norm, 0, 0}},
	};
	int n = 0;
	for (int i = 0; i < MAX_NORM_VECTORS; i++)
		if (all[i].there) ret[n++] = all[i].vector;
	return n;
}

int64_t norm_tensors(const struct norm_vector *norm)
{
	return norm->heads ? norm->heads : 1;
}

struct block_vector norm_tensor(const struct norm_vector *norm, int64_t i)
{
	int64_t length = norm->length / norm_tensors(norm);
	struct tensor values = norm->place->data ? tensor_cols(*norm->place, i * length, length) : *norm->place;
	return (struct block_vector){norm->path, norm->kind, norm->heads ? (int)i : -1, norm->rows, length, values, NULL};
}

bool block_vector(const struct block *block, int i, struct block_vector *ret)
{
	struct norm_vector norms[MAX_NORM_VECTORS];
	/* What lies in the block is only looked at. */
	int n_norms = norm_vectors(block->config, (struct block *)block, norms);
	for (int n = 0; n < n_norms; n++) {
		int tensors = (int)norm_tensors(&norms[n]);
		if (i < tensors) {
			*ret = norm_tensor(&norms[n], i);
			return true;
		}
		i -= tensors;
	}
	for (int l = 0; l < block->layout.n_linears; l++) {
		const struct linear *linear = &block->layout.linears[l];
		if (!linear->bias || i-- > 0) continue;
		*ret = (struct block_vector){linear->path, "bias",
					     -1,           0,
					     linear->rows, tensor_cols(block->bias[linear->fused], linear->first, linear->rows),
					     linear};
		return true;
	}
	return false;
}

enum status block_vector_tensor(const struct model *model, const struct block_vector *vector, int index,
				const struct tensor_info **ret, struct error *err)
{
	char name[BLOCK_TENSOR_NAME], head[16] = "";
	if (vector->head >= 0) snprintf(head, sizeof head, ".%d", vector->head);
	snprintf(name, sizeof name, "%s.%d.%s%s.%s", model->config.names->blocks, index, vector->path, head, vector->kind);
	return model_tensor(model, name, vector->rows, vector->rows ? vector->length / vector->rows : vector->length, ret, err);
}
