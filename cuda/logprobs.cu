/* The log-probability of each token's target, and how far two models' are apart: a block per row of logits. */
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

/* The largest of a row of logits, and the sum of e^(x − it); all threads of the block get them. */
template <int N> static __device__ tail row_tail(view logits, int64_t row, float softcap, int64_t cols)
{
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
	return {most, sum};
}

template <int N>
__global__ void __launch_bounds__(BLOCK)
	logprobs_kernel(double *out, view logits, const int32_t *targets, float softcap, int64_t cols)
{
	int64_t row = blockIdx.x;
	tail t = row_tail<N>(logits, row, softcap, cols);
	if (threadIdx.x > 0) return;
	float target[1];
	load<1>(logits, row, targets[row], target);
	out[row] = (double)capped(target[0], softcap) - (double)t.most - log(t.sum);
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

/* losses [rows]: KL(p ‖ q); dlogits, where it has data, = factor · its gradient, which may lie over the logits: those of a row
 * were all read before. */
template <int N>
__global__ void __launch_bounds__(BLOCK)
	divergence_kernel(double *losses, view dlogits, view logits, view wanted, float softcap, float factor, int64_t cols)
{
	int64_t row = blockIdx.x;
	tail q_tail = row_tail<N>(logits, row, softcap, cols), p_tail = row_tail<N>(wanted, row, softcap, cols);
	float q_rest = (float)log(q_tail.sum), p_rest = (float)log(p_tail.sum), inverse = softcap > 0 ? 1 / softcap : 0;
	double sum = 0;
	for (int64_t col = (int64_t)threadIdx.x * N; col < cols; col += BLOCK * N) {
		float x[N], y[N];
		load<N>(logits, row, col, x);
		load<N>(wanted, row, col, y);
#pragma unroll
		for (int j = 0; j < N; j++) {
			float z = capped(x[j], softcap), log_q = z - q_tail.most - q_rest,
			      log_p = capped(y[j], softcap) - p_tail.most - p_rest, p = expf(log_p);
			sum += (double)p * ((double)log_p - (double)log_q);
			x[j] = factor * (expf(log_q) - p) * (1 - (z * inverse) * (z * inverse));
		}
		if (dlogits.data) store<N>(dlogits, row, col, x);
	}
	sum = block_reduce(sum, plus());
	if (threadIdx.x == 0) losses[row] = sum;
}

__global__ void __launch_bounds__(BLOCK)
	add_divergence_kernel(double *stats, const double *losses, int64_t count, double factor, bool accumulate)
{
	double sum = 0;
	for (int64_t i = threadIdx.x; i < count; i += BLOCK)
		sum += losses[i];
	sum = block_reduce(sum, plus());
	if (threadIdx.x == 0) stats[STEP_RECONSTRUCTION] = (accumulate ? stats[STEP_RECONSTRUCTION] : 0) + factor * sum;
}

static enum status divergence(struct backend *backend, void *stats, struct tensor dlogits, struct tensor logits,
			      struct tensor wanted, float softcap, double factor, bool accumulate)
{
	struct cuda *c = cuda_begin(backend, "divergence", {dlogits, logits, wanted});
	dim3 grid((unsigned)logits.rows), block(BLOCK);
	bool chunked = cuda_chunked({dlogits, logits, wanted});
	struct scratch losses(c);
	TRY(losses.allocate((size_t)logits.rows * sizeof(double)));
	if (logits.rows && chunked)
		TRY(LAUNCH(c, divergence_kernel<8>, grid, block, 0, losses.as<double>(), view_of(dlogits), view_of(logits),
			   view_of(wanted), softcap, (float)factor, logits.cols));
	else if (logits.rows)
		TRY(LAUNCH(c, divergence_kernel<1>, grid, block, 0, losses.as<double>(), view_of(dlogits), view_of(logits),
			   view_of(wanted), softcap, (float)factor, logits.cols));
	return LAUNCH(c, add_divergence_kernel, dim3(1), block, 0, (double *)stats, losses.as<double>(), logits.rows, factor,
		      accumulate);
}

void cuda_logprobs_operations(struct backend_ops *ops)
{
	ops->token_logprobs = token_logprobs;
	ops->divergence = divergence;
}
