/* The operations at the sizes of large models on a device: a 7B model's linears over 2,048 tokens, gradients in several panels,
 * more blocks than 16 bits count, and 2³¹ elements of hidden states. Of each result 4,096 elements or more are compared with
 * double precision. Where there is no device, the sizes are a 64th and less, so that the test itself is tried; it says so. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/backend/harness.h"
#include "tests/backend/reference.h"

enum { SAMPLES = 4096 };

static bool on_device(void)
{
	return !BACKEND->unified && strncmp(BACKEND->device, "emulator", 8) != 0;
}

/* A device's size, or a 64th of it. */
static int64_t size(int64_t n)
{
	return on_device() ? n : n / 64;
}

/* Of rows that a kernel has a block for each. */
static int64_t many(int64_t n)
{
	return on_device() ? n : n / 2048;
}

static int say_sizes(void **state)
{
	(void)state;
	if (!on_device()) fprintf(stderr, "SKIPPED: a device's sizes, for lack of a device; a 64th of them and less is tried\n");
	return 0;
}

/* Compares samples of c [m, n] with op(a) · op(b) in double. */
static void expect_product(const struct operand *c, const struct operand *a, bool transpose_a, const struct operand *b,
			   bool transpose_b)
{
	int64_t m = c->tensor.rows, n = c->tensor.cols, inner = transpose_a ? a->tensor.rows : a->tensor.cols;
	double out[SAMPLES], expected[SAMPLES];
	for (int s = 0; s < SAMPLES; s++) {
		int64_t i = s == 0   ? 0
			    : s == 1 ? m - 1
				     : random_below((int)m),
			j = s == 0   ? 0
			    : s == 1 ? n - 1
				     : random_below((int)n);
		expected[s] = 0;
		for (int64_t k = 0; k < inner; k++)
			expected[s] += a->value[transpose_a ? k * a->tensor.cols + i : i * a->tensor.cols + k] *
				       b->value[transpose_b ? j * b->tensor.cols + k : k * b->tensor.cols + j];
		out[s] = c->value[i * n + j];
	}
	expect_close(out, expected, SAMPLES, bound_of(c->tensor.dtype), "matmul [%lld, %lld], inner %lld", (long long)m,
		     (long long)n, (long long)inner);
}

static void linear_case(int64_t rows, int64_t cols, int64_t tokens)
{
	struct operand weight = operand_random(rows, cols, DTYPE_BF16, NO_GAP),
		       x = operand_random(tokens, cols, DTYPE_BF16, NO_GAP);
	struct operand dy = operand_random(tokens, rows, DTYPE_BF16, NO_GAP), y = operand_output(tokens, rows, DTYPE_BF16, NO_GAP);
	struct operand dx = operand_output(tokens, cols, DTYPE_BF16, NO_GAP), dw = operand_output(rows, cols, DTYPE_F32, NO_GAP);
	RUN(OPS->matmul(BACKEND, y.tensor, x.tensor, false, weight.tensor, true, false));
	RUN(OPS->matmul(BACKEND, dx.tensor, dy.tensor, false, weight.tensor, false, false));
	RUN(OPS->matmul(BACKEND, dw.tensor, dy.tensor, true, x.tensor, false, false));
	operand_fetch(&y);
	operand_fetch(&dx);
	operand_fetch(&dw);
	expect_product(&y, &x, false, &weight, true);
	expect_product(&dx, &dy, false, &weight, false);
	expect_product(&dw, &dy, true, &x, false);
	operand_free(&weight, &x, &dy, &y, &dx, &dw, NULL);
}

static void test_linears(void **state)
{
	(void)state;
	linear_case(size(12288), size(4096), size(2048));
	linear_case(size(4096), size(11008), size(2048));
}

/* Rows of every panel, the first and the last among them. */
static void panels_case(int64_t rows, int64_t cols, int64_t tokens, int candidates)
{
	int bins = candidates - 1, checked = (SAMPLES + bins - 1) / bins;
	struct operand weight = operand_random(rows, cols, DTYPE_BF16, NO_GAP),
		       x = operand_random(tokens, cols, DTYPE_BF16, NO_GAP);
	struct operand dy = operand_random(tokens, rows, DTYPE_BF16, NO_GAP);
	struct operand bin = operand_input(integers(rows * cols, bins), rows, cols, DTYPE_U8, NO_GAP);
	struct operand sums = operand_output(rows, bins, DTYPE_F32, NO_GAP);
	double *out = doubles(checked * bins), *expected = doubles(checked * bins), *gradient = doubles(cols);
	RUN(OPS->binned_gradient(BACKEND, sums.tensor, dy.tensor, x.tensor, weight.tensor, bin.tensor, false));
	operand_fetch(&sums);
	for (int r = 0; r < checked; r++) {
		int64_t row = r * (rows - 1) / (checked - 1);
		memset(gradient, 0, (size_t)cols * sizeof *gradient);
		for (int64_t t = 0; t < tokens; t++)
			for (int64_t j = 0; j < cols; j++)
				gradient[j] += dy.value[t * rows + row] * x.value[t * cols + j];
		for (int64_t j = 0; j < cols; j++)
			expected[r * bins + (int64_t)bin.value[row * cols + j]] += gradient[j] * weight.value[row * cols + j];
		memcpy(out + r * bins, sums.value + row * bins, (size_t)bins * sizeof *out);
	}
	expect_close(out, expected, checked * bins, 1e-9, "binned_gradient %lld × [%lld, %lld]", (long long)tokens, (long long)rows,
		     (long long)cols);
	free(out);
	free(expected);
	free(gradient);
	operand_free(&weight, &x, &dy, &bin, &sums, NULL);
}

/* 96 MB hold 6,144 rows of 4,096 columns. */
static void test_panels(void **state)
{
	(void)state;
	panels_case(size(22016), size(4096), size(2048), 101);
	panels_case(size(4096), size(11008), size(2048), 256);
}

/* Rows of few columns: 8 rows a block of an elementwise kernel and 16 of the plain product make more than 65,535 blocks. */
static void test_many_blocks(void **state)
{
	enum { COLS = 8 };
	(void)state;
	int64_t rows = many(1 << 20) + 5;
	struct norm norm = {NORM_RMS, 1e-5f, 0, 1};
	struct operand x = operand_random(rows, COLS, DTYPE_F32, NO_GAP), y = operand_inout(rows, COLS, DTYPE_BF16, NO_GAP);
	struct operand w = operand_random(1, COLS, DTYPE_F32, NO_GAP), stats = operand_output(rows, 2, DTYPE_F32, NO_GAP);
	struct operand normed = operand_output(rows, COLS, DTYPE_F32, NO_GAP), product = operand_output(rows, 3, DTYPE_F32, NO_GAP);
	struct operand square = operand_random(3, COLS, DTYPE_F32, GAP), sums = operand_inout(1, COLS, DTYPE_F64, NO_GAP);
	struct operand target = operand_input(integers(rows, COLS), 1, rows, DTYPE_I32, NO_GAP);
	struct operand logprob = operand_output(1, rows, DTYPE_F64, NO_GAP),
		       activated = operand_output(rows, COLS, DTYPE_F32, NO_GAP);
	double *expected = doubles(rows * COLS), *expected_stats = doubles(rows * 2), *total = copy_of(sums.value, COLS);
	for (int64_t i = 0; i < rows * COLS; i++)
		expected[i] = round_to_type(y.value[i] + x.value[i], DTYPE_BF16);
	RUN(OPS->add(BACKEND, y.tensor, x.tensor));
	operand_fetch(&y);
	expect_close(y.value, expected, rows * COLS, 1e-5, "add over %lld rows", (long long)rows);
	ref_norm_forward(&norm, expected, expected_stats, x.value, w.value, NULL, rows, COLS);
	RUN(OPS->norm_forward(BACKEND, &norm, normed.tensor, stats.tensor, x.tensor, w.tensor, operand_none().tensor));
	operand_fetch(&normed);
	operand_fetch(&stats);
	expect_close(normed.value, expected, rows * COLS, 1e-9, "norm_forward over %lld rows", (long long)rows);
	ref_matmul(expected, x.value, false, square.value, true, rows, 3, COLS, false);
	RUN(OPS->matmul(BACKEND, product.tensor, x.tensor, false, square.tensor, true, false));
	operand_fetch(&product);
	expect_close(product.value, expected, rows * 3, 1e-9, "matmul over %lld rows", (long long)rows);
	for (int64_t i = 0; i < rows * COLS; i++)
		total[i % COLS] += x.value[i] * x.value[i];
	RUN(OPS->column_norms(BACKEND, sums.tensor.data, x.tensor));
	operand_fetch(&sums);
	expect_close(sums.value, total, COLS, 1e-9, "column_norms over %lld rows", (long long)rows);
	ref_token_logprobs(expected, x.value, target.value, 0, rows, COLS);
	RUN(OPS->token_logprobs(BACKEND, logprob.tensor.data, x.tensor, target.tensor.data, 0));
	operand_fetch(&logprob);
	expect_close(logprob.value, expected, rows, 1e-9, "token_logprobs over %lld rows", (long long)rows);
	for (int64_t i = 0; i < rows * COLS; i++)
		expected[i] = ref_activation(ACTIVATION_SILU, x.value[i]);
	RUN(OPS->activation_forward(BACKEND, (struct activation){.kind = ACTIVATION_SILU}, activated.tensor, x.tensor,
				    operand_none().tensor));
	operand_fetch(&activated);
	expect_close(activated.value, expected, rows * COLS, 1e-9, "activation_forward over %lld rows", (long long)rows);
	free(expected);
	free(expected_stats);
	free(total);
	operand_free(&x, &y, &w, &stats, &normed, &product, &square, &sums, &target, &logprob, &activated, NULL);
}

/* Hidden states that repeat after PERIOD rows, a prime: element (t, h) is pattern[t % PERIOD][h]. */
enum { PERIOD = 127 };

static struct tensor repeated(const struct operand *pattern, int64_t rows)
{
	int64_t cols = pattern->tensor.cols;
	struct tensor t = tensor_make(NULL, rows, cols, DTYPE_F32);
	RUN(OPS->alloc(BACKEND, tensor_bytes(&t), &t.data));
	for (int64_t first = 0; first < rows; first += PERIOD) {
		struct tensor to = tensor_rows(t, first, rows - first < PERIOD ? rows - first : PERIOD);
		RUN(OPS->copy(BACKEND, to.data, pattern->tensor.data, tensor_bytes(&to)));
	}
	return t;
}

/* Rows at the start, the end and about each half are compared whole, and at other places by chance. */
static int64_t sampled_row(int64_t rows, int s)
{
	const int64_t fixed[] = {0, 1, rows / 4, rows / 2 - 1, rows / 2, rows - 2, rows - 1};
	return s < (int)COUNT(fixed) ? fixed[s] : random_below((int)rows);
}

static void test_many_elements(void **state)
{
	enum { ROWS_CHECKED = 16 };
	(void)state;
	int64_t cols = size(4096), rows = many((int64_t)1 << 19) + 3; /* 2³¹ elements and more */
	struct norm norm = {NORM_RMS, 1e-5f, 0, 1};
	struct operand pattern = operand_random(PERIOD, cols, DTYPE_F32, NO_GAP), w = operand_random(1, cols, DTYPE_F32, NO_GAP);
	struct tensor x = repeated(&pattern, rows), y = tensor_make(NULL, rows, cols, DTYPE_BF16);
	struct tensor stats = tensor_make(NULL, rows, 2, DTYPE_F32);
	float *row = malloc((size_t)cols * sizeof *row), both[2];
	uint16_t *half = malloc((size_t)cols * sizeof *half);
	double *out = doubles(cols), *expected = doubles(cols), *doubled = doubles(cols);
	assert_true(row && half);
	RUN(OPS->alloc(BACKEND, tensor_bytes(&y), &y.data));
	RUN(OPS->alloc(BACKEND, tensor_bytes(&stats), &stats.data));
	RUN(OPS->norm_forward(BACKEND, &norm, y, stats, x, w.tensor, operand_none().tensor));
	RUN(OPS->add(BACKEND, x, y));
	for (int s = 0; s < ROWS_CHECKED; s++) {
		int64_t t = sampled_row(rows, s);
		const double *from = pattern.value + t % PERIOD * cols;
		double expected_stats[2];
		ref_norm_forward(&norm, expected, expected_stats, from, w.value, NULL, 1, cols);
		RUN(OPS->download(BACKEND, half, tensor_rows(y, t, 1).data, (size_t)cols * sizeof *half));
		RUN(OPS->download(BACKEND, row, tensor_rows(x, t, 1).data, (size_t)cols * sizeof *row));
		RUN(OPS->download(BACKEND, both, tensor_rows(stats, t, 1).data, sizeof both));
		for (int64_t i = 0; i < cols; i++) {
			uint32_t bits = (uint32_t)half[i] << 16;
			float value;
			memcpy(&value, &bits, sizeof value);
			out[i] = (double)value;
			doubled[i] = from[i] + out[i];
		}
		expect_close(out, expected, cols, 1e-5, "norm_forward, row %lld of %lld", (long long)t, (long long)rows);
		expect_close(&(double){(double)both[1]}, &expected_stats[1], 1, 1e-9, "1/σ of row %lld", (long long)t);
		for (int64_t i = 0; i < cols; i++)
			out[i] = (double)row[i];
		expect_close(out, doubled, cols, 1e-12, "add, row %lld of %lld", (long long)t, (long long)rows);
	}
	free(row);
	free(half);
	free(out);
	free(expected);
	free(doubled);
	OPS->release(BACKEND, x.data);
	OPS->release(BACKEND, y.data);
	OPS->release(BACKEND, stats.data);
	operand_free(&pattern, &w, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_linears),
		cmocka_unit_test(test_panels),
		cmocka_unit_test(test_many_blocks),
		cmocka_unit_test(test_many_elements),
	};
	return cmocka_run_group_tests(tests, say_sizes, test_backend_teardown);
}
