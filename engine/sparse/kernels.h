/* The kernels of each instruction set (matvec.h). */
#ifndef BESAD_ENGINE_SPARSE_KERNELS_H
#define BESAD_ENGINE_SPARSE_KERNELS_H

#include "engine/sparse/matvec.h"

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

#endif
