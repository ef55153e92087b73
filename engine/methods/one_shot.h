/* What magnitude and Wanda share: each row loses the share of its weights that was asked for, those of the least importance. */
#ifndef BESAD_ENGINE_ONE_SHOT_H
#define BESAD_ENGINE_ONE_SHOT_H

#include "engine/methods/method.h"

/* Ranks the block's weights, and has ⌊C·sparsity⌋ of each row go, or M − N of each M of a pattern. `norms` as in mask_rank. */
enum status one_shot_prune(struct mask *, const struct method_setup *, enum importance, const struct column_norms *norms,
			   const struct block_task *, struct block_outcome *, struct error *err);

#endif
