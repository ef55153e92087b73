/* What a sink of each head makes of attention's outputs and their log-sum-exps. */
#include "cuda/launch.cuh"

enum { WARPS = 8, BLOCK = 32 * WARPS };

/* A warp per row and head; lane 0 has the last word on the sum, which all have read by then. */
__global__ void __launch_bounds__(BLOCK) sinks_kernel(view out, float *lse, int64_t lse_stride, const float *sinks, int64_t vectors,
						      int heads, int head_dim, int tokens)
{
	int64_t vector = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
	int lane = (int)threadIdx.x % 32;
	if (vector >= vectors) return;
	int64_t row = vector / heads, head = vector % heads;
	float *place = lse + (row / tokens * heads + head) * lse_stride + row % tokens;
	float sum = *place, above = sum - sinks[head], share = 1 / (1 + expf(-above));
	__syncwarp();
	if (lane == 0) *place = above > 0 ? sum + log1pf(expf(-above)) : sinks[head] + log1pf(expf(above));
	for (int i = lane; i < head_dim; i += 32) {
		float x[1];
		load<1>(out, row, head * head_dim + i, x);
		x[0] *= share;
		store<1>(out, row, head * head_dim + i, x);
	}
}

static enum status attention_sinks(struct backend *backend, const struct attention *shape, struct tensor out, struct tensor lse,
				   struct tensor sinks)
{
	struct cuda *c = cuda_begin(backend, "attention_sinks", {out, lse, sinks});
	int64_t vectors = out.rows * shape->heads;
	return LAUNCH(c, sinks_kernel, dim3((unsigned)index_ceil_div(vectors, WARPS)), dim3(BLOCK), 0, view_of(out),
		      (float *)lse.data, lse.stride, (const float *)sinks.data, vectors, shape->heads, shape->head_dim,
		      shape->tokens);
}

void cuda_sinks_operations(struct backend_ops *ops)
{
	ops->attention_sinks = attention_sinks;
}
