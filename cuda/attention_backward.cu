/* Attention, backward. With P = exp(logit − lse), dP = dO·Vᵀ and δ = Σ_d dO·O per query:
 *   dS = P ⊙ (dP − δ) · scale (· the cap's slope),   dQ = dS·K,   dK = dSᵀ·Q,   dV = Pᵀ·dO
 *
 * Two kernels, so that every sum has one owner and a fixed order, without atomics: one holds a tile of keys and walks over the
 * queries that see it, of all heads that share it (dK, dV); the other holds a tile of queries and walks over its keys (dQ). Both
 * compute S and dP themselves. The first computes their transposes, so that Pᵀ and dSᵀ are first operands from registers. */
#include "cuda/attention.cuh"

/* What the pairs of a query need of it. */
struct query_sums {
	float exponent, delta; /* log₂ of what lse is the logarithm of, and δ */
};

/* [batch·heads, tokens], a warp each. */
template <typename T>
__global__ void __launch_bounds__(256) sums_kernel(struct attention_shape shape, query_sums *sums, heads_view<T> out,
						   heads_view<T> dout, const float *lse, int64_t lse_stride, int64_t rows)
{
	int64_t row = (int64_t)blockIdx.x * 8 + threadIdx.x / 32;
	int head = (int)blockIdx.y;
	float sum = 0;
	if (row >= rows) return;
	head_view<T> o = out.head(row, head, shape.dim), d = dout.head(row, head, shape.dim);
	for (int i = lane_of(); i < shape.dim; i += 32)
		sum += to_float(o.data[i]) * to_float(d.data[i]);
	sum = warp_reduce(sum, plus());
	int64_t sequence_head = row / shape.tokens * shape.heads + head, token = row % shape.tokens;
	if (lane_of() == 0) sums[sequence_head * shape.tokens + token] = {lse[sequence_head * lse_stride + token] * LOG2_E, sum};
}

/* P and dS of one pair that is seen, where nothing is capped. */
static __device__ __forceinline__ void plain_gradient(const struct attention_shape &shape, query_sums of, float *s, float *dp)
{
	float p = exp2_fast(fmaf(*s, shape.exponent, -of.exponent));
	*s = p;
	*dp = p * (*dp - of.delta) * shape.scale;
}

/* … of any pair. */
static __device__ __forceinline__ void pair_gradient(const struct attention_shape &shape, bool seen, query_sums of, float *s,
						     float *dp)
{
	float slope, x = logit_of(*s, shape.scale, shape.softcap, &slope);
	float p = seen ? exp2_fast(fmaf(x, LOG2_E, -of.exponent)) : 0;
	*s = p;
	*dp = p * (*dp - of.delta) * slope * shape.scale;
}

/* ---- dK and dV --------------------------------------------------------------------------------------------------------------- */

/* Per block KEYS = 16 · WARPS keys and OUT of their DIM columns; QUERIES at a time, in two stages: while one is multiplied the
 * next arrives. One stage where SMALL, which takes SHARED_LEAST at most. */
template <typename T, int DIM, bool SMALL> struct keys_tiles {
	static constexpr bool LARGE = sizeof(T) == 4 && DIM == 256;
	static constexpr int WARPS = LARGE ? 2 : 4, THREADS = 32 * WARPS;
	static constexpr int KEYS = 16 * WARPS, QUERIES = LARGE ? 16 : 32, OUT = DIM < 128 ? DIM : 128, STAGES = SMALL ? 1 : 2;
	static constexpr int LD = tile_shape<T, DIM>::LD;
	static constexpr size_t SHARED = (size_t)(2 * KEYS + 2 * STAGES * QUERIES) * LD * sizeof(T);
};

/* Grid: (key/value heads · DIM/OUT, key tiles, batch); the first keys, which most queries see, start first. */
template <typename T, int DIM, bool SMALL>
__global__ void __launch_bounds__(keys_tiles<T, DIM, SMALL>::THREADS)
	keys_kernel(struct attention_shape shape, heads_view<T> dk, heads_view<T> dv, heads_view<T> q, heads_view<T> k,
		    heads_view<T> v, heads_view<T> dout, const query_sums *sums)
{
	typedef keys_tiles<T, DIM, SMALL> tiles;
	constexpr int STAGES = tiles::STAGES, QUERIES = tiles::QUERIES, OUT = tiles::OUT, LD = tiles::LD, THREADS = tiles::THREADS,
		      N = QUERIES / 8;
	SHARED_MEMORY(T, k_tile);
	T *v_tile = k_tile + tiles::KEYS * LD, *q_tiles = v_tile + tiles::KEYS * LD, *o_tiles = q_tiles + STAGES * QUERIES * LD;
	int kv_head = (int)blockIdx.x / (DIM / OUT), first_out = (int)blockIdx.x % (DIM / OUT) * OUT;
	int sharing = shape.heads / shape.kv_heads, key = (int)blockIdx.y * tiles::KEYS, tile, end;
	int64_t first_row = (int64_t)blockIdx.z * shape.tokens;
	int warp_row = (int)threadIdx.x / 32 * 16, g = lane_of() / 4, t = lane_of() % 4;
	float sum_k[1][OUT / 8][4], sum_v[1][OUT / 8][4];

	clear(sum_k);
	clear(sum_v);
	index_query_tiles(key, tiles::KEYS, shape.tokens, shape.window, QUERIES, &tile, &end);
	int each = end - tile, steps = each * sharing;
	auto load_queries = [&](int step) {
		int head = kv_head * sharing + step / each, query = (tile + step % each) * QUERIES;
		load_tile<T, DIM, QUERIES, THREADS>(q_tiles + step % STAGES * QUERIES * LD, q.head(first_row, head, shape.dim),
						    query, shape.tokens, shape.dim);
		load_tile<T, DIM, QUERIES, THREADS>(o_tiles + step % STAGES * QUERIES * LD, dout.head(first_row, head, shape.dim),
						    query, shape.tokens, shape.dim);
		copy_async_commit();
	};
	load_tile<T, DIM, tiles::KEYS, THREADS>(k_tile, k.head(first_row, kv_head, shape.dim), key, shape.tokens, shape.dim);
	load_tile<T, DIM, tiles::KEYS, THREADS>(v_tile, v.head(first_row, kv_head, shape.dim), key, shape.tokens, shape.dim);
	if (STAGES > 1) load_queries(0);
	for (int step = 0; step < steps; step++) {
		const T *q_tile = q_tiles + step % STAGES * QUERIES * LD, *o_tile = o_tiles + step % STAGES * QUERIES * LD;
		int query = (tile + step % each) * QUERIES;
		int64_t sequence_head = (int64_t)blockIdx.z * shape.heads + kv_head * sharing + step / each;
		float s[1][N][4], dp[1][N][4];
		query_sums of[N][2]; /* on their way while the products are computed */
#pragma unroll
		for (int n = 0; n < N; n++)
#pragma unroll
			for (int i = 0; i < 2; i++)
				of[n][i] = sums[sequence_head * shape.tokens +
						(int)index_min(query + 8 * n + 2 * t + i, shape.tokens - 1)];
		if (STAGES == 1) load_queries(step);
		if (STAGES > 1 && step + 1 < steps) {
			load_queries(step + 1);
			copy_async_wait<1>();
		} else {
			copy_async_wait<0>();
		}
		__syncthreads();
		clear(s);
		clear(dp);
		multiply_rows<T, DIM>(s, k_tile, warp_row, q_tile);
		multiply_rows<T, DIM>(dp, v_tile, warp_row, o_tile);
		if (shape.plain && index_tile_full(query, QUERIES, key + warp_row, 16, shape.tokens, shape.window)) {
#pragma unroll
			for (int n = 0; n < N; n++)
#pragma unroll
				for (int i = 0; i < 4; i++)
					plain_gradient(shape, of[n][i % 2], &s[0][n][i], &dp[0][n][i]);
		} else {
#pragma unroll
			for (int n = 0; n < N; n++)
#pragma unroll
				for (int i = 0; i < 4; i++) {
					int at = query + 8 * n + 2 * t + i % 2, row = key + warp_row + g + i / 2 * 8;
					pair_gradient(shape, at < shape.tokens && index_sees(at, row, shape.window), of[n][i % 2],
						      &s[0][n][i], &dp[0][n][i]);
				}
		}
		multiply_columns<T, DIM, OUT>(sum_v, s, o_tile, first_out);
		multiply_columns<T, DIM, OUT>(sum_k, dp, q_tile, first_out);
		__syncthreads(); /* the stage may be overwritten */
	}
	const float one[2] = {1, 1};
	store_rows<T>(dk.head(first_row, kv_head, shape.dim), sum_k[0], key + warp_row, shape.tokens, first_out, shape.dim, one);
	store_rows<T>(dv.head(first_row, kv_head, shape.dim), sum_v[0], key + warp_row, shape.tokens, first_out, shape.dim, one);
}

/* ---- dQ ---------------------------------------------------------------------------------------------------------------------- */

template <typename T, int DIM, bool SMALL> struct queries_tiles {
	static constexpr bool LARGE = sizeof(T) == 4 && DIM == 256;
	static constexpr int WARPS = LARGE ? 2 : 4, THREADS = 32 * WARPS;
	static constexpr int M = sizeof(T) == 2 && DIM <= 128 ? 2 : 1;
	static constexpr int QUERIES = 16 * M * WARPS, KEYS = LARGE ? 16 : 32, STAGES = SMALL ? 1 : 2;
	static constexpr int LD = tile_shape<T, DIM>::LD;
	static constexpr size_t SHARED = (size_t)(2 * QUERIES + 2 * STAGES * KEYS) * LD * sizeof(T);
};

/* Grid: (heads, query tiles, batch); the last tiles, which see most keys, start first. */
template <typename T, int DIM, bool SMALL>
__global__ void __launch_bounds__(queries_tiles<T, DIM, SMALL>::THREADS)
	queries_kernel(struct attention_shape shape, heads_view<T> dq, heads_view<T> q, heads_view<T> k, heads_view<T> v,
		       heads_view<T> dout, const query_sums *sums)
{
	typedef queries_tiles<T, DIM, SMALL> tiles;
	constexpr int STAGES = tiles::STAGES, KEYS = tiles::KEYS, M = tiles::M, LD = tiles::LD, THREADS = tiles::THREADS,
		      N = KEYS / 8;
	SHARED_MEMORY(T, q_tile);
	T *o_tile = q_tile + tiles::QUERIES * LD, *k_tiles = o_tile + tiles::QUERIES * LD, *v_tiles = k_tiles + STAGES * KEYS * LD;
	int head = (int)blockIdx.x, kv_head = head / (shape.heads / shape.kv_heads), first, end;
	int query = (int)(gridDim.y - 1 - blockIdx.y) * tiles::QUERIES;
	int64_t first_row = (int64_t)blockIdx.z * shape.tokens, sequence_head = (int64_t)blockIdx.z * shape.heads + head;
	int warp_row = (int)threadIdx.x / 32 * 16 * M, g = lane_of() / 4, t = lane_of() % 4;
	float sum[M][DIM / 8][4];
	query_sums of[M][2];

	clear(sum);
#pragma unroll
	for (int m = 0; m < M; m++)
#pragma unroll
		for (int half = 0; half < 2; half++) {
			int row = query + warp_row + 16 * m + g + 8 * half;
			of[m][half] = sums[sequence_head * shape.tokens + (int)index_min(row, shape.tokens - 1)];
		}
	index_key_tiles(query, tiles::QUERIES, shape.tokens, shape.window, KEYS, &first, &end);
	auto load_keys = [&](int tile) {
		load_tile<T, DIM, KEYS, THREADS>(k_tiles + tile % STAGES * KEYS * LD, k.head(first_row, kv_head, shape.dim),
						 tile * KEYS, shape.tokens, shape.dim);
		load_tile<T, DIM, KEYS, THREADS>(v_tiles + tile % STAGES * KEYS * LD, v.head(first_row, kv_head, shape.dim),
						 tile * KEYS, shape.tokens, shape.dim);
		copy_async_commit();
	};
	load_tile<T, DIM, tiles::QUERIES, THREADS>(q_tile, q.head(first_row, head, shape.dim), query, shape.tokens, shape.dim);
	load_tile<T, DIM, tiles::QUERIES, THREADS>(o_tile, dout.head(first_row, head, shape.dim), query, shape.tokens, shape.dim);
	if (STAGES > 1) load_keys(first);
	for (int tile = first; tile < end; tile++) {
		const T *k_tile = k_tiles + tile % STAGES * KEYS * LD, *v_tile = v_tiles + tile % STAGES * KEYS * LD;
		float s[M][N][4], dp[M][N][4];
		if (STAGES == 1) load_keys(tile);
		if (STAGES > 1 && tile + 1 < end) {
			load_keys(tile + 1);
			copy_async_wait<1>();
		} else {
			copy_async_wait<0>();
		}
		__syncthreads();
		clear(s);
		clear(dp);
		multiply_rows<T, DIM>(s, q_tile, warp_row, k_tile);
		multiply_rows<T, DIM>(dp, o_tile, warp_row, v_tile);
		if (shape.plain && index_tile_full(query + warp_row, 16 * M, tile * KEYS, KEYS, shape.tokens, shape.window)) {
#pragma unroll
			for (int m = 0; m < M; m++)
#pragma unroll
				for (int n = 0; n < N; n++)
#pragma unroll
					for (int i = 0; i < 4; i++)
						plain_gradient(shape, of[m][i / 2], &s[m][n][i], &dp[m][n][i]);
		} else {
#pragma unroll
			for (int m = 0; m < M; m++)
#pragma unroll
				for (int n = 0; n < N; n++)
#pragma unroll
					for (int i = 0; i < 4; i++) {
						int row = query + warp_row + 16 * m + g + i / 2 * 8,
						    at = tile * KEYS + 8 * n + 2 * t + i % 2;
						bool seen = row < shape.tokens && index_sees(row, at, shape.window);
						pair_gradient(shape, seen, of[m][i / 2], &s[m][n][i], &dp[m][n][i]);
					}
		}
		multiply_columns<T, DIM, DIM>(sum, dp, k_tile, 0);
		__syncthreads(); /* the stage may be overwritten */
	}
	const float one[2] = {1, 1};
#pragma unroll
	for (int m = 0; m < M; m++)
		store_rows<T>(dq.head(first_row, head, shape.dim), sum[m], query + warp_row + 16 * m, shape.tokens, 0, shape.dim,
			      one);
}

template <typename T, int DIM> struct keys_fits {
	static constexpr size_t SHARED = keys_tiles<T, DIM, false>::SHARED;
	static_assert(keys_tiles<T, DIM, (SHARED > SHARED_LEAST)>::SHARED <= SHARED_LEAST, "fits every device");
};

template <typename T, int DIM> struct queries_fits {
	static constexpr size_t SHARED = queries_tiles<T, DIM, false>::SHARED;
	static_assert(queries_tiles<T, DIM, (SHARED > SHARED_LEAST)>::SHARED <= SHARED_LEAST, "fits every device");
};

static enum status attention_backward(struct backend *backend, const struct attention *shape, struct tensor dq, struct tensor dk,
				      struct tensor dv, struct tensor q, struct tensor k, struct tensor v, struct tensor out,
				      struct tensor lse, struct tensor dout)
{
	struct cuda *c = cuda_begin(backend, "attention_backward", {dq, dk, dv, q, k, v, out, lse, dout});
	if (shape->batch == 0 || shape->tokens == 0) return STATUS_OK;
	struct scratch sums(c);
	TRY(sums.allocate((size_t)q.rows * (size_t)shape->heads * sizeof(query_sums)));
	enum status status = attention_dispatch<keys_fits>(c, q.dtype, shape->head_dim, [&](auto type, auto dim, auto small) {
		typedef decltype(type) T;
		constexpr int DIM = decltype(dim)::value;
		constexpr bool SMALL = decltype(small)::value;
		typedef keys_tiles<T, DIM, SMALL> tiles;
		struct attention_shape sizes = shape_of(shape);
		auto view = [&](const struct tensor &x) { return heads_of<T>(x, shape->head_dim); };
		unsigned heads = (unsigned)shape->heads, kv_heads = (unsigned)shape->kv_heads, batch = (unsigned)shape->batch;
		TRY(LAUNCH(c, sums_kernel<T>, dim3((unsigned)index_ceil_div(q.rows, 8), heads), dim3(256), 0, sizes,
			   sums.as<query_sums>(), view(out), view(dout), (const float *)lse.data, lse.stride, q.rows));
		return LAUNCH(c, (keys_kernel<T, DIM, SMALL>),
			      dim3(kv_heads * (DIM / tiles::OUT), (unsigned)index_ceil_div(shape->tokens, tiles::KEYS), batch),
			      dim3(tiles::THREADS), tiles::SHARED, sizes, view(dk), view(dv), view(q), view(k), view(v), view(dout),
			      sums.as<query_sums>());
	});
	TRY(status);
	return attention_dispatch<queries_fits>(c, q.dtype, shape->head_dim, [&](auto type, auto dim, auto small) {
		typedef decltype(type) T;
		constexpr int DIM = decltype(dim)::value;
		constexpr bool SMALL = decltype(small)::value;
		typedef queries_tiles<T, DIM, SMALL> tiles;
		auto view = [&](const struct tensor &x) { return heads_of<T>(x, shape->head_dim); };
		dim3 grid((unsigned)shape->heads, (unsigned)index_ceil_div(shape->tokens, tiles::QUERIES), (unsigned)shape->batch);
		return LAUNCH(c, (queries_kernel<T, DIM, SMALL>), grid, dim3(tiles::THREADS), tiles::SHARED, shape_of(shape),
			      view(dq), view(q), view(k), view(v), view(dout), sums.as<query_sums>());
	});
}

void cuda_attention_backward_operations(struct backend_ops *ops)
{
	ops->attention_backward = attention_backward;
}
