/* Products of codes, and with some vectors at once (engine/sparse/matvec.h): every kernel that this processor runs against double
 * precision, dense and sparse, and what is packed of codes against what it was packed of. */
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

enum { MOST_THREADS = 4 };
static const float not_written = 12345;

/* bits: of codes; 0: bf16. group: columns of each, 0 for a whole row. */
struct form {
	int64_t rows, cols;
	int bits, vectors;
	int64_t group;
	bool symmetric;
};

struct example {
	struct form form;
	struct sparse_grids grids;
	float *steps;
	uint8_t *zeros, *codes;
	uint16_t *halves, *inputs;
	float *x; /* [vectors, cols], bf16 numbers */
	double *weights;
	float *y;
	void *memory[2];
	struct sparse_matrix dense, sparse;
};

static void *allocate(int64_t count, size_t size)
{
	void *memory = calloc((size_t)count + 1, size);
	assert_non_null(memory);
	return memory;
}

static void fill_codes(struct example *e, struct sequence *random)
{
	const struct form *form = &e->form;
	e->grids = (struct sparse_grids){.bits = form->bits, .group = form->group ? form->group : form->cols};
	e->grids.groups = form->cols / e->grids.group;
	e->steps = allocate(form->rows * e->grids.groups, sizeof *e->steps);
	e->zeros = allocate(form->rows * e->grids.groups, sizeof *e->zeros);
	for (int64_t i = 0; i < form->rows * e->grids.groups; i++) {
		e->steps[i] = (float)(0.01 + uniform(random));
		e->zeros[i] = (uint8_t)(uniform(random) * (1 << form->bits));
	}
	e->grids.steps = e->steps;
	e->grids.zeros = form->symmetric ? NULL : e->zeros;
	for (int64_t i = 0; i < form->rows; i++)
		for (int64_t j = 0; j < form->cols; j++) {
			int64_t at = i * form->cols + j, group = i * e->grids.groups + j / e->grids.group;
			int zero = form->symmetric ? 1 << (form->bits - 1) : e->zeros[group];
			e->codes[at] = (uint8_t)(uniform(random) < density_of(i) ? uniform(random) * (1 << form->bits) : zero);
			e->weights[at] = (e->codes[at] - zero) * (double)e->steps[group];
		}
}

static void fill_halves(struct example *e, struct sequence *random)
{
	for (int64_t at = 0; at < e->form.rows * e->form.cols; at++) {
		e->halves[at] = (uint16_t)(uniform(random) < 0.5 ? 0x8000 : 0);
		if (uniform(random) < density_of(at / e->form.cols)) e->halves[at] |= (uint16_t)(0x3c00 + 0x3ff * uniform(random));
		e->weights[at] = (double)bf16_to_f32(e->halves[at]);
	}
}

/* Memory whose last byte is the last that may be read is followed by what ends a program that reads on, where a sanitizer
 * watches. */
static void *room(int64_t bytes)
{
	void *memory = aligned_alloc(SPARSE_ALIGNMENT, (size_t)bytes);
	assert_non_null(memory);
	assert_int_equal(bytes % SPARSE_ALIGNMENT, 0);
	return memory;
}

static void make_example(const struct form *form, struct example *ret)
{
	struct example e = {.form = *form};
	int64_t elements = form->rows * form->cols;
	struct sequence random = {(uint64_t)(form->rows * 1000 + form->cols * 7 + form->group), 0};
	e.weights = allocate(elements, sizeof *e.weights);
	e.codes = allocate(elements, sizeof *e.codes);
	e.halves = allocate(elements + SPARSE_SLACK, sizeof *e.halves);
	e.x = allocate(form->cols * form->vectors, sizeof *e.x);
	e.inputs = allocate(matvec_length(form->cols) * form->vectors, sizeof *e.inputs);
	e.y = allocate(form->rows * form->vectors, sizeof *e.y);
	for (int64_t j = 0; j < form->cols * form->vectors; j++)
		e.x[j] = bf16_to_f32(bf16_from_f32((float)(2 * uniform(&random) - 1)));
	if (form->bits) {
		fill_codes(&e, &random);
		for (int sparse = 0; sparse < 2; sparse++) {
			e.memory[sparse] = room(sparse_codes_memory(e.codes, form->rows, form->cols, &e.grids, sparse));
			struct sparse_matrix packed =
				sparse_codes_pack(e.codes, form->rows, form->cols, &e.grids, sparse, e.memory[sparse]);
			*(sparse ? &e.sparse : &e.dense) = packed;
		}
	} else {
		fill_halves(&e, &random);
		e.memory[1] = room(sparse_memory(e.halves, form->rows, form->cols));
		e.sparse = sparse_pack(e.halves, form->rows, form->cols, e.memory[1]);
		e.dense = dense_matrix(e.halves, form->rows, form->cols);
	}
	*ret = e;
}

static void free_example(struct example *e)
{
	free(e->memory[0]);
	free(e->memory[1]);
	free(e->steps);
	free(e->zeros);
	free(e->codes);
	free(e->halves);
	free(e->x);
	free(e->inputs);
	free(e->weights);
	free(e->y);
}

/* Sums of n terms in fp32, in any order, are off by at most n · 2⁻²⁴ of the magnitudes, and what rounds terms too by some more. */
static void check(const struct example *e, const char *kernels, const char *what)
{
	const struct form *form = &e->form;
	for (int k = 0; k < form->vectors; k++)
		for (int64_t i = 0; i < form->rows; i++) {
			const float *x = e->x + k * form->cols;
			double exact = 0, size = 0, got = (double)e->y[k * form->rows + i];
			for (int64_t j = 0; j < form->cols; j++) {
				double product = e->weights[i * form->cols + j] * (double)x[j];
				exact += product;
				size += fabs(product);
			}
			if (!(fabs(got - exact) <= (double)(form->cols + 12) * 0x1p-24 * size))
				fail_msg("%s %s [%d, %d], %d bits by %d, %s, %d vectors: row %d of %d is %.9g, not %.9g", kernels,
					 what, (int)form->rows, (int)form->cols, form->bits, (int)form->group,
					 form->symmetric ? "symmetric" : "with zero points", form->vectors, (int)i, k, got, exact);
		}
}

/* As the kernels want it; what they do not write of y is seen. */
static void prepare(struct example *e, const struct matvec_kernels *kernels, const struct sparse_matrix *matrix)
{
	memset(e->inputs, 0xff, (size_t)(matvec_length(e->form.cols) * e->form.vectors) * sizeof *e->inputs);
	matvec_inputs(kernels, matrix, e->x, e->form.vectors, e->inputs);
	for (int64_t i = 0; i < e->form.rows * e->form.vectors; i++)
		e->y[i] = not_written;
}

static void check_product(struct example *e, const struct matvec_kernels *kernels, const struct sparse_matrix *matrix,
			  const char *what)
{
	prepare(e, kernels, matrix);
	kernels->product(matrix, e->inputs, e->form.vectors, e->y, 0, matrix->blocks);
	check(e, kernels->name, what);
}

static void check_form(const struct form *form)
{
	struct example e;
	make_example(form, &e);
	for (int i = 0; matvec_kernels(i); i++) {
		check_product(&e, matvec_kernels(i), &e.dense, "dense");
		check_product(&e, matvec_kernels(i), &e.sparse, "sparse");
	}
	free_example(&e);
}

/* Of every group that a quantizer may have, and of whole rows, that no word divides. */
static void test_codes(void **state)
{
	(void)state;
	const int64_t rows[] = {1, 17, 33};
	const int64_t whole[] = {1, 7, 15, 16, 17, 31, 33, 63, 64, 65, 129, 200, 517};
	for (int bits = 4; bits <= 8; bits += 4)
		for (int symmetric = 0; symmetric < 2; symmetric++) {
			for (int64_t group = 16; group <= 128; group++)
				for (int64_t groups = 1; groups <= 5; groups += group % 16 ? 4 : 1)
					check_form(&(struct form){6, group * groups, bits, 1, group, symmetric});
			for (size_t c = 0; c < sizeof whole / sizeof *whole; c++)
				for (size_t r = 0; r < sizeof rows / sizeof *rows; r++)
					check_form(&(struct form){rows[r], whole[c], bits, 1, 0, symmetric});
		}
}

static void test_vectors(void **state)
{
	(void)state;
	const int64_t cols[] = {1, 63, 64, 65, 160, 700};
	for (int vectors = 1; vectors <= SPARSE_VECTORS; vectors++)
		for (size_t c = 0; c < sizeof cols / sizeof *cols; c++)
			check_form(&(struct form){18, cols[c], 0, vectors, 0, true});
	for (int vectors = 2; vectors <= SPARSE_VECTORS; vectors += 5)
		for (int bits = 4; bits <= 8; bits += 4)
			for (int64_t group = 0; group <= 64; group += 16)
				check_form(&(struct form){18, 192, bits, vectors, group, group == 32});
}

/* The first blocks and the last are left alone by a share between them; all shares together are all. */
static void test_shares(void **state)
{
	(void)state;
	static const struct form forms[] = {{70, 160, 0, 3, 0, true}, {70, 160, 4, 3, 32, false}, {70, 161, 8, 1, 0, true}};
	for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
		struct example e;
		make_example(&forms[f], &e);
		for (int i = 0; matvec_kernels(i); i++)
			for (int sparse = 0; sparse < 2; sparse++) {
				const struct sparse_matrix *matrix = sparse ? &e.sparse : &e.dense;
				prepare(&e, matvec_kernels(i), matrix);
				matvec_kernels(i)->product(matrix, e.inputs, forms[f].vectors, e.y, 1, 3);
				for (int64_t k = 0; k < 70 * forms[f].vectors; k++) {
					bool written = e.y[k] != not_written;
					assert_int_equal(written, k % 70 >= SPARSE_BLOCK_ROWS && k % 70 < 3 * SPARSE_BLOCK_ROWS);
				}
			}
		for (int threads = 1; threads <= MOST_THREADS; threads++) {
			prepare(&e, matvec_kernels(0), &e.dense);
			sparse_matmul(&e.dense, e.inputs, forms[f].vectors, e.y, threads);
			check(&e, "threads", "dense");
			prepare(&e, matvec_kernels(0), &e.sparse);
			sparse_matmul(&e.sparse, e.inputs, forms[f].vectors, e.y, threads);
			check(&e, "threads", "sparse");
		}
		free_example(&e);
	}
}

/* The bytes of a matrix: of 4 bits each row begins with a whole one; and what steps and zero points take counts. */
static void test_bytes(void **state)
{
	(void)state;
	uint8_t codes[2 * 64], zeros[4] = {0};
	float steps[4] = {1, 1, 1, 1};
	memset(codes, 8, sizeof codes);
	codes[3] = codes[7] = codes[63] = 5; /* 3 of the first row, none of the second */
	struct sparse_grids grids = {.bits = 4, .group = 32, .groups = 2, .steps = steps};
	void *memory = room(sparse_codes_memory(codes, 2, 64, &grids, true));
	struct sparse_matrix matrix = sparse_codes_pack(codes, 2, 64, &grids, true, memory);
	assert_int_equal(matrix.mask[0], UINT64_C(1) << 63 | 1 << 7 | 1 << 3);
	assert_int_equal(matrix.mask[1], 0);
	assert_int_equal(matrix.codes[0], 0x55);
	assert_int_equal(matrix.codes[1], 0x05);
	assert_int_equal(matrix.offsets[1], SPARSE_ALIGNMENT);
	assert_int_equal(sparse_bytes(&matrix), 2 * 8 + SPARSE_ALIGNMENT + 4 * 4);
	free(memory);
	grids.zeros = zeros;
	memory = room(sparse_codes_memory(codes, 2, 64, &grids, false));
	matrix = sparse_codes_pack(codes, 2, 64, &grids, false, memory);
	assert_int_equal(sparse_bytes(&matrix), 64 + 4 * 4 + 4);
	assert_int_equal(matrix.codes[1], 0x58);
	free(memory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_codes), cmocka_unit_test(test_vectors),
					   cmocka_unit_test(test_shares), cmocka_unit_test(test_bytes)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
