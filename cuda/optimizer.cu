/* Prodigy and AdamW over contiguous parameters. Prodigy's step size needs two sums over all of them: one pass updates the
 * moments and sums per block in a fixed order, one block adds these and decides the step, a second pass moves θ. */
#include "cuda/launch.cuh"

#include <initializer_list>
#include <math.h>

enum { BLOCK = 256, MOST_BLOCKS = 1024 };

/* What the step kernel leaves for the last pass. */
enum { MOVE_STEP, MOVE_EPS, MOVE_SIZE };

/* Elements 4·(i + j·stride) … + 3 by 16-byte accesses, of the first `fours` elements; the others, one by one. */
template <typename F> static __device__ __forceinline__ void for_each_four(int64_t n, int64_t fours, F f)
{
	int64_t thread = (int64_t)blockIdx.x * BLOCK + threadIdx.x, threads = (int64_t)gridDim.x * BLOCK;
	for (int64_t i = thread; i < fours / 4; i += threads)
		f(4 * i, std::integral_constant<int, 4>());
	for (int64_t i = fours + thread; i < n; i += threads)
		f(i, std::integral_constant<int, 1>());
}

/* How many elements go by fours: none where an array begins in between, as that of a later part of a block does. */
static int64_t fours_of(int64_t n, std::initializer_list<const void *> arrays)
{
	for (const void *p : arrays)
		if ((uintptr_t)p % sizeof(float4) != 0) return 0;
	return n / 4 * 4;
}

template <int N> static __device__ __forceinline__ void read(const float *p, int64_t i, float (&x)[4])
{
	if constexpr (N == 4) {
		float4 v = *(const float4 *)(p + i);
		x[0] = v.x;
		x[1] = v.y;
		x[2] = v.z;
		x[3] = v.w;
	} else {
		x[0] = p[i];
	}
}

template <int N> static __device__ __forceinline__ void write(float *p, int64_t i, const float (&x)[4])
{
	if constexpr (N == 4)
		*(float4 *)(p + i) = make_float4(x[0], x[1], x[2], x[3]);
	else
		p[i] = x[0];
}

/* partial [2, blocks]: Σ g·(θ₀ − θ) and Σ |s|. */
__global__ void __launch_bounds__(BLOCK)
	prodigy_moments_kernel(double *partial, const double *state, float beta1, float beta2, int64_t n, int64_t fours,
			       const float *theta, const float *theta0, float *m, float *v, float *s, const float *gradient)
{
	double d = state[PRODIGY_D], d0 = state[PRODIGY_D0], dot = 0, sum = 0;
	float beta3 = (float)sqrt((double)beta2), by_g = (float)(d * (1 - (double)beta1));
	float by_g2 = (float)(d * d * (1 - (double)beta2)), into_s = (float)(d / d0 * d);
	for_each_four(n, fours, [&](int64_t i, auto size) {
		constexpr int N = decltype(size)::value;
		float g[4], p[4], p0[4], m4[4], v4[4], s4[4];
		read<N>(gradient, i, g);
		read<N>(theta, i, p);
		read<N>(theta0, i, p0);
		read<N>(m, i, m4);
		read<N>(v, i, v4);
		read<N>(s, i, s4);
#pragma unroll
		for (int j = 0; j < N; j++) {
			dot += (double)g[j] * ((double)p0[j] - (double)p[j]);
			m4[j] = beta1 * m4[j] + by_g * g[j];
			v4[j] = beta2 * v4[j] + by_g2 * g[j] * g[j];
			s4[j] = beta3 * s4[j] + into_s * g[j];
			sum += (double)fabsf(s4[j]);
		}
		write<N>(m, i, m4);
		write<N>(v, i, v4);
		write<N>(s, i, s4);
	});
	dot = block_reduce(dot, plus());
	sum = block_reduce(sum, plus());
	if (threadIdx.x > 0) return;
	partial[blockIdx.x] = dot;
	partial[gridDim.x + blockIdx.x] = sum;
}

__global__ void __launch_bounds__(BLOCK)
	prodigy_state_kernel(double *state, float *move, const double *partial, int blocks, float beta2, float eps, double d_coef)
{
	double dot = 0, sum = 0, d = state[PRODIGY_D], d0 = state[PRODIGY_D0];
	for (int i = (int)threadIdx.x; i < blocks; i += BLOCK) {
		dot += partial[i];
		sum += partial[blocks + i];
	}
	dot = block_reduce(dot, plus());
	sum = block_reduce(sum, plus());
	if (threadIdx.x > 0) return;
	move[MOVE_STEP] = move[MOVE_EPS] = 0;
	if (sum == 0) return;
	double r = sqrt((double)beta2) * state[PRODIGY_R] + d / d0 * d * dot, estimate = d_coef * r / sum;
	double d_max = estimate > state[PRODIGY_D_MAX] ? estimate : state[PRODIGY_D_MAX];
	state[PRODIGY_R] = r;
	state[PRODIGY_D] = state[PRODIGY_D_MAX] = d_max;
	move[MOVE_STEP] = (float)d;
	move[MOVE_EPS] = (float)(d_max * (double)eps);
}

__global__ void __launch_bounds__(BLOCK)
	prodigy_move_kernel(const float *move, int64_t n, int64_t fours, float *theta, const float *m, const float *v)
{
	float step = move[MOVE_STEP], eps = move[MOVE_EPS];
	if (step == 0) return;
	for_each_four(n, fours, [&](int64_t i, auto size) {
		constexpr int N = decltype(size)::value;
		float p[4], m4[4], v4[4];
		read<N>(theta, i, p);
		read<N>(m, i, m4);
		read<N>(v, i, v4);
#pragma unroll
		for (int j = 0; j < N; j++)
			p[j] -= step * m4[j] / (sqrtf(v4[j]) + eps);
		write<N>(theta, i, p);
	});
}

struct adamw_factors {
	float beta1, beta2, rest1, rest2, step, inverse_root, keep, eps;
	bool keep_zeros;
};

/* Chunks of N columns, counted through row by row. */
template <int N>
__global__ void __launch_bounds__(BLOCK)
	adamw_kernel(struct adamw_factors a, view theta, view m, view v, view gradient, view copy, int64_t rows, int64_t cols)
{
	int64_t across = cols / N, threads = (int64_t)gridDim.x * BLOCK;
	for (int64_t i = (int64_t)blockIdx.x * BLOCK + threadIdx.x; i < rows * across; i += threads) {
		int64_t row = i / across, col = i % across * N;
		float g[N], p[N], m4[N], v4[N];
		load<N>(gradient, row, col, g);
		load<N>(theta, row, col, p);
		load<N>(m, row, col, m4);
		load<N>(v, row, col, v4);
#pragma unroll
		for (int j = 0; j < N; j++) {
			if (a.keep_zeros && p[j] == 0) continue;
			m4[j] = a.beta1 * m4[j] + a.rest1 * g[j];
			v4[j] = a.beta2 * v4[j] + a.rest2 * g[j] * g[j];
			p[j] = a.keep * p[j] - a.step * m4[j] / (sqrtf(v4[j]) * a.inverse_root + a.eps);
		}
		store<N>(theta, row, col, p);
		store<N>(m, row, col, m4);
		store<N>(v, row, col, v4);
		if (copy.data) store<N>(copy, row, col, p);
	}
}

static int blocks_for(int64_t n)
{
	return (int)index_max(1, index_min(MOST_BLOCKS, index_ceil_div(n, 4 * BLOCK)));
}

static enum status prodigy_step(struct backend *backend, const struct prodigy *prodigy, int64_t n, void *theta, const void *theta0,
				void *m, void *v, void *s, const void *gradient, void *state)
{
	struct cuda *c = cuda_begin(backend, "prodigy_step", {});
	int blocks = blocks_for(n);
	int64_t fours = fours_of(n, {theta, theta0, m, v, s, gradient});
	struct scratch partial(c), move(c);
	TRY(partial.allocate(2 * (size_t)blocks * sizeof(double)));
	TRY(move.allocate(MOVE_SIZE * sizeof(float)));
	TRY(LAUNCH(c, prodigy_moments_kernel, dim3((unsigned)blocks), dim3(BLOCK), 0, partial.as<double>(), (const double *)state,
		   prodigy->beta1, prodigy->beta2, n, fours, (const float *)theta, (const float *)theta0, (float *)m, (float *)v,
		   (float *)s, (const float *)gradient));
	TRY(LAUNCH(c, prodigy_state_kernel, dim3(1), dim3(BLOCK), 0, (double *)state, move.as<float>(), partial.as<double>(),
		   blocks, prodigy->beta2, prodigy->eps, prodigy->d_coef));
	return LAUNCH(c, prodigy_move_kernel, dim3((unsigned)blocks), dim3(BLOCK), 0, move.as<float>(), n, fours, (float *)theta,
		      (const float *)m, (const float *)v);
}

struct adamw_tensors {
	struct tensor theta, m, v, gradient, copy;
};

static enum status adamw_launch(struct cuda *c, const struct adamw_factors &factors, const struct adamw_tensors &t)
{
	int64_t rows = t.theta.rows, cols = t.theta.cols;
	if (rows == 0 || cols == 0) return STATUS_OK;
	if (cuda_chunked({t.theta, t.m, t.v, t.gradient, t.copy}))
		return LAUNCH(c, adamw_kernel<8>, dim3((unsigned)blocks_for(rows * cols)), dim3(BLOCK), 0, factors,
			      view_of(t.theta), view_of(t.m), view_of(t.v), view_of(t.gradient), view_of(t.copy), rows, cols);
	return LAUNCH(c, adamw_kernel<1>, dim3((unsigned)blocks_for(rows * cols)), dim3(BLOCK), 0, factors, view_of(t.theta),
		      view_of(t.m), view_of(t.v), view_of(t.gradient), view_of(t.copy), rows, cols);
}

static struct adamw_tensors columns(struct adamw_tensors t, int64_t first, int64_t count)
{
	for (struct tensor *part : {&t.theta, &t.m, &t.v, &t.gradient, &t.copy})
		if (part->data) *part = tensor_cols(*part, first, count);
	return t;
}

/* What 8 divides, by chunks, and the rest: of one long row without that, all would go one by one. */
static enum status adamw_step(struct backend *backend, const struct adamw *adamw, struct tensor theta, struct tensor m,
			      struct tensor v, struct tensor gradient, struct tensor copy)
{
	struct cuda *c = cuda_begin(backend, "adamw_step", {theta, m, v, gradient, copy});
	double correction1 = 1 - pow((double)adamw->beta1, adamw->step), correction2 = 1 - pow((double)adamw->beta2, adamw->step);
	struct adamw_factors factors = {adamw->beta1,
					adamw->beta2,
					1 - adamw->beta1,
					1 - adamw->beta2,
					(float)((double)adamw->lr / correction1),
					(float)(1 / sqrt(correction2)),
					(float)(1 - (double)adamw->lr * (double)adamw->weight_decay),
					adamw->eps,
					adamw->keep_zeros};
	struct adamw_tensors all = {theta, m, v, gradient, copy};
	int64_t even = theta.cols / 8 * 8;
	TRY(adamw_launch(c, factors, columns(all, 0, even)));
	return adamw_launch(c, factors, columns(all, even, theta.cols - even));
}

void cuda_optimizer_operations(struct backend_ops *ops)
{
	ops->prodigy_step = prodigy_step;
	ops->adamw_step = adamw_step;
}
