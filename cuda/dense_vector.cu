/* A dense matrix and one vector: what cuda/sparse.cu is to beat beside cuBLAS. A warp has a row, and reads 16 bytes a lane, four
 * times at once. */
#include "cuda/launch.cuh"
#include "cuda/sparse.h"

enum { WARPS = 8, AT_ONCE = 4 };

static __device__ __forceinline__ float add_products(float sum, uint32_t a, uint32_t b)
{
	sum += __uint_as_float(a << 16) * __uint_as_float(b << 16);
	return sum + __uint_as_float(a & 0xffff0000u) * __uint_as_float(b & 0xffff0000u);
}

__global__ void __launch_bounds__(32 * WARPS)
	dense_vector_kernel(float *y, const uint16_t *__restrict__ x, const uint16_t *w, int64_t stride, int64_t rows, int64_t cols)
{
	int64_t row = (int64_t)blockIdx.x * WARPS + threadIdx.x / 32;
	float sum = 0;
	if (row >= rows) return;
	for (int64_t first = (int64_t)threadIdx.x % 32 * 8; first < cols; first += 32 * 8 * AT_ONCE) {
		uint4 weights[AT_ONCE], inputs[AT_ONCE];
#pragma unroll
		for (int i = 0; i < AT_ONCE; i++) {
			int64_t col = first + i * 32 * 8;
			weights[i] = col < cols ? *(const uint4 *)(w + row * stride + col) : make_uint4(0, 0, 0, 0);
			inputs[i] = col < cols ? *(const uint4 *)(x + col) : make_uint4(0, 0, 0, 0);
		}
#pragma unroll
		for (int i = 0; i < AT_ONCE; i++) {
			sum = add_products(sum, weights[i].x, inputs[i].x);
			sum = add_products(sum, weights[i].y, inputs[i].y);
			sum = add_products(sum, weights[i].z, inputs[i].z);
			sum = add_products(sum, weights[i].w, inputs[i].w);
		}
	}
	sum = warp_reduce(sum, plus{});
	if (threadIdx.x % 32 == 0) y[row] = sum;
}

extern "C" enum status cuda_dense_product(struct backend *backend, struct tensor y, struct tensor x, struct tensor w)
{
	struct cuda *c = cuda_begin(backend, "dense_product", {y, x, w});
	if (w.dtype != DTYPE_BF16 || x.dtype != DTYPE_BF16 || y.dtype != DTYPE_F32 || x.rows != 1 || y.rows != 1 ||
	    x.cols != w.cols || y.cols != w.rows || !cuda_chunked({x, w}))
		return cuda_refuse(c, STATUS_INVALID, "one vector of whole chunks of 8 is multiplied");
	if (w.rows == 0) return STATUS_OK;
	return LAUNCH(c, dense_vector_kernel, dim3((unsigned)index_ceil_div(w.rows, WARPS)), dim3(32 * WARPS), 0, (float *)y.data,
		      (const uint16_t *)x.data, (const uint16_t *)w.data, w.stride, w.rows, w.cols);
}
