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
