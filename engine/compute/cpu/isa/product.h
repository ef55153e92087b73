/* Products of small fp32 matrices whose result lies in registers: BLOCK_ROWS × BLOCK_COLS of it at a time. */
#ifndef BESAD_ENGINE_CPU_ISA_PRODUCT_H
#define BESAD_ENGINE_CPU_ISA_PRODUCT_H

#include "engine/compute/cpu/isa/isa.h"
#include "engine/compute/cpu/row_cases.h"

/* Rows times two vectors of sums fill the registers, but for two vectors of B and one factor of A. */
#if defined __AVX512F__
enum { LANES = 16, BLOCK_ROWS = 12 };
#elif defined __AVX2__
enum { LANES = 8, BLOCK_ROWS = 6 };
#else
enum { LANES = 4, BLOCK_ROWS = 6 };
#endif
enum { BLOCK_COLS = 2 * LANES };

typedef float vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));

/* C [rows, BLOCK_COLS] = A · B (+ `from`, which may be C or NULL) over the inner range, rows ≤ BLOCK_ROWS; A is read through two
 * strides, so that it may be transposed. */
INLINE void product_block(int rows, const float *a, int64_t a_row, int64_t a_inner, const float *b, int64_t b_row, int inner,
			  const float *from, int64_t from_row, float *c, int64_t c_row)
{
	vector sum[BLOCK_ROWS][2];
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++) {
		sum[i][0] = from ? *(const vector *)(from + i * from_row) : (vector){0};
		sum[i][1] = from ? *(const vector *)(from + i * from_row + LANES) : (vector){0};
	}
	for (int k = 0; k < inner; k++) {
		vector left = *(const vector *)(b + k * b_row), right = *(const vector *)(b + k * b_row + LANES);
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
static inline void product_some_rows(int rows, const float *a, int64_t a_row, int64_t a_inner, const float *b, int64_t b_row,
				     int inner, const float *from, int64_t from_row, float *c, int64_t c_row)
{
	switch (rows) {
#define CASE(n)                                                                                                                    \
	case n:                                                                                                                    \
		product_block(n, a, a_row, a_inner, b, b_row, inner, from, from_row, c, c_row);                                    \
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
