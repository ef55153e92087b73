/* What the weights of a linear that are kept become so that it gives what the dense one gave, in least squares over the
 * calibration: with G the Gram matrix of its inputs X and W its dense weights, the V that minimises ‖(V − W)·Xᵀ‖² + λ·‖V − W‖²,
 * V being zero where nothing is kept. Each row is a problem of its own, and all are solved together by conjugate gradients: a
 * step is a product and one operation (struct backend_ops.conjugate_step). After Boža, arXiv 2401.02938, which solves the same. */
#ifndef BESAD_ENGINE_LEAST_SQUARES_H
#define BESAD_ENGINE_LEAST_SQUARES_H

#include <stdatomic.h>

#include "engine/model/block.h"

struct least_squares_settings {
	int steps;      /* of conjugate gradients */
	double damping; /* λ, as a part of the mean of G's diagonal */
};

/* Device memory for every linear of a block, used again for each. */
struct least_squares {
	struct backend *backend;
	const atomic_bool *stop;
	void *room[4];           /* each of the largest linear, rows padded */
	void *energy, *diagonal; /* F32 of the most rows, and of the most columns */
	float *host;             /* of the most columns */

	/* Of the linear at hand, F32 [R,C], from least_squares_begin on. The caller fills the first two; the others are free until
	 * least_squares_solve. */
	struct tensor support; /* not zero where a weight is kept */
	struct tensor target;  /* W·G */
	struct tensor p, product;
};

enum status least_squares_create(const struct block *, const atomic_bool *stop, struct least_squares *ret, struct error *err);
void least_squares_release(struct least_squares *);

/* Bytes of a matrix of the largest linear. */
size_t least_squares_room(const struct block_layout *);

/* The functions below fill backend->error. */

/* Gives the tensors the shape of a linear [rows, cols]. */
void least_squares_begin(struct least_squares *, int64_t rows, int64_t cols);

/* target = weight · gram */
enum status least_squares_aim(struct least_squares *, struct tensor weight, struct tensor gram);

/* weight F32 [R,C], the dense one, becomes V. STATUS_CANCELLED where it is stopped, STATUS_NUMERIC where the Gram matrix is not
 * finite. */
enum status least_squares_solve(struct least_squares *, const struct least_squares_settings *, struct tensor weight,
				struct tensor gram);

#endif
