/* Pruning with compensation: what SparseGPT takes beside products (arXiv 2301.00774, Algorithm 1). */
#include "cuda/memory.h"
#include "cuda/select.cuh"

/* ---- the inverse of a factor: one block, a thread a column ------------------------------------------------------------------- */

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

/* ---- what goes --------------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t score_of(float weight, float diagonal)
{
	float error = __fdiv_rn(weight, diagonal);
	return __float_as_uint(__fmul_rn(error, error));
}

struct column_keys {
	view weight, factor;
	int64_t n;
	int cols;

	__device__ __forceinline__ uint64_t at(int64_t row, int col) const
	{
		float w[1], u[1];
		load<1>(weight, row, col, w);
		load<1>(factor, col, col, u);
		return select_key(score_of(w[0], u[0]), row * cols + col);
	}
	__device__ __forceinline__ uint64_t operator()(int64_t i) const
	{
		return at(i / cols, (int)(i % cols));
	}
};

/* ---- the sweep: a warp a row ------------------------------------------------------------------------------------------------- */

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
	sweep_kernel(column_keys keys, view negated_error, const selection *s, int keep, int of, int64_t rows)
{
	__shared__ float all[SWEEP_WARPS][PRUNE_COLUMNS];
	__shared__ uint8_t marks[SWEEP_WARPS][PRUNE_COLUMNS];
	int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
	int64_t row = (int64_t)blockIdx.x * SWEEP_WARPS + warp;
	const view &weight = keys.weight, &factor = keys.factor;
	int cols = keys.cols;
	if (row >= rows) return;
	float *w = all[warp];
	uint8_t *gone = marks[warp];
	for (int col = lane; col < cols; col += 32) {
		float value[1];
		load<1>(weight, row, col, value);
		gone[col] = s && keys.at(row, col) <= s->limit;
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
	const column_keys keys = {view_of(weight), view_of(factor), weight.rows * weight.cols, (int)weight.cols};
	if (weight.rows == 0 || weight.cols == 0) return STATUS_OK;
	if (!pattern->of && zeros > 0) {
		TRY(state.allocate(sizeof *s));
		s = state.as<struct selection>();
		TRY(select_limit(c, s, keys, zeros));
	}
	return LAUNCH(c, sweep_kernel, dim3((unsigned)index_ceil_div(weight.rows, SWEEP_WARPS)), dim3(32 * SWEEP_WARPS), 0, keys,
		      view_of(negated_error), s, pattern->keep, pattern->of, weight.rows);
}

void cuda_compensate_operations(struct backend_ops *ops)
{
	ops->invert_factor = invert_factor;
	ops->prune_columns = prune_columns;
}
