/* The operations of quantization against double precision: weights on their grid, and the gradient of its strengths, which
 * finite differences of the grid with its roundings held still give too. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/backend/harness.h"

static const int64_t shapes[][3] = {{1, 16, 16}, {3, 64, 16}, {40, 96, 32}, {17, 1120, 112}, {5, 2300, 2300}, {33, 256, 128}};

static double sigmoid(double x)
{
	return 1 / (1 + exp(-x));
}

/* Whether rounding could go either way in fp32. */
static bool near_tie(double x)
{
	return fabs(x - floor(x) - 0.5) < 1e-3;
}

struct codes {
	double low, high, parts;
};

static struct codes codes_of(const struct grid *grid)
{
	double count = (double)(1 << grid->bits);
	return grid->symmetric ? (struct codes){-count / 2, count / 2 - 1, (count - 1) / 2}
			       : (struct codes){0, count - 1, count - 1};
}

/* Of the group's weights w, and 0. */
static void find_span(const double *w, int64_t n, double *ret_least, double *ret_most)
{
	*ret_least = *ret_most = 0;
	for (int64_t i = 0; i < n; i++) {
		*ret_least = fmin(*ret_least, w[i]);
		*ret_most = fmax(*ret_most, w[i]);
	}
}

/* h and −δ·min W / h, before they are rounded. */
static void ref_grid(const struct grid *grid, const double *w, double gamma, double delta, double *ret_step, double *ret_zero)
{
	double least, most, parts = codes_of(grid).parts;
	find_span(w, grid->group, &least, &most);
	*ret_step = grid->symmetric ? gamma * fmax(most, -least) / parts : (gamma * most - delta * least) / parts;
	*ret_zero = grid->symmetric || *ret_step <= 0 ? 0 : -delta * least / *ret_step;
}

struct quantized {
	struct grid grid;
	int64_t rows, cols, groups;
	struct operand w, strength, out, steps, zeros;
};

/* Of every third group the weights are of one sign, and one is nothing but zeros. */
static double *weights(int64_t rows, int64_t cols, int64_t group)
{
	double *values = doubles(rows * cols);
	for (int64_t i = 0; i < rows * cols; i++) {
		int64_t g = i / group;
		values[i] = g == 1 ? 0 : g % 3 == 0 ? fabs(random_normal()) * (g % 2 ? 1 : -1) : random_normal();
		if (random_below(5) == 0) values[i] = 0;
	}
	return values;
}

static struct quantized quantized_open(struct grid grid, int64_t rows, int64_t cols, bool learned, enum dtype w_type,
				       enum dtype type)
{
	struct quantized q = {.grid = grid, .rows = rows, .cols = cols, .groups = cols / grid.group};
	int64_t strengths = grid.symmetric ? q.groups : 2 * q.groups;
	q.w = operand_input(weights(rows, cols, grid.group), rows, cols, w_type, GAP);
	q.strength = learned ? operand_input(uniform(rows * strengths, -1, 3), rows, strengths, DTYPE_F32, GAP) : operand_none();
	q.out = operand_output(rows, cols, type, GAP);
	q.steps = operand_output(rows, q.groups, DTYPE_F32, GAP);
	q.zeros = operand_output(rows, q.groups, DTYPE_F32, NO_GAP);
	RUN(OPS->quantize(BACKEND, &grid, q.out.tensor, q.steps.tensor, q.zeros.tensor, q.w.tensor, q.strength.tensor));
	operand_fetch(&q.out);
	operand_fetch(&q.steps);
	operand_fetch(&q.zeros);
	return q;
}

static double strength_of(const struct quantized *q, int64_t row, int64_t group, bool delta)
{
	int64_t strengths = q->grid.symmetric ? q->groups : 2 * q->groups;
	if (!q->strength.value || (delta && q->grid.symmetric)) return 1;
	return sigmoid(q->strength.value[row * strengths + (delta ? q->groups : 0) + group]);
}

static void check_group(const struct quantized *q, int64_t row, int64_t group)
{
	struct codes codes = codes_of(&q->grid);
	const double *w = q->w.value + row * q->cols + group * q->grid.group, *out = q->out.value + (w - q->w.value);
	double h = q->steps.value[row * q->groups + group], z = q->zeros.value[row * q->groups + group], step, zero;
	ref_grid(&q->grid, w, strength_of(q, row, group, false), strength_of(q, row, group, true), &step, &zero);
	double slack = q->grid.step == DTYPE_F32 ? 1e-6 : q->grid.step == DTYPE_BF16 ? 0x1.01p-8 : 0x1.01p-11;
	if (step == 0)
		assert_true(h == 1 && z == 0);
	else if (!(fabs(h - step) <= slack * step) || round_to_type(h, q->grid.step) != h)
		fail_msg("quantize, %d bits: a step of %.9g instead of %.9g", q->grid.bits, h, step);
	zero = step > 0 ? zero * step / h : 0;
	if (!near_tie(zero)) assert_true(z == fmin(rint(zero), codes.high));
	for (int64_t i = 0; i < q->grid.group; i++) {
		double code = fmin(fmax(rint((double)((float)w[i] / (float)h)) + z, codes.low), codes.high);
		double expected = round_to_type((double)((float)(code - z) * (float)h), q->out.tensor.dtype);
		if (out[i] != expected)
			fail_msg("quantize, %d bits, row %lld, group %lld: %.9g became %.9g instead of %.9g", q->grid.bits,
				 (long long)row, (long long)group, w[i], out[i], expected);
		if (w[i] == 0) assert_true(out[i] == 0 && !signbit(out[i]));
	}
}

static void quantize_case(struct grid grid, int64_t rows, int64_t cols, bool learned, enum dtype w_type, enum dtype type)
{
	struct quantized q = quantized_open(grid, rows, cols, learned, w_type, type);
	for (int64_t row = 0; row < rows; row++)
		for (int64_t group = 0; group < q.groups; group++)
			check_group(&q, row, group);
	operand_free(&q.w, &q.out, &q.steps, &q.zeros, NULL);
	if (learned) operand_free(&q.strength, NULL);
}

static void test_quantize(void **state)
{
	(void)state;
	static const int widths[] = {2, 3, 4, 8};
	for (size_t i = 0; i < COUNT(shapes); i++)
		for (int how = 0; how < 16; how++)
			quantize_case((struct grid){widths[how % 4], how & 4, shapes[i][2], float_types[(i + (size_t)how) % 3]},
				      shapes[i][0], shapes[i][1], how & 8, float_types[how % 3],
				      float_types[(i + (size_t)how / 3) % 3]);
}

static void test_quantize_in_place(void **state)
{
	(void)state;
	const struct grid grid = {4, false, 32, DTYPE_F32};
	struct operand w = operand_inout(9, 64, DTYPE_F32, GAP), out = operand_output(9, 64, DTYPE_F32, NO_GAP);
	struct operand steps = operand_output(9, 2, DTYPE_F32, NO_GAP), zeros = operand_output(9, 2, DTYPE_F32, NO_GAP);
	struct tensor none = operand_none().tensor;
	RUN(OPS->quantize(BACKEND, &grid, out.tensor, steps.tensor, zeros.tensor, w.tensor, none));
	RUN(OPS->quantize(BACKEND, &grid, w.tensor, steps.tensor, zeros.tensor, w.tensor, none));
	operand_fetch(&w);
	operand_fetch(&out);
	expect_equal(w.value, out.value, 9 * 64, "quantize in place");
	operand_fetch(&steps);
	operand_fetch(&zeros);
	operand_free(&w, &out, &steps, &zeros, NULL);
}

/* ---- with compensation ------------------------------------------------------------------------------------------------------- */

static double *upper_triangular(int64_t n)
{
	double *u = doubles(n * n);
	for (int64_t i = 0; i < n; i++)
		for (int64_t j = i; j < n; j++)
			u[i * n + j] = i == j ? random_uniform(0.5, 2) : 0.3 * random_normal();
	return u;
}

/* A row, column after column: what `out` says that a weight became must be the nearest, give or take fp32, and goes on from
 * there. `w` is what it was, `minus` receives what its errors are. */
static void ref_columns(const struct grid *grid, double *w, double *minus, const double *out, const double *support,
			const double *u, const double *steps, const double *zeros, int64_t cols)
{
	struct codes codes = codes_of(grid);
	for (int64_t j = 0; j < cols; j++) {
		double h = steps[j / grid->group], z = zeros[j / grid->group];
		double code = out[j] / h + z, wanted = fmin(fmax(w[j] / h + z, codes.low), codes.high);
		if (support[j] == 0)
			assert_true(out[j] == 0 && !signbit(out[j]));
		else if (fabs(code - rint(code)) > 1e-4 || fabs(rint(code) - wanted) > 0.501)
			fail_msg("quantize_columns, %d bits, column %lld: %.9g became code %.9g", grid->bits, (long long)j, w[j],
				 code);
		double error = (w[j] - out[j]) / u[j * cols + j];
		minus[j] = -error;
		for (int64_t k = j + 1; k < cols; k++)
			w[k] -= error * u[j * cols + k];
	}
}

static void columns_case(struct grid grid, int64_t rows, int64_t cols, int gap)
{
	int64_t groups = cols / grid.group;
	double *kept = doubles(rows * cols), *codes = doubles(rows * groups), *expected = doubles(rows * cols);
	for (int64_t i = 0; i < rows * cols; i++)
		kept[i] = random_below(3) ? random_normal() : 0;
	for (int64_t i = 0; i < rows * groups; i++)
		codes[i] = grid.symmetric ? 0 : random_below(1 << grid.bits);
	struct operand weight = operand_inout(rows, cols, DTYPE_F32, gap), error = operand_output(rows, cols, DTYPE_F32, NO_GAP);
	struct operand support = operand_input(kept, rows, cols, DTYPE_F32, gap);
	struct operand factor = operand_input(upper_triangular(cols), cols, cols, DTYPE_F32, gap);
	struct operand steps = operand_input(uniform(rows * groups, 0.05, 0.5), rows, groups, DTYPE_F32, GAP);
	struct operand zeros = operand_input(codes, rows, groups, DTYPE_F32, NO_GAP);
	double *was = copy_of(weight.value, rows * cols);
	RUN(OPS->quantize_columns(BACKEND, &grid, weight.tensor, error.tensor, support.tensor, factor.tensor, steps.tensor,
				  zeros.tensor));
	operand_fetch(&weight);
	operand_fetch(&error);
	for (int64_t row = 0; row < rows; row++)
		ref_columns(&grid, was + row * cols, expected + row * cols, weight.value + row * cols, support.value + row * cols,
			    factor.value, steps.value + row * groups, zeros.value + row * groups, cols);
	expect_close(error.value, expected, rows * cols, 1e-9, "quantize_columns, error [%lld, %lld]", (long long)rows,
		     (long long)cols);
	free(was);
	free(expected);
	operand_free(&weight, &error, &support, &factor, &steps, &zeros, NULL);
}

static void test_quantize_columns(void **state)
{
	static const int64_t sizes[][3] = {{1, 1, 1}, {3, 5, 5}, {40, 32, 16}, {17, 128, 128}, {130, 100, 20}, {33, 112, 16}};
	static const int widths[] = {2, 3, 4, 8};
	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++)
		for (int how = 0; how < 8; how++)
			columns_case((struct grid){widths[how % 4], how & 4, sizes[i][2], DTYPE_F32}, sizes[i][0], sizes[i][1],
				     how % 2 ? GAP : NO_GAP);
}

/* ---- backward ---------------------------------------------------------------------------------------------------------------- */

/* Σ g·out of a group as its strengths move from `was`, where the roundings are held still: what they added there is added again. */
static double surrogate(const struct quantized *q, const double *w, const double *g, const double was[2], const double now[2])
{
	struct codes codes = codes_of(&q->grid);
	double h_was, z_was, h, z, sum = 0;
	ref_grid(&q->grid, w, sigmoid(was[0]), sigmoid(was[1]), &h_was, &z_was);
	if (h_was == 0) return 0;
	ref_grid(&q->grid, w, sigmoid(now[0]), sigmoid(now[1]), &h, &z);
	z += rint(z_was) - z_was;
	for (int64_t i = 0; i < q->grid.group; i++) {
		double whole = rint(w[i] / h_was), code = whole + rint(z_was);
		if (code > codes.high)
			code = codes.high;
		else if (code < codes.low)
			code = codes.low;
		else
			code = w[i] / h + (whole - w[i] / h_was) + z;
		sum += g[i] * (code - z) * h;
	}
	return sum;
}

static bool has_ties(const struct quantized *q, const double *w, const double at[2])
{
	double h, z;
	ref_grid(&q->grid, w, sigmoid(at[0]), sigmoid(at[1]), &h, &z);
	if (h == 0) return false;
	for (int64_t i = 0; i < q->grid.group; i++)
		if (near_tie(w[i] / h)) return true;
	return near_tie(z);
}

/* Groups in which fp32 could round another way are left out, and counted. */
static int64_t backward_of_group(const struct quantized *q, const double *g, int64_t row, int64_t group, double *got,
				 double *expected)
{
	int64_t strengths = q->grid.symmetric ? q->groups : 2 * q->groups, place = row * q->cols + group * q->grid.group;
	const double *at = q->strength.value + row * strengths + group, small = 1e-5;
	double was[2] = {at[0], q->grid.symmetric ? 0 : at[q->groups]};
	bool tied = has_ties(q, q->w.value + place, was);
	for (int k = 0; k < (q->grid.symmetric ? 1 : 2); k++) {
		double up[2] = {was[0], was[1]}, down[2] = {was[0], was[1]};
		int64_t i = row * strengths + group + k * q->groups;
		up[k] += small;
		down[k] -= small;
		expected[i] = (surrogate(q, q->w.value + place, g + place, was, up) -
			       surrogate(q, q->w.value + place, g + place, was, down)) /
			      (2 * small);
		if (tied) got[i] = expected[i] = 0;
	}
	return tied;
}

static void backward_case(struct grid grid, int64_t rows, int64_t cols, enum dtype w_type)
{
	struct quantized q = quantized_open(grid, rows, cols, true, w_type, DTYPE_F32);
	int64_t strengths = grid.symmetric ? q.groups : 2 * q.groups, tied = 0;
	struct operand g = operand_random(rows, cols, DTYPE_F32, GAP), d = operand_output(rows, strengths, DTYPE_F32, GAP);
	double *expected = doubles(rows * strengths);
	RUN(OPS->quantize_backward(BACKEND, &grid, d.tensor, g.tensor, q.w.tensor, q.steps.tensor, q.zeros.tensor,
				   q.strength.tensor));
	operand_fetch(&d);
	for (int64_t row = 0; row < rows; row++)
		for (int64_t group = 0; group < q.groups; group++)
			tied += backward_of_group(&q, g.value, row, group, d.value, expected);
	if (grid.group <= 32) assert_true(2 * tied < rows * q.groups);
	expect_close(d.value, expected, rows * strengths, 1e-8, "quantize_backward [%lld, %lld], %d bits%s", (long long)rows,
		     (long long)cols, grid.bits, grid.symmetric ? ", symmetric" : "");
	free(expected);
	operand_free(&q.w, &q.strength, &q.out, &q.steps, &q.zeros, &g, &d, NULL);
}

static void test_quantize_backward(void **state)
{
	(void)state;
	static const int widths[] = {2, 3, 4, 8};
	for (size_t i = 0; i < COUNT(shapes); i++)
		for (int how = 0; how < 8; how++)
			backward_case((struct grid){widths[how % 4], how & 4, shapes[i][2], DTYPE_F32}, shapes[i][0], shapes[i][1],
				      float_types[how % 3]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_quantize), cmocka_unit_test(test_quantize_in_place),
					   cmocka_unit_test(test_quantize_columns), cmocka_unit_test(test_quantize_backward)};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
