/* Quantization with feedback (GPTQ, Frantar et al., arXiv 2210.17323): the columns of a linear go to their grids one after the
 * other, and what a weight loses there is made up for, on the calibration, by the weights of its row to the right. A weight that
 * is zero stays zero; it is a column whose grid is 0 alone, so that what it was to make up for goes on to those that stay. */
#ifndef BESAD_ENGINE_FEEDBACK_H
#define BESAD_ENGINE_FEEDBACK_H

#include "engine/model/layout.h"
#include "engine/prune/factor.h"

/* Device memory for every linear of a block, used again for each. */
struct feedback {
	struct backend *backend;
	struct factor factor;
	void *support, *nearest; /* F32, each of the largest linear */
	void *error;             /* F32 [the most rows, PRUNE_COLUMNS] */
};

/* On failure there is nothing to release. */
enum status feedback_create(struct backend *, const struct block_layout *, struct feedback *ret, struct error *err);
void feedback_release(struct feedback *);

/* The functions below fill backend->error. */

/* What goes into the linears that follow: G [C,C], which is overwritten. As factor_compute. */
enum status feedback_begin(struct feedback *, struct tensor gram, struct damping *ret);

/* weight F32 [R,C] onto its grids, in place. These are as `quantize` finds them, of the weights as they come; steps, zeros F32
 * [R, C / grid->group] receive them. */
enum status feedback_quantize(struct feedback *, const struct grid *, struct tensor weight, struct tensor steps,
			      struct tensor zeros);

#endif
