/* The rows of ADMM's projection and of conjugate gradients (arXiv 2401.02938). */
#include "engine/compute/cpu/isa/isa.h"

INLINE float *row_of(const struct tensor *t, int64_t row)
{
	return (float *)(uintptr_t)at(t, row, 0);
}

INLINE void scale_row(float *y, const float *x, const float *cols, float by, bool accumulate, int64_t n)
{
#pragma omp simd
	for (int64_t i = 0; i < n; i++)
		y[i] = (accumulate ? y[i] : 0) + by * x[i] * (cols ? cols[i] : 1);
}

static void scale(const struct tensor *y, const struct tensor *x, const float *rows, const float *cols, float factor,
		  bool accumulate, int64_t first, int64_t last)
{
	for (int64_t row = first; row < last; row++) {
		float *to = row_of(y, row), by = rows ? factor * rows[row] : factor;
		const float *from = row_of(x, row);
		if (cols && accumulate)
			scale_row(to, from, cols, by, true, y->cols);
		else if (cols)
			scale_row(to, from, cols, by, false, y->cols);
		else
			scale_row(to, from, NULL, by, accumulate, y->cols);
	}
}

/* ---- the projection ---------------------------------------------------------------------------------------------------------- */

/* What is not among the of − keep smallest of a group does not go. */
INLINE void spare_in_groups(uint32_t *scores, int64_t cols, int keep, int of)
{
	for (int64_t first = 0; first < cols; first += of, scores += of) {
		uint32_t all[PATTERN_MOST];
		for (int i = 0; i < of; i++)
			all[i] = scores[i];
		for (int i = 0; i < of; i++) {
			int before = 0;
			for (int k = 0; k < of; k++)
				before += k < i ? all[k] <= all[i] : all[k] < all[i];
			scores[i] = before < of - keep ? all[i] : UINT32_MAX;
		}
	}
}

/* Four is worth code of its own. */
static void spare_in_row(uint32_t *scores, int64_t cols, const struct pattern *pattern)
{
	if (pattern->of == 4)
		spare_in_groups(scores, cols, pattern->keep, 4);
	else if (pattern->of)
		spare_in_groups(scores, cols, pattern->keep, pattern->of);
}

static void score(uint32_t *scores, const struct tensor *w, const struct tensor *u, const struct pattern *pattern, int64_t first,
		  int64_t last)
{
	int64_t cols = w->cols;
	for (int64_t row = first; row < last; row++) {
		float *v = row_of(w, row);
		const float *add = row_of(u, row);
		uint32_t *to = scores + row * cols;
#pragma omp simd
		for (int64_t i = 0; i < cols; i++) {
			v[i] += add[i];
			to[i] = bits_of(v[i]) & 0x7fffffff;
		}
		spare_in_row(to, cols, pattern);
	}
}

INLINE int64_t below(const uint32_t *scores, int64_t cols, uint32_t limit)
{
	int32_t count = 0; /* as wide as a score */
#pragma omp simd reduction(+ : count)
	for (int64_t i = 0; i < cols; i++)
		count += scores[i] < limit;
	return count;
}

/* The last that goes is found bit by bit: a row is in the cache, and counted sixteen at a time. */
static void select_row(uint8_t *gone, const uint32_t *scores, int64_t cols, int64_t count)
{
	uint32_t limit = 0;
	for (uint32_t bit = 1u << 30; bit; bit >>= 1)
		if (below(scores, cols, limit | bit) < count) limit |= bit;
	int64_t left = count - below(scores, cols, limit);
#pragma omp simd
	for (int64_t i = 0; i < cols; i++)
		gone[i] = scores[i] < limit;
	for (int64_t i = 0; i < cols && left > 0; i++) {
		if (scores[i] != limit) continue;
		gone[i] = 1;
		left--;
	}
}

static void project(const struct tensor *w, const struct tensor *u, const struct tensor *rhs, const struct tensor *b, float rho,
		    const uint8_t *gone, int64_t first, int64_t last)
{
	int64_t cols = w->cols;
	for (int64_t row = first; row < last; row++) {
		float *kept = row_of(w, row), *lost = row_of(u, row), *to = row_of(rhs, row);
		const float *from = row_of(b, row);
		const uint8_t *goes = gone + row * cols;
#pragma omp simd
		for (int64_t i = 0; i < cols; i++) {
			float v = kept[i];
			kept[i] = goes[i] ? 0 : v;
			lost[i] = goes[i] ? v : 0;
			to[i] = from[i] + rho * (goes[i] ? -v : v);
		}
	}
}

/* ---- least squares ----------------------------------------------------------------------------------------------------------- */

static void keep_where(const struct tensor *out, const struct tensor *weight, const struct tensor *support, int64_t first,
		       int64_t last)
{
	for (int64_t row = first; row < last; row++) {
		float *to = row_of(out, row);
		const float *from = row_of(weight, row), *kept = row_of(support, row);
#pragma omp simd
		for (int64_t i = 0; i < out->cols; i++)
			to[i] = kept[i] != 0 ? from[i] : 0;
	}
}

static void conjugate_start(const struct tensor *r_tensor, const struct tensor *p_tensor, float *energy,
			    const struct tensor *target, const struct tensor *product, const struct tensor *support,
			    const float *inverse, int64_t first, int64_t last)
{
	for (int64_t row = first; row < last; row++) {
		float *r = row_of(r_tensor, row), *p = row_of(p_tensor, row), sum = 0;
		const float *wanted = row_of(target, row), *is = row_of(product, row), *kept = row_of(support, row);
#pragma omp simd reduction(+ : sum)
		for (int64_t i = 0; i < r_tensor->cols; i++) {
			float left = kept[i] != 0 ? wanted[i] - is[i] : 0, z = left * inverse[i];
			r[i] = left;
			p[i] = z;
			sum += left * z;
		}
		energy[row] = sum;
	}
}

INLINE float at_least(float x, float bound)
{
	return x > bound ? x : bound;
}

static void conjugate_step(const struct tensor *x_tensor, const struct tensor *r_tensor, const struct tensor *p_tensor,
			   float *energy, const struct tensor *product, const struct tensor *support, const float *inverse,
			   float lambda, int64_t first, int64_t last)
{
	const float least_divisor = 1e-30f;
	int64_t cols = x_tensor->cols;
	for (int64_t row = first; row < last; row++) {
		float *x = row_of(x_tensor, row), *r = row_of(r_tensor, row), *p = row_of(p_tensor, row), dot = 0, sum = 0;
		const float *of_p = row_of(product, row), *kept = row_of(support, row);
#pragma omp simd reduction(+ : dot)
		for (int64_t i = 0; i < cols; i++)
			dot += p[i] * (of_p[i] + lambda * p[i]); /* p is 0 beside the support */
		float alpha = energy[row] / at_least(dot, least_divisor);
#pragma omp simd reduction(+ : sum)
		for (int64_t i = 0; i < cols; i++) {
			float a = kept[i] != 0 ? of_p[i] + lambda * p[i] : 0, left = r[i] - alpha * a;
			x[i] += alpha * p[i];
			r[i] = left;
			sum += left * left * inverse[i];
		}
		float beta = sum / at_least(energy[row], least_divisor);
		energy[row] = sum;
#pragma omp simd
		for (int64_t i = 0; i < cols; i++)
			p[i] = r[i] * inverse[i] + beta * p[i];
	}
}

const struct solve_kernels ISA_NAME(solve_kernels) = {.scale = scale,
						      .score = score,
						      .select_row = select_row,
						      .project = project,
						      .keep_where = keep_where,
						      .conjugate_start = conjugate_start,
						      .conjugate_step = conjugate_step};
