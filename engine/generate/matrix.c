#include "engine/generate/matrix.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/compute/half.h"
#include "engine/model/model.h"

/* From this share of zeros on leaving them out pays: docs/measured.md has what products take. */
static const double worth_leaving_out = 0.3;

static int64_t aligned(int64_t bytes)
{
	return (bytes + SPARSE_ALIGNMENT - 1) / SPARSE_ALIGNMENT * SPARSE_ALIGNMENT;
}

int64_t matrix_bytes(const struct matrix *matrix)
{
	int64_t weights = matrix->rows * matrix->cols;
	if (matrix->wide) return weights * (int64_t)sizeof *matrix->wide;
	return matrix->dense ? weights * (int64_t)sizeof *matrix->dense : sparse_bytes(&matrix->sparse);
}

int64_t matrix_memory(int64_t rows, int64_t cols, enum dtype type, enum matrix_choice choice)
{
	int64_t dense = aligned(rows * cols * (int64_t)dtype_size(type) + SPARSE_SLACK);
	if (type == DTYPE_F32 || choice == MATRIX_DENSE) return dense;
	/* As if nothing were zero: bitmaps, values, and for each block of rows an offset and what alignment wastes. */
	int64_t words = (cols + SPARSE_WORD - 1) / SPARSE_WORD, blocks = rows / SPARSE_BLOCK_ROWS + 2;
	return aligned(dense + rows * words * (int64_t)sizeof(uint64_t) + blocks * (SPARSE_ALIGNMENT + (int64_t)sizeof(int64_t)) +
		       2 * SPARSE_ALIGNMENT + SPARSE_SLACK);
}

static void widen(struct tensor weights, float *to)
{
	int64_t count = weights.rows * weights.cols;
	if (weights.dtype == DTYPE_F32)
		memcpy(to, weights.data, (size_t)count * sizeof *to);
	else
		for (int64_t i = 0; i < count; i++)
			to[i] = half_load(weights.data, weights.dtype, i);
}

static struct matrix make_wide(struct tensor weights, char **memory)
{
	struct matrix matrix = {.rows = weights.rows, .cols = weights.cols, .wide = (float *)*memory};
	widen(weights, (float *)*memory);
	matrix.zeros = count_zero_weights(weights.data, weights.dtype, weights.rows * weights.cols);
	*memory += aligned(weights.rows * weights.cols * (int64_t)sizeof *matrix.wide);
	return matrix;
}

/* Of weights in bf16. */
static struct matrix make_half(const uint16_t *weights, int64_t rows, int64_t cols, enum matrix_choice choice, char **memory)
{
	struct matrix matrix = {.rows = rows, .cols = cols, .zeros = count_zero_weights(weights, DTYPE_BF16, rows * cols)};
	bool pays = (double)matrix.zeros >= worth_leaving_out * (double)(rows * cols);
	if (choice == MATRIX_SPARSE || (choice == MATRIX_AUTO && pays)) {
		matrix.sparse = sparse_pack(weights, rows, cols, *memory);
		*memory += sparse_memory(weights, rows, cols);
		return matrix;
	}
	size_t bytes = (size_t)(rows * cols) * sizeof *weights;
	memcpy(*memory, weights, bytes);
	matrix.dense = (uint16_t *)*memory;
	*memory += aligned((int64_t)bytes + SPARSE_SLACK);
	return matrix;
}

enum status matrix_make(struct tensor weights, enum dtype type, enum matrix_choice choice, char **memory, struct matrix *ret,
			struct error *err)
{
	int64_t count = weights.rows * weights.cols;
	if (type == DTYPE_F32) {
		*ret = make_wide(weights, memory);
		return STATUS_OK;
	}
	if (weights.dtype == DTYPE_BF16) {
		*ret = make_half(weights.data, weights.rows, weights.cols, choice, memory);
		return STATUS_OK;
	}
	uint16_t *rounded = malloc((size_t)count * sizeof *rounded + 1);
	if (!rounded) return error_set(err, STATUS_NO_MEMORY, "no memory to round a matrix of %" PRId64 " weights", count);
	for (int64_t i = 0; i < count; i++)
		rounded[i] = bf16_from_f32(half_load(weights.data, weights.dtype, i));
	*ret = make_half(rounded, weights.rows, weights.cols, choice, memory);
	free(rounded);
	return STATUS_OK;
}

static void multiply_some(const struct matrix *matrix, float *y, struct tensor x, uint16_t *room, int threads)
{
	struct sparse_matrix weights = matrix->dense ? dense_matrix(matrix->dense, matrix->rows, matrix->cols) : matrix->sparse;
	matvec_inputs(matvec_kernels(0), &weights, x.data, (int)x.rows, room);
	sparse_matmul(&weights, room, (int)x.rows, y, threads);
}

enum status matrix_multiply(const struct matrix *matrix, struct backend *backend, struct tensor y, struct tensor x, uint16_t *room)
{
	if (matrix->wide) {
		/* What is multiplied is only read. */
		struct tensor weights = tensor_make((void *)matrix->wide, matrix->rows, matrix->cols, DTYPE_F32);
		return backend->ops->matmul(backend, y, x, false, weights, true, false);
	}
	if (x.rows > 1) {
		multiply_some(matrix, y.data, x, room, backend->threads);
		return STATUS_OK;
	}
	matvec_input(x.data, matrix->cols, room);
	if (matrix->dense)
		dense_matvec(matrix->dense, matrix->rows, matrix->cols, room, y.data, backend->threads);
	else
		sparse_matvec(&matrix->sparse, room, y.data, backend->threads);
	return STATUS_OK;
}
