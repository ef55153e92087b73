#include "engine/prune/allotment.h"

#include <inttypes.h>
#include <math.h>

#include "engine/spec/apportion.h"

struct share_bounds share_bounds(double target, double deviation)
{
	const double most = 0.75;
	return (struct share_bounds){target - fmin(deviation, most * target), target + fmin(deviation, most * (1 - target))};
}

/* ---- by outliers ------------------------------------------------------------------------------------------------------------- */

void shares_by_outliers(const double *outliers, int blocks, double target, double deviation, double *shares)
{
	double low = INFINITY, high = -INFINITY, mean = 0, smaller = 1;
	const struct share_bounds bounds = share_bounds(target, 1);
	for (int b = 0; b < blocks; b++) {
		low = fmin(low, outliers[b]);
		high = fmax(high, outliers[b]);
		mean += outliers[b] / blocks;
	}
	double scale = high > low ? 2 * deviation / (high - low) : 0;
	for (int b = 0; b < blocks; b++) {
		double more = (mean - outliers[b]) * scale, room = more > 0 ? bounds.high - target : target - bounds.low;
		if (fabs(more) > room) smaller = fmin(smaller, room / fabs(more));
	}
	for (int b = 0; b < blocks; b++)
		shares[b] = target + (mean - outliers[b]) * scale * smaller;
}

/* ---- by losses --------------------------------------------------------------------------------------------------------------- */

/* log loss(s) = start + slope · (s − low), and the log of the loss' own slope is that of `slope` more. */
struct curve {
	double start, slope;
};

static struct curve curve_of(double at_low, double at_high, double width)
{
	const double least = 1e-300, flattest = 1e-3; /* a loss that hardly rises: its block takes what it can */
	double low = log(fmax(at_low, least)), high = log(fmax(at_high, least));
	return (struct curve){low, fmax(high - low, flattest) / width};
}

/* Where the loss rises by e^level for each share. */
static double share_at(const struct curve *curve, double level, struct share_bounds bounds)
{
	double share = bounds.low + (level - log(curve->slope) - curve->start) / curve->slope;
	return fmin(fmax(share, bounds.low), bounds.high);
}

void shares_by_losses(const double *const at[2], int blocks, double target, struct share_bounds bounds, double *shares)
{
	double low = INFINITY, high = -INFINITY, width = bounds.high - bounds.low;
	for (int b = 0; b < blocks; b++)
		shares[b] = target;
	if (width <= 0) return;
	for (int b = 0; b < blocks; b++) {
		struct curve curve = curve_of(at[0][b], at[1][b], width);
		low = fmin(low, curve.start + log(curve.slope));
		high = fmax(high, curve.start + log(curve.slope) + curve.slope * width);
	}
	for (int i = 0; i < 200; i++) {
		double level = (low + high) / 2, sum = 0;
		for (int b = 0; b < blocks; b++) {
			struct curve curve = curve_of(at[0][b], at[1][b], width);
			shares[b] = share_at(&curve, level, bounds);
			sum += shares[b];
		}
		if (sum < target * blocks)
			low = level;
		else
			high = level;
	}
}

/* ---- whole numbers ----------------------------------------------------------------------------------------------------------- */

enum status shares_to_zeros(const double *shares, int blocks, double target, int64_t params, int64_t *zeros, struct error *err)
{
	int64_t all = llround(target * (double)params * blocks), sum = 0;
	for (int b = 0; b < blocks; b++) {
		zeros[b] = 0;
		if (!(shares[b] >= 0 && shares[b] <= 1))
			return error_set(err, STATUS_INTERNAL, "block %d was allotted a sparsity of %g", b, shares[b]);
	}
	if (all) apportion(shares, blocks, all, zeros);
	for (int b = 0; b < blocks; b++)
		sum += zeros[b];
	if (sum != all)
		return error_set(err, STATUS_INTERNAL, "the blocks were allotted %" PRId64 " zeros, and not %" PRId64, sum, all);
	return STATUS_OK;
}
