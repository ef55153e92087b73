/* binned_gradient: G = dyᵀ·x in panels of rows by cuBLASLt, each read once by a kernel that adds G ⊙ W into the row's bins.
 *
 * A warp owns a row and each of its lanes a private copy of the row's bins in shared memory, one bank per lane, so that no two
 * lanes meet: lane l adds its columns in their order, then the copies are added in a fixed order. No atomics: the bits do not
 * change from run to run. */
#include "cuda/launch.cuh"

enum { WARPS = 4 };

/* N neighbouring columns of G, W and the bins. */
template <int N> struct chunk {
	raw<N> g, w;
	uint2 bins;
};

template <int N>
static __device__ __forceinline__ chunk<N> load_chunk(const view &gradient, const view &weight, const uint8_t *bin, int64_t row,
						      int64_t col)
{
	chunk<N> x;
	x.g = load_raw<N>(gradient, row, col);
	x.w = load_raw<N>(weight, row, col);
	if constexpr (N == 8)
		x.bins = *(const uint2 *)(bin + col);
	else
		x.bins.x = bin[col];
	return x;
}

/* out [rows, bins] of a panel of G; a block has WARPS rows, or as many as shared memory holds. The next chunk is under way while
 * one is added. */
template <int N>
__global__ void __launch_bounds__(32 * WARPS)
	bin_kernel(float *out, int64_t out_stride, view gradient, view weight, const uint8_t *bin, int64_t bin_stride, int64_t rows,
		   int64_t cols, int bins)
{
	SHARED_MEMORY(float, shared);
	int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
	int64_t row = (int64_t)blockIdx.x * (blockDim.x / 32) + warp, col = (int64_t)lane * N;
	float *mine = shared + warp * bins * 32 + lane;
	chunk<N> next;
	if (row >= rows) return;
	bin += row * bin_stride;
	if (col < cols) next = load_chunk<N>(gradient, weight, bin, row, col);
	for (int i = 0; i < bins; i++)
		mine[i * 32] = 0;
	for (; col < cols; col += 32 * N) {
		chunk<N> x = next;
		float g[N], w[N];
		if (col + 32 * N < cols) next = load_chunk<N>(gradient, weight, bin, row, col + 32 * N);
		unpack<N>(x.g, gradient, g);
		unpack<N>(x.w, weight, w);
#pragma unroll
		for (int j = 0; j < N; j++) {
			uint32_t b = (j < 4 ? x.bins.x : x.bins.y) >> (8 * (j % 4)) & 0xff;
			if (b < (uint32_t)bins) mine[b * 32] += g[j] * w[j];
		}
	}
	__syncwarp();
	for (int b = lane; b < bins; b += 32) {
		const float *copies = shared + (warp * bins + b) * 32;
		float sum = 0;
#pragma unroll 8
		for (int i = 0; i < 32; i++)
			sum += copies[(i + lane) % 32]; /* each lane in another bank */
		out[row * out_stride + b] = sum;
	}
}

enum { SUM_ROWS = 32, SUM_CHUNK = 256 };

/* out [ceil(rows / SUM_CHUNK), cols]: sums over chunks of rows. Block (32, SUM_ROWS). */
__global__ void __launch_bounds__(32 * SUM_ROWS) sum_rows_kernel(float *out, const float *in, int64_t rows, int64_t cols)
{
	__shared__ float sums[SUM_ROWS][33];
	int64_t col = (int64_t)blockIdx.y * 32 + threadIdx.x;
	int64_t first = (int64_t)blockIdx.x * SUM_CHUNK, end = index_min(rows, first + SUM_CHUNK);
	float sum = 0;
	if (col < cols)
		for (int64_t row = first + threadIdx.y; row < end; row += SUM_ROWS)
			sum += in[row * cols + col];
	sums[threadIdx.y][threadIdx.x] = sum;
	__syncthreads();
	if (threadIdx.y > 0 || col >= cols) return;
	for (int i = 1; i < SUM_ROWS; i++)
		sum += sums[i][threadIdx.x];
	out[blockIdx.x * cols + col] = sum;
}

/* sums [1, bins] = the rows of `parts` [rows, bins], added in chunks until one is left. */
static enum status sum_rows(struct cuda *c, float *sums, float *parts, int64_t rows, int64_t bins)
{
	struct scratch other(c);
	dim3 block(32, SUM_ROWS);
	TRY(other.allocate((size_t)(index_ceil_div(rows, SUM_CHUNK) * bins) * sizeof(float)));
	float *from = parts, *to = other.as<float>();
	while (rows > SUM_CHUNK) {
		int64_t chunks = index_ceil_div(rows, SUM_CHUNK);
		TRY(LAUNCH(c, sum_rows_kernel, dim3((unsigned)chunks, (unsigned)index_ceil_div(bins, 32)), block, 0, to, from, rows,
			   bins));
		float *swap = from;
		from = to;
		to = swap;
		rows = chunks;
	}
	return LAUNCH(c, sum_rows_kernel, dim3(1, (unsigned)index_ceil_div(bins, 32)), block, 0, sums, from, rows, bins);
}

static enum status bin_panel(struct cuda *c, float *out, int64_t out_stride, const struct tensor &gradient,
			     const struct tensor &weight, const struct tensor &bin, int bins)
{
	size_t row_bytes = (size_t)bins * 32 * sizeof(float); /* at most 32,640: three rows fit into SHARED_LEAST */
	int64_t warps = index_min(WARPS, (int64_t)(c->shared_memory / row_bytes));
	dim3 grid((unsigned)index_ceil_div(weight.rows, warps)), block((unsigned)(32 * warps));
	size_t shared = (size_t)warps * row_bytes;
	if (cuda_chunked({weight, bin}))
		return LAUNCH(c, bin_kernel<8>, grid, block, shared, out, out_stride, view_of(gradient), view_of(weight),
			      (const uint8_t *)bin.data, bin.stride, weight.rows, weight.cols, bins);
	return LAUNCH(c, bin_kernel<1>, grid, block, shared, out, out_stride, view_of(gradient), view_of(weight),
		      (const uint8_t *)bin.data, bin.stride, weight.rows, weight.cols, bins);
}

static enum status binned_gradient(struct backend *backend, struct tensor sums, struct tensor dy, struct tensor x,
				   struct tensor weight, struct tensor bin, bool shared)
{
	struct cuda *c = cuda_begin(backend, "binned_gradient", {sums, dy, x, weight, bin});
	int64_t rows = weight.rows, cols = weight.cols;
	if (rows == 0 || cols == 0 || dy.rows == 0) {
		if (backend->dry) return STATUS_OK;
		CUDA_TRY(c, cudaMemset2DAsync(sums.data, (size_t)sums.stride * sizeof(float), 0, (size_t)sums.cols * sizeof(float),
					      (size_t)sums.rows, c->stream));
		return STATUS_OK;
	}
	int64_t panel = index_panel_rows(rows, cols, c->panel_bytes, c->processors);
	int bins = (int)sums.cols;
	struct cuda_call call = c->call;
	struct scratch gradient(c), per_row(c);
	float *out = (float *)sums.data;
	int64_t out_stride = sums.stride;
	TRY(gradient.allocate((size_t)(panel * cols) * sizeof(float)));
	if (shared) {
		TRY(per_row.allocate((size_t)(rows * bins) * sizeof(float)));
		out = per_row.as<float>();
		out_stride = bins;
	}
	for (int64_t first = 0; first < rows; first += panel) {
		int64_t count = index_min(panel, rows - first);
		struct tensor g = tensor_make(gradient.data, count, cols, DTYPE_F32);
		TRY(backend->unchecked.matmul(backend, g, tensor_cols(dy, first, count), true, x, false, false));
		c->call = call;
		TRY(bin_panel(c, out + first * out_stride, out_stride, g, tensor_rows(weight, first, count),
			      tensor_rows(bin, first, count), bins));
	}
	return shared ? sum_rows(c, (float *)sums.data, out, rows, bins) : STATUS_OK;
}

void cuda_binned_gradient_operations(struct backend_ops *ops)
{
	ops->binned_gradient = binned_gradient;
}
