/* What of a block nothing changes: routers, attention's sinks, experts' biases. */
#ifndef BESAD_ENGINE_FIXED_H
#define BESAD_ENGINE_FIXED_H

#include "engine/model/block.h"

/* Of block `index`: that the tensors are there; and block->fixed from them. */
enum status fixed_check(const struct model *, int index, struct error *err);
enum status fixed_load(struct block *, const struct model *, int index, struct error *err);
void fixed_release(struct backend *, struct fixed_weights *);

#endif
