/* What the files of the CPU backend share. An operation checks its operands (engine/compute/backend_check.h), shares the work out over
 * the threads in one parallel region, and runs a kernel (engine/compute/cpu/kernels.h) on each share. */
#ifndef BESAD_ENGINE_CPU_CPU_H
#define BESAD_ENGINE_CPU_CPU_H

#include <omp.h>

#include "engine/compute/backend.h"
#include "engine/compute/backend_check.h"
#include "engine/compute/cpu/kernels.h"

struct matmul_cache;

struct cpu_backend {
	struct backend base; /* first: a struct backend * of this backend is a struct cpu_backend * */
	const struct cpu_kernels *kernels;
	void *scratch; /* for the operation that runs; see cpu_scratch */
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

/* ---- matmul.c ------------------------------------------------------------------------------------------------------------------- */

/* C = op(A) · op(B) (+ C) in fp32, row-major, single precision; from inside a parallel region it runs on the calling thread. */
enum status cpu_sgemm(struct cpu_backend *, const char *operation, bool transpose_a, bool transpose_b, int64_t m, int64_t n,
		      int64_t k, const float *a, int64_t lda, const float *b, int64_t ldb, bool accumulate, float *c, int64_t ldc);
void cpu_matmul_release(struct cpu_backend *);

/* ---- the operations --------------------------------------------------------------------------------------------------------------- */

enum status cpu_matmul(struct backend *, struct tensor c, struct tensor a, bool transpose_a, struct tensor b, bool transpose_b,
		       bool accumulate);

/* layer.c */
enum status cpu_convert(struct backend *, struct tensor to, struct tensor from);
enum status cpu_add_bias(struct backend *, struct tensor y, struct tensor bias);
enum status cpu_add(struct backend *, struct tensor y, struct tensor x);
enum status cpu_embed(struct backend *, struct tensor out, struct tensor table, const void *ids, float scale);
enum status cpu_norm_forward(struct backend *, const struct norm *, struct tensor y, struct tensor stats, struct tensor x,
			     struct tensor weight, struct tensor bias);
enum status cpu_norm_backward(struct backend *, const struct norm *, struct tensor dx, struct tensor dy, struct tensor x,
			      struct tensor stats, struct tensor weight, bool accumulate);
enum status cpu_rope(struct backend *, struct tensor x, struct tensor table, int head_dim, int rotary, bool inverse);
enum status cpu_activation_forward(struct backend *, enum activation, struct tensor y, struct tensor gate, struct tensor up);
enum status cpu_activation_backward(struct backend *, enum activation, struct tensor dgate, struct tensor dup, struct tensor dy,
				    struct tensor gate, struct tensor up);
enum status cpu_token_logprobs(struct backend *, void *out, struct tensor logits, const void *targets, float softcap);

/* attention.c */
enum status cpu_attention_forward(struct backend *, const struct attention *, struct tensor out, struct tensor lse, struct tensor q,
				  struct tensor k, struct tensor v);
enum status cpu_attention_backward(struct backend *, const struct attention *, struct tensor dq, struct tensor dk, struct tensor dv,
				   struct tensor q, struct tensor k, struct tensor v, struct tensor out, struct tensor lse,
				   struct tensor dout);

/* prune.c */
enum status cpu_route(struct backend *, const struct routing *, struct tensor weights, void *experts, void *counts, void *places,
		      void *sources, struct tensor logits);
enum status cpu_dispatch(struct backend *, struct tensor to, struct tensor from, const void *sources, int chosen,
			 struct tensor scale);
enum status cpu_combine(struct backend *, struct tensor to, struct tensor from, const void *places, int chosen, struct tensor scale,
			bool accumulate);
enum status cpu_route_backward(struct backend *, const struct routing *, struct tensor dlogits, struct tensor logits,
			       struct tensor weights, const void *experts, const void *places, struct tensor dy,
			       struct tensor outputs);
enum status cpu_column_norms(struct backend *, void *sums, struct tensor x);
enum status cpu_rank_rows(struct backend *, enum importance, struct tensor rank, struct tensor weight, const void *sums,
			  double sequences);
enum status cpu_bin_ranks(struct backend *, struct tensor bin, struct tensor rank, int candidates);
enum status cpu_mask_weights(struct backend *, struct tensor out, struct tensor weight, struct tensor rank, const void *threshold,
			     bool shared);

/* gradient.c */
enum status cpu_binned_gradient(struct backend *, struct tensor sums, struct tensor dy, struct tensor x, struct tensor weight,
				struct tensor bin, bool shared);

/* learn.c */
enum status cpu_rates_forward(struct backend *, const struct rates *, struct tensor beta, void *s, void *threshold, void *stats,
			      struct tensor theta, double target, double lambda);
enum status cpu_rates_backward(struct backend *, const struct rates *, struct tensor dtheta, struct tensor theta,
			       struct tensor beta, struct tensor sums, const void *stats);
enum status cpu_reconstruction(struct backend *, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
			       bool accumulate);
enum status cpu_prodigy_step(struct backend *, const struct prodigy *, int64_t n, void *theta, const void *theta0, void *m, void *v,
			     void *s, const void *gradient, void *state);
enum status cpu_adamw_step(struct backend *, const struct adamw *, int64_t n, void *theta, void *m, void *v, const void *gradient);

#endif
