/* Products of small fp32 matrices whose result lies in registers: BLOCK_ROWS × BLOCK_COLS of it at a time. */
#ifndef BESAD_ENGINE_CPU_ISA_PRODUCT_H
#define BESAD_ENGINE_CPU_ISA_PRODUCT_H

#include "engine/compute/cpu/isa/lanes.h"
#include "engine/compute/cpu/row_cases.h"

/* Rows times two vectors of sums fill the registers, but for two vectors of B and one factor of A. */
#if defined __AVX512F__
enum { BLOCK_ROWS = 12 };
#else
enum { BLOCK_ROWS = 6 };
#endif
enum { BLOCK_COLS = 2 * LANES };

/* Where operands lie: in the first-level cache, or further away. */
enum distance { NEAR, FAR };

/* C [rows, BLOCK_COLS] = A · B (+ `from`, which may be C or NULL) over the inner range, rows ≤ BLOCK_ROWS; A is read through two
 * strides, so that it may be transposed. Of what is FAR, C is fetched for the stores at the end, and B some rows ahead. */
INLINE void product_block(enum distance distance, int rows, const float *a, int64_t a_row, int64_t a_inner, const float *b,
			  int64_t b_row, int inner, const float *from, int64_t from_row, float *c, int64_t c_row)
{
	enum { AHEAD = 8 };
	vector sum[BLOCK_ROWS][2];
	if (distance == FAR && !from) {
#pragma GCC unroll 12
		for (int i = 0; i < rows; i++) {
			__builtin_prefetch(c + i * c_row, 1);
			__builtin_prefetch(c + i * c_row + BLOCK_COLS - 1, 1);
		}
	}
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++) {
		sum[i][0] = from ? *(const vector *)(from + i * from_row) : (vector){0};
		sum[i][1] = from ? *(const vector *)(from + i * from_row + LANES) : (vector){0};
	}
	for (int k = 0; k < inner; k++) {
		vector left = *(const vector *)(b + k * b_row), right = *(const vector *)(b + k * b_row + LANES);
		if (distance == FAR) {
			__builtin_prefetch(b + (k + AHEAD) * b_row);
			__builtin_prefetch(b + (k + AHEAD) * b_row + BLOCK_COLS - 1);
		}
#pragma GCC unroll 12
		for (int i = 0; i < rows; i++) {
			float factor = a[i * a_row + k * a_inner];
			sum[i][0] += factor * left;
			sum[i][1] += factor * right;
		}
	}
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++) {
		*(vector *)(c + i * c_row) = sum[i][0];
		*(vector *)(c + i * c_row + LANES) = sum[i][1];
	}
}

/* The same for a number of rows that is no constant. */
static inline void product_some_rows(enum distance distance, int rows, const float *a, int64_t a_row, int64_t a_inner,
				     const float *b, int64_t b_row, int inner, const float *from, int64_t from_row, float *c,
				     int64_t c_row)
{
	switch (rows) {
#define CASE(n)                                                                                                                    \
	case n:                                                                                                                    \
		product_block(distance, n, a, a_row, a_inner, b, b_row, inner, from, from_row, c, c_row);                          \
		break;
#if defined __AVX512F__
		CASES_TO_12
#else
		CASES_TO_6
#endif
#undef CASE
	}
}

#endif
