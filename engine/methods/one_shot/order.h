/* Whether importance orders a block's weights: whether what it calls more important costs more. */
#ifndef BESAD_ENGINE_ORDER_H
#define BESAD_ENGINE_ORDER_H

#include "engine/methods/method.h"

/* So many eighths of each row are pruned in turn; beyond them a block has lost so much that the last weights cost less again. */
enum { ORDER_PARTS = 8, ORDER_STEPS = 6 };

/* The rank correlation (Spearman's) of the order of `count` numbers, 2 or more, with their size: 1 where they grow, −1 where they
 * fall, NaN where one is no number. Equal ones count as in order. */
double order_correlation(const double *costs, int count);

/* Prunes the first, second, … eighth of each row besides those before it and takes how much the reconstruction loss of a few
 * tokens grows by each; where these do not grow themselves, tells so as a finding. The block is ranked in `mask`, whose
 * thresholds and block->active it leaves changed. Nothing is done without a calibration, where the block loses nothing, or under
 * a pattern, where each row's ranks are those of its groups. */
enum status order_check(const struct method_setup *, enum importance, struct mask *mask, const struct block_task *,
			struct error *err);

#endif
