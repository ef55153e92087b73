#include "engine/prune/mask.h"

#include <stdlib.h>

static enum status allocate(struct mask *mask, const struct block *block)
{
	const struct block_layout *layout = &block->layout;
	struct backend *backend = mask->backend;
	size_t bytes = (size_t)layout->rows * sizeof *mask->host_thresholds;
	mask->host_thresholds = malloc(bytes);
	if (!mask->host_thresholds) return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for the mask of a block");
	TRY(backend->ops->alloc(backend, bytes, &mask->thresholds));
	for (int f = 0; f < layout->n_fused; f++) {
		mask->rank[f] = tensor_make(NULL, layout->fused_rows[f], layout->fused_cols[f], DTYPE_U16);
		TRY(backend->ops->alloc(backend, tensor_bytes(&mask->rank[f]), &mask->rank[f].data));
	}
	return STATUS_OK;
}

enum status mask_create(const struct block *block, struct mask *ret, struct error *err)
{
	struct mask mask = {.backend = block->backend};
	enum status status = allocate(&mask, block);
	if (status != STATUS_OK) {
		*err = block->backend->error;
		mask_release(&mask);
		return status;
	}
	*ret = mask;
	return STATUS_OK;
}

void mask_release(struct mask *mask)
{
	struct backend *backend = mask->backend;
	if (!backend) return;
	for (int f = 0; f < FUSED_COUNT; f++)
		backend->ops->release(backend, mask->rank[f].data);
	backend->ops->release(backend, mask->thresholds);
	free(mask->host_thresholds);
	*mask = (struct mask){0};
}

static enum status rank_product(struct mask *mask, const struct block *block, int product, enum importance by, struct tensor weight,
				const struct column_norms *norms, int64_t sequences, struct pattern pattern)
{
	struct backend *backend = mask->backend;
	struct tensor rank = block_product(block, mask->rank, product);
	const void *sums = norms ? norms->sums[product] : NULL;
	return pattern.of ? backend->ops->rank_groups(backend, by, rank, weight, sums, (double)sequences, pattern.of)
			  : backend->ops->rank_rows(backend, by, rank, weight, sums, (double)sequences);
}

/* Whether a product is that of an expert that got no token. */
static bool unseen(const struct block *block, const struct column_norms *norms, int product)
{
	return block->layout.products[product].expert >= 0 && !norms->tokens[product];
}

enum status mask_rank(struct mask *mask, const struct block *block, enum importance importance, const struct column_norms *norms,
		      int64_t sequences, struct pattern pattern)
{
	for (int i = 0; i < block->layout.n_products; i++) {
		bool plain = importance == IMPORTANCE_WANDA && unseen(block, norms, i);
		TRY(rank_product(mask, block, i, plain ? IMPORTANCE_MAGNITUDE : importance, block_product(block, block->weight, i),
				 norms, sequences, pattern));
	}
	return STATUS_OK;
}

enum status mask_rank_scores(struct mask *mask, const struct block *block, const struct tensor scores[FUSED_COUNT],
			     const struct column_norms *norms, struct pattern pattern)
{
	for (int i = 0; i < block->layout.n_products; i++) {
		struct tensor by = block_product(block, unseen(block, norms, i) ? block->weight : scores, i);
		TRY(rank_product(mask, block, i, IMPORTANCE_MAGNITUDE, by, NULL, 1, pattern));
	}
	return STATUS_OK;
}

enum status mask_set(struct mask *mask, const struct block *block)
{
	return mask->backend->ops->upload(mask->backend, mask->thresholds, mask->host_thresholds,
					  (size_t)block->layout.rows * sizeof *mask->host_thresholds);
}

enum status mask_apply(const struct mask *mask, const struct block *block, const struct tensor to[FUSED_COUNT])
{
	return mask_apply_from(mask, block, block->weight, to);
}

enum status mask_apply_from(const struct mask *mask, const struct block *block, const struct tensor from[FUSED_COUNT],
			    const struct tensor to[FUSED_COUNT])
{
	struct backend *backend = mask->backend;
	for (int f = 0; f < block->layout.n_fused; f++)
		TRY(backend->ops->mask_weights(backend, to[f], from[f], mask->rank[f],
					       (int32_t *)mask->thresholds + block->layout.fused_row[f], false));
	return STATUS_OK;
}
