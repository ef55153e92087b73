/* SparseGPT's sweep over the columns of a row (arXiv 2301.00774, Algorithm 1). */
#include "engine/compute/cpu/isa/isa.h"

INLINE uint32_t score_of(float weight, float diagonal)
{
	float error = weight / diagonal;
	return bits_of(error * error);
}

static void score(uint32_t *scores, const struct tensor *weight, const struct tensor *factor, int64_t first, int64_t last)
{
	float diagonal[PRUNE_COLUMNS];
	for (int64_t j = 0; j < weight->cols; j++)
		diagonal[j] = *(const float *)at(factor, j, j);
	for (int64_t row = first; row < last; row++) {
		const float *w = at(weight, row, 0);
#pragma omp simd
		for (int64_t j = 0; j < weight->cols; j++)
			scores[row * weight->cols + j] = score_of(w[j], diagonal[j]);
	}
}

/* Marks the of − keep weights of a group with the smallest scores. */
static void choose_group(uint8_t *gone, const float *w, const struct tensor *factor, int64_t first, const struct pattern *pattern)
{
	uint32_t scores[PATTERN_MOST];
	for (int i = 0; i < pattern->of; i++)
		scores[i] = score_of(w[first + i], *(const float *)at(factor, first + i, first + i));
	for (int i = 0; i < pattern->of; i++) {
		int before = 0;
		for (int k = 0; k < pattern->of; k++)
			before += scores[k] < scores[i] || (scores[k] == scores[i] && k < i);
		gone[first + i] = before < pattern->of - pattern->keep;
	}
}

static void sweep(const struct tensor *weight, const struct tensor *negated_error, const struct tensor *factor, uint8_t *gone,
		  const struct pattern *pattern, int64_t first, int64_t last)
{
	int64_t cols = weight->cols;
	for (int64_t row = first; row < last; row++) {
		float *w = (float *)(uintptr_t)at(weight, row, 0), *minus = (float *)(uintptr_t)at(negated_error, row, 0);
		uint8_t *goes = gone + row * cols;
		for (int64_t j = 0; j < cols; j++) {
			if (pattern->of && j % pattern->of == 0) choose_group(goes, w, factor, j, pattern);
			minus[j] = 0;
			if (!goes[j]) continue;
			const float *u = at(factor, j, 0);
			float error = w[j] / u[j];
			minus[j] = -error;
			w[j] = 0;
#pragma omp simd
			for (int64_t k = j + 1; k < cols; k++)
				w[k] -= error * u[k];
		}
	}
}

const struct compensate_kernels ISA_NAME(compensate_kernels) = {.score = score, .sweep = sweep};
