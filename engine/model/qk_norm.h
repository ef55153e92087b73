/* The norms of q and k: of each head by weights that all have, of each by its own, or of all of it. */
#ifndef BESAD_ENGINE_QK_NORM_H
#define BESAD_ENGINE_QK_NORM_H

#include "engine/model/block.h"

/* How many vectors of q or k, which has `heads` heads, are normalised each. */
int64_t qk_norm_groups(const struct model_config *, int64_t heads);

/* y = norm(x), [T, heads·head_dim]; stats F32 [T, 2·groups]; weight as block.q_norm. These fill the backend's error. */
enum status qk_norm_forward(const struct block *, int64_t heads, struct tensor y, struct tensor stats, struct tensor x,
			    struct tensor weight);

/* dx = ∂/∂x, F32. */
enum status qk_norm_backward(const struct block *, int64_t heads, struct tensor dx, struct tensor dy, struct tensor x,
			     struct tensor stats, struct tensor weight);

/* dweight = ∂/∂weight, where it has data. */
enum status qk_norm_gradient(const struct block *, int64_t heads, struct tensor dweight, struct tensor dy, struct tensor x,
			     struct tensor stats);

#endif
