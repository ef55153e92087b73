/* Rates, the reconstruction loss and the optimizers (besa.md 1.5, 1.8, 1.9). */
#include "engine/compute/cpu/isa/lanes.h"

/* ---- rates: a row of candidates is worked on by whole vectors, of which the last may be used in part ------------------------- */

enum { MOST_CANDIDATES = 256 };

/* e^x for 0 ≤ x ≤ 1: the series of e^½ · e^(x − ½). */
INLINE vector exp_of_fraction(vector x)
{
	const float root = 1.6487212707f;
	vector t = x - 0.5f, p = every_lane(root / 40320);
	p = p * t + root / 5040;
	p = p * t + root / 720;
	p = p * t + root / 120;
	p = p * t + root / 24;
	p = p * t + root / 6;
	p = p * t + root / 2;
	p = p * t + root;
	return p * t + root;
}

/* What the softmax of a row is made of, e to the power of its logits, and 0 behind them, in whole vectors; `top` is the largest
 * θ. */
INLINE vector exponentials(enum parameterization parameterization, vector theta, float top, int64_t used)
{
	vector e = parameterization == PARAM_SIGMOID ? exp_of_fraction(sigmoid_lanes(theta)) : exp_lanes(theta - top);
	return used < LANES ? first_lanes(e, used, 0) : e;
}

static float largest_of(const float *row, int64_t n)
{
	vector top = every_lane(-INFINITY);
	for (int64_t i = 0; i < n; i += LANES)
		top = larger(first_lanes(load_lanes(row + i, n - i), n - i, -INFINITY), top);
	return largest_lane(top);
}

/* Places are told from the middle, so that equal θ give a rate in the middle to the last bit. */
static void rates_forward(const struct rates *rates, const struct tensor *beta, float *s, int32_t *threshold,
			  const struct tensor *theta, int64_t first, int64_t last)
{
	int64_t candidates = rates->candidates;
	double below = (double)rates->below / CANDIDATES_WHOLE;
	double width = (double)(CANDIDATES_WHOLE - rates->below - rates->above) / CANDIDATES_WHOLE;
	const int32_t *cols = rates->cols;
	const vector last_places = (float)(candidates - 1) / 2 - __builtin_convertvector(lane_numbers(), vector);
	vector e[MOST_CANDIDATES / LANES];
	for (int64_t group = first; group < last; group++) {
		const float *row = at(theta, group, 0);
		float *b = (float *)beta->data + group * beta->stride;
		float top = rates->parameterization == PARAM_SIGMOID ? 0 : largest_of(row, candidates);
		vector sums = {0}, places = {0}, place = last_places;
		for (int64_t d = 0; d < candidates; d += LANES) {
			vector x = exponentials(rates->parameterization, load_lanes(row + d, candidates - d), top, candidates - d);
			e[d / LANES] = x;
			sums += x;
			places += x * place;
			place -= (float)LANES;
		}
		double sum = (double)sum_of_lanes(sums), weighted = (double)sum_of_lanes(places);
		float inverse = (float)(1 / sum);
		for (int64_t d = 0; d < candidates; d += LANES)
			store_lanes(b + d, candidates - d, e[d / LANES] * inverse);
		s[group] = (float)(below + width * (0.5 + weighted / (sum * (double)(candidates - 1))));
		threshold[group] = (int32_t)floor((double)s[group] * cols[group]);
	}
}

/* The lanes [n − LANES, n) of what lies at `from`, in reverse; where n < LANES, those that there are, and 0 behind them. */
INLINE vector load_reversed(const float *from, int64_t n)
{
	const mask_vector lanes = lane_numbers();
	if (n >= LANES) return __builtin_shuffle(*(const vector *)(from + n - LANES), LANES - 1 - lanes);
	vector x = __builtin_shuffle(load_lanes(from, n), ((int32_t)n - 1 - lanes) & (LANES - 1));
	return first_lanes(x, n, 0);
}

/* Lane i is lane i − by of x, 0 where there is none. */
INLINE vector shifted_lanes(vector x, int by)
{
	mask_vector from = lane_numbers() - by;
	return __builtin_shuffle((vector){0}, x, (from + LANES) & ~(from < 0));
}

/* The gradient by β_d is −(the sum over the first D−1−d bins) + pull·(p_d − p_{D−1}), but for what is the same for all d: so it
 * may as well be the sum over the others. By the logit z_d it is β_d·(that − its mean under β). */
static void rates_backward(const struct rates *rates, const struct tensor *dtheta, const struct tensor *theta,
			   const struct tensor *beta, const struct tensor *sums, double stats_slope, int64_t first, int64_t last)
{
	int64_t candidates = rates->candidates;
	const double *share = rates->share;
	double width = (double)(CANDIDATES_WHOLE - rates->below - rates->above) / CANDIDATES_WHOLE;
	const vector last_places = (float)(candidates - 1) - __builtin_convertvector(lane_numbers(), vector);
	vector by_beta[MOST_CANDIDATES / LANES];
	for (int64_t group = first; group < last; group++) {
		const float *b_row = at(beta, group, 0), *t_row = at(theta, group, 0), *bins = at(sums, group, 0);
		float *out_row = (float *)dtheta->data + group * dtheta->stride, before = 0;
		float step = (float)(stats_slope * share[group] * width / (double)(candidates - 1));
		vector means = {0}, place = last_places;
		for (int64_t d = 0; d < candidates; d += LANES) {
			vector sum = load_reversed(bins, candidates - 1 - d);
#pragma GCC unroll 4
			for (int by = 1; by < LANES; by *= 2)
				sum += shifted_lanes(sum, by);
			by_beta[d / LANES] = step * place + (shifted_lanes(sum, 1) + before);
			means += load_lanes(b_row + d, candidates - d) * by_beta[d / LANES];
			before += sum[LANES - 1];
			place -= (float)LANES;
		}
		float mean = sum_of_lanes(means);
		for (int64_t d = 0; d < candidates; d += LANES) {
			vector gradient = load_lanes(b_row + d, candidates - d) * (by_beta[d / LANES] - mean);
			if (rates->parameterization == PARAM_SIGMOID) {
				vector g = sigmoid_lanes(load_lanes(t_row + d, candidates - d));
				gradient *= g * (1 - g);
			}
			store_lanes(out_row + d, candidates - d, gradient);
		}
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
