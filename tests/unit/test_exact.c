/* The exact count of zeros (engine/prune/exact.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "engine/prune/exact.h"

static const struct weight_names NAMES = {.o = "o", .gate = "gate", .up = "up", .down = "down"};
static const struct model_config CONFIG = {
	.names = &NAMES, .gated_mlp = true, .hidden = 37, .intermediate = 91, .heads = 5, .kv_heads = 1, .head_dim = 10};

static struct block_layout new_layout(void)
{
	struct block_layout layout;
	struct error err;
	assert_int_equal(block_layout_create(&CONFIG, &layout, &err), STATUS_OK);
	return layout;
}

static float *random_rates(const struct block_layout *layout, unsigned seed, float low, float high)
{
	float *rates = malloc((size_t)layout->rows * sizeof *rates);
	srand(seed);
	for (int64_t i = 0; i < layout->rows; i++)
		rates[i] = low + (high - low) * (float)rand() / (float)RAND_MAX;
	return rates;
}

static int32_t *new_thresholds(const struct block_layout *layout)
{
	size_t rows = (size_t)layout->rows;
	if (rows > 1 << 20) fail_msg("%zu rows", rows);
	return calloc(rows, sizeof(int32_t));
}

static int64_t columns_of(const struct block_layout *layout, int64_t row)
{
	int i = 0;
	while (row >= layout->linears[i].row + layout->linears[i].rows)
		i++;
	return layout->linears[i].cols;
}

static void check(const struct block_layout *layout, const float *rates, double target)
{
	struct error err;
	int32_t *thresholds = new_thresholds(layout);
	int64_t zeros = llround(target * (double)layout->params), sum = 0;
	assert_int_equal(exact_thresholds(layout, rates, zeros, thresholds, &err), STATUS_OK);
	for (int64_t i = 0; i < layout->rows; i++) {
		assert_true(thresholds[i] >= 0 && thresholds[i] <= columns_of(layout, i));
		sum += thresholds[i];
	}
	assert_int_equal(sum, zeros);
	free(thresholds);
}

static void test_hits_every_target(void **state)
{
	(void)state;
	struct block_layout layout = new_layout();
	for (unsigned seed = 1; seed <= 5; seed++) {
		float *rates = random_rates(&layout, seed, 0.1f, 0.9f);
		for (double target = 0.01; target < 0.96; target += 0.047)
			check(&layout, rates, target);
		free(rates);
	}
	block_layout_release(&layout);
}

/* Layer-wise: all rows of a linear share one rate, so a shift moves whole layers and the rest goes row by row. */
static void test_equal_rates(void **state)
{
	(void)state;
	struct block_layout layout = new_layout();
	float *rates = random_rates(&layout, 1, 0.5f, 0.5f);
	for (double target = 0.0; target <= 1.0; target += 0.0625)
		check(&layout, rates, target);
	free(rates);
	block_layout_release(&layout);
}

static void test_a_rate_that_needs_no_shift_stays(void **state)
{
	(void)state;
	struct block_layout layout = new_layout();
	struct error err;
	float *rates = random_rates(&layout, 3, 0.2f, 0.8f);
	int32_t *thresholds = new_thresholds(&layout);
	int64_t zeros = 0;
	for (int64_t i = 0; i < layout.rows; i++)
		zeros += (int64_t)floor((double)rates[i] * (double)columns_of(&layout, i));
	assert_int_equal(exact_thresholds(&layout, rates, zeros, thresholds, &err), STATUS_OK);
	for (int64_t i = 0; i < layout.rows; i++)
		assert_int_equal(thresholds[i], (int32_t)floor((double)rates[i] * (double)columns_of(&layout, i)));
	free(thresholds);
	free(rates);
	block_layout_release(&layout);
}

/* What a shift cannot split goes to the largest fraction first, then by layer, then by row. */
static void test_a_rate_that_is_no_number(void **state)
{
	(void)state;
	const float wrong[] = {NAN, INFINITY, -INFINITY};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
		struct block_layout layout = new_layout();
		float *rates = random_rates(&layout, 1, 0.4f, 0.6f);
		int32_t *thresholds = new_thresholds(&layout);
		struct error err;
		rates[7] = wrong[i];
		assert_int_equal(exact_thresholds(&layout, rates, layout.params / 2, thresholds, &err), STATUS_NUMERIC);
		assert_string_equal(err.message, "row 7: the rate that was learned is no number");
		free(thresholds);
		free(rates);
		block_layout_release(&layout);
	}
}

static void test_order_of_the_rest(void **state)
{
	(void)state;
	struct block_layout layout = new_layout();
	struct error err;
	float *rates = random_rates(&layout, 1, 0.5f, 0.5f);
	int32_t *base = new_thresholds(&layout), *more = new_thresholds(&layout);
	int64_t zeros = 0;
	for (int64_t i = 0; i < layout.rows; i++)
		zeros += columns_of(&layout, i) / 2;
	assert_int_equal(exact_thresholds(&layout, rates, zeros, base, &err), STATUS_OK);
	assert_int_equal(exact_thresholds(&layout, rates, zeros + 3, more, &err), STATUS_OK);
	int64_t given = 0, first = -1;
	for (int64_t i = 0; i < layout.rows; i++) {
		given += more[i] - base[i];
		if (more[i] != base[i] && first < 0) first = i;
	}
	assert_int_equal(given, 3);
	for (int64_t i = first; i < first + 3; i++)
		assert_int_equal(more[i], base[i] + 1);
	free(base);
	free(more);
	free(rates);
	block_layout_release(&layout);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_hits_every_target),
		cmocka_unit_test(test_equal_rates),
		cmocka_unit_test(test_a_rate_that_needs_no_shift_stays),
		cmocka_unit_test(test_a_rate_that_is_no_number),
		cmocka_unit_test(test_order_of_the_rest),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
