/* BESA's learning with safeguards: no block ends with a larger loss than equal rates give it. */
#ifndef BESAD_ENGINE_BESA_SAFE_H
#define BESAD_ENGINE_BESA_SAFE_H

#include "engine/methods/besa/learn.h"

/* As besa_learn, but what is learned is compared, by the loss of the whole calibration and with exactly the target's zeros, with
 * where it started, all rates the target, and, where that may be better, with the best on the way; the best is in rates
 * [layout.rows] and in the mask, and set. *ret_start is the loss of the start. Tells as warnings what went wrong. */
enum status besa_learn_safely(struct besa *, struct mask *, const struct block_task *, const atomic_bool *stop, float *rates,
			      double *ret_start, struct error *err);

/* What it costs beside the steps, in forward passes of the calibration. */
enum { SAFE_PASSES = 2 };

#endif
