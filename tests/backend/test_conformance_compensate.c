/* The operations of pruning with compensation against a double-precision reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/prune/factor.h"
#include "tests/backend/harness.h"

/* ---- invert_factor ----------------------------------------------------------------------------------------------------------- */

/* A symmetric positive definite matrix: a Gram matrix of n + 3 random rows, and a little on its diagonal. */
static double *positive_definite(int64_t n)
{
	double *x = doubles((n + 3) * n), *a = doubles(n * n);
	for (int64_t i = 0; i < (n + 3) * n; i++)
		x[i] = random_normal();
	for (int64_t i = 0; i < n; i++)
		for (int64_t j = 0; j < n; j++) {
			for (int64_t t = 0; t < n + 3; t++)
				a[i * n + j] += x[t * n + i] * x[t * n + j];
			if (i == j) a[i * n + j] += 0.1 * (double)n;
		}
	free(x);
	return a;
}

/* V = R⁻¹ of a = R·Rᵀ is upper triangular with VᵀV = a⁻¹: VᵀV·a = 1 says so. */
static void factor_case(int64_t n, int gap)
{
	struct operand a = operand_input(positive_definite(n), n, n, DTYPE_F32, gap);
	struct operand inverse = operand_output(n, n, DTYPE_F32, gap), negated = operand_output(n, n, DTYPE_F32, NO_GAP);
	struct operand bad = operand_input(doubles(1), 1, 1, DTYPE_I32, NO_GAP);
	RUN(OPS->invert_factor(BACKEND, inverse.tensor, negated.tensor, a.tensor, bad.tensor.data));
	operand_fetch(&inverse);
	operand_fetch(&negated);
	double *product = doubles(n * n), *whole = doubles(n * n), *unit = doubles(n * n), *minus = doubles(n * n);
	for (int64_t i = 0; i < n; i++)
		for (int64_t j = 0; j < n; j++) {
			if (i > j) assert_true(inverse.value[i * n + j] == 0 && negated.value[i * n + j] == 0);
			minus[i * n + j] = -inverse.value[i * n + j];
			unit[i * n + j] = i == j;
			for (int64_t k = 0; k < n; k++)
				product[i * n + j] += inverse.value[k * n + i] * inverse.value[k * n + j];
		}
	for (int64_t i = 0; i < n; i++)
		for (int64_t j = 0; j < n; j++)
			for (int64_t k = 0; k < n; k++)
				whole[i * n + j] += product[i * n + k] * a.value[k * n + j];
	expect_close(whole, unit, n * n, 1e-9, "invert_factor [%lld]", (long long)n);
	expect_equal(negated.value, minus, n * n, "invert_factor, negated [%lld]", (long long)n);
	free(product);
	free(whole);
	free(unit);
	free(minus);
	operand_free(&a, &inverse, &negated, &bad, NULL);
}

static void test_invert_factor(void **state)
{
	static const int64_t sizes[] = {1, 2, 7, 32, 63, 64};
	(void)state;
	for (size_t i = 0; i < COUNT(sizes); i++)
		factor_case(sizes[i], i % 2 ? GAP : NO_GAP);
}

static void test_not_positive_definite(void **state)
{
	int32_t bad = 0;
	double *values = positive_definite(9);
	void *flag;
	(void)state;
	values[4 * 9 + 4] = -1;
	struct operand a = operand_input(values, 9, 9, DTYPE_F32, GAP), inverse = operand_inout(9, 9, DTYPE_F32, NO_GAP),
		       negated = operand_inout(9, 9, DTYPE_F32, NO_GAP);
	RUN(OPS->alloc(BACKEND, sizeof bad, &flag));
	RUN(OPS->zero(BACKEND, flag, sizeof bad));
	RUN(OPS->invert_factor(BACKEND, inverse.tensor, negated.tensor, a.tensor, flag));
	RUN(OPS->download(BACKEND, &bad, flag, sizeof bad));
	assert_int_equal(bad, 1);
	OPS->release(BACKEND, flag);
	operand_free(&a, &inverse, &negated, NULL);
}

/* ---- damping ----------------------------------------------------------------------------------------------------------------- */

enum { DAMPED = 2 * FACTOR_TILE + 21 };

static void fetch_factor(const struct factor *factor, float *ret)
{
	struct tensor flat = tensor_make(NULL, DAMPED, DAMPED, DTYPE_F32);
	RUN(OPS->alloc(BACKEND, tensor_bytes(&flat), &flat.data));
	RUN(OPS->convert(BACKEND, flat, factor_part(factor, 0, DAMPED, 0, DAMPED)));
	RUN(OPS->download(BACKEND, ret, flat.data, tensor_bytes(&flat)));
	OPS->release(BACKEND, flat.data);
}

/* Tokens that are all alike: fp32 needs more on the diagonal than is asked for. What was tried in vain is not left in the
 * matrix: the factor is the one of who asks for that much at once. */
static void test_damping_grows(void **state)
{
	static float grown[DAMPED * DAMPED], at_once[DAMPED * DAMPED];
	double *values = doubles(DAMPED * DAMPED), lambda = 1e-7;
	struct factor factor;
	struct error err;
	(void)state;
	for (int i = 0; i < DAMPED * DAMPED; i++)
		values[i] = (1 + i / DAMPED % 7) * (1 + i % DAMPED % 7);
	for (int once = 0; once < 2; once++) {
		struct operand a = operand_input(copy_of(values, DAMPED * DAMPED), DAMPED, DAMPED, DTYPE_F32, once ? NO_GAP : GAP);
		double before = lambda;
		assert_int_equal(factor_create(BACKEND, DAMPED + 3, &factor, &err), STATUS_OK);
		RUN(factor_damped(&factor, a.tensor, &lambda));
		assert_true(once ? lambda == before : lambda > before);
		fetch_factor(&factor, once ? at_once : grown);
		factor_release(&factor);
		a.input = false;
		operand_free(&a, NULL);
	}
	for (int i = 0; i < DAMPED * DAMPED; i++) {
		assert_true(isfinite(grown[i]));
		assert_true(grown[i] == at_once[i]);
	}
	free(values);
}

/* Inputs that are zero on every token. */
static void test_dead_columns(void **state)
{
	static const int dead[] = {3, FACTOR_TILE + 5};
	double *values = positive_definite(DAMPED), least = INFINITY;
	struct damping damping;
	struct factor factor;
	struct error err;
	(void)state;
	for (size_t d = 0; d < COUNT(dead); d++)
		for (int i = 0; i < DAMPED; i++)
			values[i * DAMPED + dead[d]] = values[dead[d] * DAMPED + i] = 0;
	struct operand a = operand_input(values, DAMPED, DAMPED, DTYPE_F32, NO_GAP);
	assert_int_equal(factor_create(BACKEND, DAMPED, &factor, &err), STATUS_OK);
	RUN(factor_compute(&factor, a.tensor, 0.01, &damping));
	assert_int_equal(damping.dead, 2);
	assert_true(damping.used == damping.asked && damping.asked == 0.01);
	RUN(factor_read_diagonal(&factor, DAMPED));
	for (size_t d = 0; d < COUNT(dead); d++)
		least = fmin(least, factor.host[dead[d]]);
	for (int i = 0; i < DAMPED; i++)
		assert_true(i == dead[0] || i == dead[1] || 100 * factor.host[i] < least);
	factor_release(&factor);
	a.input = false;
	operand_free(&a, NULL);
}

/* ---- prune_columns ----------------------------------------------------------------------------------------------------------- */

struct scored {
	float score;
	int64_t place;
};

static int by_score(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;
	if (x->score != y->score) return x->score < y->score ? -1 : 1;
	return x->place < y->place ? -1 : 1;
}

/* Scores are rounded to fp32, so that ties fall alike everywhere. */
static float score(double weight, double diagonal)
{
	float error = (float)weight / (float)diagonal;
	return error * error;
}

static void mark(char *gone, struct scored *scored, int64_t n, int64_t count)
{
	qsort(scored, (size_t)n, sizeof *scored, by_score);
	for (int64_t i = 0; i < n; i++)
		gone[scored[i].place] = i < count;
}

static void ref_prune_columns(double *w, double *minus, const double *u, int64_t rows, int64_t cols, int64_t zeros,
			      struct pattern pattern)
{
	struct scored *scored = calloc((size_t)(rows * cols), sizeof *scored);
	char *gone = calloc((size_t)(rows * cols), 1);
	for (int64_t i = 0; i < rows * cols; i++)
		scored[i] = (struct scored){score(w[i], u[i % cols * cols + i % cols]), i};
	if (!pattern.of) mark(gone, scored, rows * cols, zeros);
	for (int64_t row = 0; row < rows; row++)
		for (int64_t j = 0; j < cols; j++) {
			double *r = w + row * cols;
			for (int64_t k = j; pattern.of && j % pattern.of == 0 && k < j + pattern.of; k++)
				scored[k - j] = (struct scored){score(r[k], u[k * cols + k]), row * cols + k};
			if (pattern.of && j % pattern.of == 0) mark(gone, scored, pattern.of, pattern.of - pattern.keep);
			minus[row * cols + j] = 0;
			if (!gone[row * cols + j]) continue;
			double error = r[j] / u[j * cols + j];
			minus[row * cols + j] = -error;
			r[j] = 0;
			for (int64_t k = j + 1; k < cols; k++)
				r[k] -= error * u[j * cols + k];
		}
	free(scored);
	free(gone);
}

static double *upper_triangular(int64_t n)
{
	double *u = doubles(n * n);
	for (int64_t i = 0; i < n; i++)
		for (int64_t j = i; j < n; j++)
			u[i * n + j] = i == j ? random_uniform(0.5, 2) : 0.3 * random_normal();
	return u;
}

static void columns_case(int64_t rows, int64_t cols, int64_t zeros, struct pattern pattern, bool ties, int gap)
{
	double *values = doubles(rows * cols), *diagonal_only = NULL;
	for (int64_t i = 0; i < rows * cols; i++)
		values[i] = ties ? random_below(3) - 1 : random_normal();
	if (ties) { /* nothing spreads, so that what is equal stays so */
		diagonal_only = doubles(cols * cols);
		for (int64_t i = 0; i < cols; i++)
			diagonal_only[i * cols + i] = 1;
	}
	struct operand weight = operand_input(values, rows, cols, DTYPE_F32, gap);
	struct operand error = operand_output(rows, cols, DTYPE_F32, NO_GAP);
	struct operand factor = operand_input(ties ? diagonal_only : upper_triangular(cols), cols, cols, DTYPE_F32, gap);
	double *expected = copy_of(weight.value, rows * cols), *expected_error = doubles(rows * cols);
	int64_t found = 0, wanted = pattern.of ? rows * cols / pattern.of * (pattern.of - pattern.keep) : zeros;
	ref_prune_columns(expected, expected_error, factor.value, rows, cols, zeros, pattern);
	weight.input = false; /* it is changed in place */
	RUN(OPS->prune_columns(BACKEND, weight.tensor, error.tensor, factor.tensor, zeros, &pattern));
	operand_fetch(&weight);
	operand_fetch(&error);
	for (int64_t i = 0; i < rows * cols; i++)
		found += weight.value[i] == 0;
	if (!ties) assert_int_equal(found, wanted);
	expect_close(weight.value, expected, rows * cols, 1e-9, "prune_columns [%lld, %lld] %lld zeros, %d:%d%s", (long long)rows,
		     (long long)cols, (long long)zeros, pattern.keep, pattern.of, ties ? " with ties" : "");
	expect_close(error.value, expected_error, rows * cols, 1e-9, "prune_columns, error [%lld, %lld]", (long long)rows,
		     (long long)cols);
	free(expected);
	free(expected_error);
	operand_free(&weight, &error, &factor, NULL);
}

static void test_prune_columns(void **state)
{
	static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {40, 32}, {17, 128}, {130, 100}};
	const struct pattern none = {0, 0};
	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++) {
		int64_t rows = shapes[i][0], cols = shapes[i][1], n = rows * cols;
		int gap = i % 2 ? GAP : NO_GAP;
		columns_case(rows, cols, n / 2, none, false, gap);
		columns_case(rows, cols, n * 7 / 10, none, false, gap);
		columns_case(rows, cols, n * 4 / 10, none, true, gap);
		columns_case(rows, cols, 0, none, false, gap);
		columns_case(rows, cols, n, none, false, gap);
	}
}

static void test_prune_columns_in_a_pattern(void **state)
{
	static const struct pattern patterns[] = {{2, 4}, {4, 8}, {1, 4}, {3, 3}, {0, 2}, {16, 32}};
	(void)state;
	for (size_t i = 0; i < COUNT(patterns); i++) {
		int64_t cols = PRUNE_COLUMNS - PRUNE_COLUMNS % patterns[i].of;
		columns_case(19, cols, 0, patterns[i], false, i % 2 ? GAP : NO_GAP);
		columns_case(5, patterns[i].of, 0, patterns[i], true, NO_GAP);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_invert_factor), cmocka_unit_test(test_not_positive_definite),
					   cmocka_unit_test(test_damping_grows), cmocka_unit_test(test_dead_columns),
					   cmocka_unit_test(test_prune_columns), cmocka_unit_test(test_prune_columns_in_a_pattern)};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
