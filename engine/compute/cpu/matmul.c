/* Matrix products. Those by a small matrix, which can be packed as a whole and stays in a second-level cache, are made by kernels
 * of our own: oneDNN packs both operands, each thread all of the right one. So are those of few rows by a transposed matrix of fp32,
 * which oneDNN makes at down to half its rate. Others are oneDNN's: fp32 goes to its sgemm, bf16, where the processor multiplies it,
 * to its matmul primitive (matmul_bf16.c). Elsewhere bf16 goes, as F16 does, through fp32 copies of the operands, which gives the
 * same numbers: products of bf16 are exact in fp32. */
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
	struct tensor copy = tensor_padded(*memory, t.rows, t.cols, DTYPE_F32);
	*memory += t.rows * copy.stride;
	cpu->base.unchecked.convert(&cpu->base, copy, t);
	return copy;
}

static size_t f32_copy_bytes(struct tensor t)
{
	struct tensor copy = tensor_padded(NULL, t.rows, t.cols, DTYPE_F32);
	return t.dtype == DTYPE_F32 ? 0 : tensor_room(&copy);
}

static bool is_native(const struct cpu_backend *cpu, const struct tensor *c, const struct tensor *a)
{
	return cpu->base.native_bf16 && a->dtype == DTYPE_BF16 && c->dtype != DTYPE_F16;
}

/* ---- by a small matrix ------------------------------------------------------------------------------------------------------- */

static bool is_small(const struct tensor *c, const struct tensor *a, bool transpose_a)
{
	return !transpose_a && a->cols && c->cols && c->rows >= PRODUCT_LEAST_ROWS && a->cols <= PRODUCT_MOST / c->cols;
}

/* Whether kernels of our own make a product of fp32 by a large matrix: oneDNN packs a left operand, which costs where there is
 * little to multiply it by, and is worth it where its rows lie a large power of two apart. */
static bool is_large_f32(const struct cpu_backend *cpu, const struct tensor *c, const struct tensor *a, bool transpose_a,
			 bool transpose_b)
{
	bool few = c->rows >= PRODUCT_LEAST_ROWS && c->rows <= PRODUCT_ROWS && c->cols <= PRODUCT_COLS;
	return cpu->kernels->product->large && !transpose_a && transpose_b && few && a->cols && c->cols && a->stride % 1024;
}

/* So much of the inner dimension is packed at a time, and then multiplied by. */
static int64_t stretch_of(const struct tensor *c, const struct tensor *a)
{
	int64_t depths = PRODUCT_STRETCH / c->cols / PRODUCT_DEPTH, most = (depths ? depths : 1) * PRODUCT_DEPTH;
	return a->cols < most ? a->cols : most;
}

/* Whether a product by a small matrix is bf16's own. */
static bool is_small_bf16(const struct cpu_backend *cpu, const struct tensor *c, const struct tensor *a, bool transpose_a)
{
	return cpu->bf16_kernels && is_native(cpu, c, a) && is_small(c, a, transpose_a) && product_suits_bf16(c, a);
}

/* Whether panels of B lie in it as they are needed; rows a large power of two apart would meet in few places of a cache. */
static bool has_panels(const struct tensor *b, bool transpose_b)
{
	return !transpose_b && b->cols % PRODUCT_PANEL == 0 && b->stride % 1024;
}

/* A product in `down` · `across` pieces, whose first rows are multiples of `grain`. */
struct small_work {
	const struct product_kernels *kernels;
	const struct product_job *job;
	int64_t grain, down, across;
};

/* Where the i-th of `parts` parts of n begins: a multiple of `grain`, and no part has two of these more than another. */
static int64_t start_of_part(int64_t n, int64_t grain, int64_t parts, int64_t i)
{
	int64_t start = (n + grain - 1) / grain * i / parts * grain;
	return start < n ? start : n;
}

static void pack_part(const void *context, struct share cols)
{
	const struct small_work *w = context;
	w->kernels->pack(w->job, cols.first, cols.last);
}

/* Where B is packed pieces of the same columns follow each other: so a thread packs most of what it multiplies by, and keeps it in its
 * cache. Where B is read in place pieces of the same rows do, which it may have made itself. */
static void multiply_part(const void *context, struct share pieces)
{
	const struct small_work *w = context;
	int64_t rows = w->job->c.rows, cols = w->job->c.cols;
	for (int64_t piece = pieces.first; piece < pieces.last; piece++) {
		int64_t row = w->job->panels ? piece % w->down : piece / w->across;
		int64_t col = w->job->panels ? piece / w->down : piece % w->across;
		int64_t first = start_of_part(rows, w->grain, w->down, row), last = start_of_part(rows, w->grain, w->down, row + 1);
		int64_t first_col = start_of_part(cols, PRODUCT_PANEL, w->across, col);
		int64_t last_col = start_of_part(cols, PRODUCT_PANEL, w->across, col + 1);
		w->kernels->multiply(w->job, first, last, first_col, last_col);
	}
}

static void small_product(struct cpu_backend *cpu, struct small_work work)
{
	const struct product_job *job = work.job;
	if (job->panels) cpu_share_out(cpu, job->c.cols, PRODUCT_PANEL, job->c.cols * job->a.cols, pack_part, &work);
	cpu_run(cpu, work.down * work.across, 1, multiply_part, &work);
}

static enum status small_bf16(struct cpu_backend *cpu, struct product_job job)
{
	void *scratch;
	int64_t m = job.c.rows, n = job.c.cols, k = job.a.cols, height = LEAST_WORK / (n * k) / PRODUCT_GRAIN * PRODUCT_GRAIN;
	TRY(cpu_scratch(cpu, "matmul", product_panels(&job.c, job.a.cols) * sizeof(uint16_t), &scratch));
	if (cpu->base.dry) return STATUS_OK;
	job.panels = scratch;
	if (height < PRODUCT_GRAIN) height = PRODUCT_GRAIN;
	small_product(cpu, (struct small_work){&product_kernels_bf16, &job, PRODUCT_GRAIN, (m + height - 1) / height, 1});
	return STATUS_OK;
}

static void own_f32(struct cpu_backend *cpu, const struct product_job *job)
{
	int64_t m = job->c.rows, n = job->c.cols, stretch = stretch_of(&job->c, &job->a);
	struct product_cut cut = cpu_cut_product(cpu, m, n, stretch);
	for (int64_t inner = 0; inner < job->a.cols; inner += stretch) {
		int64_t depth = job->a.cols - inner < stretch ? job->a.cols - inner : stretch;
		struct product_job part = *job;
		part.a = tensor_cols(job->a, inner, depth);
		part.b = job->transpose_b ? tensor_cols(job->b, inner, depth) : tensor_rows(job->b, inner, depth);
		if (inner) part.addend = job->c;
		small_product(cpu, (struct small_work){cpu->kernels->product, &part, 1, cut.down, cut.across});
	}
}

/* ---- any product ------------------------------------------------------------------------------------------------------------- */

/* C = op(A) · op(B) (+ addend, which may be C, or without data). */
static enum status product(struct cpu_backend *cpu, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			   bool transpose_b, struct tensor addend)
{
	struct backend *backend = &cpu->base;
	int64_t inner = transpose_a ? a.rows : a.cols;
	if (!c.rows || !c.cols || (backend->dry && !inner)) return STATUS_OK;
	if (is_small_bf16(cpu, &c, &a, transpose_a))
		return small_bf16(cpu, (struct product_job){c, a, b, addend, transpose_b, NULL});
	bool native = is_native(cpu, &c, &a), in_place = c.dtype == DTYPE_F32;
	bool own = !native && (is_small(&c, &a, transpose_a) || is_large_f32(cpu, &c, &a, transpose_a, transpose_b));
	if (addend.data && addend.data != c.data && !(own && in_place)) {
		TRY(backend->unchecked.convert(backend, c, addend));
		addend = c;
	}
	for (int64_t row = 0; row < c.rows && !inner && !addend.data; row++)
		memset((char *)c.data + (size_t)(row * c.stride) * dtype_size(c.dtype), 0, (size_t)c.cols * dtype_size(c.dtype));
	if (!inner) return STATUS_OK;
	if (native) return cpu_matmul_bf16(cpu, c, a, transpose_a, b, transpose_b, addend.data);

	void *scratch;
	size_t copies = f32_copy_bytes(a) + f32_copy_bytes(b) + f32_copy_bytes(c);
	TRY(cpu_scratch(cpu, "matmul", copies + (own ? product_panels(&c, stretch_of(&c, &a)) * sizeof(float) : 0), &scratch));
	if (backend->dry) return STATUS_OK;
	float *memory = scratch;
	a = as_f32(cpu, a, &memory);
	b = as_f32(cpu, b, &memory);
	struct tensor result = c;
	if (!in_place) {
		result = tensor_padded(memory, c.rows, c.cols, DTYPE_F32);
		if (addend.data) backend->unchecked.convert(backend, result, c);
	}
	if (own)
		own_f32(cpu, &(struct product_job){result, a, b, addend.data && !in_place ? result : addend, transpose_b,
						   has_panels(&b, transpose_b) ? NULL : (char *)scratch + copies});
	else
		TRY(sgemm(cpu, transpose_a, transpose_b, c.rows, c.cols, inner, a.data, a.stride, b.data, b.stride, addend.data,
			  result.data, result.stride));
	return in_place ? STATUS_OK : backend->unchecked.convert(backend, c, result);
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
		TRY(product(cpu, panel, left, transpose, right, !transpose, accumulate ? panel : (struct tensor){0}));
	}
	if (!cpu->base.dry) mirror(cpu, &c);
	return STATUS_OK;
}

static enum status matmul(struct backend *backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			  bool transpose_b, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (is_symmetric(&c, &a, transpose_a, &b, transpose_b)) return symmetric_product(cpu, c, a, transpose_a, accumulate);
	return product(cpu, c, a, transpose_a, b, transpose_b, accumulate ? c : (struct tensor){0});
}

static enum status matmul_onto(struct backend *backend, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			       bool transpose_b, struct tensor addend)
{
	return product(cpu_of(backend), c, a, transpose_a, b, transpose_b, addend);
}

void cpu_matmul_operations(struct backend_ops *ops)
{
	ops->matmul = matmul;
	ops->matmul_onto = matmul_onto;
}
