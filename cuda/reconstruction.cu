/* The reconstruction loss and its gradient: sums per column over chunks of rows, these added in order, then the gradient. */
#include "cuda/columns.cuh"

enum { CHUNK = 64, BLOCK = 256 };

/* partial [chunks, 2, cols] double: Σ ref² and Σ (y − ref)² over CHUNK rows. Block (32, ACROSS). */
template <int N>
__global__ void __launch_bounds__(32 * ACROSS) sums_kernel(double *partial, view y, view ref, int64_t rows, int64_t cols)
{
	__shared__ double sums[2][ACROSS][32 * N];
	int64_t col = ((int64_t)blockIdx.y * 32 + threadIdx.x) * N;
	int64_t first = (int64_t)blockIdx.x * CHUNK, end = index_min(rows, first + CHUNK);
	double found[2][N] = {};
	if (col < cols)
		for (int64_t row = first + threadIdx.y; row < end; row += ACROSS) {
			raw<N> raw_y = load_raw<N>(y, row, col), raw_ref = load_raw<N>(ref, row, col);
			float a[N], b[N];
			unpack<N>(raw_y, y, a);
			unpack<N>(raw_ref, ref, b);
#pragma unroll
			for (int j = 0; j < N; j++) {
				double difference = (double)a[j] - (double)b[j];
				found[0][j] += (double)b[j] * (double)b[j];
				found[1][j] += difference * difference;
			}
		}
	store_column_sums<2, N>(partial, sums, found, cols);
}

/* scale[j] = 2 / (H·Σ ref²), 0 for a channel without norm; losses [blocks]: Σ error/norm over the block's columns. */
__global__ void __launch_bounds__(BLOCK)
	columns_kernel(float *scale, double *losses, const double *partial, int64_t chunks, int64_t cols)
{
	int64_t col = (int64_t)blockIdx.x * BLOCK + threadIdx.x;
	double norm = 0, error = 0;
	if (col < cols) {
		for (int64_t i = 0; i < chunks; i++) {
			norm += partial[2 * i * cols + col];
			error += partial[(2 * i + 1) * cols + col];
		}
		scale[col] = norm == 0 ? 0 : (float)(2 / (norm * (double)cols));
	}
	double sum = block_reduce(norm == 0 ? 0 : error / norm, plus());
	if (threadIdx.x == 0) losses[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(32) loss_kernel(double *stats, const double *losses, int blocks, int64_t cols, bool accumulate)
{
	double sum = 0;
	for (int i = (int)threadIdx.x; i < blocks; i += 32)
		sum += losses[i];
	sum = warp_reduce(sum, plus()) / (double)cols;
	if (threadIdx.x == 0) stats[STEP_RECONSTRUCTION] = (accumulate ? stats[STEP_RECONSTRUCTION] : 0) + sum;
}

template <int N>
__global__ void __launch_bounds__(256) gradient_kernel(view dy, view y, view ref, const float *scale, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	raw<N> a[ELEMENTWISE_STEPS], b[ELEMENTWISE_STEPS];
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++)
		if (elementwise_col<N>(i) < cols) {
			a[i] = load_raw<N>(y, row, elementwise_col<N>(i));
			b[i] = load_raw<N>(ref, row, elementwise_col<N>(i));
		}
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(i);
		float value[N], target[N];
		if (col >= cols) return;
		unpack<N>(a[i], y, value);
		unpack<N>(b[i], ref, target);
#pragma unroll
		for (int j = 0; j < N; j++)
			value[j] = scale[col + j] * (value[j] - target[j]);
		store<N>(dy, row, col, value);
	}
}

/* dy, where it has data, and losses [blocks of the grid]: Σ weight·(y − ref)² over the block's elements. */
template <int N>
__global__ void __launch_bounds__(256)
	weighted_kernel(double *losses, view dy, view y, view ref, const float *weight, double factor, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	double sum = 0;
	float twice = (float)(2 * factor);
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(i);
		float value[N], target[N];
		if (row >= rows || col >= cols) continue;
		load<N>(y, row, col, value);
		load<N>(ref, row, col, target);
#pragma unroll
		for (int j = 0; j < N; j++) {
			double difference = (double)value[j] - (double)target[j];
			sum += (double)weight[col + j] * difference * difference;
			value[j] = twice * weight[col + j] * (value[j] - target[j]);
		}
		if (dy.data) store<N>(dy, row, col, value);
	}
	int thread = (int)(threadIdx.y * 32 + threadIdx.x);
	__shared__ double sums[256];
	sums[thread] = sum;
	__syncthreads();
	for (int half = 128; half > 0; half /= 2) {
		if (thread < half) sums[thread] += sums[thread + half];
		__syncthreads();
	}
	if (thread == 0) losses[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = sums[0];
}

__global__ void __launch_bounds__(BLOCK)
	add_losses_kernel(double *stats, const double *losses, int64_t count, double factor, bool accumulate)
{
	double sum = 0;
	for (int64_t i = threadIdx.x; i < count; i += BLOCK)
		sum += losses[i];
	sum = block_reduce(sum, plus());
	if (threadIdx.x == 0) stats[STEP_RECONSTRUCTION] = (accumulate ? stats[STEP_RECONSTRUCTION] : 0) + factor * sum;
}

static enum status weighted_error(struct backend *backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				  struct tensor weight, double factor, bool accumulate)
{
	struct cuda *c = cuda_begin(backend, "weighted_error", {dy, y, ref, weight});
	bool chunked = cuda_chunked({dy, y, ref});
	dim3 grid = elementwise_grid(y.rows, y.cols, chunked ? 8 : 1);
	int64_t blocks = (int64_t)grid.x * grid.y;
	struct scratch losses(c);
	TRY(losses.allocate((size_t)blocks * sizeof(double)));
	if (blocks && chunked)
		TRY(LAUNCH(c, weighted_kernel<8>, grid, elementwise_block(), 0, losses.as<double>(), view_of(dy), view_of(y),
			   view_of(ref), (const float *)weight.data, factor, y.rows, y.cols));
	else if (blocks)
		TRY(LAUNCH(c, weighted_kernel<1>, grid, elementwise_block(), 0, losses.as<double>(), view_of(dy), view_of(y),
			   view_of(ref), (const float *)weight.data, factor, y.rows, y.cols));
	return LAUNCH(c, add_losses_kernel, dim3(1), dim3(BLOCK), 0, (double *)stats, losses.as<double>(), blocks, factor,
		      accumulate);
}

static enum status reconstruction(struct backend *backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				  bool accumulate)
{
	struct cuda *c = cuda_begin(backend, "reconstruction", {dy, y, ref});
	int64_t chunks = index_ceil_div(y.rows, CHUNK);
	int blocks = (int)index_ceil_div(y.cols, BLOCK), n = cuda_chunked({y, ref}) ? 8 : 1;
	dim3 grid((unsigned)chunks, (unsigned)index_ceil_div(y.cols, 32 * n)), block(32, ACROSS);
	struct scratch partial(c), losses(c), scale(c);
	if (y.rows == 0 || y.cols == 0) {
		if (!accumulate && !backend->dry)
			CUDA_TRY(c, cudaMemsetAsync(stats, 0, sizeof(double), c->stream)); /* STEP_RECONSTRUCTION is the first */
		return STATUS_OK;
	}
	TRY(partial.allocate((size_t)(2 * chunks * y.cols) * sizeof(double)));
	TRY(losses.allocate((size_t)blocks * sizeof(double)));
	TRY(scale.allocate((size_t)y.cols * sizeof(float)));
	if (n == 8)
		TRY(LAUNCH(c, sums_kernel<8>, grid, block, 0, partial.as<double>(), view_of(y), view_of(ref), y.rows, y.cols));
	else
		TRY(LAUNCH(c, sums_kernel<1>, grid, block, 0, partial.as<double>(), view_of(y), view_of(ref), y.rows, y.cols));
	TRY(LAUNCH(c, columns_kernel, dim3((unsigned)blocks), dim3(BLOCK), 0, scale.as<float>(), losses.as<double>(),
		   partial.as<double>(), chunks, y.cols));
	TRY(LAUNCH(c, loss_kernel, dim3(1), dim3(32), 0, (double *)stats, losses.as<double>(), blocks, y.cols, accumulate));
	if (!dy.data) return STATUS_OK;
	if (cuda_chunked({dy, y, ref}))
		return LAUNCH(c, gradient_kernel<8>, elementwise_grid(y.rows, y.cols, 8), elementwise_block(), 0, view_of(dy),
			      view_of(y), view_of(ref), scale.as<float>(), y.rows, y.cols);
	return LAUNCH(c, gradient_kernel<1>, elementwise_grid(y.rows, y.cols, 1), elementwise_block(), 0, view_of(dy), view_of(y),
		      view_of(ref), scale.as<float>(), y.rows, y.cols);
}

void cuda_reconstruction_operations(struct backend_ops *ops)
{
	ops->reconstruction = reconstruction;
	ops->weighted_error = weighted_error;
}
