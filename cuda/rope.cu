/* Rotary position embedding, in place. A thread turns N neighbouring pairs. */
#include "cuda/launch.cuh"

/* Element i of the two arrays, one behind the other. */
template <int N> __device__ inline float &element(float (&a)[N], float (&b)[N], int i)
{
	return i < N ? a[i] : b[i - N];
}

template <int N, bool NEIGHBOURS>
__global__ void __launch_bounds__(256)
	rope_kernel(view x, view table, int64_t positions, int64_t rows, int64_t pairs, int head_dim, int rotary, bool inverse)
{
	const int next = NEIGHBOURS ? 2 : 1, other = NEIGHBOURS ? 1 : N;
	int64_t row = elementwise_row();
	if (row >= rows) return;
	int half = rotary / 2;
	int64_t position = row % positions;
#pragma unroll
	for (int i = 0; i < ELEMENTWISE_STEPS; i++) {
		int64_t pair = elementwise_col<N>(i);
		float a[N], b[N], cosine[N], sine[N];
		if (pair >= pairs) return;
		int64_t col = index_rope_column(pair, head_dim, rotary, NEIGHBOURS), second = col + (NEIGHBOURS ? N : half);
		load<N>(x, row, col, a);
		load<N>(x, row, second, b);
		load<N>(table, position, pair % half, cosine);
		load<N>(table, position, half + pair % half, sine);
#pragma unroll
		for (int j = 0; j < N; j++) {
			float &x0 = element<N>(a, b, next * j), &x1 = element<N>(a, b, next * j + other);
			float s = inverse ? -sine[j] : sine[j], turned = x0 * cosine[j] - x1 * s;
			x1 = x1 * cosine[j] + x0 * s;
			x0 = turned;
		}
		store<N>(x, row, col, a);
		store<N>(x, row, second, b);
	}
}

template <bool NEIGHBOURS>
static enum status launch_rope(struct cuda *c, const struct rotation *rotation, struct tensor x, struct tensor table, int64_t pairs)
{
	int head_dim = rotation->head_dim, rotary = rotation->rotary;
	if (rotary % 16 == 0 && head_dim % 8 == 0 && cuda_chunked({x, table}))
		return LAUNCH(c, (rope_kernel<8, NEIGHBOURS>), elementwise_grid(x.rows, pairs, 8), elementwise_block(), 0,
			      view_of(x), view_of(table), table.rows, x.rows, pairs, head_dim, rotary, rotation->inverse);
	return LAUNCH(c, (rope_kernel<1, NEIGHBOURS>), elementwise_grid(x.rows, pairs, 1), elementwise_block(), 0, view_of(x),
		      view_of(table), table.rows, x.rows, pairs, head_dim, rotary, rotation->inverse);
}

static enum status rope(struct backend *backend, const struct rotation *rotation, struct tensor x, struct tensor table)
{
	struct cuda *c = cuda_begin(backend, "rope", {x, table});
	int64_t pairs = x.cols / rotation->head_dim * (rotation->rotary / 2);
	if (x.rows == 0 || pairs == 0) return STATUS_OK;
	return rotation->neighbours ? launch_rope<true>(c, rotation, x, table, pairs)
				    : launch_rope<false>(c, rotation, x, table, pairs);
}

void cuda_rope_operations(struct backend_ops *ops)
{
	ops->rope = rope;
}
