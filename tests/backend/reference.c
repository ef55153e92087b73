#include "tests/backend/reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void ref_matmul(double *c, const double *a, bool transpose_a, const double *b, bool transpose_b, int64_t m, int64_t n, int64_t k,
		bool accumulate)
{
	for (int64_t i = 0; i < m; i++) {
		for (int64_t j = 0; j < n; j++) {
			double sum = 0;
			for (int64_t l = 0; l < k; l++)
				sum += a[transpose_a ? l * m + i : i * k + l] * b[transpose_b ? j * k + l : l * n + j];
			c[i * n + j] = (accumulate ? c[i * n + j] : 0) + sum;
		}
	}
}

/* ---- norms ------------------------------------------------------------------------------------------------------------------- */

static void norm_stats(const struct norm *norm, const double *x, int64_t n, double *ret_mean, double *ret_inverse)
{
	double mean = 0, variance = 0;
	for (int64_t i = 0; i < n && norm->kind == NORM_LAYER; i++)
		mean += x[i] / (double)n;
	for (int64_t i = 0; i < n; i++)
		variance += (x[i] - mean) * (x[i] - mean) / (double)n;
	*ret_mean = mean;
	*ret_inverse = 1 / sqrt(variance + (double)norm->eps);
}

void ref_norm_forward(const struct norm *norm, double *y, double *stats, const double *x, const double *weight, const double *bias,
		      int64_t rows, int64_t cols)
{
	int64_t n = cols / norm->groups;
	for (int64_t v = 0; v < rows * norm->groups; v++) {
		double mean, inverse;
		norm_stats(norm, x + v * n, n, &mean, &inverse);
		stats[2 * v] = mean;
		stats[2 * v + 1] = inverse;
		for (int64_t i = 0; i < n; i++)
			y[v * n + i] =
				(x[v * n + i] - mean) * inverse * (weight[i] + (double)norm->weight_offset) + (bias ? bias[i] : 0);
	}
}

/* By the chain rule through mean and 1/σ: d(1/σ)/dx_i = −(x_i − mean)/(n·σ³), d mean/dx_i = 1/n. */
void ref_norm_backward(const struct norm *norm, double *dx, const double *dy, const double *x, const double *weight, int64_t rows,
		       int64_t cols)
{
	int64_t n = cols / norm->groups;
	for (int64_t v = 0; v < rows * norm->groups; v++) {
		double mean, inverse, d_mean = 0, d_inverse = 0;
		norm_stats(norm, x + v * n, n, &mean, &inverse);
		for (int64_t i = 0; i < n; i++) {
			double h = dy[v * n + i] * (weight[i] + (double)norm->weight_offset);
			d_mean -= h * inverse;
			d_inverse += h * (x[v * n + i] - mean);
		}
		for (int64_t i = 0; i < n; i++) {
			double h = dy[v * n + i] * (weight[i] + (double)norm->weight_offset), centred = x[v * n + i] - mean;
			dx[v * n + i] = h * inverse - d_inverse * centred * inverse * inverse * inverse / (double)n;
			if (norm->kind == NORM_LAYER) dx[v * n + i] += d_mean / (double)n;
		}
	}
}

void ref_norm_gradient(const struct norm *norm, double *dweight, double *dbias, const double *dy, const double *x, int64_t rows,
		       int64_t cols)
{
	int64_t n = cols / norm->groups;
	memset(dweight, 0, (size_t)n * sizeof *dweight);
	if (dbias) memset(dbias, 0, (size_t)n * sizeof *dbias);
	for (int64_t v = 0; v < rows * norm->groups; v++) {
		double mean, inverse;
		norm_stats(norm, x + v * n, n, &mean, &inverse);
		for (int64_t i = 0; i < n; i++) {
			dweight[i] += dy[v * n + i] * (x[v * n + i] - mean) * inverse;
			if (dbias) dbias[i] += dy[v * n + i];
		}
	}
}

void ref_rope(const struct rotation *rotation, double *x, const double *table, int64_t rows, int64_t cols, int64_t positions)
{
	int head_dim = rotation->head_dim, rotary = rotation->rotary, half = rotary / 2;
	for (int64_t t = 0; t < rows; t++) {
		for (int64_t head = 0; head < cols / head_dim; head++) {
			for (int i = 0; i < half; i++) {
				double *a = x + t * cols + head * head_dim + (rotation->neighbours ? 2 * i : i);
				double *b = a + (rotation->neighbours ? 1 : half), old_a = *a, old_b = *b;
				double cosine = table[t % positions * rotary + i], sine = table[t % positions * rotary + half + i];
				if (rotation->inverse) sine = -sine;
				*a = old_a * cosine - old_b * sine;
				*b = old_b * cosine + old_a * sine;
			}
		}
	}
}

/* ---- attention --------------------------------------------------------------------------------------------------------------- */

static bool sees(const struct attention *a, int64_t query, int64_t key)
{
	return key <= query && (!a->window || query - key < a->window);
}

static const double *head_row(const struct attention *a, const double *x, int heads, int batch, int64_t t, int head)
{
	return x + (((int64_t)batch * a->tokens + t) * heads + head) * a->head_dim;
}

/* The logit after scale and cap; *ret_slope is its derivative by the dot product. */
static double logit_of(const struct attention *a, const double *q, const double *k, double *ret_slope)
{
	double dot = 0;
	for (int i = 0; i < a->head_dim; i++)
		dot += q[i] * k[i];
	*ret_slope = (double)a->scale;
	if (a->softcap == 0) return dot * (double)a->scale;
	double ratio = tanh(dot * (double)a->scale / (double)a->softcap);
	*ret_slope *= 1 - ratio * ratio;
	return ratio * (double)a->softcap;
}

static double log_sum_exp(const struct attention *a, const double *q, const double *k, int batch, int head, int64_t query)
{
	double top = -INFINITY, sum = 0, slope;
	int kv_head = head / (a->heads / a->kv_heads);
	const double *q_row = head_row(a, q, a->heads, batch, query, head);
	for (int pass = 0; pass < 2; pass++) {
		for (int64_t key = 0; key < a->tokens; key++) {
			if (!sees(a, query, key)) continue;
			double logit = logit_of(a, q_row, head_row(a, k, a->kv_heads, batch, key, kv_head), &slope);
			if (pass)
				sum += exp(logit - top);
			else
				top = fmax(top, logit);
		}
	}
	return top + log(sum);
}

void ref_attention_forward(const struct attention *a, double *out, double *lse, const double *q, const double *k, const double *v)
{
	memset(out, 0, (size_t)a->batch * (size_t)a->tokens * (size_t)a->heads * (size_t)a->head_dim * sizeof *out);
	for (int batch = 0; batch < a->batch; batch++) {
		for (int head = 0; head < a->heads; head++) {
			int kv_head = head / (a->heads / a->kv_heads);
			for (int64_t query = 0; query < a->tokens; query++) {
				double total = log_sum_exp(a, q, k, batch, head, query), slope;
				lse[((int64_t)batch * a->heads + head) * a->tokens + query] = total;
				double *to = out + (((int64_t)batch * a->tokens + query) * a->heads + head) * a->head_dim;
				for (int64_t key = 0; key < a->tokens; key++) {
					if (!sees(a, query, key)) continue;
					double p = exp(logit_of(a, head_row(a, q, a->heads, batch, query, head),
								head_row(a, k, a->kv_heads, batch, key, kv_head), &slope) -
						       total);
					for (int i = 0; i < a->head_dim; i++)
						to[i] += p * head_row(a, v, a->kv_heads, batch, key, kv_head)[i];
				}
			}
		}
	}
}

void ref_attention_backward(const struct attention *a, double *dq, double *dk, double *dv, const double *q, const double *k,
			    const double *v, const double *dout)
{
	size_t q_size = (size_t)a->batch * (size_t)a->tokens * (size_t)a->heads * (size_t)a->head_dim;
	size_t k_size = q_size / (size_t)a->heads * (size_t)a->kv_heads;
	memset(dq, 0, q_size * sizeof *dq);
	memset(dk, 0, k_size * sizeof *dk);
	memset(dv, 0, k_size * sizeof *dv);
	double *p = calloc((size_t)a->tokens, sizeof *p), *dp = calloc((size_t)a->tokens, sizeof *dp);
	double *slope = calloc((size_t)a->tokens, sizeof *slope);
	for (int batch = 0; batch < a->batch; batch++) {
		for (int head = 0; head < a->heads; head++) {
			int kv_head = head / (a->heads / a->kv_heads);
			for (int64_t query = 0; query < a->tokens; query++) {
				const double *q_row = head_row(a, q, a->heads, batch, query, head);
				const double *dout_row = head_row(a, dout, a->heads, batch, query, head);
				double total = log_sum_exp(a, q, k, batch, head, query), mean = 0;
				for (int64_t key = 0; key < a->tokens; key++) {
					if (!sees(a, query, key)) continue;
					p[key] = exp(
						logit_of(a, q_row, head_row(a, k, a->kv_heads, batch, key, kv_head), &slope[key]) -
						total);
					dp[key] = 0;
					for (int i = 0; i < a->head_dim; i++)
						dp[key] += dout_row[i] * head_row(a, v, a->kv_heads, batch, key, kv_head)[i];
					mean += p[key] * dp[key];
				}
				for (int64_t key = 0; key < a->tokens; key++) {
					if (!sees(a, query, key)) continue;
					int64_t at_q = q_row - q, at_k = head_row(a, k, a->kv_heads, batch, key, kv_head) - k;
					double d_dot = p[key] * (dp[key] - mean) * slope[key];
					for (int i = 0; i < a->head_dim; i++) {
						dq[at_q + i] += d_dot * k[at_k + i];
						dk[at_k + i] += d_dot * q[at_q + i];
						dv[at_k + i] += p[key] * dout_row[i];
					}
				}
			}
		}
	}
	free(p);
	free(dp);
	free(slope);
}

void ref_attention_sinks(const struct attention *a, double *out, double *lse, const double *sinks)
{
	for (int64_t t = 0; t < (int64_t)a->batch * a->tokens; t++)
		for (int head = 0; head < a->heads; head++) {
			double *sum = lse + (t / a->tokens * a->heads + head) * a->tokens + t % a->tokens;
			double most = fmax(*sum, sinks[head]), all = most + log(exp(*sum - most) + exp(sinks[head] - most));
			for (int i = 0; i < a->head_dim; i++)
				out[(t * a->heads + head) * a->head_dim + i] *= exp(*sum - all);
			*sum = all;
		}
}

double ref_clamped_swiglu(struct activation a, double gate, double up, double *ret_by_gate, double *ret_by_up)
{
	const double alpha = (double)a.alpha, limit = (double)a.limit;
	double g = fmin(gate, limit), u = fmax(-limit, fmin(up, limit)), s = 1 / (1 + exp(-alpha * g));
	*ret_by_gate = gate > limit ? 0 : (u + 1) * s * (1 + alpha * g * (1 - s));
	*ret_by_up = fabs(up) > limit ? 0 : g * s;
	return (u + 1) * g * s;
}

double ref_activation(enum activation_kind kind, double x)
{
	switch (kind) {
	case ACTIVATION_SILU:
		return x / (1 + exp(-x));
	case ACTIVATION_GELU_TANH:
		return x / (1 + exp(-2 * sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); /* (1 + tanh u)/2, without cancellation */
	case ACTIVATION_GELU:
		return 0.5 * x * erfc(-x / sqrt(2));
	case ACTIVATION_RELU:
	case ACTIVATION_CLAMPED_SWIGLU: /* ref_clamped_swiglu */
		break;
	}
	return x > 0 ? x : 0;
}

double ref_activation_slope(enum activation_kind kind, double x)
{
	switch (kind) {
	case ACTIVATION_SILU: {
		double s = 1 / (1 + exp(-x));
		return s * (1 + x * (1 - s));
	}
	case ACTIVATION_GELU_TANH: {
		double c = sqrt(2 / M_PI), half = 1 / (1 + exp(-2 * c * (x + 0.044715 * x * x * x)));
		return half + x * half * (1 - half) * 2 * c * (1 + 3 * 0.044715 * x * x);
	}
	case ACTIVATION_GELU:
		return 0.5 * erfc(-x / sqrt(2)) + x * exp(-0.5 * x * x) / sqrt(2 * M_PI);
	case ACTIVATION_RELU:
	case ACTIVATION_CLAMPED_SWIGLU:
		break;
	}
	return x > 0 ? 1 : 0;
}

/* ---- importance, ranks, bins ------------------------------------------------------------------------------------------------- */

struct ranked {
	float importance;
	int64_t col;
};

static int compare_ranked(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	if (x->importance != y->importance) return x->importance < y->importance ? -1 : 1;
	return x->col < y->col ? -1 : x->col > y->col;
}

/* Here arithmetic is fixed to fp32, so that ties fall alike everywhere. sums NULL: magnitude. */
void ref_rank_groups(double *rank, const double *weight, const double *sums, double sequences, int64_t rows, int64_t cols, int of)
{
	for (int64_t first = 0; first < cols; first += of) {
		double *w = calloc((size_t)(rows * of), sizeof *w), *r = calloc((size_t)(rows * of), sizeof *r);
		for (int64_t row = 0; row < rows; row++)
			memcpy(w + row * of, weight + row * cols + first, (size_t)of * sizeof *w);
		ref_rank_rows(r, w, sums ? sums + first : NULL, sequences, rows, of);
		for (int64_t row = 0; row < rows; row++)
			memcpy(rank + row * cols + first, r + row * of, (size_t)of * sizeof *r);
		free(w);
		free(r);
	}
}

void ref_rank_rows(double *rank, const double *weight, const double *sums, double sequences, int64_t rows, int64_t cols)
{
	struct ranked *ranked = calloc((size_t)cols + 1, sizeof *ranked);
	for (int64_t row = 0; row < rows; row++) {
		for (int64_t j = 0; j < cols; j++) {
			float magnitude = fabsf((float)weight[row * cols + j]);
			ranked[j] = (struct ranked){sums ? magnitude * sqrtf((float)(sums[j] / sequences)) : magnitude, j};
		}
		qsort(ranked, (size_t)cols, sizeof *ranked, compare_ranked);
		for (int64_t i = 0; i < cols; i++)
			rank[row * cols + ranked[i].col] = (double)i;
	}
	free(ranked);
}

void ref_bin_ranks(double *bin, const double *rank, int candidates, int below, int above, int64_t rows, int64_t cols)
{
	int64_t steps = candidates - 1, width = CANDIDATES_WHOLE - below - above;
	for (int64_t i = 0; i < rows * cols; i++) {
		int reached = 0;
		for (int d = 0; d < candidates; d++)
			reached += cols * (below * steps + width * (steps - d)) / (CANDIDATES_WHOLE * steps) <= (int64_t)rank[i];
		bin[i] = reached == 0 || reached == candidates ? BIN_NONE : reached - 1;
	}
}

void ref_binned_gradient(double *sums, const double *dy, const double *x, const double *weight, const double *bin, int64_t tokens,
			 int64_t rows, int64_t cols, int bins, bool shared)
{
	memset(sums, 0, (size_t)(shared ? 1 : rows) * (size_t)bins * sizeof *sums);
	for (int64_t i = 0; i < rows; i++) {
		for (int64_t j = 0; j < cols; j++) {
			double gradient = 0;
			for (int64_t t = 0; t < tokens; t++)
				gradient += dy[t * rows + i] * x[t * cols + j];
			if (bin[i * cols + j] >= bins) continue;
			sums[(shared ? 0 : i) * bins + (int64_t)bin[i * cols + j]] += gradient * weight[i * cols + j];
		}
	}
}

/* ---- rates, loss, optimizers ------------------------------------------------------------------------------------------------- */

static double squash(const struct ref_rates *rates, double theta)
{
	return rates->parameterization == PARAM_SIGMOID ? 1 / (1 + exp(-theta)) : theta;
}

static double candidate(const struct ref_rates *rates, int d)
{
	double below = (double)rates->below / CANDIDATES_WHOLE, above = (double)rates->above / CANDIDATES_WHOLE;
	return below + (1 - below - above) * (rates->candidates - 1 - d) / (rates->candidates - 1);
}

double ref_rates_forward(const struct ref_rates *rates, double *beta, double *s, const double *theta)
{
	int n = rates->candidates;
	double sparsity = 0;
	for (int64_t g = 0; g < rates->groups; g++) {
		double total = 0, top = -INFINITY;
		for (int d = 0; d < n; d++)
			top = fmax(top, squash(rates, theta[g * n + d]));
		for (int d = 0; d < n; d++)
			total += beta[g * n + d] = exp(squash(rates, theta[g * n + d]) - top);
		s[g] = 0;
		for (int d = 0; d < n; d++) {
			beta[g * n + d] /= total;
			s[g] += beta[g * n + d] * candidate(rates, d);
		}
		sparsity += rates->share[g] * s[g];
	}
	return sparsity;
}

void ref_rates_backward(const struct ref_rates *rates, double *dtheta, const double *theta, const double *sums, double slope)
{
	int n = rates->candidates;
	double *beta = calloc((size_t)rates->groups * (size_t)n, sizeof *beta), *s = calloc((size_t)rates->groups, sizeof *s);
	double *by_beta = calloc((size_t)n, sizeof *by_beta);
	ref_rates_forward(rates, beta, s, theta);
	for (int64_t g = 0; g < rates->groups; g++) {
		double mean = 0;
		for (int d = 0; d < n; d++) {
			by_beta[d] = slope * rates->share[g] * candidate(rates, d);
			for (int b = 0; b < n - 1 - d; b++)
				by_beta[d] -= sums[g * (n - 1) + b];
			mean += beta[g * n + d] * by_beta[d];
		}
		for (int d = 0; d < n; d++) {
			double y = squash(rates, theta[g * n + d]),
			       inner = rates->parameterization == PARAM_SIGMOID ? y * (1 - y) : 1;
			dtheta[g * n + d] = beta[g * n + d] * (by_beta[d] - mean) * inner;
		}
	}
	free(beta);
	free(s);
	free(by_beta);
}

double ref_reconstruction(double *dy, const double *y, const double *ref, int64_t rows, int64_t cols)
{
	double loss = 0;
	for (int64_t h = 0; h < cols; h++) {
		double norm = 0, error = 0;
		for (int64_t t = 0; t < rows; t++) {
			norm += ref[t * cols + h] * ref[t * cols + h];
			error += (y[t * cols + h] - ref[t * cols + h]) * (y[t * cols + h] - ref[t * cols + h]);
		}
		if (norm > 0) loss += error / norm / (double)cols;
		for (int64_t t = 0; t < rows && dy; t++)
			dy[t * cols + h] = norm > 0 ? 2 * (y[t * cols + h] - ref[t * cols + h]) / norm / (double)cols : 0;
	}
	return loss;
}

double ref_weighted_error(double *dy, const double *y, const double *ref, const double *weight, double factor, int64_t rows,
			  int64_t cols)
{
	double loss = 0;
	for (int64_t i = 0; i < rows * cols; i++) {
		double miss = y[i] - ref[i];
		loss += factor * weight[i % cols] * miss * miss;
		if (dy) dy[i] = 2 * factor * weight[i % cols] * miss;
	}
	return loss;
}

void ref_prodigy_step(const struct prodigy *p, int64_t n, double *theta, const double *theta0, double *m, double *v, double *s,
		      const double *gradient, double *state)
{
	double beta1 = (double)p->beta1, beta2 = (double)p->beta2, beta3 = sqrt(beta2);
	double d = state[PRODIGY_D], d0 = state[PRODIGY_D0], dlr = d, r = beta3 * state[PRODIGY_R], total = 0;
	for (int64_t i = 0; i < n; i++) {
		r += d / d0 * dlr * gradient[i] * (theta0[i] - theta[i]);
		m[i] = beta1 * m[i] + (1 - beta1) * d * gradient[i];
		v[i] = beta2 * v[i] + (1 - beta2) * d * d * gradient[i] * gradient[i];
		s[i] = beta3 * s[i] + d / d0 * dlr * gradient[i];
		total += fabs(s[i]);
	}
	if (total == 0) return;
	double estimate = p->d_coef * r / total;
	if (d == d0) d = fmax(d, estimate);
	state[PRODIGY_D_MAX] = fmax(state[PRODIGY_D_MAX], estimate);
	d = state[PRODIGY_D_MAX];
	state[PRODIGY_D] = d;
	state[PRODIGY_R] = r;
	for (int64_t i = 0; i < n; i++)
		theta[i] -= dlr * m[i] / (sqrt(v[i]) + d * (double)p->eps);
}

void ref_adamw_step(const struct adamw *a, int64_t n, double *theta, double *m, double *v, const double *gradient)
{
	double beta1 = (double)a->beta1, beta2 = (double)a->beta2, lr = (double)a->lr;
	for (int64_t i = 0; i < n; i++) {
		if (a->keep_zeros && theta[i] == 0) continue;
		m[i] = beta1 * m[i] + (1 - beta1) * gradient[i];
		v[i] = beta2 * v[i] + (1 - beta2) * gradient[i] * gradient[i];
		double m_hat = m[i] / (1 - pow(beta1, a->step)), v_hat = v[i] / (1 - pow(beta2, a->step));
		theta[i] -= lr * (double)a->weight_decay * theta[i] + lr * m_hat / (sqrt(v_hat) + (double)a->eps);
	}
}

/* The logs of softmax(softcap(x)), and the slopes of softcap. */
static void log_softmax(double *out, double *slope, const double *x, double softcap, int64_t cols)
{
	double top = -INFINITY, sum = 0;
	for (int64_t j = 0; j < cols; j++) {
		double bent = softcap != 0 ? tanh(x[j] / softcap) : 0;
		out[j] = softcap != 0 ? softcap * bent : x[j];
		slope[j] = 1 - bent * bent;
		top = fmax(top, out[j]);
	}
	for (int64_t j = 0; j < cols; j++)
		sum += exp(out[j] - top);
	for (int64_t j = 0; j < cols; j++)
		out[j] -= top + log(sum);
}

double ref_divergence(double *dlogits, const double *logits, const double *wanted, double softcap, double factor, int64_t rows,
		      int64_t cols)
{
	double loss = 0, *q = malloc((size_t)cols * 3 * sizeof *q), *p = q + cols, *slope = p + cols;
	for (int64_t t = 0; t < rows; t++) {
		log_softmax(p, slope, wanted + t * cols, softcap, cols);
		log_softmax(q, slope, logits + t * cols, softcap, cols);
		for (int64_t j = 0; j < cols; j++) {
			loss += factor * exp(p[j]) * (p[j] - q[j]);
			dlogits[t * cols + j] = factor * (exp(q[j]) - exp(p[j])) * slope[j];
		}
	}
	free(q);
	return loss;
}

void ref_token_logprobs(double *out, const double *logits, const double *targets, double softcap, int64_t rows, int64_t cols)
{
	for (int64_t t = 0; t < rows; t++) {
		double top = -INFINITY, sum = 0, wanted = 0;
		for (int pass = 0; pass < 2; pass++) {
			for (int64_t j = 0; j < cols; j++) {
				double x = logits[t * cols + j];
				if (softcap != 0) x = softcap * tanh(x / softcap);
				top = fmax(top, x);
				if (pass) sum += exp(x - top);
				if (j == (int64_t)targets[t]) wanted = x;
			}
		}
		out[t] = wanted - top - log(sum);
	}
}
