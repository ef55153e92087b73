/* The kernels of each instruction set (matvec.h). */
#ifndef BESAD_ENGINE_SPARSE_KERNELS_H
#define BESAD_ENGINE_SPARSE_KERNELS_H

#include "engine/sparse/matvec.h"

/* matvec_kernels' `product` and `input`. AVX-512's wants groups of a multiple of 16 columns, or one, and leaves others to
 * AVX2's. */
int input_avx512(const struct sparse_matrix *, int column);
void product_avx512(const struct sparse_matrix *, const uint16_t *x, int n, float *y, int64_t first, int64_t last);
void product_avx2(const struct sparse_matrix *, const uint16_t *x, int n, float *y, int64_t first, int64_t last);
void product_scalar(const struct sparse_matrix *, const uint16_t *x, int n, float *y, int64_t first, int64_t last);

extern const struct matvec_kernels matvec_avx512, matvec_avx2, matvec_scalar;

/* The rows of block `block`, and where its values begin. */
static inline int64_t sparse_block_end(const struct sparse_matrix *matrix, int64_t block)
{
	int64_t end = (block + 1) * matrix->block_rows;
	return end < matrix->rows ? end : matrix->rows;
}

static inline const uint16_t *sparse_block_values(const struct sparse_matrix *matrix, int64_t block)
{
	return matrix->values + matrix->offsets[block] / (int64_t)sizeof *matrix->values;
}

/* The values of a block, whatever they are. */
static inline const uint8_t *sparse_block_bytes(const struct sparse_matrix *matrix, int64_t block)
{
	const uint8_t *bytes = matrix->grids.bits ? matrix->codes : (const uint8_t *)matrix->values;
	return bytes + (matrix->mask ? matrix->offsets[block] : block * matrix->block_rows * matrix->row_bytes);
}

/* What word w of a bitmap would be without a zero. */
static inline uint64_t dense_word(const struct sparse_matrix *matrix, int64_t w)
{
	int64_t left = matrix->cols - w * SPARSE_WORD;
	return left < SPARSE_WORD ? (UINT64_C(1) << left) - 1 : UINT64_MAX;
}

#endif
