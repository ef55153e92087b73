/* Quantization with feedback (engine/quantize/feedback.h) against the algorithm as published (arXiv 2210.17323) in double
 * precision: one column after another, with the inverse of the whole matrix, of which each column is taken out when it is done. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/quantize/feedback.h"
#include "tests/backend/harness.h"

struct feedback_case {
	int64_t rows, cols;
	struct grid grid;
	int pruned; /* of each 10 */
	bool few;   /* inputs of fewer tokens than columns */
};

/* Gram matrix of inputs that go together: each has something of those before it. */
static double *gram_of(int64_t cols, int64_t tokens)
{
	double *x = doubles(cols), *gram = doubles(cols * cols);
	for (int64_t t = 0; t < tokens; t++) {
		double shared = random_normal();
		for (int64_t i = 0; i < cols; i++)
			x[i] = (1 + (double)(i % 5)) * random_normal() + 3 * shared + (i ? 0.5 * x[i - 1] : 0);
		for (int64_t i = 0; i < cols; i++)
			for (int64_t j = 0; j < cols; j++)
				gram[i * cols + j] += x[i] * x[j];
	}
	free(x);
	return gram;
}

/* (a + λ·1)⁻¹ by Gauss and Jordan, λ a hundredth of the mean of a's diagonal. */
static double *inverse_of(const double *a, int64_t n)
{
	double *rest = copy_of(a, n * n), *inverse = doubles(n * n), mean = 0;
	for (int64_t i = 0; i < n; i++)
		mean += a[i * n + i] / (double)n;
	for (int64_t i = 0; i < n; i++) {
		rest[i * n + i] += 0.01 * mean;
		inverse[i * n + i] = 1;
	}
	for (int64_t j = 0; j < n; j++) {
		double pivot = rest[j * n + j];
		for (int64_t k = 0; k < n; k++) {
			rest[j * n + k] /= pivot;
			inverse[j * n + k] /= pivot;
		}
		for (int64_t i = 0; i < n; i++) {
			double factor = rest[i * n + j];
			for (int64_t k = 0; i != j && k < n; k++) {
				rest[i * n + k] -= factor * rest[j * n + k];
				inverse[i * n + k] -= factor * inverse[j * n + k];
			}
		}
	}
	free(rest);
	return inverse;
}

/* tr(D·G·Dᵀ): what the outputs lose. */
static double loss_of(const double *a, const double *b, const double *gram, int64_t rows, int64_t cols)
{
	double sum = 0;
	for (int64_t row = 0; row < rows; row++)
		for (int64_t i = 0; i < cols; i++) {
			double by = 0;
			for (int64_t j = 0; j < cols; j++)
				by += gram[i * cols + j] * (a[row * cols + j] - b[row * cols + j]);
			sum += (a[row * cols + i] - b[row * cols + i]) * by;
		}
	return sum;
}

/* What is compared. Where fp32 may round a weight up and double precision down, everything behind it differs; so each step is
 * judged by itself, and the next one begins with what besad made of the weight. */
struct compared {
	const struct feedback_case *c;
	double *w;      /* [rows, cols]: as the steps so far leave them */
	double *before; /* as they were at first */
	const double *out, *steps, *zeros;
	int64_t moved; /* weights that did not go to the nearest code by double precision, but nearly */
};

static void check_grid(const struct compared *r, int64_t row, int64_t first)
{
	const struct grid *grid = &r->c->grid;
	int64_t index = row * (r->c->cols / grid->group) + first / grid->group;
	double least = 0, most = 0, count = (double)(1 << grid->bits);
	for (int64_t j = first; j < first + grid->group; j++) {
		least = fmin(least, r->before[row * r->c->cols + j]);
		most = fmax(most, r->before[row * r->c->cols + j]);
	}
	double step = grid->symmetric ? fmax(most, -least) / (count / 2 - 0.5) : (most - least) / (count - 1);
	double slack = grid->step == DTYPE_F32 ? 1e-4 : 0x1p-8, h = r->steps[index], z = r->zeros[index];
	if (step > 0 && fabs(h - step) > slack * step)
		fail_msg("row %lld, column %lld: a step of %.9g instead of %.9g", (long long)row, (long long)first, h, step);
	if (step > 0 && fabs(z - (grid->symmetric ? 0 : fmin(-least / h, count - 1))) > 0.51)
		fail_msg("row %lld, column %lld: a zero point of %g", (long long)row, (long long)first, z);
}

/* What a weight became. */
static void check_weight(struct compared *r, int64_t row, int64_t j)
{
	const struct grid *grid = &r->c->grid;
	int64_t i = row * r->c->cols + j, index = row * (r->c->cols / grid->group) + j / grid->group;
	double h = r->steps[index], z = r->zeros[index], count = (double)(1 << grid->bits);
	double low = grid->symmetric ? -count / 2 : 0, high = low + count - 1;
	double wanted = fmin(fmax(r->w[i] / h + z, low), high), code = rint(r->out[i] / h + z);
	if (r->before[i] == 0) {
		assert_true(r->out[i] == 0 && !signbit(r->out[i]));
		return;
	}
	if (fabs(code - wanted) > 0.52 || fabs((code - z) * h - r->out[i]) > 1e-5 * fabs(r->out[i]))
		fail_msg("row %lld, column %lld: %.9g became %.9g, code %g of step %g", (long long)row, (long long)j, r->w[i],
			 r->out[i], code, h);
	r->moved += fabs(code - wanted) > 0.5;
}

static void follow(struct compared *r, double *inverse)
{
	int64_t rows = r->c->rows, cols = r->c->cols;
	for (int64_t j = 0; j < cols; j++) {
		double d = inverse[j * cols + j];
		for (int64_t row = 0; row < rows; row++) {
			if (j % r->c->grid.group == 0) check_grid(r, row, j);
			check_weight(r, row, j);
			double error = (r->w[row * cols + j] - r->out[row * cols + j]) / d;
			for (int64_t k = j; k < cols; k++)
				r->w[row * cols + k] -= error * inverse[j * cols + k];
		}
		for (int64_t a = j + 1; a < cols; a++)
			for (int64_t b = j + 1; b < cols; b++)
				inverse[a * cols + b] -= inverse[a * cols + j] * inverse[j * cols + b] / d;
	}
}

static double *weights(const struct feedback_case *c)
{
	double *values = doubles(c->rows * c->cols);
	for (int64_t i = 0; i < c->rows * c->cols; i++)
		values[i] = random_below(10) < c->pruned ? 0 : 0.02 * random_normal() + (i / c->cols % 3 ? 0 : 0.02);
	return values;
}

/* What is lost by rounding alone. */
static double nearest_loss(const struct feedback_case *c, const double *values, const double *gram)
{
	int64_t groups = c->cols / c->grid.group;
	struct operand w = operand_input(copy_of(values, c->rows * c->cols), c->rows, c->cols, DTYPE_F32, NO_GAP);
	struct operand to = operand_output(c->rows, c->cols, DTYPE_F32, NO_GAP),
		       steps = operand_output(c->rows, groups, DTYPE_F32, NO_GAP),
		       zeros = operand_output(c->rows, groups, DTYPE_F32, NO_GAP);
	RUN(OPS->quantize(BACKEND, &c->grid, to.tensor, steps.tensor, zeros.tensor, w.tensor, (struct tensor){0}));
	operand_fetch(&to);
	double loss = loss_of(to.value, values, gram, c->rows, c->cols);
	operand_free(&w, &to, &steps, &zeros, NULL);
	return loss;
}

static void feedback_case(const struct feedback_case *c)
{
	int64_t groups = c->cols / c->grid.group, n = c->rows * c->cols;
	struct linear linear = {.rows = c->rows, .cols = c->cols};
	const struct block_layout layout = {.linears = &linear, .n_linears = 1, .fused_cols = {linear.cols}};
	struct operand w = operand_input(weights(c), c->rows, c->cols, DTYPE_F32, GAP);
	struct operand gram = operand_input(gram_of(c->cols, c->few ? c->cols / 2 : 3 * c->cols), c->cols, c->cols, DTYPE_F32, GAP);
	struct operand steps = operand_output(c->rows, groups, DTYPE_F32, GAP),
		       zeros = operand_output(c->rows, groups, DTYPE_F32, GAP);
	double *before = copy_of(w.value, n), *now = copy_of(w.value, n), *inputs = copy_of(gram.value, c->cols * c->cols);
	struct feedback feedback;
	struct damping damping;
	struct error err;
	w.input = gram.input = false; /* both change */
	assert_int_equal(feedback_create(BACKEND, &layout, &feedback, &err), STATUS_OK);
	RUN(feedback_begin(&feedback, gram.tensor, &damping));
	assert_true(damping.used == 0.01);
	RUN(feedback_quantize(&feedback, &c->grid, w.tensor, steps.tensor, zeros.tensor));
	operand_fetch(&w);
	operand_fetch(&steps);
	operand_fetch(&zeros);
	double *inverse = inverse_of(inputs, c->cols);
	struct compared compared = {c, now, before, w.value, steps.value, zeros.value, 0};
	follow(&compared, inverse);
	assert_true(100 * compared.moved <= n);
	assert_true(loss_of(w.value, before, inputs, c->rows, c->cols) < nearest_loss(c, before, inputs));
	feedback_release(&feedback);
	free(inverse);
	free(before);
	free(now);
	free(inputs);
	operand_free(&w, &gram, &steps, &zeros, NULL);
}

static void test_feedback(void **state)
{
	static const struct feedback_case cases[] = {
		{9, 64, {4, true, 16, DTYPE_F32}, 0, false},    {20, 240, {3, false, 48, DTYPE_F32}, 5, false},
		{13, 200, {4, true, 200, DTYPE_F32}, 5, false}, {7, 300, {8, false, 300, DTYPE_F32}, 0, true},
		{16, 256, {2, true, 128, DTYPE_BF16}, 5, true}, {5, 192, {2, false, 64, DTYPE_F16}, 7, false},
		{11, 160, {3, true, 32, DTYPE_F32}, 9, false},  {24, 16, {4, false, 16, DTYPE_F32}, 3, false},
	};
	(void)state;
	for (size_t i = 0; i < COUNT(cases); i++)
		feedback_case(&cases[i]);
}

/* Inputs of nothing but zeros, as those of an expert that no token reached: nothing goes together, so that it is rounding. */
static void test_no_inputs(void **state)
{
	(void)state;
	const struct feedback_case c = {6, 96, {4, false, 32, DTYPE_F32}, 4, false};
	struct linear linear = {.rows = c.rows, .cols = c.cols};
	const struct block_layout layout = {.linears = &linear, .n_linears = 1, .fused_cols = {linear.cols}};
	struct operand w = operand_input(weights(&c), c.rows, c.cols, DTYPE_F32, NO_GAP),
		       gram = operand_input(doubles(c.cols * c.cols), c.cols, c.cols, DTYPE_F32, GAP);
	struct operand steps = operand_output(c.rows, 3, DTYPE_F32, GAP), zeros = operand_output(c.rows, 3, DTYPE_F32, GAP),
		       to = operand_output(c.rows, c.cols, DTYPE_F32, NO_GAP);
	struct feedback feedback;
	struct damping damping;
	struct error err;
	RUN(OPS->quantize(BACKEND, &c.grid, to.tensor, steps.tensor, zeros.tensor, w.tensor, (struct tensor){0}));
	w.input = gram.input = false; /* both change */
	assert_int_equal(feedback_create(BACKEND, &layout, &feedback, &err), STATUS_OK);
	RUN(feedback_begin(&feedback, gram.tensor, &damping));
	RUN(feedback_quantize(&feedback, &c.grid, w.tensor, steps.tensor, zeros.tensor));
	operand_fetch(&w);
	operand_fetch(&to);
	operand_fetch(&steps);
	operand_fetch(&zeros);
	expect_equal(w.value, to.value, c.rows * c.cols, "feedback without inputs");
	feedback_release(&feedback);
	operand_free(&w, &gram, &steps, &zeros, &to, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_feedback), cmocka_unit_test(test_no_inputs)};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
