/* Which weights of a block are kept: their ranks by importance, and how many of the lowest ranks go. */
#ifndef BESAD_ENGINE_MASK_H
#define BESAD_ENGINE_MASK_H

#include "engine/model/block.h"
#include "engine/prune/column_norms.h"

struct mask {
	struct backend *backend;
	struct tensor rank
		[FUSED_COUNT]; /* U16, as block.weight: the place in its row, or in its group of a pattern, 0 for what goes first */
	int32_t *host_thresholds; /* [layout.rows]: the ranks of each row below this go; the caller's to fill */
	void *thresholds;         /* the same on the device, once mask_set has been called */
};

enum status mask_create(const struct block *, struct mask *ret, struct error *err);
void mask_release(struct mask *);

/* The operations below fill backend->error. */

/* Ranks the weights of the block. `norms` of its inputs, over `sequences` sequences, for Wanda; an expert that got no token is
 * ranked by magnitude. In a pattern a weight's rank is that among its neighbours. */
enum status mask_rank(struct mask *, const struct block *, enum importance, const struct column_norms *norms, int64_t sequences,
		      struct pattern);

/* The same by `scores`, F32 as block.weight and not negative, but for an expert that got no token. */
enum status mask_rank_scores(struct mask *, const struct block *, const struct tensor scores[FUSED_COUNT],
			     const struct column_norms *norms, struct pattern);

/* The thresholds hold from now on. */
enum status mask_set(struct mask *, const struct block *);

/* to = what is kept of `from`, else +0; both as block.active or block.weight, and they may be the same. */
enum status mask_apply_from(const struct mask *, const struct block *, const struct tensor from[FUSED_COUNT],
			    const struct tensor to[FUSED_COUNT]);

/* to = what is kept of the block's weights, else +0. `to` as block.active, or block.weight itself. */
enum status mask_apply(const struct mask *, const struct block *, const struct tensor to[FUSED_COUNT]);

#endif
