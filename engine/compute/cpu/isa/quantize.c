/* The groups of a quantized matrix (besa.md section 3). */
#include "engine/compute/cpu/isa/isa.h"

/* Whole numbers beyond any code: what is further off is clamped all the same, and adding `magic` rounds what is not. */
static const float far = 1024, magic = 0x1.8p23f;

/* A group, and 0, spans [least, most]. */
struct span {
	float least, most;
};

/* What the codes of a grid are. */
struct codes {
	float low, high;
	float parts; /* steps that the whole range is cut into; symmetric: half of it */
};

INLINE struct codes codes_of(const struct grid *grid)
{
	float count = (float)(1 << grid->bits);
	return grid->symmetric ? (struct codes){-count / 2, count / 2 - 1, (count - 1) / 2}
			       : (struct codes){0, count - 1, count - 1};
}

INLINE struct span find_span(const struct tensor *weight, int64_t row, int64_t col, int64_t n)
{
	float buffer[PIECE], least_weight = 0, most = 0;
	for (int64_t done = 0; done < n; done += PIECE) {
		int64_t count = least(n - done, PIECE);
		const float *w = row_read(weight, row, col + done, count, buffer);
#pragma omp simd reduction(min : least_weight) reduction(max : most)
		for (int64_t i = 0; i < count; i++) {
			least_weight = w[i] < least_weight ? w[i] : least_weight;
			most = w[i] > most ? w[i] : most;
		}
	}
	return (struct span){least_weight, most};
}

INLINE float largest(struct span span)
{
	return span.most > -span.least ? span.most : -span.least;
}

INLINE float round_step(float h, enum dtype type)
{
	float rounded = type == DTYPE_BF16 ? bf16_load(bf16_round(h)) : type == DTYPE_F16 ? f16_load(f16_round(h)) : h;
	return rounded > 0 ? rounded : 1;
}

/* γ or δ. */
INLINE float strength_at(const struct tensor *strength, int64_t row, int64_t group)
{
	return strength->data ? sigmoid_fast(*(const float *)at(strength, row, group)) : 1;
}

INLINE float *number_at(const struct tensor *t, int64_t row, int64_t col)
{
	return (float *)(uintptr_t)at(t, row, col);
}

INLINE float nearest(float w, struct codes codes, float h, float z)
{
	float u = w / h;
	u = u > far ? far : u;
	u = u < -far ? -far : u;
	float code = (u + magic) - magic + z;
	code = code > codes.high ? codes.high : code;
	code = code < codes.low ? codes.low : code;
	return (code - z) * h;
}

INLINE void quantize_row(float *out, const float *w, int64_t n, struct codes codes, float h, float z)
{
#pragma omp simd
	for (int64_t i = 0; i < n; i++)
		out[i] = nearest(w[i], codes, h, z);
}

static void quantize_group(const struct grid *grid, const struct tensor *out, const struct tensor *steps,
			   const struct tensor *zeros, const struct tensor *weight, const struct tensor *strength, int64_t row,
			   int64_t group)
{
	struct codes codes = codes_of(grid);
	int64_t col = group * grid->group;
	struct span span = find_span(weight, row, col, grid->group);
	float gamma = strength_at(strength, row, group), from[PIECE], to[PIECE], h, z = 0;
	if (grid->symmetric) {
		h = round_step(gamma * largest(span) / codes.parts, grid->step);
	} else {
		float least_kept = strength_at(strength, row, steps->cols + group) * span.least;
		h = round_step((gamma * span.most - least_kept) / codes.parts, grid->step);
		z = least_kept / -h;
		z = z > codes.high ? codes.high : (z + magic) - magic;
	}
	*number_at(steps, row, group) = h;
	*number_at(zeros, row, group) = z;
	for (int64_t done = 0; done < grid->group; done += PIECE) {
		int64_t n = least(grid->group - done, PIECE);
		const float *w = row_read(weight, row, col + done, n, from);
		quantize_row(row_target(out, row, col + done, to), w, n, codes, h, z);
		row_finish(out, row, col + done, n, to);
	}
}

static void quantize(const struct grid *grid, const struct tensor *out, const struct tensor *steps, const struct tensor *zeros,
		     const struct tensor *weight, const struct tensor *strength, int64_t first, int64_t last)
{
	for (int64_t row = first; row < last; row++)
		for (int64_t group = 0; group < steps->cols; group++)
			quantize_group(grid, out, steps, zeros, weight, strength, row, group);
}

/* ---- with compensation ------------------------------------------------------------------------------------------------------- */

static void columns(const struct grid *grid, const struct tensor *weight, const struct tensor *negated_error,
		    const struct tensor *support, const struct tensor *factor, const struct tensor *steps,
		    const struct tensor *zeros, int64_t first, int64_t last)
{
	struct codes codes = codes_of(grid);
	int64_t group = weight->cols / steps->cols;
	for (int64_t row = first; row < last; row++) {
		float *w = number_at(weight, row, 0), *minus = number_at(negated_error, row, 0);
		const float *kept = at(support, row, 0);
		for (int64_t j = 0; j < weight->cols; j++) {
			const float *u = at(factor, j, 0);
			float h = *number_at(steps, row, j / group), z = *number_at(zeros, row, j / group);
			float to = kept[j] != 0 ? nearest(w[j], codes, h, z) : 0, error = (w[j] - to) / u[j];
			minus[j] = -error;
			w[j] = to;
#pragma omp simd
			for (int64_t k = j + 1; k < weight->cols; k++)
				w[k] -= error * u[k];
		}
	}
}

/* ---- backward ---------------------------------------------------------------------------------------------------------------- */

/* Sums of g over a group: times rint(W/h) − W/h where the code is not clamped, and where it is, at the top and at the bottom. */
struct group_sums {
	double inside, top, bottom;
};

INLINE struct group_sums add_piece(struct group_sums sums, const float *g, const float *w, int64_t n, struct codes codes, float h,
				   float z)
{
	float inside = 0, top = 0, bottom = 0;
#pragma omp simd reduction(+ : inside, top, bottom)
	for (int64_t i = 0; i < n; i++) {
		float u = w[i] / h;
		u = u > far ? far : u;
		u = u < -far ? -far : u;
		float whole = (u + magic) - magic, code = whole + z;
		bool above = code > codes.high, below = code < codes.low;
		inside += above || below ? 0 : g[i] * (whole - u);
		top += above ? g[i] : 0;
		bottom += below ? g[i] : 0;
	}
	return (struct group_sums){sums.inside + (double)inside, sums.top + (double)top, sums.bottom + (double)bottom};
}

static struct group_sums sum_group(const struct grid *grid, const struct tensor *g, const struct tensor *weight, int64_t row,
				   int64_t col, float h, float z)
{
	struct group_sums sums = {0};
	float buffer[PIECE];
	for (int64_t done = 0; done < grid->group; done += PIECE) {
		int64_t n = least(grid->group - done, PIECE);
		const float *w = row_read(weight, row, col + done, n, buffer);
		sums = add_piece(sums, at(g, row, col + done), w, n, codes_of(grid), h, z);
	}
	return sums;
}

/* With e = z + δ·min W / h, which the rounding of z added: where the code is clamped, out is γ·max W − e·h at the top, δ·min W −
 * e·h at the bottom; and where not, W + (rint(W/h) − W/h)·h. */
static void backward_group(const struct grid *grid, const struct tensor *dstrength, const struct tensor *g,
			   const struct tensor *weight, const struct tensor *steps, const struct tensor *zeros,
			   const struct tensor *strength, int64_t row, int64_t group)
{
	struct codes codes = codes_of(grid);
	float h = *number_at(steps, row, group), z = *number_at(zeros, row, group);
	struct span span = find_span(weight, row, group * grid->group, grid->group);
	struct group_sums sums = sum_group(grid, g, weight, row, group * grid->group, h, z);
	double gamma = (double)strength_at(strength, row, group), by_gamma = gamma * (1 - gamma), parts = (double)codes.parts;
	if (grid->symmetric) {
		double by_step = sums.inside + (double)codes.high * sums.top + (double)codes.low * sums.bottom;
		*number_at(dstrength, row, group) = (float)(by_step * (double)largest(span) / parts * by_gamma);
		return;
	}
	double delta = (double)strength_at(strength, row, steps->cols + group), by_delta = delta * (1 - delta);
	double most = (double)span.most, lowest = (double)span.least;
	double rounded = (double)z + delta * lowest / (double)h, by_step = sums.inside - rounded * (sums.top + sums.bottom);
	*number_at(dstrength, row, group) = (float)((by_step * most / parts + most * sums.top) * by_gamma);
	*number_at(dstrength, row, steps->cols + group) = (float)((lowest * sums.bottom - by_step * lowest / parts) * by_delta);
}

static void backward(const struct grid *grid, const struct tensor *dstrength, const struct tensor *g, const struct tensor *weight,
		     const struct tensor *steps, const struct tensor *zeros, const struct tensor *strength, int64_t first,
		     int64_t last)
{
	for (int64_t row = first; row < last; row++)
		for (int64_t group = 0; group < steps->cols; group++)
			backward_group(grid, dstrength, g, weight, steps, zeros, strength, row, group);
}

const struct quantize_kernels ISA_NAME(quantize_kernels) = {.quantize = quantize, .columns = columns, .backward = backward};
