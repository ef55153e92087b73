/* besad-archive.json: the files of a model directory that was packed, and how each lies in the archive's directory. */
#ifndef BESAD_ENGINE_ARCHIVE_MANIFEST_H
#define BESAD_ENGINE_ARCHIVE_MANIFEST_H

#include "base/place.h"
#include "base/sha256.h"

#define MANIFEST_NAME "besad-archive.json"

enum { MANIFEST_MAX_FILES = 100000 };

struct manifest_file {
	char *name;               /* below the model's directory */
	int64_t bytes;            /* as it was */
	char *packed;             /* the file of the archive that holds it; NULL: it lies there as it is */
	char sha256[SHA256_TEXT]; /* of the file, or of what its archive begins with (pack_file.h) */
};

struct manifest {
	struct manifest_file *files; /* sorted by name */
	size_t count;
};

/* Adds one; copies the names. */
enum status manifest_add(struct manifest *, const char *name, int64_t bytes, const char *packed, const char *sha256,
			 struct error *err);
void manifest_free(struct manifest *);

enum status manifest_write(const struct manifest *, const struct place *archive, struct error *err);

/* STATUS_INVALID for a manifest with names that lead out of its directory, or are there twice. */
enum status manifest_read(const struct place *archive, struct manifest *ret, struct error *err);

#endif
