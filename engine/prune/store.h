/* How the weights of a finished block come to the output. */
#ifndef BESAD_ENGINE_STORE_H
#define BESAD_ENGINE_STORE_H

#include "engine/output/writer.h"
#include "engine/prune/result.h"

struct store {
	const struct model *model; /* whose tensors they are */
	struct writer *writer;
	struct backend *backend;
	const struct block_layout *layout;
	void *room; /* host room for a linear, layout_room */
};

/* Writes the linears of block result->index, packed where it has grids, and its vectors; counts their zeros, which are none
 * before. The weights are as block->weight, and nothing writes to them meanwhile: it is safe beside operations that do not. Not
 * synced. */
enum status store_weights(const struct store *, struct block_result *, const struct tensor weights[FUSED_COUNT], struct error *err);

#endif
