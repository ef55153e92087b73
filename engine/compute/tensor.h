/* What a tensor is: a row-major matrix of one element type, somewhere a backend can reach it. */
#ifndef BESAD_ENGINE_TENSOR_H
#define BESAD_ENGINE_TENSOR_H

#include <stddef.h>
#include <stdint.h>

enum dtype { DTYPE_F32, DTYPE_BF16, DTYPE_F16, DTYPE_F64, DTYPE_I64, DTYPE_I32, DTYPE_U16, DTYPE_U8 };

static inline size_t dtype_size(enum dtype dtype)
{
	static const unsigned char sizes[] = {4, 2, 2, 8, 8, 4, 2, 1}; /* as they are listed above */
	return sizes[dtype];
}

/* A view; it owns nothing. Element (i, j) is `data[i * stride + j]`. `data` is a host pointer for the CPU backend and a device
 * pointer for the CUDA backend: only the backend that allocated it may look at it. */
struct tensor {
	void *data;
	int64_t rows, cols;
	int64_t stride; /* elements from one row to the next, >= cols */
	enum dtype dtype;
};

static inline struct tensor tensor_make(void *data, int64_t rows, int64_t cols, enum dtype dtype)
{
	return (struct tensor){data, rows, cols, cols, dtype};
}

/* A tensor whose rows do not start at addresses a power of two apart: rows of 512 or 1024 floats fall on a few sets of a cache,
 * and products of such matrices run at half speed. */
static inline struct tensor tensor_padded(void *data, int64_t rows, int64_t cols, enum dtype dtype)
{
	struct tensor tensor = tensor_make(data, rows, cols, dtype);
	int64_t line = 64 / (int64_t)dtype_size(dtype);
	if (cols % (8 * line) == 0) tensor.stride += line;
	return tensor;
}

/* The memory it takes, gaps included. */
static inline size_t tensor_room(const struct tensor *t)
{
	return (size_t)t->rows * (size_t)t->stride * dtype_size(t->dtype);
}

static inline size_t tensor_bytes(const struct tensor *t) /* of a tensor without gaps */
{
	return (size_t)t->rows * (size_t)t->cols * dtype_size(t->dtype);
}

/* `count` rows from `first` on. */
static inline struct tensor tensor_rows(struct tensor t, int64_t first, int64_t count)
{
	t.data = (char *)t.data + (size_t)(first * t.stride) * dtype_size(t.dtype);
	t.rows = count;
	return t;
}

/* The diagonal of a square matrix, as a column: its elements lie a row and one apart. */
static inline struct tensor tensor_diagonal(struct tensor t)
{
	return (struct tensor){t.data, t.rows, 1, t.stride + 1, t.dtype};
}

/* `count` columns from `first` on; the stride stays. */
static inline struct tensor tensor_cols(struct tensor t, int64_t first, int64_t count)
{
	t.data = (char *)t.data + (size_t)first * dtype_size(t.dtype);
	t.cols = count;
	return t;
}

#endif
