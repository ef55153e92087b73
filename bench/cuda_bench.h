/* What the benchmarks of the CUDA backend share: a clock, failures, the order of measurements. */
#ifndef BESAD_BENCH_CUDA_BENCH_H
#define BESAD_BENCH_CUDA_BENCH_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "engine/compute/backend.h"

static struct backend *backend;

/* Seconds. */
static inline double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline void check(enum status status)
{
	if (status == STATUS_OK) return;
	fprintf(stderr, "%s\n", backend->error.message);
	exit(1);
}

/* Of doubles, for qsort. */
static inline int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

#endif
