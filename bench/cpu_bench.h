/* What the benchmarks of the CPU backend share: a clock, failures, memory, matrices. */
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

/* A matrix as `shape`, which is without data, with values from −1 to 1, the same in each run. */
static inline struct tensor random_matrix(struct tensor shape)
{
	static uint64_t state = 1;
	struct tensor values = tensor_make(NULL, shape.rows, shape.cols, DTYPE_F32);
	values.data = allocate(tensor_bytes(&values));
	for (int64_t i = 0; i < shape.rows * shape.cols; i++) {
		state = state * 6364136223846793005u + 1442695040888963407u;
		((float *)values.data)[i] = (float)(int32_t)(state >> 32) * 0x1p-31f;
	}
	shape.data = allocate(tensor_room(&shape));
	check(backend->ops->convert(backend, shape, values));
	backend->ops->release(backend, values.data);
	return shape;
}

#endif
