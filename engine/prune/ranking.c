#include "engine/prune/ranking.h"

enum status ranking_create(const struct block *block, struct ranking *ret, struct error *err)
{
	struct backend *backend = block->backend;
	struct ranking ranking = {.backend = backend};
	enum status status = backend->ops->alloc(backend, (size_t)block->layout.rows * sizeof(int32_t), &ranking.thresholds);
	for (int f = 0; status == STATUS_OK && f < FUSED_COUNT; f++) {
		int64_t rows = block->layout.fused_rows[f], cols = block->layout.fused_cols[f];
		ranking.rank[f] = tensor_make(NULL, rows, cols, DTYPE_U16);
		status = backend->ops->alloc(backend, tensor_bytes(&ranking.rank[f]), &ranking.rank[f].data);
		if (status == STATUS_OK) status = backend->ops->alloc(backend, (size_t)cols * sizeof(double), &ranking.sums[f]);
	}
	if (status != STATUS_OK) {
		*err = backend->error;
		ranking_release(&ranking);
		return status;
	}
	*ret = ranking;
	return STATUS_OK;
}

void ranking_release(struct ranking *ranking)
{
	if (!ranking->backend) return;
	for (int f = 0; f < FUSED_COUNT; f++) {
		ranking->backend->ops->release(ranking->backend, ranking->rank[f].data);
		ranking->backend->ops->release(ranking->backend, ranking->sums[f]);
	}
	ranking->backend->ops->release(ranking->backend, ranking->thresholds);
	*ranking = (struct ranking){0};
}

enum status ranking_reset_sums(struct ranking *ranking, const struct block *block)
{
	for (int f = 0; f < FUSED_COUNT; f++)
		TRY(ranking->backend->ops->zero(ranking->backend, ranking->sums[f],
						(size_t)block->layout.fused_cols[f] * sizeof(double)));
	return STATUS_OK;
}

enum status ranking_rank(struct ranking *ranking, const struct block *block, enum importance importance, int64_t sequences)
{
	for (int f = 0; f < FUSED_COUNT; f++)
		TRY(ranking->backend->ops->rank_rows(ranking->backend, importance, ranking->rank[f], block->weight[f],
						     ranking->sums[f], (double)sequences));
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
