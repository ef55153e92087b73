/* Looks clients' paths up under the directories that the operator has opened to them. */
#ifndef BESAD_ENGINE_ROOTS_H
#define BESAD_ENGINE_ROOTS_H

#include <stddef.h>

#include "engine/error.h"

/* The real path of `path` in the first of the NULL-terminated `roots` that has it; an absolute path must lie in one of them. A
 * path with "..", or that a symbolic link leads out of its root, is STATUS_INVALID; one that is not there STATUS_NOT_FOUND.
 * Messages do not tell what lies outside the roots. *ret is freed by the caller. */
enum status roots_resolve(char *const *roots, const char *path, char **ret, struct error *err);

#endif
