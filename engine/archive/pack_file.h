/* One safetensors file, packed. */
#ifndef BESAD_ENGINE_PACK_FILE_H
#define BESAD_ENGINE_PACK_FILE_H

#include <stdatomic.h>

#include "base/place.h"
#include "base/sha256.h"

struct packed_file {
	int64_t bytes;
	char head_sha256[SHA256_TEXT]; /* of what the archive begins with: the length of its header and the header */
};

/* Packs `from` into a new file `name` in the directory `to`, synced. Each tensor is kept in whatever form is the smallest; those
 * with coded exponents are considered where `coded`. The bytes depend on the input and `coded` alone. STATUS_INVALID for what is
 * no safetensors file, and for names that an archive cannot hold; STATUS_CANCELLED once *stop is true (it may be NULL). */
enum status pack_file(const struct file *from, const struct place *to, const char *name, bool coded, const atomic_bool *stop,
		      struct packed_file *ret, struct error *err);

#endif
