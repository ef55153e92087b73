/* What a loader noticed and the user is to be told although the result stands: a field ignored, rows skipped, files that
 * disagree. */
#ifndef BESAD_BASE_WARNINGS_H
#define BESAD_BASE_WARNINGS_H

#include <stddef.h>

#include "base/error.h"

/* Zeroed to begin with; freed with warnings_free. */
struct warnings {
	char **messages;
	size_t count, capacity;
};

/* Adds one message, once: the same text again is dropped, and so is one for which there is no memory. `warnings` may be NULL:
 * then nobody listens. */
void warnings_add(struct warnings *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void warnings_free(struct warnings *);

#endif
