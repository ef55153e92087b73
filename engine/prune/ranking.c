#include "engine/prune/ranking.h"

#include <stdlib.h>
#include <string.h>

static enum status allocate(struct ranking *ranking, const struct block *block)
{
	const struct block_layout *layout = &block->layout;
	struct backend *backend = ranking->backend;
	ranking->products = layout->n_products;
	ranking->norms.sums = calloc((size_t)layout->n_products, sizeof *ranking->norms.sums);
	ranking->norms.seen = calloc((size_t)layout->experts + 1, sizeof *ranking->norms.seen);
	if (!ranking->norms.sums || !ranking->norms.seen)
		return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for %d column norms", layout->n_products);
	TRY(backend->ops->alloc(backend, (size_t)layout->rows * sizeof(int32_t), &ranking->thresholds));
	for (int f = 0; f < FUSED_COUNT; f++) {
		ranking->rank[f] = tensor_make(NULL, layout->fused_rows[f], layout->fused_cols[f], DTYPE_U16);
		TRY(backend->ops->alloc(backend, tensor_bytes(&ranking->rank[f]), &ranking->rank[f].data));
	}
	for (int i = 0; i < layout->n_products; i++)
		TRY(backend->ops->alloc(backend, (size_t)layout->products[i].cols * sizeof(double), &ranking->norms.sums[i]));
	return STATUS_OK;
}

enum status ranking_create(const struct block *block, struct ranking *ret, struct error *err)
{
	struct ranking ranking = {.backend = block->backend};
	enum status status = allocate(&ranking, block);
	if (status != STATUS_OK) {
		*err = block->backend->error;
		ranking_release(&ranking);
		return status;
	}
	*ret = ranking;
	return STATUS_OK;
}

void ranking_release(struct ranking *ranking)
{
	struct backend *backend = ranking->backend;
	if (!backend) return;
	for (int f = 0; f < FUSED_COUNT; f++)
		backend->ops->release(backend, ranking->rank[f].data);
	for (int i = 0; ranking->norms.sums && i < ranking->products; i++)
		backend->ops->release(backend, ranking->norms.sums[i]);
	backend->ops->release(backend, ranking->thresholds);
	free(ranking->norms.sums);
	free(ranking->norms.seen);
	*ranking = (struct ranking){0};
}

enum status ranking_reset_sums(struct ranking *ranking, const struct block *block)
{
	const struct block_layout *layout = &block->layout;
	memset(ranking->norms.seen, 0, (size_t)layout->experts * sizeof *ranking->norms.seen);
	for (int i = 0; i < layout->n_products; i++)
		TRY(ranking->backend->ops->zero(ranking->backend, ranking->norms.sums[i],
						(size_t)layout->products[i].cols * sizeof(double)));
	return STATUS_OK;
}

enum status ranking_rank(struct ranking *ranking, const struct block *block, enum importance importance, int64_t sequences)
{
	struct backend *backend = ranking->backend;
	for (int i = 0; i < block->layout.n_products; i++) {
		int expert = block->layout.products[i].expert;
		bool unseen = expert >= 0 && !ranking->norms.seen[expert];
		TRY(backend->ops->rank_rows(backend, unseen ? IMPORTANCE_MAGNITUDE : importance,
					    block_product(block, ranking->rank, i), block_product(block, block->weight, i),
					    ranking->norms.sums[i], (double)sequences));
	}
	return STATUS_OK;
}

enum status ranking_activate(struct ranking *ranking, struct block *block, const int32_t *thresholds)
{
	struct backend *backend = ranking->backend;
	TRY(backend->ops->upload(backend, ranking->thresholds, thresholds, (size_t)block->layout.rows * sizeof *thresholds));
	for (int f = 0; f < FUSED_COUNT; f++)
		TRY(backend->ops->mask_weights(backend, block->active[f], block->weight[f], ranking->rank[f],
					       (int32_t *)ranking->thresholds + block->layout.fused_row[f], false));
	return STATUS_OK;
}
