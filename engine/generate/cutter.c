#include "engine/generate/cutter.h"

#include <string.h>

/* Where in the held text the first of the strings begins that is there whole, or, unless `whole`, up to the text's end at least;
 * the text's size where none does. */
static size_t find(const struct cutter *cutter, bool whole)
{
	const struct buffer *held = &cutter->held;
	for (size_t at = 0; at < held->size; at++)
		for (int i = 0; i < cutter->count; i++) {
			size_t length = strlen(cutter->stops[i]), left = held->size - at;
			if (whole && left < length) continue;
			if (memcmp(held->data + at, cutter->stops[i], left < length ? left : length) == 0) return at;
		}
	return held->size;
}

bool cutter_add(struct cutter *cutter, const char *text, size_t bytes, bool last)
{
	cutter->free.size = 0;
	if (cutter->found) return true;
	buffer_append(&cutter->held, text, bytes);
	if (cutter->held.failed) return false;
	size_t at = find(cutter, true);
	cutter->found = at < cutter->held.size;
	if (!cutter->found && !last) at = find(cutter, false);
	buffer_append(&cutter->free, cutter->held.data, at);
	memmove(cutter->held.data, cutter->held.data + at, cutter->held.size - at);
	cutter->held.size -= at;
	return !cutter->free.failed;
}

void cutter_free(struct cutter *cutter)
{
	buffer_free(&cutter->held);
	buffer_free(&cutter->free);
}
