/* AVX2: eight packed values are put where eight bits of the bitmap are set by a shuffle, whose indices are looked up. */
#include <immintrin.h>

#include "engine/compute/half.h"
#include "engine/sparse/kernels.h"

#define TARGET __attribute__((target("avx2,fma,popcnt")))
enum { LANES = 8 }; /* values of a register */

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

/* Adds the products of eight columns; returns behind their values. */
static inline TARGET const uint16_t *add_byte(unsigned bits, const uint16_t *values, const uint16_t *x, __m256 *sum)
{
	__m128i packed = _mm_loadu_si128((const __m128i *)values);
	__m128i spread = _mm_shuffle_epi8(packed, _mm_load_si128((const __m128i *)indices[bits]));
	*sum = _mm256_fmadd_ps(to_floats(spread), load_floats(x), *sum);
	return values + __builtin_popcount(bits);
}

static inline TARGET float add_up(__m256 a, __m256 b)
{
	__m256 sum = _mm256_add_ps(a, b);
	__m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
	__m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
	return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

static TARGET void sparse(const struct sparse_matrix *matrix, const uint16_t *x, float *y, int64_t first, int64_t last)
{
	for (int64_t block = first; block < last; block++) {
		const uint16_t *values = sparse_block_values(matrix, block);
		for (int64_t i = block * matrix->block_rows; i < sparse_block_end(matrix, block); i++) {
			__m256 a = _mm256_setzero_ps(), b = a;
			for (int64_t w = 0; w < matrix->words; w++) {
				uint64_t bits = matrix->mask[i * matrix->words + w];
				const uint16_t *at = x + w * SPARSE_WORD;
				for (int k = 0; k < SPARSE_WORD; k += 2 * LANES) {
					values = add_byte(bits >> k & 0xff, values, at + k, &a);
					values = add_byte(bits >> (k + LANES) & 0xff, values, at + k + LANES, &b);
				}
			}
			y[i] = add_up(a, b);
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

const struct matvec_kernels matvec_avx2 = {"avx2", sparse, dense};
