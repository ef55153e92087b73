/* What a job takes of a device's memory, found by a dry run of it (engine/compute/dry.h). */
#ifndef BESAD_ENGINE_REHEARSAL_H
#define BESAD_ENGINE_REHEARSAL_H

#include "engine/prune/prune.h"

struct rehearsal {
	bool fits;
	int device_streams; /* with how many of the two streams of hidden states on the device; the others live in host memory */
	size_t peak,
		available; /* bytes of device memory: the most in use at once, and what is free now and what the backend has of it */
	size_t host;       /* bytes of the streams in host memory, where that is not the device's */
};

/* `pruning`: its backend is the one that the job is to run on; `probe` and `plan` as they will be, or as large as they can be. Where a job
 * does not fit, even with no stream on the device, `peak` is what that would take. */
enum status rehearse_pruning(const struct pruning *pruning, struct rehearsal *ret, struct error *err);

/* The same before the data are there: with the largest probe that the spec allows. */
enum status rehearse_largest(const struct pruning *pruning, struct rehearsal *ret, struct error *err);

#endif
