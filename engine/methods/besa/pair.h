/* Two blocks that learn together (`besa.reconstruct` two_blocks): the one that is pruned, and the next one, whose output the
 * loss is of: what the dense pair gives on the same inputs is to be given again by the pruned one. Only the first one's rates
 * are kept: the second one learns again in its turn, together with the one behind it. So nothing is carried from block to block,
 * and a job goes on behind any block as it does elsewhere. The last block learns alone. */
#ifndef BESAD_ENGINE_BESA_PAIR_H
#define BESAD_ENGINE_BESA_PAIR_H

#include "engine/methods/besa/learn.h"

/* The second block, used again for each pair. It must stay where it was created. */
struct pair {
	struct method_setup setup;
	struct block block;
	struct mask mask; /* its ranks */
	struct column_norms norms;
	struct besa besa;
	struct stream wanted; /* what the dense pair gives */
};

/* On failure pair_release frees what there is. */
enum status pair_create(const struct method_setup *, struct pair *ret, struct error *err);
void pair_release(struct pair *); /* takes one that is zeroed */

/* Whether the block has one behind it. */
bool pair_follows(const struct pair *, const struct block_task *);

/* Makes ready to learn with the block of the task, whose reference is the dense block's outputs: loads the next one, ranks its
 * weights, and fills `wanted`. */
enum status pair_look_ahead(struct pair *, const struct block_task *, struct error *err);

#endif
