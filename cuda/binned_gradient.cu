/* binned_gradient: G = dyᵀ·x in panels of rows by cuBLASLt, each read once by a kernel that adds G ⊙ W into the row's bins.
 *
 * A warp owns a row and each of its lanes a private copy of the row's bins in shared memory, one bank per lane, so that no two lanes
 * meet: lane l adds its columns in their order, then the copies are added in a fixed order. No atomics: the bits do not change from
 * run to run. */
#include "cuda/launch.cuh"

enum { WARPS = 4 };

/* out [rows, bins]: of rows `first` … of the panel g. */
template <int N>
__global__ void __launch_bounds__(32 * WARPS)
	bin_kernel(float *out, int64_t out_stride, const float *g, view weight, const uint8_t *bin, int64_t bin_stride,
		   int64_t rows, int64_t cols, int bins)
{
	SHARED_MEMORY(float, shared);
	int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
	int64_t row = (int64_t)blockIdx.x * WARPS + warp;
	float *mine = shared + (int64_t)warp * bins * 32;
	if (row >= rows) return;
	for (int i = 0; i < bins; i++)
		mine[i * 32 + lane] = 0;
	for (int64_t col = (int64_t)lane * N; col < cols; col += 32 * N) {
		const float *from = g + row * cols + col;
		const uint8_t *bytes = bin + row * bin_stride + col;
		raw<N> raw_w = load_raw<N>(weight, row, col);
		float w[N];
		if constexpr (N == 8) {
			float4 low = *(const float4 *)from, high = *(const float4 *)(from + 4);
			uint2 b = *(const uint2 *)bytes;
			const float v[8] = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
			unpack<N>(raw_w, weight, w);
#pragma unroll
			for (int j = 0; j < 8; j++)
				mine[((j < 4 ? b.x : b.y) >> (8 * (j % 4)) & 0xff) * 32 + lane] += v[j] * w[j];
		} else {
			unpack<N>(raw_w, weight, w);
			mine[*bytes * 32 + lane] += *from * w[0];
		}
	}
	__syncwarp();
	for (int b = lane; b < bins; b += 32) {
		float sum = 0;
#pragma unroll 8
		for (int i = 0; i < 32; i++)
			sum += mine[b * 32 + (i + lane) % 32];
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

static enum status bin_panel(struct cuda *c, float *out, int64_t out_stride, const float *g, const struct tensor &weight,
			     const struct tensor &bin, int bins)
{
	dim3 grid((unsigned)index_ceil_div(weight.rows, WARPS)), block(32 * WARPS);
	size_t shared = (size_t)WARPS * (size_t)bins * 32 * sizeof(float);
	if (cuda_chunked({weight, bin}))
		return LAUNCH(c, bin_kernel<8>, grid, block, shared, out, out_stride, g, view_of(weight), (const uint8_t *)bin.data,
			      bin.stride, weight.rows, weight.cols, bins);
	return LAUNCH(c, bin_kernel<1>, grid, block, shared, out, out_stride, g, view_of(weight), (const uint8_t *)bin.data,
		      bin.stride, weight.rows, weight.cols, bins);
}

enum status cuda_binned_gradient(struct backend *backend, struct tensor sums, struct tensor dy, struct tensor x,
				 struct tensor weight, struct tensor bin, bool shared)
{
	struct cuda *c = cuda_begin(backend, "binned_gradient", {sums, dy, x, weight, bin});
	TRY(check_binned_gradient(backend, sums, dy, x, weight, bin, shared));
	int64_t rows = weight.rows, cols = weight.cols, panel = index_panel_rows(rows, cols, PANEL_BYTES, c->processors);
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
		TRY(cuda_matmul(backend, tensor_make(gradient.data, count, cols, DTYPE_F32), tensor_cols(dy, first, count), true, x,
				false, false));
		c->call = call;
		TRY(bin_panel(c, out + first * out_stride, out_stride, gradient.as<float>(), tensor_rows(weight, first, count),
			      tensor_rows(bin, first, count), bins));
	}
	return shared ? sum_rows(c, (float *)sums.data, out, rows, bins) : STATUS_OK;
}
