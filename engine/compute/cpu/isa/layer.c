/* Copies, sums, norms, rotary positions, activations, token log-probabilities: row by row. */
#include "engine/compute/cpu/isa/isa.h"

static void copy(const struct tensor *to, const struct tensor *from, const int32_t *rows, float scale, int64_t first, int64_t last)
{
	float buffer[PIECE], target[PIECE];
	bool verbatim = to->dtype == from->dtype && scale == 1;
	for (int64_t row = first; row < last; row++) {
		int64_t source = rows ? rows[row] : row;
		if (verbatim) {
			memcpy((void *)(uintptr_t)at(to, row, 0), at(from, source, 0), (size_t)to->cols * dtype_size(to->dtype));
			continue;
		}
		for (int64_t col = 0; col < to->cols; col += PIECE) {
			int64_t n = least(PIECE, to->cols - col);
			const float *x = row_read(from, source, col, n, buffer);
			float *y = row_target(to, row, col, target);
#pragma omp simd
			for (int64_t i = 0; i < n; i++)
				y[i] = scale * x[i];
			row_finish(to, row, col, n, y);
		}
	}
}

static void add(const struct tensor *y_tensor, const struct tensor *x_tensor, bool broadcast, int64_t first, int64_t last)
{
	float x_buffer[PIECE], y_buffer[PIECE], target[PIECE];
	for (int64_t row = first; row < last; row++) {
		for (int64_t col = 0; col < y_tensor->cols; col += PIECE) {
			int64_t n = least(PIECE, y_tensor->cols - col);
			const float *x = row_read(x_tensor, broadcast ? 0 : row, col, n, x_buffer);
			const float *old = row_read(y_tensor, row, col, n, y_buffer);
			float *y = row_target(y_tensor, row, col, target);
#pragma omp simd
			for (int64_t i = 0; i < n; i++)
				y[i] = old[i] + x[i];
			row_finish(y_tensor, row, col, n, y);
		}
	}
}

/* ---- norms ------------------------------------------------------------------------------------------------------------------- */

static void norm_forward(const struct norm *norm, const struct tensor *y_tensor, const struct tensor *stats,
			 const struct tensor *x_tensor, const float *weight, const float *bias, int64_t first, int64_t last)
{
	float buffer[PIECE], target[PIECE];
	int64_t width = x_tensor->cols / norm->groups;
	for (int64_t row = first; row < last; row++) {
		float *row_stats = (float *)stats->data + row * stats->stride;
		for (int64_t group = 0; group < norm->groups; group++) {
			int64_t start = group * width;
			float mean = 0, squares = 0;
			if (norm->kind == NORM_LAYER) {
				for (int64_t col = 0; col < width; col += PIECE) {
					int64_t n = least(PIECE, width - col);
					const float *x = row_read(x_tensor, row, start + col, n, buffer);
#pragma omp simd reduction(+ : mean)
					for (int64_t i = 0; i < n; i++)
						mean += x[i];
				}
				mean /= (float)width;
			}
			for (int64_t col = 0; col < width; col += PIECE) {
				int64_t n = least(PIECE, width - col);
				const float *x = row_read(x_tensor, row, start + col, n, buffer);
#pragma omp simd reduction(+ : squares)
				for (int64_t i = 0; i < n; i++)
					squares += (x[i] - mean) * (x[i] - mean);
			}
			float inverse = 1 / sqrtf(squares / (float)width + norm->eps);
			row_stats[2 * group] = mean;
			row_stats[2 * group + 1] = inverse;
			for (int64_t col = 0; col < width; col += PIECE) {
				int64_t n = least(PIECE, width - col);
				const float *x = row_read(x_tensor, row, start + col, n, buffer);
				float *y = row_target(y_tensor, row, start + col, target);
				const float *w = weight + col;
				if (bias) {
					const float *b = bias + col;
#pragma omp simd
					for (int64_t i = 0; i < n; i++)
						y[i] = (x[i] - mean) * inverse * (w[i] + norm->weight_offset) + b[i];
				} else {
#pragma omp simd
					for (int64_t i = 0; i < n; i++)
						y[i] = (x[i] - mean) * inverse * (w[i] + norm->weight_offset);
				}
				row_finish(y_tensor, row, start + col, n, y);
			}
		}
	}
}

/* With x̂ = (x − mean)/σ and h = dy · (weight + offset): dx = (h − mean(h) − x̂ · mean(h·x̂)) / σ; RMS has no mean(h). */
static void norm_backward(const struct norm *norm, const struct tensor *dx_tensor, const struct tensor *dy_tensor,
			  const struct tensor *x_tensor, const struct tensor *stats, const float *weight, bool accumulate,
			  int64_t first, int64_t last)
{
	float x_buffer[PIECE], dy_buffer[PIECE];
	int64_t width = x_tensor->cols / norm->groups;
	for (int64_t row = first; row < last; row++) {
		const float *row_stats = (const float *)stats->data + row * stats->stride;
		for (int64_t group = 0; group < norm->groups; group++) {
			int64_t start = group * width;
			float mean = row_stats[2 * group], inverse = row_stats[2 * group + 1], sum = 0, dot = 0;
			for (int64_t col = 0; col < width; col += PIECE) {
				int64_t n = least(PIECE, width - col);
				const float *x = row_read(x_tensor, row, start + col, n, x_buffer);
				const float *dy = row_read(dy_tensor, row, start + col, n, dy_buffer);
				const float *w = weight + col;
#pragma omp simd reduction(+ : sum, dot)
				for (int64_t i = 0; i < n; i++) {
					float h = dy[i] * (w[i] + norm->weight_offset);
					sum += h;
					dot += h * (x[i] - mean);
				}
			}
			float along = dot * inverse * inverse / (float)width;
			float shift = norm->kind == NORM_LAYER ? sum / (float)width : 0;
			for (int64_t col = 0; col < width; col += PIECE) {
				int64_t n = least(PIECE, width - col);
				const float *x = row_read(x_tensor, row, start + col, n, x_buffer);
				const float *dy = row_read(dy_tensor, row, start + col, n, dy_buffer);
				const float *w = weight + col;
				float *dx = (float *)dx_tensor->data + row * dx_tensor->stride + start + col;
				if (accumulate) {
#pragma omp simd
					for (int64_t i = 0; i < n; i++) {
						float h = dy[i] * (w[i] + norm->weight_offset);
						dx[i] += (h - shift - (x[i] - mean) * along) * inverse;
					}
				} else {
#pragma omp simd
					for (int64_t i = 0; i < n; i++) {
						float h = dy[i] * (w[i] + norm->weight_offset);
						dx[i] = (h - shift - (x[i] - mean) * along) * inverse;
					}
				}
			}
		}
	}
}

enum { SUM_COLUMNS = 256 };

static void norm_gradient(const struct norm *norm, float *dweight, float *dbias, const struct tensor *dy_tensor,
			  const struct tensor *x_tensor, const struct tensor *stats, int64_t first, int64_t last)
{
	float x_buffer[SUM_COLUMNS], dy_buffer[SUM_COLUMNS];
	int64_t width = x_tensor->cols / norm->groups;
	for (int64_t col = first; col < last; col += SUM_COLUMNS) {
		int64_t n = least(SUM_COLUMNS, last - col);
		double products[SUM_COLUMNS] = {0}, sums[SUM_COLUMNS] = {0};
		for (int64_t row = 0; row < x_tensor->rows; row++) {
			const float *row_stats = at(stats, row, 0);
			for (int64_t group = 0; group < norm->groups; group++) {
				float mean = row_stats[2 * group], inverse = row_stats[2 * group + 1];
				const float *x = row_read(x_tensor, row, group * width + col, n, x_buffer);
				const float *dy = row_read(dy_tensor, row, group * width + col, n, dy_buffer);
#pragma omp simd
				for (int64_t i = 0; i < n; i++) {
					products[i] += (double)(dy[i] * ((x[i] - mean) * inverse));
					sums[i] += (double)dy[i];
				}
			}
		}
		for (int64_t i = 0; i < n; i++) {
			dweight[col + i] = (float)products[i];
			if (dbias) dbias[col + i] = (float)sums[i];
		}
	}
}

static void column_sums(float *out, const struct tensor *x_tensor, int64_t first, int64_t last)
{
	float buffer[SUM_COLUMNS];
	for (int64_t col = first; col < last; col += SUM_COLUMNS) {
		int64_t n = least(SUM_COLUMNS, last - col);
		double sums[SUM_COLUMNS] = {0};
		for (int64_t row = 0; row < x_tensor->rows; row++) {
			const float *x = row_read(x_tensor, row, col, n, buffer);
#pragma omp simd
			for (int64_t i = 0; i < n; i++)
				sums[i] += (double)x[i];
		}
		for (int64_t i = 0; i < n; i++)
			out[col + i] = (float)sums[i];
	}
}

/* ---- rotary positions -------------------------------------------------------------------------------------------------------- */

/* The pairs of one head, which begins at column `start`, of neighbouring columns. */
static void turn_neighbours(const struct tensor *x, int64_t row, int64_t start, int64_t pairs, const float *angles, float sign)
{
	float buffer[PIECE];
	for (int64_t pair = 0; pair < pairs; pair += PIECE / 2) {
		int64_t n = least(PIECE / 2, pairs - pair), col = start + 2 * pair;
		const float *cosine = angles + pair, *sine = cosine + pairs;
		const float *from = row_read(x, row, col, 2 * n, buffer);
		float *to = row_target(x, row, col, buffer);
		for (int64_t i = 0; i < n; i++) {
			float s = sign * sine[i], old_a = from[2 * i], old_b = from[2 * i + 1];
			to[2 * i] = old_a * cosine[i] - old_b * s;
			to[2 * i + 1] = old_b * cosine[i] + old_a * s;
		}
		row_finish(x, row, col, 2 * n, to);
	}
}

/* The pairs of one head: each column with the one `half` behind it. */
INLINE void turn_head(float *x, int64_t half, const float *cosine, const float *sine, float sign)
{
#pragma omp simd
	for (int64_t i = 0; i < half; i++) {
		float s = sign * sine[i], a = x[i], b = x[half + i];
		x[i] = a * cosine[i] - b * s;
		x[half + i] = b * cosine[i] + a * s;
	}
}

/* The heads of a piece of a row, `head_dim` apart. Half a head is a few vectors: a loop of a length that is known costs no more
 * than these. */
INLINE void turn_heads(float *x, int64_t heads, int64_t head_dim, int64_t half, const float *angles, float sign)
{
	for (int64_t head = 0; head < heads; head++, x += head_dim) {
		if (half == 16)
			turn_head(x, 16, angles, angles + 16, sign);
		else if (half == 32)
			turn_head(x, 32, angles, angles + 32, sign);
		else if (half == 64)
			turn_head(x, 64, angles, angles + 64, sign);
		else
			turn_head(x, half, angles, angles + half, sign);
	}
}

/* A head that is longer than a piece. */
static void turn_long(const struct tensor *x, int64_t row, int64_t start, int64_t half, const float *angles, float sign)
{
	float low_buffer[PIECE], high_buffer[PIECE];
	for (int64_t col = 0; col < half; col += PIECE) {
		int64_t n = least(PIECE, half - col), low = start + col, high = low + half;
		const float *cosine = angles + col, *sine = cosine + half;
		const float *a = row_read(x, row, low, n, low_buffer);
		const float *b = row_read(x, row, high, n, high_buffer);
		float *to_a = row_target(x, row, low, low_buffer);
		float *to_b = row_target(x, row, high, high_buffer);
#pragma omp simd
		for (int64_t i = 0; i < n; i++) {
			float s = sign * sine[i], old_a = a[i], old_b = b[i];
			to_a[i] = old_a * cosine[i] - old_b * s;
			to_b[i] = old_b * cosine[i] + old_a * s;
		}
		row_finish(x, row, low, n, to_a);
		row_finish(x, row, high, n, to_b);
	}
}

static void rope(const struct rotation *rotation, const struct tensor *x, const struct tensor *table, int64_t first, int64_t last)
{
	float buffer[PIECE];
	int64_t half = rotation->rotary / 2, head_dim = rotation->head_dim, heads = head_dim > PIECE ? 1 : PIECE / head_dim;
	float sign = rotation->inverse ? -1 : 1;
	for (int64_t row = first; row < last; row++) {
		const float *angles = (const float *)table->data + row % table->rows * table->stride;
		for (int64_t start = 0; start < x->cols; start += heads * head_dim) {
			int64_t n = least(heads * head_dim, x->cols - start);
			if (rotation->neighbours) {
				for (int64_t col = start; col < start + n; col += head_dim)
					turn_neighbours(x, row, col, half, angles, sign);
			} else if (head_dim > PIECE) {
				turn_long(x, row, start, half, angles, sign);
			} else {
				float *values = row_target(x, row, start, buffer);
				row_read(x, row, start, n, buffer);
				turn_heads(values, n / head_dim, head_dim, half, angles, sign);
				row_finish(x, row, start, n, values);
			}
		}
	}
}

/* ---- attention's sinks ------------------------------------------------------------------------------------------------------- */

static void attention_sinks(const struct attention *shape, const struct tensor *out, const struct tensor *lse, const float *sinks,
			    int64_t first, int64_t last)
{
	float buffer[PIECE];
	for (int64_t row = first; row < last; row++) {
		for (int64_t head = 0; head < shape->heads; head++) {
			float *sum = (float *)lse->data + (row / shape->tokens * shape->heads + head) * lse->stride +
				     row % shape->tokens;
			float above = *sum - sinks[head], share = 1 / (1 + expf(-above));
			*sum = above > 0 ? *sum + log1pf(expf(-above)) : sinks[head] + log1pf(expf(above));
			for (int64_t col = 0; col < shape->head_dim; col += PIECE) {
				int64_t n = least(PIECE, shape->head_dim - col), start = head * shape->head_dim + col;
				const float *x = row_read(out, row, start, n, buffer);
				float *y = row_target(out, row, start, buffer);
#pragma omp simd
				for (int64_t i = 0; i < n; i++)
					y[i] = share * x[i];
				row_finish(out, row, start, n, y);
			}
		}
	}
}

/* ---- activations ------------------------------------------------------------------------------------------------------------- */

#define GELU_SCALE 0.7978845608f /* sqrt(2/π) */
#define GELU_CUBIC 0.044715f

INLINE float activate(enum activation_kind kind, float x)
{
	switch (kind) {
	case ACTIVATION_SILU:
		return x * sigmoid_fast(x);
	case ACTIVATION_GELU_TANH: /* (1 + tanh u)/2 = sigmoid(2u) */
		return x * sigmoid_fast(2 * GELU_SCALE * (x + GELU_CUBIC * x * x * x));
	case ACTIVATION_GELU:
		return 0.5f * x * erfcf(x * -0.70710678f);
	case ACTIVATION_RELU:
	case ACTIVATION_CLAMPED_SWIGLU: /* has a piece of its own */
		break;
	}
	return x < 0 ? 0 : x;
}

INLINE float slope(enum activation_kind kind, float x)
{
	switch (kind) {
	case ACTIVATION_SILU: {
		float s = sigmoid_fast(x);
		return s + x * s * (1 - s);
	}
	case ACTIVATION_GELU_TANH: {
		float s = sigmoid_fast(2 * GELU_SCALE * (x + GELU_CUBIC * x * x * x));
		return s + x * s * (1 - s) * 2 * GELU_SCALE * (1 + 3 * GELU_CUBIC * x * x);
	}
	case ACTIVATION_GELU:
		return 0.5f * erfcf(x * -0.70710678f) + x * 0.39894228f * exp_fast(-0.5f * x * x);
	case ACTIVATION_RELU:
	case ACTIVATION_CLAMPED_SWIGLU:
		break;
	}
	return x > 0 ? 1 : 0;
}

INLINE float clamp_up(float u, float limit)
{
	u = u > limit ? limit : u;
	return u < -limit ? -limit : u;
}

INLINE void clamped_forward_piece(float alpha, float limit, float *y, const float *gate, const float *up, int64_t n)
{
#pragma omp simd
	for (int64_t i = 0; i < n; i++) {
		float g = gate[i] > limit ? limit : gate[i];
		y[i] = (clamp_up(up[i], limit) + 1) * g * sigmoid_fast(alpha * g);
	}
}

/* Where a clamp holds there is no slope. The results may lie over the operands. */
INLINE void clamped_backward_piece(float alpha, float limit, float *dgate, float *dup, const float *dy, const float *gate,
				   const float *up, int64_t n)
{
#pragma omp simd
	for (int64_t i = 0; i < n; i++) {
		float d = dy[i], u = up[i], x = gate[i], g = x > limit ? limit : x, held = clamp_up(u, limit);
		float s = sigmoid_fast(alpha * g), by_gate = s + alpha * g * s * (1 - s);
		dup[i] = held == u ? d * g * s : 0;
		dgate[i] = g == x ? d * (held + 1) * by_gate : 0;
	}
}

INLINE void forward_piece(enum activation_kind kind, float *y, const float *gate, const float *up, int64_t n)
{
	if (up) {
#pragma omp simd
		for (int64_t i = 0; i < n; i++)
			y[i] = activate(kind, gate[i]) * up[i];
	} else {
#pragma omp simd
		for (int64_t i = 0; i < n; i++)
			y[i] = activate(kind, gate[i]);
	}
}

/* The results may lie over the operands. */
INLINE void backward_piece(enum activation_kind kind, float *dgate, float *dup, const float *dy, const float *gate, const float *up,
			   int64_t n)
{
	if (up) {
#pragma omp simd
		for (int64_t i = 0; i < n; i++) {
			float d = dy[i], g = gate[i], u = up[i];
			dup[i] = d * activate(kind, g);
			dgate[i] = d * u * slope(kind, g);
		}
	} else {
#pragma omp simd
		for (int64_t i = 0; i < n; i++)
			dgate[i] = dy[i] * slope(kind, gate[i]);
	}
}

static void activation_forward(struct activation activation, const struct tensor *y_tensor, const struct tensor *gate_tensor,
			       const struct tensor *up_tensor, int64_t first, int64_t last)
{
	float gate_buffer[PIECE], up_buffer[PIECE], target[PIECE];
	for (int64_t row = first; row < last; row++) {
		for (int64_t col = 0; col < y_tensor->cols; col += PIECE) {
			int64_t n = least(PIECE, y_tensor->cols - col);
			const float *gate = row_read(gate_tensor, row, col, n, gate_buffer);
			const float *up = up_tensor->data ? row_read(up_tensor, row, col, n, up_buffer) : NULL;
			float *y = row_target(y_tensor, row, col, target);
			switch (activation.kind) { /* a loop for each kind, so that each vectorises */
			case ACTIVATION_SILU:
				forward_piece(ACTIVATION_SILU, y, gate, up, n);
				break;
			case ACTIVATION_GELU_TANH:
				forward_piece(ACTIVATION_GELU_TANH, y, gate, up, n);
				break;
			case ACTIVATION_GELU:
				forward_piece(ACTIVATION_GELU, y, gate, up, n);
				break;
			case ACTIVATION_RELU:
				forward_piece(ACTIVATION_RELU, y, gate, up, n);
				break;
			case ACTIVATION_CLAMPED_SWIGLU:
				clamped_forward_piece(activation.alpha, activation.limit, y, gate, up, n);
				break;
			}
			row_finish(y_tensor, row, col, n, y);
		}
	}
}

static void activation_backward(struct activation activation, const struct tensor *dgate_tensor, const struct tensor *dup_tensor,
				const struct tensor *dy_tensor, const struct tensor *gate_tensor, const struct tensor *up_tensor,
				int64_t first, int64_t last)
{
	float dy_buffer[PIECE], gate_buffer[PIECE], up_buffer[PIECE], dgate_target[PIECE], dup_target[PIECE];
	for (int64_t row = first; row < last; row++) {
		for (int64_t col = 0; col < dgate_tensor->cols; col += PIECE) {
			int64_t n = least(PIECE, dgate_tensor->cols - col);
			const float *dy = row_read(dy_tensor, row, col, n, dy_buffer);
			const float *gate = row_read(gate_tensor, row, col, n, gate_buffer);
			const float *up = up_tensor->data ? row_read(up_tensor, row, col, n, up_buffer) : NULL;
			float *dgate = row_target(dgate_tensor, row, col, dgate_target);
			float *dup = up ? row_target(dup_tensor, row, col, dup_target) : NULL;
			switch (activation.kind) {
			case ACTIVATION_SILU:
				backward_piece(ACTIVATION_SILU, dgate, dup, dy, gate, up, n);
				break;
			case ACTIVATION_GELU_TANH:
				backward_piece(ACTIVATION_GELU_TANH, dgate, dup, dy, gate, up, n);
				break;
			case ACTIVATION_GELU:
				backward_piece(ACTIVATION_GELU, dgate, dup, dy, gate, up, n);
				break;
			case ACTIVATION_RELU:
				backward_piece(ACTIVATION_RELU, dgate, dup, dy, gate, up, n);
				break;
			case ACTIVATION_CLAMPED_SWIGLU:
				clamped_backward_piece(activation.alpha, activation.limit, dgate, dup, dy, gate, up, n);
				break;
			}
			row_finish(dgate_tensor, row, col, n, dgate);
			if (up) row_finish(dup_tensor, row, col, n, dup);
		}
	}
}

/* ---- evaluation -------------------------------------------------------------------------------------------------------------- */

/* A piece of a row of logits, capped where asked; in `buffer` if anything had to be done to it. */
INLINE const float *logits_piece(const struct tensor *logits, int64_t row, int64_t col, int64_t n, float softcap, float *buffer)
{
	const float *x = row_read(logits, row, col, n, buffer);
	if (softcap == 0) return x;
#pragma omp simd
	for (int64_t i = 0; i < n; i++)
		buffer[i] = softcap * tanh_fast(x[i] / softcap);
	return buffer;
}

/* The largest of a row of logits, and the log of the sum of their exponentials less that: small enough for a float. */
INLINE void row_tail(const struct tensor *logits, int64_t row, float softcap, float *buffer, float *ret_top, double *ret_rest)
{
	float top = -INFINITY;
	double sum = 0;
	for (int64_t col = 0; col < logits->cols; col += PIECE) {
		int64_t n = least(PIECE, logits->cols - col);
		const float *x = logits_piece(logits, row, col, n, softcap, buffer);
#pragma omp simd reduction(max : top)
		for (int64_t i = 0; i < n; i++)
			top = x[i] > top ? x[i] : top;
	}
	for (int64_t col = 0; col < logits->cols; col += PIECE) {
		int64_t n = least(PIECE, logits->cols - col);
		const float *x = logits_piece(logits, row, col, n, softcap, buffer);
		float part = 0;
#pragma omp simd reduction(+ : part)
		for (int64_t i = 0; i < n; i++)
			part += exp_fast(x[i] - top);
		sum += (double)part;
	}
	*ret_top = top;
	*ret_rest = log(sum);
}

static void token_logprobs(double *out, const struct tensor *logits, const int32_t *targets, float softcap, int64_t first,
			   int64_t last)
{
	float buffer[PIECE];
	for (int64_t row = first; row < last; row++) {
		float top;
		double rest;
		row_tail(logits, row, softcap, buffer, &top, &rest);
		out[row] = (double)*logits_piece(logits, row, targets[row], 1, softcap, buffer) - (double)top - rest;
	}
}

static void divergence(double *loss, const struct tensor *dlogits, const struct tensor *logits, const struct tensor *wanted,
		       float softcap, float factor, int64_t first, int64_t last)
{
	float buffer[PIECE], wanted_buffer[PIECE], target[PIECE], inverse = softcap == 0 ? 0 : 1 / softcap;
	for (int64_t row = first; row < last; row++) {
		float top, wanted_top;
		double log_sum, wanted_log_sum, sum = 0;
		row_tail(logits, row, softcap, buffer, &top, &log_sum);
		row_tail(wanted, row, softcap, wanted_buffer, &wanted_top, &wanted_log_sum);
		float rest = (float)log_sum, wanted_rest = (float)wanted_log_sum;
		for (int64_t col = 0; col < logits->cols; col += PIECE) {
			int64_t n = least(PIECE, logits->cols - col);
			const float *x = logits_piece(logits, row, col, n, softcap, buffer);
			const float *y = logits_piece(wanted, row, col, n, softcap, wanted_buffer);
			double part = 0;
#pragma omp simd reduction(+ : part)
			for (int64_t i = 0; i < n; i++) {
				float log_q = x[i] - top - rest, log_p = y[i] - wanted_top - wanted_rest;
				part += (double)exp_fast(log_p) * ((double)log_p - (double)log_q);
			}
			sum += part;
			if (!dlogits->data) continue;
			float *d = row_target(dlogits, row, col, target);
#pragma omp simd
			for (int64_t i = 0; i < n; i++) {
				float q = exp_fast(x[i] - top - rest), p = exp_fast(y[i] - wanted_top - wanted_rest),
				      slope = 1 - (x[i] * inverse) * (x[i] * inverse);
				d[i] = factor * (q - p) * slope;
			}
			row_finish(dlogits, row, col, n, d);
		}
		loss[row] = sum;
	}
}

const struct layer_kernels ISA_NAME(layer_kernels) = {
	.copy = copy,
	.add = add,
	.norm_forward = norm_forward,
	.norm_backward = norm_backward,
	.norm_gradient = norm_gradient,
	.column_sums = column_sums,
	.rope = rope,
	.attention_sinks = attention_sinks,
	.activation_forward = activation_forward,
	.activation_backward = activation_backward,
	.token_logprobs = token_logprobs,
	.divergence = divergence,
};
