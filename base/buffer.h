/* Text that grows. A failed allocation is remembered, so that only the end needs a check. */
#ifndef BESAD_BASE_BUFFER_H
#define BESAD_BASE_BUFFER_H

#include <stdbool.h>
#include <stddef.h>

struct buffer {
	char *data; /* ends with a 0 that `size` does not count; NULL while empty */
	size_t size, room;
	bool failed;
};

void buffer_append(struct buffer *, const void *bytes, size_t size);
void buffer_printf(struct buffer *, const char *format, ...) __attribute__((format(printf, 2, 3)));
void buffer_json_string(struct buffer *, const char *text); /* in quotes; `text` is UTF-8 without control characters */
void buffer_free(struct buffer *);

#endif
