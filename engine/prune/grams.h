/* The Gram matrices XᵀX of what goes into the products of a block, a fused matrix after the other, so that each can be taken
 * behind those that are pruned already. */
#ifndef BESAD_ENGINE_GRAMS_H
#define BESAD_ENGINE_GRAMS_H

#include "engine/methods/method.h"
#include "engine/prune/factor.h"

struct grams {
	struct block *block;
	void *memory;        /* device: of the fused matrix whose take most */
	struct tensor *gram; /* [layout.n_products]: F32 [C,C]; those of one fused matrix hold at a time */
	int64_t *tokens;     /* [layout.n_products]: the inputs that went into each */
	void *diagonal;      /* device F32, of the most columns */
	enum fused fused;    /* the one whose hold */
	bool all;            /* every one holds, of one pass */
};

enum status grams_create(struct block *, struct grams *ret, struct error *err);
void grams_release(struct grams *);

/* Those of the products of `fused`, settled, of the inputs that they have of the calibration with block->active as it is. A
 * product that no token reached, an expert's, has zeros. */
enum status grams_collect(struct grams *, const struct block_task *, enum fused fused, struct error *err);

/* The matrices of all products, which a method looks on for in the reference pass: the next two are its `begin` and `observe`. */
enum status grams_create_all(struct block *, struct grams *ret, struct error *err);
enum status grams_reset(struct grams *);
enum status grams_observe(struct grams *, int product, struct tensor x);

/* To be called once before such a matrix is read. T inputs of C columns are a matrix of rank T at most: where T < C, weights
 * could change at will as long as these few inputs do not notice. So what is off the diagonal then counts T/C only (a shrinkage
 * towards the diagonal as Schäfer's and Strimmer's, 2005; with none of it left, all there is to a column is its norm, as for
 * Wanda), and people are told: of experts by the one that got the fewest, else once. */
enum status grams_settle(struct grams *, const struct block_task *, int product, struct error *err);

/* Tells of what was done about the matrix of a product so that it could be inverted, where something was, and of inputs that are
 * zero, whose weights are pruned first. */
enum status grams_warn(const struct block_layout *, const struct block_task *, int product, const struct damping *,
		       struct error *err);

/* The first of these alone; `done`: what is done to the weights, "pruned". */
enum status grams_warn_of_damping(const struct block_layout *, const struct block_task *, int product, const struct damping *,
				  const char *done, struct error *err);

#endif
