/* The steps of a training: which calibration sequences each takes, and its learning rate. */
#ifndef BESAD_ENGINE_SCHEDULE_H
#define BESAD_ENGINE_SCHEDULE_H

#include <stdint.h>

#include "base/error.h"

struct schedule {
	int64_t sequences, batch; /* of the calibration; of a step */
	int64_t steps;
	double rate; /* the highest */
	uint64_t seed;
	int64_t *order; /* the sequences as they come in an epoch: `epoch`, -1 for none yet */
	int64_t epoch;
	int64_t *chosen; /* [batch] */
};

/* For up to `sequences`, in batches of 1 to as many. */
enum status schedule_create(int64_t sequences, int64_t batch, double rate, struct schedule *ret, struct error *err);
void schedule_release(struct schedule *);

/* As many whole steps as there are in `epochs`. */
void schedule_begin(struct schedule *, int64_t sequences, int epochs, uint64_t seed);

/* It rises over the first twentieth of the steps, and falls to 0 along a cosine. Steps count from 0. */
double schedule_rate(const struct schedule *, int64_t step);

/* The sequences of a step, valid until the next call: each epoch has an order of its own, which the seed gives, and what is left
 * of one begins a batch with the first of the next. */
const int64_t *schedule_choose(struct schedule *, int64_t step);

#endif
