/* Bytes that grow. All zero is empty; text_buffer_free gives the memory back. */
#ifndef BESAD_ENGINE_TEXT_BUFFER_H
#define BESAD_ENGINE_TEXT_BUFFER_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

struct text_buffer {
	char *data;
	size_t size, capacity;
};

static inline enum status text_append(struct text_buffer *buffer, const char *text, size_t bytes, struct error *err)
{
	if (bytes > buffer->capacity - buffer->size) {
		size_t need = buffer->size + bytes;
		size_t capacity = buffer->capacity < 256 ? 256 : buffer->capacity;
		while (capacity < need && capacity <= SIZE_MAX / 4)
			capacity *= 2;
		char *data = need < buffer->size || capacity < need ? NULL : realloc(buffer->data, capacity);
		if (!data) return error_set(err, STATUS_NO_MEMORY, "no memory for %zu bytes of text", need);
		buffer->data = data;
		buffer->capacity = capacity;
	}
	if (bytes) memcpy(buffer->data + buffer->size, text, bytes);
	buffer->size += bytes;
	return STATUS_OK;
}

static inline void text_buffer_free(struct text_buffer *buffer)
{
	free(buffer->data);
	*buffer = (struct text_buffer){0};
}

#endif
