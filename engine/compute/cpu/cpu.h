/* What the files of the CPU backend share. An operation gets operands that are checked (engine/compute/ops.c), shares the work
 * out over the threads in one parallel region, and runs a kernel (engine/compute/cpu/kernels.h) on each share. One of a dry
 * backend returns once it has its scratch memory. */
#ifndef BESAD_ENGINE_CPU_CPU_H
#define BESAD_ENGINE_CPU_CPU_H

#include <omp.h>

#include "engine/compute/backend.h"
#include "engine/compute/cpu/kernels.h"

struct matmul_cache;

struct cpu_backend {
	struct backend base; /* first: a struct backend * of this backend is a struct cpu_backend * */
	const struct cpu_kernels *kernels;
	bool bf16_kernels; /* whether those of attention_bf16.c and product_bf16.c may be used */
	void *scratch;     /* for the operation that runs; see cpu_scratch */
	size_t scratch_size;
	struct matmul_cache *matmuls; /* bf16 primitives by shape */
};

static inline struct cpu_backend *cpu_of(struct backend *backend)
{
	return (struct cpu_backend *)backend;
}

/* At least `bytes` of memory, 64-byte aligned, until the next call. */
enum status cpu_scratch(struct cpu_backend *, const char *operation, size_t bytes, void **ret);

/* How many threads an operation over so many elements is worth. */
static inline int cpu_threads(const struct cpu_backend *cpu, int64_t elements)
{
	return elements < 4096 ? 1 : cpu->base.threads;
}

struct share {
	int64_t first, last;
};

/* The part of [0, n) that falls to the calling thread of a parallel region; its bounds are multiples of `grain`, or n. */
static inline struct share cpu_share(int64_t n, int64_t grain)
{
	int64_t grains = (n + grain - 1) / grain, threads = omp_get_num_threads(), thread = omp_get_thread_num();
	int64_t first = grains * thread / threads * grain, last = grains * (thread + 1) / threads * grain;
	return (struct share){first < n ? first : n, last < n ? last : n};
}

/* Marks in gone [n] the `count` smallest of n scores, the earlier of equal ones. Scores are bits of non-negative floats: the
 * larger, the larger. (select.c) */
void select_smallest(struct cpu_backend *, uint8_t *gone, const uint32_t *score, int64_t n, int64_t count);

/* What matmul_bf16.c keeps. */
void cpu_matmul_release(struct cpu_backend *);

/* ---- the operations ---------------------------------------------------------------------------------------------------------- */

/* Each sets the operations of the file of that name. */
void cpu_attention_operations(struct backend_ops *);
void cpu_compensate_operations(struct backend_ops *);
void cpu_gradient_operations(struct backend_ops *);
void cpu_layer_operations(struct backend_ops *);
void cpu_learn_operations(struct backend_ops *);
void cpu_matmul_operations(struct backend_ops *);
void cpu_prune_operations(struct backend_ops *);
void cpu_quantize_operations(struct backend_ops *);
void cpu_route_operations(struct backend_ops *);
void cpu_solve_operations(struct backend_ops *);

#endif
