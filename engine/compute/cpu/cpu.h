/* What the files of the CPU backend share. An operation gets operands that are checked (engine/compute/ops.c), shares the work
 * out over the threads (engine/compute/cpu/crew.h), and runs a kernel (engine/compute/cpu/kernels.h) on each share. One of a dry
 * backend returns once it has its scratch memory. */
#ifndef BESAD_ENGINE_CPU_CPU_H
#define BESAD_ENGINE_CPU_CPU_H

#include "engine/compute/backend.h"
#include "engine/compute/cpu/crew.h"
#include "engine/compute/cpu/kernels.h"

struct matmul_cache;

struct cpu_backend {
	struct backend base; /* first: a struct backend * of this backend is a struct cpu_backend * */
	const struct cpu_kernels *kernels;
	bool bf16_kernels; /* whether those of attention_bf16.c and product_bf16.c may be used */
	struct crew *crew; /* once something was shared out */
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

enum { CPU_CHUNK_ELEMENTS = 16384 };

/* Does `work` on [0, n), `chunk` at a time. (backend.c) */
void cpu_run(struct cpu_backend *, int64_t n, int64_t chunk, crew_work *work, const void *context);

/* The same for n rows (columns, elements) that have so many elements in all: as many at a time as take some 20 µs, a multiple of
 * `grain`. */
static inline void cpu_share_out(struct cpu_backend *cpu, int64_t n, int64_t grain, int64_t elements, crew_work *work,
				 const void *context)
{
	int64_t chunks = elements / CPU_CHUNK_ELEMENTS + 1, chunk = (n + chunks - 1) / chunks;
	cpu_run(cpu, n, chunk > grain ? (chunk + grain - 1) / grain * grain : grain, work, context);
}

enum { CPU_PIECE_WORK = 2500000 }; /* multiplications of a piece of a product, at least: some 50 µs of one thread */

/* Into how many pieces a product of m × n × k is worth being cut; 0 where it is less than one. */
static inline int64_t cpu_pieces_of_product(int64_t m, int64_t n, int64_t k)
{
	return m * n / CPU_PIECE_WORK * k + m * n % CPU_PIECE_WORK * k / CPU_PIECE_WORK;
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
