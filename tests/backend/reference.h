/* Every operation of engine/compute/backend.h in double precision, by the obvious loops. Matrices are row-major without gaps;
 * the arguments are those of the operation. */
#ifndef BESAD_TESTS_REFERENCE_H
#define BESAD_TESTS_REFERENCE_H

#include "engine/compute/backend.h"

void ref_matmul(double *c, const double *a, bool transpose_a, const double *b, bool transpose_b, int64_t m, int64_t n, int64_t k,
		bool accumulate);
void ref_norm_forward(const struct norm *, double *y, double *stats, const double *x, const double *weight, const double *bias,
		      int64_t rows, int64_t cols);
void ref_norm_backward(const struct norm *, double *dx, const double *dy, const double *x, const double *weight, int64_t rows,
		       int64_t cols);
/* dbias may be NULL. */
void ref_norm_gradient(const struct norm *, double *dweight, double *dbias, const double *dy, const double *x, int64_t rows,
		       int64_t cols);
void ref_rope(const struct rotation *, double *x, const double *table, int64_t rows, int64_t cols, int64_t positions);
/* As backend_ops.attention_sinks. */
void ref_attention_sinks(const struct attention *, double *out, double *lse, const double *sinks);
/* y of the clamped SwiGLU, and its slopes by gate and up. */
double ref_clamped_swiglu(struct activation, double gate, double up, double *ret_by_gate, double *ret_by_up);
void ref_attention_forward(const struct attention *, double *out, double *lse, const double *q, const double *k, const double *v);
void ref_attention_backward(const struct attention *, double *dq, double *dk, double *dv, const double *q, const double *k,
			    const double *v, const double *dout);
double ref_activation(enum activation_kind, double x);
double ref_activation_slope(enum activation_kind, double x);
/* Among each `of` neighbouring columns. */
void ref_rank_groups(double *rank, const double *weight, const double *sums, double sequences, int64_t rows, int64_t cols, int of);
void ref_rank_rows(double *rank, const double *weight, const double *sums, double sequences, int64_t rows, int64_t cols);
void ref_bin_ranks(double *bin, const double *rank, int candidates, int below, int above, int64_t rows, int64_t cols);
void ref_binned_gradient(double *sums, const double *dy, const double *x, const double *weight, const double *bin, int64_t tokens,
			 int64_t rows, int64_t cols, int bins, bool shared);

/* Host copies of the fields of struct rates. */
struct ref_rates {
	enum parameterization parameterization;
	int candidates;
	int64_t groups;
	const double *cols, *share;
	int below, above;
};
/* β and s; returns ŝ. */
double ref_rates_forward(const struct ref_rates *, double *beta, double *s, const double *theta);
void ref_rates_backward(const struct ref_rates *, double *dtheta, const double *theta, const double *sums, double slope);

/* Returns the loss; dy may be NULL. */
double ref_reconstruction(double *dy, const double *y, const double *ref, int64_t rows, int64_t cols);
/* The same of ref_weighted_error: factor · Σ weight·(y − ref)². */
double ref_weighted_error(double *dy, const double *y, const double *ref, const double *weight, double factor, int64_t rows,
			  int64_t cols);
void ref_prodigy_step(const struct prodigy *, int64_t n, double *theta, const double *theta0, double *m, double *v, double *s,
		      const double *gradient, double *state);
void ref_adamw_step(const struct adamw *, int64_t n, double *theta, double *m, double *v, const double *gradient);
/* Returns the loss. */
double ref_divergence(double *dlogits, const double *logits, const double *wanted, double softcap, double factor, int64_t rows,
		      int64_t cols);
void ref_token_logprobs(double *out, const double *logits, const double *targets, double softcap, int64_t rows, int64_t cols);

#endif
