/* activation(gate) · up and its backward: one pass each. */
#include "cuda/launch.cuh"

/* a = activation(x), and its slope. */
static __device__ __forceinline__ void activate(int kind, float x, float *ret_a, float *ret_slope)
{
	if (kind == ACTIVATION_SILU) {
		float s = 1 / (1 + expf(-x));
		*ret_a = x * s;
		*ret_slope = s * (1 + x * (1 - s));
	} else if (kind == ACTIVATION_GELU_TANH) {
		const float c = 0.7978845608028654f; /* √(2/π) */
		float t = tanhf(c * (x + 0.044715f * x * x * x));
		*ret_a = 0.5f * x * (1 + t);
		*ret_slope = 0.5f * (1 + t) + 0.5f * x * (1 - t * t) * c * (1 + 3 * 0.044715f * x * x);
	} else if (kind == ACTIVATION_GELU) {
		float cdf = 0.5f * erfcf(-x * 0.7071067811865476f);
		*ret_a = x * cdf;
		*ret_slope = cdf + x * 0.3989422804014327f * expf(-0.5f * x * x);
	} else {
		*ret_a = x > 0 ? x : 0;
		*ret_slope = x > 0 ? 1 : 0;
	}
}

/* The clamped SwiGLU of a gate and an up, and its slopes by both: 0 where a clamp holds. */
static __device__ __forceinline__ float clamped(struct activation a, float gate, float up, float *ret_by_gate, float *ret_by_up)
{
	float g = fminf(gate, a.limit), u = fminf(fmaxf(up, -a.limit), a.limit);
	float s = 1 / (1 + expf(-a.alpha * g));
	*ret_by_gate = g == gate ? (u + 1) * (s + a.alpha * g * s * (1 - s)) : 0;
	*ret_by_up = u == up ? g * s : 0;
	return (u + 1) * g * s;
}

template <int N>
__global__ void __launch_bounds__(256)
	forward_kernel(struct activation activation, view y, view gate, view up, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	raw<N> g[ELEMENTWISE_STEPS], u[ELEMENTWISE_STEPS];
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++)
		if (elementwise_col<N>(i) < cols) {
			g[i] = load_raw<N>(gate, row, elementwise_col<N>(i));
			if (up.data) u[i] = load_raw<N>(up, row, elementwise_col<N>(i));
		}
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		float x[N], factor[N], slope;
		if (elementwise_col<N>(i) >= cols) return;
		unpack<N>(g[i], gate, x);
		if (up.data) unpack<N>(u[i], up, factor);
#pragma unroll
		for (int j = 0; j < N; j++) {
			float other;
			if (activation.kind == ACTIVATION_CLAMPED_SWIGLU) {
				x[j] = clamped(activation, x[j], factor[j], &slope, &other);
				continue;
			}
			activate(activation.kind, x[j], &x[j], &slope);
			if (up.data) x[j] *= factor[j];
		}
		store<N>(y, row, elementwise_col<N>(i), x);
	}
}

template <int N>
__global__ void __launch_bounds__(256)
	backward_kernel(struct activation activation, view dgate, view dup, view dy, view gate, view up, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
#pragma unroll 2
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t col = elementwise_col<N>(i);
		raw<N> raw_d, raw_g, raw_u;
		float d[N], g[N], u[N], dg[N];
		if (col >= cols) return;
		raw_d = load_raw<N>(dy, row, col);
		raw_g = load_raw<N>(gate, row, col);
		if (up.data) raw_u = load_raw<N>(up, row, col);
		unpack<N>(raw_d, dy, d);
		unpack<N>(raw_g, gate, g);
		if (up.data) unpack<N>(raw_u, up, u);
#pragma unroll
		for (int j = 0; j < N; j++) {
			float a, slope;
			if (activation.kind == ACTIVATION_CLAMPED_SWIGLU) {
				clamped(activation, g[j], u[j], &slope, &a);
				dg[j] = d[j] * slope;
				d[j] *= a;
				continue;
			}
			activate(activation.kind, g[j], &a, &slope);
			dg[j] = d[j] * slope * (up.data ? u[j] : 1);
			d[j] *= a;
		}
		store<N>(dgate, row, col, dg);
		if (up.data) store<N>(dup, row, col, d);
	}
}

static enum status activation_forward(struct backend *backend, struct activation activation, struct tensor y, struct tensor gate,
				      struct tensor up)
{
	struct cuda *c = cuda_begin(backend, "activation_forward", {y, gate});
	if (y.rows == 0 || y.cols == 0) return STATUS_OK;
	if (cuda_chunked({y, gate, up}))
		return LAUNCH(c, forward_kernel<8>, elementwise_grid(y.rows, y.cols, 8), elementwise_block(), 0, activation,
			      view_of(y), view_of(gate), view_of(up), y.rows, y.cols);
	return LAUNCH(c, forward_kernel<1>, elementwise_grid(y.rows, y.cols, 1), elementwise_block(), 0, activation, view_of(y),
		      view_of(gate), view_of(up), y.rows, y.cols);
}

static enum status activation_backward(struct backend *backend, struct activation activation, struct tensor dgate,
				       struct tensor dup, struct tensor dy, struct tensor gate, struct tensor up)
{
	struct cuda *c = cuda_begin(backend, "activation_backward", {dgate, dy, gate});
	if (dy.rows == 0 || dy.cols == 0) return STATUS_OK;
	if (cuda_chunked({dgate, dup, dy, gate, up}))
		return LAUNCH(c, backward_kernel<8>, elementwise_grid(dy.rows, dy.cols, 8), elementwise_block(), 0, activation,
			      view_of(dgate), view_of(dup), view_of(dy), view_of(gate), view_of(up), dy.rows, dy.cols);
	return LAUNCH(c, backward_kernel<1>, elementwise_grid(dy.rows, dy.cols, 1), elementwise_block(), 0, activation,
		      view_of(dgate), view_of(dup), view_of(dy), view_of(gate), view_of(up), dy.rows, dy.cols);
}

void cuda_activation_operations(struct backend_ops *ops)
{
	ops->activation_forward = activation_forward;
	ops->activation_backward = activation_backward;
}
