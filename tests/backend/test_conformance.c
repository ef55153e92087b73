/* Every operation of a backend against the double-precision reference, over awkward shapes, gaps between rows and all float
 * types. */
#include <math.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/backend/harness.h"
#include "tests/backend/reference.h"

/* ---- dense layers ------------------------------------------------------------------------------------------------------------ */

static void test_convert(void **state)
{
	(void)state;
	static const double special[] = {0.0,       -0.0,     1,         -1,          1.00390625,    1.01171875,
					 65504,     65519,    65520,     -70000,      0x1p-14,       0x1p-24,
					 0x1.8p-24, 0x1p-25,  0x1.8p-25, 3.389e38,    -3.4e38,       0x1p-126,
					 0x1p-130,  INFINITY, -INFINITY, 0x1.001p-14, 1.00048828125, 1.00146484375};
	for (size_t shape = 0; shape < ROW_SHAPES; shape++) {
		for (int from = 0; from < 3; from++) {
			for (int to = 0; to < 3; to++) {
				int64_t rows = row_shapes[shape][0], cols = row_shapes[shape][1];
				struct operand x = operand_random(rows, cols, float_types[from], shape % 2 ? GAP : NO_GAP);
				struct operand y = operand_output(rows, cols, float_types[to], shape % 3 ? GAP : NO_GAP);
				RUN(OPS->convert(BACKEND, y.tensor, x.tensor));
				operand_fetch(&y);
				for (int64_t i = 0; i < rows * cols; i++)
					x.value[i] = round_to_type(x.value[i], float_types[to]);
				expect_equal(y.value, x.value, rows * cols, "convert [%lld, %lld] %s to %s", (long long)rows,
					     (long long)cols, float_names[from], float_names[to]);
				operand_free(&x, &y, NULL);
			}
		}
	}
	for (int to = 0; to < 3; to++) {
		struct operand x = operand_input(copy_of(special, COUNT(special)), 1, COUNT(special), DTYPE_F32, NO_GAP);
		struct operand y = operand_output(1, COUNT(special), float_types[to], NO_GAP);
		RUN(OPS->convert(BACKEND, y.tensor, x.tensor));
		operand_fetch(&y);
		for (size_t i = 0; i < COUNT(special); i++) {
			x.value[i] = round_to_type(x.value[i], float_types[to]);
			assert_int_equal(!signbit(x.value[i]), !signbit(y.value[i]));
		}
		expect_equal(y.value, x.value, COUNT(special), "convert special values to %s", float_names[to]);
		operand_free(&x, &y, NULL);
	}
}

static void matmul_case(int64_t m, int64_t n, int64_t k, int transposes, enum dtype in, enum dtype out, int gap, bool accumulate)
{
	bool transpose_a = transposes & 1, transpose_b = transposes & 2;
	struct operand a = operand_random(transpose_a ? k : m, transpose_a ? m : k, in, gap);
	struct operand b = operand_random(transpose_b ? n : k, transpose_b ? k : n, in, gap);
	struct operand c = accumulate ? operand_inout(m, n, out, gap) : operand_output(m, n, out, gap);
	double *expected = accumulate ? copy_of(c.value, m * n) : doubles(m * n);
	ref_matmul(expected, a.value, transpose_a, b.value, transpose_b, m, n, k, accumulate);
	RUN(OPS->matmul(BACKEND, c.tensor, a.tensor, transpose_a, b.tensor, transpose_b, accumulate));
	operand_fetch(&c);
	expect_close(c.value, expected, m * n, bound_of(out), "matmul %lld × %lld × %lld %s%s %s to %s%s", (long long)m,
		     (long long)n, (long long)k, transpose_a ? "T" : "N", transpose_b ? "T" : "N", float_names[in],
		     float_names[out], accumulate ? " accumulate" : "");
	free(expected);
	operand_free(&a, &b, &c, NULL);
}

/* Onto another tensor, whose rows lie elsewhere apart, and onto itself. A library may take another order of sums for other
 * layouts, so neither is that of a copy and a product to the bit. */
static void matmul_onto_case(int64_t m, int64_t n, int64_t k, int transposes, enum dtype in, enum dtype out, int gap)
{
	bool transpose_a = transposes & 1, transpose_b = transposes & 2;
	struct operand a = operand_random(transpose_a ? k : m, transpose_a ? m : k, in, gap);
	struct operand b = operand_random(transpose_b ? n : k, transpose_b ? k : n, in, gap);
	struct operand addend = operand_random(m, n, out, gap ? NO_GAP : GAP), c = operand_output(m, n, out, gap);
	double *expected = copy_of(addend.value, m * n);
	ref_matmul(expected, a.value, transpose_a, b.value, transpose_b, m, n, k, true);
	RUN(OPS->matmul_onto(BACKEND, c.tensor, a.tensor, transpose_a, b.tensor, transpose_b, addend.tensor));
	operand_fetch(&c);
	expect_close(c.value, expected, m * n, bound_of(out), "matmul_onto %lld × %lld × %lld %s to %s", (long long)m, (long long)n,
		     (long long)k, float_names[in], float_names[out]);
	RUN(OPS->convert(BACKEND, c.tensor, addend.tensor));
	RUN(OPS->matmul_onto(BACKEND, c.tensor, a.tensor, transpose_a, b.tensor, transpose_b, c.tensor));
	operand_fetch(&c);
	expect_close(c.value, expected, m * n, bound_of(out), "matmul_onto itself");
	free(expected);
	operand_free(&a, &b, &addend, &c, NULL);
}

static void test_matmul_onto(void **state)
{
	(void)state;
	static const int64_t shapes[][3] = {{1, 1, 1},      {13, 29, 31},  {64, 192, 64}, {70, 45, 90},
					    {129, 97, 301}, {97, 64, 300}, {4, 6, 0}};
	if (!OPS->matmul_onto) skip();
	for (size_t shape = 0; shape < COUNT(shapes); shape++)
		for (int i = 0; i < 12; i++) {
			enum dtype in = float_types[i % 3], out = i % 2 ? DTYPE_F32 : in;
			matmul_onto_case(shapes[shape][0], shapes[shape][1], shapes[shape][2], i % 4, in, out,
					 i % 5 ? GAP : NO_GAP);
		}
	matmul_onto_case(65, 2100, 600, 2, DTYPE_F32, DTYPE_F32, GAP); /* by more than is packed at a time */
}

/* More than the CPU's kernels pack, or add up beside C, at a time; and rows that start in few places of a cache. */
static void test_matmul_large(void **state)
{
	(void)state;
	static const int64_t shapes[][3] = {{70, 1100, 70}, {30, 300, 1100}, {600, 530, 40}, {25, 40, 1024}};
	for (size_t shape = 0; shape < COUNT(shapes); shape++) {
		const int64_t *s = shapes[shape];
		for (int i = 0; i < 12; i++) {
			enum dtype in = float_types[i % 3], out = i % 2 ? DTYPE_F32 : in;
			matmul_case(s[0], s[1], s[2], i % 4, in, out, NO_GAP, i % 5 == 0);
			if (OPS->matmul_onto) matmul_onto_case(s[0], s[1], s[2], i % 4, in, out, GAP);
		}
	}
}

static void test_matmul(void **state)
{
	(void)state;
	static const int64_t shapes[][3] = {{1, 1, 1},      {1, 33, 17},   {33, 1, 17},    {5, 7, 1},     {16, 16, 16},
					    {13, 29, 31},   {65, 33, 127}, {64, 192, 192}, {31, 200, 65}, {128, 64, 160},
					    {129, 97, 301}, {70, 45, 90},  {150, 100, 66}};
	for (size_t shape = 0; shape < COUNT(shapes); shape++) {
		const int64_t *s = shapes[shape];
		for (int transposes = 0; transposes < 4; transposes++) {
			for (int in = 0; in < 3; in++) {
				for (int out = 0; out < 3; out++) {
					if (out && out != in) continue; /* to its own type, or to fp32 */
					matmul_case(s[0], s[1], s[2], transposes, float_types[in], float_types[out],
						    shape % 2 ? GAP : NO_GAP, false);
					matmul_case(s[0], s[1], s[2], transposes, float_types[in], float_types[out],
						    shape % 2 ? NO_GAP : GAP, true);
				}
			}
		}
	}
	matmul_case(9, 12, 40, 2, DTYPE_F32, DTYPE_BF16, GAP, false);
	matmul_case(9, 12, 40, 2, DTYPE_F32, DTYPE_F16, GAP, true);
	matmul_case(9, 12, 40, 1, DTYPE_BF16, DTYPE_F16, GAP, false);
	matmul_case(4, 6, 0, 0, DTYPE_F32, DTYPE_F32, GAP, false); /* an empty sum is zero */
	matmul_case(4, 6, 0, 0, DTYPE_F32, DTYPE_F32, GAP, true);
}

/* Column views of one wide matrix, as q, k and v of a fused projection are. */
static void test_matmul_views(void **state)
{
	(void)state;
	struct operand x = operand_random(21, 48, DTYPE_F32, NO_GAP), w = operand_random(16, 48, DTYPE_F32, NO_GAP);
	struct operand y = operand_inout(21, 40, DTYPE_F32, NO_GAP);
	double *expected = copy_of(y.value, 21 * 40), *product = doubles(21 * 16), *part = doubles(21 * 24),
	       *w_part = doubles(16 * 24);
	for (int t = 0; t < 21; t++)
		memcpy(part + t * 24, x.value + t * 48 + 24, 24 * sizeof *part);
	for (int i = 0; i < 16; i++)
		memcpy(w_part + i * 24, w.value + i * 48 + 16, 24 * sizeof *part);
	ref_matmul(product, part, false, w_part, true, 21, 16, 24, false);
	for (int t = 0; t < 21; t++)
		memcpy(expected + t * 40 + 8, product + t * 16, 16 * sizeof *product);
	RUN(OPS->matmul(BACKEND, tensor_cols(y.tensor, 8, 16), tensor_cols(x.tensor, 24, 24), false, tensor_cols(w.tensor, 16, 24),
			true, false));
	operand_fetch(&y);
	expect_close(y.value, expected, 21 * 40, 1e-9, "matmul of column views");
	free(expected);
	free(product);
	free(part);
	free(w_part);
	operand_free(&x, &w, &y, NULL);
}

static void test_add(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++) {
		for (int combination = 0; combination < 9; combination++) {
			int64_t rows = row_shapes[shape][0], cols = row_shapes[shape][1];
			enum dtype type = float_types[combination % 3], other = float_types[combination / 3];
			int gap = (shape + (size_t)combination) % 2 ? GAP : NO_GAP;
			struct operand x = operand_random(rows, cols, other, gap), bias = operand_random(1, cols, other, gap);
			struct operand y = operand_inout(rows, cols, type, gap), z = operand_inout(rows, cols, type, gap);
			double *sum = copy_of(y.value, rows * cols), *biased = copy_of(z.value, rows * cols);
			for (int64_t i = 0; i < rows * cols; i++) {
				sum[i] += x.value[i];
				biased[i] += bias.value[i % cols];
			}
			RUN(OPS->add(BACKEND, y.tensor, x.tensor));
			RUN(OPS->add_bias(BACKEND, z.tensor, bias.tensor));
			operand_fetch(&y);
			operand_fetch(&z);
			expect_close(y.value, sum, rows * cols, bound_of(type), "add [%lld, %lld] %s %s", (long long)rows,
				     (long long)cols, float_names[combination % 3], float_names[combination / 3]);
			expect_close(z.value, biased, rows * cols, bound_of(type), "add_bias [%lld, %lld] %s %s", (long long)rows,
				     (long long)cols, float_names[combination % 3], float_names[combination / 3]);
			free(sum);
			free(biased);
			operand_free(&x, &bias, &y, &z, NULL);
		}
	}
}

static void test_embed(void **state)
{
	(void)state;
	for (int combination = 0; combination < 9; combination++) {
		enum { VOCABULARY = 50, COLS = 37, TOKENS = 23 };
		float scale = combination % 2 ? 1 : 6.25f;
		enum dtype from = float_types[combination % 3], to = float_types[combination / 3];
		struct operand table = operand_random(VOCABULARY, COLS, from, GAP), out = operand_output(TOKENS, COLS, to, GAP);
		struct operand ids = operand_input(integers(TOKENS, VOCABULARY), 1, TOKENS, DTYPE_I32, NO_GAP);
		double *expected = doubles(TOKENS * COLS);
		for (int i = 0; i < TOKENS * COLS; i++)
			expected[i] = (double)scale * table.value[(int)ids.value[i / COLS] * COLS + i % COLS];
		RUN(OPS->embed(BACKEND, out.tensor, table.tensor, ids.tensor.data, scale));
		operand_fetch(&out);
		expect_close(out.value, expected, TOKENS * COLS, bound_of(to), "embed %s to %s", float_names[combination % 3],
			     float_names[combination / 3]);
		free(expected);
		operand_free(&table, &out, &ids, NULL);
	}
}

static void norm_case(struct norm norm, int64_t rows, int64_t cols, enum dtype x_type, enum dtype y_type, int gap, bool biased)
{
	int64_t width = cols / norm.groups;
	struct operand x = operand_random(rows, cols, x_type, gap), weight = operand_random(1, width, DTYPE_F32, gap);
	struct operand bias = biased ? operand_random(1, width, DTYPE_F32, gap) : operand_none();
	struct operand y = operand_output(rows, cols, y_type, gap), stats = operand_output(rows, 2 * norm.groups, DTYPE_F32, gap);
	double *expected = doubles(rows * cols), *expected_stats = doubles(rows * 2 * norm.groups);
	ref_norm_forward(&norm, expected, expected_stats, x.value, weight.value, bias.value, rows, cols);
	RUN(OPS->norm_forward(BACKEND, &norm, y.tensor, stats.tensor, x.tensor, weight.tensor, bias.tensor));
	operand_fetch(&y);
	operand_fetch(&stats);
	const char *name = norm.kind == NORM_RMS ? "rms" : "layer";
	expect_close(y.value, expected, rows * cols, bound_of(y_type), "norm_forward %s [%lld, %lld] / %d %s", name,
		     (long long)rows, (long long)cols, norm.groups, float_names[x_type]);
	expect_close(stats.value, expected_stats, rows * 2 * norm.groups, 1e-9, "norm_forward %s stats [%lld, %lld] / %d", name,
		     (long long)rows, (long long)cols, norm.groups);

	struct operand dy = operand_random(rows, cols, y_type, gap);
	struct operand stats_in =
		operand_input(copy_of(expected_stats, rows * 2 * norm.groups), rows, 2 * norm.groups, DTYPE_F32, gap);
	for (int accumulate = 0; accumulate < 2; accumulate++) {
		struct operand dx =
			accumulate ? operand_inout(rows, cols, DTYPE_F32, gap) : operand_output(rows, cols, DTYPE_F32, gap);
		ref_norm_backward(&norm, expected, dy.value, x.value, weight.value, rows, cols);
		double size = 0; /* of one variable the gradient is nearly 0: compare with the terms that cancel */
		for (int64_t i = 0; i < rows * cols; i++) {
			if (accumulate) expected[i] += dx.value[i];
			size += expected[i] * expected[i];
		}
		RUN(OPS->norm_backward(BACKEND, &norm, dx.tensor, dy.tensor, x.tensor, stats_in.tensor, weight.tensor, accumulate));
		operand_fetch(&dx);
		if (width > 2)
			expect_close(dx.value, expected, rows * cols, 1e-9, "norm_backward %s [%lld, %lld] / %d %s", name,
				     (long long)rows, (long long)cols, norm.groups, float_names[x_type]);
		else
			for (int64_t i = 0; i < rows * cols; i++)
				assert_true(fabs(dx.value[i] - expected[i]) <= 1e-4 * (1 + sqrt(size)));
		operand_free(&dx, NULL);
	}
	free(expected);
	free(expected_stats);
	operand_free(&x, &weight, &bias, &y, &stats, &dy, &stats_in, NULL);
}

static void test_norm(void **state)
{
	(void)state;
	for (size_t shape = 0; shape < ROW_SHAPES; shape++) {
		for (int kind = 0; kind < 4; kind++) {
			for (int type = 0; type < 3; type++) {
				struct norm norm = {kind % 2 ? NORM_LAYER : NORM_RMS, 1e-5f, kind / 2 ? 1 : 0, 1};
				norm_case(norm, row_shapes[shape][0], row_shapes[shape][1], float_types[type],
					  float_types[(shape + (size_t)type) % 3], shape % 2 ? GAP : NO_GAP, kind == 1);
			}
		}
	}
	norm_case((struct norm){NORM_RMS, 1e-6f, 0, 6}, 19, 6 * 32, DTYPE_F32, DTYPE_F32, GAP, false);
	norm_case((struct norm){NORM_RMS, 1e-6f, 1, 5}, 4, 5 * 20, DTYPE_BF16, DTYPE_BF16, NO_GAP, false);
	norm_case((struct norm){NORM_LAYER, 1e-5f, 0, 3}, 4, 3 * 128, DTYPE_F32, DTYPE_F32, GAP, true);
}

static void rope_case(const struct rotation *rotation, int64_t rows, int64_t positions, int64_t heads, int type, bool gap)
{
	int64_t cols = heads * rotation->head_dim;
	int rotary = rotation->rotary, half = rotary / 2;
	double *angles = doubles(positions * rotary);
	for (int64_t p = 0; p < positions; p++) {
		for (int j = 0; j < half; j++) {
			angles[p * rotary + j] = cos((double)p * pow(10000, -2.0 * j / rotary));
			angles[p * rotary + half + j] = sin((double)p * pow(10000, -2.0 * j / rotary));
		}
	}
	struct operand table = operand_input(angles, positions, rotary, DTYPE_F32, gap ? GAP : NO_GAP);
	struct operand x = operand_inout(rows, cols, float_types[type], gap ? NO_GAP : GAP);
	double *expected = copy_of(x.value, rows * cols);
	ref_rope(rotation, expected, table.value, rows, cols, positions);
	RUN(OPS->rope(BACKEND, rotation, x.tensor, table.tensor));
	operand_fetch(&x);
	expect_close(x.value, expected, rows * cols, bound_of(float_types[type]), "rope %d heads of %d, %d rotary, %s%s",
		     (int)heads, rotation->head_dim, rotary, float_names[type], rotation->neighbours ? ", neighbours" : "");
	free(expected);
	operand_free(&table, &x, NULL);
}

static void test_rope(void **state)
{
	(void)state;
	static const int cases[][5] = {/* rows, positions, heads, head_dim, rotary */
				       {1, 1, 1, 2, 2},     {6, 6, 3, 32, 32},   {15, 5, 2, 20, 20},
				       {12, 4, 8, 64, 16},  {7, 9, 2, 128, 128}, {33, 11, 5, 20, 8},
				       {70, 70, 6, 32, 32}, {3, 3, 2, 16, 0},    {2, 2, 1, 2080, 2080}};
	for (size_t i = 0; i < COUNT(cases); i++)
		for (int type = 0; type < 3; type++)
			for (int way = 0; way < 4; way++) {
				const int *c = cases[i];
				struct rotation rotation = {c[3], c[4], way & 1, way & 2};
				rope_case(&rotation, c[0], c[1], c[2], type, i % 2);
			}
}

static void attention_case(struct attention a, enum dtype type, int gap)
{
	int64_t rows = (int64_t)a.batch * a.tokens, q_cols = (int64_t)a.heads * a.head_dim,
		k_cols = (int64_t)a.kv_heads * a.head_dim;
	int64_t lse_rows = (int64_t)a.batch * a.heads;
	char name[160];
	snprintf(name, sizeof name, "%d × %d tokens, %d/%d heads of %d, window %d, cap %g, %s", a.batch, a.tokens, a.heads,
		 a.kv_heads, a.head_dim, (int)a.window, (double)a.softcap, float_names[type]);
	struct operand q = operand_random(rows, q_cols, type, gap), k = operand_random(rows, k_cols, type, gap);
	struct operand v = operand_random(rows, k_cols, type, gap), dout = operand_random(rows, q_cols, type, gap);
	struct operand out = operand_output(rows, q_cols, type, gap), lse = operand_output(lse_rows, a.tokens, DTYPE_F32, gap);
	double *expected = doubles(rows * q_cols), *expected_lse = doubles(lse_rows * a.tokens);
	ref_attention_forward(&a, expected, expected_lse, q.value, k.value, v.value);
	RUN(OPS->attention_forward(BACKEND, &a, out.tensor, lse.tensor, q.tensor, k.tensor, v.tensor));
	operand_fetch(&out);
	operand_fetch(&lse);
	expect_close(out.value, expected, rows * q_cols, bound_of(type), "attention_forward %s", name);
	expect_close(lse.value, expected_lse, lse_rows * a.tokens, 1e-9, "attention_forward lse %s", name);

	struct operand out_in = operand_input(expected, rows, q_cols, type, gap);
	struct operand lse_in = operand_input(expected_lse, lse_rows, a.tokens, DTYPE_F32, gap);
	struct operand dq = operand_output(rows, q_cols, type, gap), dk = operand_output(rows, k_cols, type, gap);
	struct operand dv = operand_output(rows, k_cols, type, gap);
	double *expected_dq = doubles(rows * q_cols), *expected_dk = doubles(rows * k_cols), *expected_dv = doubles(rows * k_cols);
	ref_attention_backward(&a, expected_dq, expected_dk, expected_dv, q.value, k.value, v.value, dout.value);
	RUN(OPS->attention_backward(BACKEND, &a, dq.tensor, dk.tensor, dv.tensor, q.tensor, k.tensor, v.tensor, out_in.tensor,
				    lse_in.tensor, dout.tensor));
	operand_fetch(&dq);
	operand_fetch(&dk);
	operand_fetch(&dv);
	/* With one visible key the gradients of q and k are differences that cancel to 0. */
	double bound = bound_of(type);
	bool informative = a.tokens > 1 && a.window != 1;
	if (informative) {
		/* `out` comes rounded to the type: its error enters dq and dk through Σ dout·out, next to their own rounding. */
		double by_out = type == DTYPE_F32 ? bound : 10 * bound;
		expect_close(dq.value, expected_dq, rows * q_cols, by_out, "attention_backward dq %s", name);
		expect_close(dk.value, expected_dk, rows * k_cols, by_out, "attention_backward dk %s", name);
	}
	expect_close(dv.value, expected_dv, rows * k_cols, bound, "attention_backward dv %s", name);
	free(expected_dq);
	free(expected_dk);
	free(expected_dv);
	operand_free(&q, &k, &v, &dout, &out, &lse, &out_in, &lse_in, &dq, &dk, &dv, NULL);
}

static void test_attention(void **state)
{
	(void)state;
	static const struct attention cases[] = {
		{1, 1, 1, 1, 32, 0.18f, 0, 0},     {2, 3, 2, 1, 20, 0.22f, 0, 0},     {1, 64, 2, 2, 32, 0.18f, 0, 0},
		{1, 65, 6, 6, 32, 0.18f, 0, 0},    {3, 33, 4, 2, 64, 0.125f, 0, 0},   {2, 130, 3, 1, 20, 0.22f, 0, 0},
		{1, 129, 2, 1, 128, 0.09f, 0, 0},  {1, 200, 8, 2, 16, 0.25f, 0, 0},   {2, 100, 2, 2, 32, 0.18f, 30, 0},
		{1, 97, 4, 1, 48, 0.14f, 0.8f, 0}, {1, 70, 2, 2, 32, 0.18f, 0, 1},    {1, 150, 2, 1, 32, 0.18f, 0, 17},
		{2, 140, 2, 2, 20, 0.22f, 0, 64},  {1, 200, 2, 1, 64, 0.125f, 5, 70}, {1, 66, 1, 1, 32, 0.18f, 0, 1000},
		{1, 96, 5, 5, 1, 1, 0, 0},         {1, 90, 1, 1, 160, 0.08f, 0, 0},   {1, 257, 2, 2, 32, 2, 0, 0},
	};
	for (size_t i = 0; i < COUNT(cases); i++)
		for (int type = 0; type < (cases[i].scale > 1 ? 1 : 3);
		     type++) /* sharp attention amplifies what bf16 inputs lose */
			attention_case(cases[i], float_types[type], i % 2 ? GAP : NO_GAP);
}

/* Sinks below, among and above the sums. */
static void test_attention_sinks(void **state)
{
	(void)state;
	static const struct attention cases[] = {
		{1, 1, 1, 1, 32, 1, 0, 0}, {3, 33, 5, 5, 20, 1, 0, 0}, {2, 40, 2, 2, 160, 1, 0, 0}};
	for (size_t i = 0; i < COUNT(cases); i++)
		for (int type = 0; type < 3; type++) {
			const struct attention *a = &cases[i];
			int64_t rows = (int64_t)a->batch * a->tokens, cols = (int64_t)a->heads * a->head_dim;
			int64_t sums = (int64_t)a->batch * a->heads;
			int gap = i % 2 ? GAP : NO_GAP;
			struct operand out = operand_inout(rows, cols, float_types[type], gap);
			struct operand lse = operand_input(uniform(sums * a->tokens, -2, 6), sums, a->tokens, DTYPE_F32, gap);
			struct operand sinks = operand_input(uniform(a->heads, -4, 4), 1, a->heads, DTYPE_F32, NO_GAP);
			double *expected = copy_of(out.value, rows * cols), *expected_lse = copy_of(lse.value, sums * a->tokens);
			lse.input = false;
			ref_attention_sinks(a, expected, expected_lse, sinks.value);
			RUN(OPS->attention_sinks(BACKEND, a, out.tensor, lse.tensor, sinks.tensor));
			operand_fetch(&out);
			operand_fetch(&lse);
			expect_close(out.value, expected, rows * cols, bound_of(float_types[type]), "attention_sinks %s",
				     float_names[type]);
			expect_close(lse.value, expected_lse, sums * a->tokens, 1e-12, "attention_sinks lse %s", float_names[type]);
			free(expected);
			free(expected_lse);
			operand_free(&out, &lse, &sinks, NULL);
		}
}

/* Logits far beyond what exp can hold, ahead of and behind the rest. */
static void test_attention_large_logits(void **state)
{
	(void)state;
	struct attention a = {1, 100, 1, 1, 32, 10, 0, 0};
	attention_case(a, DTYPE_F32, NO_GAP);
}

/* A key that is no number makes no numbers of the queries that see it, and of no others. */
static void test_attention_not_finite(void **state)
{
	(void)state;
	enum { TOKENS = 80, DIM = 32, BAD = 70 };
	const struct attention a = {1, TOKENS, 1, 1, DIM, 0.18f, 0, 0};
	struct operand q = operand_random(TOKENS, DIM, DTYPE_F32, NO_GAP), v = operand_random(TOKENS, DIM, DTYPE_F32, NO_GAP);
	double *keys = uniform(TOKENS * DIM, -1, 1);
	keys[BAD * DIM] = NAN;
	struct operand k = operand_input(keys, TOKENS, DIM, DTYPE_F32, NO_GAP);
	struct operand out = operand_output(TOKENS, DIM, DTYPE_F32, NO_GAP), lse = operand_output(1, TOKENS, DTYPE_F32, NO_GAP);
	RUN(OPS->attention_forward(BACKEND, &a, out.tensor, lse.tensor, q.tensor, k.tensor, v.tensor));
	float got[TOKENS * DIM]; /* operand_fetch takes what is no number for what was not written */
	RUN(OPS->download(BACKEND, got, out.tensor.data, sizeof got));
	for (int token = 0; token < TOKENS; token++)
		if (!isnan(got[token * DIM]) != (token < BAD)) fail_msg("token %d: %g", token, (double)got[token * DIM]);
	operand_free(&q, &k, &v, &out, &lse, NULL);
}

static void activation_case(struct activation activation, int64_t rows, int64_t cols, enum dtype type, enum dtype out_type, int gap,
			    bool gated)
{
	enum activation_kind kind = activation.kind;
	static const char *const names[] = {"silu", "gelu_tanh", "gelu", "relu", "clamped_swiglu"};
	double range = rows * cols < 16 ? 2 : 9; /* far out the results fall below half's range: no few of them alone */
	struct operand gate = operand_input(uniform(rows * cols, -range, range), rows, cols, type, gap);
	struct operand up = gated ? operand_input(uniform(rows * cols, -range, range), rows, cols, type, gap) : operand_none();
	struct operand dy = operand_random(rows, cols, out_type, gap), y = operand_output(rows, cols, out_type, gap);
	struct operand dgate = operand_output(rows, cols, out_type, gap), dup = operand_output(rows, cols, out_type, gap);
	double *expected = doubles(rows * cols), *expected_dgate = doubles(rows * cols), *expected_dup = doubles(rows * cols);
	for (int64_t i = 0; i < rows * cols; i++) {
		double factor = gated ? up.value[i] : 1;
		if (kind == ACTIVATION_CLAMPED_SWIGLU) {
			expected[i] = ref_clamped_swiglu(activation, gate.value[i], factor, &expected_dgate[i], &expected_dup[i]);
			expected_dgate[i] *= dy.value[i];
			expected_dup[i] *= dy.value[i];
			continue;
		}
		expected[i] = ref_activation(kind, gate.value[i]) * factor;
		expected_dup[i] = dy.value[i] * ref_activation(kind, gate.value[i]);
		expected_dgate[i] = dy.value[i] * factor * ref_activation_slope(kind, gate.value[i]);
	}
	RUN(OPS->activation_forward(BACKEND, activation, y.tensor, gate.tensor, up.tensor));
	RUN(OPS->activation_backward(BACKEND, activation, dgate.tensor, gated ? dup.tensor : operand_none().tensor, dy.tensor,
				     gate.tensor, up.tensor));
	operand_fetch(&y);
	operand_fetch(&dgate);
	expect_close(y.value, expected, rows * cols, bound_of(out_type), "activation_forward %s [%lld, %lld] %s to %s", names[kind],
		     (long long)rows, (long long)cols, float_names[type], float_names[out_type]);
	expect_close(dgate.value, expected_dgate, rows * cols, bound_of(out_type), "activation_backward %s [%lld, %lld] %s to %s",
		     names[kind], (long long)rows, (long long)cols, float_names[type], float_names[out_type]);
	if (gated) {
		operand_fetch(&dup);
		expect_close(dup.value, expected_dup, rows * cols, bound_of(out_type), "activation_backward dup %s", names[kind]);
	}
	/* In place. */
	struct operand over_gate = operand_input(copy_of(gate.value, rows * cols), rows, cols, type, gap);
	struct operand over_up = gated ? operand_input(copy_of(up.value, rows * cols), rows, cols, type, gap) : operand_none();
	over_gate.input = over_up.input = false;
	RUN(OPS->activation_backward(BACKEND, activation, over_gate.tensor, over_up.tensor, dy.tensor, over_gate.tensor,
				     over_up.tensor));
	operand_fetch(&over_gate);
	expect_close(over_gate.value, expected_dgate, rows * cols, bound_of(type), "activation_backward in place %s", names[kind]);
	if (gated) {
		operand_fetch(&over_up);
		expect_close(over_up.value, expected_dup, rows * cols, bound_of(type), "activation_backward dup in place %s",
			     names[kind]);
	}
	free(expected);
	free(expected_dgate);
	free(expected_dup);
	operand_free(&gate, &up, &dy, &y, &dgate, &dup, &over_gate, &over_up, NULL);
}

static void test_activation(void **state)
{
	(void)state;
	static const float alphas[] = {1.702f, 0.9f}, limits[] = {7, 2.5f};
	for (size_t shape = 0; shape < ROW_SHAPES; shape++)
		for (int kind = 0; kind < 5; kind++)
			for (int type = 0; type < 3; type++)
				activation_case(
					(struct activation){(enum activation_kind)kind, alphas[shape % 2], limits[shape % 2]},
					row_shapes[shape][0], row_shapes[shape][1], float_types[type],
					float_types[shape % 2 ? 0 : type], shape % 2 ? GAP : NO_GAP,
					kind == ACTIVATION_CLAMPED_SWIGLU || (shape + (size_t)kind) % 3 != 0);
}

/* ---- evaluation -------------------------------------------------------------------------------------------------------------- */

static void test_token_logprobs(void **state)
{
	(void)state;
	static const int64_t shapes[][2] = {{6, 2}, {3, 7}, {17, 2048}, {5, 5001}};
	for (size_t i = 0; i < COUNT(shapes); i++) {
		for (int combination = 0; combination < 6; combination++) {
			int64_t rows = shapes[i][0], cols = shapes[i][1];
			enum dtype type = float_types[combination % 3];
			float softcap = combination / 3 ? 4 : 0;
			double *values = doubles(rows * cols), *expected = doubles(rows);
			for (int64_t j = 0; j < rows * cols; j++)
				values[j] = 8 * random_normal() + 100 * (j % 3 == 0 && i == 2);
			struct operand logits = operand_input(values, rows, cols, type, i % 2 ? GAP : NO_GAP);
			struct operand targets = operand_input(integers(rows, (int)cols), 1, rows, DTYPE_I32, NO_GAP);
			struct operand out = operand_output(1, rows, DTYPE_F64, NO_GAP);
			ref_token_logprobs(expected, logits.value, targets.value, (double)softcap, rows, cols);
			RUN(OPS->token_logprobs(BACKEND, out.tensor.data, logits.tensor, targets.tensor.data, softcap));
			operand_fetch(&out);
			expect_close(out.value, expected, rows, 1e-9, "token_logprobs [%lld, %lld] %s, cap %g", (long long)rows,
				     (long long)cols, float_names[combination % 3], (double)softcap);
			free(expected);
			operand_free(&logits, &targets, &out, NULL);
		}
	}
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

/* To and from the backend's own host memory, and from the middle of it; its bounds are those of no other memory. */
static void test_host_memory(void **state)
{
	(void)state;
	enum { BYTES = 100000 };
	void *host, *other, *device, *empty;
	unsigned char plain[BYTES], back[BYTES];
	RUN(OPS->alloc_host(BACKEND, BYTES, &host));
	RUN(OPS->alloc_host(BACKEND, BYTES, &other));
	RUN(OPS->alloc_host(BACKEND, 0, &empty));
	RUN(OPS->alloc(BACKEND, BYTES, &device));
	for (int i = 0; i < BYTES; i++)
		((unsigned char *)host)[i] = plain[i] = (unsigned char)random_below(256);
	RUN(OPS->upload(BACKEND, device, host, BYTES));
	RUN(OPS->download(BACKEND, other, device, BYTES));
	assert_memory_equal(other, plain, BYTES);
	RUN(OPS->download(BACKEND, back, device, BYTES));
	assert_memory_equal(back, plain, BYTES);
	RUN(OPS->upload(BACKEND, device, (char *)host + 70000, 1000));
	RUN(OPS->upload(BACKEND, (char *)device + 1000, plain, 1000));
	RUN(OPS->download(BACKEND, (char *)other + 5, device, 2000));
	assert_memory_equal((char *)other + 5, plain + 70000, 1000);
	assert_memory_equal((char *)other + 1005, plain, 1000);
	assert_memory_equal(other, plain, 5);
	assert_memory_equal((char *)other + 2005, plain + 2005, BYTES - 2005);
	OPS->release_host(BACKEND, host);
	OPS->release_host(BACKEND, other);
	OPS->release_host(BACKEND, empty);
	OPS->release_host(BACKEND, NULL);
	OPS->release(BACKEND, device);
}

/* y += x, then y += x · w twice, as a recording: nothing runs before it is replayed, and each replay goes on from the last. */
static void test_recording(void **state)
{
	(void)state;
	enum { N = 24 };
	struct recording *recording = NULL;
	void *memory;
	unsigned char byte;
	if (!OPS->record_begin) skip();
	struct operand x = operand_random(N, N, DTYPE_BF16, NO_GAP), w = operand_random(N, N, DTYPE_BF16, NO_GAP);
	struct operand y = operand_inout(N, N, DTYPE_F32, NO_GAP), sums = operand_output(1, N, DTYPE_F64, NO_GAP);
	struct operand theirs = operand_output(N, N, DTYPE_BF16, NO_GAP);
	double *expected = copy_of(y.value, N * N), *product = doubles(N * N);
	RUN(OPS->zero(BACKEND, sums.tensor.data, N * sizeof(double)));
	/* The shapes, once: the norms take scratch memory, which the recording then keeps. */
	RUN(OPS->matmul(BACKEND, theirs.tensor, x.tensor, false, w.tensor, false, false));
	RUN(OPS->column_norms(BACKEND, sums.tensor.data, x.tensor));
	RUN(OPS->matmul(BACKEND, y.tensor, x.tensor, false, w.tensor, false, true));
	ref_matmul(expected, x.value, false, w.value, false, N, N, N, true);

	RUN(OPS->record_begin(BACKEND));
	RUN(OPS->add(BACKEND, y.tensor, x.tensor));
	RUN(OPS->matmul(BACKEND, y.tensor, x.tensor, false, w.tensor, false, true));
	RUN(OPS->column_norms(BACKEND, sums.tensor.data, x.tensor));
	RUN(OPS->record_end(BACKEND, &recording));
	ref_matmul(product, x.value, false, w.value, false, N, N, N, false);
	for (int replays = 0; replays < 3; replays++) {
		struct operand other = operand_random(N, N, DTYPE_F32, NO_GAP);
		RUN(OPS->column_norms(BACKEND, sums.tensor.data, other.tensor)); /* in between, with scratch of its own */
		RUN(OPS->replay(BACKEND, recording));
		for (int i = 0; i < N * N; i++)
			expected[i] += x.value[i] + product[i];
		operand_free(&other, NULL);
	}
	operand_fetch(&y);
	expect_close(y.value, expected, N * N, 1e-9, "a recording that was replayed three times");
	OPS->release_recording(BACKEND, recording);
	OPS->release_recording(BACKEND, NULL);

	/* What cannot be noted: the recording says so, and the backend goes on. */
	RUN(OPS->record_begin(BACKEND));
	assert_int_not_equal(OPS->alloc(BACKEND, (size_t)77 << 20, &memory), STATUS_OK);
	if (OPS->record_end(BACKEND, &recording) == STATUS_OK) OPS->release_recording(BACKEND, recording);
	RUN(OPS->record_begin(BACKEND));
	assert_int_not_equal(OPS->download(BACKEND, &byte, y.tensor.data, 1), STATUS_OK);
	assert_int_equal(OPS->record_end(BACKEND, &recording), STATUS_UNSUPPORTED);
	RUN(OPS->add(BACKEND, y.tensor, x.tensor));
	for (int i = 0; i < N * N; i++)
		expected[i] += x.value[i];
	operand_fetch(&y);
	expect_close(y.value, expected, N * N, 1e-9, "an operation after a recording that failed");
	free(expected);
	free(product);
	RUN(OPS->sync(BACKEND));
	operand_fetch(&sums);
	operand_fetch(&theirs);
	operand_free(&x, &w, &y, &sums, &theirs, NULL);
}

static void test_memory(void **state)
{
	(void)state;
	struct backend *b = BACKEND;
	unsigned char host[1000], back[1000];
	void *one, *two, *empty;
	size_t free_bytes, total;
	for (size_t i = 0; i < sizeof host; i++)
		host[i] = (unsigned char)random_below(256);
	RUN(OPS->alloc(b, sizeof host, &one));
	RUN(OPS->alloc(b, sizeof host, &two));
	RUN(OPS->alloc(b, 0, &empty));
	assert_non_null(empty);
	assert_int_equal((uintptr_t)one % 256, 0);
	assert_int_equal((uintptr_t)two % 256, 0);
	RUN(OPS->upload(b, one, host, sizeof host));
	RUN(OPS->zero(b, two, sizeof host));
	RUN(OPS->copy(b, (char *)two + 100, (char *)one + 10, 500));
	RUN(OPS->sync(b));
	RUN(OPS->download(b, back, two, sizeof back));
	assert_memory_equal(back + 100, host + 10, 500);
	for (int i = 0; i < 1000; i++)
		if (i < 100 || i >= 600) assert_int_equal(back[i], 0);
	RUN(OPS->memory(b, &free_bytes, &total));
	assert_in_range(free_bytes, 1, total);
	OPS->release(b, one);
	OPS->release(b, two);
	OPS->release(b, empty);
	OPS->release(b, NULL);
}

/* What another thread sends and fetches while operations run, in more than one of any backend's pieces. */
struct side {
	unsigned char *sent, *fetched;
	void *to, *from;
	size_t bytes;
	enum status status;
	struct error error;
};

static void *side_transfers(void *context)
{
	struct side *side = context;
	side->status = OPS->side_upload(BACKEND, side->to, side->sent, side->bytes, &side->error);
	if (side->status == STATUS_OK)
		side->status = OPS->side_download(BACKEND, side->fetched, side->from, side->bytes, &side->error);
	return NULL;
}

static void test_side_transfers(void **state)
{
	(void)state;
	struct side side = {.bytes = ((size_t)33 << 20) + 5};
	pthread_t thread;
	side.sent = malloc(side.bytes);
	side.fetched = malloc(side.bytes);
	assert_true(side.sent && side.fetched);
	for (size_t i = 0; i < side.bytes; i++)
		side.sent[i] = (unsigned char)(i * 2654435761u >> 13);
	RUN(OPS->alloc(BACKEND, side.bytes, &side.to));
	RUN(OPS->alloc(BACKEND, side.bytes, &side.from));
	RUN(OPS->upload(BACKEND, side.from, side.sent, side.bytes));
	RUN(OPS->sync(BACKEND));
	struct operand a = operand_random(64, 64, DTYPE_F32, NO_GAP), c = operand_output(64, 64, DTYPE_F32, NO_GAP);
	assert_int_equal(pthread_create(&thread, NULL, side_transfers, &side), 0);
	for (int i = 0; i < 20; i++)
		RUN(OPS->matmul(BACKEND, c.tensor, a.tensor, false, a.tensor, true, false));
	assert_int_equal(pthread_join(thread, NULL), 0);
	if (side.status != STATUS_OK) fail_msg("%s", side.error.message);
	assert_memory_equal(side.fetched, side.sent, side.bytes);
	memset(side.fetched, 0, side.bytes);
	RUN(OPS->download(BACKEND, side.fetched, side.to, side.bytes));
	assert_memory_equal(side.fetched, side.sent, side.bytes);
	operand_fetch(&c);
	operand_free(&a, &c, NULL);
	OPS->release(BACKEND, side.to);
	OPS->release(BACKEND, side.from);
	free(side.sent);
	free(side.fetched);
}

/* The same operation on the same operands gives the same bits. */
static void test_repeatable(void **state)
{
	(void)state;
	struct attention a = {1, 200, 6, 2, 32, 0.18f, 0, 0};
	struct operand q = operand_random(200, 192, DTYPE_F32, NO_GAP), k = operand_random(200, 64, DTYPE_F32, NO_GAP);
	struct operand v = operand_random(200, 64, DTYPE_F32, NO_GAP), dout = operand_random(200, 192, DTYPE_F32, NO_GAP);
	struct operand weight = operand_random(192, 64, DTYPE_F32, NO_GAP),
		       bin = operand_input(integers(192 * 64, 100), 192, 64, DTYPE_U8, NO_GAP);
	double *first = NULL;
	for (int run = 0; run < 5; run++) {
		struct operand out = operand_output(200, 192, DTYPE_F32, NO_GAP), lse = operand_output(6, 200, DTYPE_F32, NO_GAP);
		struct operand dq = operand_output(200, 192, DTYPE_F32, NO_GAP), dk = operand_output(200, 64, DTYPE_F32, NO_GAP);
		struct operand dv = operand_output(200, 64, DTYPE_F32, NO_GAP), sums = operand_output(1, 100, DTYPE_F32, NO_GAP);
		struct operand product = operand_output(200, 192, DTYPE_F32, NO_GAP);
		RUN(OPS->attention_forward(BACKEND, &a, out.tensor, lse.tensor, q.tensor, k.tensor, v.tensor));
		RUN(OPS->attention_backward(BACKEND, &a, dq.tensor, dk.tensor, dv.tensor, q.tensor, k.tensor, v.tensor, out.tensor,
					    lse.tensor, dout.tensor));
		RUN(OPS->binned_gradient(BACKEND, sums.tensor, dout.tensor, v.tensor, weight.tensor, bin.tensor, true));
		RUN(OPS->matmul(BACKEND, product.tensor, v.tensor, false, weight.tensor, true, false));
		struct operand *outputs[] = {&out, &lse, &dq, &dk, &dv, &sums, &product};
		double *all = doubles(200 * 192 * 6), *end = all;
		for (size_t i = 0; i < COUNT(outputs); i++) {
			size_t n = (size_t)outputs[i]->tensor.rows * (size_t)outputs[i]->tensor.cols;
			operand_fetch(outputs[i]);
			memcpy(end, outputs[i]->value, n * sizeof *end);
			end += n;
		}
		if (first) assert_memory_equal(all, first, (size_t)(end - all) * sizeof *all);
		if (first)
			free(all);
		else
			first = all;
		operand_free(&out, &lse, &dq, &dk, &dv, &sums, &product, NULL);
	}
	free(first);
	operand_free(&q, &k, &v, &dout, &weight, &bin, NULL);
}

/* A product of a matrix with its own transpose, of which a backend may compute a triangle; and one that is added to such a one. */
static void symmetric_case(int64_t n, int64_t k, bool transpose, enum dtype type)
{
	struct operand x = transpose ? operand_random(k, n, type, GAP) : operand_random(n, k, type, GAP);
	struct operand c = operand_inout(n, n, DTYPE_F32, GAP);
	double *expected = doubles(n * n);
	ref_matmul(expected, x.value, transpose, x.value, !transpose, n, n, k, false);
	RUN(OPS->matmul(BACKEND, c.tensor, x.tensor, transpose, x.tensor, !transpose, false));
	operand_fetch(&c);
	expect_close(c.value, expected, n * n, bound_of(DTYPE_F32), "a matrix of %lld, %lld deep, and its own transpose",
		     (long long)n, (long long)k);
	RUN(OPS->matmul(BACKEND, c.tensor, x.tensor, transpose, x.tensor, !transpose, true));
	operand_fetch(&c);
	for (int64_t i = 0; i < n * n; i++)
		expected[i] *= 2;
	expect_close(c.value, expected, n * n, bound_of(DTYPE_F32), "twice a matrix of %lld, %lld deep, and its own transpose",
		     (long long)n, (long long)k);
	operand_free(&x, &c, NULL);
	free(expected);
}

static void test_matmul_symmetric(void **state)
{
	(void)state;
	static const int64_t sizes[][2] = {{1, 5}, {40, 24}, {256, 9}, {257, 33}, {300, 130}, {530, 40}};
	for (size_t i = 0; i < COUNT(sizes); i++)
		for (int transpose = 0; transpose < 2; transpose++) {
			symmetric_case(sizes[i][0], sizes[i][1], transpose, DTYPE_F32);
			symmetric_case(sizes[i][0], sizes[i][1], transpose, DTYPE_BF16);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_recording),
		cmocka_unit_test(test_memory),
		cmocka_unit_test(test_host_memory),
		cmocka_unit_test(test_convert),
		cmocka_unit_test(test_matmul),
		cmocka_unit_test(test_matmul_onto),
		cmocka_unit_test(test_matmul_views),
		cmocka_unit_test(test_matmul_symmetric),
		cmocka_unit_test(test_add),
		cmocka_unit_test(test_embed),
		cmocka_unit_test(test_norm),
		cmocka_unit_test(test_rope),
		cmocka_unit_test(test_attention),
		cmocka_unit_test(test_attention_large_logits),
		cmocka_unit_test(test_attention_not_finite),
		cmocka_unit_test(test_attention_sinks),
		cmocka_unit_test(test_activation),
		cmocka_unit_test(test_token_logprobs),
		cmocka_unit_test(test_repeatable),
		cmocka_unit_test(test_side_transfers),
		cmocka_unit_test(test_matmul_large),
	};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
