#include "base/warnings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void warnings_add(struct warnings *warnings, const char *format, ...)
{
	char *message;
	if (!warnings) return;
	va_list args;
	va_start(args, format);
	int made = vasprintf(&message, format, args);
	va_end(args);
	if (made < 0) return;
	for (size_t i = 0; i < warnings->count; i++)
		if (strcmp(warnings->messages[i], message) == 0) {
			free(message);
			return;
		}
	if (warnings->count == warnings->capacity) {
		size_t capacity = warnings->capacity ? 2 * warnings->capacity : 8;
		char **grown = realloc(warnings->messages, capacity * sizeof *grown);
		if (!grown) {
			free(message);
			return;
		}
		warnings->messages = grown;
		warnings->capacity = capacity;
	}
	warnings->messages[warnings->count++] = message;
}

void warnings_free(struct warnings *warnings)
{
	for (size_t i = 0; i < warnings->count; i++)
		free(warnings->messages[i]);
	free(warnings->messages);
	*warnings = (struct warnings){0};
}
