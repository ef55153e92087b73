/* The upper triangular U with UᵀU = A⁻¹, of a Gram matrix of inputs with something on its diagonal: what SparseGPT's errors spread by, and half
 * of an inverse. */
#ifndef BESAD_ENGINE_FACTOR_H
#define BESAD_ENGINE_FACTOR_H

#include "engine/compute/backend.h"

/* Device memory for matrices of up to `cols` columns, used again for each. */
struct factor {
	struct backend *backend;
	int64_t cols;
	struct tensor u;             /* F32 [C,C] */
	struct tensor negated;       /* F32 [C, FACTOR_TILE]: −R⁻¹ of the tiles on the diagonal, one under the other */
	struct tensor column, minus; /* F32 [C, FACTOR_TILE]: of what is right of, or above, a tile */
	struct tensor diagonal;      /* F32 [C,1] */
	void *bad;                   /* I32 */
	float *host;                 /* [C] */
};

enum status factor_create(struct backend *, int64_t cols, struct factor *ret, struct error *err);
void factor_release(struct factor *);

/* The functions below fill backend->error. */

/* factor->host = the diagonal of a square matrix, and *ret its mean: STATUS_NUMERIC where that is not finite. */
enum status factor_diagonal(struct factor *, struct tensor matrix, double *ret);

/* factor->u [C,C], in its upper left part, from `a` F32 [C,C] + λ·1; `a` is overwritten. *ret_good says whether that was positive definite in
 * fp32; u means nothing where it was not. */
enum status factor_try(struct factor *, struct tensor a, double lambda, bool *ret_good);

/* The same of a Gram matrix, λ being `dampening` times the mean of its diagonal; STATUS_NUMERIC where that is not enough.
 * A Gram matrix of nothing but zeros counts as the unit matrix. */
enum status factor_compute(struct factor *, struct tensor gram, double dampening);

/* The part of u on the columns [first, first + count) from row `row` on, `rows` of them. */
static inline struct tensor factor_part(const struct factor *factor, int64_t row, int64_t rows, int64_t first, int64_t count)
{
	return tensor_cols(tensor_rows(factor->u, row, rows), first, count);
}

#endif
