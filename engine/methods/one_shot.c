#include "engine/methods/one_shot.h"

/* The thresholds of ranks in rows, or in the groups of a pattern. */
static void fill_thresholds(const struct block_layout *layout, const struct spec *spec, int32_t *thresholds, float *rates)
{
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		double share = (double)linear->cols * spec->sparsity;
		int32_t threshold = spec->pattern.of ? spec->pattern.of - spec->pattern.keep : (int32_t)share;
		for (int64_t r = linear->row; r < linear->row + linear->rows; r++) {
			rates[r] = (float)spec->sparsity;
			thresholds[r] = threshold;
		}
	}
}

enum status one_shot_prune(struct mask *mask, const struct method_setup *setup, enum importance importance,
			   const struct column_norms *norms, const struct block_task *task, struct block_outcome *outcome,
			   struct error *err)
{
	const struct block *block = setup->block;
	enum status status = mask_rank(mask, block, importance, norms, setup->sequences, setup->spec->pattern);
	if (status == STATUS_OK) TRY(task->ranked(task->context, err));
	fill_thresholds(&block->layout, setup->spec, mask->host_thresholds, outcome->rates);
	if (status == STATUS_OK) status = mask_set(mask, block);
	if (status != STATUS_OK) *err = block->backend->error;
	outcome->mask = mask;
	return status;
}
