/* AVX2: products with some vectors at once, and of codes. A piece of a row becomes fp32 numbers, which are multiplied with all vectors: eight at a
 * time, put where eight bits of the bitmap are set by vpermd, whose indices are looked up. Codes are multiplied by their step here, which rounds
 * once more than the kernels of AVX-512 do. */
#include <immintrin.h>
#include <string.h>

#include "engine/sparse/kernels.h"

#define FEATURES "avx2,fma,popcnt"
#define TARGET __attribute__((target(FEATURES)))
#define INLINE static inline __attribute__((always_inline, target(FEATURES)))
enum { LANES = 8, PIECE = 8 }; /* words of the bitmap */

/* Of element j where the bits are m: how many set bits come before. */
#define ELEMENT(m, j) __builtin_popcount((m) & ((1 << (j)) - 1))
#define INDICES(m)                                                                                                                 \
	{                                                                                                                          \
		ELEMENT(m, 0), ELEMENT(m, 1), ELEMENT(m, 2), ELEMENT(m, 3), ELEMENT(m, 4), ELEMENT(m, 5), ELEMENT(m, 6),           \
			ELEMENT(m, 7)                                                                                              \
	}
#define INDICES_4(m) INDICES(m), INDICES((m) + 1), INDICES((m) + 2), INDICES((m) + 3)
#define INDICES_16(m) INDICES_4(m), INDICES_4((m) + 4), INDICES_4((m) + 8), INDICES_4((m) + 12)
#define INDICES_64(m) INDICES_16(m), INDICES_16((m) + 16), INDICES_16((m) + 32), INDICES_16((m) + 48)
static const uint8_t indices[256][LANES]
	__attribute__((aligned(8))) = {INDICES_64(0), INDICES_64(64), INDICES_64(128), INDICES_64(192)};

INLINE __m256i load_bytes(const uint8_t *bytes)
{
	return _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)bytes));
}

/* The next eight values: codes, or the bits of fp32 numbers. */
INLINE __m256i load_values(int bits, const uint8_t *row, int64_t at)
{
	if (bits == 16) return _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(row + 2 * at))), 16);
	if (bits == 8) return load_bytes(row + at);
	uint64_t codes;
	memcpy(&codes, row + at / 2, sizeof codes);
	const __m256i shifts = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
	return _mm256_and_si256(_mm256_srlv_epi32(_mm256_set1_epi32((int)(codes >> 4 * (at % 2))), shifts), _mm256_set1_epi32(15));
}

/* All ones where a bit is set. */
INLINE __m256i ones(unsigned byte)
{
	const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
	return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)byte), each), each);
}

/* Steps and zero points of eight columns. */
struct scale {
	__m256 steps;
	__m256i zeros;
};

/* Columns [column, column + 8) of row i; beyond the last column the last group counts. */
INLINE struct scale find_scale(const struct sparse_matrix *matrix, int64_t i, int64_t column)
{
	const struct sparse_grids *grids = &matrix->grids;
	int64_t group = column / grids->group, first = i * grids->groups;
	int middle = 1 << (grids->bits - 1);
	if ((column + LANES - 1) / grids->group == group || group == grids->groups - 1) {
		int zero = grids->zeros ? grids->zeros[first + group] : middle;
		return (struct scale){_mm256_set1_ps(grids->steps[first + group]), _mm256_set1_epi32(zero)};
	}
	float steps[LANES];
	int zeros[LANES];
	for (int k = 0; k < LANES; k++) {
		group = (column + k) / grids->group < grids->groups ? (column + k) / grids->group : grids->groups - 1;
		steps[k] = grids->steps[first + group];
		zeros[k] = grids->zeros ? grids->zeros[first + group] : middle;
	}
	return (struct scale){_mm256_loadu_ps(steps), _mm256_loadu_si256((const __m256i *)zeros)};
}

/* The words [first, last) of row i as fp32 numbers; returns where the next value is. */
INLINE int64_t load_piece(int bits, bool sparse, const struct sparse_matrix *matrix, int64_t i, const uint8_t *row, int64_t at,
			  int64_t first, int64_t last, float *ret)
{
	for (int64_t w = first; w < last; w++) {
		uint64_t word = sparse ? matrix->mask[i * matrix->words + w] : dense_word(matrix, w);
		for (int k = 0; k < SPARSE_WORD; k += LANES, ret += LANES) {
			unsigned byte = word >> k & 0xff;
			if (!byte) {
				_mm256_storeu_ps(ret, _mm256_setzero_ps());
				continue;
			}
			__m256i values = load_values(bits, row, at), where = ones(byte);
			if (sparse) values = _mm256_permutevar8x32_epi32(values, load_bytes(indices[byte]));
			if (bits == 16) {
				_mm256_storeu_ps(ret, _mm256_castsi256_ps(_mm256_and_si256(values, where)));
			} else {
				const struct scale scale = find_scale(matrix, i, w * SPARSE_WORD + k);
				values = _mm256_and_si256(_mm256_sub_epi32(values, scale.zeros), where);
				_mm256_storeu_ps(ret, _mm256_mul_ps(_mm256_cvtepi32_ps(values), scale.steps));
			}
			at += sparse ? __builtin_popcount(byte) : LANES;
		}
	}
	return at;
}

static TARGET int64_t load_any(const struct sparse_matrix *matrix, int64_t i, const uint8_t *row, int64_t at, int64_t first,
			       int64_t last, float *ret)
{
	switch (matrix->grids.bits) {
	case 0:
		return matrix->mask ? load_piece(16, true, matrix, i, row, at, first, last, ret)
				    : load_piece(16, false, matrix, i, row, at, first, last, ret);
	case 8:
		return matrix->mask ? load_piece(8, true, matrix, i, row, at, first, last, ret)
				    : load_piece(8, false, matrix, i, row, at, first, last, ret);
	default:
		return matrix->mask ? load_piece(4, true, matrix, i, row, at, first, last, ret)
				    : load_piece(4, false, matrix, i, row, at, first, last, ret);
	}
}

INLINE __m256 load_floats(const uint16_t *halves)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)halves)), 16));
}

static TARGET float dot(const float *weights, const uint16_t *x, int64_t words)
{
	__m256 a = _mm256_setzero_ps(), b = a;
	for (int64_t j = 0; j < words * SPARSE_WORD; j += 2 * LANES) {
		a = _mm256_fmadd_ps(_mm256_loadu_ps(weights + j), load_floats(x + j), a);
		b = _mm256_fmadd_ps(_mm256_loadu_ps(weights + j + LANES), load_floats(x + j + LANES), b);
	}
	__m256 sum = _mm256_add_ps(a, b);
	__m128 four = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
	__m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
	return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

/* Row i; returns how many bytes it has. */
static TARGET int64_t multiply_row(const struct sparse_matrix *matrix, int64_t i, const uint8_t *row, const uint16_t *x, int n,
				   float *y)
{
	float piece[PIECE * SPARSE_WORD];
	int64_t at = 0, bits = matrix->grids.bits ? matrix->grids.bits : 16;
	for (int k = 0; k < n; k++)
		y[k * matrix->rows + i] = 0;
	for (int64_t first = 0; first < matrix->words; first += PIECE) {
		int64_t last = first + PIECE < matrix->words ? first + PIECE : matrix->words;
		at = load_any(matrix, i, row, at, first, last, piece);
		for (int k = 0; k < n; k++)
			y[k * matrix->rows + i] +=
				dot(piece, x + k * matvec_length(matrix->cols) + first * SPARSE_WORD, last - first);
	}
	return matrix->mask ? (at * bits + 7) / 8 : matrix->row_bytes;
}

TARGET void product_avx2(const struct sparse_matrix *matrix, const uint16_t *x, int n, float *y, int64_t first, int64_t last)
{
	for (int64_t block = first; block < last; block++) {
		const uint8_t *row = sparse_block_bytes(matrix, block);
		for (int64_t i = block * matrix->block_rows; i < sparse_block_end(matrix, block); i++)
			row += multiply_row(matrix, i, row, x, n, y);
	}
}
