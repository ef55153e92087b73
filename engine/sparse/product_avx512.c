/* AVX-512: products with some vectors at once, and of codes. A word of the bitmap becomes two registers of 32 weights in bf16,
 * which are used for all vectors; of codes these are code − zero, which bf16 holds exactly, and the sum of each group is
 * multiplied by its step. Where no bit is set stands the code of 0.
 *
 * Codes of 8 bits are put into fp32 numbers as their last byte: behind 0x4b0000 that is 2^23 + code, of which 2^23 + zero is
 * subtracted. Those of 4 are looked up in a table of the group, of 16 numbers. Either leaves the columns of a word in another
 * order, in which x has them (input_avx512); so no instruction is spent on theirs. */
#include <immintrin.h>

#include "engine/sparse/kernels.h"

#define FEATURES "avx512f,avx512bw,avx512vl,avx512vbmi,avx512vbmi2,avx512bf16,popcnt"
#define TARGET __attribute__((target(FEATURES)))
#define INLINE static inline __attribute__((always_inline, target(FEATURES)))
enum { AHEAD = 4096, QUARTER = 16, HALF = 32 }; /* bytes; columns */

/* What a kernel is compiled for. */
struct variant {
	int bits; /* 16: bf16 */
	bool sparse;
	bool even; /* no group ends within a word */
	int vectors;
};

/* The weights of a word, where its bits are set; zeros elsewhere. */
struct weights {
	__m512i low, high;
};

/* What the codes of a word stand for. Four of its columns belong to a lane of a sum, sixteen, a quarter, to a group, or more. */
struct scale {
	__m512 steps;
	__m512i fill;      /* the code of 0, in bytes */
	__m512 bias;       /* of 8 bits: 2^23 + that */
	__m512i tables[2]; /* of 4 bits: what code c of quarter 0 (2) stands for, and, from 16 on, of quarter 1 (3) */
};

/* bf16 numbers from −15 to 15. */
static const uint16_t whole_numbers[] = {0xc170, 0xc160, 0xc150, 0xc140, 0xc130, 0xc120, 0xc110, 0xc100, 0xc0e0, 0xc0c0, 0xc0a0,
					 0xc080, 0xc040, 0xc000, 0xbf80, 0,      0x3f80, 0x4000, 0x4040, 0x4080, 0x40a0, 0x40c0,
					 0x40e0, 0x4100, 0x4110, 0x4120, 0x4130, 0x4140, 0x4150, 0x4160, 0x4170};
enum { ZERO_AMONG = 15 };

INLINE int zero_of(const struct sparse_matrix *matrix, int64_t group)
{
	return matrix->grids.zeros ? matrix->grids.zeros[group] : 1 << (matrix->grids.bits - 1);
}

INLINE __m256i table_of(int zero)
{
	return _mm256_loadu_si256((const __m256i *)(whole_numbers + ZERO_AMONG - (zero & 15)));
}

INLINE __m512i two_tables(int even, int odd)
{
	return _mm512_inserti64x4(_mm512_castsi256_si512(table_of(even)), table_of(odd), 1);
}

/* Of a word that is all in one group. */
INLINE void scale_evenly(const struct variant variant, const struct sparse_matrix *matrix, int64_t group, struct scale *ret)
{
	int zero = zero_of(matrix, group);
	ret->steps = _mm512_set1_ps(matrix->grids.steps[group]);
	ret->fill = _mm512_set1_epi8((char)zero);
	if (variant.bits == 8)
		ret->bias = _mm512_set1_ps(0x1p23f + (float)zero);
	else
		ret->tables[0] = _mm512_broadcast_i64x4(table_of(zero));
}

/* Each quarter in a group of its own, counted from the first of all rows. */
INLINE void scale_quarters(const struct variant variant, const struct sparse_matrix *matrix, const int64_t groups[4],
			   struct scale *ret)
{
	const __m512i quarters = _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0);
	const float *steps = matrix->grids.steps;
	const int zeros[4] = {zero_of(matrix, groups[0]), zero_of(matrix, groups[1]), zero_of(matrix, groups[2]),
			      zero_of(matrix, groups[3])};
	__m512i numbers =
		_mm512_permutexvar_epi32(quarters, _mm512_castsi128_si512(_mm_setr_epi32(zeros[0], zeros[1], zeros[2], zeros[3])));
	ret->steps = _mm512_permutexvar_ps(quarters, _mm512_castps128_ps512(_mm_setr_ps(steps[groups[0]], steps[groups[1]],
											steps[groups[2]], steps[groups[3]])));
	ret->fill = _mm512_mullo_epi32(numbers, _mm512_set1_epi32(0x01010101));
	if (variant.bits == 8) {
		ret->bias = _mm512_add_ps(_mm512_cvtepi32_ps(numbers), _mm512_set1_ps(0x1p23f));
	} else {
		ret->tables[0] = two_tables(zeros[0], zeros[1]);
		ret->tables[1] = two_tables(zeros[2], zeros[3]);
	}
}

/* Registers that were just cleared: see avx512.c. */
INLINE __m512i cleared(void)
{
	__m512i zeros = _mm512_setzero_si512();
	__asm__("" : "+v"(zeros));
	return zeros;
}

INLINE struct weights load_halves(const struct variant variant, const uint8_t *row, int64_t at, uint64_t bits)
{
	const uint16_t *values = (const uint16_t *)row + at;
	uint32_t low = (uint32_t)bits, high = (uint32_t)(bits >> HALF);
	if (!variant.sparse)
		return (struct weights){_mm512_maskz_loadu_epi16(low, values), _mm512_maskz_loadu_epi16(high, values + HALF)};
	const uint16_t *next = values + __builtin_popcount(low);
	return (struct weights){_mm512_mask_expand_epi16(cleared(), low, _mm512_loadu_si512(values)),
				_mm512_mask_expand_epi16(cleared(), high, _mm512_loadu_si512(next))};
}

/* The codes of a word, a byte each. What a register held before: see avx512.c. */
INLINE __m512i spread(__m512i codes, uint64_t bits, const struct scale *scale)
{
	__m512i fill = scale->fill;
	__asm__("" : "+v"(fill));
	return _mm512_mask_expand_epi8(fill, bits, codes);
}

INLINE __m512i load_bytes(const struct variant variant, const uint8_t *row, int64_t at, uint64_t bits, const struct scale *scale)
{
	__m512i codes = _mm512_loadu_si512(row + at);
	return variant.sparse ? spread(codes, bits, scale) : codes;
}

/* Bytes 4k to 4k + 7 to the k-th eight, of which the k-th eight codes of 4 bits are taken, from its first or its second on. */
static const uint8_t eights[64]
	__attribute__((aligned(64))) = {0,  1,  2,  3,  4,  5,  6,  7,  4,  5,  6,  7,  8,  9,  10, 11, 8,  9,  10, 11, 12, 13,
					14, 15, 12, 13, 14, 15, 16, 17, 18, 19, 16, 17, 18, 19, 20, 21, 22, 23, 20, 21, 22, 23,
					24, 25, 26, 27, 24, 25, 26, 27, 28, 29, 30, 31, 28, 29, 30, 31, 32, 33, 34, 35};
static const uint64_t shifts[2] = {UINT64_C(0x1c1814100c080400), UINT64_C(0x201c1814100c0804)};

/* The lower half of each byte is a code; the other may be anything. */
INLINE __m512i load_nibbles(const struct variant variant, const uint8_t *row, int64_t at, uint64_t bits, const struct scale *scale)
{
	if (!variant.sparse) {
		__m512i words = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(row + at / 2)));
		return _mm512_or_si512(words, _mm512_slli_epi16(words, 4));
	}
	__m512i packed = _mm512_permutexvar_epi8(_mm512_load_si512(eights), _mm512_loadu_si512(row + at / 2));
	__m512i codes = _mm512_multishift_epi64_epi8(_mm512_set1_epi64((long long)shifts[at % 2]), packed);
	return spread(codes, bits, scale);
}

/* code − zero of a byte of each lane, the lowest, in fp32. */
INLINE __m512 number(__m512i codes, const struct scale *scale)
{
	const __m512i byte = _mm512_set1_epi32(255), exponent = _mm512_set1_epi32(0x4b000000);
	enum { A_AND_B_OR_C = 0xea };
	return _mm512_sub_ps(_mm512_castsi512_ps(_mm512_ternarylogic_epi32(codes, byte, exponent, A_AND_B_OR_C)), scale->bias);
}

/* The bf16 numbers that two of fp32 are, as they are exact. */
INLINE __m512i pair(__m512 low, __m512 high)
{
	return _mm512_or_si512(_mm512_srli_epi32(_mm512_castps_si512(low), 16), _mm512_castps_si512(high));
}

/* Of each lane's four columns the first two, and the last two. */
INLINE struct weights from_bytes(__m512i codes, const struct scale *scale)
{
	return (struct weights){pair(number(codes, scale), number(_mm512_srli_epi32(codes, 8), scale)),
				pair(number(_mm512_srli_epi32(codes, 16), scale), number(_mm512_srli_epi32(codes, 24), scale))};
}

/* Words of which the lowest five bits count. */
INLINE __m512i look_up(const struct variant variant, __m512i codes, const struct scale *scale)
{
	const __m512i odd_quarters =
		_mm512_set_epi64(0x0010001000100010, 0x0010001000100010, 0, 0, 0x0010001000100010, 0x0010001000100010, 0, 0);
	enum { A_AND_B_OR_C = 0xea };
	if (variant.even) return _mm512_permutexvar_epi16(codes, scale->tables[0]);
	codes = _mm512_ternarylogic_epi32(codes, _mm512_set1_epi16(15), odd_quarters, A_AND_B_OR_C);
	return _mm512_mask_permutexvar_epi16(_mm512_permutexvar_epi16(codes, scale->tables[0]), 0xffff0000, codes,
					     scale->tables[1]);
}

/* The even columns, and the odd ones. */
INLINE struct weights from_nibbles(const struct variant variant, __m512i codes, const struct scale *scale)
{
	return (struct weights){look_up(variant, codes, scale), look_up(variant, _mm512_srli_epi16(codes, 8), scale)};
}

INLINE struct weights load_weights(const struct variant variant, const uint8_t *row, int64_t at, uint64_t bits,
				   const struct scale *scale)
{
	if (variant.bits == 16) return load_halves(variant, row, at, bits);
	if (variant.bits == 8) return from_bytes(load_bytes(variant, row, at, bits, scale), scale);
	return from_nibbles(variant, load_nibbles(variant, row, at, bits, scale), scale);
}

INLINE __m512 multiply(__m512 sum, __m512i weights, const uint16_t *x)
{
	return _mm512_dpbf16_ps(sum, (__m512bh)weights, (__m512bh)_mm512_loadu_si512(x));
}

/* Where a row is, and the group that the next column is in. */
struct cursor {
	int64_t group, left; /* counted from the first of all rows; and columns of it that are still to come */
	int64_t at;          /* values behind it */
};

INLINE void next_group(const struct sparse_matrix *matrix, int64_t columns, struct cursor *cursor)
{
	cursor->left -= columns;
	if (cursor->left > 0) return;
	cursor->group++;
	cursor->left = matrix->grids.group;
}

INLINE void find_scale(const struct variant variant, const struct sparse_matrix *matrix, int64_t w, struct cursor *cursor,
		       struct scale *scale)
{
	if (variant.bits == 16) return;
	if (variant.even) {
		if (cursor->left == matrix->grids.group) scale_evenly(variant, matrix, cursor->group, scale);
		next_group(matrix, SPARSE_WORD, cursor);
		return;
	}
	int64_t groups[4], last = matrix->cols - w * SPARSE_WORD;
	for (int q = 0; q < 4; q++) { /* beyond the last column the last group stays: there are no others to read */
		groups[q] = cursor->group;
		if (QUARTER * (q + 1) < last) next_group(matrix, QUARTER, cursor);
	}
	scale_quarters(variant, matrix, groups, scale);
}

/* Row i and some of n vectors. Returns how many bytes a sparse row has. */
INLINE int64_t multiply_row(const struct variant variant, const struct sparse_matrix *matrix, int64_t i, const uint8_t *row,
			    const uint16_t *x, int n, float *y)
{
	struct cursor cursor = {i * matrix->grids.groups, matrix->grids.group, 0};
	struct scale scale = {0};
	__m512 sums[16];
#pragma GCC unroll 16
	for (int k = 0; k < variant.vectors; k++)
		sums[k] = _mm512_setzero_ps();
	for (int64_t w = 0; w < matrix->words; w++) {
		uint64_t bits = variant.sparse ? matrix->mask[i * matrix->words + w] : dense_word(matrix, w);
		find_scale(variant, matrix, w, &cursor, &scale);
		const struct weights weights = load_weights(variant, row, cursor.at, bits, &scale);
		if (variant.sparse) _mm_prefetch((const char *)row + cursor.at * variant.bits / 8 + AHEAD, _MM_HINT_T0);
		cursor.at += variant.sparse ? __builtin_popcountll(bits) : SPARSE_WORD;
#pragma GCC unroll 16
		for (int k = 0; k < variant.vectors; k++) {
			const uint16_t *at = x + (w * n + k) * SPARSE_WORD;
			if (variant.bits == 16) {
				sums[k] = multiply(multiply(sums[k], weights.low, at), weights.high, at + HALF);
			} else {
				__m512 part = multiply(multiply(_mm512_setzero_ps(), weights.low, at), weights.high, at + HALF);
				sums[k] = _mm512_fmadd_ps(part, scale.steps, sums[k]);
			}
		}
	}
#pragma GCC unroll 16
	for (int k = 0; k < variant.vectors; k++)
		y[k * matrix->rows + i] = _mm512_reduce_add_ps(sums[k]);
	return (cursor.at * variant.bits + 7) / 8;
}

/* ---- the variants ------------------------------------------------------------------------------------------------------- */

typedef int64_t row_fn(const struct sparse_matrix *, int64_t i, const uint8_t *row, const uint16_t *x, int n, float *y);

#define ROW(name, bits, sparse, even, vectors)                                                                                     \
	static TARGET int64_t name##_##vectors(const struct sparse_matrix *matrix, int64_t i, const uint8_t *row,                  \
					       const uint16_t *x, int n, float *y)                                                 \
	{                                                                                                                          \
		return multiply_row((struct variant){bits, sparse, even, vectors}, matrix, i, row, x, n, y);                       \
	}
#define ROWS(name, bits, sparse, even)                                                                                             \
	ROW(name, bits, sparse, even, 1)                                                                                           \
	ROW(name, bits, sparse, even, 2)                                                                                           \
	ROW(name, bits, sparse, even, 4)                                                                                           \
	ROW(name, bits, sparse, even, 8)                                                                                           \
	ROW(name, bits, sparse, even, 16)                                                                                          \
	static row_fn *const name[] = {name##_1, name##_2, name##_4, name##_8, name##_16};

ROWS(dense_halves, 16, false, true)
ROWS(sparse_halves, 16, true, true)
ROWS(dense_bytes, 8, false, true)
ROWS(sparse_bytes_even, 8, true, true)
ROWS(dense_bytes_uneven, 8, false, false)
ROWS(sparse_bytes_uneven, 8, true, false)
ROWS(dense_nibbles, 4, false, true)
ROWS(sparse_nibbles, 4, true, true)
ROWS(dense_nibbles_uneven, 4, false, false)
ROWS(sparse_nibbles_uneven, 4, true, false)

static row_fn *const *choose(const struct sparse_matrix *matrix)
{
	bool even = matrix->grids.groups == 1 || matrix->grids.group % SPARSE_WORD == 0;
	switch (matrix->grids.bits) {
	case 0:
		return matrix->mask ? sparse_halves : dense_halves;
	case 8:
		if (even) return matrix->mask ? sparse_bytes_even : dense_bytes;
		return matrix->mask ? sparse_bytes_uneven : dense_bytes_uneven;
	default:
		if (even) return matrix->mask ? sparse_nibbles : dense_nibbles;
		return matrix->mask ? sparse_nibbles_uneven : dense_nibbles_uneven;
	}
}

/* Are groups such as the kernels know? */
static bool knows(const struct sparse_matrix *matrix)
{
	return !matrix->grids.bits || matrix->grids.groups == 1 || matrix->grids.group % QUARTER == 0;
}

int input_avx512(const struct sparse_matrix *matrix, int column)
{
	if (!knows(matrix)) return column;
	switch (matrix->grids.bits) {
	case 8:
		return column % 4 / 2 * HALF + column / 4 * 2 + column % 2;
	case 4:
		return column % 2 * HALF + column / 2;
	default:
		return column;
	}
}

TARGET void product_avx512(const struct sparse_matrix *matrix, const uint16_t *x, int n, float *y, int64_t first, int64_t last)
{
	row_fn *const *rows = choose(matrix);
	if (!knows(matrix)) {
		product_avx2(matrix, x, n, y, first, last);
		return;
	}
	for (int64_t block = first; block < last; block++) {
		const uint8_t *row = sparse_block_bytes(matrix, block);
		for (int64_t i = block * matrix->block_rows; i < sparse_block_end(matrix, block); i++) {
			int64_t bytes = 0;
			for (int k = 0, size; k < n; k += 1 << size) {
				size = 4;
				while (n - k < 1 << size)
					size--;
				bytes = rows[size](matrix, i, row, x + k * SPARSE_WORD, n, y + k * matrix->rows);
			}
			row += matrix->mask ? bytes : matrix->row_bytes;
		}
	}
}
