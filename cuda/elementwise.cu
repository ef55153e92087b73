/* convert, add_bias, add, embed: one pass each, bound by memory. */
#include "cuda/launch.cuh"

template <int N> __global__ void __launch_bounds__(256) convert_kernel(view to, view from, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	raw<N> x[ELEMENTWISE_STEPS];
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++)
		if (elementwise_col<N>(i) < cols) x[i] = load_raw<N>(from, row, elementwise_col<N>(i));
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		float value[N];
		if (elementwise_col<N>(i) >= cols) return;
		unpack<N>(x[i], from, value);
		store<N>(to, row, elementwise_col<N>(i), value);
	}
}

/* y += x; `one_row`: x is one row, added to all. */
template <int N> __global__ void __launch_bounds__(256) add_kernel(view y, view x, bool one_row, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	raw<N> a[ELEMENTWISE_STEPS], b[ELEMENTWISE_STEPS];
	if (row >= rows) return;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++)
		if (elementwise_col<N>(i) < cols) {
			a[i] = load_raw<N>(y, row, elementwise_col<N>(i));
			b[i] = load_raw<N>(x, one_row ? 0 : row, elementwise_col<N>(i));
		}
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		float sum[N], term[N];
		if (elementwise_col<N>(i) >= cols) return;
		unpack<N>(a[i], y, sum);
		unpack<N>(b[i], x, term);
#pragma unroll
		for (int j = 0; j < N; j++)
			sum[j] += term[j];
		store<N>(y, row, elementwise_col<N>(i), sum);
	}
}

template <int N>
__global__ void __launch_bounds__(256)
	embed_kernel(view out, view table, const int32_t *ids, float scale, int64_t rows, int64_t cols)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
	int64_t id = ids[row];
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		float x[N];
		if (elementwise_col<N>(i) >= cols) return;
		load<N>(table, id, elementwise_col<N>(i), x);
#pragma unroll
		for (int j = 0; j < N; j++)
			x[j] *= scale;
		store<N>(out, row, elementwise_col<N>(i), x);
	}
}

static enum status convert(struct backend *backend, struct tensor to, struct tensor from)
{
	struct cuda *c = cuda_begin(backend, "convert", {to, from});
	if (to.rows == 0 || to.cols == 0) return STATUS_OK;
	if (cuda_chunked({to, from}))
		return LAUNCH(c, convert_kernel<8>, elementwise_grid(to.rows, to.cols, 8), elementwise_block(), 0, view_of(to),
			      view_of(from), to.rows, to.cols);
	return LAUNCH(c, convert_kernel<1>, elementwise_grid(to.rows, to.cols, 1), elementwise_block(), 0, view_of(to),
		      view_of(from), to.rows, to.cols);
}

static enum status add_rows(struct cuda *c, const struct tensor &y, const struct tensor &x, bool one_row)
{
	if (y.rows == 0 || y.cols == 0) return STATUS_OK;
	if (cuda_chunked({y, x}))
		return LAUNCH(c, add_kernel<8>, elementwise_grid(y.rows, y.cols, 8), elementwise_block(), 0, view_of(y), view_of(x),
			      one_row, y.rows, y.cols);
	return LAUNCH(c, add_kernel<1>, elementwise_grid(y.rows, y.cols, 1), elementwise_block(), 0, view_of(y), view_of(x),
		      one_row, y.rows, y.cols);
}

static enum status add_bias(struct backend *backend, struct tensor y, struct tensor bias)
{
	return add_rows(cuda_begin(backend, "add_bias", {y, bias}), y, bias, true);
}

static enum status add(struct backend *backend, struct tensor y, struct tensor x)
{
	return add_rows(cuda_begin(backend, "add", {y, x}), y, x, false);
}

static enum status embed(struct backend *backend, struct tensor out, struct tensor table, const void *ids, float scale)
{
	struct cuda *c = cuda_begin(backend, "embed", {out, table});
	if (out.rows == 0 || out.cols == 0) return STATUS_OK;
	if (cuda_chunked({out, table}))
		return LAUNCH(c, embed_kernel<8>, elementwise_grid(out.rows, out.cols, 8), elementwise_block(), 0, view_of(out),
			      view_of(table), (const int32_t *)ids, scale, out.rows, out.cols);
	return LAUNCH(c, embed_kernel<1>, elementwise_grid(out.rows, out.cols, 1), elementwise_block(), 0, view_of(out),
		      view_of(table), (const int32_t *)ids, scale, out.rows, out.cols);
}

void cuda_elementwise_operations(struct backend_ops *ops)
{
	ops->convert = convert;
	ops->add_bias = add_bias;
	ops->add = add;
	ops->embed = embed;
}
