#include "engine/model/vectors.h"

#include "engine/model/block.h"

struct tensor block_vector_values(const struct block *block, enum vector vector)
{
	const struct tensor norms[VECTOR_BIAS] = {
		[VECTOR_NORM1] = block->norm1,
		[VECTOR_NORM1_BIAS] = block->norm1_bias,
		[VECTOR_NORM2] = block->norm2,
		[VECTOR_NORM2_BIAS] = block->norm2_bias,
		[VECTOR_Q_NORM] = block->q_norm,
		[VECTOR_K_NORM] = block->k_norm,
		[VECTOR_ATTENTION_NORM] = block->attention_norm,
		[VECTOR_MLP_NORM] = block->mlp_norm,
	};
	return vector < VECTOR_BIAS ? norms[vector] : block->bias[vector - VECTOR_BIAS];
}

/* 0 where the family has none. */
static int64_t length_of(const struct block *block, enum vector vector)
{
	const struct model_config *config = block->config;
	switch (vector) {
	case VECTOR_NORM1:
		return config->names->norm1 ? config->hidden : 0;
	case VECTOR_NORM2:
		return config->names->norm2 ? config->hidden : 0;
	case VECTOR_NORM1_BIAS:
		return config->norm_bias && config->names->norm1 ? config->hidden : 0;
	case VECTOR_NORM2_BIAS:
		return config->norm_bias && config->names->norm2 ? config->hidden : 0;
	case VECTOR_Q_NORM:
		return config->qk_norm ? config_qk_norm(config, config->heads) : 0;
	case VECTOR_K_NORM:
		return config->qk_norm ? config_qk_norm(config, config->kv_heads) : 0;
	case VECTOR_ATTENTION_NORM:
	case VECTOR_MLP_NORM:
		return config->output_norms ? config->hidden : 0;
	default:
		return block->bias[vector - VECTOR_BIAS].cols;
	}
}

static void place(const struct block *block, struct arena *arena, struct vectors *vectors)
{
	for (int i = 0; i < VECTOR_COUNT; i++) {
		int64_t length = length_of(block, (enum vector)i);
		if (length) vectors->of[i] = arena_place_whole(arena, 1, length, DTYPE_F32);
	}
}

enum status vectors_create(const struct block *block, struct vectors *ret, struct error *err)
{
	struct vectors vectors = {0};
	struct arena count = {0};
	place(block, &count, &vectors);
	enum status status = block->backend->ops->alloc(block->backend, count.used, &vectors.memory);
	if (status != STATUS_OK) {
		*err = block->backend->error;
		return status;
	}
	struct arena arena = {.memory = vectors.memory};
	place(block, &arena, &vectors);
	vectors.bytes = count.used;
	*ret = vectors;
	return STATUS_OK;
}

void vectors_release(struct vectors *vectors, struct backend *backend)
{
	backend->ops->release(backend, vectors->memory);
	*vectors = (struct vectors){0};
}

static enum status copy(struct backend *backend, struct tensor to, struct tensor from)
{
	return from.data ? backend->ops->copy(backend, to.data, from.data, tensor_bytes(&from)) : STATUS_OK;
}

enum status vectors_keep(const struct block *block, const struct vectors *to)
{
	for (int i = 0; i < VECTOR_COUNT; i++)
		TRY(copy(block->backend, to->of[i], block_vector_values(block, (enum vector)i)));
	return STATUS_OK;
}

enum status vectors_restore(const struct block *block, const struct vectors *from)
{
	for (int i = 0; i < VECTOR_COUNT; i++)
		TRY(copy(block->backend, block_vector_values(block, (enum vector)i), from->of[i]));
	return STATUS_OK;
}
