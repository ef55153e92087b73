/* The learnable rates: softmax over candidates, expected rate, penalty, and back. A warp owns a group; a lane holds candidates
 * lane, lane + 32, …: at most 8. */
#include "cuda/launch.cuh"

enum { WARPS = 8, EACH = 8 /* 256 candidates / 32 lanes */, SUM_THREADS = 1024 };

static __device__ __forceinline__ float squash(float theta, bool sigmoid)
{
	return sigmoid ? 1 / (1 + expf(-theta)) : theta;
}

__global__ void __launch_bounds__(32 * WARPS)
	forward_kernel(float *beta, int64_t beta_stride, float *s, int32_t *threshold, const float *theta, int64_t theta_stride,
		       const int32_t *cols, bool sigmoid, int candidates, double below, double width, int64_t groups)
{
	int64_t group = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
	int lane = (int)threadIdx.x % 32;
	float x[EACH], most = -INFINITY;
	double sum = 0, weighted = 0;
	if (group >= groups) return;
#pragma unroll
	for (int i = 0; i < EACH; i++) {
		int d = lane + 32 * i;
		x[i] = d < candidates ? squash(theta[group * theta_stride + d], sigmoid) : -INFINITY;
		most = greater_of()(most, x[i]);
	}
	most = warp_reduce(most, greater_of());
#pragma unroll
	for (int i = 0; i < EACH; i++) {
		x[i] = expf(x[i] - most);
		sum += (double)x[i];
		weighted += (double)x[i] * (double)(candidates - 1 - lane - 32 * i);
	}
	sum = warp_reduce(sum, plus());
	weighted = warp_reduce(weighted, plus());
	float inverse = (float)(1 / sum), rate = (float)(below + width * (weighted / (sum * (double)(candidates - 1))));
#pragma unroll
	for (int i = 0; i < EACH; i++)
		if (lane + 32 * i < candidates) beta[group * beta_stride + lane + 32 * i] = x[i] * inverse;
	if (lane == 0) {
		s[group] = rate;
		threshold[group] = index_threshold(rate, cols[group]);
	}
}

/* ŝ = Σ share·s by one block, in a fixed order. */
__global__ void __launch_bounds__(SUM_THREADS)
	sparsity_kernel(double *stats, const float *s, const double *share, int64_t groups, double target, double lambda)
{
	double sum = 0;
#pragma unroll 8
	for (int64_t g = threadIdx.x; g < groups; g += SUM_THREADS)
		sum += share[g] * (double)s[g];
	sum = block_reduce(sum, plus());
	if (threadIdx.x > 0) return;
	stats[STEP_SPARSITY] = sum;
	stats[STEP_SLOPE] = 2 * lambda * (sum - target) / (target * target);
}

/* ∂L/∂β_d, but for what is the same for all d, = slope·share·(p_d − p_{D−1}) − prefix_{D−2−d}, with prefix_k = Σ_{b ≤ k}
 * sums[b]; in double, since these nearly cancel their mean. */
__global__ void __launch_bounds__(32 * WARPS)
	backward_kernel(float *dtheta, int64_t dtheta_stride, const float *theta, int64_t theta_stride, const float *beta,
			int64_t beta_stride, const float *sums, int64_t sums_stride, const double *share, const double *stats,
			bool sigmoid, int candidates, double width, int64_t groups)
{
	__shared__ double prefixes[WARPS][32 * EACH];
	int64_t group = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
	int lane = (int)threadIdx.x % 32;
	if (group >= groups) return;
	double *prefix = prefixes[threadIdx.x / 32], carry = 0, dbeta[EACH], mean = 0;
	double pull = stats[STEP_SLOPE] * share[group] * width / (double)(candidates - 1);
	float b[EACH];
	for (int first = 0; first < candidates - 1; first += 32) {
		double x = first + lane < candidates - 1 ? (double)sums[group * sums_stride + first + lane] : 0;
#pragma unroll
		for (int offset = 1; offset < 32; offset *= 2) {
			double below = __shfl_up_sync(0xffffffffu, x, offset);
			if (lane >= offset) x += below;
		}
		prefix[first + lane] = x + carry;
		carry += __shfl_sync(0xffffffffu, x, 31);
	}
	__syncwarp();
#pragma unroll
	for (int i = 0; i < EACH; i++) {
		int d = lane + 32 * i;
		dbeta[i] = b[i] = 0;
		if (d >= candidates) continue;
		dbeta[i] = pull * (double)(candidates - 1 - d) - (d < candidates - 1 ? prefix[candidates - 2 - d] : 0);
		b[i] = beta[group * beta_stride + d];
		mean += dbeta[i] * (double)b[i];
	}
	mean = warp_reduce(mean, plus());
#pragma unroll
	for (int i = 0; i < EACH; i++) {
		int d = lane + 32 * i;
		if (d >= candidates) continue;
		float gradient = b[i] * (float)(dbeta[i] - mean);
		if (sigmoid) {
			float g = squash(theta[group * theta_stride + d], true);
			gradient *= g * (1 - g);
		}
		dtheta[group * dtheta_stride + d] = gradient;
	}
}

static double below_of(const struct rates *rates)
{
	return (double)rates->below / CANDIDATES_WHOLE;
}

static double width_of(const struct rates *rates)
{
	return (double)(CANDIDATES_WHOLE - rates->below - rates->above) / CANDIDATES_WHOLE;
}

static enum status rates_forward(struct backend *backend, const struct rates *rates, struct tensor beta, void *s, void *threshold,
				 void *stats, struct tensor theta, double target, double lambda)
{
	struct cuda *c = cuda_begin(backend, "rates_forward", {beta, theta});
	TRY(LAUNCH(c, forward_kernel, dim3((unsigned)index_ceil_div(rates->groups, WARPS)), dim3(32 * WARPS), 0, (float *)beta.data,
		   beta.stride, (float *)s, (int32_t *)threshold, (const float *)theta.data, theta.stride,
		   (const int32_t *)rates->cols, rates->parameterization == PARAM_SIGMOID, rates->candidates, below_of(rates),
		   width_of(rates), rates->groups));
	return LAUNCH(c, sparsity_kernel, dim3(1), dim3(SUM_THREADS), 0, (double *)stats, (const float *)s,
		      (const double *)rates->share, rates->groups, target, lambda);
}

static enum status rates_backward(struct backend *backend, const struct rates *rates, struct tensor dtheta, struct tensor theta,
				  struct tensor beta, struct tensor sums, const void *stats)
{
	struct cuda *c = cuda_begin(backend, "rates_backward", {dtheta, theta, beta, sums});
	return LAUNCH(c, backward_kernel, dim3((unsigned)index_ceil_div(rates->groups, WARPS)), dim3(32 * WARPS), 0,
		      (float *)dtheta.data, dtheta.stride, (const float *)theta.data, theta.stride, (const float *)beta.data,
		      beta.stride, (const float *)sums.data, sums.stride, (const double *)rates->share, (const double *)stats,
		      rates->parameterization == PARAM_SIGMOID, rates->candidates, width_of(rates), rates->groups);
}

void cuda_rates_operations(struct backend_ops *ops)
{
	ops->rates_forward = rates_forward;
	ops->rates_backward = rates_backward;
}
