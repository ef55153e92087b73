/* What attention's forward and backward share: tiles in shared memory, and products of them on the tensor cores.
 *
 * A tile is [rows, DIM] elements, each row padded by 16 bytes so that eight rows' 16-byte pieces lie in different banks. DIM is
 * the head size rounded up; the rest is zero. Products are built of 16×8 accumulators of 32 lanes (platform.cuh has the
 * fragments):
 *   first operand   A [16, DEPTH] from a tile's rows, or from accumulators just computed (registers only)
 *   second operand  B [DEPTH, 16] from a tile by rows ([n][k]: Bᵀ as stored) or by columns ([k][n])
 * F32 runs on tf32 tensor cores as three products of the operands' high and low parts, which is as exact as fp32. Its B by columns
 * takes the k of a fragment in the order in which accumulators hold them (0, 2, 4, 6, 1, 3, 5, 7), and goes only with A from
 * those. */
#ifndef BESAD_CUDA_ATTENTION_CUH
#define BESAD_CUDA_ATTENTION_CUH

#include "cuda/launch.cuh"

static __device__ __forceinline__ int lane_of()
{
	return (int)threadIdx.x % 32;
}

template <typename T, int DIM> struct tile_shape {
	static constexpr int LD = DIM + 16 / (int)sizeof(T);
};

/* ---- 16-bit operands -------------------------------------------------------------------------------------------------------- */

template <typename T> struct operand {
	static constexpr int DEPTH = 16;

	struct first {
		uint32_t r[4];
	};
	struct second { /* two 8-column halves */
		uint32_t r[4];
	};

	template <int LD> static __device__ __forceinline__ void load(first &a, const T *tile, int row, int k)
	{
		int lane = lane_of();
		load_matrix(a.r, tile + (row + lane % 16) * LD + k + lane / 16 * 8);
	}
	template <int LD> static __device__ __forceinline__ void load_rows(second &b, const T *tile, int n, int k)
	{
		int lane = lane_of();
		load_matrix(b.r, tile + (n + lane % 8 + lane / 16 * 8) * LD + k + lane / 8 % 2 * 8);
	}
	template <int LD> static __device__ __forceinline__ void load_columns(second &b, const T *tile, int k, int n)
	{
		int lane = lane_of();
		load_matrix_transposed(b.r, tile + (k + lane % 16) * LD + n + lane / 16 * 8);
	}
	/* Columns [DEPTH·step, DEPTH·(step + 1)) of accumulators that lie side by side. */
	template <int TILES> static __device__ __forceinline__ void take(first &a, const float (&c)[TILES][4], int step)
	{
		a.r[0] = pack_two(c[2 * step][0], c[2 * step][1], T{});
		a.r[1] = pack_two(c[2 * step][2], c[2 * step][3], T{});
		a.r[2] = pack_two(c[2 * step + 1][0], c[2 * step + 1][1], T{});
		a.r[3] = pack_two(c[2 * step + 1][2], c[2 * step + 1][3], T{});
	}
	static __device__ __forceinline__ void multiply(float (&c)[4], const first &a, const second &b, int half)
	{
		mma(c, a.r, b.r[2 * half], b.r[2 * half + 1], T{});
	}
};

/* ---- F32 operands ------------------------------------------------------------------------------------------------------------ */

/* x = high + low, each with tf32's mantissa. */
struct split {
	uint32_t high, low;

	__device__ __forceinline__ void set(float x)
	{
		high = to_tf32(x);
		low = to_tf32(x - __uint_as_float(high));
	}
};

template <> struct operand<float> {
	static constexpr int DEPTH = 8;

	struct first {
		uint32_t high[4], low[4];

		__device__ __forceinline__ void set(int i, float x)
		{
			split s;
			s.set(x);
			high[i] = s.high;
			low[i] = s.low;
		}
	};
	struct second {
		split r[4];
	};

	template <int LD> static __device__ __forceinline__ void load(first &a, const float *tile, int row, int k)
	{
		int g = lane_of() / 4, t = lane_of() % 4;
#pragma unroll
		for (int i = 0; i < 4; i++)
			a.set(i, tile[(row + g + i % 2 * 8) * LD + k + t + i / 2 * 4]);
	}
	template <int LD> static __device__ __forceinline__ void load_rows(second &b, const float *tile, int n, int k)
	{
		int g = lane_of() / 4, t = lane_of() % 4;
#pragma unroll
		for (int i = 0; i < 4; i++)
			b.r[i].set(tile[(n + g + i / 2 * 8) * LD + k + t + i % 2 * 4]);
	}
	template <int LD> static __device__ __forceinline__ void load_columns(second &b, const float *tile, int k, int n)
	{
		int g = lane_of() / 4, t = lane_of() % 4;
#pragma unroll
		for (int i = 0; i < 4; i++)
			b.r[i].set(tile[(k + 2 * t + i % 2) * LD + n + g + i / 2 * 8]);
	}
	template <int TILES> static __device__ __forceinline__ void take(first &a, const float (&c)[TILES][4], int step)
	{
		a.set(0, c[step][0]);
		a.set(1, c[step][2]);
		a.set(2, c[step][1]);
		a.set(3, c[step][3]);
	}
	static __device__ __forceinline__ void multiply(float (&c)[4], const first &a, const second &b, int half)
	{
		const split &b0 = b.r[2 * half], &b1 = b.r[2 * half + 1];
		mma_tf32(c, a.low, b0.high, b1.high);
		mma_tf32(c, a.high, b0.low, b1.low);
		mma_tf32(c, a.high, b0.high, b1.high);
	}
};

/* ---- products of tiles ------------------------------------------------------------------------------------------------------- */

/* c [16·M, 8·TILES] += rows `row` … of `a` · (rows 0 … of `b`)ᵀ, over DIM. */
template <typename T, int DIM, int M, int TILES>
static __device__ __forceinline__ void multiply_rows(float (&c)[M][TILES][4], const T *a, int row, const T *b)
{
	constexpr int LD = tile_shape<T, DIM>::LD;
#pragma unroll
	for (int k = 0; k < DIM; k += operand<T>::DEPTH) {
		typename operand<T>::first fa[M];
#pragma unroll
		for (int m = 0; m < M; m++)
			operand<T>::template load<LD>(fa[m], a, row + 16 * m, k);
#pragma unroll
		for (int n = 0; n < TILES; n += 2) {
			typename operand<T>::second fb;
			operand<T>::template load_rows<LD>(fb, b, 8 * n, k);
#pragma unroll
			for (int m = 0; m < M; m++) {
				operand<T>::multiply(c[m][n], fa[m], fb, 0);
				operand<T>::multiply(c[m][n + 1], fa[m], fb, 1);
			}
		}
	}
}

/* out [16·M, OUT] += p [16·M, 8·TILES] (accumulators) · columns [first, first + OUT) of the rows 0 … 8·TILES of `b`. */
template <typename T, int DIM, int OUT, int M, int TILES>
static __device__ __forceinline__ void multiply_columns(float (&out)[M][OUT / 8][4], const float (&p)[M][TILES][4], const T *b,
							int first)
{
	constexpr int LD = tile_shape<T, DIM>::LD, DEPTH = operand<T>::DEPTH;
#pragma unroll
	for (int step = 0; step < 8 * TILES / DEPTH; step++) {
		typename operand<T>::first fa[M];
#pragma unroll
		for (int m = 0; m < M; m++)
			operand<T>::take(fa[m], p[m], step);
#pragma unroll
		for (int n = 0; n < OUT / 8; n += 2) {
			typename operand<T>::second fb;
			operand<T>::template load_columns<LD>(fb, b, DEPTH * step, first + 8 * n);
#pragma unroll
			for (int m = 0; m < M; m++) {
				operand<T>::multiply(out[m][n], fa[m], fb, 0);
				operand<T>::multiply(out[m][n + 1], fa[m], fb, 1);
			}
		}
	}
}

template <int M, int TILES> static __device__ __forceinline__ void clear(float (&c)[M][TILES][4])
{
#pragma unroll
	for (int m = 0; m < M; m++)
#pragma unroll
		for (int n = 0; n < TILES; n++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				c[m][n][i] = 0;
}

/* ---- between global and shared memory ---------------------------------------------------------------------------------------- */

/* One head of a [T, heads · head_dim] tensor: element (t, d) is data[t·stride + d]. `chunked`: rows may be read 16 bytes at a
 * time. */
template <typename T> struct head_view {
	T *data;
	int64_t stride;
	bool chunked;
};

/* Starts to load rows [row, row + ROWS) of a head into a tile; rows past `rows` and columns past `dim` become zero. The caller
 * commits and waits, then synchronises the block. */
template <typename T, int DIM, int ROWS, int THREADS>
static __device__ __forceinline__ void load_tile(T *tile, const head_view<T> &from, int row, int rows, int dim)
{
	constexpr int LD = tile_shape<T, DIM>::LD, EACH = 16 / (int)sizeof(T), PIECES = DIM / EACH;
	static_assert(THREADS % PIECES == 0, "a thread keeps to its columns");
	if (from.chunked) {
		int col = (int)threadIdx.x % PIECES * EACH, r = (int)threadIdx.x / PIECES;
		const T *p = from.data + (int64_t)(row + r) * from.stride + col;
#pragma unroll 4
		for (; r < ROWS; r += THREADS / PIECES) {
			bool valid = row + r < rows && col < dim;
			copy_async(tile + r * LD + col, valid ? p : from.data, valid);
			p += THREADS / PIECES * from.stride;
		}
	} else {
		for (int i = (int)threadIdx.x; i < ROWS * DIM; i += THREADS) {
			int r = i / DIM, col = i % DIM;
			bool valid = row + r < rows && col < dim;
			tile[r * LD + col] = valid ? from.data[(int64_t)(row + r) * from.stride + col] : T{};
		}
	}
}

/* Writes 16 rows of accumulators to rows row … of a head, times `scale` of the lane's two rows. */
template <typename T, int TILES>
static __device__ __forceinline__ void store_rows(const head_view<T> &to, const float (&c)[TILES][4], int row, int rows, int first,
						  int dim, const float (&scale)[2])
{
	int g = lane_of() / 4, t = lane_of() % 4;
#pragma unroll
	for (int half = 0; half < 2; half++) {
		int r = row + g + 8 * half;
		if (r >= rows) continue;
#pragma unroll
		for (int n = 0; n < TILES; n++) {
			int col = first + 8 * n + 2 * t;
			float low = c[n][2 * half] * scale[half], high = c[n][2 * half + 1] * scale[half];
			T *p = to.data + (int64_t)r * to.stride + col;
			if (col >= dim) continue;
			if constexpr (sizeof(T) == 2) {
				if (to.chunked) {
					*(uint32_t *)p = pack_two(low, high, T{});
					continue;
				}
			}
			p[0] = from_float<T>(low);
			if (col + 1 < dim) p[1] = from_float<T>(high);
		}
	}
}

/* ---- logits ------------------------------------------------------------------------------------------------------------------ */

static const float LOG2_E = 1.4426950408889634f;

/* scale · s, capped; *ret_slope is the cap's derivative. tanh(x) = 1 − 2/(1 + e^2x): its absolute error is what matters here. */
static __device__ __forceinline__ float logit_of(float s, float scale, float softcap, float *ret_slope)
{
	s *= scale;
	*ret_slope = 1;
	if (softcap > 0) {
		float t = 1 - 2 / (1 + exp2_fast(2 * LOG2_E * s / softcap));
		*ret_slope = 1 - t * t;
		s = softcap * t;
	}
	return s;
}

/* ---- host side --------------------------------------------------------------------------------------------------------------- */

/* Sizes and strides that the kernels get by value. */
struct attention_shape {
	int tokens, heads, kv_heads, dim;
	float scale, softcap;
	int window;
	bool plain;     /* q·k are logits but for their scale: nothing is capped */
	float exponent; /* what logits, or, where they are plain, q·k, are multiplied by to be exponents of 2 */
};

static inline struct attention_shape shape_of(const struct attention *a)
{
	int window = a->window < a->tokens ? (int)a->window : 0;
	bool plain = !(a->softcap > 0) && a->scale > 0;
	float exponent = plain ? a->scale * LOG2_E : LOG2_E;
	return {a->tokens, a->heads, a->kv_heads, a->head_dim, a->scale, a->softcap, window, plain, exponent};
}

/* Whether every head of t can be read 16 bytes at a time. */
static inline bool heads_chunked(const struct tensor &t, int head_dim)
{
	int64_t size = (int64_t)dtype_size(t.dtype);
	return (uintptr_t)t.data % 16 == 0 && t.stride * size % 16 == 0 && head_dim * size % 16 == 0;
}

/* A tensor of all heads; head() and rows() of a sequence narrow it in the kernel. */
template <typename T> struct heads_view {
	T *data;
	int64_t stride;
	bool chunked;

	__device__ __forceinline__ head_view<T> head(int64_t first_row, int head, int dim) const
	{
		return {data + first_row * stride + (int64_t)head * dim, stride, chunked};
	}
};

template <typename T> static inline heads_view<T> heads_of(const struct tensor &t, int head_dim)
{
	return {(T *)t.data, t.stride, heads_chunked(t, head_dim)};
}

/* Calls f(T{}, DIM, SMALL) with the element type, the head size rounded up to a tile's, and whether the device lacks the shared
 * memory for the larger tiles, which take FITS<T, DIM>::SHARED bytes. */
template <template <typename, int> class FITS, typename F>
static inline enum status attention_dispatch(struct cuda *c, enum dtype dtype, int head_dim, F f)
{
	auto by_memory = [&](auto t, auto dim) {
		constexpr size_t SHARED = FITS<decltype(t), decltype(dim)::value>::SHARED;
		if constexpr (SHARED > SHARED_LEAST)
			if (SHARED > c->shared_memory) return f(t, dim, std::true_type());
		return f(t, dim, std::false_type());
	};
	auto by_dim = [&](auto t) {
		if (head_dim <= 64) return by_memory(t, std::integral_constant<int, 64>());
		if (head_dim <= 128) return by_memory(t, std::integral_constant<int, 128>());
		if (head_dim <= 256) return by_memory(t, std::integral_constant<int, 256>());
		return cuda_refuse(c, STATUS_UNSUPPORTED, "heads of %d elements: 256 is the most", head_dim);
	};
	if (dtype == DTYPE_BF16) return by_dim(bf16{});
	if (dtype == DTYPE_F16) return by_dim(f16{});
	return by_dim(0.0f);
}

#endif
