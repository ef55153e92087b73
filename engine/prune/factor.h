/* The upper triangular U with UᵀU = A⁻¹, of a Gram matrix of inputs with something on its diagonal: what SparseGPT's errors
 * spread by, and half of an inverse. */
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
	struct tensor tiles;         /* F32 [C, FACTOR_TILE]: the tiles on the diagonal of the matrix at hand, as they were */
	struct tensor diagonal;      /* F32 [C,1] */
	void *bad;                   /* I32 */
	float *host;                 /* [C] */
	bool *dead;                  /* [C]: columns of zeros, which get next to nothing on the diagonal */
};

/* What became of the damping of a Gram matrix. */
struct damping {
	double asked, used; /* more where fp32 did not find the matrix positive definite */
	int64_t dead;       /* columns that are zero, in a matrix that is not */
};

enum status factor_create(struct backend *, int64_t cols, struct factor *ret, struct error *err);
void factor_release(struct factor *);

/* The functions below fill backend->error. */

/* factor->host = the diagonal of a square matrix, and *ret its mean: STATUS_NUMERIC where that is not finite. */
enum status factor_diagonal(struct factor *, struct tensor matrix, double *ret);

/* factor->u [C,C], in its upper left part, from `a` F32 [C,C] + λ·1; `a` is overwritten. λ, at first *lambda, grows tenfold
 * until that is positive definite in fp32; *lambda is what it came to. STATUS_NUMERIC where FACTOR_TRIES were not enough. */
enum status factor_damped(struct factor *, struct tensor a, double *lambda);

enum { FACTOR_TRIES = 10 };

/* The same of a Gram matrix, λ being `dampening` times the mean of its diagonal to begin with. A column of nothing but zeros
 * gets 10⁻⁶ of that, so that to lose its weights, which change no output, costs less than to lose others. A matrix of nothing
 * but zeros counts as the unit matrix. */
enum status factor_compute(struct factor *, struct tensor gram, double dampening, struct damping *ret);

/* factor->host = the diagonal of u, of `cols` columns. */
enum status factor_read_diagonal(struct factor *, int64_t cols);

/* The part of u on the columns [first, first + count) from row `row` on, `rows` of them. */
static inline struct tensor factor_part(const struct factor *factor, int64_t row, int64_t rows, int64_t first, int64_t count)
{
	return tensor_cols(tensor_rows(factor->u, row, rows), first, count);
}

#endif
