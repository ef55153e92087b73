/* The cycles of ViTCoD's array (engine/hardware/vitcod.h), against numbers by hand. Random and real masks are
 * tests/api/test_hardware.py's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/hardware/vitcod.h"

enum { BF16_BYTES = 2 };

static const uint16_t one = 0x3f80, minus_zero = 0x8000;

/* Of a bf16 matrix where `filled` says which weights are not zero. */
static struct vitcod_cost simulate(int64_t rows, int64_t cols, int64_t patch, bool (*filled)(int64_t row, int64_t col))
{
	uint16_t *data = calloc((size_t)(rows * cols) + 1, sizeof *data);
	struct nonzeros nonzeros;
	struct vitcod_cost cost;
	assert_non_null(data);
	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < cols; j++)
			data[i * cols + j] = filled(i, j) ? one : i % 2 ? minus_zero : 0;
	assert_int_equal(nonzeros_find(data, DTYPE_BF16, rows, cols, &nonzeros, NULL), STATUS_OK);
	assert_int_equal(vitcod_simulate(&nonzeros, patch, BF16_BYTES, &cost, NULL), STATUS_OK);
	nonzeros_free(&nonzeros);
	free(data);
	return cost;
}

static bool all(int64_t row, int64_t col)
{
	(void)row;
	(void)col;
	return true;
}

static bool none(int64_t row, int64_t col)
{
	(void)row;
	(void)col;
	return false;
}

static void cycles_are(const struct vitcod_cycles cycles[VITCOD_VARIANTS], int64_t published, int64_t corrected, int64_t memory)
{
	assert_int_equal(cycles[VITCOD_PUBLISHED].cycles, published);
	assert_int_equal(cycles[VITCOD_CORRECTED].cycles, corrected);
	assert_int_equal(cycles[VITCOD_MEMORY].cycles, memory);
}

static int64_t transfer(int64_t bytes) /* 153.6 bytes a cycle */
{
	return (bytes * 10 + 1535) / 1536;
}

/* LLaMA-7B: q_proj, gate_proj, and down_proj in its patches. The bus needs far longer than the PEs. */
static void test_dense_figures(void **state)
{
	(void)state;
	struct vitcod_cost cost = simulate(4096, 4096, 4096, all);
	cycles_are(cost.dense, 4096, 4096, transfer(4096 * 4096 * 2 + 2 * 2 * 4096));
	assert_int_equal(cost.dense[VITCOD_MEMORY].compute, 4096);
	/* All columns are dense, and a bit of each says so. */
	cycles_are(cost.pruned, 4096, 4096, transfer(4096 * 4096 * 2 + 2 * 2 * 4096 + 4096 / 8));
	assert_int_equal(cost.pruned[VITCOD_MEMORY].compute, 4096);

	cost = simulate(11008, 4096, 4096, all);
	assert_int_equal(cost.dense[VITCOD_PUBLISHED].cycles, 4096); /* the inputs in the place of the outputs */
	assert_int_equal(cost.dense[VITCOD_CORRECTED].cycles, 11008);
	assert_int_equal(cost.dense[VITCOD_MEMORY].compute, 11008);

	cost = simulate(4096, 11008, 4096, all);
	assert_int_equal(cost.dense[VITCOD_PUBLISHED].cycles, 4096 + 4096 + 1936);
	assert_int_equal(cost.pruned[VITCOD_PUBLISHED].cycles, 4096 + 4096 + 1936);
	assert_int_equal(cost.dense[VITCOD_CORRECTED].cycles, 11008);
	assert_int_equal(cost.dense[VITCOD_MEMORY].compute, 11008);
	assert_int_equal(cost.dense[VITCOD_MEMORY].transfer,
			 2 * transfer(4096 * 4096 * 2 + 4096 * 2) + transfer(4096 * 2816 * 2 + 2816 * 2 + 4096 * 2));
}

static void test_nothing_left(void **state)
{
	(void)state;
	struct vitcod_cost cost = simulate(128, 64, 64, none);
	/* The bitmap, which column is what, and the vectors still cross the bus. */
	cycles_are(cost.pruned, 0, 0, transfer(128 * 64 / 8 + 64 / 8 + 64 * 2 + 128 * 2));
	assert_int_equal(cost.pruned[VITCOD_MEMORY].compute, 0);
	cycles_are(cost.dense, 1, 2, transfer(128 * 64 * 2 + 64 * 2 + 128 * 2));
}

static void test_empty_matrix(void **state)
{
	(void)state;
	struct vitcod_cost cost = simulate(0, 0, 1, all);
	cycles_are(cost.pruned, 0, 0, 0);
	cycles_are(cost.dense, 0, 0, 0);
}

static bool half_of_columns(int64_t row, int64_t col)
{
	(void)row;
	return col % 2;
}

/* No sparse column has anything: sw = 0, and the array computes the dense ones alone. */
static void test_no_sparse_part(void **state)
{
	(void)state;
	struct vitcod_cost cost = simulate(256, 128, 128, half_of_columns);
	cycles_are(cost.pruned, 128 * 64 / 4096, 256 * 64 / 4096, transfer((256 * 64 + 128 + 256) * 2 + 256 * 64 / 8 + 128 / 8));
	assert_int_equal(cost.pruned[VITCOD_MEMORY].compute, 4);
}

/* One dense column, and of each other one the first 49 of 100 weights. */
static bool one_column_and_half(int64_t row, int64_t col)
{
	return col == 0 || row < 49;
}

/* Less than a 64th of the work is dense, at 0.5: dw = 0. At 0.4 all columns are, which takes longer. */
static void test_no_dense_part(void **state)
{
	(void)state;
	struct vitcod_cost cost = simulate(100, 1003, 1003, one_column_and_half);
	int64_t sparse = 1002 * 49;                                 /* 49098, and 12 · 4096 is 49152 */
	assert_int_equal(cost.pruned[VITCOD_PUBLISHED].cycles, 12); /* without the dense column … */
	assert_int_equal(cost.pruned[VITCOD_CORRECTED].cycles, 13); /* … and with it */
	/* The first 49 rows have 1003 weights and the others one: two groups of 64 rows, ⌈1003 / 64⌉ and ⌈1 / 64⌉. */
	assert_int_equal(cost.pruned[VITCOD_MEMORY].compute, 16 + 1);
	assert_int_equal(cost.pruned[VITCOD_MEMORY].transfer, transfer((sparse + 100 + 1003 + 100) * 2 + 12538 + 126));
}

static bool fuller_to_the_left(int64_t row, int64_t col)
{
	return row < (col < 64 ? 50 : 35); /* 50 and 35 of 100 */
}

/* t = 0.5 finds nothing dense (50 is not more than 50), t = 0.4 the left half of the columns, which hold 58.8 %: the last try. */
static void test_tries(void **state)
{
	(void)state;
	struct vitcod_cost cost = simulate(100, 128, 128, fuller_to_the_left);
	/* At 0.4: dw = ⌊64 · 6400 / (6400 + 2240)⌋ = 47, ⌈128 · 64 / (47 · 64)⌉ = 3 published, ⌈6400 / 3008⌉ = 3 corrected,
	 * ⌈2240 / (17 · 64)⌉ = 3; at 0.5 ⌈5440 / 4096⌉ = 2. */
	assert_int_equal(cost.pruned[VITCOD_PUBLISHED].cycles, 2);
	assert_int_equal(cost.pruned[VITCOD_CORRECTED].cycles, 2);
	/* A bitmap takes fewer bytes than columns stored whole. */
	assert_int_equal(cost.pruned[VITCOD_MEMORY].transfer, transfer(5440 * 2 + 100 * 128 / 8 + 128 / 8 + 128 * 2 + 100 * 2));
	assert_int_equal(cost.pruned[VITCOD_MEMORY].compute, 2); /* rows 0 to 34 have 128 of 64 PEs, those from 64 on none */
}

/* Patches are computed one after the other, each as if alone, but for the output, which is written once. */
static void test_patches(void **state)
{
	(void)state;
	struct vitcod_cost whole = simulate(100, 128, 100, fuller_to_the_left), first = simulate(100, 100, 100, fuller_to_the_left);
	struct vitcod_cost last = simulate(100, 28, 28, half_of_columns);
	assert_int_equal(whole.dense[VITCOD_PUBLISHED].cycles, 3 + 1);
	assert_int_equal(whole.dense[VITCOD_CORRECTED].cycles, 3 + 1);
	assert_int_equal(whole.dense[VITCOD_MEMORY].compute,
			 first.dense[VITCOD_MEMORY].compute + last.dense[VITCOD_MEMORY].compute);
	assert_int_equal(whole.dense[VITCOD_MEMORY].transfer,
			 transfer(100 * 100 * 2 + 100 * 2) + transfer(100 * 28 * 2 + 28 * 2 + 100 * 2));
	vitcod_add(&first, &last);
	assert_int_equal(first.dense[VITCOD_PUBLISHED].cycles, whole.dense[VITCOD_PUBLISHED].cycles);
}

static void test_types(void **state)
{
	(void)state;
	const float floats[] = {0, -0.0f, 1e-40f, -1};
	const uint16_t halves[] = {0x0001, 0x8000, 0, 0x7bff};
	struct nonzeros nonzeros;
	assert_int_equal(nonzeros_find(floats, DTYPE_F32, 2, 2, &nonzeros, NULL), STATUS_OK);
	assert_int_equal(nonzeros.bits[0], 0);
	assert_int_equal(nonzeros.bits[1], 3);
	nonzeros_free(&nonzeros);
	assert_int_equal(nonzeros_find(halves, DTYPE_F16, 1, 4, &nonzeros, NULL), STATUS_OK);
	assert_int_equal(nonzeros.bits[0], 9);
	nonzeros_free(&nonzeros);
	assert_int_equal(nonzeros_find(halves, DTYPE_U8, 1, 4, &nonzeros, NULL), STATUS_INTERNAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_dense_figures),  cmocka_unit_test(test_nothing_left),  cmocka_unit_test(test_empty_matrix),
		cmocka_unit_test(test_no_sparse_part), cmocka_unit_test(test_no_dense_part), cmocka_unit_test(test_tries),
		cmocka_unit_test(test_patches),        cmocka_unit_test(test_types),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
