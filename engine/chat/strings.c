#include "engine/chat/strings.h"

#include "engine/chat/letters.h"
#include "engine/chat/print.h"
#include "engine/text/unicode.h"

enum status string_take(struct run *run, enum status status, struct buffer *buffer, struct value *ret)
{
	if (status == STATUS_OK) status = value_copy_string(run, buffer->data, buffer->size, ret);
	buffer_free(buffer);
	return status;
}

enum status collect_value(struct run *run, struct collector *collector, const struct value *value)
{
	if (collector->count == collector->room) {
		size_t room = collector->room ? collector->room * 2 : 8;
		struct value *items = run_new(run, room, sizeof *items);
		if (!items) return run->status;
		if (collector->count) memcpy(items, collector->items, collector->count * sizeof *items);
		collector->items = items;
		collector->room = room;
	}
	collector->items[collector->count++] = *value;
	return run_spend(run, 1);
}

enum status collect_text(struct run *run, struct collector *collector, const char *data, size_t bytes)
{
	struct value value;
	TRY(value_string(run, data, bytes, &value));
	return collect_value(run, collector, &value);
}

static enum status as_list(struct run *run, const struct collector *collector, struct value *ret)
{
	return value_list(run, VALUE_LIST, collector->items, collector->count, ret);
}

/* The length of the character at `at`. */
static size_t character_bytes(const char *at)
{
	const char *next = at;
	utf8_next(&next);
	return (size_t)(next - at);
}

/* Replacing nothing puts the new before every character, and at the end. */
static enum status replace_nothing(struct run *run, const struct text *text, const struct text *new, int64_t most,
				   struct buffer *buffer)
{
	const char *at = text->data, *end = text->data + text->bytes;
	for (int64_t done = 0; most < 0 || done < most; done++) {
		TRY(run_append(run, buffer, new->data, new->bytes));
		if (at == end) return STATUS_OK;
		size_t bytes = character_bytes(at);
		TRY(run_append(run, buffer, at, bytes));
		at += bytes;
	}
	return run_append(run, buffer, at, (size_t)(end - at));
}

static enum status replace_all(struct run *run, const struct text *text, const struct text *old, const struct text *new,
			       int64_t most, struct buffer *buffer)
{
	const char *at = text->data, *end = text->data + text->bytes, *found;
	TRY(run_spend_bytes(run, text->bytes + old->bytes));
	for (int64_t done = 0; most < 0 || done < most; done++) {
		found = memmem(at, (size_t)(end - at), old->data, old->bytes);
		if (!found) break;
		TRY(run_append(run, buffer, at, (size_t)(found - at)));
		TRY(run_append(run, buffer, new->data, new->bytes));
		at = found + old->bytes;
	}
	return run_append(run, buffer, at, (size_t)(end - at));
}

enum status string_replace(struct run *run, const struct text *text, const struct text *old, const struct text *new, int64_t most,
			   struct value *ret)
{
	struct buffer buffer = {0};
	enum status status =
		old->bytes ? replace_all(run, text, old, new, most, &buffer) : replace_nothing(run, text, new, most, &buffer);
	return string_take(run, status, &buffer, ret);
}

static const char *skip(const char *at, const char *end, bool spaces)
{
	while (at < end) {
		const char *next = at;
		if (letter_is_space(utf8_next(&next)) != spaces) break;
		at = next;
	}
	return at;
}

static enum status split_at_spaces(struct run *run, const struct text *text, int64_t most, struct value *ret)
{
	struct collector parts = {0};
	const char *at = text->data, *end = text->data + text->bytes;
	TRY(run_spend_bytes(run, text->bytes));
	while ((at = skip(at, end, true)) < end) {
		const char *stop = skip(at, end, false);
		if (most >= 0 && (int64_t)parts.count == most) stop = end; /* the rest, with the spaces in it */
		TRY(collect_text(run, &parts, at, (size_t)(stop - at)));
		at = stop;
	}
	return as_list(run, &parts, ret);
}

enum status string_split(struct run *run, const struct text *text, const struct text *separator, int64_t most, struct value *ret)
{
	struct collector parts = {0};
	if (!separator) return split_at_spaces(run, text, most, ret);
	if (!separator->bytes) return run_fail(run, "empty separator");
	TRY(run_spend_bytes(run, text->bytes + separator->bytes));
	const char *at = text->data, *end = text->data + text->bytes, *found;
	while (most < 0 || (int64_t)parts.count < most) {
		found = memmem(at, (size_t)(end - at), separator->data, separator->bytes);
		if (!found) break;
		TRY(collect_text(run, &parts, at, (size_t)(found - at)));
		at = found + separator->bytes;
	}
	TRY(collect_text(run, &parts, at, (size_t)(end - at)));
	return as_list(run, &parts, ret);
}

enum status string_split_right(struct run *run, const struct text *text, const struct text *separator, int64_t most,
			       struct value *ret)
{
	if (most < 0) return string_split(run, text, separator, most, ret);
	if (!separator) return run_refuse(run, "rsplit at white space, with a limit");
	if (!separator->bytes) return run_fail(run, "empty separator");
	struct collector parts = {0};
	const char *start = text->data, *end = text->data + text->bytes;
	for (const char *at = end; at - start >= (ptrdiff_t)separator->bytes && (int64_t)parts.count < most;) {
		TRY(run_spend_bytes(run, separator->bytes));
		at -= separator->bytes;
		if (memcmp(at, separator->data, separator->bytes) != 0) {
			at += separator->bytes - 1;
			continue;
		}
		TRY(collect_text(run, &parts, at + separator->bytes, (size_t)(end - at) - separator->bytes));
		end = at;
	}
	TRY(collect_text(run, &parts, start, (size_t)(end - start)));
	for (size_t i = 0; i < parts.count / 2; i++) {
		struct value other = parts.items[i];
		parts.items[i] = parts.items[parts.count - 1 - i];
		parts.items[parts.count - 1 - i] = other;
	}
	return as_list(run, &parts, ret);
}

static bool ends_line(uint32_t c)
{
	return (c >= '\n' && c <= '\r') || (c >= 0x1c && c <= 0x1e) || c == 0x85 || c == 0x2028 || c == 0x2029;
}

enum status string_lines(struct run *run, const struct text *text, bool keep_ends, struct value *ret)
{
	struct collector lines = {0};
	const char *at = text->data, *end = text->data + text->bytes, *start = at;
	TRY(run_spend_bytes(run, text->bytes));
	while (at < end) {
		const char *stop = at;
		uint32_t c = utf8_next(&at);
		if (!ends_line(c)) continue;
		if (c == '\r' && at < end && *at == '\n') at++;
		TRY(collect_text(run, &lines, start, (size_t)((keep_ends ? at : stop) - start)));
		start = at;
	}
	if (start < end) TRY(collect_text(run, &lines, start, (size_t)(end - start)));
	return as_list(run, &lines, ret);
}

enum status string_join(struct run *run, const struct text *separator, const struct list *list, struct value *ret)
{
	struct buffer buffer = {0};
	enum status status = STATUS_OK;
	for (size_t i = 0; i < list->count && status == STATUS_OK; i++) {
		if (i) status = run_append(run, &buffer, separator->data, separator->bytes);
		if (status == STATUS_OK) status = print_value(run, &buffer, &list->items[i]);
	}
	return string_take(run, status, &buffer, ret);
}

enum status string_repeat(struct run *run, const struct text *text, int64_t times, struct value *ret)
{
	size_t count = times > 0 ? (size_t)times : 0, total;
	if (__builtin_mul_overflow(text->bytes, count, &total) || total > RUN_OUTPUT)
		return run_refuse(run, "a string repeated so often");
	char *copy = run_new(run, total + 1, 1);
	if (!copy) return run->status;
	for (size_t i = 0; text->bytes && i < count; i++)
		memcpy(copy + i * text->bytes, text->data, text->bytes);
	return value_string(run, copy, total, ret);
}
