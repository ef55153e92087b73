/* Pruning by ADMM, and conjugate gradients on what is kept (arXiv 2401.02938). */
#include "cuda/memory.h"
#include "cuda/select.cuh"

/* ---- element by element ------------------------------------------------------------------------------------------------------ */

template <int N>
__global__ void __launch_bounds__(256) scale_kernel(view y, view x, const float *by_row, const float *by_col, float factor,
						    bool accumulate, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
	float by = by_row ? factor * by_row[row] : factor;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(i);
		float from[N], to[N] = {};
		if (col >= cols) return;
		load<N>(x, row, col, from);
		if (accumulate) load<N>(y, row, col, to);
#pragma unroll
		for (int j = 0; j < N; j++)
			to[j] += by * from[j] * (by_col ? by_col[col + j] : 1);
		store<N>(y, row, col, to);
	}
}

static enum status scale(struct backend *backend, struct tensor y, struct tensor x, const void *rows, const void *cols,
			 float factor, bool accumulate)
{
	struct cuda *c = cuda_begin(backend, "scale", {y, x});
	if (y.rows == 0 || y.cols == 0) return STATUS_OK;
	if (cuda_chunked({y, x}))
		return LAUNCH(c, scale_kernel<8>, elementwise_grid(y.rows, y.cols, 8), elementwise_block(), 0, view_of(y),
			      view_of(x), (const float *)rows, (const float *)cols, factor, accumulate, y.rows, y.cols);
	return LAUNCH(c, scale_kernel<1>, elementwise_grid(y.rows, y.cols, 1), elementwise_block(), 0, view_of(y), view_of(x),
		      (const float *)rows, (const float *)cols, factor, accumulate, y.rows, y.cols);
}

template <int N> __global__ void __launch_bounds__(256) keep_kernel(view out, view weight, view support, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(i);
		float value[N], kept[N];
		if (col >= cols) return;
		load<N>(weight, row, col, value);
		load<N>(support, row, col, kept);
#pragma unroll
		for (int j = 0; j < N; j++)
			if (kept[j] == 0) value[j] = 0;
		store<N>(out, row, col, value);
	}
}

static enum status keep_where(struct backend *backend, struct tensor out, struct tensor weight, struct tensor support)
{
	struct cuda *c = cuda_begin(backend, "keep_where", {out, weight, support});
	if (out.rows == 0 || out.cols == 0) return STATUS_OK;
	if (cuda_chunked({out, weight, support}))
		return LAUNCH(c, keep_kernel<8>, elementwise_grid(out.rows, out.cols, 8), elementwise_block(), 0, view_of(out),
			      view_of(weight), view_of(support), out.rows, out.cols);
	return LAUNCH(c, keep_kernel<1>, elementwise_grid(out.rows, out.cols, 1), elementwise_block(), 0, view_of(out),
		      view_of(weight), view_of(support), out.rows, out.cols);
}

/* ---- the projection: v into w, its scores into u; the last that goes; then all outputs --------------------------------------- */

/* How many of each row go: a cut on the device. */
struct row_cut {
	const int32_t *row_zeros; /* NULL for `zeros` */
	int64_t zeros, most;      /* of them may go */

	__device__ __forceinline__ int64_t of(int64_t row) const
	{
		int64_t wanted = row_zeros ? row_zeros[row] : zeros;
		return index_max(0, index_min(wanted, most));
	}
};

struct score_keys {
	const uint32_t *scores;
	int64_t stride, n;
	int cols;

	__device__ __forceinline__ uint64_t at(int64_t row, int64_t col) const
	{
		return select_key(scores[row * stride + col], row * cols + col);
	}
	__device__ __forceinline__ uint64_t operator()(int64_t i) const
	{
		return at(i / cols, i % cols);
	}
};

static struct score_keys keys_of(const struct tensor &u)
{
	return {(const uint32_t *)u.data, u.stride, u.rows * u.cols, (int)u.cols};
}

/* A thread a group of `of`, 1 where there is no pattern; the score of what a pattern keeps is above all others. */
__global__ void __launch_bounds__(SELECT_THREADS) score_kernel(view w, view u, int keep, int of, int64_t cols)
{
	int64_t row = blockIdx.x, group = (int64_t)blockIdx.y * SELECT_THREADS + threadIdx.x, first = group * of;
	uint32_t scores[PATTERN_MOST], *to = (uint32_t *)u.data + row * u.stride + first;
	if (first >= cols) return;
	for (int i = 0; i < of; i++) {
		float a[1], b[1];
		load<1>(w, row, first + i, a);
		load<1>(u, row, first + i, b);
		const float v[1] = {a[0] + b[0]};
		store<1>(w, row, first + i, v);
		scores[i] = __float_as_uint(v[0]) & 0x7fffffffu;
	}
	for (int i = 0; i < of; i++) {
		int before = 0;
		for (int k = 0; k < of; k++)
			before += scores[k] < scores[i] || (scores[k] == scores[i] && k < i);
		to[i] = before < of - keep ? scores[i] : 0xffffffffu;
	}
}

/* The last that goes of each row, a block a row; meaningless where none does. */
__global__ void __launch_bounds__(SELECT_THREADS) row_limit_kernel(uint64_t *limits, score_keys keys, row_cut cut)
{
	__shared__ uint32_t counts[SELECT_DIGITS];
	__shared__ uint64_t limit;
	__shared__ int64_t left;
	__shared__ int done;
	int64_t row = blockIdx.x;
	if (threadIdx.x == 0) {
		limit = 0;
		left = cut.of(row);
		done = left == 0;
	}
	for (int shift = 56; shift >= 0; shift -= 8) {
		counts[threadIdx.x] = 0;
		__syncthreads();
		if (done) break;
		for (int64_t col = threadIdx.x; col < keys.cols; col += SELECT_THREADS) {
			uint64_t key = keys.at(row, col);
			if (select_begins(key, limit, shift)) atomicAdd(&counts[key >> shift & (SELECT_DIGITS - 1)], 1u);
		}
		__syncthreads();
		if (threadIdx.x == 0) select_digit(&limit, &left, &done, counts, shift);
		__syncthreads();
	}
	if (threadIdx.x == 0) limits[row] = limit;
}

/* limits: [1], or [R] where `by_row` is set. */
__global__ void __launch_bounds__(256) project_kernel(view w, view u, view rhs, view b, float rho, score_keys keys,
						      const uint64_t *limits, row_cut cut, bool by_row, int64_t rows)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
	bool some = by_row ? cut.of(row) > 0 : cut.zeros > 0;
	uint64_t limit = some ? limits[by_row ? row : 0] : 0;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<1>(i);
		float v[1], term[1];
		if (col >= keys.cols) return;
		bool gone = some && keys.at(row, col) <= limit;
		load<1>(w, row, col, v);
		load<1>(b, row, col, term);
		const float kept[1] = {gone ? 0 : v[0]}, lost[1] = {gone ? v[0] : 0};
		const float sum[1] = {term[0] + rho * (gone ? -v[0] : v[0])};
		store<1>(w, row, col, kept);
		store<1>(u, row, col, lost);
		store<1>(rhs, row, col, sum);
	}
}

static enum status find_limits(struct cuda *c, struct scratch *state, const struct score_keys &keys, const struct row_cut &cut,
			       bool by_row, int64_t rows)
{
	TRY(state->allocate(by_row ? (size_t)rows * sizeof(uint64_t) : sizeof(struct selection)));
	if (by_row)
		return LAUNCH(c, row_limit_kernel, dim3((unsigned)rows), dim3(SELECT_THREADS), 0, state->as<uint64_t>(), keys, cut);
	return cut.zeros > 0 ? select_limit(c, state->as<struct selection>(), keys, cut.zeros) : STATUS_OK;
}

static enum status project(struct backend *backend, struct tensor w, struct tensor u, struct tensor rhs, struct tensor b, float rho,
			   const struct cut *cut)
{
	struct cuda *c = cuda_begin(backend, "project", {w, u, rhs, b});
	struct scratch state(c);
	int of = cut->pattern.of ? cut->pattern.of : 1, keep = cut->pattern.of ? cut->pattern.keep : 0;
	bool by_row = cut->row_zeros || cut->pattern.of;
	struct row_cut counts = {(const int32_t *)cut->row_zeros, cut->zeros, w.cols / of * (of - keep)};
	struct score_keys keys = keys_of(u);
	if (w.rows == 0 || w.cols == 0) return STATUS_OK;
	dim3 grid((unsigned)w.rows, (unsigned)index_ceil_div(w.cols / of, SELECT_THREADS));
	TRY(LAUNCH(c, score_kernel, grid, dim3(SELECT_THREADS), 0, view_of(w), view_of(u), keep, of, w.cols));
	TRY(find_limits(c, &state, keys, counts, by_row, w.rows));
	static_assert(offsetof(struct selection, limit) == 0, "a selection is read as its limit");
	return LAUNCH(c, project_kernel, elementwise_grid(w.rows, w.cols, 1), elementwise_block(), 0, view_of(w), view_of(u),
		      view_of(rhs), view_of(b), rho, keys, state.as<uint64_t>(), counts, by_row, w.rows);
}

/* ---- conjugate gradients: a block a row -------------------------------------------------------------------------------------- */

enum { ROW_THREADS = 256 };

static __device__ __forceinline__ float element(const view &v, int64_t row, int64_t col)
{
	return ((const float *)v.data)[row * v.stride + col];
}

static __device__ __forceinline__ float *place(const view &v, int64_t row, int64_t col)
{
	return (float *)v.data + row * v.stride + col;
}

__global__ void __launch_bounds__(ROW_THREADS) start_kernel(view r, view p, float *energy, view target, view product, view support,
							    const float *diagonal, float lambda, int64_t cols)
{
	int64_t row = blockIdx.x;
	float sum = 0;
	for (int64_t col = threadIdx.x; col < cols; col += ROW_THREADS) {
		float left = element(support, row, col) != 0 ? element(target, row, col) - element(product, row, col) : 0;
		float z = left / (diagonal[col] + lambda);
		*place(r, row, col) = left;
		*place(p, row, col) = z;
		sum += left * z;
	}
	sum = block_reduce(sum, plus());
	if (threadIdx.x == 0) energy[row] = sum;
}

__global__ void __launch_bounds__(ROW_THREADS) step_kernel(view x, view r, view p, float *energy, view product, view support,
							   const float *diagonal, float lambda, int64_t cols)
{
	const float least_divisor = 1e-30f;
	int64_t row = blockIdx.x;
	float dot = 0, sum = 0, before = energy[row];
	for (int64_t col = threadIdx.x; col < cols; col += ROW_THREADS) {
		float direction = element(p, row, col); /* 0 beside the support */
		dot += direction * (element(product, row, col) + lambda * direction);
	}
	float alpha = before / fmaxf(block_reduce(dot, plus()), least_divisor);
	for (int64_t col = threadIdx.x; col < cols; col += ROW_THREADS) {
		float direction = element(p, row, col);
		float a = element(support, row, col) != 0 ? element(product, row, col) + lambda * direction : 0;
		float left = element(r, row, col) - alpha * a;
		*place(x, row, col) += alpha * direction;
		*place(r, row, col) = left;
		sum += left * left / (diagonal[col] + lambda);
	}
	sum = block_reduce(sum, plus());
	if (threadIdx.x == 0) energy[row] = sum;
	float beta = sum / fmaxf(before, least_divisor);
	for (int64_t col = threadIdx.x; col < cols; col += ROW_THREADS)
		*place(p, row, col) = element(r, row, col) / (diagonal[col] + lambda) + beta * element(p, row, col);
}

static enum status conjugate_start(struct backend *backend, struct tensor r, struct tensor p, void *energy, struct tensor target,
				   struct tensor product, struct tensor support, struct tensor diagonal, float lambda)
{
	struct cuda *c = cuda_begin(backend, "conjugate_start", {r, p, target, product, support, diagonal});
	if (r.rows == 0) return STATUS_OK;
	return LAUNCH(c, start_kernel, dim3((unsigned)r.rows), dim3(ROW_THREADS), 0, view_of(r), view_of(p), (float *)energy,
		      view_of(target), view_of(product), view_of(support), (const float *)diagonal.data, lambda, r.cols);
}

static enum status conjugate_step(struct backend *backend, struct tensor x, struct tensor r, struct tensor p, void *energy,
				  struct tensor product, struct tensor support, struct tensor diagonal, float lambda)
{
	struct cuda *c = cuda_begin(backend, "conjugate_step", {x, r, p, product, support, diagonal});
	if (x.rows == 0) return STATUS_OK;
	return LAUNCH(c, step_kernel, dim3((unsigned)x.rows), dim3(ROW_THREADS), 0, view_of(x), view_of(r), view_of(p),
		      (float *)energy, view_of(product), view_of(support), (const float *)diagonal.data, lambda, x.cols);
}

void cuda_solve_operations(struct backend_ops *ops)
{
	ops->scale = scale;
	ops->project = project;
	ops->keep_where = keep_where;
	ops->conjugate_start = conjugate_start;
	ops->conjugate_step = conjugate_step;
}
