/* How far a job is, and when it will end: work is counted in token-blocks, one token's forward through one block. */
#ifndef BESAD_ENGINE_PROGRESS_H
#define BESAD_ENGINE_PROGRESS_H

#include "engine/engine.h"

struct progress {
	const struct engine_sink *sink;
	const char *phase;
	int block, blocks;
	double total, done; /* work of the whole job, and what is behind it */
	double resumed;     /* of `done`, what earlier attempts did */
	double started;     /* monotonic seconds */
};

void progress_start(struct progress *, const struct engine_sink *, int blocks, double total, double resumed);
void progress_phase(struct progress *, const char *phase); /* a string literal */
void progress_add(struct progress *, double work);         /* reports */
void progress_resume(struct progress *, double work);      /* the same of what an earlier attempt did */

#endif
