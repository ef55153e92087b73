#include "daemon/text.h"

#include <stdlib.h>
#include <string.h>

#include "base/json.h"

char *text_valid_utf8(const char *text)
{
	char *copy = strdup(text);
	if (!copy) return NULL;
	for (char *s = copy; *s;) {
		size_t left = strnlen(s, 4), length = 1;
		while (length <= left && !utf8_valid(s, length))
			length++;
		if (length <= left)
			s += length;
		else
			*s++ = '?';
	}
	return copy;
}

void text_append_without_zeros(struct buffer *buffer, const char *text, size_t bytes)
{
	static const char unknown[] = "\xEF\xBF\xBD"; /* U+FFFD */
	for (size_t at = 0, end; at < bytes; at = end + 1) {
		end = at + strnlen(text + at, bytes - at);
		buffer_append(buffer, text + at, end - at);
		if (end < bytes) buffer_append(buffer, unknown, sizeof unknown - 1);
	}
}
