/* A matrix of weights as decoding multiplies it, by one vector or a few: in F32, or in bf16 by the kernels of engine/sparse/,
 * dense or with its zeros left out. */
#ifndef BESAD_ENGINE_GENERATE_MATRIX_H
#define BESAD_ENGINE_GENERATE_MATRIX_H

#include "engine/compute/backend.h"
#include "engine/sparse/matvec.h"

/* Which matrices leave their zeros out: those where that pays, none, or all. In F32 none can. */
enum matrix_choice { MATRIX_AUTO, MATRIX_DENSE, MATRIX_SPARSE };

struct matrix {
	int64_t rows, cols;
	const float *wide;     /* F32 [rows, cols]; NULL: it is in bf16, … */
	const uint16_t *dense; /* … [rows, cols]; NULL: … */
	struct sparse_matrix sparse;
	int64_t zeros;
};

/* The bytes that a product reads of it. */
int64_t matrix_bytes(const struct matrix *);

/* The memory that a matrix of that size takes at most, in `type`: F32 or BF16. A multiple of SPARSE_ALIGNMENT. */
int64_t matrix_memory(int64_t rows, int64_t cols, enum dtype type, enum matrix_choice);

/* Makes one of `weights`, any float without gaps, in *memory, which is aligned to SPARSE_ALIGNMENT and moves on behind it; it
 * must stay. F32 holds the same numbers, bf16 the nearest. STATUS_NO_MEMORY. */
enum status matrix_make(struct tensor weights, enum dtype type, enum matrix_choice, char **memory, struct matrix *ret,
			struct error *err);

/* y = x·Wᵀ, F32 without gaps: [n, rows] and [n, cols], n up to SPARSE_VECTORS. `room` has n · matvec_length(cols) elements.
 * Fills the backend's error. */
enum status matrix_multiply(const struct matrix *, struct backend *, struct tensor y, struct tensor x, uint16_t *room);

#endif
