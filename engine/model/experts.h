/* The MLP of a block with experts (Mixtral, arXiv 2401.04088, section 2.1): a router sends each token to a few of many MLPs, and
 * their outputs are added by its weights.
 *
 *   l = n·Wrᵀ     w, e = route(l)     x = rows of n, grouped by expert     per expert: g, u = x·Wguᵀ   s = act(g) ⊙ u   o = s·Wdᵀ
 *   y += Σ_s w_s · o[row of token and choice s]
 *
 * An expert that is shared by all tokens is one more, the last, with a size S of its own, and the sigmoid of its logit as its
 * weight. T is the number of tokens, P that of the grouped rows (struct backend_ops.route), of which the last R are the shared
 * one's. */
#ifndef BESAD_ENGINE_EXPERTS_H
#define BESAD_ENGINE_EXPERTS_H

#include "engine/model/arena.h"
#include "engine/model/layout.h"

struct block;

/* What the experts keep of a batch for the backward. */
struct expert_activations {
	struct tensor logits, weights;                         /* F32 [T, experts], [T, chosen] */
	struct tensor grouped, outputs;                        /* compute type [P, H] */
	struct tensor gate_up, mlp, dmlp;                      /* compute type [P − R, 2·I], [P − R, I], [P − R, I] */
	struct tensor shared_gate_up, shared_mlp, shared_dmlp; /* compute type [R, 2·S], [R, S], [R, S] */
	struct tensor dlogits; /* compute type [T, experts]; this and the dmlp are without data unless for a backward */
	void *chosen, *counts, *places, *sources; /* device I32, as `route` gives them */
	int32_t *tokens;                          /* host [experts]: `counts` */
	int64_t rows, shared_rows;                /* P and R of the last forward */
};

struct routing experts_routing(const struct model_config *);

/* The device memory for `tokens` tokens. */
void experts_place(struct expert_activations *, const struct block *, struct arena *, int64_t tokens, bool backward);

/* y [T,H] F32 += experts(x [T,H], compute type). `observer` as in block_forward. Fills the backend's error, as the next does. */
enum status experts_forward(const struct block *, struct expert_activations *, struct tensor x, struct tensor y,
			    const struct observer *observer);

/* dx [T,H], compute type, from dy [T,H], F32, after the last forward, which read `x`; `use` as in block_backward. */
enum status experts_backward(const struct block *, struct expert_activations *, struct tensor dx, struct tensor dy,
			     product_gradient_fn use, void *context);

#endif
