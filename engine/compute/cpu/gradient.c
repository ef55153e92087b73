/* The binned gradient. Where oneDNN multiplies bf16 in hardware it makes G in panels that stay in the last-level cache; of fp32,
 * and of bf16 where there is little of x, the kernels make it block by block, each thread its own rows. */
#include <string.h>

#include "engine/compute/cpu/cpu.h"
#include "engine/compute/cpu/matmul_bf16.h"
#include "engine/compute/cpu/product_bf16.h"

enum {
	PANEL_BYTES = 4 << 20,
	ROOM_OF_SUMS = 256 + 16, /* of a row: one for each bin there may be, those that are left out too; no power of 2 apart */
	DROP_ROWS = 8,           /* that a thread drops at a time where G is made before */
};

static int64_t round_up(int64_t n, int64_t to)
{
	return (n + to - 1) / to * to;
}

/* The job for rows whose sums are at hand, zeroed. They lie where the thread's before them did, in its cache, unless the sums of
 * all rows are yet to be added: then `to` is without data. */
static struct gradient_job begin_rows(const struct gradient_job *all, struct share rows, const struct tensor *to)
{
	struct gradient_job job = *all;
	if (to->data) {
		job.sums = all->sums + rows.thread * GRADIENT_ROWS * job.sums_stride;
		job.sums_row = rows.first;
	}
	for (int64_t row = rows.first; row < rows.last; row++) {
		memset(gradient_sums(&job, row), 0, (size_t)to->cols * sizeof(float));
		gradient_sums(&job, row)[BIN_NONE] = 0;
	}
	return job;
}

/* Brings the sums to where they belong. */
static void end_rows(const struct gradient_job *job, struct share rows, const struct tensor *to)
{
	for (int64_t row = rows.first; to->data && row < rows.last; row++)
		memcpy((float *)to->data + row * to->stride, gradient_sums(job, row), (size_t)to->cols * sizeof(float));
}

struct gradient_work {
	const struct gradient_kernels *kernels;
	const struct gradient_job *job;
	const struct tensor *to;
	float *panel; /* of G, that begins with row `row` */
	int64_t row;
	float *workspaces; /* a thread's are `workspace` apart */
	size_t workspace;
};

static void drop_part(const void *context, struct share share)
{
	const struct gradient_work *w = context;
	struct share rows = {w->row + share.first, w->row + share.last, share.thread};
	int64_t cols = w->job->weight.cols;
	struct gradient_job job = begin_rows(w->job, rows, w->to);
	w->kernels->drop(&job, w->panel + share.first * cols, cols, rows.first, rows.last - rows.first, 0, cols);
	end_rows(&job, rows, w->to);
}

static enum status by_panels(struct cpu_backend *cpu, const struct gradient_job *job, const struct tensor *to, float *panel,
			     int64_t panel_rows)
{
	int64_t rows = job->weight.rows, cols = job->weight.cols;
	for (int64_t first = 0; first < rows; first += panel_rows) {
		int64_t count = rows - first < panel_rows ? rows - first : panel_rows;
		struct tensor g = tensor_make(panel, count, cols, DTYPE_F32);
		const struct gradient_work work = {cpu->kernels->gradient, job, to, panel, first, NULL, 0};
		TRY(cpu_matmul_bf16(cpu, g, tensor_cols(job->dy, first, count), true, job->x, false, false));
		cpu_run(cpu, count, DROP_ROWS, drop_part, &work);
	}
	return STATUS_OK;
}

static void pack_part(const void *context, struct share cols)
{
	const struct gradient_work *w = context;
	w->kernels->pack(w->job, cols.first, cols.last);
}

static void rows_part(const void *context, struct share rows)
{
	const struct gradient_work *w = context;
	struct gradient_job job = begin_rows(w->job, rows, w->to);
	w->kernels->gradient(&job, rows.first, rows.last, w->workspaces + (size_t)rows.thread * w->workspace);
	end_rows(&job, rows, w->to);
}

static void by_blocks(struct cpu_backend *cpu, const struct gradient_kernels *kernels, const struct gradient_job *job,
		      const struct tensor *to, float *workspaces, size_t workspace)
{
	const struct gradient_work work = {kernels, job, to, NULL, 0, workspaces, workspace};
	cpu_share_out(cpu, job->x.cols, GRADIENT_GRAIN, job->x.rows * job->x.cols, pack_part, &work);
	cpu_run(cpu, job->weight.rows, GRADIENT_ROWS, rows_part, &work);
}

/* sums [1, bins] = the rows' sums, added up. */
static void add_rows(const struct gradient_job *job, struct tensor sums)
{
	for (int64_t b = 0; b < sums.cols; b++) {
		double sum = 0;
		for (int64_t row = 0; row < job->weight.rows; row++)
			sum += (double)job->sums[row * job->sums_stride + b];
		((float *)sums.data)[b] = (float)sum;
	}
}

static enum status binned_gradient(struct backend *backend, struct tensor sums, struct tensor dy, struct tensor x,
				   struct tensor weight, struct tensor bin, bool shared)
{
	struct cpu_backend *cpu = cpu_of(backend);
	int64_t rows = weight.rows, cols = weight.cols, tokens = dy.rows;
	bool native = backend->native_bf16 && dy.dtype == DTYPE_BF16 && rows && cols && tokens;
	bool pairs = native && cpu->bf16_kernels && gradient_suits(&x);
	int64_t panel_rows = PANEL_BYTES / (int64_t)sizeof(float) / (cols ? cols : 1);
	if (panel_rows < 16) panel_rows = 16;
	if (panel_rows > rows) panel_rows = rows;
	int64_t sums_at_once = shared ? rows : (int64_t)backend->threads * GRADIENT_ROWS;
	size_t row_sums = (size_t)sums_at_once * ROOM_OF_SUMS, workspace = GRADIENT_ROWS * (GRADIENT_COLS + (size_t)tokens);
	size_t x_panels = (size_t)tokens * (size_t)round_up(cols, GRADIENT_GRAIN);
	size_t floats = native && !pairs ? (size_t)panel_rows * (size_t)cols : x_panels + (size_t)backend->threads * workspace;
	void *scratch;
	TRY(cpu_scratch(cpu, "binned_gradient", (row_sums + floats) * sizeof(float), &scratch));
	if (backend->dry) return STATUS_OK;
	float *rest = (float *)scratch + row_sums;
	const struct gradient_job job = {dy, x, weight, bin, rest, scratch, 0, ROOM_OF_SUMS};
	struct tensor to = sums;
	if (shared) to.data = NULL;
	if (!tokens) { /* an expert that got none */
		for (int64_t row = 0; row < sums.rows; row++)
			memset((float *)sums.data + row * sums.stride, 0, (size_t)sums.cols * sizeof(float));
		return STATUS_OK;
	}
	if (native && !pairs)
		TRY(by_panels(cpu, &job, &to, rest, panel_rows));
	else
		by_blocks(cpu, pairs ? &gradient_kernels_bf16 : cpu->kernels->gradient, &job, &to, rest + x_panels, workspace);
	if (shared) add_rows(&job, sums);
	return STATUS_OK;
}

void cpu_gradient_operations(struct backend_ops *ops)
{
	ops->binned_gradient = binned_gradient;
}
