/* Rates, the reconstruction loss and the optimizers (besa.md 1.5, 1.8, 1.9). */
#include "engine/compute/cpu/isa/isa.h"

/* Rows of candidates are worked on by whole vectors, so that no loop over them ends in single elements. */
enum { MOST_CANDIDATES = 256, WHOLE_VECTOR = 16, ROWS_AT_ONCE = 4 };

INLINE int64_t whole_vectors(int64_t candidates)
{
	return (candidates + WHOLE_VECTOR - 1) / WHOLE_VECTOR * WHOLE_VECTOR;
}

/* What a row has behind its last whole vector, and then the rest of one. Vectors before it are read where they lie: of what has
 * just been stored in other pieces the processor would wait for each. */
INLINE void copy_tail(float tail[WHOLE_VECTOR], const float *row, int64_t candidates, float rest)
{
	int64_t whole = candidates / WHOLE_VECTOR * WHOLE_VECTOR;
	for (int64_t i = 0; i < WHOLE_VECTOR; i++)
		tail[i] = whole + i < candidates ? row[whole + i] : rest;
}

INLINE const float *vector_at(const float *row, int64_t d, int64_t candidates, const float tail[WHOLE_VECTOR])
{
	return d + WHOLE_VECTOR <= candidates ? row + d : tail;
}

/* Each lane's sum is its own until the end: sums of vectors wait for one another less than those of elements. */
INLINE double sum_lanes(double lane[WHOLE_VECTOR])
{
#pragma GCC unroll 4
	for (int half = WHOLE_VECTOR / 2; half; half /= 2)
#pragma GCC unroll 8
		for (int i = 0; i < half; i++)
			lane[i] += lane[i + half];
	return lane[0];
}

/* What exp_fast makes 0 of is nothing beside 1. */
INLINE float sigmoid(float x)
{
	return 1 / (1 + exp_within(clamp_exponent(-x)));
}

/* What the softmax of a row is made of: e to the power of its logits, 0 behind them. */
INLINE void exponentials(enum parameterization parameterization, float *e, const float *theta, int64_t candidates, int64_t room)
{
	float tail[WHOLE_VECTOR], top = -INFINITY;
	copy_tail(tail, theta, candidates, -INFINITY);
	if (parameterization == PARAM_SIGMOID) {
		for (int64_t d = 0; d < room; d += WHOLE_VECTOR) {
			const float *t = vector_at(theta, d, candidates, tail);
#pragma omp simd
			for (int i = 0; i < WHOLE_VECTOR; i++)
				e[d + i] = exp_within(sigmoid(t[i]));
		}
		for (int64_t d = candidates; d < room; d++)
			e[d] = 0;
		return;
	}
#pragma omp simd reduction(max : top)
	for (int64_t d = 0; d < candidates; d++)
		top = theta[d] > top ? theta[d] : top;
	for (int64_t d = 0; d < room; d += WHOLE_VECTOR) {
		const float *t = vector_at(theta, d, candidates, tail);
#pragma omp simd
		for (int i = 0; i < WHOLE_VECTOR; i++)
			e[d + i] = exp_fast(t[i] - top);
	}
}

static void rates_forward(const struct rates *rates, const struct tensor *beta, float *s, int32_t *threshold,
			  const struct tensor *theta, int64_t first, int64_t last)
{
	int64_t candidates = rates->candidates, room = whole_vectors(candidates);
	double below = (double)rates->below / CANDIDATES_WHOLE;
	double width = (double)(CANDIDATES_WHOLE - rates->below - rates->above) / CANDIDATES_WHOLE;
	const int32_t *cols = rates->cols;
	double place[MOST_CANDIDATES];
	float e[MOST_CANDIDATES];
	for (int64_t d = 0; d < room; d++)
		place[d] = (double)(candidates - 1 - d);
	for (int64_t group = first; group < last; group++) {
		float *b = (float *)beta->data + group * beta->stride;
		double sums[WHOLE_VECTOR] = {0}, places[WHOLE_VECTOR] = {0};
		exponentials(rates->parameterization, e, at(theta, group, 0), candidates, room);
		for (int64_t d = 0; d < room; d += WHOLE_VECTOR) {
#pragma omp simd
			for (int i = 0; i < WHOLE_VECTOR; i++) {
				sums[i] += (double)e[d + i];
				places[i] += (double)e[d + i] * place[d + i];
			}
		}
		double sum = sum_lanes(sums), weighted = sum_lanes(places);
		float inverse = (float)(1 / sum);
#pragma omp simd
		for (int64_t d = 0; d < candidates; d++)
			b[d] = e[d] * inverse;
		s[group] = (float)(below + width * (weighted / (sum * (double)(candidates - 1))));
		threshold[group] = (int32_t)floor((double)s[group] * cols[group]);
	}
}

/* before[i][d] = the sum over the first D−1−d bins of row group + i. A row's additions wait for each other: rows are summed
 * beside each other. */
INLINE void sum_bins(int rows, double before[][MOST_CANDIDATES], const struct tensor *sums, int64_t group, int64_t candidates)
{
	const float *bins[ROWS_AT_ONCE];
	double sum[ROWS_AT_ONCE] = {0};
	for (int i = 0; i < rows; i++) {
		bins[i] = at(sums, group + i, 0);
		before[i][candidates - 1] = 0;
	}
	for (int64_t bin = 0; bin < candidates - 1; bin++) {
#pragma GCC unroll 4
		for (int i = 0; i < rows; i++) {
			sum[i] += (double)bins[i][bin];
			before[i][candidates - 2 - bin] = sum[i];
		}
	}
}

/* The gradient by β_d is −(the sum over the first D−1−d bins) + pull·(p_d − p_{D−1}), but for what is the same for all d; by the
 * logit z_d it is β_d·(that − its mean under β). */
static void rates_backward(const struct rates *rates, const struct tensor *dtheta, const struct tensor *theta,
			   const struct tensor *beta, const struct tensor *sums, double stats_slope, int64_t first, int64_t last)
{
	int64_t candidates = rates->candidates, room = whole_vectors(candidates);
	const double *share = rates->share;
	double step = 1 / (double)(candidates - 1);
	double width = (double)(CANDIDATES_WHOLE - rates->below - rates->above) / CANDIDATES_WHOLE;
	double place[MOST_CANDIDATES], before[ROWS_AT_ONCE][MOST_CANDIDATES] = {{0}};
	float b_tail[WHOLE_VECTOR], t_tail[WHOLE_VECTOR], out_tail[WHOLE_VECTOR];
	for (int64_t d = 0; d < room; d++)
		place[d] = (double)(candidates - 1 - d);
	for (int64_t group = first; group < last; group++) {
		int64_t turn = (group - first) % ROWS_AT_ONCE;
		if (group - turn + ROWS_AT_ONCE > last)
			sum_bins(1, before + turn, sums, group, candidates);
		else if (!turn)
			sum_bins(ROWS_AT_ONCE, before, sums, group, candidates);
		double *by_beta = before[turn], means[WHOLE_VECTOR] = {0}, pull = stats_slope * share[group] * width;
		const float *b_row = at(beta, group, 0), *t_row = at(theta, group, 0);
		float *out_row = (float *)dtheta->data + group * dtheta->stride;
		copy_tail(b_tail, b_row, candidates, 0);
		copy_tail(t_tail, t_row, candidates, 0);
		for (int64_t d = 0; d < room; d += WHOLE_VECTOR) {
			const float *b = vector_at(b_row, d, candidates, b_tail);
#pragma omp simd
			for (int i = 0; i < WHOLE_VECTOR; i++) {
				by_beta[d + i] = pull * place[d + i] * step - by_beta[d + i];
				means[i] += (double)b[i] * by_beta[d + i];
			}
		}
		double mean = sum_lanes(means);
		for (int64_t d = 0; d < room; d += WHOLE_VECTOR) {
			const float *b = vector_at(b_row, d, candidates, b_tail), *t = vector_at(t_row, d, candidates, t_tail);
			float *out = d + WHOLE_VECTOR <= candidates ? out_row + d : out_tail;
			if (rates->parameterization == PARAM_SIGMOID) {
#pragma omp simd
				for (int i = 0; i < WHOLE_VECTOR; i++) {
					float g = sigmoid(t[i]);
					out[i] = b[i] * (float)(by_beta[d + i] - mean) * (g * (1 - g));
				}
			} else {
#pragma omp simd
				for (int i = 0; i < WHOLE_VECTOR; i++)
					out[i] = b[i] * (float)(by_beta[d + i] - mean);
			}
		}
		for (int64_t d = candidates / WHOLE_VECTOR * WHOLE_VECTOR; d < candidates; d++)
			out_row[d] = out_tail[d % WHOLE_VECTOR];
	}
}

/* ---- loss -------------------------------------------------------------------------------------------------------------------- */

static void reconstruction(double *loss, const struct tensor *dy_tensor, const struct tensor *y_tensor,
			   const struct tensor *ref_tensor, int64_t first, int64_t last)
{
	enum { COLUMNS = 256 };
	float y_buffer[COLUMNS], ref_buffer[COLUMNS], target[COLUMNS], scale[COLUMNS];
	for (int64_t col = first; col < last; col += COLUMNS) {
		int64_t n = least(COLUMNS, last - col);
		double norm[COLUMNS] = {0}, error[COLUMNS] = {0};
		for (int64_t row = 0; row < y_tensor->rows; row++) {
			const float *y = row_read(y_tensor, row, col, n, y_buffer);
			const float *ref = row_read(ref_tensor, row, col, n, ref_buffer);
#pragma omp simd
			for (int64_t i = 0; i < n; i++) {
				double difference = (double)y[i] - (double)ref[i];
				norm[i] += (double)ref[i] * (double)ref[i];
				error[i] += difference * difference;
			}
		}
		for (int64_t i = 0; i < n; i++) {
			loss[col + i] = norm[i] == 0 ? 0 : error[i] / norm[i];
			scale[i] = norm[i] == 0 ? 0 : (float)(2 / (norm[i] * (double)y_tensor->cols));
		}
		if (!dy_tensor->data) continue;
		for (int64_t row = 0; row < y_tensor->rows; row++) {
			const float *y = row_read(y_tensor, row, col, n, y_buffer);
			const float *ref = row_read(ref_tensor, row, col, n, ref_buffer);
			float *dy = row_target(dy_tensor, row, col, target);
#pragma omp simd
			for (int64_t i = 0; i < n; i++)
				dy[i] = scale[i] * (y[i] - ref[i]);
			row_finish(dy_tensor, row, col, n, dy);
		}
	}
}

static void weighted_error(double *loss, const struct tensor *dy_tensor, const struct tensor *y_tensor,
			   const struct tensor *ref_tensor, const float *weight, double factor, int64_t first, int64_t last)
{
	float y_buffer[PIECE], ref_buffer[PIECE], target[PIECE], twice = (float)(2 * factor);
	for (int64_t row = first; row < last; row++) {
		double sum = 0;
		for (int64_t col = 0; col < y_tensor->cols; col += PIECE) {
			int64_t n = least(PIECE, y_tensor->cols - col);
			const float *y = row_read(y_tensor, row, col, n, y_buffer);
			const float *ref = row_read(ref_tensor, row, col, n, ref_buffer);
			const float *w = weight + col;
#pragma omp simd reduction(+ : sum)
			for (int64_t i = 0; i < n; i++) {
				double difference = (double)y[i] - (double)ref[i];
				sum += (double)w[i] * difference * difference;
			}
			if (!dy_tensor->data) continue;
			float *dy = row_target(dy_tensor, row, col, target);
#pragma omp simd
			for (int64_t i = 0; i < n; i++)
				dy[i] = twice * w[i] * (y[i] - ref[i]);
			row_finish(dy_tensor, row, col, n, dy);
		}
		loss[row] = sum;
	}
}

/* ---- optimizers -------------------------------------------------------------------------------------------------------------- */

static void prodigy_moments(const struct prodigy *p, double d, double d0, const float *theta, const float *theta0, float *m,
			    float *v, float *s, const float *gradient, int64_t first, int64_t last, double *ret_dot,
			    double *ret_sum)
{
	float beta1 = p->beta1, beta2 = p->beta2, beta3 = (float)sqrt((double)p->beta2);
	float by_g = (float)(d * (1 - (double)p->beta1)), by_g2 = (float)(d * d * (1 - (double)p->beta2)),
	      into_s = (float)(d / d0 * d);
	double dot = 0, sum = 0;
#pragma omp simd reduction(+ : dot, sum)
	for (int64_t i = first; i < last; i++) {
		float g = gradient[i];
		dot += (double)g * ((double)theta0[i] - (double)theta[i]);
		m[i] = beta1 * m[i] + by_g * g;
		v[i] = beta2 * v[i] + by_g2 * g * g;
		s[i] = beta3 * s[i] + into_s * g;
		sum += (double)fabsf(s[i]);
	}
	*ret_dot = dot;
	*ret_sum = sum;
}

static void prodigy_move(float step, float eps, float *theta, const float *m, const float *v, int64_t first, int64_t last)
{
#pragma omp simd
	for (int64_t i = first; i < last; i++)
		theta[i] -= step * m[i] / (sqrtf(v[i]) + eps);
}

/* Elements of a row, in place; `keep_zeros` is a constant to whoever calls it. */
INLINE void adamw_row(const struct adamw *a, bool keep_zeros, float *theta, float *m, float *v, const float *gradient, int64_t n)
{
	double correction1 = 1 - pow((double)a->beta1, a->step), correction2 = 1 - pow((double)a->beta2, a->step);
	float step = (float)((double)a->lr / correction1), inverse_root = (float)(1 / sqrt(correction2));
	float keep = (float)(1 - (double)a->lr * (double)a->weight_decay), rest1 = 1 - a->beta1, rest2 = 1 - a->beta2;
	float beta1 = a->beta1, beta2 = a->beta2, eps = a->eps; /* what a store might change is no vector's */
#pragma omp simd
	for (int64_t i = 0; i < n; i++) {
		float g = gradient[i], old = theta[i], old_m = m[i], old_v = v[i];
		float next_m = beta1 * old_m + rest1 * g, next_v = beta2 * old_v + rest2 * g * g;
		float next = keep * old - step * next_m / (sqrtf(next_v) * inverse_root + eps);
		bool stays = keep_zeros && old == 0;
		m[i] = stays ? old_m : next_m;
		v[i] = stays ? old_v : next_v;
		theta[i] = stays ? old : next;
	}
}

static void adamw(const struct adamw *a, const struct tensor *theta, const struct tensor *m, const struct tensor *v,
		  const struct tensor *gradient, const struct tensor *copy, int64_t first, int64_t last)
{
	int64_t pieces = (theta->cols + OPTIMIZER_CHUNK - 1) / OPTIMIZER_CHUNK;
	for (int64_t piece = first; piece < last; piece++) {
		int64_t row = piece / pieces, col = piece % pieces * OPTIMIZER_CHUNK, n = least(OPTIMIZER_CHUNK, theta->cols - col);
		float *to = row_target(theta, row, col, NULL), *to_m = row_target(m, row, col, NULL),
		      *to_v = row_target(v, row, col, NULL);
		if (a->keep_zeros)
			adamw_row(a, true, to, to_m, to_v, at(gradient, row, col), n);
		else
			adamw_row(a, false, to, to_m, to_v, at(gradient, row, col), n);
		if (copy->data) store_floats((void *)(uintptr_t)at(copy, row, col), copy->dtype, to, n);
	}
}

const struct learn_kernels ISA_NAME(learn_kernels) = {
	.rates_forward = rates_forward,
	.rates_backward = rates_backward,
	.reconstruction = reconstruction,
	.weighted_error = weighted_error,
	.prodigy_moments = prodigy_moments,
	.prodigy_move = prodigy_move,
	.adamw = adamw,
};
