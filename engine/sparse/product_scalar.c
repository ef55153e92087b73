/* Products with some vectors at once, and of codes, as they are meant: for processors without AVX2, and what the others are held
 * against. */
#include "engine/compute/half.h"
#include "engine/sparse/kernels.h"

/* The value at place `at` of a row. */
static int code_at(const uint8_t *row, int bits, int64_t at)
{
	return bits == 8 ? row[at] : row[at / 2] >> 4 * (at % 2) & 15;
}

static float weight_at(const struct sparse_matrix *matrix, int64_t i, int64_t j, const uint8_t *row, int64_t at)
{
	const struct sparse_grids *grids = &matrix->grids;
	if (!grids->bits) return bf16_to_f32(((const uint16_t *)row)[at]);
	int64_t group = i * grids->groups + j / grids->group;
	int zero = grids->zeros ? grids->zeros[group] : 1 << (grids->bits - 1);
	return (float)(code_at(row, grids->bits, at) - zero) * grids->steps[group];
}

/* Row i; returns how many bytes it has. */
static int64_t multiply_row(const struct sparse_matrix *matrix, int64_t i, const uint8_t *row, const uint16_t *x, int n, float *y)
{
	int64_t at = 0, bits = matrix->grids.bits ? matrix->grids.bits : 16;
	for (int k = 0; k < n; k++)
		y[k * matrix->rows + i] = 0;
	for (int64_t w = 0; w < matrix->words; w++) {
		uint64_t word = matrix->mask ? matrix->mask[i * matrix->words + w] : dense_word(matrix, w);
		for (; word; word &= word - 1) {
			int64_t j = w * SPARSE_WORD + __builtin_ctzll(word);
			float weight = weight_at(matrix, i, j, row, at++);
			for (int k = 0; k < n; k++)
				y[k * matrix->rows + i] += weight * bf16_to_f32(x[(w * n + k) * SPARSE_WORD + j % SPARSE_WORD]);
		}
	}
	return matrix->mask ? (at * bits + 7) / 8 : matrix->row_bytes;
}

void product_scalar(const struct sparse_matrix *matrix, const uint16_t *x, int n, float *y, int64_t first, int64_t last)
{
	for (int64_t block = first; block < last; block++) {
		const uint8_t *row = sparse_block_bytes(matrix, block);
		for (int64_t i = block * matrix->block_rows; i < sparse_block_end(matrix, block); i++)
			row += multiply_row(matrix, i, row, x, n, y);
	}
}
