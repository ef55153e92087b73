/* The log-probability of each token's target: one pass over the row of logits, a block per row. */
#include "cuda/launch.cuh"

enum { BLOCK = 256 };

/* A maximum, and the sum of e^(x − maximum) so far. */
struct tail {
	float most;
	double sum;
};

static __device__ __forceinline__ void add_logit(tail *t, float x)
{
	if (x > t->most) {
		t->sum *= (double)expf(t->most - x);
		t->most = x;
	}
	t->sum += (double)expf(x - t->most);
}

static __device__ __forceinline__ float capped(float x, float softcap)
{
	return softcap > 0 ? softcap * tanhf(x / softcap) : x;
}

template <int N>
__global__ void __launch_bounds__(BLOCK)
	logprobs_kernel(double *out, view logits, const int32_t *targets, float softcap, int64_t cols)
{
	int64_t row = blockIdx.x;
	tail t = {-INFINITY, 0};
	for (int64_t col = (int64_t)threadIdx.x * N; col < cols; col += BLOCK * N) {
		float x[N];
		load<N>(logits, row, col, x);
#pragma unroll
		for (int j = 0; j < N; j++)
			add_logit(&t, capped(x[j], softcap));
	}
	float most = block_reduce(t.most, greater_of());
	double sum = block_reduce(t.sum == 0 ? 0 : t.sum * exp((double)t.most - (double)most), plus());
	if (threadIdx.x > 0) return;
	float target[1];
	load<1>(logits, row, targets[row], target);
	out[row] = (double)capped(target[0], softcap) - (double)most - log(sum);
}

static enum status token_logprobs(struct backend *backend, void *out, struct tensor logits, const void *targets, float softcap)
{
	struct cuda *c = cuda_begin(backend, "token_logprobs", {logits});
	if (logits.rows == 0 || logits.cols == 0) return STATUS_OK;
	dim3 grid((unsigned)logits.rows), block(BLOCK);
	if (cuda_chunked({logits}))
		return LAUNCH(c, logprobs_kernel<8>, grid, block, 0, (double *)out, view_of(logits), (const int32_t *)targets,
			      softcap, logits.cols);
	return LAUNCH(c, logprobs_kernel<1>, grid, block, 0, (double *)out, view_of(logits), (const int32_t *)targets, softcap,
		      logits.cols);
}

void cuda_logprobs_operations(struct backend_ops *ops)
{
	ops->token_logprobs = token_logprobs;
}
