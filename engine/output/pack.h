/* Packed linears of an output (engine/model/packed.h): how its plan has them, and how a block's are written. */
#ifndef BESAD_ENGINE_OUTPUT_PACK_H
#define BESAD_ENGINE_OUTPUT_PACK_H

#include "engine/output/plan.h"
#include "engine/output/writer.h"
#include "engine/quantize/grids.h"

/* Puts packed tensors in the place of the prunable linears of all blocks, which must not be stacked. */
enum status pack_plan(const struct model *, const struct packed_form *, struct plan *, struct error *err);

/* The `quantization_config` of such a model; the caller frees it. NULL: no memory. */
cJSON *pack_config(const struct model *, const struct packed_form *);

/* Writes the shapes of all packed linears, so that the output can be opened from now on. */
enum status pack_write_shapes(const struct model *, struct writer *, struct error *err);

/* Writes codes and steps of a linear of block `index` from its weights as the model has them in its file, in that type. Each
 * must be what its code will be read as, or 0: STATUS_NUMERIC for one that is not. */
enum status pack_write_linear(const struct model *, struct writer *, const struct linear *, int index, const struct grids *,
			      const void *weights, struct error *err);

/* Writes the zero points of the block, where it has some. */
enum status pack_write_zeros(const struct model *, struct writer *, const struct block_layout *, int index, const struct grids *,
			     struct error *err);

#endif
