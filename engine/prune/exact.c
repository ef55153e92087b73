#include "engine/prune/exact.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

struct row {
	int64_t index; /* counted through: by layer, then row */
	int64_t cols;
	double fraction;
};

static double wanted(double rate, double shift, int64_t cols)
{
	double shifted = rate + shift;
	return (shifted < 0 ? 0 : shifted > 1 ? 1 : shifted) * (double)cols;
}

static int64_t count_zeros(const struct block_layout *layout, const float *rates, double shift)
{
	int64_t zeros = 0;
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		for (int64_t r = 0; r < linear->rows; r++)
			zeros += (int64_t)floor(wanted(rates[linear->row + r], shift, linear->cols));
	}
	return zeros;
}

/* The largest shift in [-1, 1], to double precision, that prunes `zeros` weights at most. */
static double find_shift(const struct block_layout *layout, const float *rates, int64_t zeros)
{
	double low = -1, high = 1;
	if (count_zeros(layout, rates, high) <= zeros) return high;
	for (int i = 0; i < 100; i++) {
		double middle = (low + high) / 2;
		if (count_zeros(layout, rates, middle) <= zeros)
			low = middle;
		else
			high = middle;
	}
	return low;
}

static int by_fraction(const void *a, const void *b)
{
	const struct row *x = a, *y = b;
	if (x->fraction != y->fraction) return x->fraction > y->fraction ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

enum status exact_thresholds(const struct block_layout *layout, const float *rates, int64_t zeros, int32_t *thresholds,
			     struct error *err)
{
	for (int64_t r = 0; r < layout->rows; r++)
		if (!isfinite(rates[r]))
			return error_set(err, STATUS_NUMERIC, "row %" PRId64 ": the rate that was learned is no number", r);
	struct row *rows = malloc((size_t)layout->rows * sizeof *rows);
	if (!rows) return error_set(err, STATUS_NO_MEMORY, "no memory for the rates of a block");
	double shift = find_shift(layout, rates, zeros);
	int64_t missing = zeros;
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		for (int64_t r = linear->row; r < linear->row + linear->rows; r++) {
			double exact = wanted(rates[r], shift, linear->cols), whole = floor(exact);
			thresholds[r] = (int32_t)whole;
			missing -= thresholds[r];
			rows[r] = (struct row){r, linear->cols, exact - whole};
		}
	}
	qsort(rows, (size_t)layout->rows, sizeof *rows, by_fraction);
	while (missing > 0) {
		for (int64_t i = 0; i < layout->rows && missing > 0; i++) {
			if (thresholds[rows[i].index] == rows[i].cols) continue;
			thresholds[rows[i].index]++;
			missing--;
		}
	}
	free(rows);
	return STATUS_OK;
}

void exact_uniform(const struct block_layout *layout, double sparsity, int64_t *zeros)
{
	int64_t params = 0, done = 0;
	for (int i = 0; i < layout->n_linears; i++) {
		params += layout->linears[i].rows * layout->linears[i].cols;
		zeros[i] = llround(sparsity * (double)params) - done;
		done += zeros[i];
	}
}
