/* |weight × gradient| of a block's reconstruction loss, summed over the sequences of the calibration.
 *
 * The dense block gives its reference, where that loss is at its least and has no gradient. So the reference is moved: each
 * output of a token by plus or minus the norm of its channel, by chance. The gradient at the dense weights is then, up to a
 * factor, that of Σ ±y/‖Y‖, and the square of weight times gradient is on average what the loss, to second order, is after the
 * weight goes. Signs are the same for each sequence, of each block and of each job. */
#ifndef BESAD_ENGINE_SALIENCY_H
#define BESAD_ENGINE_SALIENCY_H

#include "engine/methods/method.h"

struct saliency {
	struct block *block;
	const atomic_bool *stop;
	struct tensor score[FUSED_COUNT]; /* F32, as block.weight */
	struct tensor gradient;           /* F32: room for the largest product's */
	struct activations activations;
	struct tensor signs, y, dy; /* F32 [T,H] */
	void *squares, *inverse;    /* F64 [H], F32 [H]: of the norms of the channels of y */
	double *host_squares;       /* [H], and behind it F32 [H] of the inverse */
};

enum status saliency_create(const struct method_setup *, struct saliency *ret, struct error *err);
void saliency_release(struct saliency *); /* takes one that is zeroed, or was not created whole */

/* The scores of the block of the task, which is active as it is in the file. */
enum status saliency_find(struct saliency *, const struct block_task *, struct error *err);

/* What that takes, in forward passes of the calibration. */
enum { SALIENCY_PASSES = 3 };

#endif
