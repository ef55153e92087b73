/* How many weights each block of a model is to lose, where blocks are not to lose the same share: from what was measured of the
 * dense blocks to whole numbers that add up. All blocks have the same number of weights, so a model's share is the mean of
 * theirs. */
#ifndef BESAD_ENGINE_ALLOTMENT_H
#define BESAD_ENGINE_ALLOTMENT_H

#include <stdint.h>

#include "base/error.h"

/* What a block's share may be, about the target: `deviation` less or more, but no nearer to 0 or 1 than a quarter of the way. */
struct share_bounds {
	double low, high;
};
struct share_bounds share_bounds(double target, double deviation);

/* OWL (Yin et al., arXiv 2310.05175, as published in code): outliers [blocks] are the parts of the blocks' weights whose
 * importance stands out; scaled to [0, 2 · deviation] and about their mean, they are what is taken from each block's target.
 * shares [blocks] have the mean `target`; where one would pass its bound, with the whole span for a deviation, all differences
 * are made smaller alike. */
void shares_by_outliers(const double *outliers, int blocks, double target, double deviation, double *shares);

/* Least sum of losses: at[0] and at[1] [blocks] are what each block loses of its outputs when `bounds.low` and `bounds.high` of
 * its weights go. With log loss taken as linear between, the sum over the blocks is smallest where all slopes are the same, and
 * at the bounds for blocks that do not get there (Lagrange). shares [blocks], within the bounds, have the mean `target`. */
void shares_by_losses(const double *const at[2], int blocks, double target, struct share_bounds, double *shares);

/* Whole zeros [blocks] of blocks of `params` weights, which add up to round(target · params · blocks): proportional to the
 * shares, what is left over by largest remainder. */
enum status shares_to_zeros(const double *shares, int blocks, double target, int64_t params, int64_t *zeros, struct error *err);

#endif
