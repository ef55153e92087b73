/* AVX2: eight packed values become fp32 numbers where eight bits of the bitmap are set, and zeros elsewhere, by one shuffle whose
 * indices are looked up: both halves of a register hold the same sixteen bytes. x is kept as fp32 numbers too, so that a row
 * costs no conversion of it. Asking for values a page ahead, as avx512.c does, and for the bitmap takes a third off the time
 * here. */
#include <immintrin.h>
#include <stdbool.h>

#include "engine/compute/half.h"
#include "engine/sparse/kernels.h"

#define TARGET __attribute__((target("avx2,fma,popcnt")))
enum { LANES = 8, PIECE = 512, AHEAD = 4096, MASK_AHEAD = AHEAD / 8 }; /* values of a register; words of the bitmap; bytes */

/* The upper half of element j where the bits are m: the value that as many set bits come before, or zero; and the lower half,
 * zero. */
#define FROM(m, j) ((m) >> (j)&1 ? 2 * __builtin_popcount((m) & ((1 << (j)) - 1)) : 0x80)
#define ELEMENT(m, j) 0x80, 0x80, FROM(m, j), ((m) >> (j)&1 ? FROM(m, j) + 1 : 0x80)
#define INDICES(m)                                                                                                                 \
	{                                                                                                                          \
		ELEMENT(m, 0), ELEMENT(m, 1), ELEMENT(m, 2), ELEMENT(m, 3), ELEMENT(m, 4), ELEMENT(m, 5), ELEMENT(m, 6),           \
			ELEMENT(m, 7)                                                                                              \
	}
#define INDICES_4(m) INDICES(m), INDICES((m) + 1), INDICES((m) + 2), INDICES((m) + 3)
#define INDICES_16(m) INDICES_4(m), INDICES_4((m) + 4), INDICES_4((m) + 8), INDICES_4((m) + 12)
#define INDICES_64(m) INDICES_16(m), INDICES_16((m) + 16), INDICES_16((m) + 32), INDICES_16((m) + 48)
static const uint8_t indices[256][4 * LANES]
	__attribute__((aligned(32))) = {INDICES_64(0), INDICES_64(64), INDICES_64(128), INDICES_64(192)};

static inline TARGET __m256 to_floats(__m128i halves)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

static inline TARGET __m256 load_floats(const uint16_t *halves)
{
	return to_floats(_mm_loadu_si128((const __m128i *)halves));
}

static TARGET void widen(const uint16_t *x, int64_t words, float *ret)
{
	for (int64_t j = 0; j < words * SPARSE_WORD; j += LANES)
		_mm256_store_ps(ret + j, load_floats(x + j));
}

/* Values in fp32 where byte `k / 8` of a word of the bitmap has bits. */
static inline TARGET __m256 spread(uint64_t word, int k, const uint16_t *values)
{
	int before = __builtin_popcountll(word & ((UINT64_C(1) << k) - 1));
	__m256i packed = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(values + before)));
	return _mm256_castsi256_ps(_mm256_shuffle_epi8(packed, _mm256_load_si256((const __m256i *)indices[word >> k & 0xff])));
}

/* Adds the products of a word of the bitmap; returns behind its values. */
static inline TARGET const uint16_t *add_word(uint64_t word, const uint16_t *values, const float *x, __m256 sums[4])
{
	_mm_prefetch((const char *)values + AHEAD, _MM_HINT_T0);
#pragma GCC unroll 8
	for (int k = 0; k < SPARSE_WORD; k += LANES)
		sums[k / LANES % 4] = _mm256_fmadd_ps(spread(word, k, values), _mm256_load_ps(x + k), sums[k / LANES % 4]);
	return values + __builtin_popcountll(word);
}

static inline TARGET float add_up(__m256 a, __m256 b)
{
	__m256 sum = _mm256_add_ps(a, b);
	__m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
	__m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
	return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Some words of a row; moves *values on behind theirs. */
static TARGET float multiply_piece(const uint64_t *mask, int64_t words, const float *x, const uint16_t **values)
{
	__m256 sums[4] = {_mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps(), _mm256_setzero_ps()};
	const uint16_t *at = *values;
	for (int64_t w = 0; w < words; w++) {
		_mm_prefetch((const char *)(mask + w) + MASK_AHEAD, _MM_HINT_T0);
		at = add_word(mask[w], at, x + w * SPARSE_WORD, sums);
	}
	*values = at;
	return add_up(_mm256_add_ps(sums[0], sums[1]), _mm256_add_ps(sums[2], sums[3]));
}

/* x is widened once, or, where it is longer than a piece, for each row again. */
static TARGET void sparse(const struct sparse_matrix *matrix, const uint16_t *x, float *y, int64_t first, int64_t last)
{
	float wide[PIECE * SPARSE_WORD] __attribute__((aligned(32)));
	bool whole = matrix->words <= PIECE;
	if (whole) widen(x, matrix->words, wide);
	for (int64_t block = first; block < last; block++) {
		const uint16_t *values = sparse_block_values(matrix, block);
		for (int64_t i = block * matrix->block_rows; i < sparse_block_end(matrix, block); i++) {
			const uint64_t *mask = matrix->mask + i * matrix->words;
			y[i] = 0;
			for (int64_t w = 0; w < matrix->words; w += PIECE) {
				int64_t n = matrix->words - w < PIECE ? matrix->words - w : PIECE;
				if (!whole) widen(x + w * SPARSE_WORD, n, wide);
				y[i] += multiply_piece(mask + w, n, wide, &values);
			}
		}
	}
}

static TARGET void dense(const uint16_t *weights, int64_t cols, const uint16_t *x, float *y, int64_t first, int64_t last)
{
	for (int64_t i = first; i < last; i++) {
		const uint16_t *row = weights + i * cols;
		__m256 a = _mm256_setzero_ps(), b = a;
		int64_t j = 0;
		for (; j + 2 * LANES <= cols; j += 2 * LANES) {
			a = _mm256_fmadd_ps(load_floats(row + j), load_floats(x + j), a);
			b = _mm256_fmadd_ps(load_floats(row + j + LANES), load_floats(x + j + LANES), b);
		}
		float sum = add_up(a, b);
		for (; j < cols; j++)
			sum += bf16_to_f32(row[j]) * bf16_to_f32(x[j]);
		y[i] = sum;
	}
}

const struct matvec_kernels matvec_avx2 = {"avx2", sparse, dense, product_avx2, NULL};
