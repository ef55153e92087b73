/* Products of fp32 matrices whose result lies in registers. */
#ifndef BESAD_ENGINE_CPU_ISA_PRODUCT_H
#define BESAD_ENGINE_CPU_ISA_PRODUCT_H

#include "engine/compute/cpu/isa/lanes.h"
#include "engine/compute/cpu/row_cases.h"

/* A block's sums fill the registers, but for two vectors of B and one factor of A. */
#if defined __AVX512F__
enum { BLOCK_ROWS = 12 };
#else
enum { BLOCK_ROWS = 6 };
#endif
enum { BLOCK_COLS = 2 * LANES };

/* Where operands lie: in the first-level cache, or further away: then the right one is fetched some rows ahead, and C and `from`
 * while the sums are made. */
enum distance { NEAR, FAR };

/* C = A · B (+ `from`, which may be C or NULL) over the inner range, of so many rows and vectors of columns as have their sums
 * in registers; A is read through two strides, so that it may be transposed. `from` is added at the end, since sums that begin with
 * a large residual are rounded as it is. */
INLINE void product_block(enum distance distance, int rows, int vectors, const float *a, int64_t a_row, int64_t a_inner,
			  const float *b, int64_t b_row, int inner, const float *from, int64_t from_row, float *c, int64_t c_row)
{
	enum { AHEAD = 8 };
	register_vector sum[12][3];
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++) {
#pragma GCC unroll 3
		for (int j = 0; j < vectors; j++) {
			sum[i][j] = (register_vector){0};
			if (distance == FAR) __builtin_prefetch(c + i * c_row + j * LANES, 1);
			if (distance == FAR && from) __builtin_prefetch(from + i * from_row + j * LANES);
		}
	}
	for (int k = 0; k < inner; k++) {
		register_vector right[3];
#pragma GCC unroll 3
		for (int j = 0; j < vectors; j++) {
			right[j] = *(const vector *)(b + k * b_row + j * LANES);
			if (distance == FAR && j * LANES % 16 == 0) __builtin_prefetch(b + (k + AHEAD) * b_row + j * LANES);
		}
#pragma GCC unroll 12
		for (int i = 0; i < rows; i++) {
			float factor = a[i * a_row + k * a_inner];
#pragma GCC unroll 3
			for (int j = 0; j < vectors; j++)
				sum[i][j] += factor * right[j];
		}
	}
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++)
#pragma GCC unroll 3
		for (int j = 0; j < vectors; j++)
			*(vector *)(c + i * c_row + j * LANES) =
				from ? sum[i][j] + *(const vector *)(from + i * from_row + j * LANES) : sum[i][j];
}

#endif
