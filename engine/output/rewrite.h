/* A writer whose output has safetensors files of its own, to a plan: tensors that the plan copies are there byte for byte,
 * packed ones as plain weights (engine/model/packed.h), and those that it adds are zeros until they are written. The headers are
 * those that the safetensors library would write, the index is made anew, and config.json is the model's, with the plan's
 * members. */
#ifndef BESAD_ENGINE_OUTPUT_REWRITE_H
#define BESAD_ENGINE_OUTPUT_REWRITE_H

#include "engine/output/plan.h"
#include "engine/output/writer.h"

/* Makes the work directory, or goes on with one that an earlier attempt left, making only what is not whole there. Nothing is
 * borrowed behind the call. STATUS_NO_SPACE names the bytes needed; STATUS_INVALID for a plan that cannot be (plan.h) and for a
 * work directory of another plan. */
enum status rewrite_open(const struct place *model, const struct plan *, const struct place *work, struct writer **ret,
			 struct error *err);

/* The bytes of the files that rewrite_open makes. */
enum status rewrite_bytes(const struct place *model, const struct plan *, int64_t *ret, struct error *err);

#endif
