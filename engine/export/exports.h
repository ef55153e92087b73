/* The GGUF files that a job makes of its output. */
#ifndef BESAD_ENGINE_EXPORTS_H
#define BESAD_ENGINE_EXPORTS_H

#include "engine/export/export.h"

/* `set` has a bit for each enum export_type; `output` is where the output will be, of which the model gets its name in the
 * files. */

/* Whether a model can be written so, and the bytes of all files: as export_open says, and warns. */
enum status exports_check(const struct model *model, const struct place *place, unsigned set, struct warnings *warnings,
			  int64_t *ret_bytes, struct error *err);

/* Writes the files beside the model at `work`: model-f16.gguf and so on; what an attempt that was cut short left of them is
 * replaced. STATUS_CANCELLED when `stop` is raised. */
enum status exports_write(const struct place *work, const struct place *output, unsigned set, const atomic_bool *stop,
			  struct error *err);

#endif
