/* Pruning with compensation: what SparseGPT takes beside products (arXiv 2301.00774, Algorithm 1). */
#include "cuda/launch.cuh"
#include "cuda/memory.h"

/* ---- the inverse of a factor: one block, a thread a column ---------------------------------------------------------------------- */

__global__ void __launch_bounds__(FACTOR_TILE) invert_kernel(view inverse, view negated, view a, int32_t *bad, int n)
{
	__shared__ double r[FACTOR_TILE][FACTOR_TILE + 1];
	int self = (int)threadIdx.x;
	/* R of a = R·Rᵀ from its last column to its first; a thread owns a row of it. */
	for (int j = n - 1; j >= 0; j--) {
		double sum = 0;
		if (self <= j) {
			float value[1];
			load<1>(a, self, j, value);
			sum = value[0];
			for (int k = j + 1; k < n; k++)
				sum -= r[self][k] * r[j][k];
		}
		if (self == j) {
			if (!(sum > 0)) *bad = 1;
			r[j][j] = sum > 0 ? sqrt(sum) : 1;
		}
		__syncthreads();
		if (self < j) r[self][j] = sum / r[j][j];
		__syncthreads();
	}
	if (self >= n) return;
	double v[FACTOR_TILE]; /* column `self` of R⁻¹ */
	for (int i = n - 1; i >= 0; i--) {
		double sum = i == self ? 1 : 0;
		for (int k = i + 1; k <= self; k++)
			sum -= r[i][k] * v[k];
		v[i] = i <= self ? sum / r[i][i] : 0;
		const float to[1] = {(float)v[i]}, minus[1] = {(float)-v[i]};
		store<1>(inverse, i, self, to);
		store<1>(negated, i, self, minus);
	}
}

static enum status invert_factor(struct backend *backend, struct tensor inverse, struct tensor negated, struct tensor a, void *bad)
{
	struct cuda *c = cuda_begin(backend, "invert_factor", {inverse, negated, a});
	if (a.rows == 0) return STATUS_OK;
	return LAUNCH(c, invert_kernel, dim3(1), dim3(FACTOR_TILE), 0, view_of(inverse), view_of(negated), view_of(a),
		      (int32_t *)bad, (int)a.rows);
}

/* ---- the smallest scores: a radix search for the last that goes ----------------------------------------------------------------- */

/* Scores are told apart by their place as well: no two are equal, and of equal ones the earlier goes. */
struct selection {
	uint64_t limit; /* its digits that are found */
	int64_t left;   /* of those that begin so, how many go */
	uint32_t counts[256];
};

static __device__ __forceinline__ uint32_t score_of(float weight, float diagonal)
{
	float error = __fdiv_rn(weight, diagonal);
	return __float_as_uint(__fmul_rn(error, error));
}

static __device__ __forceinline__ uint64_t key_of(const view &weight, const view &factor, int64_t row, int col, int cols)
{
	float w[1], u[1];
	load<1>(weight, row, col, w);
	load<1>(factor, col, col, u);
	return (uint64_t)score_of(w[0], u[0]) << 32 | (uint32_t)(row * cols + col);
}

__global__ void begin_kernel(selection *s, int64_t zeros)
{
	s->limit = 0;
	s->left = zeros;
	for (int i = 0; i < 256; i++)
		s->counts[i] = 0;
}

__global__ void __launch_bounds__(256) count_kernel(selection *s, view weight, view factor, int64_t rows, int cols, int shift)
{
	__shared__ uint32_t counts[256];
	int64_t n = rows * cols, step = (int64_t)gridDim.x * 256;
	counts[threadIdx.x] = 0;
	__syncthreads();
	for (int64_t i = (int64_t)blockIdx.x * 256 + threadIdx.x; i < n; i += step) {
		uint64_t key = key_of(weight, factor, i / cols, (int)(i % cols), cols);
		bool here = shift == 56 || key >> (shift + 8) == s->limit >> (shift + 8);
		if (here) atomicAdd(&counts[key >> shift & 255], 1u);
	}
	__syncthreads();
	if (counts[threadIdx.x]) atomicAdd(&s->counts[threadIdx.x], counts[threadIdx.x]);
}

__global__ void choose_kernel(selection *s, int shift)
{
	int digit = 0;
	while (digit < 255 && s->left > s->counts[digit])
		s->left -= s->counts[digit++];
	s->limit |= (uint64_t)digit << shift;
	for (int i = 0; i < 256; i++)
		s->counts[i] = 0;
}

static enum status find_limit(struct cuda *c, struct selection *s, const struct tensor &weight, const struct tensor &factor,
			      int64_t zeros)
{
	int64_t blocks = index_ceil_div(weight.rows * weight.cols, 256 * 8), most = 4 * (int64_t)c->processors;
	TRY(LAUNCH(c, begin_kernel, dim3(1), dim3(1), 0, s, zeros));
	for (int shift = 56; shift >= 0; shift -= 8) {
		TRY(LAUNCH(c, count_kernel, dim3((unsigned)(blocks < most ? blocks : most)), dim3(256), 0, s, view_of(weight),
			   view_of(factor), weight.rows, (int)weight.cols, shift));
		TRY(LAUNCH(c, choose_kernel, dim3(1), dim3(1), 0, s, shift));
	}
	return STATUS_OK;
}

/* ---- the sweep: a warp a row ------------------------------------------------------------------------------------------------------ */

enum { SWEEP_WARPS = 4 };

/* Marks the of − keep weights of the group at `first` with the smallest scores; a lane a weight. */
static __device__ __forceinline__ void choose_group(uint8_t *gone, const float *w, const view &factor, int first, int keep, int of)
{
	int lane = (int)threadIdx.x % 32, before = 0;
	uint32_t mine = 0;
	if (lane < of) {
		float u[1];
		load<1>(factor, first + lane, first + lane, u);
		mine = score_of(w[first + lane], u[0]);
	}
	for (int i = 0; i < of; i++) {
		uint32_t other = __shfl_sync(0xffffffffu, mine, i);
		before += other < mine || (other == mine && i < lane);
	}
	if (lane < of) gone[first + lane] = before < of - keep;
	__syncwarp();
}

/* s is NULL where there is a pattern, or where nothing goes. */
__global__ void __launch_bounds__(32 * SWEEP_WARPS)
	sweep_kernel(view weight, view negated_error, view factor, const selection *s, int keep, int of, int64_t rows, int cols)
{
	__shared__ float all[SWEEP_WARPS][PRUNE_COLUMNS];
	__shared__ uint8_t marks[SWEEP_WARPS][PRUNE_COLUMNS];
	int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
	int64_t row = (int64_t)blockIdx.x * SWEEP_WARPS + warp;
	if (row >= rows) return;
	float *w = all[warp];
	uint8_t *gone = marks[warp];
	for (int col = lane; col < cols; col += 32) {
		float value[1];
		load<1>(weight, row, col, value);
		gone[col] = s && key_of(weight, factor, row, col, cols) <= s->limit;
		w[col] = value[0];
	}
	__syncwarp();
	for (int j = 0; j < cols; j++) {
		if (of && j % of == 0) choose_group(gone, w, factor, j, keep, of);
		float error = 0;
		if (gone[j]) {
			float u[1];
			load<1>(factor, j, j, u);
			error = w[j] / u[0];
			for (int col = lane; col < cols; col += 32) {
				if (col <= j) continue;
				load<1>(factor, j, col, u);
				w[col] -= error * u[0];
			}
		}
		__syncwarp();
		if (lane == j % 32) {
			const float minus[1] = {-error};
			if (gone[j]) w[j] = 0;
			store<1>(negated_error, row, j, minus);
		}
		__syncwarp();
	}
	for (int col = lane; col < cols; col += 32) {
		const float value[1] = {w[col]};
		store<1>(weight, row, col, value);
	}
}

static enum status prune_columns(struct backend *backend, struct tensor weight, struct tensor negated_error, struct tensor factor,
				 int64_t zeros, const struct pattern *pattern)
{
	struct cuda *c = cuda_begin(backend, "prune_columns", {weight, negated_error, factor});
	struct scratch state(c);
	struct selection *s = nullptr;
	if (weight.rows == 0 || weight.cols == 0) return STATUS_OK;
	if (!pattern->of && zeros > 0) {
		TRY(state.allocate(sizeof *s));
		s = state.as<struct selection>();
		TRY(find_limit(c, s, weight, factor, zeros));
	}
	return LAUNCH(c, sweep_kernel, dim3((unsigned)index_ceil_div(weight.rows, SWEEP_WARPS)), dim3(32 * SWEEP_WARPS), 0,
		      view_of(weight), view_of(negated_error), view_of(factor), s, pattern->keep, pattern->of, weight.rows,
		      (int)weight.cols);
}

void cuda_compensate_operations(struct backend_ops *ops)
{
	ops->invert_factor = invert_factor;
	ops->prune_columns = prune_columns;
}
