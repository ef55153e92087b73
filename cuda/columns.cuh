/* Sums down the columns of a tall matrix: each block of threads adds up a chunk of its rows, and what the blocks came to is
 * added in order by whoever reads it, so that the same input gives the same bits. */
#ifndef BESAD_CUDA_COLUMNS_CUH
#define BESAD_CUDA_COLUMNS_CUH

#include "cuda/launch.cuh"

enum { ACROSS = 8 }; /* threads of a block that share a column; a block is (32, ACROSS) and has 32·N columns */

/* `mine`: what a thread has of its N columns, of K sums each. Into partial [chunks, K, cols] double, chunk blockIdx.x, columns from
 * blockIdx.y · 32·N on. To be called by all threads, with shared memory `sums`. */
template <int K, int N>
static __device__ void store_column_sums(double *partial, double (*sums)[ACROSS][32 * N], const double (*mine)[N], int64_t cols)
{
#pragma unroll
	for (int which = 0; which < K; which++)
#pragma unroll
		for (int j = 0; j < N; j++)
			sums[which][threadIdx.y][threadIdx.x * N + j] = mine[which][j];
	__syncthreads();
	int here = (int)(threadIdx.y * 32 + threadIdx.x);
	int64_t column = (int64_t)blockIdx.y * 32 * N + here;
	if (here >= 32 * N || column >= cols) return;
	for (int which = 0; which < K; which++) {
		double total = 0;
		for (int i = 0; i < ACROSS; i++)
			total += sums[which][i][here];
		partial[(blockIdx.x * K + which) * cols + column] = total;
	}
}

#endif
