/* Column norms, importance and masks. */
#include "engine/compute/cpu/isa/isa.h"

static void column_norms(double *sums, const struct tensor *x_tensor, int64_t first, int64_t last)
{
	enum { COLUMNS = 256, AHEAD = 8 };
	float buffer[COLUMNS];
	for (int64_t col = first; col < last; col += COLUMNS) {
		int64_t n = least(COLUMNS, last - col);
		double part[COLUMNS] = {0};
		for (int64_t row = 0; row < x_tensor->rows; row++) {
			row_fetch(x_tensor, row + AHEAD, col, n);
			const float *x = row_read(x_tensor, row, col, n, buffer);
#pragma omp simd
			for (int64_t i = 0; i < n; i++)
				part[i] += (double)x[i] * (double)x[i];
		}
		for (int64_t i = 0; i < n; i++)
			sums[col + i] += part[i];
	}
}

static void add_saliency(const struct tensor *scores, const struct tensor *gradient, const struct tensor *weight, int64_t first,
			 int64_t last)
{
	float buffer[PIECE];
	for (int64_t row = first; row < last; row++) {
		for (int64_t col = 0; col < scores->cols; col += PIECE) {
			int64_t n = least(PIECE, scores->cols - col);
			const float *w = row_read(weight, row, col, n, buffer), *g = at(gradient, row, col);
			float *to = (float *)(uintptr_t)at(scores, row, col);
#pragma omp simd
			for (int64_t i = 0; i < n; i++)
				to[i] += float_of(bits_of(w[i] * g[i]) & 0x7fffffff);
		}
	}
}

static struct key_range importance(uint32_t *key, const struct tensor *weight, const float *scale, int64_t row)
{
	float buffer[PIECE];
	uint32_t lowest = UINT32_MAX, highest = 0;
	for (int64_t col = 0; col < weight->cols; col += PIECE) {
		int64_t n = least(PIECE, weight->cols - col);
		const float *w = row_read(weight, row, col, n, buffer);
#pragma omp simd reduction(min : lowest) reduction(max : highest)
		for (int64_t i = 0; i < n; i++) {
			float magnitude = float_of(bits_of(w[i]) & 0x7fffffff);
			uint32_t bits = bits_of(scale ? magnitude * scale[col + i] : magnitude);
			key[col + i] = bits;
			lowest = bits < lowest ? bits : lowest;
			highest = bits > highest ? bits : highest;
		}
	}
	return (struct key_range){lowest, highest};
}

/* ---- masks ------------------------------------------------------------------------------------------------------------------- */

static void mask_words(uint32_t *out, const uint32_t *weight, const uint16_t *rank, int32_t threshold, int64_t n)
{
#pragma omp simd
	for (int64_t i = 0; i < n; i++)
		out[i] = weight[i] & -(uint32_t)(rank[i] >= threshold);
}

static void mask_halves(uint16_t *out, const uint16_t *weight, const uint16_t *rank, int32_t threshold, int64_t n)
{
	if (threshold > 65535) {
		memset(out, 0, (size_t)n * sizeof *out);
		return;
	}
	uint16_t limit = threshold < 0 ? 0 : (uint16_t)threshold;
#pragma omp simd
	for (int64_t i = 0; i < n; i++)
		out[i] = rank[i] >= limit ? weight[i] : 0;
}

static void mask_weights(const struct tensor *out, const struct tensor *weight, const struct tensor *rank, const int32_t *threshold,
			 bool shared, int64_t first, int64_t last)
{
	float buffer[PIECE];
	for (int64_t row = first; row < last; row++) {
		int32_t limit = threshold[shared ? 0 : row];
		void *to = (void *)(uintptr_t)at(out, row, 0);
		const void *from = at(weight, row, 0);
		const uint16_t *ranks = at(rank, row, 0);
		if (out->dtype != weight->dtype) {
			for (int64_t col = 0; col < out->cols; col += PIECE) {
				int64_t n = least(PIECE, out->cols - col);
				float *kept = row_target(out, row, col, buffer);
				load_floats(kept, at(weight, row, col), weight->dtype, n);
				for (int64_t i = 0; i < n; i++)
					kept[i] = ranks[col + i] >= limit ? kept[i] : 0;
				row_finish(out, row, col, n, kept);
			}
		} else if (out->dtype == DTYPE_F32) {
			mask_words(to, from, ranks, limit, out->cols);
		} else {
			mask_halves(to, from, ranks, limit, out->cols);
		}
	}
}

const struct prune_kernels ISA_NAME(prune_kernels) = {
	.column_norms = column_norms,
	.add_saliency = add_saliency,
	.importance = importance,
	.mask_weights = mask_weights,
};
