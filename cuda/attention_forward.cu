/* Attention, forward: a block holds a tile of queries and walks over the tiles of keys that they see, keeping each row's running
 * maximum and sum, so that no [T, T] matrix exists. While the logits are computed the tile's values arrive, and while these are
 * multiplied the next keys. */
#include "cuda/attention.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS };

/* 16·M queries per warp, KEYS per step: as many as the registers hold, and SHARED_LEAST where SMALL. */
template <typename T, int DIM, bool SMALL> struct forward_tiles {
	static constexpr int M = sizeof(T) == 2 && DIM <= 128 ? 2 : 1;
	static constexpr int QUERIES = 16 * M * WARPS, KEYS = sizeof(T) == 2 && DIM <= 128 ? 64 : SMALL ? 16 : 32;
	static constexpr int LD = tile_shape<T, DIM>::LD;
	static constexpr size_t SHARED = (size_t)(QUERIES + 2 * KEYS) * LD * sizeof(T);
};

/* Grid: (heads, query tiles, batch); the last tiles, which see most keys, start first. */
template <typename T, int DIM, bool SMALL>
__global__ void __launch_bounds__(THREADS) forward_kernel(struct attention_shape shape, heads_view<T> out, float *lse,
							  int64_t lse_stride, heads_view<T> q, heads_view<T> k, heads_view<T> v)
{
	typedef forward_tiles<T, DIM, SMALL> tiles;
	constexpr int M = tiles::M, KEYS = tiles::KEYS, N = KEYS / 8;
	SHARED_MEMORY(T, q_tile);
	T *k_tile = q_tile + tiles::QUERIES * tiles::LD, *v_tile = k_tile + KEYS * tiles::LD;
	int head = (int)blockIdx.x, kv_head = head / (shape.heads / shape.kv_heads);
	int query = (int)(gridDim.y - 1 - blockIdx.y) * tiles::QUERIES, tile, end;
	int64_t first_row = (int64_t)blockIdx.z * shape.tokens;
	head_view<T> q_head = q.head(first_row, head, shape.dim), out_head = out.head(first_row, head, shape.dim);
	head_view<T> k_head = k.head(first_row, kv_head, shape.dim), v_head = v.head(first_row, kv_head, shape.dim);
	int warp_row = (int)threadIdx.x / 32 * 16 * M, g = lane_of() / 4, t = lane_of() % 4;
	float o[M][DIM / 8][4], most[M][2], sum[M][2];

	clear(o);
#pragma unroll
	for (int m = 0; m < M; m++)
		for (int half = 0; half < 2; half++) {
			most[m][half] = -INFINITY;
			sum[m][half] = 0;
		}
	index_key_tiles(query, tiles::QUERIES, shape.tokens, shape.window, KEYS, &tile, &end);
	load_tile<T, DIM, tiles::QUERIES, THREADS>(q_tile, q_head, query, shape.tokens, shape.dim);
	load_tile<T, DIM, KEYS, THREADS>(k_tile, k_head, tile * KEYS, shape.tokens, shape.dim);
	copy_async_commit();
	for (; tile < end; tile++) {
		float s[M][N][4];
		int key = tile * KEYS;
		copy_async_wait<0>();
		__syncthreads(); /* the keys are there, and nobody reads the last values any more */
		load_tile<T, DIM, KEYS, THREADS>(v_tile, v_head, key, shape.tokens, shape.dim);
		copy_async_commit();
		clear(s);
		multiply_rows<T, DIM>(s, q_tile, warp_row, k_tile);

		if (!shape.plain) {
#pragma unroll
			for (int m = 0; m < M; m++)
#pragma unroll
				for (int n = 0; n < N; n++)
#pragma unroll
					for (int i = 0; i < 4; i++) {
						float slope;
						s[m][n][i] = logit_of(s[m][n][i], shape.scale, shape.softcap, &slope);
					}
		}
		if (!index_tile_full(query + warp_row, 16 * M, key, KEYS, shape.tokens, shape.window)) {
#pragma unroll
			for (int m = 0; m < M; m++)
#pragma unroll
				for (int n = 0; n < N; n++)
#pragma unroll
					for (int i = 0; i < 4; i++) {
						int row = query + warp_row + 16 * m + g + i / 2 * 8,
						    at = key + 8 * n + 2 * t + i % 2;
						if (!index_sees(row, at, shape.window)) s[m][n][i] = -INFINITY;
					}
		}
#pragma unroll
		for (int m = 0; m < M; m++)
#pragma unroll
			for (int half = 0; half < 2; half++) {
				float top = -INFINITY, total = 0;
#pragma unroll
				for (int n = 0; n < N; n++)
					top = fmaxf(top, fmaxf(s[m][n][2 * half], s[m][n][2 * half + 1]));
				top = fmaxf(most[m][half], top * shape.exponent);
				top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
				top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
				float base = top == -INFINITY ? 0 : top, shrink = exp2_fast(most[m][half] - base);
				most[m][half] = top;
#pragma unroll
				for (int n = 0; n < N; n++)
#pragma unroll
					for (int i = 2 * half; i < 2 * half + 2; i++) {
						s[m][n][i] = exp2_fast(fmaf(s[m][n][i], shape.exponent, -base));
						total += s[m][n][i];
					}
				sum[m][half] = sum[m][half] * shrink + total;
#pragma unroll
				for (int n = 0; n < DIM / 8; n++)
#pragma unroll
					for (int i = 2 * half; i < 2 * half + 2; i++)
						o[m][n][i] *= shrink;
			}

		copy_async_wait<0>();
		__syncthreads(); /* the values are there, and nobody reads the keys any more */
		if (tile + 1 < end) {
			load_tile<T, DIM, KEYS, THREADS>(k_tile, k_head, key + KEYS, shape.tokens, shape.dim);
			copy_async_commit();
		}
		multiply_columns<T, DIM, DIM>(o, s, v_tile, 0);
	}

	float *lse_row = lse + ((int64_t)blockIdx.z * shape.heads + head) * lse_stride;
#pragma unroll
	for (int m = 0; m < M; m++) {
		float inverse[2];
		int row = query + warp_row + 16 * m;
#pragma unroll
		for (int half = 0; half < 2; half++) {
			float total = sum[m][half];
			total += __shfl_xor_sync(0xffffffffu, total, 1);
			total += __shfl_xor_sync(0xffffffffu, total, 2);
			inverse[half] = 1 / total;
			if (t == 0 && row + g + 8 * half < shape.tokens)
				lse_row[row + g + 8 * half] = most[m][half] / LOG2_E + logf(total);
		}
		store_rows<T>(out_head, o[m], row, shape.tokens, 0, shape.dim, inverse);
	}
}

template <typename T, int DIM> struct forward_fits {
	static constexpr size_t SHARED = forward_tiles<T, DIM, false>::SHARED;
	static_assert(forward_tiles<T, DIM, (SHARED > SHARED_LEAST)>::SHARED <= SHARED_LEAST, "fits every device");
};

static enum status attention_forward(struct backend *backend, const struct attention *shape, struct tensor out, struct tensor lse,
				     struct tensor q, struct tensor k, struct tensor v)
{
	struct cuda *c = cuda_begin(backend, "attention_forward", {out, lse, q, k, v});
	if (shape->batch == 0 || shape->tokens == 0) return STATUS_OK;
	return attention_dispatch<forward_fits>(c, q.dtype, shape->head_dim, [&](auto type, auto dim, auto small) {
		typedef decltype(type) T;
		constexpr int DIM = decltype(dim)::value;
		constexpr bool SMALL = decltype(small)::value;
		typedef forward_tiles<T, DIM, SMALL> tiles;
		dim3 grid((unsigned)shape->heads, (unsigned)index_ceil_div(shape->tokens, tiles::QUERIES), (unsigned)shape->batch);
		return LAUNCH(c, (forward_kernel<T, DIM, SMALL>), grid, dim3(THREADS), tiles::SHARED, shape_of(shape),
			      heads_of<T>(out, shape->head_dim), (float *)lse.data, lse.stride, heads_of<T>(q, shape->head_dim),
			      heads_of<T>(k, shape->head_dim), heads_of<T>(v, shape->head_dim));
	});
}

void cuda_attention_forward_operations(struct backend_ops *ops)
{
	ops->attention_forward = attention_forward;
}
