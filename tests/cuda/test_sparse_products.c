/* Products with pruned weights on the device (cuda/sparse.h), on the emulator: against double precision, dense again, in blocks of
 * any height, with less shared memory, and what is refused. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/products.h"

#include "cuda/index.h"
#include "cuda/sparse.h"
#include "engine/compute/backend.h"
#include "engine/compute/half.h"
#include "engine/sparse/matvec.h"
#include "tests/cuda/emulated_backend.h"

enum { MOST_VECTORS = 33 };

struct example {
	int64_t rows, cols, length; /* of a vector with the zeros behind it */
	uint16_t *dense, *x;        /* x [MOST_VECTORS, length] */
	void *memory;
	struct sparse_matrix packed;
	struct cuda_sparse device;
	struct tensor device_x, device_y;
};

static struct tensor on_device(const void *host, int64_t rows, int64_t cols, enum dtype type)
{
	struct tensor t = tensor_make(NULL, rows, cols, type);
	RUN(OPS->alloc(backend, tensor_bytes(&t), &t.data));
	if (host) RUN(OPS->upload(backend, t.data, host, tensor_bytes(&t)));
	return t;
}

/* `share`: of a row's weights that are not zero, at a column. */
static struct example draw_example(int64_t rows, int64_t cols, double (*share)(int64_t row, int64_t col, int64_t cols))
{
	struct example e = {.rows = rows, .cols = cols, .length = matvec_length(cols)};
	struct sequence random = {(uint64_t)(rows * 10000 + cols), 0};
	e.dense = calloc((size_t)(rows * cols), sizeof *e.dense);
	e.x = calloc((size_t)(MOST_VECTORS * e.length), sizeof *e.x);
	assert_true(e.dense && e.x);
	for (int64_t v = 0; v < MOST_VECTORS; v++)
		for (int64_t j = 0; j < cols; j++)
			e.x[v * e.length + j] = bf16_from_f32((float)(2 * uniform(&random) - 1));
	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < cols; j++)
			if (uniform(&random) < share(i, j, cols))
				e.dense[i * cols + j] = (uint16_t)(0x3c00 + 0x3ff * uniform(&random)) |
							(uint16_t)(uniform(&random) < 0.5 ? 0x8000 : 0);
	e.memory = matvec_allocate((size_t)sparse_memory(e.dense, rows, cols));
	assert_non_null(e.memory);
	e.packed = sparse_pack(e.dense, rows, cols, e.memory);
	return e;
}

static double alike(int64_t row, int64_t col, int64_t cols)
{
	(void)col, (void)cols;
	return density_of(row);
}

static struct example new_example(int64_t rows, int64_t cols)
{
	return draw_example(rows, cols, alike);
}

static void put_on_device(struct example *e)
{
	RUN(cuda_sparse_upload(backend, &e->packed, &e->device));
	if (e->cols < 20000) assert_true(e->device.height * 128 <= cuda_sparse_room(backend));
	e->device_x = on_device(e->x, MOST_VECTORS, e->length, DTYPE_BF16);
	e->device_y = on_device(NULL, MOST_VECTORS, e->rows, DTYPE_F32);
}

static void free_example(struct example *e)
{
	cuda_sparse_release(backend, &e->device);
	OPS->release(backend, e->device_x.data);
	OPS->release(backend, e->device_y.data);
	free(e->memory);
	free(e->dense);
	free(e->x);
}

/* The product of the last n vectors, behind which there is no memory; what was there before is NaN. */
static float *multiply(const struct example *e, int n)
{
	int rows = n < MOST_VECTORS ? n + 1 : n; /* one that must stay as it is */
	size_t bytes = (size_t)(rows * e->rows) * sizeof(float);
	float *y = malloc(bytes);
	assert_non_null(y);
	for (int64_t i = 0; i < rows * e->rows; i++)
		y[i] = NAN;
	RUN(OPS->upload(backend, e->device_y.data, y, bytes));
	RUN(cuda_sparse_product(backend, &e->device, tensor_rows(e->device_y, 0, n),
				tensor_rows(e->device_x, MOST_VECTORS - n, n)));
	RUN(OPS->download(backend, y, e->device_y.data, bytes));
	for (int64_t i = n * e->rows; i < rows * e->rows; i++)
		assert_true(isnan(y[i]));
	return y;
}

/* Sums of so many terms in fp32, in any order, are off by at most that many · 2⁻²⁴ of the magnitudes. */
static void check_product(const struct example *e, int n)
{
	float *y = multiply(e, n);
	for (int64_t v = 0; v < n; v++)
		for (int64_t i = 0; i < e->rows; i++) {
			double exact = 0, size = 0;
			for (int64_t j = 0; j < e->cols; j++) {
				double product = (double)bf16_to_f32(e->dense[i * e->cols + j]) *
						 (double)bf16_to_f32(e->x[(MOST_VECTORS - n + v) * e->length + j]);
				exact += product;
				size += fabs(product);
			}
			if (!(fabs((double)y[v * e->rows + i] - exact) <= (double)(e->cols + 8) * 0x1p-24 * size))
				fail_msg("[%d, %d], %d vectors: vector %d, row %d is %.9g, not %.9g", (int)e->rows, (int)e->cols, n,
					 (int)v, (int)i, (double)y[v * e->rows + i], exact);
		}
	free(y);
}

static void check_dense(const struct example *e)
{
	struct tensor dense = on_device(NULL, e->rows, e->cols, DTYPE_BF16);
	uint16_t *found = malloc(tensor_bytes(&dense));
	assert_non_null(found);
	memset(found, 0xff, tensor_bytes(&dense));
	RUN(OPS->upload(backend, dense.data, found, tensor_bytes(&dense)));
	RUN(cuda_sparse_expand(backend, &e->device, dense));
	RUN(OPS->download(backend, found, dense.data, tensor_bytes(&dense)));
	assert_memory_equal(found, e->dense, tensor_bytes(&dense));
	OPS->release(backend, dense.data);
	free(found);
}

/* Rows and columns that fill no step or word, fewer rows than warps and more; empty rows, and full ones. */
static void test_shapes(void **state)
{
	static const int64_t shapes[][2] = {{1, 1},   {2, 63},   {5, 64},    {16, 65},  {17, 511},  {33, 512},
					    {7, 513}, {6, 1100}, {20, 1025}, {5, 4500}, {150, 300}, {3, 8256}};
	static const int vectors[] = {1, 2, 3, 5, 9};
	(void)state;
	for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
		struct example e = new_example(shapes[s][0], shapes[s][1]);
		put_on_device(&e);
		check_dense(&e);
		for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
			check_product(&e, vectors[i]);
		free_example(&e);
	}
}

/* Columns that rows have values in: few, far apart; at both ends; more of them the further right; and rows that differ in where. */
static double far_apart(int64_t row, int64_t col, int64_t cols)
{
	static const int64_t distances[] = {16, 17, 32, 33, 64, 65, 200};
	(void)cols;
	return col % distances[row % 7] == (row * 5) % distances[row % 7];
}

static double last_alone(int64_t row, int64_t col, int64_t cols)
{
	return row % 2 ? col == cols - 1 : col == 0;
}

static double at_the_ends(int64_t row, int64_t col, int64_t cols)
{
	(void)row;
	return col < 40 || col >= cols - 40;
}

static double to_the_right(int64_t row, int64_t col, int64_t cols)
{
	double place = (double)col / (double)cols;
	(void)row;
	return place * place * place;
}

static double in_turns(int64_t row, int64_t col, int64_t cols)
{
	return col * 5 / cols == row % 5 ? 0.9 : 0.02;
}

static double nowhere(int64_t row, int64_t col, int64_t cols)
{
	(void)row, (void)col, (void)cols;
	return 0;
}

static double everywhere(int64_t row, int64_t col, int64_t cols)
{
	(void)row, (void)col, (void)cols;
	return 1;
}

static void test_places(void **state)
{
	static double (*const shares[])(int64_t, int64_t, int64_t) = {far_apart, last_alone, at_the_ends, to_the_right,
								      in_turns,  nowhere,    everywhere};
	(void)state;
	for (size_t s = 0; s < sizeof shares / sizeof *shares; s++) {
		struct example e = draw_example(35, 2113, shares[s]);
		put_on_device(&e);
		check_dense(&e);
		check_product(&e, 1);
		check_product(&e, 8);
		free_example(&e);
	}
}

/* A vector's product has the same bits whatever other vectors there are. */
static void test_same_bits(void **state)
{
	(void)state;
	struct example e = new_example(40, 1500);
	put_on_device(&e);
	float *all = multiply(&e, CUDA_SPARSE_VECTORS);
	for (int n = 1; n < CUDA_SPARSE_VECTORS; n++) {
		float *some = multiply(&e, n);
		assert_memory_equal(some, all + (CUDA_SPARSE_VECTORS - n) * e.rows, (size_t)(n * e.rows) * sizeof *some);
		free(some);
	}
	free(all);
	free_example(&e);
}

/* More vectors than the kernels take: by way of a dense matrix. */
static void test_many_vectors(void **state)
{
	(void)state;
	struct example e = new_example(19, 130);
	put_on_device(&e);
	check_product(&e, MOST_VECTORS);
	free_example(&e);
}

/* Where the values of a block of `height` rows lie depends on it, and nothing else. */
static void test_blocks(void **state)
{
	static const int64_t heights[] = {8, 24, 64};
	(void)state;
	for (size_t h = 0; h < sizeof heights / sizeof *heights; h++) {
		struct example e = new_example(70, 530);
		int64_t height = heights[h], blocks = (70 + height - 1) / height, at = 0;
		uint16_t *values = calloc(70 * 530 + (size_t)blocks * 64, sizeof *values);
		int64_t *offsets = calloc((size_t)blocks + 1, sizeof *offsets);
		assert_true(values && offsets);
		for (int64_t i = 0; i < 70; i++) {
			if (i % height == 0) at = (at + 31) / 32 * 32, offsets[i / height] = 2 * at;
			for (int64_t j = 0; j < 530; j++)
				if (e.dense[i * 530 + j] & 0x7fff) values[at++] = e.dense[i * 530 + j];
		}
		offsets[blocks] = (at + 31) / 32 * 64;
		e.packed.values = values;
		e.packed.offsets = offsets;
		e.packed.block_rows = height;
		e.packed.blocks = blocks;
		put_on_device(&e);
		check_dense(&e);
		check_product(&e, 1);
		check_product(&e, 5);
		free_example(&e);
		free(values);
		free(offsets);
	}
}

/* With the least that a device may give a block windows have less, or there are fewer vectors in them, or too many columns for any;
 * and the same input gives the same bits. */
static void test_little_shared_memory(void **state)
{
	(void)state;
	struct backend *before = backend;
	struct error err;
	emulator_faults.shared_memory = SHARED_LEAST;
	if (backend_cuda_create(0, &backend, &err) != STATUS_OK) fail_msg("%s", err.message);
	static const int64_t cols[] = {5000, 11008, 19000, 30000};
	static const int vectors[] = {1, 3, 8};
	for (int i = 0; i < 12; i++) { /* of 19,000 columns a lane's part would be wider than a window */
		struct example e = draw_example(i < 3 ? 35 : 5, cols[i / 3], cols[i / 3] == 19000 ? in_turns : alike);
		int n = vectors[i % 3];
		put_on_device(&e);
		check_product(&e, n);
		float *first = multiply(&e, n), *second = multiply(&e, n);
		assert_memory_equal(first, second, (size_t)(n * e.rows) * sizeof *first);
		free(first);
		free(second);
		free_example(&e);
	}
	backend_destroy(backend);
	backend = before;
	emulator_faults.shared_memory = 0;
}

static void test_dense_vector(void **state)
{
	static const int64_t cols[] = {8, 264, 1032};
	(void)state;
	for (int i = 0; i < 3; i++) {
		struct example e = new_example(11, cols[i]);
		put_on_device(&e);
		struct tensor w = on_device(e.dense, e.rows, e.cols, DTYPE_BF16);
		float sparse[11], *y = multiply(&e, 1);
		memcpy(sparse, y, sizeof sparse);
		RUN(cuda_dense_product(backend, tensor_rows(e.device_y, 0, 1),
				       tensor_cols(tensor_rows(e.device_x, MOST_VECTORS - 1, 1), 0, e.cols), w));
		RUN(OPS->download(backend, y, e.device_y.data, sizeof sparse));
		for (int r = 0; r < 11; r++)
			if (!(fabsf(y[r] - sparse[r]) <= 1e-4f))
				fail_msg("row %d is %g, not %g", r, (double)y[r], (double)sparse[r]);
		OPS->release(backend, w.data);
		free(y);
		free_example(&e);
	}
}

static void test_refusals(void **state)
{
	(void)state;
	struct example e = new_example(4, 70);
	struct cuda_sparse none;
	put_on_device(&e);
	struct sparse_matrix codes = e.packed, dense = dense_matrix(e.dense, 4, 70);
	codes.grids.bits = 4;
	assert_int_equal(cuda_sparse_upload(backend, &codes, &none), STATUS_UNSUPPORTED);
	assert_int_equal(cuda_sparse_upload(backend, &dense, &none), STATUS_UNSUPPORTED);
	struct sparse_matrix wide = e.packed;
	wide.cols = CUDA_SPARSE_COLS + 1;
	assert_int_equal(cuda_sparse_upload(backend, &wide, &none), STATUS_UNSUPPORTED);
	struct tensor x = tensor_rows(e.device_x, 0, 2), y = tensor_rows(e.device_y, 0, 2);
	assert_int_equal(cuda_sparse_product(backend, &e.device, tensor_rows(y, 0, 1), x), STATUS_INVALID);
	assert_int_equal(cuda_sparse_product(backend, &e.device, y, tensor_cols(x, 0, 70)), STATUS_INVALID);
	assert_int_equal(cuda_sparse_product(backend, &e.device, tensor_cols(y, 0, 3), x), STATUS_INVALID);
	struct tensor odd = {(char *)x.data + 2, 2, x.cols, x.stride, DTYPE_BF16};
	assert_int_equal(cuda_sparse_product(backend, &e.device, y, odd), STATUS_INVALID);
	assert_int_equal(cuda_sparse_expand(backend, &e.device, x), STATUS_INVALID);
	free_example(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_shapes),       cmocka_unit_test(test_places),
					   cmocka_unit_test(test_same_bits),    cmocka_unit_test(test_many_vectors),
					   cmocka_unit_test(test_blocks),       cmocka_unit_test(test_little_shared_memory),
					   cmocka_unit_test(test_dense_vector), cmocka_unit_test(test_refusals)};
	return cmocka_run_group_tests(tests, open_backend, close_backend);
}
