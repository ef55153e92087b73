/* The order in which the weights of a block's rows would be pruned. */
#ifndef BESAD_ENGINE_RANKING_H
#define BESAD_ENGINE_RANKING_H

#include "engine/model/block.h"

struct ranking {
	struct backend *backend;
	struct tensor rank[FUSED_COUNT]; /* U16, as block.weight */
	int products;                    /* of norms.sums */
	struct input_norms norms;        /* added up over sequences */
	void *thresholds;                /* I32 [layout.rows]: weights that each row loses */
};

enum status ranking_create(const struct block *, struct ranking *ret, struct error *err);
void ranking_release(struct ranking *);

/* The operations below fill backend->error. */

enum status ranking_reset_sums(struct ranking *, const struct block *);

/* rank = order of each row by importance, from the sums over `sequences` sequences; by magnitude in an expert that saw no token. */
enum status ranking_rank(struct ranking *, const struct block *, enum importance, int64_t sequences);

/* active = W where rank ≥ threshold of the row, else 0; thresholds is a host array [layout.rows]. */
enum status ranking_activate(struct ranking *, struct block *, const int32_t *thresholds);

#endif
