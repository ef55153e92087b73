/* The operations of ADMM and of least squares on what is kept against a double-precision reference. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/backend/harness.h"

static const int64_t shapes[][2] = {{1, 1}, {3, 5}, {40, 32}, {17, 1096}, {130, 100}};

/* ---- scale and keep_where ---------------------------------------------------------------------------------------------------- */

static void scale_case(int64_t rows, int64_t cols, bool by_row, bool by_col, bool accumulate, int gap)
{
	struct operand y = operand_inout(rows, cols, DTYPE_F32, gap), x = operand_random(rows, cols, DTYPE_F32, GAP);
	struct operand r = operand_random(1, rows, DTYPE_F32, NO_GAP), c = operand_random(1, cols, DTYPE_F32, NO_GAP);
	double *expected = copy_of(y.value, rows * cols);
	const float factor = 0.3f;
	for (int64_t i = 0; i < rows * cols; i++) {
		double product = factor * x.value[i] * (by_row ? r.value[i / cols] : 1) * (by_col ? c.value[i % cols] : 1);
		expected[i] = (accumulate ? expected[i] : 0) + product;
	}
	RUN(OPS->scale(BACKEND, y.tensor, x.tensor, by_row ? r.tensor.data : NULL, by_col ? c.tensor.data : NULL, factor,
		       accumulate));
	operand_fetch(&y);
	expect_close(y.value, expected, rows * cols, bound_of(DTYPE_F32), "scale [%lld, %lld]%s%s%s", (long long)rows,
		     (long long)cols, by_row ? " by row" : "", by_col ? " by column" : "", accumulate ? " added" : "");
	free(expected);
	operand_free(&y, &x, &r, &c, NULL);
}

static void test_scale(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++)
		for (int how = 0; how < 8; how++)
			scale_case(shapes[i][0], shapes[i][1], how & 1, how & 2, how & 4, how % 3 ? GAP : NO_GAP);
}

static void test_scale_in_place(void **state)
{
	(void)state;
	struct operand y = operand_inout(20, 64, DTYPE_F32, NO_GAP), c = operand_random(1, 64, DTYPE_F32, NO_GAP);
	double *expected = copy_of(y.value, 20 * 64);
	for (int i = 0; i < 20 * 64; i++)
		expected[i] *= c.value[i % 64];
	RUN(OPS->scale(BACKEND, y.tensor, y.tensor, NULL, c.tensor.data, 1, false));
	operand_fetch(&y);
	expect_close(y.value, expected, 20 * 64, bound_of(DTYPE_F32), "scale in place");
	free(expected);
	operand_free(&y, &c, NULL);
}

/* About a third of it zeros. */
static struct operand sparse_operand(int64_t rows, int64_t cols, int gap)
{
	double *values = doubles(rows * cols);
	for (int64_t i = 0; i < rows * cols; i++)
		values[i] = random_below(3) ? random_normal() : 0;
	return operand_input(values, rows, cols, DTYPE_F32, gap);
}

static void test_keep_where(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++) {
		int64_t rows = shapes[i][0], cols = shapes[i][1];
		struct operand out = operand_output(rows, cols, DTYPE_F32, GAP), w = operand_random(rows, cols, DTYPE_F32, NO_GAP);
		struct operand support = sparse_operand(rows, cols, GAP);
		double *expected = doubles(rows * cols);
		for (int64_t k = 0; k < rows * cols; k++)
			expected[k] = support.value[k] != 0 ? w.value[k] : 0;
		RUN(OPS->keep_where(BACKEND, out.tensor, w.tensor, support.tensor));
		operand_fetch(&out);
		expect_equal(out.value, expected, rows * cols, "keep_where [%lld, %lld]", (long long)rows, (long long)cols);
		free(expected);
		operand_free(&out, &w, &support, NULL);
	}
}

/* ---- project ----------------------------------------------------------------------------------------------------------------- */

struct scored {
	double magnitude;
	int64_t place;
};

static int by_magnitude(const void *a, const void *b)
{
	const struct scored *x = a, *y = b;
	if (x->magnitude != y->magnitude) return x->magnitude < y->magnitude ? -1 : 1;
	return x->place < y->place ? -1 : 1;
}

/* Marks the `count` smallest of the n from `first` on that are candidates. */
static void mark(char *gone, const double *v, const char *candidate, int64_t first, int64_t n, int64_t count)
{
	struct scored *all = calloc((size_t)n, sizeof *all);
	int64_t found = 0;
	for (int64_t i = first; i < first + n; i++)
		if (candidate[i]) all[found++] = (struct scored){fabs(v[i]), i};
	qsort(all, (size_t)found, sizeof *all, by_magnitude);
	for (int64_t i = 0; i < count; i++)
		gone[all[i].place] = 1;
	free(all);
}

static char *ref_cut(const double *v, int64_t rows, int64_t cols, struct pattern pattern, int64_t zeros, const double *row_zeros)
{
	char *gone = calloc((size_t)(rows * cols), 1), *all = calloc((size_t)(rows * cols), 1);
	char *candidate = calloc((size_t)(rows * cols), 1);
	for (int64_t i = 0; i < rows * cols; i++)
		all[i] = 1;
	for (int64_t i = 0; i < rows * cols; i += pattern.of ? pattern.of : 1)
		mark(candidate, v, all, i, pattern.of ? pattern.of : 1, pattern.of ? pattern.of - pattern.keep : 1);
	if (!pattern.of && !row_zeros) mark(gone, v, candidate, 0, rows * cols, zeros);
	for (int64_t row = 0; row < rows && (pattern.of || row_zeros); row++)
		mark(gone, v, candidate, row * cols, cols, row_zeros ? (int64_t)row_zeros[row] : zeros);
	free(all);
	free(candidate);
	return gone;
}

enum ties { NO_TIES, TIES };

static void project_case(int64_t rows, int64_t cols, struct pattern pattern, int64_t zeros, bool by_row, enum ties ties, int gap)
{
	int64_t n = rows * cols, most = pattern.of ? cols / pattern.of * (pattern.of - pattern.keep) : cols;
	double *values = doubles(n), *v = doubles(n), *to_w = doubles(n), *to_u = doubles(n), *to_rhs = doubles(n);
	const float rho = 1.5f;
	for (int64_t i = 0; i < n; i++)
		values[i] = ties == TIES ? random_below(7) - 3 : random_normal();
	struct operand w = operand_input(values, rows, cols, DTYPE_F32, gap), b = operand_random(rows, cols, DTYPE_F32, gap);
	struct operand u = operand_input(ties == TIES ? integers(n, 3) : uniform(n, -1, 1), rows, cols, DTYPE_F32, NO_GAP);
	struct operand rhs = operand_output(rows, cols, DTYPE_F32, GAP);
	struct operand counts = operand_input(integers(rows, (int)most + 1), 1, rows, DTYPE_I32, NO_GAP);
	for (int64_t i = 0; i < n; i++)
		v[i] = (float)((float)w.value[i] + (float)u.value[i]);
	char *gone = ref_cut(v, rows, cols, pattern, zeros, by_row ? counts.value : NULL);
	for (int64_t i = 0; i < n; i++) {
		to_w[i] = gone[i] ? 0 : v[i];
		to_u[i] = gone[i] ? v[i] : 0;
		to_rhs[i] = b.value[i] + rho * (to_w[i] - to_u[i]);
	}
	w.input = u.input = false; /* they are changed in place */
	struct cut cut = {pattern, zeros, by_row ? counts.tensor.data : NULL};
	RUN(OPS->project(BACKEND, w.tensor, u.tensor, rhs.tensor, b.tensor, rho, &cut));
	operand_fetch(&w);
	operand_fetch(&u);
	operand_fetch(&rhs);
	expect_equal(w.value, to_w, n, "project, w [%lld, %lld] %lld zeros, %d:%d", (long long)rows, (long long)cols,
		     (long long)zeros, pattern.keep, pattern.of);
	expect_equal(u.value, to_u, n, "project, u [%lld, %lld] %lld zeros, %d:%d", (long long)rows, (long long)cols,
		     (long long)zeros, pattern.keep, pattern.of);
	expect_close(rhs.value, to_rhs, n, bound_of(DTYPE_F32), "project, rhs [%lld, %lld]", (long long)rows, (long long)cols);
	free(v);
	free(to_w);
	free(to_u);
	free(to_rhs);
	free(gone);
	operand_free(&w, &u, &rhs, &b, &counts, NULL);
}

static void test_project(void **state)
{
	const struct pattern none = {0, 0};
	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++) {
		int64_t rows = shapes[i][0], cols = shapes[i][1], n = rows * cols;
		int gap = i % 2 ? GAP : NO_GAP;
		project_case(rows, cols, none, n / 2, false, NO_TIES, gap);
		project_case(rows, cols, none, n * 7 / 10, false, NO_TIES, gap);
		project_case(rows, cols, none, n * 4 / 10, false, TIES, gap);
		project_case(rows, cols, none, 0, false, TIES, gap);
		project_case(rows, cols, none, n, false, TIES, gap);
		project_case(rows, cols, none, 0, true, NO_TIES, gap);
		project_case(rows, cols, none, 0, true, TIES, gap);
	}
}

static void test_project_in_a_pattern(void **state)
{
	static const struct pattern patterns[] = {{2, 4}, {4, 8}, {1, 4}, {3, 3}, {0, 2}, {16, 32}};
	(void)state;
	for (size_t i = 0; i < COUNT(patterns); i++) {
		int64_t groups = 21, cols = groups * patterns[i].of, most = groups * (patterns[i].of - patterns[i].keep);
		project_case(19, cols, patterns[i], most, false, NO_TIES, NO_GAP);
		project_case(19, cols, patterns[i], most / 2, false, TIES, GAP);
		project_case(5, cols, patterns[i], 0, false, TIES, GAP);
		project_case(5, cols, patterns[i], 0, true, TIES, NO_GAP);
	}
	project_case(3, 2048, patterns[0], 700, false, NO_TIES, NO_GAP);
}

/* Counts come from a device unchecked. */
static void test_project_of_absurd_counts(void **state)
{
	(void)state;
	double *counts = doubles(2);
	counts[0] = -5;
	counts[1] = 1000;
	struct operand row_zeros = operand_input(counts, 1, 2, DTYPE_I32, NO_GAP);
	struct operand w = operand_inout(2, 8, DTYPE_F32, NO_GAP), u = operand_input(doubles(16), 2, 8, DTYPE_F32, NO_GAP);
	struct operand b = operand_random(2, 8, DTYPE_F32, NO_GAP), rhs = operand_output(2, 8, DTYPE_F32, NO_GAP);
	double *before = copy_of(w.value, 16);
	struct cut cut = {{2, 4}, 0, row_zeros.tensor.data};
	u.input = false;
	RUN(OPS->project(BACKEND, w.tensor, u.tensor, rhs.tensor, b.tensor, 1, &cut));
	operand_fetch(&w);
	expect_equal(w.value, before, 8, "a row that loses less than nothing");
	int zeros = 0;
	for (int i = 8; i < 16; i++)
		zeros += w.value[i] == 0;
	assert_int_equal(zeros, 4);
	free(before);
	operand_free(&row_zeros, &w, &u, &b, &rhs, NULL);
}

/* ---- conjugate gradients ----------------------------------------------------------------------------------------------------- */

static void start_case(int64_t rows, int64_t cols, int gap)
{
	int64_t n = rows * cols;
	const float lambda = 0.25f;
	struct operand target = operand_random(rows, cols, DTYPE_F32, gap), product = operand_random(rows, cols, DTYPE_F32, NO_GAP);
	struct operand support = sparse_operand(rows, cols, gap),
		       diagonal = operand_input(uniform(cols, 0, 3), 1, cols, DTYPE_F32, NO_GAP);
	struct operand r = operand_output(rows, cols, DTYPE_F32, GAP), p = operand_output(rows, cols, DTYPE_F32, gap);
	struct operand energy = operand_output(1, rows, DTYPE_F32, NO_GAP);
	double *to_r = doubles(n), *to_p = doubles(n), *to_energy = doubles(rows);
	for (int64_t i = 0; i < n; i++) {
		to_r[i] = support.value[i] != 0 ? target.value[i] - product.value[i] : 0;
		to_p[i] = to_r[i] / (diagonal.value[i % cols] + lambda);
		to_energy[i / cols] += to_r[i] * to_p[i];
	}
	RUN(OPS->conjugate_start(BACKEND, r.tensor, p.tensor, energy.tensor.data, target.tensor, product.tensor, support.tensor,
				 diagonal.tensor, lambda));
	operand_fetch(&r);
	operand_fetch(&p);
	operand_fetch(&energy);
	expect_close(r.value, to_r, n, bound_of(DTYPE_F32), "conjugate_start, r [%lld, %lld]", (long long)rows, (long long)cols);
	expect_close(p.value, to_p, n, bound_of(DTYPE_F32), "conjugate_start, p [%lld, %lld]", (long long)rows, (long long)cols);
	expect_close(energy.value, to_energy, rows, bound_of(DTYPE_F32), "conjugate_start, energy [%lld]", (long long)rows);
	free(to_r);
	free(to_p);
	free(to_energy);
	operand_free(&target, &product, &support, &diagonal, &r, &p, &energy, NULL);
}

static void test_conjugate_start(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++)
		start_case(shapes[i][0], shapes[i][1], i % 2 ? GAP : NO_GAP);
}

/* In a row of zeros everything stays as it is. */
static void step_case(int64_t rows, int64_t cols, bool solved, int gap)
{
	int64_t n = rows * cols;
	const float lambda = 0.25f;
	struct operand support = sparse_operand(rows, cols, GAP), product = operand_random(rows, cols, DTYPE_F32, gap);
	struct operand diagonal = operand_input(uniform(cols, 0, 3), 1, cols, DTYPE_F32, NO_GAP);
	double *values = doubles(n), *rest = doubles(n);
	for (int64_t i = 0; i < n && !solved; i++) {
		/* along p, so that ⟨p, a⟩ is no difference of large numbers */
		values[i] = support.value[i] != 0 ? product.value[i] * random_uniform(0.5, 1) : 0;
		rest[i] = support.value[i] != 0 ? random_normal() : 0;
	}
	struct operand x = operand_inout(rows, cols, DTYPE_F32, gap), r = operand_input(rest, rows, cols, DTYPE_F32, NO_GAP);
	struct operand p = operand_input(values, rows, cols, DTYPE_F32, gap);
	struct operand energy = operand_input(solved ? doubles(rows) : uniform(rows, 0.5, 2), 1, rows, DTYPE_F32, NO_GAP);
	double *to_x = copy_of(x.value, n), *to_r = copy_of(r.value, n), *to_p = copy_of(p.value, n),
	       *to_energy = copy_of(energy.value, rows);
	for (int64_t row = 0; row < rows; row++) {
		double dot = 0, sum = 0;
		for (int64_t j = 0, i = row * cols; j < cols; j++, i++)
			dot += to_p[i] * (product.value[i] + lambda * to_p[i]);
		double alpha = to_energy[row] / fmax(dot, 1e-30);
		for (int64_t j = 0, i = row * cols; j < cols; j++, i++) {
			to_x[i] += alpha * to_p[i];
			to_r[i] -= support.value[i] != 0 ? alpha * (product.value[i] + lambda * to_p[i]) : 0;
			sum += to_r[i] * to_r[i] / (diagonal.value[j] + lambda);
		}
		for (int64_t j = 0, i = row * cols; j < cols; j++, i++)
			to_p[i] = to_r[i] / (diagonal.value[j] + lambda) + sum / fmax(to_energy[row], 1e-30) * to_p[i];
		to_energy[row] = sum;
	}
	r.input = p.input = energy.input = false; /* they are changed in place */
	RUN(OPS->conjugate_step(BACKEND, x.tensor, r.tensor, p.tensor, energy.tensor.data, product.tensor, support.tensor,
				diagonal.tensor, lambda));
	operand_fetch(&x);
	operand_fetch(&r);
	operand_fetch(&p);
	operand_fetch(&energy);
	expect_close(x.value, to_x, n, bound_of(DTYPE_F32), "conjugate_step, x [%lld, %lld]", (long long)rows, (long long)cols);
	expect_close(r.value, to_r, n, bound_of(DTYPE_F32), "conjugate_step, r [%lld, %lld]", (long long)rows, (long long)cols);
	expect_close(p.value, to_p, n, bound_of(DTYPE_F32), "conjugate_step, p [%lld, %lld]", (long long)rows, (long long)cols);
	expect_close(energy.value, to_energy, rows, bound_of(DTYPE_F32), "conjugate_step, energy [%lld]", (long long)rows);
	free(to_x);
	free(to_r);
	free(to_p);
	free(to_energy);
	operand_free(&support, &product, &diagonal, &x, &r, &p, &energy, NULL);
}

static void test_conjugate_step(void **state)
{
	(void)state;
	for (size_t i = 0; i < COUNT(shapes); i++) {
		step_case(shapes[i][0], shapes[i][1], false, i % 2 ? GAP : NO_GAP);
		step_case(shapes[i][0], shapes[i][1], true, i % 2 ? NO_GAP : GAP);
	}
}

/* As many steps as a row has elements of the support solve it: X·(G + λ·1) = T there. */
static void test_conjugate_gradients(void **state)
{
	enum { ROWS = 9, COLS = 24, N = ROWS * COLS };
	const float lambda = 0.5f;
	(void)state;
	double *gram = doubles(COLS * COLS), *factor = doubles((COLS + 4) * COLS), *diagonal_values = doubles(COLS);
	for (int i = 0; i < (COLS + 4) * COLS; i++)
		factor[i] = random_normal();
	for (int i = 0; i < COLS; i++)
		for (int j = 0; j < COLS; j++)
			for (int t = 0; t < COLS + 4; t++)
				gram[i * COLS + j] += factor[t * COLS + i] * factor[t * COLS + j];
	for (int i = 0; i < COLS; i++)
		diagonal_values[i] = gram[i * COLS + i];
	struct operand g = operand_input(gram, COLS, COLS, DTYPE_F32, NO_GAP), w = operand_random(ROWS, COLS, DTYPE_F32, NO_GAP);
	struct operand diagonal = operand_input(diagonal_values, 1, COLS, DTYPE_F32, NO_GAP);
	struct operand target = operand_random(ROWS, COLS, DTYPE_F32, NO_GAP), support = sparse_operand(ROWS, COLS, NO_GAP);
	struct operand x = operand_output(ROWS, COLS, DTYPE_F32, NO_GAP), r = operand_output(ROWS, COLS, DTYPE_F32, NO_GAP);
	struct operand p = operand_output(ROWS, COLS, DTYPE_F32, NO_GAP), product = operand_output(ROWS, COLS, DTYPE_F32, NO_GAP);
	struct operand energy = operand_output(1, ROWS, DTYPE_F32, NO_GAP);
	RUN(OPS->keep_where(BACKEND, x.tensor, w.tensor, support.tensor));
	RUN(OPS->matmul(BACKEND, product.tensor, x.tensor, false, g.tensor, false, false));
	RUN(OPS->conjugate_start(BACKEND, r.tensor, p.tensor, energy.tensor.data, target.tensor, product.tensor, support.tensor,
				 diagonal.tensor, lambda));
	for (int step = 0; step < COLS; step++) {
		RUN(OPS->matmul(BACKEND, product.tensor, p.tensor, false, g.tensor, false, false));
		RUN(OPS->conjugate_step(BACKEND, x.tensor, r.tensor, p.tensor, energy.tensor.data, product.tensor, support.tensor,
					diagonal.tensor, lambda));
	}
	operand_fetch(&x);
	double *left = doubles(N), *wanted = doubles(N);
	for (int row = 0; row < ROWS; row++)
		for (int j = 0; j < COLS; j++) {
			int i = row * COLS + j;
			if (support.value[i] == 0) {
				assert_true(x.value[i] == 0);
				continue;
			}
			wanted[i] = target.value[i] + lambda * w.value[i];
			left[i] = lambda * x.value[i];
			for (int k = 0; k < COLS; k++)
				left[i] += x.value[row * COLS + k] * g.value[k * COLS + j];
		}
	expect_close(left, wanted, N, 1e-7, "conjugate gradients to the end");
	free(factor);
	free(left);
	free(wanted);
	operand_fetch(&r);
	operand_fetch(&p);
	operand_fetch(&product);
	operand_fetch(&energy);
	operand_free(&g, &w, &diagonal, &target, &support, &x, &r, &p, &product, &energy, NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_scale),
					   cmocka_unit_test(test_scale_in_place),
					   cmocka_unit_test(test_keep_where),
					   cmocka_unit_test(test_project),
					   cmocka_unit_test(test_project_in_a_pattern),
					   cmocka_unit_test(test_project_of_absurd_counts),
					   cmocka_unit_test(test_conjugate_start),
					   cmocka_unit_test(test_conjugate_step),
					   cmocka_unit_test(test_conjugate_gradients)};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
