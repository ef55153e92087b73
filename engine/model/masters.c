#include "engine/model/masters.h"

#include <stdlib.h>

enum status block_add_masters(struct block *block, struct error *err)
{
	struct block_vector vector;
	int64_t longest = 0;
	for (int f = 0; f < block->layout.n_fused; f++)
		TRY(backend_allocate(block->backend, block->layout.fused_rows[f], block->layout.fused_cols[f], DTYPE_F32,
				     &block->master[f], err));
	if (block->rounding.data) return STATUS_OK;
	for (int i = 0; block_vector(block, i, &vector); i++)
		if (vector.length > longest) longest = vector.length;
	return backend_allocate(block->backend, 1, longest, DTYPE_F32, &block->rounding, err);
}

static enum status convert_all(const struct block *block, const struct tensor to[FUSED_COUNT],
			       const struct tensor from[FUSED_COUNT])
{
	for (int f = 0; f < block->layout.n_fused; f++)
		TRY(block->backend->ops->convert(block->backend, to[f], from[f]));
	return STATUS_OK;
}

enum status block_load_masters(struct block *block)
{
	return convert_all(block, block->master, block->weight);
}

enum status block_store_masters(struct block *block)
{
	return convert_all(block, block->weight, block->master);
}

static enum status store_vector(struct block *block, const struct block_vector *vector, enum dtype type, void *host)
{
	const struct backend_ops *ops = block->backend->ops;
	struct tensor rounded = tensor_make(block->rounding.data, 1, vector->length, type);
	TRY(ops->convert(block->backend, rounded, vector->values));
	TRY(ops->convert(block->backend, vector->values, rounded));
	if (!vector->linear) return ops->download(block->backend, host, rounded.data, tensor_bytes(&rounded));
	for (int i = 0; i < layout_stretches(vector->linear); i++) {
		struct stretch stretch = layout_stretch(vector->linear, i);
		struct tensor from = tensor_cols(rounded, stretch.first, stretch.rows);
		char *to = (char *)host + stretch.stored * (int64_t)dtype_size(type);
		TRY(ops->download(block->backend, to, from.data, tensor_bytes(&from)));
	}
	return STATUS_OK;
}

static enum status add_vector(struct block *block, const struct model *model, int index, const struct block_vector *vector,
			      struct stored_vectors *to, struct error *err)
{
	const struct tensor_info *info;
	TRY(block_vector_tensor(model, vector, index, &info, err));
	struct stored_vector *item = &to->items[to->count];
	*item = (struct stored_vector){info->name, malloc((size_t)info->bytes), (size_t)info->bytes};
	if (!item->data) return error_set(err, STATUS_NO_MEMORY, "no memory for tensor '%s'", info->name);
	to->count++;
	enum status status = store_vector(block, vector, info->dtype, item->data);
	if (status != STATUS_OK) *err = block->backend->error;
	return status;
}

enum status block_store_vectors(struct block *block, const struct model *model, int index, struct stored_vectors *ret,
				struct error *err)
{
	struct stored_vectors vectors = {0};
	struct block_vector vector;
	int count = 0;
	while (block_vector(block, count, &vector))
		count++;
	vectors.items = calloc((size_t)count, sizeof *vectors.items);
	if (!vectors.items) return error_set(err, STATUS_NO_MEMORY, "no memory for the vectors of a block");
	enum status status = STATUS_OK;
	for (int i = 0; status == STATUS_OK && block_vector(block, i, &vector); i++)
		status = add_vector(block, model, index, &vector, &vectors, err);
	if (status != STATUS_OK) {
		stored_vectors_release(&vectors);
		return status;
	}
	*ret = vectors;
	return STATUS_OK;
}

void stored_vectors_release(struct stored_vectors *vectors)
{
	for (int i = 0; i < vectors->count; i++)
		free(vectors->items[i].data);
	free(vectors->items);
	*vectors = (struct stored_vectors){0};
}
