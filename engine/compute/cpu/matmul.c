/* Matrix products. Those of bf16, where the processor multiplies it, are oneDNN's (matmul_bf16.c), but for those by a small
 * matrix, which is packed as a whole and stays in a second-level cache (product_bf16.c): oneDNN packs both operands, each
 * thread all of the right one. All others are made in fp32 by kernels of our own (isa/product.c), to which bf16 and F16 are
 * fp32 where they are read and written: products of bf16 are exact in it. */
#include <string.h>

#include "engine/compute/cpu/cpu.h"
#include "engine/compute/cpu/matmul_bf16.h"
#include "engine/compute/cpu/product_bf16.h"

static int64_t parts_of(int64_t n, int64_t size)
{
	return (n + size - 1) / size;
}

/* Where the i-th of `parts` parts of n begins: a multiple of `grain`, and no part has two of these more than another. */
static int64_t start_of_part(int64_t n, int64_t grain, int64_t parts, int64_t i)
{
	int64_t start = parts_of(n, grain) * i / parts * grain;
	return start < n ? start : n;
}

static bool is_native(const struct cpu_backend *cpu, const struct tensor *c, const struct tensor *a)
{
	return cpu->base.native_bf16 && a->dtype == DTYPE_BF16 && c->dtype != DTYPE_F16;
}

/* ---- bf16 by a small matrix -------------------------------------------------------------------------------------------------- */

static bool is_small_bf16(const struct cpu_backend *cpu, const struct tensor *c, const struct tensor *a, bool transpose_a)
{
	return cpu->bf16_kernels && is_native(cpu, c, a) && !transpose_a && product_bf16_suits(c, a);
}

static void pack_part(const void *job, struct share cols)
{
	product_bf16_pack(job, cols.first, cols.last);
}

static void multiply_bf16_part(const void *job, struct share rows)
{
	product_bf16_multiply(job, rows.first, rows.last);
}

static enum status small_bf16(struct cpu_backend *cpu, struct product_bf16_job job)
{
	void *scratch;
	int64_t work = job.c.cols * job.a.cols, height = CPU_PIECE_WORK / work / PRODUCT_BF16_GRAIN * PRODUCT_BF16_GRAIN;
	TRY(cpu_scratch(cpu, "matmul", product_bf16_panels(&job) * sizeof(uint16_t), &scratch));
	if (cpu->base.dry) return STATUS_OK;
	job.panels = scratch;
	cpu_share_out(cpu, job.c.cols, PRODUCT_BF16_PANEL, work, pack_part, &job);
	cpu_run(cpu, job.c.rows, height > PRODUCT_BF16_GRAIN ? height : PRODUCT_BF16_GRAIN, multiply_bf16_part, &job);
	return STATUS_OK;
}

/* ---- in fp32 ----------------------------------------------------------------------------------------------------------------- */

/* A product in `down` · `across` pieces. Each packs what it needs of the right operand, so there are more than one above
 * another only where there would be too few for the threads, or nothing is packed. */
struct product_work {
	const struct product_kernels *kernels;
	const struct product_job *job;
	int64_t down, across;
	float *workspaces; /* a thread's are `workspace` apart */
	size_t workspace;
};

static void cut(struct product_work *work, int64_t inner, int threads)
{
	enum { LEAST_ROWS = 96, LEAST_COLS = 2 * PRODUCT_PANEL, LEAST_BLOCK = 4 * PRODUCT_MOST_ROWS };
	int64_t m = work->job->c.rows, n = work->job->c.cols, finest = parts_of(n, LEAST_COLS), rows = m / LEAST_ROWS;
	int64_t most = cpu_pieces_of_product(m, n, inner), busy = least(most, threads);
	int64_t wanted = threads > 1 ? least(most, 2 * threads) : 1;
	work->across = parts_of(n, product_group_cols(inner));
	if (product_reads_in_place(work->job)) {
		int64_t pieces = least(most ? most : 1, 4 * threads);
		work->down = least(parts_of(pieces, work->across), parts_of(m, LEAST_BLOCK));
		return;
	}
	if (work->across < wanted) work->across = least(wanted, finest);
	if (work->across > threads && work->across < 4 * threads) { /* so that none waits for another's last */
		int64_t even = parts_of(work->across, threads) * threads;
		work->across = even <= finest ? even : even - threads;
	}
	work->down = work->across < busy ? least(parts_of(busy, work->across), rows ? rows : 1) : 1;
}

static void multiply_part(const void *context, struct share pieces)
{
	const struct product_work *w = context;
	int64_t rows = w->job->c.rows, cols = w->job->c.cols;
	for (int64_t piece = pieces.first; piece < pieces.last; piece++) {
		int64_t row = piece % w->down, col = piece / w->down;
		w->kernels->multiply(w->job, start_of_part(rows, 1, w->down, row), start_of_part(rows, 1, w->down, row + 1),
				     start_of_part(cols, PRODUCT_PANEL, w->across, col),
				     start_of_part(cols, PRODUCT_PANEL, w->across, col + 1),
				     w->workspaces + (size_t)pieces.thread * w->workspace);
	}
}

static enum status product_f32(struct cpu_backend *cpu, const struct product_job *job, int64_t inner)
{
	struct product_work work = {.kernels = cpu->kernels->product, .job = job, .workspace = product_workspace(&job->c)};
	void *scratch;
	TRY(cpu_scratch(cpu, "matmul", (size_t)cpu->base.threads * work.workspace * sizeof(float), &scratch));
	if (cpu->base.dry) return STATUS_OK;
	work.workspaces = scratch;
	cut(&work, inner, cpu->base.threads);
	cpu_run(cpu, work.down * work.across, 1, multiply_part, &work);
	return STATUS_OK;
}

/* ---- any product ------------------------------------------------------------------------------------------------------------- */

/* C = op(A) · op(B) (+ addend, which may be C, or without data). */
static enum status product(struct cpu_backend *cpu, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			   bool transpose_b, struct tensor addend)
{
	struct backend *backend = &cpu->base;
	int64_t inner = transpose_a ? a.rows : a.cols;
	if (!c.rows || !c.cols || (backend->dry && !inner)) return STATUS_OK;
	if (inner && is_small_bf16(cpu, &c, &a, transpose_a))
		return small_bf16(cpu, (struct product_bf16_job){c, a, b, addend, transpose_b, NULL});
	bool native = is_native(cpu, &c, &a);
	if (inner && !native) return product_f32(cpu, &(struct product_job){c, a, b, addend, transpose_a, transpose_b}, inner);
	if (addend.data && addend.data != c.data) TRY(backend->unchecked.convert(backend, c, addend));
	for (int64_t row = 0; row < c.rows && !inner && !addend.data; row++)
		memset((char *)c.data + (size_t)(row * c.stride) * dtype_size(c.dtype), 0, (size_t)c.cols * dtype_size(c.dtype));
	return inner ? cpu_matmul_bf16(cpu, c, a, transpose_a, b, transpose_b, addend.data) : STATUS_OK;
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
