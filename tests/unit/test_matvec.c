/* Products with one vector (engine/sparse/matvec.h): every kernel that this processor runs against double precision, dense and
 * sparse. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/products.h"

#include "engine/compute/half.h"
#include "engine/sparse/matvec.h"

enum { MOST_ROWS = 70, MOST_COLS = 700, MOST_THREADS = 5 };
static const float not_written = 12345;

struct example {
	int64_t rows, cols;
	uint16_t *dense, *x;
	double *exact, *size; /* [rows]: the product, and the sum of the magnitudes that it adds */
	float *y;
	void *memory;
	struct sparse_matrix packed;
};

static void make_example(int64_t rows, int64_t cols, struct example *ret)
{
	struct example e = {.rows = rows,
			    .cols = cols,
			    .dense = calloc((size_t)(rows * cols), sizeof *e.dense),
			    .x = calloc((size_t)matvec_length(cols), sizeof *e.x),
			    .exact = calloc((size_t)rows, sizeof *e.exact),
			    .size = calloc((size_t)rows, sizeof *e.size),
			    .y = calloc((size_t)rows, sizeof *e.y)};
	float *values = calloc((size_t)cols, sizeof *values);
	struct sequence random = {(uint64_t)(rows * 1000 + cols), 0};
	for (int64_t j = 0; j < cols; j++)
		values[j] = (float)(2 * uniform(&random) - 1);
	matvec_input(values, cols, e.x);
	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < cols; j++) {
			uint16_t *weight = &e.dense[i * cols + j];
			/* Zeros of either sign, or a number of either. */
			*weight = (uint16_t)(uniform(&random) < 0.5 ? 0x8000 : 0);
			if (uniform(&random) < density_of(i)) *weight |= (uint16_t)(0x3c00 + 0x3ff * uniform(&random));
			double product = (double)bf16_to_f32(*weight) * (double)bf16_to_f32(e.x[j]);
			e.exact[i] += product;
			e.size[i] += fabs(product);
		}
	free(values);
	e.memory = matvec_allocate((size_t)sparse_memory(e.dense, rows, cols));
	assert_non_null(e.memory);
	e.packed = sparse_pack(e.dense, rows, cols, e.memory);
	*ret = e;
}

static void free_example(struct example *e)
{
	free(e->memory);
	free(e->dense);
	free(e->x);
	free(e->exact);
	free(e->size);
	free(e->y);
}

/* Sums of n terms in fp32, in any order, are off by at most n · 2⁻²⁴ of the magnitudes. */
static void check(const struct example *e, const char *kernels, const char *what)
{
	for (int64_t i = 0; i < e->rows; i++)
		if (!(fabs((double)e->y[i] - e->exact[i]) <= (double)(e->cols + 8) * 0x1p-24 * e->size[i]))
			fail_msg("%s %s [%d, %d]: row %d is %.9g, not %.9g", kernels, what, (int)e->rows, (int)e->cols, (int)i,
				 (double)e->y[i], e->exact[i]);
}

static void clear(struct example *e)
{
	for (int64_t i = 0; i < e->rows; i++)
		e->y[i] = not_written;
}

static void check_kernels(struct example *e, const struct matvec_kernels *kernels)
{
	clear(e);
	kernels->dense(e->dense, e->cols, e->x, e->y, 0, e->rows);
	check(e, kernels->name, "dense");
	clear(e);
	kernels->sparse(&e->packed, e->x, e->y, 0, e->packed.blocks);
	check(e, kernels->name, "sparse");
}

static void test_kernels(void **state)
{
	(void)state;
	const int64_t rows[] = {1, 2, 15, 16, 17, MOST_ROWS};
	const int64_t cols[] = {1, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 192, 200, 256, MOST_COLS};
	for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
		for (size_t c = 0; c < sizeof cols / sizeof *cols; c++) {
			struct example example;
			make_example(rows[r], cols[c], &example);
			for (int k = 0; matvec_kernels(k); k++)
				check_kernels(&example, matvec_kernels(k));
			free_example(&example);
		}
}

/* The first blocks and the last are left alone by a share between them. */
static void test_shares(void **state)
{
	(void)state;
	struct example example;
	make_example(MOST_ROWS, MOST_COLS, &example);
	for (int k = 0; matvec_kernels(k); k++) {
		clear(&example);
		matvec_kernels(k)->sparse(&example.packed, example.x, example.y, 1, 3);
		for (int i = 0; i < MOST_ROWS; i++) {
			bool written = example.y[i] != not_written;
			assert_int_equal(written, i >= SPARSE_BLOCK_ROWS && i < 3 * SPARSE_BLOCK_ROWS);
		}
	}
	free_example(&example);
}

static void test_threads(void **state)
{
	(void)state;
	for (int threads = 1; threads <= MOST_THREADS; threads++) {
		struct example example;
		make_example(MOST_ROWS, 129, &example);
		clear(&example);
		sparse_matvec(&example.packed, example.x, example.y, threads);
		check(&example, "threads", "sparse");
		clear(&example);
		dense_matvec(example.dense, example.rows, example.cols, example.x, example.y, threads);
		check(&example, "threads", "dense");
		free_example(&example);
	}
}

/* What is packed is what is not zero, in its order, and blocks begin where they may. */
static void test_packed(void **state)
{
	(void)state;
	struct example e;
	make_example(MOST_ROWS, 200, &e);
	assert_int_equal(e.packed.words, 4);
	assert_int_equal(e.packed.blocks, 5);
	assert_int_equal((uintptr_t)e.packed.values % SPARSE_ALIGNMENT, 0);
	const char *end = (const char *)e.packed.values + e.packed.offsets[e.packed.blocks] + SPARSE_SLACK;
	assert_int_equal(end - (const char *)e.memory, sparse_memory(e.dense, e.rows, e.cols));
	for (int64_t block = 0; block < e.packed.blocks; block++) {
		const uint16_t *value = e.packed.values + e.packed.offsets[block] / 2;
		assert_int_equal(e.packed.offsets[block] % SPARSE_ALIGNMENT, 0);
		for (int64_t i = block * SPARSE_BLOCK_ROWS; i < (block + 1) * SPARSE_BLOCK_ROWS && i < e.rows; i++)
			for (int64_t j = 0; j < e.packed.words * SPARSE_WORD; j++) {
				bool kept = e.packed.mask[i * e.packed.words + j / SPARSE_WORD] >> j % SPARSE_WORD & 1;
				assert_int_equal(kept, j < e.cols && (e.dense[i * e.cols + j] & 0x7fff) != 0);
				if (kept) assert_int_equal(*value++, e.dense[i * e.cols + j]);
			}
		assert_true((const char *)value <= (const char *)e.packed.values + e.packed.offsets[block + 1]);
		assert_true((const char *)value + SPARSE_ALIGNMENT > (const char *)e.packed.values + e.packed.offsets[block + 1]);
	}
	assert_int_equal(sparse_bytes(&e.packed), MOST_ROWS * 4 * 8 + e.packed.offsets[e.packed.blocks]);
	free_example(&e);
}

static void test_empty(void **state)
{
	(void)state;
	uint16_t nothing[SPARSE_WORD] = {0};
	float y = not_written;
	void *memory = matvec_allocate((size_t)sparse_memory(nothing, 0, 5));
	assert_non_null(memory);
	struct sparse_matrix matrix = sparse_pack(nothing, 0, 5, memory);
	assert_int_equal(sparse_bytes(&matrix), 0);
	for (int threads = 1; threads <= 3; threads++)
		sparse_matvec(&matrix, nothing, &y, threads);
	assert_true(y == not_written);
	free(memory);
}

static void test_input(void **state)
{
	(void)state;
	const float values[] = {1, -2, 1 + 0x1p-8f, 1 + 3 * 0x1p-8f, INFINITY, 0x1p127f * 1.999999f, NAN};
	uint16_t x[SPARSE_WORD];
	memset(x, 0xff, sizeof x);
	matvec_input(values, 7, x);
	const uint16_t expected[] = {0x3f80, 0xc000, 0x3f80, 0x3f82, 0x7f80, 0x7f80};
	assert_memory_equal(x, expected, sizeof expected);
	assert_true(isnan(bf16_to_f32(x[6])));
	for (int i = 7; i < SPARSE_WORD; i++)
		assert_int_equal(x[i], 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_kernels), cmocka_unit_test(test_shares), cmocka_unit_test(test_threads),
		cmocka_unit_test(test_packed),  cmocka_unit_test(test_empty),  cmocka_unit_test(test_input),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
