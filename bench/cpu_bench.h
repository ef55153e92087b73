/* What the benchmarks of the CPU backend share: a clock, failures, memory. */
#ifndef BESAD_BENCH_CPU_BENCH_H
#define BESAD_BENCH_CPU_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/compute/backend.h"

static struct backend *backend;

/* Seconds; of CPU time on one thread, which a busy machine disturbs less. */
static inline double now(void)
{
	struct timespec t;
	clock_gettime(backend->threads == 1 ? CLOCK_PROCESS_CPUTIME_ID : CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void check(enum status status)
{
	if (status == STATUS_OK) return;
	fprintf(stderr, "%s\n", backend->error.message);
	exit(1);
}

static inline void *allocate(size_t bytes)
{
	void *memory;
	check(backend->ops->alloc(backend, bytes, &memory));
	check(backend->ops->zero(backend, memory, bytes));
	return memory;
}

#endif
