/* Column norms, bins of ranks and masked weights. */
#include "cuda/columns.cuh"

/* ---- column norms: partial sums of CHUNK rows, then these in order ----------------------------------------------------------- */

enum { CHUNK = 256 };

/* partial [chunks, cols] double. Block (32, ACROSS): 32·N columns, CHUNK rows. */
template <int N> __global__ void __launch_bounds__(32 * ACROSS) squares_kernel(double *partial, view x, int64_t rows, int64_t cols)
{
	__shared__ double sums[1][ACROSS][32 * N];
	int64_t col = ((int64_t)blockIdx.y * 32 + threadIdx.x) * N;
	int64_t first = (int64_t)blockIdx.x * CHUNK, end = index_min(rows, first + CHUNK);
	double found[1][N] = {};
	if (col < cols)
		for (int64_t row = first + threadIdx.y; row < end; row += ACROSS) {
			float v[N];
			load<N>(x, row, col, v);
#pragma unroll
			for (int j = 0; j < N; j++)
				found[0][j] += (double)v[j] * (double)v[j];
		}
	store_column_sums<1, N>(partial, sums, found, cols);
}

__global__ void __launch_bounds__(256) add_partials_kernel(double *sums, const double *partial, int64_t chunks, int64_t cols)
{
	int64_t col = (int64_t)blockIdx.x * 256 + threadIdx.x;
	if (col >= cols) return;
	double sum = sums[col];
	for (int64_t i = 0; i < chunks; i++)
		sum += partial[i * cols + col];
	sums[col] = sum;
}

template <int N>
__global__ void __launch_bounds__(256) saliency_kernel(view scores, view gradient, view weight, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(i);
		float sum[N], g[N], w[N];
		if (col >= cols) return;
		load<N>(scores, row, col, sum);
		load<N>(gradient, row, col, g);
		load<N>(weight, row, col, w);
#pragma unroll
		for (int j = 0; j < N; j++)
			sum[j] += fabsf(w[j] * g[j]);
		store<N>(scores, row, col, sum);
	}
}

static enum status add_saliency(struct backend *backend, struct tensor scores, struct tensor gradient, struct tensor weight)
{
	struct cuda *c = cuda_begin(backend, "add_saliency", {scores, gradient, weight});
	if (scores.rows == 0 || scores.cols == 0) return STATUS_OK;
	if (cuda_chunked({scores, gradient, weight}))
		return LAUNCH(c, saliency_kernel<8>, elementwise_grid(scores.rows, scores.cols, 8), elementwise_block(), 0,
			      view_of(scores), view_of(gradient), view_of(weight), scores.rows, scores.cols);
	return LAUNCH(c, saliency_kernel<1>, elementwise_grid(scores.rows, scores.cols, 1), elementwise_block(), 0, view_of(scores),
		      view_of(gradient), view_of(weight), scores.rows, scores.cols);
}

static enum status column_norms(struct backend *backend, void *sums, struct tensor x)
{
	struct cuda *c = cuda_begin(backend, "column_norms", {x});
	int64_t chunks = index_ceil_div(x.rows, CHUNK);
	int n = cuda_chunked({x}) ? 8 : 1;
	dim3 grid((unsigned)chunks, (unsigned)index_ceil_div(x.cols, 32 * n)), block(32, ACROSS);
	struct scratch partial(c);
	if (x.rows == 0 || x.cols == 0) return STATUS_OK;
	TRY(partial.allocate((size_t)chunks * (size_t)x.cols * sizeof(double)));
	if (n == 8)
		TRY(LAUNCH(c, squares_kernel<8>, grid, block, 0, partial.as<double>(), view_of(x), x.rows, x.cols));
	else
		TRY(LAUNCH(c, squares_kernel<1>, grid, block, 0, partial.as<double>(), view_of(x), x.rows, x.cols));
	return LAUNCH(c, add_partials_kernel, dim3((unsigned)index_ceil_div(x.cols, 256)), dim3(256), 0, (double *)sums,
		      partial.as<double>(), chunks, x.cols);
}

/* ---- bins -------------------------------------------------------------------------------------------------------------------- */

template <int N>
__global__ void __launch_bounds__(256) bin_kernel(uint8_t *bin, int64_t bin_stride, const uint16_t *rank, int64_t rank_stride,
						  int candidates, int below, int above, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(i);
		if (col >= cols) return;
		const uint16_t *from = rank + row * rank_stride + col;
		uint8_t *to = bin + row * bin_stride + col;
		if constexpr (N == 8) {
			uint4 r = *(const uint4 *)from;
			const uint32_t pairs[4] = {r.x, r.y, r.z, r.w};
			uint32_t bytes[2] = {0, 0};
#pragma unroll
			for (int j = 0; j < 8; j++)
				bytes[j / 4] |= index_bin(pairs[j / 2] >> (16 * (j % 2)) & 0xffff, cols, candidates, below, above)
						<< (8 * (j % 4));
			*(uint2 *)to = make_uint2(bytes[0], bytes[1]);
		} else {
			*to = (uint8_t)index_bin(*from, cols, candidates, below, above);
		}
	}
}

static enum status bin_ranks(struct backend *backend, struct tensor bin, struct tensor rank, int candidates, int below, int above)
{
	struct cuda *c = cuda_begin(backend, "bin_ranks", {bin, rank});
	if (rank.rows == 0 || rank.cols == 0) return STATUS_OK;
	if (cuda_chunked({bin, rank}))
		return LAUNCH(c, bin_kernel<8>, elementwise_grid(rank.rows, rank.cols, 8), elementwise_block(), 0,
			      (uint8_t *)bin.data, bin.stride, (const uint16_t *)rank.data, rank.stride, candidates, below, above,
			      rank.rows, rank.cols);
	return LAUNCH(c, bin_kernel<1>, elementwise_grid(rank.rows, rank.cols, 1), elementwise_block(), 0, (uint8_t *)bin.data,
		      bin.stride, (const uint16_t *)rank.data, rank.stride, candidates, below, above, rank.rows, rank.cols);
}

/* ---- masked weights ---------------------------------------------------------------------------------------------------------- */

/* Span `span` of a row: ELEMENTWISE_STEPS chunks of N columns per lane. rank: of the row. */
template <int N>
static __device__ __forceinline__ void mask_span(view out, view weight, const uint16_t *rank, int limit, int64_t row, int64_t span,
						 int64_t cols)
{
	raw<N> w[ELEMENTWISE_STEPS];
	uint4 r[ELEMENTWISE_STEPS];
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(span, i);
		if (col >= cols) continue;
		w[i] = load_raw<N>(weight, row, col);
		if constexpr (N == 8)
			r[i] = *(const uint4 *)(rank + col);
		else
			r[i].x = rank[col];
	}
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(span, i);
		float x[N];
		if (col >= cols) return;
		unpack<N>(w[i], weight, x);
		const uint32_t pairs[4] = {r[i].x, r[i].y, r[i].z, r[i].w};
#pragma unroll
		for (int j = 0; j < N; j++)
			if ((int)(pairs[j / 2] >> (16 * (j % 2)) & 0xffff) < limit) x[j] = 0;
		store<N>(out, row, col, x);
	}
}

template <int N>
__global__ void __launch_bounds__(256) mask_kernel(view out, view weight, const uint16_t *rank, int64_t rank_stride,
						   const int32_t *threshold, bool shared, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
	mask_span<N>(out, weight, rank + row * rank_stride, threshold[shared ? 0 : row], row, blockIdx.y, cols);
}

__global__ void __launch_bounds__(256)
	order_kernel(uint16_t *order, int64_t order_stride, const uint16_t *rank, int64_t rank_stride, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<1>(blockIdx.y, i);
		if (col >= cols) return;
		order[row * order_stride + rank[row * rank_stride + col]] = (uint16_t)col;
	}
}

/* A warp a row. What a row's threshold has moved over stands side by side in the order; if that is much, the row is written
 * whole. */
template <int N>
__global__ void __launch_bounds__(256)
	move_kernel(view out, view weight, const uint16_t *rank, int64_t rank_stride, const uint16_t *order, int64_t order_stride,
		    int32_t *held, const int32_t *threshold, bool shared, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	int lane = (int)threadIdx.x;
	if (row >= rows) return;
	int32_t from = held[row] - 1, to = index_limit(threshold[shared ? 0 : row], cols);
	if (from == to) return;
	if (index_mask_moves(from, to, cols)) {
		int end = from < to ? to : from;
		for (int i = (from < to ? from : to) + lane; i < end; i += 32) {
			int64_t col = order[row * order_stride + i];
			float x[1] = {0};
			if (to < from) load<1>(weight, row, col, x);
			store<1>(out, row, col, x);
		}
	} else {
		for (int64_t span = 0; span * ELEMENTWISE_STEPS * 32 * N < cols; span++)
			mask_span<N>(out, weight, rank + row * rank_stride, to, row, span, cols);
	}
	__syncwarp(); /* all lanes have read what was held */
	if (lane == 0) held[row] = to + 1;
}

static enum status mask_weights(struct backend *backend, struct tensor out, struct tensor weight, struct tensor rank,
				const void *threshold, bool shared)
{
	struct cuda *c = cuda_begin(backend, "mask_weights", {out, weight, rank});
	if (rank.rows == 0 || rank.cols == 0) return STATUS_OK;
	if (cuda_chunked({out, weight, rank}))
		return LAUNCH(c, mask_kernel<8>, elementwise_grid(rank.rows, rank.cols, 8), elementwise_block(), 0, view_of(out),
			      view_of(weight), (const uint16_t *)rank.data, rank.stride, (const int32_t *)threshold, shared,
			      rank.rows, rank.cols);
	return LAUNCH(c, mask_kernel<1>, elementwise_grid(rank.rows, rank.cols, 1), elementwise_block(), 0, view_of(out),
		      view_of(weight), (const uint16_t *)rank.data, rank.stride, (const int32_t *)threshold, shared, rank.rows,
		      rank.cols);
}

static enum status order_ranks(struct backend *backend, struct tensor order, struct tensor rank)
{
	struct cuda *c = cuda_begin(backend, "order_ranks", {order, rank});
	if (rank.rows == 0 || rank.cols == 0) return STATUS_OK;
	return LAUNCH(c, order_kernel, elementwise_grid(rank.rows, rank.cols, 1), elementwise_block(), 0, (uint16_t *)order.data,
		      order.stride, (const uint16_t *)rank.data, rank.stride, rank.rows, rank.cols);
}

static enum status move_mask(struct backend *backend, struct tensor out, struct tensor weight, struct tensor rank,
			     struct tensor order, void *held, const void *threshold, bool shared)
{
	struct cuda *c = cuda_begin(backend, "move_mask", {out, weight, rank, order});
	dim3 grid((unsigned)index_ceil_div(rank.rows, ELEMENTWISE_ROWS));
	if (rank.rows == 0 || rank.cols == 0) return STATUS_OK;
	auto run = [&](auto n) {
		return LAUNCH(c, move_kernel<decltype(n)::value>, grid, elementwise_block(), 0, view_of(out), view_of(weight),
			      (const uint16_t *)rank.data, rank.stride, (const uint16_t *)order.data, order.stride, (int32_t *)held,
			      (const int32_t *)threshold, shared, rank.rows, rank.cols);
	};
	return cuda_chunked({out, weight, rank}) ? run(std::integral_constant<int, 8>()) : run(std::integral_constant<int, 1>());
}

void cuda_importance_operations(struct backend_ops *ops)
{
	ops->column_norms = column_norms;
	ops->add_saliency = add_saliency;
	ops->bin_ranks = bin_ranks;
	ops->mask_weights = mask_weights;
	ops->order_ranks = order_ranks;
	ops->move_mask = move_mask;
}
