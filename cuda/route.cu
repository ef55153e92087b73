/* Tokens to experts and back: the choice of experts, the rows grouped by expert, and the gradient of the router's logits. */
#include "cuda/launch.cuh"

enum { WARPS = 8, BLOCK = 32 * WARPS, SLOTS = ROUTE_MAX_EXPERTS / 32, DOT_BLOCK = 128 };

/* The better of two candidates is the one with the larger logit, or the lower index. An index of -1 is none. */
struct candidate {
	float logit;
	int expert;
};

static __device__ __forceinline__ candidate better(candidate a, candidate b)
{
	bool second = a.expert < 0 || (b.expert >= 0 && (b.logit > a.logit || (b.logit == a.logit && b.expert < a.expert)));
	return second ? b : a;
}

/* A warp per token; lane l holds the logits of experts l, l + 32, …. A NaN counts as the smallest: what it belongs to is NaN all
 * the same. */
__global__ void __launch_bounds__(BLOCK)
	choose_kernel(struct routing routing, float *weights, int64_t weights_stride, int32_t *experts, view logits, int64_t tokens)
{
	int64_t t = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
	int lane = (int)threadIdx.x % 32;
	int others = routing.experts - routing.shared, some = routing.chosen - routing.shared;
	float x[SLOTS], first = 0, sum = 0;
	uint32_t taken = 0;
	if (t >= tokens) return;
#pragma unroll
	for (int i = 0; i < SLOTS; i++) {
		float one[1] = {-INFINITY};
		if (i * 32 + lane < others) load<1>(logits, t, i * 32 + lane, one);
		x[i] = one[0] == one[0] ? one[0] : -INFINITY;
	}
	for (int s = 0; s < some; s++) {
		candidate best = {-INFINITY, -1};
#pragma unroll
		for (int i = 0; i < SLOTS; i++)
			if (i * 32 + lane < others && !(taken >> i & 1)) best = better(best, {x[i], i * 32 + lane});
#pragma unroll
		for (int offset = 16; offset > 0; offset /= 2)
			best = better(best, {__shfl_xor_sync(0xffffffffu, best.logit, offset),
					     __shfl_xor_sync(0xffffffffu, best.expert, offset)});
		if (best.expert % 32 == lane) taken |= 1u << best.expert / 32;
		if (s == 0) first = best.logit;
		float e = expf(best.logit - first);
		sum += e;
		if (lane == 0) {
			experts[t * routing.chosen + s] = best.expert;
			weights[t * weights_stride + s] = e;
		}
	}
	if (!routing.normalise) {
		sum = 0;
#pragma unroll
		for (int i = 0; i < SLOTS; i++)
			if (i * 32 + lane < others) sum += expf(x[i] - first);
		sum = warp_reduce(sum, plus());
	}
	__syncwarp();
	for (int s = lane; s < some; s += 32)
		weights[t * weights_stride + s] /= sum;
	if (!routing.shared || lane > 0) return;
	float logit[1];
	load<1>(logits, t, others, logit);
	experts[t * routing.chosen + some] = others;
	weights[t * weights_stride + some] = 1 / (1 + expf(-logit[0]));
}

/* A block per expert. */
__global__ void __launch_bounds__(BLOCK) count_kernel(int32_t *counts, const int32_t *experts, int64_t choices)
{
	int count = 0;
	for (int64_t c = threadIdx.x; c < choices; c += BLOCK)
		count += experts[c] == (int)blockIdx.x;
	count = block_reduce(count, plus());
	if (threadIdx.x == 0) counts[blockIdx.x] = count;
}

static __device__ __forceinline__ int grains(int rows)
{
	return (rows + ROUTE_GRAIN - 1) / ROUTE_GRAIN * ROUTE_GRAIN;
}

/* A block per expert, which walks over all choices in order. */
__global__ void __launch_bounds__(BLOCK) place_kernel(int32_t *places, int32_t *sources, const int32_t *experts,
						      const int32_t *counts, int64_t choices, int64_t rows)
{
	__shared__ int found[WARPS];
	int expert = (int)blockIdx.x, warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, start = 0;
	for (int i = (int)threadIdx.x; i < expert; i += BLOCK)
		start += grains(counts[i]);
	start = block_reduce(start, plus());
	int next = start;
	for (int64_t base = 0; base < choices; base += BLOCK) {
		int64_t c = base + threadIdx.x;
		bool mine = c < choices && experts[c] == expert;
		unsigned mask = __ballot_sync(0xffffffffu, mine);
		if (lane == 0) found[warp] = __popc(mask);
		__syncthreads();
		int before = __popc(mask & ((1u << lane) - 1)), all = 0;
#pragma unroll
		for (int i = 0; i < WARPS; i++) {
			if (i < warp) before += found[i];
			all += found[i];
		}
		if (mine) {
			places[c] = next + before;
			sources[next + before] = (int32_t)c;
		}
		next += all;
		__syncthreads();
	}
	int64_t end = expert + 1 == (int)gridDim.x ? rows : start + grains(next - start);
	for (int64_t row = next + (int)threadIdx.x; row < end; row += BLOCK)
		sources[row] = -1;
}

template <int N>
__global__ void __launch_bounds__(256)
	dispatch_kernel(view to, view from, const int32_t *sources, int chosen, const float *scale, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
	int choice = sources[row];
	float factor = choice < 0 ? 0 : scale ? scale[choice] : 1;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		float x[N];
		if (elementwise_col<N>(i) >= cols) return;
		if (choice >= 0) load<N>(from, choice / chosen, elementwise_col<N>(i), x);
#pragma unroll
		for (int j = 0; j < N; j++)
			x[j] = choice < 0 ? 0 : factor * x[j];
		store<N>(to, row, elementwise_col<N>(i), x);
	}
}

template <int N>
__global__ void __launch_bounds__(256) combine_kernel(view to, view from, const int32_t *places, int chosen, const float *scale,
						      bool accumulate, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(i);
		float sum[N] = {}, x[N];
		if (col >= cols) return;
		if (accumulate) load<N>(to, row, col, sum);
		for (int64_t choice = row * chosen; choice < (row + 1) * chosen; choice++) {
			float factor = scale ? scale[choice] : 1;
			load<N>(from, places[choice], col, x);
#pragma unroll
			for (int j = 0; j < N; j++)
				sum[j] += factor * x[j];
		}
		store<N>(to, row, col, sum);
	}
}

/* A block per token. With w_s the weights and d_s = ⟨dy, output of choice s⟩: for the chosen ∂l_s = w_s·(d_s − Σ w·d). Where the
 * softmax runs over all experts, the others have −p·Σ w·d, with p = their share, which the weight of the first choice gives. A
 * shared one has w·(1 − w)·d. */
template <int N>
__global__ void __launch_bounds__(DOT_BLOCK)
	route_backward_kernel(struct routing routing, view dlogits, view logits, const float *weights, int64_t weights_stride,
			      const int32_t *experts, const int32_t *places, view dy, view outputs, int64_t cols)
{
	__shared__ float gradient[ROUTE_MAX_EXPERTS];
	int64_t t = blockIdx.x;
	const float *weight = weights + t * weights_stride;
	const int32_t *chosen = experts + t * routing.chosen, *place = places + t * routing.chosen;
	int others = routing.experts - routing.shared, some = routing.chosen - routing.shared;
	float mean = 0, most[1], logit[1];
	load<1>(logits, t, chosen[0], most);
	for (int s = 0; s < routing.chosen; s++) {
		float dot = 0;
		for (int64_t col = (int64_t)threadIdx.x * N; col < cols; col += DOT_BLOCK * N) {
			float a[N], b[N];
			load<N>(dy, t, col, a);
			load<N>(outputs, place[s], col, b);
#pragma unroll
			for (int j = 0; j < N; j++)
				dot += a[j] * b[j];
		}
		dot = block_reduce(dot, plus());
		if (threadIdx.x == 0) gradient[s] = dot;
		if (s < some) mean += weight[s] * dot;
	}
	__syncthreads();
	for (int i = (int)threadIdx.x; i < routing.experts; i += DOT_BLOCK) {
		float value[1] = {0};
		load<1>(logits, t, i, logit);
		if (!routing.normalise) value[0] = -weight[0] * expf(logit[0] - most[0]) * mean;
		for (int s = 0; s < some; s++)
			if (chosen[s] == i) value[0] = weight[s] * (gradient[s] - mean);
		if (i == others) value[0] = weight[some] * (1 - weight[some]) * gradient[some];
		store<1>(dlogits, t, i, value);
	}
}

static enum status route(struct backend *backend, const struct routing *routing, struct tensor weights, void *experts, void *counts,
			 void *places, void *sources, struct tensor logits)
{
	struct cuda *c = cuda_begin(backend, "route", {weights, logits});
	int64_t tokens = logits.rows, choices = tokens * routing->chosen;
	dim3 each((unsigned)routing->experts), block(BLOCK);
	if (tokens > 0)
		TRY(LAUNCH(c, choose_kernel, dim3((unsigned)index_ceil_div(tokens, WARPS)), block, 0, *routing,
			   (float *)weights.data, weights.stride, (int32_t *)experts, view_of(logits), tokens));
	TRY(LAUNCH(c, count_kernel, each, block, 0, (int32_t *)counts, (const int32_t *)experts, choices));
	return LAUNCH(c, place_kernel, each, block, 0, (int32_t *)places, (int32_t *)sources, (const int32_t *)experts,
		      (const int32_t *)counts, choices, routing_rows(routing, tokens));
}

static enum status dispatch(struct backend *backend, struct tensor to, struct tensor from, const void *sources, int chosen,
			    struct tensor scale)
{
	struct cuda *c = cuda_begin(backend, "dispatch", {to, from});
	if (to.rows == 0 || to.cols == 0) return STATUS_OK;
	if (cuda_chunked({to, from}))
		return LAUNCH(c, dispatch_kernel<8>, elementwise_grid(to.rows, to.cols, 8), elementwise_block(), 0, view_of(to),
			      view_of(from), (const int32_t *)sources, chosen, (const float *)scale.data, to.rows, to.cols);
	return LAUNCH(c, dispatch_kernel<1>, elementwise_grid(to.rows, to.cols, 1), elementwise_block(), 0, view_of(to),
		      view_of(from), (const int32_t *)sources, chosen, (const float *)scale.data, to.rows, to.cols);
}

static enum status combine(struct backend *backend, struct tensor to, struct tensor from, const void *places, int chosen,
			   struct tensor scale, bool accumulate)
{
	struct cuda *c = cuda_begin(backend, "combine", {to, from});
	if (to.rows == 0 || to.cols == 0) return STATUS_OK;
	if (cuda_chunked({to, from}))
		return LAUNCH(c, combine_kernel<8>, elementwise_grid(to.rows, to.cols, 8), elementwise_block(), 0, view_of(to),
			      view_of(from), (const int32_t *)places, chosen, (const float *)scale.data, accumulate, to.rows,
			      to.cols);
	return LAUNCH(c, combine_kernel<1>, elementwise_grid(to.rows, to.cols, 1), elementwise_block(), 0, view_of(to),
		      view_of(from), (const int32_t *)places, chosen, (const float *)scale.data, accumulate, to.rows, to.cols);
}

static enum status route_backward(struct backend *backend, const struct routing *routing, struct tensor dlogits,
				  struct tensor logits, struct tensor weights, const void *experts, const void *places,
				  struct tensor dy, struct tensor outputs)
{
	struct cuda *c = cuda_begin(backend, "route_backward", {dlogits, logits, weights, dy, outputs});
	if (dy.rows == 0) return STATUS_OK;
	dim3 grid((unsigned)dy.rows), block(DOT_BLOCK);
	if (cuda_chunked({dy, outputs}))
		return LAUNCH(c, route_backward_kernel<8>, grid, block, 0, *routing, view_of(dlogits), view_of(logits),
			      (const float *)weights.data, weights.stride, (const int32_t *)experts, (const int32_t *)places,
			      view_of(dy), view_of(outputs), dy.cols);
	return LAUNCH(c, route_backward_kernel<1>, grid, block, 0, *routing, view_of(dlogits), view_of(logits),
		      (const float *)weights.data, weights.stride, (const int32_t *)experts, (const int32_t *)places, view_of(dy),
		      view_of(outputs), dy.cols);
}

void cuda_route_operations(struct backend_ops *ops)
{
	ops->route = route;
	ops->dispatch = dispatch;
	ops->combine = combine;
	ops->route_backward = route_backward;
}
