/* How texts begin and end. */
#ifndef BESAD_BASE_TEXT_H
#define BESAD_BASE_TEXT_H

#include <stdbool.h>
#include <string.h>

static inline bool text_starts_with(const char *text, const char *start)
{
	return strncmp(text, start, strlen(start)) == 0;
}

/* Also where `end` is all of it. */
static inline bool text_ends_with(const char *text, const char *end)
{
	size_t length = strlen(text), tail = strlen(end);
	return length >= tail && strcmp(text + length - tail, end) == 0;
}

#endif
