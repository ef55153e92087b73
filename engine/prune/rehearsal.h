/* What a job takes of a device's memory, and of the host's, found by a dry run of it (engine/compute/dry.h). */
#ifndef BESAD_ENGINE_REHEARSAL_H
#define BESAD_ENGINE_REHEARSAL_H

#include "engine/prune/prune.h"

struct rehearsal {
	bool fits;
	int device_streams; /* with how many of the two streams of hidden states on the device; the others live in host memory */
	bool orders;        /* with the orders of ranks kept beside them, where they are of use */
	size_t peak;        /* bytes of device memory, the most in use at once */
	size_t walk, tune;  /* of it, what the walk over the blocks and the tune of the whole model need; 0 for a tune that there is
			       not */
	size_t host;        /* bytes of the streams in host memory, where that is not the device's */
	size_t process;     /* bytes of host memory in all, the most at once; the device's are among them where it has none of its
			 * own */
};

/* The device's memory that a job of this backend can have: what is free now, and what the backend has of it. */
enum status rehearsal_available(struct backend *, size_t *ret, struct error *err);

/* `pruning`: its backend is the one that the job is to run on, or a dry one of the same device; `probe` and `plan` as they will
 * be, or as large as they can be; its `device_streams` are the most,
 * and `orders` are kept where room for them moves no stream. `available`: bytes of the device. Where a job does not fit,
 * even with no stream on the device, `peak` is what that would take. */
enum status rehearse_pruning(const struct pruning *, size_t available, struct rehearsal *ret, struct error *err);

/* The same before the data are there: with the largest probe that the spec allows. */
enum status rehearse_largest(const struct pruning *, size_t available, struct rehearsal *ret, struct error *err);

/* A whole job: what `evaluate` does on the backend that it is given, the pruning, unless the spec has none, and `evaluate`
 * again. */
enum status rehearse_job(const struct pruning *, size_t available,
			 enum status (*evaluate)(void *context, struct backend *, struct error *err), void *context,
			 struct rehearsal *ret, struct error *err);

/* Where the events and the progress of a rehearsal go: nowhere. */
extern const struct engine_sink rehearsal_sink;

#endif
