/* SHA-256 as hexadecimal text. */
#ifndef BESAD_BASE_SHA256_H
#define BESAD_BASE_SHA256_H

#include <stdatomic.h>

#include "base/file.h"

enum { SHA256_TEXT = 65 };

enum status sha256_bytes(const void *bytes, size_t count, char ret[SHA256_TEXT], struct error *err);

/* Of the first `bytes` bytes of a file. */
enum status sha256_file(const struct file *, int64_t bytes, char ret[SHA256_TEXT], struct error *err);

/* The same; STATUS_CANCELLED when `stop`, which may be NULL, is raised meanwhile. */
enum status sha256_file_stoppable(const struct file *, int64_t bytes, const atomic_bool *stop, char ret[SHA256_TEXT],
				  struct error *err);

#endif
