/* Archives: a directory with a model directory's files in less room, from which every file comes back bit for bit
 * (docs/format.md). Safetensors files are packed (pack_file.h), others lie there as they are, and besad-archive.json says what
 * is what. */
#ifndef BESAD_ENGINE_ARCHIVE_H
#define BESAD_ENGINE_ARCHIVE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "engine/archive/manifest.h"

struct archive_options {
	bool coded;                      /* exponents are coded, where that is smaller */
	const char *const *except;       /* what of the model's directory is left out, NULL-terminated; or NULL */
	const atomic_bool *stop;         /* once it is true, STATUS_CANCELLED; or NULL */
	void (*progress)(void *context); /* called before each file, or NULL */
	void *context;
};

/* Packs every file below `model` that is not hidden into the new directory `to`, durably. What `to` held is removed before;
 * where it lies below `model`, it is no part of what is packed. STATUS_INVALID for a link to a directory, and where a packed
 * file would take the name of another file; STATUS_EXISTS for what is an archive already. */
enum status archive_pack(const struct place *model, const struct place *to, const struct archive_options *, struct error *err);

/* Restores the files of an archive into the new directory `to`, durably. What `to` held is removed before. STATUS_INVALID for
 * what is damaged, whatever the damage: then what is in `to` is not to be used. */
enum status archive_unpack(const struct place *archive, const struct place *to, const atomic_bool *stop, struct error *err);

/* Whether archive_unpack would restore all files: compares every checksum. */
enum status archive_verify(const struct place *archive, const atomic_bool *stop, struct error *err);

#endif
