/* How texts begin and end, and sizes in them. */
#ifndef BESAD_BASE_TEXT_H
#define BESAD_BASE_TEXT_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
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

/* Reads a number of bytes, with K, M, G or T behind it for powers of 1024. False where the text is none. */
static inline bool text_read_size(const char *text, unsigned long long *ret)
{
	static const char units[] = "KMGT";
	char *end;
	errno = 0;
	unsigned long long value = strtoull(text, &end, 10);
	const char *unit = *end ? strchr(units, *end) : NULL;
	int shift = unit ? 10 * (int)(unit - units + 1) : 0;
	if (errno || end == text || *text == '-' || (unit ? end[1] : *end) || value > (ULLONG_MAX >> shift)) return false;
	*ret = value << shift;
	return true;
}

#endif
