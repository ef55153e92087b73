/* What `git clone` leaves in place of a large file where git-lfs is not installed: a text of a few lines that names the file's
 * hash. */
#ifndef BESAD_BASE_LFS_H
#define BESAD_BASE_LFS_H

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "base/error.h"

/* Whether a file that begins with these bytes is such a pointer; 64 bytes are enough to tell. */
static inline bool is_lfs_pointer(const char *bytes, size_t n)
{
	static const char start[] = "version https://git-lfs.github.com/spec/";
	return n >= sizeof start - 1 && memcmp(bytes, start, sizeof start - 1) == 0;
}

/* The error for it, STATUS_INVALID. */
static inline enum status lfs_pointer_error(const char *path, struct error *err)
{
	return error_set(
		err, STATUS_INVALID,
		"%s: a git-lfs pointer, which stands in place of the file; run 'git lfs pull' where the repository was cloned, or "
		"download the file itself",
		path);
}

#endif
