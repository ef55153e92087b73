/* The operations that train a block's weights, norms and biases, against the double-precision reference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/backend/harness.h"
#include "tests/backend/reference.h"

/* ---- gradients of vectors ---------------------------------------------------------------------------------------------------- */

static void norm_gradient_case(struct norm norm, int64_t rows, int64_t cols, enum dtype x_type, enum dtype dy_type, int gap,
			       bool biased)
{
	int64_t width = cols / norm.groups, stat_cols = 2 * norm.groups;
	struct operand x = operand_random(rows, cols, x_type, gap), dy = operand_random(rows, cols, dy_type, gap);
	struct operand dweight = operand_output(1, width, DTYPE_F32, gap),
		       dbias = biased ? operand_output(1, width, DTYPE_F32, gap) : operand_none();
	double *ones = doubles(width), *y = doubles(rows * cols), *stats = doubles(rows * stat_cols);
	double *expected = doubles(width), *expected_bias = doubles(width);
	for (int64_t i = 0; i < width; i++)
		ones[i] = 1;
	ref_norm_forward(&norm, y, stats, x.value, ones, NULL, rows, cols);
	ref_norm_gradient(&norm, expected, expected_bias, dy.value, x.value, rows, cols);
	struct operand stats_in = operand_input(stats, rows, stat_cols, DTYPE_F32, gap);
	RUN(OPS->norm_gradient(BACKEND, &norm, dweight.tensor, dbias.tensor, dy.tensor, x.tensor, stats_in.tensor));
	operand_fetch(&dweight);
	double size = 0; /* of one variable x̂ is nearly 0 under a LayerNorm: compare with the terms */
	for (int64_t i = 0; i < width; i++)
		size += expected[i] * expected[i];
	if (size > 1e-3)
		expect_close(dweight.value, expected, width, 1e-9, "norm_gradient [%lld, %lld] / %d %s %s", (long long)rows,
			     (long long)cols, norm.groups, float_names[x_type], float_names[dy_type]);
	if (biased) {
		operand_fetch(&dbias);
		expect_close(dbias.value, expected_bias, width, 1e-9, "norm_gradient of a bias [%lld, %lld]", (long long)rows,
			     (long long)cols);
	}
	free(ones);
	free(y);
	free(expected);
	free(expected_bias);
	operand_free(&x, &dy, &dweight, &stats_in, NULL);
	if (biased) operand_free(&dbias, NULL);
}

static void test_norm_gradient(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int kind = 0; kind < 2; kind++)
			for (int type = 0; type < 3; type++)
				norm_gradient_case((struct norm){kind ? NORM_LAYER : NORM_RMS, 1e-5f, 1, 1}, row_shapes[shape][0],
						   row_shapes[shape][1], float_types[type], float_types[(shape + (size_t)type) % 3],
						   shape % 2 ? GAP : NO_GAP, kind);
	norm_gradient_case((struct norm){NORM_RMS, 1e-6f, 0, 6}, 130, 6 * 32, DTYPE_F32, DTYPE_F32, GAP, false);
	norm_gradient_case((struct norm){NORM_RMS, 1e-6f, 0, 5}, 300, 5 * 20, DTYPE_BF16, DTYPE_F32, NO_GAP, false);
	norm_gradient_case((struct norm){NORM_LAYER, 1e-5f, 0, 3}, 4, 3 * 128, DTYPE_F16, DTYPE_BF16, NO_GAP, true);
	norm_gradient_case((struct norm){NORM_RMS, 1e-5f, 0, 1}, 1030, 576, DTYPE_F32, DTYPE_BF16, NO_GAP, false);
}

static void column_sums_case(int64_t rows, int64_t cols, enum dtype type, int gap)
{
	struct operand x = operand_random(rows, cols, type, gap), sums = operand_output(1, cols, DTYPE_F32, NO_GAP);
	double *expected = doubles(cols);
	for (int64_t i = 0; i < rows * cols; i++)
		expected[i % cols] += x.value[i];
	RUN(OPS->column_sums(BACKEND, sums.tensor, x.tensor));
	operand_fetch(&sums);
	expect_close(sums.value, expected, cols, 1e-9, "column_sums [%lld, %lld] %s", (long long)rows, (long long)cols,
		     float_names[type]);
	free(expected);
	operand_free(&x, &sums, NULL);
}

static void test_column_sums(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int type = 0; type < 3; type++)
			column_sums_case(row_shapes[shape][0], row_shapes[shape][1], float_types[type], shape % 2 ? GAP : NO_GAP);
	column_sums_case(1030, 960, DTYPE_BF16, NO_GAP);
	struct operand sums = operand_output(1, 9, DTYPE_F32, NO_GAP); /* over no rows they are 0 */
	RUN(OPS->column_sums(BACKEND, sums.tensor, tensor_make(NULL, 0, 9, DTYPE_F32)));
	operand_fetch(&sums);
	for (int i = 0; i < 9; i++)
		assert_true(sums.value[i] == 0);
	operand_free(&sums, NULL);
}

/* ---- the loss ---------------------------------------------------------------------------------------------------------------- */

static void weighted_error_case(int64_t rows, int64_t cols, enum dtype y_type, enum dtype ref_type, enum dtype dy_type, int gap)
{
	struct operand y = operand_random(rows, cols, y_type, gap), ref = operand_random(rows, cols, ref_type, gap);
	struct operand weight = operand_input(uniform(cols, 0.5, 20), 1, cols, DTYPE_F32, NO_GAP);
	struct operand dy = operand_output(rows, cols, dy_type, gap), stats = operand_inout(1, STEP_STATS, DTYPE_F64, NO_GAP);
	double before = stats.value[STEP_RECONSTRUCTION], sparsity = stats.value[STEP_SPARSITY];
	double factor = 1 / (double)(rows * cols), *expected = doubles(rows * cols), now[STEP_STATS];
	double loss = ref_weighted_error(expected, y.value, ref.value, weight.value, factor, rows, cols);
	RUN(OPS->weighted_error(BACKEND, stats.tensor.data, dy.tensor, y.tensor, ref.tensor, weight.tensor, factor, true));
	operand_fetch(&stats);
	operand_fetch(&dy);
	expect_close(&stats.value[STEP_RECONSTRUCTION], &(double){before + loss}, 1, 1e-12, "weighted_error [%lld, %lld], added",
		     (long long)rows, (long long)cols);
	assert_true(stats.value[STEP_SPARSITY] == sparsity);
	expect_close(dy.value, expected, rows * cols, bound_of(dy_type), "weighted_error dy [%lld, %lld] %s %s", (long long)rows,
		     (long long)cols, float_names[y_type], float_names[ref_type]);
	RUN(OPS->weighted_error(BACKEND, stats.tensor.data, operand_none().tensor, y.tensor, ref.tensor, weight.tensor, factor,
				false));
	RUN(OPS->download(BACKEND, now, stats.tensor.data, sizeof now));
	expect_close(&now[STEP_RECONSTRUCTION], &loss, 1, 1e-12, "weighted_error [%lld, %lld]", (long long)rows, (long long)cols);
	free(expected);
	operand_free(&y, &ref, &weight, &stats, &dy, NULL);
}

static void test_weighted_error(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int i = 0; i < 9; i++)
			weighted_error_case(row_shapes[shape][0], row_shapes[shape][1], float_types[i % 3], float_types[i / 3],
					    float_types[(shape + (size_t)i) % 3 == 2 ? 1 : 0],
					    (shape + (size_t)i) % 2 ? GAP : NO_GAP);
	weighted_error_case(300, 576, DTYPE_F32, DTYPE_F32, DTYPE_F32, NO_GAP);
}

/* Logits of some spread, and others that are not far from them. */
static void divergence_case(int64_t rows, int64_t cols, enum dtype type, enum dtype wanted_type, enum dtype gradient_type,
			    double softcap, int gap)
{
	double *near = doubles(rows * cols), *expected = doubles(rows * cols), now[STEP_STATS], factor = 1 / (double)rows;
	struct operand wanted, logits, out = operand_output(rows, cols, gradient_type, gap);
	struct operand stats = operand_inout(1, STEP_STATS, DTYPE_F64, NO_GAP);
	double before = stats.value[STEP_RECONSTRUCTION], sparsity = stats.value[STEP_SPARSITY];
	double *far = doubles(rows * cols);
	for (int64_t i = 0; i < rows * cols; i++) {
		far[i] = 4 * random_normal() + 60 * (i % 3 == 0 && cols % 2); /* where sums of exponentials would overflow */
		near[i] = far[i] + random_normal();
	}
	wanted = operand_input(far, rows, cols, wanted_type, gap);
	logits = operand_input(near, rows, cols, type, gap);
	double loss = ref_divergence(expected, logits.value, wanted.value, softcap, factor, rows, cols);
	RUN(OPS->divergence(BACKEND, stats.tensor.data, out.tensor, logits.tensor, wanted.tensor, (float)softcap, factor, true));
	operand_fetch(&stats);
	operand_fetch(&out);
	expect_close(&stats.value[STEP_RECONSTRUCTION], &(double){before + loss}, 1, 1e-8, "divergence [%lld, %lld], added",
		     (long long)rows, (long long)cols);
	assert_true(stats.value[STEP_SPARSITY] == sparsity);
	expect_close(out.value, expected, rows * cols, bound_of(gradient_type), "divergence's gradient [%lld, %lld] %s, cap %g",
		     (long long)rows, (long long)cols, float_names[type], softcap);
	RUN(OPS->divergence(BACKEND, stats.tensor.data, operand_none().tensor, logits.tensor, wanted.tensor, (float)softcap, factor,
			    false));
	RUN(OPS->download(BACKEND, now, stats.tensor.data, sizeof now));
	expect_close(&now[STEP_RECONSTRUCTION], &loss, 1, 1e-8, "divergence [%lld, %lld]", (long long)rows, (long long)cols);
	logits.input = false;
	RUN(OPS->divergence(BACKEND, stats.tensor.data, logits.tensor, logits.tensor, wanted.tensor, (float)softcap, factor,
			    false));
	operand_fetch(&logits);
	expect_close(logits.value, expected, rows * cols, bound_of(type), "divergence in place [%lld, %lld] %s", (long long)rows,
		     (long long)cols, float_names[type]);
	free(expected);
	operand_free(&wanted, &logits, &out, &stats, NULL);
}

static void test_divergence(void **state)
{
	(void)state;
	static const int64_t shapes[][2] = {{6, 2}, {3, 7}, {17, 2048}, {5, 5001}};
	for (size_t i = 0; i < COUNT(shapes); i++)
		for (int types = 0; types < 9; types++)
			divergence_case(shapes[i][0], shapes[i][1], float_types[types % 3], float_types[types / 3],
					types % 2 ? DTYPE_BF16 : DTYPE_F32, types % 4 == 3 ? 30 : 0, i % 2 ? GAP : NO_GAP);
	/* One token is certain; and what is the same is not apart, nor anything over no rows. */
	struct operand one = operand_random(4, 1, DTYPE_F32, NO_GAP), same = operand_random(9, 300, DTYPE_BF16, NO_GAP);
	struct operand stats = operand_inout(1, STEP_STATS, DTYPE_F64, NO_GAP);
	struct tensor none = operand_none().tensor, empty = tensor_rows(same.tensor, 0, 0);
	const struct tensor alike[] = {one.tensor, same.tensor, empty};
	for (size_t i = 0; i < COUNT(alike); i++) {
		RUN(OPS->divergence(BACKEND, stats.tensor.data, none, alike[i], alike[i], 0, 1, false));
		operand_fetch(&stats);
		assert_true(stats.value[STEP_RECONSTRUCTION] == 0);
	}
	operand_free(&one, &same, &stats, NULL);
}

/* ---- AdamW ------------------------------------------------------------------------------------------------------------------- */

/* Operands that are read and written; of their values some are 0 where `zeros` is set. */
static struct operand changing(int64_t rows, int64_t cols, int gap, bool zeros)
{
	double *value = doubles(rows * cols);
	for (int64_t i = 0; i < rows * cols; i++)
		value[i] = zeros && random_below(2) ? (random_below(2) ? 0.0 : -0.0) : random_normal();
	struct operand operand = operand_input(value, rows, cols, DTYPE_F32, gap);
	operand.input = false;
	return operand;
}

static struct operand changing_from_zero(int64_t rows, int64_t cols, int gap)
{
	struct operand operand = operand_input(doubles(rows * cols), rows, cols, DTYPE_F32, gap);
	operand.input = false;
	return operand;
}

static void adamw_case(int64_t rows, int64_t cols, int gap, enum dtype copy_type, bool keep_zeros)
{
	int64_t n = rows * cols;
	struct operand theta = changing(rows, cols, gap, true), m = changing_from_zero(rows, cols, gap),
		       v = changing_from_zero(rows, cols, gap);
	struct operand copy = operand_output(rows, cols, copy_type, gap);
	double *start = copy_of(theta.value, n), *ref_theta = copy_of(theta.value, n), *ref_m = doubles(n), *ref_v = doubles(n);
	for (int step = 1; step <= 4; step++) {
		struct adamw adamw = {1e-2f, 0.9f, 0.95f, 1e-8f, cols % 2 ? 0.1f : 0, step, keep_zeros};
		struct operand gradient = operand_random(rows, cols, DTYPE_F32, gap);
		ref_adamw_step(&adamw, n, ref_theta, ref_m, ref_v, gradient.value);
		RUN(OPS->adamw_step(BACKEND, &adamw, theta.tensor, m.tensor, v.tensor, gradient.tensor,
				    step % 2 ? operand_none().tensor : copy.tensor));
		operand_free(&gradient, NULL);
	}
	operand_fetch(&theta);
	operand_fetch(&m);
	operand_fetch(&v);
	operand_fetch(&copy);
	expect_close(theta.value, ref_theta, n, 1e-9, "adamw_step θ, [%lld, %lld]", (long long)rows, (long long)cols);
	expect_close(m.value, ref_m, n, 1e-9, "adamw_step m, [%lld, %lld]", (long long)rows, (long long)cols);
	expect_close(v.value, ref_v, n, 1e-9, "adamw_step v, [%lld, %lld]", (long long)rows, (long long)cols);
	for (int64_t i = 0; i < n; i++) {
		assert_true(copy.value[i] == round_to_type(theta.value[i], copy_type));
		if (start[i] == 0) assert_int_equal(theta.value[i] == 0, keep_zeros);
	}
	free(start);
	free(ref_theta);
	free(ref_m);
	free(ref_v);
	operand_free(&theta, &m, &v, &copy, NULL);
}

static void test_adamw(void **state)
{
	(void)state;
	static const int64_t shapes[][2] = {{1, 1}, {1, 17}, {1, 1000}, {1, 4097}, {3, 9}, {24, 64}, {33, 191}, {5, 9000}};
	for (size_t i = 0; i < COUNT(shapes); i++)
		for (int type = 0; type < 3; type++)
			adamw_case(shapes[i][0], shapes[i][1], (i + (size_t)type) % 2 ? GAP : NO_GAP, float_types[type], i % 2);
	adamw_case(24, 64, NO_GAP, DTYPE_BF16, false);
	adamw_case(24, 64, 8, DTYPE_BF16, true);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_norm_gradient), cmocka_unit_test(test_column_sums), cmocka_unit_test(test_weighted_error),
		cmocka_unit_test(test_divergence),    cmocka_unit_test(test_adamw),
	};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
