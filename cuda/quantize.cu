/* Weights on a grid, and the gradient of what sets it (besa.md section 3): a warp a group. */
#include "cuda/launch.cuh"

enum { GROUP_WARPS = 8, GROUP_THREADS = 32 * GROUP_WARPS };

/* A grid as a kernel sees it: the range of its codes, and the steps that the whole range is cut into; symmetric: half of it. */
struct codes {
	float low, high, parts;
	bool symmetric;
	int step;
	int64_t group, groups; /* weights of each; of a row */

	explicit codes(const struct grid *grid, int64_t count)
	    : symmetric(grid->symmetric), step(grid->step), group(grid->group), groups(count)
	{
		float all = (float)(1 << grid->bits);
		low = symmetric ? -all / 2 : 0;
		high = symmetric ? all / 2 - 1 : all - 1;
		parts = symmetric ? (all - 1) / 2 : all - 1;
	}
};

static __device__ __forceinline__ float element(const view &v, int64_t row, int64_t col)
{
	float x[1];
	load<1>(v, row, col, x);
	return x[0];
}

static __device__ __forceinline__ void put(const view &v, int64_t row, int64_t col, float value)
{
	const float x[1] = {value};
	store<1>(v, row, col, x);
}

/* The largest of a group's weights and 0, and that of their negatives. */
static __device__ __forceinline__ void find_span(const view &weight, const codes &c, int64_t row, int64_t col, float *ret_most,
						 float *ret_negative)
{
	float most = 0, negative = 0;
	for (int64_t i = threadIdx.x % 32; i < c.group; i += 32) {
		float w = element(weight, row, col + i);
		most = fmaxf(most, w);
		negative = fmaxf(negative, -w);
	}
	*ret_most = warp_reduce(most, greater_of());
	*ret_negative = warp_reduce(negative, greater_of());
}

/* γ or δ. */
static __device__ __forceinline__ float strength_at(const view &strength, int64_t row, int64_t group)
{
	return strength.data ? 1 / (1 + expf(-element(strength, row, group))) : 1;
}

static __device__ __forceinline__ float round_step(float h, int type)
{
	float rounded = type == DTYPE_BF16 ? to_float(from_float<bf16>(h)) : type == DTYPE_F16 ? to_float(from_float<f16>(h)) : h;
	return rounded > 0 ? rounded : 1;
}

static __device__ __forceinline__ float nearest(float w, const codes &c, float h, float z)
{
	float code = rintf(__fdiv_rn(w, h)) + z;
	return (fminf(fmaxf(code, c.low), c.high) - z) * h;
}

__global__ void __launch_bounds__(GROUP_THREADS)
	quantize_kernel(view out, view steps, view zeros, view weight, view strength, codes c, int64_t count)
{
	int64_t index = (int64_t)blockIdx.x * GROUP_WARPS + threadIdx.x / 32;
	if (index >= count) return;
	int64_t row = index / c.groups, group = index % c.groups, col = group * c.group;
	float most, negative, gamma = strength_at(strength, row, group), h, z = 0;
	find_span(weight, c, row, col, &most, &negative);
	if (c.symmetric) {
		h = round_step(__fdiv_rn(gamma * fmaxf(most, negative), c.parts), c.step);
	} else {
		float kept = strength_at(strength, row, c.groups + group) * negative;
		h = round_step(__fdiv_rn(gamma * most + kept, c.parts), c.step);
		z = fminf(rintf(__fdiv_rn(kept, h)), c.high);
	}
	if (threadIdx.x % 32 == 0) {
		put(steps, row, group, h);
		put(zeros, row, group, z);
	}
	for (int64_t i = threadIdx.x % 32; i < c.group; i += 32) {
		put(out, row, col + i, nearest(element(weight, row, col + i), c, h, z));
	}
}

/* With compensation: a warp a row, each lane every 32nd of its columns. */
enum { SWEEP_WARPS = 4 };

__global__ void __launch_bounds__(32 * SWEEP_WARPS) columns_kernel(view weight, view negated_error, view support, view factor,
								   view steps, view zeros, codes c, int64_t rows, int cols)
{
	__shared__ float all[SWEEP_WARPS][PRUNE_COLUMNS];
	int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
	int64_t row = (int64_t)blockIdx.x * SWEEP_WARPS + warp;
	if (row >= rows) return;
	float *w = all[warp];
	for (int col = lane; col < cols; col += 32)
		w[col] = element(weight, row, col);
	__syncwarp();
	for (int j = 0; j < cols; j++) {
		float h = element(steps, row, j / c.group), z = element(zeros, row, j / c.group);
		float to = element(support, row, j) != 0 ? nearest(w[j], c, h, z) : 0;
		float error = __fdiv_rn(w[j] - to, element(factor, j, j));
		for (int col = lane; col < cols; col += 32)
			if (col > j) w[col] -= error * element(factor, j, col);
		if (lane == j % 32) {
			put(negated_error, row, j, -error);
			put(weight, row, j, to);
		}
		__syncwarp();
	}
}

/* As in engine/compute/cpu/isa/quantize.c. */
__global__ void __launch_bounds__(GROUP_THREADS)
	backward_kernel(view dstrength, view g, view weight, view steps, view zeros, view strength, codes c, int64_t count)
{
	int64_t index = (int64_t)blockIdx.x * GROUP_WARPS + threadIdx.x / 32;
	if (index >= count) return;
	int64_t row = index / c.groups, group = index % c.groups, col = group * c.group;
	float most, negative, h = element(steps, row, group), z = element(zeros, row, group), inside = 0, top = 0, bottom = 0;
	find_span(weight, c, row, col, &most, &negative);
	for (int64_t i = threadIdx.x % 32; i < c.group; i += 32) {
		float u = __fdiv_rn(element(weight, row, col + i), h), whole = rintf(u), by = element(g, row, col + i);
		if (whole + z > c.high)
			top += by;
		else if (whole + z < c.low)
			bottom += by;
		else
			inside += by * (whole - u);
	}
	inside = warp_reduce(inside, plus());
	top = warp_reduce(top, plus());
	bottom = warp_reduce(bottom, plus());
	if (threadIdx.x % 32) return;
	float gamma = strength_at(strength, row, group), by_gamma = gamma * (1 - gamma);
	if (c.symmetric) {
		float by_step = inside + c.high * top + c.low * bottom;
		put(dstrength, row, group, by_step * fmaxf(most, negative) / c.parts * by_gamma);
		return;
	}
	float delta = strength_at(strength, row, c.groups + group), by_delta = delta * (1 - delta);
	float rounded = z - delta * negative / h, by_step = inside - rounded * (top + bottom);
	put(dstrength, row, group, (by_step * most / c.parts + most * top) * by_gamma);
	put(dstrength, row, c.groups + group, (by_step * negative / c.parts - negative * bottom) * by_delta);
}

static dim3 groups_grid(int64_t count)
{
	return dim3((unsigned)index_ceil_div(count, GROUP_WARPS));
}

static enum status quantize(struct backend *backend, const struct grid *grid, struct tensor out, struct tensor steps,
			    struct tensor zeros, struct tensor weight, struct tensor strength)
{
	struct cuda *c = cuda_begin(backend, "quantize", {out, steps, zeros, weight, strength});
	int64_t count = steps.rows * steps.cols;
	if (!count) return STATUS_OK;
	return LAUNCH(c, quantize_kernel, groups_grid(count), dim3(GROUP_THREADS), 0, view_of(out), view_of(steps), view_of(zeros),
		      view_of(weight), view_of(strength), codes(grid, steps.cols), count);
}

static enum status quantize_columns(struct backend *backend, const struct grid *grid, struct tensor weight,
				    struct tensor negated_error, struct tensor support, struct tensor factor, struct tensor steps,
				    struct tensor zeros)
{
	struct cuda *c = cuda_begin(backend, "quantize_columns", {weight, negated_error, support, factor, steps, zeros});
	if (weight.rows == 0 || weight.cols == 0) return STATUS_OK;
	const struct grid here = {grid->bits, grid->symmetric, weight.cols / steps.cols, grid->step};
	return LAUNCH(c, columns_kernel, dim3((unsigned)index_ceil_div(weight.rows, SWEEP_WARPS)), dim3(32 * SWEEP_WARPS), 0,
		      view_of(weight), view_of(negated_error), view_of(support), view_of(factor), view_of(steps), view_of(zeros),
		      codes(&here, steps.cols), weight.rows, (int)weight.cols);
}

static enum status quantize_backward(struct backend *backend, const struct grid *grid, struct tensor dstrength, struct tensor g,
				     struct tensor weight, struct tensor steps, struct tensor zeros, struct tensor strength)
{
	struct cuda *c = cuda_begin(backend, "quantize_backward", {dstrength, g, weight, steps, zeros, strength});
	int64_t count = steps.rows * steps.cols;
	if (!count) return STATUS_OK;
	return LAUNCH(c, backward_kernel, groups_grid(count), dim3(GROUP_THREADS), 0, view_of(dstrength), view_of(g),
		      view_of(weight), view_of(steps), view_of(zeros), view_of(strength), codes(grid, steps.cols), count);
}

void cuda_quantize_operations(struct backend_ops *ops)
{
	ops->quantize = quantize;
	ops->quantize_columns = quantize_columns;
	ops->quantize_backward = quantize_backward;
}
