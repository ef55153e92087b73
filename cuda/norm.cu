/* RMSNorm and LayerNorm of vectors of cols/groups elements, and their backward. A vector belongs to a warp, or, where it is
 * long, to a block; it is read again from the cache for each further pass. */
#include "cuda/launch.cuh"

enum { LONG = 2048, BLOCK = 256 };

/* The vector of this warp (THREADS 32) or block, and this thread's place among its threads. */
template <int THREADS> struct owner {
	int64_t vector = THREADS == 32 ? (int64_t)blockIdx.x * (BLOCK / 32) + threadIdx.x / 32 : blockIdx.x;
	int thread = (int)threadIdx.x % THREADS;

	__device__ __forceinline__ float sum(float x) const
	{
		if constexpr (THREADS == 32)
			return warp_reduce(x, plus());
		else
			return block_reduce(x, plus());
	}
};

/* weight + offset of N elements, and the bias. Their rows are aligned like x's where N is 8. */
template <int N> static __device__ __forceinline__ void scale_of(view weight, float offset, int64_t col, float (&w)[N])
{
	load<N>(weight, 0, col, w);
#pragma unroll
	for (int j = 0; j < N; j++)
		w[j] += offset;
}

template <int THREADS, int N>
__global__ void __launch_bounds__(BLOCK) forward_kernel(bool centred, float eps, float offset, int groups, view y, view stats,
							view x, view weight, view bias, int64_t vectors, int length)
{
	owner<THREADS> me;
	float sum = 0, mean = 0, v[N], w[N];
	if (me.vector >= vectors) return;
	int64_t row = me.vector / groups, group = me.vector % groups, first = group * length;
	if (centred) {
		for (int i = me.thread * N; i < length; i += THREADS * N) {
			load<N>(x, row, first + i, v);
#pragma unroll
			for (int j = 0; j < N; j++)
				sum += v[j];
		}
		mean = me.sum(sum) / (float)length;
	}
	sum = 0;
	for (int i = me.thread * N; i < length; i += THREADS * N) {
		load<N>(x, row, first + i, v);
#pragma unroll
		for (int j = 0; j < N; j++)
			sum += (v[j] - mean) * (v[j] - mean);
	}
	float scale = 1 / sqrtf(me.sum(sum) / (float)length + eps);
	for (int i = me.thread * N; i < length; i += THREADS * N) {
		load<N>(x, row, first + i, v);
		scale_of<N>(weight, offset, i, w);
#pragma unroll
		for (int j = 0; j < N; j++)
			v[j] = (v[j] - mean) * scale * w[j];
		if (bias.data) {
			load<N>(bias, 0, i, w);
#pragma unroll
			for (int j = 0; j < N; j++)
				v[j] += w[j];
		}
		store<N>(y, row, first + i, v);
	}
	if (me.thread == 0) {
		float pair[2] = {mean, scale};
		((float *)stats.data)[row * stats.stride + 2 * group] = pair[0];
		((float *)stats.data)[row * stats.stride + 2 * group + 1] = pair[1];
	}
}

/* With u = dy·w: dx = (u − mean(u·x̂)·x̂ − [LayerNorm] mean(u)) / σ. */
template <int THREADS, int N>
__global__ void __launch_bounds__(BLOCK) backward_kernel(bool centred, float offset, int groups, bool accumulate, view dx, view dy,
							 view x, view stats, view weight, int64_t vectors, int length)
{
	owner<THREADS> me;
	float along = 0, total = 0, v[N], w[N], d[N];
	if (me.vector >= vectors) return;
	int64_t row = me.vector / groups, group = me.vector % groups, first = group * length;
	const float *pair = (const float *)stats.data + row * stats.stride + 2 * group;
	float mean = pair[0], scale = pair[1];
	for (int i = me.thread * N; i < length; i += THREADS * N) {
		load<N>(dy, row, first + i, d);
		load<N>(x, row, first + i, v);
		scale_of<N>(weight, offset, i, w);
#pragma unroll
		for (int j = 0; j < N; j++) {
			along += d[j] * w[j] * (v[j] - mean) * scale;
			total += d[j] * w[j];
		}
	}
	along = me.sum(along) / (float)length;
	total = centred ? me.sum(total) / (float)length : 0;
	for (int i = me.thread * N; i < length; i += THREADS * N) {
		load<N>(dy, row, first + i, d);
		load<N>(x, row, first + i, v);
		scale_of<N>(weight, offset, i, w);
#pragma unroll
		for (int j = 0; j < N; j++)
			d[j] = (d[j] * w[j] - along * (v[j] - mean) * scale - total) * scale;
		if (accumulate) {
			load<N>(dx, row, first + i, v);
#pragma unroll
			for (int j = 0; j < N; j++)
				d[j] += v[j];
		}
		store<N>(dx, row, first + i, d);
	}
}

static dim3 grid_of(int64_t vectors, int threads)
{
	return dim3((unsigned)(threads == 32 ? index_ceil_div(vectors, BLOCK / 32) : vectors));
}

/* Calls f with <THREADS, N> as its two integral-constant arguments. */
template <typename F> static enum status choose(int64_t length, bool chunked, F f)
{
	if (length >= LONG)
		return chunked ? f(std::integral_constant<int, BLOCK>(), std::integral_constant<int, 8>())
			       : f(std::integral_constant<int, BLOCK>(), std::integral_constant<int, 1>());
	return chunked ? f(std::integral_constant<int, 32>(), std::integral_constant<int, 8>())
		       : f(std::integral_constant<int, 32>(), std::integral_constant<int, 1>());
}

static enum status norm_forward(struct backend *backend, const struct norm *norm, struct tensor y, struct tensor stats,
				struct tensor x, struct tensor weight, struct tensor bias)
{
	struct cuda *c = cuda_begin(backend, "norm_forward", {y, x, weight});
	int64_t vectors = x.rows * norm->groups, length = x.cols / norm->groups;
	if (vectors == 0 || length == 0) return STATUS_OK;
	return choose(length, length % 8 == 0 && cuda_chunked({y, x, weight, bias}), [&](auto threads, auto n) {
		constexpr int THREADS = decltype(threads)::value, N = decltype(n)::value;
		return LAUNCH(c, (forward_kernel<THREADS, N>), grid_of(vectors, THREADS), dim3(BLOCK), 0, norm->kind == NORM_LAYER,
			      norm->eps, norm->weight_offset, norm->groups, view_of(y), view_of(stats), view_of(x), view_of(weight),
			      view_of(bias), vectors, length);
	});
}

static enum status norm_backward(struct backend *backend, const struct norm *norm, struct tensor dx, struct tensor dy,
				 struct tensor x, struct tensor stats, struct tensor weight, bool accumulate)
{
	struct cuda *c = cuda_begin(backend, "norm_backward", {dx, dy, x, weight});
	int64_t vectors = x.rows * norm->groups, length = x.cols / norm->groups;
	if (vectors == 0 || length == 0) return STATUS_OK;
	return choose(length, length % 8 == 0 && cuda_chunked({dx, dy, x, weight}), [&](auto threads, auto n) {
		constexpr int THREADS = decltype(threads)::value, N = decltype(n)::value;
		return LAUNCH(c, (backward_kernel<THREADS, N>), grid_of(vectors, THREADS), dim3(BLOCK), 0, norm->kind == NORM_LAYER,
			      norm->weight_offset, norm->groups, accumulate, view_of(dx), view_of(dy), view_of(x), view_of(stats),
			      view_of(weight), vectors, length);
	});
}

void cuda_norm_operations(struct backend_ops *ops)
{
	ops->norm_forward = norm_forward;
	ops->norm_backward = norm_backward;
}
