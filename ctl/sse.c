#include "ctl/sse.h"

#include <string.h>

static void clear(struct buffer *buffer)
{
	buffer->size = 0;
	if (buffer->data) buffer->data[0] = 0;
}

static const char *text(const struct buffer *buffer)
{
	return buffer->data ? buffer->data : "";
}

static bool append(struct sse *sse, struct buffer *to, const char *bytes, size_t size)
{
	if (to->size + size > SSE_LIMIT)
		sse->overflow = true;
	else
		buffer_append(to, bytes, size);
	sse->overflow |= to->failed;
	return !sse->overflow;
}

static void dispatch(struct sse *sse, sse_event_fn *event, void *context)
{
	/* Data always ends with the LF of its last line, which is not part of it. */
	if (sse->data.size) {
		sse->data.data[--sse->data.size] = 0;
		event(context, sse->type.size ? text(&sse->type) : "message", text(&sse->id), text(&sse->data), sse->data.size);
	}
	clear(&sse->type);
	clear(&sse->data);
}

static void take_field(struct sse *sse, const char *name, size_t name_size, const char *value, size_t size)
{
	if (name_size == 4 && memcmp(name, "data", 4) == 0) {
		if (append(sse, &sse->data, value, size)) append(sse, &sse->data, "\n", 1);
	} else if (name_size == 5 && memcmp(name, "event", 5) == 0) {
		clear(&sse->type);
		append(sse, &sse->type, value, size);
	} else if (name_size == 2 && memcmp(name, "id", 2) == 0 && !memchr(value, 0, size)) {
		clear(&sse->id);
		append(sse, &sse->id, value, size);
	}
}

static void take_line(struct sse *sse, sse_event_fn *event, void *context)
{
	const char *line = text(&sse->line);
	size_t size = sse->line.size;
	if (!sse->started && size >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) {
		line += 3;
		size -= 3;
	}
	sse->started = true;
	const char *colon = memchr(line, ':', size);
	if (size == 0) {
		dispatch(sse, event, context);
	} else if (colon != line) {
		const char *value = colon ? colon + 1 : line + size, *end = line + size;
		if (value < end && *value == ' ') value++;
		take_field(sse, line, (size_t)((colon ? colon : end) - line), value, (size_t)(end - value));
	}
	clear(&sse->line);
}

bool sse_feed(struct sse *sse, const char *bytes, size_t size, sse_event_fn *event, void *context)
{
	const char *end = bytes + size;
	while (bytes < end && !sse->overflow) {
		const char *stop = bytes;
		if (sse->after_return && *bytes == '\n') stop = ++bytes;
		sse->after_return = false;
		while (stop < end && *stop != '\n' && *stop != '\r')
			stop++;
		if (stop > bytes && !append(sse, &sse->line, bytes, (size_t)(stop - bytes))) break;
		if (stop == end) break;
		sse->after_return = *stop == '\r';
		take_line(sse, event, context);
		bytes = stop + 1;
	}
	return !sse->overflow;
}

void sse_reset(struct sse *sse)
{
	clear(&sse->line);
	clear(&sse->type);
	clear(&sse->data);
	sse->after_return = sse->started = sse->overflow = false;
}

void sse_free(struct sse *sse)
{
	buffer_free(&sse->line);
	buffer_free(&sse->type);
	buffer_free(&sse->data);
	buffer_free(&sse->id);
}
