/* A writer whose output is a copy of the model's directory: every tensor keeps its type, shape, shard and offset, and what
 * nobody writes keeps its bytes. */
#ifndef BESAD_ENGINE_OUTPUT_IN_PLACE_H
#define BESAD_ENGINE_OUTPUT_IN_PLACE_H

#include "engine/output/writer.h"

/* Makes the work directory, or goes on with one that an earlier attempt left, copying only what is not whole there. Borrows the
 * checkpoint. STATUS_NO_SPACE names the bytes needed; STATUS_INVALID for a work directory of another model. */
enum status in_place_open(const struct place *model, const struct checkpoint *, const struct place *work, struct writer **ret,
			  struct error *err);

/* The bytes of the files that in_place_open makes. */
enum status in_place_bytes(const struct place *model, const struct checkpoint *, int64_t *ret, struct error *err);

#endif
