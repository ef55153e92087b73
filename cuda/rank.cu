/* The rank of every weight in its row: a stable radix sort, least significant digit first, of a row's importances by one block.
 *
 * Each of the block's warps owns a contiguous span of the row (of the order so far). A pass counts the digits per warp, sums the
 * counts over (digit, warp), and lets each warp place its elements in order, 32 at a time: lanes of equal digit take
 * neighbouring places in lane order. So equal digits keep their order, and the last pass knows the rank. A persistent block
 * sorts row after row; keys and columns ping-pong in a global scratch of its own that stays in the L2 cache. */
#include "cuda/launch.cuh"
#include "cuda/memory.h"

enum { THREADS = 512, WARPS = THREADS / 32 };

struct entry {
	uint32_t key, column;
};

/* Wanda's and magnitude's importance, rounded as the CPU backend rounds. */
static __device__ __forceinline__ float importance_of(float weight, const float *scale, int64_t column)
{
	return scale ? __fmul_rn(fabsf(weight), scale[column]) : fabsf(weight);
}

__global__ void __launch_bounds__(256) scale_kernel(float *scale, const double *sums, double sequences, int64_t cols)
{
	int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x;
	if (i < cols) scale[i] = __fsqrt_rn((float)(sums[i] / sequences));
}

/* Turns the counts [WARPS][RADIX_BINS] of a pass into each warp's first place per digit. Threads 0 … RADIX_BINS − 1 own a digit. */
static __device__ __forceinline__ void place_digits(uint32_t (*counts)[RADIX_BINS], uint32_t *warp_total)
{
	int digit = (int)threadIdx.x, lane = digit % 32;
	uint32_t total = 0, sum = 0;
	if (digit < RADIX_BINS) {
		for (int w = 0; w < WARPS; w++) {
			uint32_t n = counts[w][digit];
			counts[w][digit] = total;
			total += n;
		}
		sum = total;
#pragma unroll
		for (int offset = 1; offset < 32; offset *= 2) {
			uint32_t below = __shfl_up_sync(0xffffffffu, sum, offset);
			if (lane >= offset) sum += below;
		}
		if (lane == 31) warp_total[digit / 32] = sum;
	}
	__syncthreads();
	if (digit < RADIX_BINS) {
		uint32_t before = sum - total;
		for (int w = 0; w < digit / 32; w++)
			before += warp_total[w];
		for (int w = 0; w < WARPS; w++)
			counts[w][digit] += before;
	}
	__syncthreads();
}

__global__ void __launch_bounds__(THREADS) rank_kernel(uint16_t *rank, uint32_t *bad_row, int64_t rank_stride, view weight,
						       const float *scale, entry *scratch, int64_t rows, int64_t cols)
{
	__shared__ uint32_t counts[WARPS][RADIX_BINS];
	__shared__ uint32_t warp_total[RADIX_BINS / 32];
	int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
	int64_t first, count;
	index_warp_span(cols, warp, WARPS, &first, &count);
	for (int64_t row = blockIdx.x; row < rows; row += gridDim.x) {
		entry *from = scratch + (int64_t)blockIdx.x * 2 * cols, *to = from + cols;
		for (int pass = 0; pass < RADIX_PASSES; pass++) {
			for (int i = (int)threadIdx.x; i < WARPS * RADIX_BINS; i += THREADS)
				(&counts[0][0])[i] = 0;
			__syncthreads();
			for (int64_t i = 0; i < count; i += 32) {
				int64_t at = first + i + lane;
				if (i + lane >= count) continue;
				if (pass == 0) {
					float w[1];
					load<1>(weight, row, at, w);
					from[at] = {index_radix_key(importance_of(w[0], scale, at)), (uint32_t)at};
					if (from[at].key > 0x7f800000u) atomicMin(bad_row, (uint32_t)row);
				}
				atomicAdd(&counts[warp][index_radix_digit(from[at].key, pass)], 1u);
			}
			__syncthreads();
			place_digits(counts, warp_total);
			for (int64_t i = 0; i < count; i += 32) {
				bool valid = i + lane < count;
				entry e = {0, 0};
				if (valid) e = from[first + i + lane];
				uint32_t digit = valid ? index_radix_digit(e.key, pass) : (uint32_t)RADIX_BINS;
				uint32_t same = __match_any_sync(0xffffffffu, digit);
				uint32_t before = (uint32_t)__popc(same & ((1u << lane) - 1));
				uint32_t place = valid ? counts[warp][digit] + before : 0;
				__syncwarp();
				if (valid && before == 0) counts[warp][digit] += (uint32_t)__popc(same);
				__syncwarp();
				if (!valid) continue;
				if (pass == RADIX_PASSES - 1)
					rank[row * rank_stride + e.column] = (uint16_t)place;
				else
					to[place] = e;
			}
			__syncthreads();
			entry *swap = from;
			from = to;
			to = swap;
		}
	}
}

/* A thread a weight: its rank among the `of` of its group, whose importances it works out again. */
__global__ void __launch_bounds__(256) group_kernel(uint16_t *rank, uint32_t *bad_row, int64_t rank_stride, view weight,
						    const float *scale, int64_t rows, int64_t cols, int of)
{
	int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x, row = i / cols, col = i % cols, first = col - col % of;
	int before = 0;
	float w[1];
	if (row >= rows) return;
	load<1>(weight, row, col, w);
	uint32_t mine = __float_as_uint(importance_of(w[0], scale, col));
	if (mine > 0x7f800000u) atomicMin(bad_row, (uint32_t)row);
	for (int64_t j = first; j < first + of; j++) {
		load<1>(weight, row, j, w);
		uint32_t other = __float_as_uint(importance_of(w[0], scale, j));
		before += other < mine || (other == mine && j < col);
	}
	rank[row * rank_stride + col] = (uint16_t)before;
}

/* The column scales of Wanda's importance in `scale`; none for magnitude. */
static enum status fill_scale(struct cuda *c, struct scratch &scale, enum importance importance, const void *sums, double sequences,
			      int64_t cols)
{
	if (importance != IMPORTANCE_WANDA) return STATUS_OK;
	TRY(scale.allocate((size_t)cols * sizeof(float)));
	return LAUNCH(c, scale_kernel, dim3((unsigned)index_ceil_div(cols, 256)), dim3(256), 0, scale.as<float>(),
		      (const double *)sums, sequences, cols);
}

static enum status check_importances(struct cuda *c, const struct scratch &bad, const struct tensor &weight)
{
	uint32_t bad_row;
	if (c->base.dry) return STATUS_OK; /* there is no answer */
	TRY(cuda_read(c, &bad_row, bad.data, sizeof bad_row));
	return bad_row == UINT32_MAX ? STATUS_OK
				     : cuda_refuse(c, STATUS_NUMERIC, "a NaN among the importances of row %u of [%lld, %lld]",
						   bad_row, (long long)weight.rows, (long long)weight.cols);
}

static enum status rank_rows(struct backend *backend, enum importance importance, struct tensor rank, struct tensor weight,
			     const void *sums, double sequences)
{
	struct cuda *c = cuda_begin(backend, "rank_rows", {rank, weight});
	struct scratch entries(c), scale(c), bad(c);
	if (weight.rows == 0 || weight.cols == 0) return STATUS_OK;
	int64_t blocks = index_rank_blocks(weight.rows, weight.cols, c->processors);
	TRY(bad.allocate(sizeof(uint32_t)));
	if (!backend->dry) CUDA_TRY(c, cudaMemsetAsync(bad.data, 0xff, sizeof(uint32_t), c->stream));
	TRY(entries.allocate((size_t)(blocks * 2 * weight.cols) * sizeof(struct entry)));
	TRY(fill_scale(c, scale, importance, sums, sequences, weight.cols));
	TRY(LAUNCH(c, rank_kernel, dim3((unsigned)blocks), dim3(THREADS), 0, (uint16_t *)rank.data, bad.as<uint32_t>(), rank.stride,
		   view_of(weight), scale.as<float>(), entries.as<struct entry>(), weight.rows, weight.cols));
	return check_importances(c, bad, weight);
}

static enum status rank_groups(struct backend *backend, enum importance importance, struct tensor rank, struct tensor weight,
			       const void *sums, double sequences, int of)
{
	struct cuda *c = cuda_begin(backend, "rank_groups", {rank, weight});
	struct scratch scale(c), bad(c);
	if (weight.rows == 0 || weight.cols == 0) return STATUS_OK;
	TRY(bad.allocate(sizeof(uint32_t)));
	if (!backend->dry) CUDA_TRY(c, cudaMemsetAsync(bad.data, 0xff, sizeof(uint32_t), c->stream));
	TRY(fill_scale(c, scale, importance, sums, sequences, weight.cols));
	TRY(LAUNCH(c, group_kernel, dim3((unsigned)index_ceil_div(weight.rows * weight.cols, 256)), dim3(256), 0,
		   (uint16_t *)rank.data, bad.as<uint32_t>(), rank.stride, view_of(weight), scale.as<float>(), weight.rows,
		   weight.cols, of));
	return check_importances(c, bad, weight);
}

void cuda_rank_operations(struct backend_ops *ops)
{
	ops->rank_rows = rank_rows;
	ops->rank_groups = rank_groups;
}
