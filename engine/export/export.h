/* A model as one GGUF file, with names and metadata as llama.cpp's converter (convert_hf_to_gguf.py) writes them, for llama.cpp
 * and what is built on it. Matrices get the type that was asked for; but those whose rows are no multiple of 32 are F16 in every
 * file, and of the 4-bit types the matrix of the logits, which suffers most, is Q8_0. Vectors and norms are F32. What is zero
 * stays zero (blocks.h). */
#ifndef BESAD_ENGINE_EXPORT_H
#define BESAD_ENGINE_EXPORT_H

#include <stdatomic.h>

#include "base/sha256.h"
#include "engine/export/type.h"
#include "engine/model/model.h"

extern const char *const export_type_names[]; /* by enum export_type; ends with NULL */

struct export;

/* Puts together everything but the weights: so a model that cannot be written is refused before anything is computed
 * (STATUS_UNSUPPORTED names the family, the field or the file), and the size is known. `model` was opened at `place`, and is
 * borrowed; `name` is what the model is called in the file. `warnings` may be NULL. */
enum status export_open(const struct model *model, const struct place *place, const char *name, enum export_type,
			struct warnings *warnings, struct export **ret, struct error *err);
int64_t export_bytes(const struct export *);

/* Writes the file as `name` into the directory, durably: it has that name only when it is whole, and replaces what had it. The
 * same model gives the same bytes. STATUS_NUMERIC names a tensor with weights that are not finite or beyond the type's range.
 * STATUS_CANCELLED when `stop`, which may be NULL, is raised meanwhile. ret_sha256 may be NULL: then the file is not read again. */
enum status export_write(const struct export *, const struct place *directory, const char *name, const atomic_bool *stop,
			 char ret_sha256[SHA256_TEXT], struct error *err);
void export_free(struct export *); /* takes NULL */

#endif
