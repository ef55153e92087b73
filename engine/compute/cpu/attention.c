/* Attention's scratch memory and how its tiles are shared out. The units of work are independent, so which thread takes which does
 * not change a bit: they are handed out one at a time, the longest first. */
#include "engine/compute/cpu/cpu.h"

static struct attention_job job_of(const struct attention *shape, const struct tensor *q)
{
	return (struct attention_job){
		.shape = *shape,
		.in_place = q->dtype == DTYPE_F32 && shape->head_dim % ATTENTION_GRAIN == 0,
		.width = (shape->head_dim + ATTENTION_GRAIN - 1) / ATTENTION_GRAIN * ATTENTION_GRAIN,
		.tiles = (shape->tokens + ATTENTION_TILE - 1) / ATTENTION_TILE,
	};
}

static bool even(const struct tensor *t)
{
	return t->stride % 2 == 0;
}

/* dout is without data in a forward pass. Which kernels there are changes nothing of the scratch memory. */
static const struct attention_kernels *choose_kernels(const struct cpu_backend *cpu, const struct attention *shape,
						      const struct tensor *q, const struct tensor *dout)
{
	bool bf16 = cpu->bf16_kernels && q->dtype == DTYPE_BF16 && shape->softcap == 0 && shape->scale > 0 &&
		    shape->head_dim % 2 == 0 && even(q) && even(dout);
	return bf16 ? &attention_kernels_bf16 : cpu->kernels->attention;
}

/* Floats of scratch for each of `buffers` copies of K's (or V's) tiles. */
static size_t tiles_size(const struct attention_job *job)
{
	return (size_t)job->shape.batch * (size_t)job->shape.kv_heads * (size_t)job->tiles * ATTENTION_TILE * (size_t)job->width;
}

struct attention_work {
	const struct attention_kernels *kernels;
	struct attention_job job;
	float *workspaces; /* a thread's are `workspace` apart */
	size_t workspace;
};

static void unpack_part(const void *context, struct share tiles)
{
	const struct attention_work *w = context;
	w->kernels->unpack(&w->job, tiles.first, tiles.last);
}

static void forward_part(const void *context, struct share units)
{
	const struct attention_work *w = context;
	int heads = w->job.shape.batch * w->job.shape.heads;
	for (int unit = (int)units.first; unit < units.last; unit++) {
		int head = unit % heads, tile = w->job.tiles - 1 - unit / heads;
		w->kernels->forward(&w->job, head / w->job.shape.heads, head % w->job.shape.heads, tile,
				    w->workspaces + (size_t)units.thread * w->workspace);
	}
}

static void backward_part(const void *context, struct share units)
{
	const struct attention_work *w = context;
	for (int unit = (int)units.first; unit < units.last; unit++) {
		int head = unit / w->job.parts, heads = w->job.shape.kv_heads;
		w->kernels->backward(&w->job, head / heads, head % heads, unit % w->job.parts,
				     w->workspaces + (size_t)units.thread * w->workspace);
	}
}

static void reduce_part(const void *context, struct share tiles)
{
	const struct attention_work *w = context;
	w->kernels->reduce(&w->job, tiles.first, tiles.last);
}

/* Tiles of K and V that are unpacked, or of their gradients that are added up, at a time. */
enum { TILES_AT_ONCE = 4 };

static enum status attention_forward(struct backend *backend, const struct attention *shape, struct tensor out, struct tensor lse,
				     struct tensor q, struct tensor k, struct tensor v)
{
	struct cpu_backend *cpu = cpu_of(backend);
	const struct attention_kernels *kernels = choose_kernels(cpu, shape, &q, &(struct tensor){0});
	struct attention_job job = job_of(shape, &q);
	size_t size = tiles_size(&job), workspace = attention_workspace(job.width);
	void *scratch;
	TRY(cpu_scratch(cpu, "attention_forward", (2 * size + (size_t)backend->threads * workspace) * sizeof(float), &scratch));
	if (backend->dry) return STATUS_OK;
	job.q = q;
	job.k = k;
	job.v = v;
	job.out = out;
	job.lse = lse;
	job.k_transposed = scratch;
	job.v_rows = job.k_transposed + size;
	float *workspaces = job.v_rows + size;
	const struct attention_work work = {kernels, job, workspaces, workspace};
	cpu_run(cpu, (int64_t)shape->batch * shape->kv_heads * job.tiles, TILES_AT_ONCE, unpack_part, &work);
	cpu_run(cpu, (int64_t)shape->batch * shape->heads * job.tiles, 1, forward_part, &work);
	return STATUS_OK;
}

/* Into how many parts to deal the queries of a key/value head so that the threads come out about even. */
static int choose_parts(const struct attention_job *job, int threads)
{
	int heads = job->shape.batch * job->shape.kv_heads, most = job->shape.heads / job->shape.kv_heads * job->tiles;
	int parts = 1;
	while (parts < most && heads * parts % threads && heads * parts < 8 * threads)
		parts++;
	return parts;
}

static enum status attention_backward(struct backend *backend, const struct attention *shape, struct tensor dq, struct tensor dk,
				      struct tensor dv, struct tensor q, struct tensor k, struct tensor v, struct tensor out,
				      struct tensor lse, struct tensor dout)
{
	struct cpu_backend *cpu = cpu_of(backend);
	const struct attention_kernels *kernels = choose_kernels(cpu, shape, &q, &dout);
	struct attention_job job = job_of(shape, &q);
	job.parts = choose_parts(&job, backend->threads);
	size_t size = tiles_size(&job), workspace = attention_workspace(job.width);
	size_t floats = (3 + 2 * (size_t)job.parts) * size + (size_t)backend->threads * workspace;
	void *scratch;
	TRY(cpu_scratch(cpu, "attention_backward", floats * sizeof(float), &scratch));
	if (backend->dry) return STATUS_OK;
	job.q = q;
	job.k = k;
	job.v = v;
	job.out = out;
	job.lse = lse;
	job.dq = dq;
	job.dk = dk;
	job.dv = dv;
	job.dout = dout;
	job.k_transposed = scratch;
	job.v_transposed = job.k_transposed + size;
	job.k_rows = job.v_transposed + size;
	job.dk_parts = job.k_rows + size;
	job.dv_parts = job.dk_parts + (size_t)job.parts * size;
	float *workspaces = job.dv_parts + (size_t)job.parts * size;
	int64_t heads = (int64_t)shape->batch * shape->kv_heads;
	const struct attention_work work = {kernels, job, workspaces, workspace};
	cpu_run(cpu, heads * job.tiles, TILES_AT_ONCE, unpack_part, &work);
	cpu_run(cpu, heads * job.parts, 1, backward_part, &work);
	cpu_run(cpu, heads * job.tiles, TILES_AT_ONCE, reduce_part, &work);
	return STATUS_OK;
}

void cpu_attention_operations(struct backend_ops *ops)
{
	ops->attention_forward = attention_forward;
	ops->attention_backward = attention_backward;
}
