/* What test_conformance.c does for dense layers, for what pruning adds: importance, ranks, masks, rates, loss, optimizers. */
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

/* ---- importance, ranks, masks ------------------------------------------------------------------------------------------------ */

static void test_column_norms(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++) {
		for (int type = 0; type < 3; type++) {
			int64_t rows = row_shapes[shape][0], cols = row_shapes[shape][1];
			struct operand x = operand_random(rows, cols, float_types[type], shape % 2 ? GAP : NO_GAP);
			struct operand sums = operand_inout(1, cols, DTYPE_F64, NO_GAP);
			double *expected = copy_of(sums.value, cols);
			for (int64_t i = 0; i < rows * cols; i++)
				expected[i % cols] += x.value[i] * x.value[i];
			RUN(OPS->column_norms(BACKEND, sums.tensor.data, x.tensor));
			operand_fetch(&sums);
			expect_close(sums.value, expected, cols, 1e-9, "column_norms [%lld, %lld] %s", (long long)rows,
				     (long long)cols, float_names[type]);
			free(expected);
			operand_free(&x, &sums, NULL);
		}
	}
}

static void test_add_saliency(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int type = 0; type < 3; type++) {
			int64_t rows = row_shapes[shape][0], cols = row_shapes[shape][1];
			struct operand scores =
				operand_input(uniform(rows * cols, 0, 2), rows, cols, DTYPE_F32, type ? NO_GAP : GAP);
			struct operand gradient = operand_random(rows, cols, DTYPE_F32, GAP);
			struct operand weight = operand_random(rows, cols, float_types[type], NO_GAP);
			double *expected = copy_of(scores.value, rows * cols);
			for (int64_t i = 0; i < rows * cols; i++)
				expected[i] += fabs(weight.value[i] * gradient.value[i]);
			scores.input = false; /* it is changed in place */
			RUN(OPS->add_saliency(BACKEND, scores.tensor, gradient.tensor, weight.tensor));
			operand_fetch(&scores);
			expect_close(scores.value, expected, rows * cols, 1e-12, "add_saliency [%lld, %lld] %s", (long long)rows,
				     (long long)cols, float_names[type]);
			free(expected);
			operand_free(&scores, &gradient, &weight, NULL);
		}
}

/* Ranks in the whole row where `of` is 0. */
static void rank_case(int64_t rows, int64_t cols, enum dtype type, int gap, bool wanda, bool ties, int of)
{
	struct operand weight = operand_random(rows, cols, type, gap);
	if (ties) { /* few distinct importances, signed zeros among them */
		double *few = doubles(rows * cols);
		for (int64_t i = 0; i < rows * cols; i++)
			few[i] = random_below(4) * (random_below(2) ? 0.5 : -0.5);
		operand_free(&weight, NULL);
		weight = operand_input(few, rows, cols, type, gap);
	}
	struct operand sums = operand_input(ties ? integers(cols, 3) : uniform(cols, 0, 50), 1, cols, DTYPE_F64, NO_GAP);
	struct operand rank = operand_output(rows, cols, DTYPE_U16, gap);
	double *expected = doubles(rows * cols);
	enum importance importance = wanda ? IMPORTANCE_WANDA : IMPORTANCE_MAGNITUDE;
	const double *norms = wanda ? sums.value : NULL;
	const void *device_norms = wanda ? sums.tensor.data : NULL;
	if (of) {
		ref_rank_groups(expected, weight.value, norms, 7, rows, cols, of);
		RUN(OPS->rank_groups(BACKEND, importance, rank.tensor, weight.tensor, device_norms, 7, of));
	} else {
		ref_rank_rows(expected, weight.value, norms, 7, rows, cols);
		RUN(OPS->rank_rows(BACKEND, importance, rank.tensor, weight.tensor, device_norms, 7));
	}
	operand_fetch(&rank);
	expect_equal(rank.value, expected, rows * cols, "ranks of %d, [%lld, %lld] %s %s%s", of, (long long)rows, (long long)cols,
		     float_names[type], wanda ? "wanda" : "magnitude", ties ? " with ties" : "");
	free(expected);
	operand_free(&weight, &sums, &rank, NULL);
}

static void test_rank_rows(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int i = 0; i < 12; i++)
			rank_case(row_shapes[shape][0], row_shapes[shape][1], float_types[i % 3], i % 2 ? GAP : NO_GAP, i / 3 % 2,
				  i / 6, 0);
	rank_case(2, 65536, DTYPE_F32, NO_GAP, true, false, 0);
	rank_case(1, 65535, DTYPE_BF16, NO_GAP, false, false, 0);
}

static void test_rank_groups(void **state)
{
	static const int groups[] = {2, 3, 4, 8, 32};
	(void)state;
	for (size_t g = 0; g < COUNT(groups); g++)
		for (int i = 0; i < 12; i++)
			rank_case(1 + 5 * i, groups[g] * (1 + 7 * (i % 4)), float_types[i % 3], i % 2 ? GAP : NO_GAP, i / 3 % 2,
				  i / 6, groups[g]);
}

/* All that a float can be from 0 to infinity, and what only its last bits tell apart. */
static void test_rank_rows_of_any_range(void **state)
{
	enum { ROWS = 3, SPREADS = 4 };
	static const int64_t widths[] = {1, 7, 192, 2048, 65536};
	(void)state;
	for (size_t w = 0; w < COUNT(widths); w++)
		for (int spread = 0; spread < SPREADS; spread++) {
			int64_t count = ROWS * widths[w];
			double *value = doubles(count), *expected = doubles(count);
			for (int64_t i = 0; i < count; i++) {
				if (!spread)
					value[i] = random_below(20)
							   ? ldexp(1 + random_below(1 << 23) * 0x1p-23, random_below(277) - 149)
							   : (random_below(2) ? INFINITY : 0);
				else /* one value, or 3, or 5000 that follow each other */
					value[i] = 0.75 + random_below(spread == 1 ? 1 : spread == 2 ? 3 : 5000) * 0x1p-24;
				if (random_below(2)) value[i] = -value[i];
			}
			struct operand weight = operand_input(value, ROWS, widths[w], DTYPE_F32, GAP);
			struct operand rank = operand_output(ROWS, widths[w], DTYPE_U16, GAP);
			ref_rank_rows(expected, weight.value, NULL, 1, ROWS, widths[w]);
			RUN(OPS->rank_rows(BACKEND, IMPORTANCE_MAGNITUDE, rank.tensor, weight.tensor, NULL, 1));
			operand_fetch(&rank);
			expect_equal(rank.value, expected, count, "ranks of %lld columns, spread %d", (long long)widths[w], spread);
			free(expected);
			operand_free(&weight, &rank, NULL);
		}
}

static double *random_ranks(int64_t rows, int64_t cols)
{
	double *rank = doubles(rows * cols);
	for (int64_t row = 0; row < rows; row++) {
		double *r = rank + row * cols;
		for (int64_t j = 0; j < cols; j++) {
			int64_t other = random_below((int)j + 1);
			r[j] = r[other];
			r[other] = (double)j;
		}
	}
	return rank;
}

/* What is cut off of the candidates' rates: nothing, at either end, all but a little. */
static const int ends[][2] = {{0, 0}, {200000, 0}, {0, 700001}, {900000, 0}, {333333, 333333}, {999000, 999}};

static void test_bin_ranks(void **state)
{
	(void)state;
	static const int candidates[] = {2, 3, 21, 101, 256};
	for (size_t shape = 0; shape < ROW_SHAPES; shape++) {
		for (size_t i = 0; i < COUNT(candidates) * COUNT(ends); i++) {
			int64_t rows = row_shapes[shape][0], cols = row_shapes[shape][1];
			int count = candidates[i % COUNT(candidates)], below = ends[i / COUNT(candidates)][0],
			    above = ends[i / COUNT(candidates)][1];
			struct operand rank =
				operand_input(random_ranks(rows, cols), rows, cols, DTYPE_U16, shape % 2 ? GAP : NO_GAP);
			struct operand bin = operand_output(rows, cols, DTYPE_U8, shape % 2 ? NO_GAP : GAP);
			double *expected = doubles(rows * cols);
			ref_bin_ranks(expected, rank.value, count, below, above, rows, cols);
			RUN(OPS->bin_ranks(BACKEND, bin.tensor, rank.tensor, count, below, above));
			operand_fetch(&bin);
			expect_equal(bin.value, expected, rows * cols, "bin_ranks [%lld, %lld] D %d, %d and %d off",
				     (long long)rows, (long long)cols, count, below, above);
			free(expected);
			operand_free(&rank, &bin, NULL);
		}
	}
}

static void mask_case(int64_t rows, int64_t cols, enum dtype from, enum dtype to, int gap, bool shared, bool extreme)
{
	struct operand weight = operand_random(rows, cols, from, gap), out = operand_output(rows, cols, to, gap);
	struct operand rank = operand_input(random_ranks(rows, cols), rows, cols, DTYPE_U16, gap);
	int64_t thresholds = shared ? 1 : rows;
	double *limit = integers(thresholds, (int)cols + 1), *expected = doubles(rows * cols);
	for (int64_t i = 0; i < thresholds && extreme; i++)
		limit[i] = i % 2 ? 0 : (double)cols;
	struct operand threshold = operand_input(limit, 1, thresholds, DTYPE_I32, NO_GAP);
	for (int64_t i = 0; i < rows * cols; i++)
		expected[i] = rank.value[i] >= threshold.value[shared ? 0 : i / cols] ? round_to_type(weight.value[i], to) : 0;
	RUN(OPS->mask_weights(BACKEND, out.tensor, weight.tensor, rank.tensor, threshold.tensor.data, shared));
	operand_fetch(&out);
	expect_equal(out.value, expected, rows * cols, "mask_weights [%lld, %lld] %s to %s", (long long)rows, (long long)cols,
		     float_names[from], float_names[to]);
	for (int64_t i = 0; i < rows * cols; i++)
		assert_false(out.value[i] == 0 && signbit(out.value[i])); /* the zeros are +0 */
	free(expected);
	operand_free(&weight, &out, &rank, &threshold, NULL);
}

static void test_mask_weights(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int i = 0; i < 9; i++)
			mask_case(row_shapes[shape][0], row_shapes[shape][1], float_types[i % 3], float_types[i / 3],
				  (shape + (size_t)i) % 2 ? GAP : NO_GAP, (shape + (size_t)i) % 3 == 0, i % 4 == 0);
	for (int type = 0; type < 3; type++)
		mask_case(2, 65536, float_types[type], float_types[type], NO_GAP, false, true); /* a threshold beyond 16 bits */
}

/* Few distinct importances. */
static struct operand tied(int64_t rows, int64_t cols, enum dtype type, int gap)
{
	double *few = doubles(rows * cols);
	for (int64_t i = 0; i < rows * cols; i++)
		few[i] = (1 + random_below(3)) * (random_below(2) ? 0.5 : -0.5);
	return operand_input(few, rows, cols, type, gap);
}

/* The threshold of a row in the steps of a test: at random, the same, a little up or down, all or nothing, beyond that, a jump,
 * and by one. */
static double next_threshold(int step, int64_t row, double last, int64_t cols)
{
	int few = (int)(cols / 16);
	switch (step) {
	case 1:
		return last;
	case 2:
	case 6:
		return fmin((double)cols, fmax(0, last + random_below(2 * few + 1) - few));
	case 3:
		return row % 2 ? 0 : (double)cols;
	case 4:
		return row % 2 ? (double)cols + 5 : -3;
	case 7:
		return fmin((double)cols, last + 1);
	case 8:
		return fmax(0, last - 1);
	default:
		return random_below((int)cols + 1);
	}
}

static struct operand next_thresholds(int step, struct operand *last, int64_t thresholds, int64_t cols)
{
	double *limit = doubles(thresholds);
	for (int64_t i = 0; i < thresholds; i++)
		limit[i] = next_threshold(step, i, last->value ? last->value[i] : 0, cols);
	if (last->value) operand_free(last, NULL);
	return operand_input(limit, 1, thresholds, DTYPE_I32, NO_GAP);
}

/* Masks that move are, step by step, what they are written whole; and what has not moved is not written. */
static void move_case(int64_t rows, int64_t cols, enum dtype from, enum dtype to, int gap, bool shared, bool ties)
{
	enum { STEPS = 9 };
	struct operand weight = ties ? tied(rows, cols, from, gap) : operand_random(rows, cols, from, gap);
	struct operand rank = operand_output(rows, cols, DTYPE_U16, gap), order = operand_output(rows, cols, DTYPE_U16, gap);
	struct operand held = operand_input(doubles(rows), 1, rows, DTYPE_I32, NO_GAP), threshold = operand_none();
	struct operand moved = operand_output(rows, cols, to, gap), whole = operand_output(rows, cols, to, gap);
	struct operand other = operand_random(rows, cols, to, gap);
	int64_t thresholds = shared ? 1 : rows;
	held.input = false; /* it is changed in place */
	RUN(OPS->rank_rows(BACKEND, IMPORTANCE_MAGNITUDE, rank.tensor, weight.tensor, NULL, 1));
	RUN(OPS->order_ranks(BACKEND, order.tensor, rank.tensor));
	operand_fetch(&rank);
	operand_fetch(&order);
	for (int64_t i = 0; i < rows * cols; i++)
		assert_true(order.value[i / cols * cols + (int64_t)rank.value[i]] == (double)(i % cols));
	for (int step = 0; step < STEPS; step++) {
		threshold = next_thresholds(step, &threshold, thresholds, cols);
		RUN(OPS->mask_weights(BACKEND, whole.tensor, weight.tensor, rank.tensor, threshold.tensor.data, shared));
		RUN(OPS->move_mask(BACKEND, moved.tensor, weight.tensor, rank.tensor, order.tensor, held.tensor.data,
				   threshold.tensor.data, shared));
		operand_fetch(&whole);
		operand_fetch(&moved);
		operand_fetch(&held);
		if (memcmp(moved.value, whole.value, (size_t)(rows * cols) * sizeof *moved.value) != 0)
			fail_msg("move_mask [%lld, %lld] %s to %s, step %d", (long long)rows, (long long)cols, float_names[from],
				 float_names[to], step);
		for (int64_t r = 0; r < rows; r++)
			assert_true(held.value[r] == 1 + fmin((double)cols, fmax(0, threshold.value[shared ? 0 : r])));
	}
	double *last = copy_of(threshold.value, thresholds), *expected = copy_of(other.value, rows * cols);
	threshold = next_thresholds(2, &threshold, thresholds, cols);
	RUN(OPS->convert(BACKEND, moved.tensor, other.tensor));
	RUN(OPS->move_mask(BACKEND, moved.tensor, weight.tensor, rank.tensor, order.tensor, held.tensor.data, threshold.tensor.data,
			   shared));
	operand_fetch(&moved);
	for (int64_t i = 0; i < rows * cols; i++) {
		double was = last[shared ? 0 : i / cols], is = threshold.value[shared ? 0 : i / cols], at = rank.value[i];
		if (at >= was && at < is) expected[i] = 0;
		if (at < was && at >= is) expected[i] = round_to_type(weight.value[i], to);
	}
	expect_equal(moved.value, expected, rows * cols, "move_mask over others [%lld, %lld]", (long long)rows, (long long)cols);
	free(last);
	free(expected);
	operand_free(&weight, &rank, &order, &held, &threshold, &moved, &whole, &other, NULL);
}

static void test_move_mask(void **state)
{
	(void)state;
	if (!OPS->move_mask) skip();
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int i = 0; i < 9; i++)
			move_case(row_shapes[shape][0], row_shapes[shape][1], float_types[i % 3], float_types[i / 3],
				  (shape + (size_t)i) % 2 ? GAP : NO_GAP, (shape + (size_t)i) % 3 == 0, i % 4 == 0);
	move_case(19, 480, DTYPE_BF16, DTYPE_BF16, NO_GAP, false, true);
	move_case(2, 65535, DTYPE_BF16, DTYPE_BF16, NO_GAP, false, false);
	move_case(2, 65536, DTYPE_BF16, DTYPE_BF16, NO_GAP, false, true); /* a threshold beyond 16 bits */
}

static void binned_case(int64_t tokens, int64_t rows, int64_t cols, int candidates, enum dtype type, enum dtype weight_type,
			int gap, bool shared)
{
	int bins = candidates - 1;
	double *dy_values = doubles(tokens * rows); /* off centre, so that the few sums of few bins do not cancel */
	for (int64_t i = 0; i < tokens * rows; i++)
		dy_values[i] = 0.5 + random_normal();
	struct operand dy = operand_input(dy_values, tokens, rows, type, gap),
		       x = operand_input(uniform(tokens * cols, -0.5, 2), tokens, cols, type, gap);
	struct operand weight = operand_input(uniform(rows * cols, -1, 2), rows, cols, weight_type, gap);
	double *bins_of = integers(rows * cols, bins);
	for (int64_t i = 0; i < rows * cols; i++)
		if (random_below(5) == 0) bins_of[i] = BIN_NONE;
	struct operand bin = operand_input(bins_of, rows, cols, DTYPE_U8, gap);
	struct operand sums = operand_output(shared ? 1 : rows, bins, DTYPE_F32, gap);
	double *expected = doubles(rows * bins);
	ref_binned_gradient(expected, dy.value, x.value, weight.value, bin.value, tokens, rows, cols, bins, shared);
	RUN(OPS->binned_gradient(BACKEND, sums.tensor, dy.tensor, x.tensor, weight.tensor, bin.tensor, shared));
	operand_fetch(&sums);
	expect_close(sums.value, expected, (shared ? 1 : rows) * bins, 1e-9, "binned_gradient %lld × [%lld, %lld] D %d %s, W %s%s",
		     (long long)tokens, (long long)rows, (long long)cols, candidates, float_names[type], float_names[weight_type],
		     shared ? " shared" : "");
	free(expected);
	operand_free(&dy, &x, &weight, &bin, &sums, NULL);
}

static void test_binned_gradient(void **state)
{
	(void)state;
	static const int64_t shapes[][3] = {{1, 1, 1},     {9, 5, 7},     {33, 17, 65},  {64, 48, 130},
					    {20, 3, 1030}, {31, 70, 101}, {51, 110, 530}};
	for (size_t i = 0; i < COUNT(shapes); i++) {
		for (int type = 0; type < 3; type++) {
			for (int shared = 0; shared < 2; shared++) {
				const int64_t *s = shapes[i];
				int candidates = i % 3 == 0 ? 101 : i % 3 == 1 ? 2 : 256;
				binned_case(s[0], s[1], s[2], candidates, float_types[type], float_types[type],
					    i % 2 ? GAP : NO_GAP, shared);
				binned_case(s[0], s[1], s[2], candidates, float_types[type], DTYPE_F32, i % 2 ? NO_GAP : GAP,
					    shared);
			}
		}
	}
	binned_case(8, 40, 33000, 101, DTYPE_F32, DTYPE_BF16, NO_GAP, false); /* too large for one panel */
	binned_case(8, 40, 33000, 101, DTYPE_F32, DTYPE_F32, NO_GAP, true);
}

/* ---- rates, loss, optimizers ------------------------------------------------------------------------------------------------- */

static void rates_case(int64_t groups, int candidates, enum parameterization parameterization, double spread, int gap, int below,
		       int above)
{
	double *share_values = uniform(groups, 0.1, 1), total = 0, target = random_uniform(0.1, 0.9), lambda = 5;
	for (int64_t g = 0; g < groups; g++)
		total += share_values[g];
	for (int64_t g = 0; g < groups; g++)
		share_values[g] /= total;
	double *col_values = integers(groups, 6000), *theta_values = doubles(groups * candidates);
	for (int64_t i = 0; i < groups * candidates; i++)
		theta_values[i] = spread * random_normal();
	struct operand cols = operand_input(col_values, 1, groups, DTYPE_I32, NO_GAP);
	struct operand share = operand_input(share_values, 1, groups, DTYPE_F64, NO_GAP);
	struct operand theta = operand_input(theta_values, groups, candidates, DTYPE_F32, gap);
	struct operand beta = operand_output(groups, candidates, DTYPE_F32, gap), s = operand_output(1, groups, DTYPE_F32, NO_GAP);
	struct operand threshold = operand_output(1, groups, DTYPE_I32, NO_GAP);
	struct operand stats = operand_inout(1, STEP_STATS, DTYPE_F64, NO_GAP);
	double reconstruction = stats.value[STEP_RECONSTRUCTION];
	struct rates rates = {parameterization, candidates, groups, cols.tensor.data, share.tensor.data, below, above};
	struct ref_rates ref = {parameterization, candidates, groups, cols.value, share.value, below, above};
	double *expected = doubles(groups * candidates), *expected_s = doubles(groups);
	double sparsity = ref_rates_forward(&ref, expected, expected_s, theta.value);
	double slope = 2 * lambda * (sparsity - target) / (target * target);
	RUN(OPS->rates_forward(BACKEND, &rates, beta.tensor, s.tensor.data, threshold.tensor.data, stats.tensor.data, theta.tensor,
			       target, lambda));
	operand_fetch(&beta);
	operand_fetch(&s);
	operand_fetch(&threshold);
	operand_fetch(&stats);
	expect_close(beta.value, expected, groups * candidates, 1e-9, "rates_forward β, %lld × %d", (long long)groups, candidates);
	expect_close(s.value, expected_s, groups, 1e-9, "rates_forward s, %lld × %d", (long long)groups, candidates);
	for (int64_t g = 0; g < groups; g++)
		expected_s[g] = floor(s.value[g] * cols.value[g]);
	expect_equal(threshold.value, expected_s, groups, "rates_forward threshold, %lld × %d", (long long)groups, candidates);
	expect_close(&stats.value[STEP_SPARSITY], &sparsity, 1, 1e-11, "rates_forward ŝ");
	assert_true(fabs(stats.value[STEP_SLOPE] - slope) <= 1e-5 * 2 * lambda / (target * target));
	assert_true(stats.value[STEP_RECONSTRUCTION] == reconstruction);

	struct operand sums = operand_random(groups, candidates - 1, DTYPE_F32, gap);
	struct operand beta_in = operand_input(copy_of(expected, groups * candidates), groups, candidates, DTYPE_F32, gap);
	struct operand dtheta = operand_output(groups, candidates, DTYPE_F32, gap);
	stats.value[STEP_SLOPE] = slope;
	struct operand stats_in = operand_input(copy_of(stats.value, STEP_STATS), 1, STEP_STATS, DTYPE_F64, NO_GAP);
	ref_rates_backward(&ref, expected, theta.value, sums.value, slope);
	RUN(OPS->rates_backward(BACKEND, &rates, dtheta.tensor, theta.tensor, beta_in.tensor, sums.tensor, stats_in.tensor.data));
	operand_fetch(&dtheta);
	expect_close(dtheta.value, expected, groups * candidates, 1e-9, "rates_backward %lld × %d", (long long)groups, candidates);
	free(expected);
	free(expected_s);
	operand_free(&cols, &share, &theta, &beta, &s, &threshold, &stats, &sums, &beta_in, &dtheta, &stats_in, NULL);
}

static void test_rates(void **state)
{
	(void)state;
	static const int64_t groups[] = {1, 3, 7, 200};
	static const int candidates[] = {2, 11, 101, 256};
	for (size_t i = 0; i < COUNT(groups); i++)
		for (size_t j = 0; j < COUNT(candidates); j++)
			for (int p = 0; p < 2; p++)
				rates_case(groups[i], candidates[j], p ? PARAM_SOFTMAX : PARAM_SIGMOID,
					   j % 2 || candidates[j] == 2 ? 1 : 6, (i + j) % 2 ? GAP : NO_GAP,
					   ends[(i + j) % COUNT(ends)][0], ends[(i + j) % COUNT(ends)][1]);
}

/* θ = 0 gives s = 0.5 and so exactly half of an even row, on every backend. */
static void test_rates_start(void **state)
{
	(void)state;
	static const int columns[] = {192, 512, 160, 448, 2048, 5632, 4096, 11008};
	enum { GROUPS = COUNT(columns), CANDIDATES = 101 };
	double *col_values = doubles(GROUPS), *share_values = doubles(GROUPS);
	for (int g = 0; g < GROUPS; g++) {
		col_values[g] = columns[g];
		share_values[g] = 1.0 / GROUPS;
	}
	struct operand cols = operand_input(col_values, 1, GROUPS, DTYPE_I32, NO_GAP);
	struct operand share = operand_input(share_values, 1, GROUPS, DTYPE_F64, NO_GAP);
	struct operand theta = operand_input(doubles(GROUPS * CANDIDATES), GROUPS, CANDIDATES, DTYPE_F32, NO_GAP);
	struct operand beta = operand_output(GROUPS, CANDIDATES, DTYPE_F32, NO_GAP),
		       s = operand_output(1, GROUPS, DTYPE_F32, NO_GAP);
	struct operand threshold = operand_output(1, GROUPS, DTYPE_I32, NO_GAP);
	struct operand stats = operand_inout(1, STEP_STATS, DTYPE_F64, NO_GAP);
	struct rates rates = {PARAM_SIGMOID, CANDIDATES, GROUPS, cols.tensor.data, share.tensor.data, 0, 0};
	RUN(OPS->rates_forward(BACKEND, &rates, beta.tensor, s.tensor.data, threshold.tensor.data, stats.tensor.data, theta.tensor,
			       0.5, 5));
	operand_fetch(&threshold);
	for (int g = 0; g < GROUPS; g++)
		assert_int_equal((int)threshold.value[g], columns[g] / 2);
	operand_free(&cols, &share, &theta, &beta, &s, &threshold, &stats, NULL);
}

static void reconstruction_case(int64_t rows, int64_t cols, enum dtype y_type, enum dtype ref_type, enum dtype dy_type, int gap,
				bool dead)
{
	struct operand ref = operand_random(rows, cols, ref_type, gap);
	if (dead) { /* a channel of norm 0 adds nothing */
		double *value = copy_of(ref.value, rows * cols);
		for (int64_t t = 0; t < rows; t++)
			value[t * cols + cols / 2] = 0;
		operand_free(&ref, NULL);
		ref = operand_input(value, rows, cols, ref_type, gap);
	}
	struct operand y = operand_random(rows, cols, y_type, gap), dy = operand_output(rows, cols, dy_type, gap);
	struct operand stats = operand_inout(1, STEP_STATS, DTYPE_F64, NO_GAP);
	double before = stats.value[STEP_RECONSTRUCTION], sparsity = stats.value[STEP_SPARSITY];
	double *expected = doubles(rows * cols), loss = ref_reconstruction(expected, y.value, ref.value, rows, cols);
	RUN(OPS->reconstruction(BACKEND, stats.tensor.data, dy.tensor, y.tensor, ref.tensor, true));
	operand_fetch(&stats);
	operand_fetch(&dy);
	expect_close(&stats.value[STEP_RECONSTRUCTION], &(double){before + loss}, 1, 1e-12, "reconstruction [%lld, %lld], added",
		     (long long)rows, (long long)cols);
	assert_true(stats.value[STEP_SPARSITY] == sparsity);
	expect_close(dy.value, expected, rows * cols, bound_of(dy_type), "reconstruction dy [%lld, %lld] %s %s", (long long)rows,
		     (long long)cols, float_names[y_type], float_names[ref_type]);
	RUN(OPS->reconstruction(BACKEND, stats.tensor.data, operand_none().tensor, y.tensor, ref.tensor, false));
	operand_free(&dy, NULL);
	dy = operand_none();
	double now[STEP_STATS];
	RUN(OPS->download(BACKEND, now, stats.tensor.data, sizeof now));
	expect_close(&now[STEP_RECONSTRUCTION], &loss, 1, 1e-12, "reconstruction [%lld, %lld]", (long long)rows, (long long)cols);
	free(expected);
	operand_free(&ref, &y, &stats, NULL);
}

static void test_reconstruction(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int i = 0; i < 9; i++)
			reconstruction_case(row_shapes[shape][0], row_shapes[shape][1], float_types[i % 3], float_types[i / 3],
					    float_types[(shape + (size_t)i) % 3 == 2 ? 1 : 0],
					    (shape + (size_t)i) % 2 ? GAP : NO_GAP, row_shapes[shape][1] > 1 && i % 2);
}

/* Each step starts from what the backend made of the one before: θ in fp32 rounds away most of a step of 1e-6, which is no
 * error. */
static void prodigy_case(int64_t n, double d0, double d_coef, int steps)
{
	struct prodigy prodigy = {0.9f, 0.999f, 1e-8f, d_coef};
	double *state_values = doubles(PRODIGY_STATE);
	state_values[PRODIGY_D] = state_values[PRODIGY_D_MAX] = state_values[PRODIGY_D0] = d0;
	double *initial = doubles(n);
	for (int64_t i = 0; i < n; i++)
		initial[i] = 0.1 * random_normal();
	struct operand theta0 = operand_input(initial, 1, n, DTYPE_F32, NO_GAP);
	struct operand theta = operand_input(copy_of(theta0.value, n), 1, n, DTYPE_F32, NO_GAP);
	struct operand m = operand_input(doubles(n), 1, n, DTYPE_F32, NO_GAP),
		       v = operand_input(doubles(n), 1, n, DTYPE_F32, NO_GAP);
	struct operand s = operand_input(doubles(n), 1, n, DTYPE_F32, NO_GAP);
	struct operand state = operand_input(state_values, 1, PRODIGY_STATE, DTYPE_F64, NO_GAP);
	struct operand *changing[] = {&theta, &m, &v, &s, &state};
	static const char *const names[] = {"θ", "m", "v", "s", "state"};
	for (size_t i = 0; i < COUNT(changing); i++)
		changing[i]->input = false;
	for (int step = 0; step < steps; step++) {
		double *pull = doubles(n); /* towards a far point, so that the estimate of the distance grows */
		for (int64_t i = 0; i < n; i++)
			pull[i] = step ? theta.value[i] - 1 + 0.3 * random_normal() : -1;
		struct operand gradient = operand_input(pull, 1, n, DTYPE_F32, NO_GAP);
		double *expected[COUNT(changing)];
		for (size_t i = 0; i < COUNT(changing); i++)
			expected[i] = copy_of(changing[i]->value, changing[i]->tensor.cols);
		ref_prodigy_step(&prodigy, n, expected[0], theta0.value, expected[1], expected[2], expected[3], gradient.value,
				 expected[4]);
		RUN(OPS->prodigy_step(BACKEND, &prodigy, n, theta.tensor.data, theta0.tensor.data, m.tensor.data, v.tensor.data,
				      s.tensor.data, gradient.tensor.data, state.tensor.data));
		for (size_t i = 0; i < COUNT(changing); i++) {
			operand_fetch(changing[i]);
			if (changing[i] != &state)
				expect_close(changing[i]->value, expected[i], n, 1e-9, "prodigy_step %s, n %lld", names[i],
					     (long long)n);
			else
				for (int j = 0; j < PRODIGY_STATE; j++)
					expect_close(&state.value[j], &expected[i][j], 1, 1e-12, "prodigy_step state %d, n %lld", j,
						     (long long)n);
			free(expected[i]);
		}
		operand_free(&gradient, NULL);
	}
	if (steps > 2) assert_true(state.value[PRODIGY_D] > d0);
	operand_free(&theta0, &theta, &m, &v, &s, &state, NULL);
}

static void test_prodigy(void **state)
{
	(void)state;
	prodigy_case(1, 1e-2, 1, 6);
	prodigy_case(7, 1e-3, 5, 6);
	prodigy_case(4096, 1e-6, 5, 12);
	prodigy_case(10001, 1e-2, 2, 5);
	prodigy_case(10001, 1e-6, 50, 3);
}

/* With no gradient so far there is no estimate: nothing moves, and r stays as it is. */
static void test_prodigy_without_gradient(void **state)
{
	(void)state;
	enum { N = 100 };
	struct prodigy prodigy = {0.9f, 0.999f, 1e-8f, 5};
	static const double start[PRODIGY_STATE] = {
		[PRODIGY_D] = 1e-6, [PRODIGY_D_MAX] = 1e-6, [PRODIGY_D0] = 1e-6, [PRODIGY_R] = 0.25};
	struct operand theta = operand_random(1, N, DTYPE_F32, NO_GAP);
	struct operand theta0 = operand_random(1, N, DTYPE_F32, NO_GAP),
		       gradient = operand_input(doubles(N), 1, N, DTYPE_F32, NO_GAP);
	struct operand m = operand_input(doubles(N), 1, N, DTYPE_F32, NO_GAP),
		       v = operand_input(doubles(N), 1, N, DTYPE_F32, NO_GAP);
	struct operand s = operand_input(doubles(N), 1, N, DTYPE_F32, NO_GAP);
	struct operand prodigy_state = operand_input(copy_of(start, PRODIGY_STATE), 1, PRODIGY_STATE, DTYPE_F64, NO_GAP);
	RUN(OPS->prodigy_step(BACKEND, &prodigy, N, theta.tensor.data, theta0.tensor.data, m.tensor.data, v.tensor.data,
			      s.tensor.data, gradient.tensor.data, prodigy_state.tensor.data));
	operand_free(&theta, &theta0, &gradient, &m, &v, &s, &prodigy_state, NULL); /* finds all of them unchanged */
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_column_norms),
		cmocka_unit_test(test_add_saliency),
		cmocka_unit_test(test_rank_rows),
		cmocka_unit_test(test_rank_groups),
		cmocka_unit_test(test_bin_ranks),
		cmocka_unit_test(test_mask_weights),
		cmocka_unit_test(test_move_mask),
		cmocka_unit_test(test_binned_gradient),
		cmocka_unit_test(test_rates),
		cmocka_unit_test(test_rates_start),
		cmocka_unit_test(test_reconstruction),
		cmocka_unit_test(test_prodigy),
		cmocka_unit_test(test_prodigy_without_gradient),
		cmocka_unit_test(test_rank_rows_of_any_range),
	};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
