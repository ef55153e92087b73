/* What the walk's own end gives, before the output is read again: how well a few sequences of the calibration are predicted by
 * the hidden states that came out of the last pruned block. The self-check compares it with what the files of the output give
 * (engine/job/self_check.h). */
#ifndef BESAD_ENGINE_END_LOSS_H
#define BESAD_ENGINE_END_LOSS_H

#include "engine/prune/walk.h"

/* How many sequences, the first of the calibration: one in 32, but four at most and one at least; 0 without a calibration. */
int64_t end_loss_sequences(const struct spec *);

/* Minus the mean log-probability of their next tokens, with the outputs of the last block in w->input; NaN where it is not
 * finite, or their tokens are not known. In a rehearsal it takes the memory alone. */
enum status end_loss(struct walk *, double *ret, struct error *err);

#endif
