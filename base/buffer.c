#include "base/buffer.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool reserve(struct buffer *buffer, size_t more)
{
	if (buffer->failed) return false;
	if (more < buffer->room - buffer->size) return true;
	size_t room = buffer->room ? buffer->room : 256;
	while (room - buffer->size <= more)
		room *= 2;
	char *data = realloc(buffer->data, room);
	if (!data) {
		buffer->failed = true;
		return false;
	}
	buffer->data = data;
	buffer->room = room;
	return true;
}

void buffer_append(struct buffer *buffer, const void *bytes, size_t size)
{
	if (!reserve(buffer, size)) return;
	if (size) memcpy(buffer->data + buffer->size, bytes, size); /* bytes may be NULL: another buffer that is empty */
	buffer->size += size;
	buffer->data[buffer->size] = 0;
}

void buffer_printf(struct buffer *buffer, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int needed = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (needed < 0 || !reserve(buffer, (size_t)needed)) return;
	va_start(args, format);
	vsnprintf(buffer->data + buffer->size, (size_t)needed + 1, format, args);
	va_end(args);
	buffer->size += (size_t)needed;
}

void buffer_json_string(struct buffer *buffer, const char *text)
{
	buffer_append(buffer, "\"", 1);
	while (*text) {
		size_t plain = strcspn(text, "\"\\");
		buffer_append(buffer, text, plain);
		text += plain;
		if (*text) buffer_printf(buffer, "\\%c", *text++);
	}
	buffer_append(buffer, "\"", 1);
}

void buffer_free(struct buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct buffer){0};
}
