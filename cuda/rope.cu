/* Rotary position embedding, in place. A thread turns N neighbouring pairs. */
#include "cuda/launch.cuh"

template <int N>
__global__ void __launch_bounds__(256)
	rope_kernel(view x, view table, int64_t positions, int64_t rows, int64_t pairs, int head_dim, int rotary, bool inverse)
{
	int64_t row = elementwise_row();
	if (row >= rows) return;
	int half = rotary / 2;
	int64_t position = row % positions;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t pair = elementwise_col<N>(i);
		float a[N], b[N], cosine[N], sine[N];
		if (pair >= pairs) return;
		int64_t col = index_rope_column(pair, head_dim, rotary);
		load<N>(x, row, col, a);
		load<N>(x, row, col + half, b);
		load<N>(table, position, pair % half, cosine);
		load<N>(table, position, half + pair % half, sine);
#pragma unroll
		for (int j = 0; j < N; j++) {
			float s = inverse ? -sine[j] : sine[j], turned = a[j] * cosine[j] - b[j] * s;
			b[j] = b[j] * cosine[j] + a[j] * s;
			a[j] = turned;
		}
		store<N>(x, row, col, a);
		store<N>(x, row, col + half, b);
	}
}

static enum status rope(struct backend *backend, struct tensor x, struct tensor table, int head_dim, int rotary, bool inverse)
{
	struct cuda *c = cuda_begin(backend, "rope", {x, table});
	int64_t pairs = x.cols / head_dim * (rotary / 2);
	if (x.rows == 0 || pairs == 0) return STATUS_OK;
	if (rotary % 16 == 0 && head_dim % 8 == 0 && cuda_chunked({x, table}))
		return LAUNCH(c, rope_kernel<8>, elementwise_grid(x.rows, pairs, 8), elementwise_block(), 0, view_of(x),
			      view_of(table), table.rows, x.rows, pairs, head_dim, rotary, inverse);
	return LAUNCH(c, rope_kernel<1>, elementwise_grid(x.rows, pairs, 1), elementwise_block(), 0, view_of(x), view_of(table),
		      table.rows, x.rows, pairs, head_dim, rotary, inverse);
}

void cuda_rope_operations(struct backend_ops *ops)
{
	ops->rope = rope;
}
