/* What products of bf16 are made of where the processor has AVX512_BF16; x86-64-v4 alone does not.
 *
 * vdpbf16ps adds the products of two neighbours along the inner dimension. Of the left operand these are a word of a row that is
 * broadcast, of the right one each column's two lie next to each other. What is called "paired" is that: rows 2i and 2i + 1 of a
 * matrix, one word for each column. Everything here is static, as in engine/compute/cpu/isa/isa.h. */
#ifndef BESAD_ENGINE_CPU_BF16_H
#define BESAD_ENGINE_CPU_BF16_H

#include <immintrin.h>
#include <stdbool.h>
#include <stdint.h>

#define TARGET __attribute__((target("arch=x86-64-v4,avx512bf16,prefer-vector-width=512")))
#define INLINE static inline TARGET __attribute__((always_inline))

#include "engine/compute/cpu/transpose.h"

enum {
	LANES = 16,
	BLOCK_ROWS = 12,
	BLOCK_COLS = 2 * LANES, /* a block's sums take 24 of 32 registers */
};

/* A pair of neighbours in a row, wherever it lies. */
typedef uint32_t word __attribute__((may_alias, aligned(2)));

/* sum [rows] of two vectors += A · B over `pairs` of the inner range. Of A a word is a pair; strides are in words. B is paired. */
INLINE void add_products_of_pairs(int rows, __m512 sum[BLOCK_ROWS][2], const word *a, int64_t a_row, int64_t a_pair,
				  const uint32_t *b, int64_t b_pair, int64_t pairs)
{
	for (int64_t k = 0; k < pairs; k++) {
		__m512bh left = (__m512bh)_mm512_loadu_si512(b + k * b_pair);
		__m512bh right = (__m512bh)_mm512_loadu_si512(b + k * b_pair + LANES);
#pragma GCC unroll 12
		for (int i = 0; i < rows; i++) {
			__m512bh factor = (__m512bh)_mm512_set1_epi32((int)a[i * a_row + k * a_pair]);
			sum[i][0] = _mm512_dpbf16_ps(sum[i][0], factor, left);
			sum[i][1] = _mm512_dpbf16_ps(sum[i][1], factor, right);
		}
	}
}

/* Lanes of 16 words, from `first` on, that a row of so many has. */
INLINE __mmask16 words_left(int64_t words, int64_t first)
{
	return words - first >= LANES ? 0xffff : (__mmask16)((1u << (words - first)) - 1);
}

INLINE __mmask32 halves_left(int64_t halves, int64_t first)
{
	return halves - first >= 2 * LANES ? 0xffffffff : (__mmask32)((UINT32_C(1) << (halves - first)) - 1);
}

/* Words of (even, odd) from two rows of 32: the first 16 columns, and the others. */
INLINE void pair_halves(__m512i even, __m512i odd, __m512i ret[2])
{
	const __m512i first = _mm512_set_epi32(0x2f000f, 0x2e000e, 0x2d000d, 0x2c000c, 0x2b000b, 0x2a000a, 0x290009, 0x280008,
					       0x270007, 0x260006, 0x250005, 0x240004, 0x230003, 0x220002, 0x210001, 0x200000);
	const __m512i second = _mm512_add_epi16(first, _mm512_set1_epi16(LANES));
	ret[0] = _mm512_permutex2var_epi16(even, first, odd);
	ret[1] = _mm512_permutex2var_epi16(even, second, odd);
}

#endif
