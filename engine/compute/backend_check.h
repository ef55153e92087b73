/* The shapes and types that each operation of engine/compute/backend.h accepts, for every backend alike. A check fills `backend->error`
 * with the operation and all sizes and returns STATUS_INTERNAL (or STATUS_INVALID for a limit that a model's size can pass). */
#ifndef BESAD_ENGINE_BACKEND_CHECK_H
#define BESAD_ENGINE_BACKEND_CHECK_H

#include "engine/compute/backend.h"

enum status check_convert(struct backend *, struct tensor to, struct tensor from);
enum status check_matmul(struct backend *, struct tensor c, struct tensor a, bool transpose_a, struct tensor b, bool transpose_b);
enum status check_add_bias(struct backend *, struct tensor y, struct tensor bias);
enum status check_add(struct backend *, struct tensor y, struct tensor x);
enum status check_embed(struct backend *, struct tensor out, struct tensor table, const void *ids);
enum status check_norm_forward(struct backend *, const struct norm *, struct tensor y, struct tensor stats, struct tensor x,
			       struct tensor weight, struct tensor bias);
enum status check_norm_backward(struct backend *, const struct norm *, struct tensor dx, struct tensor dy, struct tensor x,
				struct tensor stats, struct tensor weight);
enum status check_rope(struct backend *, struct tensor x, struct tensor table, int head_dim, int rotary);
enum status check_attention_forward(struct backend *, const struct attention *, struct tensor out, struct tensor lse,
				    struct tensor q, struct tensor k, struct tensor v);
enum status check_attention_backward(struct backend *, const struct attention *, struct tensor dq, struct tensor dk,
				     struct tensor dv, struct tensor q, struct tensor k, struct tensor v, struct tensor out,
				     struct tensor lse, struct tensor dout);
enum status check_activation_forward(struct backend *, struct tensor y, struct tensor gate, struct tensor up);
enum status check_activation_backward(struct backend *, struct tensor dgate, struct tensor dup, struct tensor dy,
				      struct tensor gate, struct tensor up);
enum status check_route(struct backend *, const struct routing *, struct tensor weights, const void *experts, const void *counts,
			const void *places, const void *sources, struct tensor logits);
enum status check_dispatch(struct backend *, struct tensor to, struct tensor from, const void *sources, int chosen,
			   struct tensor scale);
enum status check_combine(struct backend *, struct tensor to, struct tensor from, const void *places, int chosen,
			  struct tensor scale);
enum status check_route_backward(struct backend *, const struct routing *, struct tensor dlogits, struct tensor logits,
				 struct tensor weights, const void *experts, const void *places, struct tensor dy,
				 struct tensor outputs);
enum status check_column_norms(struct backend *, const void *sums, struct tensor x);
enum status check_rank_rows(struct backend *, enum importance, struct tensor rank, struct tensor weight, const void *sums,
			    double sequences);
enum status check_bin_ranks(struct backend *, struct tensor bin, struct tensor rank, int candidates);
enum status check_mask_weights(struct backend *, struct tensor out, struct tensor weight, struct tensor rank,
			       const void *threshold);
enum status check_binned_gradient(struct backend *, struct tensor sums, struct tensor dy, struct tensor x, struct tensor weight,
				  struct tensor bin, bool shared);
enum status check_rates_forward(struct backend *, const struct rates *, struct tensor beta, const void *s, const void *threshold,
				const void *stats, struct tensor theta, double target);
enum status check_rates_backward(struct backend *, const struct rates *, struct tensor dtheta, struct tensor theta,
				 struct tensor beta, struct tensor sums, const void *stats);
enum status check_reconstruction(struct backend *, const void *stats, struct tensor dy, struct tensor y, struct tensor ref);
enum status check_prodigy_step(struct backend *, int64_t n, const void *state);
enum status check_adamw_step(struct backend *, const struct adamw *, int64_t n);
enum status check_token_logprobs(struct backend *, const void *out, struct tensor logits, const void *targets);

#endif
