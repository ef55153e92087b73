/* AVX2: eight packed values are put where eight bits of the bitmap are set by a shuffle, whose indices are looked up; sixteen at a time, whose even
 * and odd ones become fp32 numbers by a shift and a mask. x is kept as fp32 numbers in that order, so that a row costs no conversion of it. */
#include <immintrin.h>
#include <stdbool.h>

#include "engine/compute/half.h"
#include "engine/sparse/kernels.h"

#define TARGET __attribute__((target("avx2,fma,popcnt")))
enum { LANES = 8, PIECE = 512, AHEAD = 4096 }; /* values of a register; words of the bitmap; bytes */

/* The bytes of element j where the bits are m: those of the value that as many set bits come before, or zero. */
#define FROM(m, j) ((m) >> (j)&1 ? 2 * __builtin_popcount((m) & ((1 << (j)) - 1)) : 0x80)
#define ELEMENT(m, j) FROM(m, j), ((m) >> (j)&1 ? FROM(m, j) + 1 : 0x80)
#define INDICES(m)                                                                                                                 \
	{                                                                                                                          \
		ELEMENT(m, 0), ELEMENT(m, 1), ELEMENT(m, 2), ELEMENT(m, 3), ELEMENT(m, 4), ELEMENT(m, 5), ELEMENT(m, 6),           \
			ELEMENT(m, 7)                                                                                              \
	}
#define INDICES_4(m) INDICES(m), INDICES((m) + 1), INDICES((m) + 2), INDICES((m) + 3)
#define INDICES_16(m) INDICES_4(m), INDICES_4((m) + 4), INDICES_4((m) + 8), INDICES_4((m) + 12)
#define INDICES_64(m) INDICES_16(m), INDICES_16((m) + 16), INDICES_16((m) + 32), INDICES_16((m) + 48)
static const uint8_t indices[256][16]
	__attribute__((aligned(16))) = {INDICES_64(0), INDICES_64(64), INDICES_64(128), INDICES_64(192)};

static inline TARGET __m256 to_floats(__m128i halves)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16));
}

static inline TARGET __m256 load_floats(const uint16_t *halves)
{
	return to_floats(_mm_loadu_si128((const __m128i *)halves));
}

/* Two times eight packed values. */
static inline TARGET __m256i load_two(const void *low, const void *high)
{
	__m256i both = _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)low));
	return _mm256_inserti128_si256(both, _mm_loadu_si128((const __m128i *)high), 1);
}

/* fp32 numbers of the even ones of sixteen columns, and of the odd ones. */
static inline TARGET __m256 evens(__m256i halves)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(halves, 16));
}

static inline TARGET __m256 odds(__m256i halves)
{
	return _mm256_castsi256_ps(_mm256_and_si256(halves, _mm256_set1_epi32((int)0xffff0000)));
}

/* x as add_word has it: of each sixteen columns the even ones, then the odd ones. */
static TARGET void widen(const uint16_t *x, int64_t words, float *ret)
{
	for (int64_t j = 0; j < words * SPARSE_WORD; j += 2 * LANES) {
		__m256i halves = _mm256_loadu_si256((const __m256i *)(x + j));
		_mm256_store_ps(ret + j, evens(halves));
		_mm256_store_ps(ret + j + LANES, odds(halves));
	}
}

/* Adds the products of a word of the bitmap; returns behind its values. */
static inline TARGET const uint16_t *add_word(uint64_t word, const uint16_t *values, const float *x, __m256 *even, __m256 *odd)
{
	_mm_prefetch((const char *)values + AHEAD, _MM_HINT_T0);
	for (int k = 0; k < SPARSE_WORD; k += 2 * LANES) {
		unsigned low = word >> k & 0xff, high = word >> (k + LANES) & 0xff;
		const uint16_t *next = values + __builtin_popcount(low);
		__m256i spread = _mm256_shuffle_epi8(load_two(values, next), load_two(indices[low], indices[high]));
		*even = _mm256_fmadd_ps(evens(spread), _mm256_load_ps(x + k), *even);
		*odd = _mm256_fmadd_ps(odds(spread), _mm256_load_ps(x + k + LANES), *odd);
		values = next + __builtin_popcount(high);
	}
	return values;
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
	int64_t w = 0;
	for (; w + 2 <= words; w += 2) {
		at = add_word(mask[w], at, x + w * SPARSE_WORD, &sums[0], &sums[1]);
		at = add_word(mask[w + 1], at, x + (w + 1) * SPARSE_WORD, &sums[2], &sums[3]);
	}
	if (w < words) at = add_word(mask[w], at, x + w * SPARSE_WORD, &sums[0], &sums[1]);
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
