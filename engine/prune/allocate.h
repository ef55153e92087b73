/* Allocation: which block loses how many of its weights, from a pass over the dense model before the walk over its blocks.
 *
 * What comes out of the pass is in the savepoint before the first block begins, and is read from there ever after. A pass that
 * was killed is done again, from the same weights and tokens by the same threads, and so comes to the same. */
#ifndef BESAD_ENGINE_ALLOCATE_H
#define BESAD_ENGINE_ALLOCATE_H

#include "engine/prune/prune.h"

/* Fills savepoint->allocation, durably, where the spec asks for one and the savepoint has none; checks one that is there. */
enum status allocate_blocks(const struct pruning *, const struct sequences *calibration, struct error *err);

/* Takes, on a dry backend, the memory that allocate_blocks takes. */
enum status allocate_rehearse(const struct pruning *, struct error *err);

/* The share of block `index`, of `params` weights: what it was allotted, or the spec's. */
double allocate_target(const struct spec *, const struct savepoint *, int index, int64_t params);

/* Token-blocks that the pass takes, as progress counts them; 0 where the spec asks for none. */
double allocate_work(const struct spec *, int64_t layers);

#endif
