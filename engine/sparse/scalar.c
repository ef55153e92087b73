/* For processors without AVX2, and what the others are held against. */
#include "engine/compute/half.h"
#include "engine/sparse/kernels.h"

static void sparse(const struct sparse_matrix *matrix, const uint16_t *x, float *y, int64_t first, int64_t last)
{
	for (int64_t block = first; block < last; block++) {
		const uint16_t *value = sparse_block_values(matrix, block);
		for (int64_t i = block * matrix->block_rows; i < sparse_block_end(matrix, block); i++) {
			float sum = 0;
			for (int64_t w = 0; w < matrix->words; w++)
				for (uint64_t bits = matrix->mask[i * matrix->words + w]; bits; bits &= bits - 1)
					sum += bf16_to_f32(*value++) * bf16_to_f32(x[w * SPARSE_WORD + __builtin_ctzll(bits)]);
			y[i] = sum;
		}
	}
}

static void dense(const uint16_t *weights, int64_t cols, const uint16_t *x, float *y, int64_t first, int64_t last)
{
	for (int64_t i = first; i < last; i++) {
		float sum = 0;
		for (int64_t j = 0; j < cols; j++)
			sum += bf16_to_f32(weights[i * cols + j]) * bf16_to_f32(x[j]);
		y[i] = sum;
	}
}

const struct matvec_kernels matvec_scalar = {"scalar", sparse, dense, product_scalar, NULL};
