/* Can a model directory be pruned, as far as its config.json and the headers of its weights tell? */
#ifndef BESAD_ENGINE_MODEL_VET_H
#define BESAD_ENGINE_MODEL_VET_H

#include "base/place.h"
#include "base/warnings.h"
#include "engine/model/config.h"

/* Fills *ret_config as soon as config.json is read, and *ret_bytes, the size of all weight files, when everything is right.
 * Where a file is missing the error says what is there instead. Its message has no absolute path. */
enum status model_vet(const struct place *model, struct warnings *, struct model_config *ret_config, int64_t *ret_bytes,
		      struct error *err);

#endif
