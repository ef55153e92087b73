/* Matrix products. fp32 goes to oneDNN's sgemm; bf16, where the processor multiplies it, to its matmul primitive (matmul_bf16.c)
 * or, by a small matrix, to kernels of our own (product_bf16.h), and else, as F16 does, through fp32 copies of the operands, which
 * gives the same numbers: products of bf16 are exact in fp32. */
#include <stdatomic.h>
#include <string.h>

#include <oneapi/dnnl/dnnl.h>

#include "engine/compute/cpu/cpu.h"
#include "engine/compute/cpu/matmul_bf16.h"
#include "engine/compute/cpu/product_bf16.h"

/* A product is cut into pieces that are each made by one thread: of at least so many multiplications, some 50 µs, so many rows
 * and columns, and a multiple of what oneDNN makes at once. Each packs its part of A and B anew, so there are not many. */
enum { LEAST_WORK = 2500000, LEAST_SIDE = 48, GRAIN = 16 };

/* Where pieces begin does not depend on the number of threads, up to four of them: it may show in the last bits. */
struct product_cut cpu_cut_product(const struct cpu_backend *cpu, int64_t m, int64_t n, int64_t k)
{
	int64_t most = 16, by_work = m * n / LEAST_WORK * k + m * n % LEAST_WORK * k / LEAST_WORK, rows = 1, cols = 1;
	while (most < 4 * cpu->base.threads)
		most *= 2;
	if (by_work < most) most = by_work;
	while (2 * rows * cols <= most) {
		bool tall = m / rows >= n / cols / 2;
		if (tall && m / rows >= 2 * LEAST_SIDE)
			rows *= 2;
		else if (n / cols >= 2 * LEAST_SIDE)
			cols *= 2;
		else if (m / rows >= 2 * LEAST_SIDE)
			rows *= 2;
		else
			break;
	}
	int64_t height = ((m + rows - 1) / rows + GRAIN - 1) / GRAIN * GRAIN,
		width = ((n + cols - 1) / cols + GRAIN - 1) / GRAIN * GRAIN;
	return (struct product_cut){height, width, (m + height - 1) / height, (n + width - 1) / width};
}

struct sgemm_work {
	bool transpose_a, transpose_b, accumulate;
	int64_t m, n, k, lda, ldb, ldc;
	const float *a, *b;
	float *c;
	struct product_cut cut;
	atomic_int *failed; /* a status of oneDNN */
};

static void sgemm_part(const void *context, struct share pieces)
{
	const struct sgemm_work *w = context;
	for (int64_t piece = pieces.first; piece < pieces.last; piece++) {
		int64_t row = piece / w->cut.across * w->cut.height, col = piece % w->cut.across * w->cut.width;
		int64_t rows = w->m - row < w->cut.height ? w->m - row : w->cut.height;
		int64_t cols = w->n - col < w->cut.width ? w->n - col : w->cut.width;
		const float *a = w->a + row * (w->transpose_a ? 1 : w->lda), *b = w->b + col * (w->transpose_b ? w->ldb : 1);
		dnnl_status_t status = dnnl_sgemm(w->transpose_a ? 'T' : 'N', w->transpose_b ? 'T' : 'N', rows, cols, w->k, 1, a,
						  w->lda, b, w->ldb, w->accumulate ? 1 : 0, w->c + row * w->ldc + col, w->ldc);
		if (status != dnnl_success) atomic_store(w->failed, (int)status);
	}
}

/* C = op(A) · op(B) (+ C) in fp32, row-major. */
static enum status sgemm(struct cpu_backend *cpu, bool transpose_a, bool transpose_b, int64_t m, int64_t n, int64_t k,
			 const float *a, int64_t lda, const float *b, int64_t ldb, bool accumulate, float *c, int64_t ldc)
{
	atomic_int failed = dnnl_success;
	struct product_cut cut = cpu_cut_product(cpu, m, n, k);
	const struct sgemm_work work = {transpose_a, transpose_b, accumulate, m, n, k, lda, ldb, ldc, a, b, c, cut, &failed};
	cpu_run(cpu, cut.down * cut.across, 1, sgemm_part, &work);
	int status = failed;
	if (status == dnnl_success) return STATUS_OK;
	return error_set(&cpu->base.error, status == dnnl_out_of_memory ? STATUS_NO_MEMORY : STATUS_BACKEND,
			 "matmul: oneDNN's sgemm of %lld × %lld × %lld failed with status %d", (long long)m, (long long)n,
			 (long long)k, status);
}

/* An fp32 view of t: itself, or a copy at *memory, which moves on behind it. */
static struct tensor as_f32(struct cpu_backend *cpu, struct tensor t, float **memory)
{
	if (t.dtype == DTYPE_F32) return t;
	struct tensor copy = tensor_make(*memory, t.rows, t.cols, DTYPE_F32);
	*memory += t.rows * t.cols;
	cpu->base.unchecked.convert(&cpu->base, copy, t);
	return copy;
}

static size_t f32_copy_bytes(struct tensor t)
{
	return t.dtype == DTYPE_F32 ? 0 : (size_t)t.rows * (size_t)t.cols * sizeof(float);
}

static bool is_native(const struct cpu_backend *cpu, const struct tensor *c, const struct tensor *a)
{
	return cpu->base.native_bf16 && a->dtype == DTYPE_BF16 && c->dtype != DTYPE_F16;
}

/* Whether it is a product of bf16 by a small matrix. */
static bool is_small(const struct cpu_backend *cpu, const struct tensor *c, const struct tensor *a, bool transpose_a)
{
	return cpu->bf16_kernels && is_native(cpu, c, a) && a->cols && c->cols && product_suits(c, a, transpose_a);
}

static void pack_part(const void *context, struct share cols)
{
	product_pack(context, cols.first, cols.last);
}

static void multiply_part(const void *context, struct share rows)
{
	product_multiply(context, rows.first, rows.last);
}

static enum status small_product(struct cpu_backend *cpu, struct product_job job)
{
	void *scratch;
	TRY(cpu_scratch(cpu, "matmul", product_panels(&job.c, &job.a) * sizeof *job.panels, &scratch));
	if (cpu->base.dry) return STATUS_OK;
	job.panels = scratch;
	int64_t a_row = job.c.cols * job.a.cols, rows = LEAST_WORK / (a_row ? a_row : 1) / PRODUCT_GRAIN * PRODUCT_GRAIN;
	cpu_share_out(cpu, job.c.cols, PRODUCT_PANEL, job.c.cols * job.a.cols, pack_part, &job);
	cpu_run(cpu, job.c.rows, rows > PRODUCT_GRAIN ? rows : PRODUCT_GRAIN, multiply_part, &job);
	return STATUS_OK;
}

static enum status product(struct cpu_backend *cpu, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			   bool transpose_b, bool accumulate)
{
	struct backend *backend = &cpu->base;
	int64_t inner = transpose_a ? a.rows : a.cols;
	if (!c.rows || !c.cols || (backend->dry && !inner)) return STATUS_OK;
	if (!inner) {
		for (int64_t row = 0; row < c.rows && !accumulate; row++)
			memset((char *)c.data + (size_t)(row * c.stride) * dtype_size(c.dtype), 0,
			       (size_t)c.cols * dtype_size(c.dtype));
		return STATUS_OK;
	}
	if (is_small(cpu, &c, &a, transpose_a))
		return small_product(
			cpu, (struct product_job){.c = c, .a = a, .b = b, .transpose_b = transpose_b, .accumulate = accumulate});
	if (is_native(cpu, &c, &a)) return cpu_matmul_bf16(cpu, c, a, transpose_a, b, transpose_b, accumulate);

	void *scratch;
	TRY(cpu_scratch(cpu, "matmul", f32_copy_bytes(a) + f32_copy_bytes(b) + f32_copy_bytes(c), &scratch));
	if (backend->dry) return STATUS_OK;
	float *memory = scratch;
	a = as_f32(cpu, a, &memory);
	b = as_f32(cpu, b, &memory);
	struct tensor result = c;
	if (c.dtype != DTYPE_F32) {
		result = tensor_make(memory, c.rows, c.cols, DTYPE_F32);
		if (accumulate) backend->unchecked.convert(backend, result, c);
	}
	TRY(sgemm(cpu, transpose_a, transpose_b, c.rows, c.cols, inner, a.data, a.stride, b.data, b.stride, accumulate, result.data,
		  result.stride));
	return c.dtype == DTYPE_F32 ? STATUS_OK : backend->unchecked.convert(backend, c, result);
}

/* ---- a matrix and its own transpose: a triangle says it all ---------------------------------------------------------------- */

enum {
	PANEL_ROWS = 256, /* of the triangle, computed at once: much smaller ones are products at a lower rate */
	MIRROR_TILE = 32  /* 4 KiB are read, and 4 KiB written */
};

static bool is_symmetric(const struct tensor *c, const struct tensor *a, bool transpose_a, const struct tensor *b, bool transpose_b)
{
	return a->data == b->data && a->rows == b->rows && a->cols == b->cols && a->stride == b->stride && a->dtype == b->dtype &&
	       transpose_a != transpose_b && c->dtype == DTYPE_F32 && c->rows > PANEL_ROWS;
}

static void mirror_part(const void *context, struct share tiles)
{
	const struct tensor *c = context;
	float *values = c->data;
	int64_t first = tiles.first * MIRROR_TILE, last = tiles.last * MIRROR_TILE < c->rows ? tiles.last * MIRROR_TILE : c->rows;
	for (int64_t left = 0; left < last; left += MIRROR_TILE)
		for (int64_t row = first; row < last; row++)
			for (int64_t col = left; col < row && col < left + MIRROR_TILE; col++)
				values[row * c->stride + col] = values[col * c->stride + row];
}

/* The lower triangle of a square matrix from the upper one. */
static void mirror(struct cpu_backend *cpu, const struct tensor *c)
{
	int64_t tiles = (c->rows + MIRROR_TILE - 1) / MIRROR_TILE;
	cpu_run(cpu, tiles, 1, mirror_part, c);
}

static enum status symmetric_product(struct cpu_backend *cpu, struct tensor c, struct tensor a, bool transpose, bool accumulate)
{
	int64_t n = c.rows;
	for (int64_t row = 0; row < n; row += PANEL_ROWS) {
		int64_t rows = n - row < PANEL_ROWS ? n - row : PANEL_ROWS;
		struct tensor panel = tensor_cols(tensor_rows(c, row, rows), row, n - row);
		struct tensor left = transpose ? tensor_cols(a, row, rows) : tensor_rows(a, row, rows);
		struct tensor right = transpose ? tensor_cols(a, row, n - row) : tensor_rows(a, row, n - row);
		TRY(product(cpu, panel, left, transpose, right, !transpose, accumulate));
	}
	if (!cpu->base.dry) mirror(cpu, &c);
	return STATUS_OK;
}

static enum status matmul(struct backend *backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			  bool transpose_b, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (is_symmetric(&c, &a, transpose_a, &b, transpose_b)) return symmetric_product(cpu, c, a, transpose_a, accumulate);
	return product(cpu, c, a, transpose_a, b, transpose_b, accumulate);
}

static enum status matmul_onto(struct backend *backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			       bool transpose_b, struct tensor addend)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (c.rows && is_small(cpu, &c, &a, transpose_a))
		return small_product(cpu,
				     (struct product_job){.c = c, .a = a, .b = b, .transpose_b = transpose_b, .addend = addend});
	if (c.data != addend.data) TRY(backend->unchecked.convert(backend, c, addend));
	return matmul(backend, c, a, transpose_a, b, transpose_b, true);
}

void cpu_matmul_operations(struct backend_ops *ops)
{
	ops->matmul = matmul;
	ops->matmul_onto = matmul_onto;
}
