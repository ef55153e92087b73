/* AVX2: products with some vectors at once, and of codes. A piece of a row becomes fp32 numbers, which are multiplied with all
 * vectors: eight at a time, put where eight bits of the bitmap are set by vpermd, whose indices are looked up. Codes are
 * multiplied by their step here, which rounds once more than the kernels of AVX-512 do. */
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

/* The group that a column is in, counted from the first of all rows, and the columns from which on it is another. */
struct cursor {
	int64_t group, end, at; /* at: of the next value */
};

INLINE int zero_of(const struct sparse_matrix *matrix, int64_t group)
{
	return matrix->grids.zeros ? matrix->grids.zeros[group] : 1 << (matrix->grids.bits - 1);
}

/* To the group of a column, the first of its group or a later one; beyond the last column the last group goes on. */
INLINE void go_to(const struct sparse_matrix *matrix, int64_t column, struct cursor *cursor)
{
	if (column != cursor->end || column >= matrix->cols) return;
	cursor->group++;
	cursor->end += matrix->grids.group;
}

INLINE struct scale scale_of(const struct sparse_matrix *matrix, const struct cursor *cursor)
{
	return (struct scale){_mm256_set1_ps(matrix->grids.steps[cursor->group]),
			      _mm256_set1_epi32(zero_of(matrix, cursor->group))};
}

/* Of eight columns from `column` on, of more groups than one. */
static TARGET struct scale mix_scales(const struct sparse_matrix *matrix, int64_t column, struct cursor *cursor)
{
	float steps[LANES];
	int zeros[LANES];
	for (int k = 0; k < LANES; k++) {
		go_to(matrix, column + k, cursor);
		steps[k] = matrix->grids.steps[cursor->group];
		zeros[k] = zero_of(matrix, cursor->group);
	}
	return (struct scale){_mm256_loadu_ps(steps), _mm256_loadu_si256((const __m256i *)zeros)};
}

INLINE struct scale find_scale(const struct sparse_matrix *matrix, int64_t column, struct cursor *cursor)
{
	go_to(matrix, column, cursor);
	return column + LANES > cursor->end ? mix_scales(matrix, column, cursor) : scale_of(matrix, cursor);
}

/* Eight columns from `column` on as fp32 numbers, where bits are set. whole: their scale where that of a whole word is known, or
 * NULL. */
INLINE __m256 load_eight(int bits, bool sparse, const struct sparse_matrix *matrix, const uint8_t *row, int64_t column,
			 unsigned byte, const struct scale *whole, struct cursor *cursor)
{
	__m256i values = load_values(bits, row, cursor->at);
	cursor->at += sparse ? __builtin_popcount(byte) : LANES;
	if (sparse) values = _mm256_permutevar8x32_epi32(values, load_bytes(indices[byte]));
	if (bits == 16) return _mm256_castsi256_ps(_mm256_and_si256(values, ones(byte)));
	const struct scale scale = whole ? *whole : find_scale(matrix, column, cursor);
	values = _mm256_sub_epi32(values, scale.zeros);
	if (sparse) values = _mm256_and_si256(values, ones(byte));
	return _mm256_mul_ps(_mm256_cvtepi32_ps(values), scale.steps);
}

/* The words [first, last) of row i as fp32 numbers. Of dense codes there are numbers beyond the last column, where x is 0. */
INLINE void load_piece(int bits, bool sparse, const struct sparse_matrix *matrix, int64_t i, const uint8_t *row, int64_t first,
		       int64_t last, struct cursor *cursor, float *ret)
{
	for (int64_t w = first; w < last; w++, ret += SPARSE_WORD) {
		uint64_t word = sparse ? matrix->mask[i * matrix->words + w] : dense_word(matrix, w);
		if (bits != 16) go_to(matrix, w * SPARSE_WORD, cursor);
		if (bits != 16 && (w + 1) * SPARSE_WORD <= cursor->end) {
			const struct scale scale = scale_of(matrix, cursor);
#pragma GCC unroll 8
			for (int k = 0; k < SPARSE_WORD; k += LANES)
				_mm256_storeu_ps(ret + k,
						 load_eight(bits, sparse, matrix, row, 0, word >> k & 0xff, &scale, cursor));
			continue;
		}
		for (int k = 0; k < SPARSE_WORD; k += LANES) {
			int64_t column = w * SPARSE_WORD + k;
			__m256 numbers = _mm256_setzero_ps();
			if (column < matrix->cols)
				numbers = load_eight(bits, sparse, matrix, row, column, word >> k & 0xff, NULL, cursor);
			_mm256_storeu_ps(ret + k, numbers);
		}
	}
}

static TARGET void load_any(const struct sparse_matrix *matrix, int64_t i, const uint8_t *row, int64_t first, int64_t last,
			    struct cursor *cursor, float *ret)
{
	switch (matrix->grids.bits) {
	case 0:
		if (matrix->mask)
			load_piece(16, true, matrix, i, row, first, last, cursor, ret);
		else
			load_piece(16, false, matrix, i, row, first, last, cursor, ret);
		break;
	case 8:
		if (matrix->mask)
			load_piece(8, true, matrix, i, row, first, last, cursor, ret);
		else
			load_piece(8, false, matrix, i, row, first, last, cursor, ret);
		break;
	default:
		if (matrix->mask)
			load_piece(4, true, matrix, i, row, first, last, cursor, ret);
		else
			load_piece(4, false, matrix, i, row, first, last, cursor, ret);
	}
}

INLINE __m256 load_floats(const uint16_t *halves)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)halves)), 16));
}

/* x: the words of one of n vectors. */
static TARGET float dot(const float *weights, const uint16_t *x, int n, int64_t words)
{
	__m256 a = _mm256_setzero_ps(), b = a;
	for (int64_t w = 0; w < words; w++)
		for (int j = 0; j < SPARSE_WORD; j += 2 * LANES) {
			const float *at = weights + w * SPARSE_WORD + j;
			const uint16_t *by = x + w * n * SPARSE_WORD + j;
			a = _mm256_fmadd_ps(_mm256_loadu_ps(at), load_floats(by), a);
			b = _mm256_fmadd_ps(_mm256_loadu_ps(at + LANES), load_floats(by + LANES), b);
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
	int64_t bits = matrix->grids.bits ? matrix->grids.bits : 16;
	struct cursor cursor = {i * matrix->grids.groups, matrix->grids.group, 0};
	for (int k = 0; k < n; k++)
		y[k * matrix->rows + i] = 0;
	for (int64_t first = 0; first < matrix->words; first += PIECE) {
		int64_t last = first + PIECE < matrix->words ? first + PIECE : matrix->words;
		load_any(matrix, i, row, first, last, &cursor, piece);
		for (int k = 0; k < n; k++)
			y[k * matrix->rows + i] += dot(piece, x + (first * n + k) * SPARSE_WORD, n, last - first);
	}
	return matrix->mask ? (cursor.at * bits + 7) / 8 : matrix->row_bytes;
}

TARGET void product_avx2(const struct sparse_matrix *matrix, const uint16_t *x, int n, float *y, int64_t first, int64_t last)
{
	for (int64_t block = first; block < last; block++) {
		const uint8_t *row = sparse_block_bytes(matrix, block);
		for (int64_t i = block * matrix->block_rows; i < sparse_block_end(matrix, block); i++)
			row += multiply_row(matrix, i, row, x, n, y);
	}
}
