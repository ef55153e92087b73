/* What the kernels share: typed views, 16-byte loads and stores, and reductions in a fixed order. */
#ifndef BESAD_CUDA_DEVICE_CUH
#define BESAD_CUDA_DEVICE_CUH

#include <platform.cuh>
#include <type_traits>

#include "cuda/index.h"

extern "C" {
#include "engine/compute/tensor.h"
}

/* A tensor as a kernel sees it. The element type is looked at while the kernel runs: the branch is the same for all threads and
 * costs a memory-bound kernel nothing, and one compiled kernel serves every mix of types. */
struct view {
	void *data;
	int64_t stride;
	int dtype;
};

static inline view view_of(const struct tensor &t)
{
	return {t.data, t.stride, t.dtype};
}

/* N neighbouring elements, as loaded. N is 8 (16 bytes of a 16-bit type, 32 of F32; both aligned to 16) or 1. */
template <int N> struct raw;

template <> struct raw<8> {
	uint4 low, high;
};

template <> struct raw<1> {
	uint32_t bits;
};

static __device__ __forceinline__ bool view_wide(const view &v)
{
	return v.dtype == DTYPE_F32;
}

static __device__ __forceinline__ char *view_at(const view &v, int64_t row, int64_t col)
{
	return (char *)v.data + (row * v.stride + col) * (view_wide(v) ? 4 : 2);
}

template <int N> static __device__ __forceinline__ raw<N> load_raw(const view &v, int64_t row, int64_t col)
{
	const char *p = view_at(v, row, col);
	raw<N> r;
	if constexpr (N == 8) {
		r.low = *(const uint4 *)p;
		if (view_wide(v)) r.high = ((const uint4 *)p)[1];
	} else {
		r.bits = view_wide(v) ? *(const uint32_t *)p : *(const uint16_t *)p;
	}
	return r;
}

template <int N> static __device__ __forceinline__ void unpack(const raw<N> &r, const view &v, float (&x)[N])
{
	if constexpr (N == 8) {
		const uint32_t low[4] = {r.low.x, r.low.y, r.low.z, r.low.w};
		if (view_wide(v)) {
			const uint32_t high[4] = {r.high.x, r.high.y, r.high.z, r.high.w};
#pragma unroll
			for (int i = 0; i < 4; i++) {
				x[i] = __uint_as_float(low[i]);
				x[i + 4] = __uint_as_float(high[i]);
			}
		} else if (v.dtype == DTYPE_BF16) {
#pragma unroll
			for (int i = 0; i < 4; i++) {
				x[2 * i] = to_float(bf16{(uint16_t)low[i]});
				x[2 * i + 1] = to_float(bf16{(uint16_t)(low[i] >> 16)});
			}
		} else {
#pragma unroll
			for (int i = 0; i < 4; i++) {
				x[2 * i] = to_float(f16{(uint16_t)low[i]});
				x[2 * i + 1] = to_float(f16{(uint16_t)(low[i] >> 16)});
			}
		}
	} else {
		x[0] = view_wide(v)            ? __uint_as_float(r.bits)
		       : v.dtype == DTYPE_BF16 ? to_float(bf16{(uint16_t)r.bits})
					       : to_float(f16{(uint16_t)r.bits});
	}
}

template <int N> static __device__ __forceinline__ void load(const view &v, int64_t row, int64_t col, float (&x)[N])
{
	unpack<N>(load_raw<N>(v, row, col), v, x);
}

template <int N> static __device__ __forceinline__ void store(const view &v, int64_t row, int64_t col, const float (&x)[N])
{
	char *p = view_at(v, row, col);
	if constexpr (N == 8) {
		if (view_wide(v)) {
			((float4 *)p)[0] = make_float4(x[0], x[1], x[2], x[3]);
			((float4 *)p)[1] = make_float4(x[4], x[5], x[6], x[7]);
		} else if (v.dtype == DTYPE_BF16) {
			*(uint4 *)p = make_uint4(pack_two(x[0], x[1], bf16{}), pack_two(x[2], x[3], bf16{}),
						 pack_two(x[4], x[5], bf16{}), pack_two(x[6], x[7], bf16{}));
		} else {
			*(uint4 *)p = make_uint4(pack_two(x[0], x[1], f16{}), pack_two(x[2], x[3], f16{}),
						 pack_two(x[4], x[5], f16{}), pack_two(x[6], x[7], f16{}));
		}
	} else {
		if (view_wide(v))
			*(float *)p = x[0];
		else if (v.dtype == DTYPE_BF16)
			*(bf16 *)p = from_float<bf16>(x[0]);
		else
			*(f16 *)p = from_float<f16>(x[0]);
	}
}

/* ---- reductions: the order depends on the shape alone ------------------------------------------------------------------------ */

struct plus {
	template <typename T> __device__ __forceinline__ T operator()(T a, T b) const
	{
		return a + b;
	}
};

struct greater_of {
	template <typename T> __device__ __forceinline__ T operator()(T a, T b) const
	{
		return a > b ? a : b;
	}
};

/* Over the warp; every lane gets the result. */
template <typename T, typename F> static __device__ __forceinline__ T warp_reduce(T x, F f)
{
#pragma unroll
	for (int offset = 16; offset > 0; offset /= 2)
		x = f(x, __shfl_xor_sync(0xffffffffu, x, offset));
	return x;
}

/* Over the block (whole warps, at most 32); every thread gets the result. All threads must call it. */
template <typename T, typename F> static __device__ __forceinline__ T block_reduce(T x, F f)
{
	__shared__ T partial[32];
	int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32, warps = (int)blockDim.x / 32;
	x = warp_reduce(x, f);
	__syncthreads();
	if (lane == 0) partial[warp] = x;
	__syncthreads();
	x = partial[0];
	for (int i = 1; i < warps; i++)
		x = f(x, partial[i]);
	return x;
}

/* ---- element-wise kernels: blocks of 32 × 8 threads, a warp per row, ELEMENTWISE_STEPS chunks of N columns per lane ---------- */

enum { ELEMENTWISE_ROWS = 8, ELEMENTWISE_STEPS = 4 };

static __device__ __forceinline__ int64_t elementwise_row()
{
	return (int64_t)blockIdx.x * ELEMENTWISE_ROWS + threadIdx.y;
}

template <int N> static __device__ __forceinline__ int64_t elementwise_col(int64_t span, int step)
{
	return ((span * ELEMENTWISE_STEPS + step) * 32 + threadIdx.x) * N;
}

template <int N> static __device__ __forceinline__ int64_t elementwise_col(int step)
{
	return elementwise_col<N>(blockIdx.y, step);
}

#endif
