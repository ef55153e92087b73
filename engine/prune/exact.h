/* From learned rates to whole numbers of pruned weights that meet the target exactly (besa.md section 2). */
#ifndef BESAD_ENGINE_EXACT_H
#define BESAD_ENGINE_EXACT_H

#include "engine/model/block.h"

/* rates: s of each row of the block, [layout->rows]. thresholds [layout->rows] receives how many weights each row loses; they
 * add up to `zeros`, which is between 0 and layout->params.
 *
 * One common shift of all rates, clamped to [0, 1], brings Σ ⌊s_i·C_i⌋ as close below `zeros` as a shift can; the rest is given,
 * one weight per row and round, in order of the largest fraction of s_i·C_i, then layer, then row. STATUS_NUMERIC for a rate
 * that is no number. */
enum status exact_thresholds(const struct block_layout *layout, const float *rates, int64_t zeros, int32_t *thresholds,
			     struct error *err);

/* How many weights each linear of a block loses where all are to lose one share: zeros [layout->n_linears], which add up to
 * llround(sparsity · layout->params). */
void exact_uniform(const struct block_layout *layout, double sparsity, int64_t *zeros);

#endif
