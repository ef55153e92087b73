#include "engine/text/kind.h"

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <json-c/json.h>

#include "engine/text/census.h"
#include "engine/text/foreign.h"
#include "engine/text/rows.h"

enum { HEAD = 1 << 16, LINES = 32 };

const char *data_kind_name(enum data_kind kind)
{
	static const char *const names[] = {"text", "json_lines", "json_objects", "json_array", "tokens"};
	return names[kind];
}

/* The beginning of a text. */
struct head {
	const char *text, *end;
	bool whole; /* nothing is behind it */
};

/* ---- JSON ----------------------------------------------------------------------------------------------------------------- */

static const char *skip_blank(const char *text, const char *end)
{
	while (text < end && memchr(" \t\r\n", *text, 4))
		text++;
	return text;
}

enum value {
	VALUE_NONE,   /* no JSON */
	VALUE_CUT,    /* the beginning of a JSON value */
	VALUE_OBJECT, /* with a member */
	VALUE_OTHER,
};

/* What stands at *at, which moves behind it. */
static enum value read_value(struct json_tokener *tokener, const char **at, const char *end)
{
	json_tokener_reset(tokener);
	struct json_object *json = json_tokener_parse_ex(tokener, *at, (int)(end - *at));
	enum json_tokener_error error = json_tokener_get_error(tokener);
	enum value value = error == json_tokener_continue ? VALUE_CUT : error == json_tokener_success ? VALUE_OTHER : VALUE_NONE;
	if (value == VALUE_OTHER && json_object_is_type(json, json_type_object) && json_object_object_length(json) > 0)
		value = VALUE_OBJECT;
	*at += json_tokener_get_parse_end(tokener);
	json_object_put(json);
	return value;
}

/* A cut value is JSON if more of it may follow the head; in a whole text it is a broken file, if at least one key is there. */
static bool is_json(const struct head *head, const char *begin)
{
	return !head->whole || memmem(begin, (size_t)(head->end - begin), "\":", 2);
}

static bool has_rows(struct json_tokener *tokener, const struct head *head)
{
	int lines = 0, rows = 0;
	for (const char *line = head->text, *next; line < head->end && lines < LINES; line = next) {
		const char *newline = memchr(line, '\n', (size_t)(head->end - line)), *end = newline ? newline : head->end;
		next = newline ? newline + 1 : head->end;
		const char *at = skip_blank(line, end);
		if (at == end) continue;
		bool cut = !newline &&
			   !head->whole; /* a line that goes on behind the head tells something only if it is all there is */
		if (cut && lines > 0) break;
		lines++;
		if (*at != '{') continue;
		enum value value = read_value(tokener, &at, end);
		rows += (value == VALUE_OBJECT && skip_blank(at, end) == end) || (cut && value == VALUE_CUT);
	}
	return rows > 0 && 2 * rows >= lines;
}

/* Where `named`, one whole object of several lines is enough: what is wrong behind it shall be told as such. */
static bool has_objects(struct json_tokener *tokener, const struct head *head, bool named)
{
	bool members = false; /* {} alone is no row */
	for (const char *at = skip_blank(head->text, head->end), *begin = at; at < head->end;
	     begin = at = skip_blank(at, head->end)) {
		if (*at != '{') return false;
		enum value value = read_value(tokener, &at, head->end);
		if (value == VALUE_CUT) return is_json(head, begin);
		if (value == VALUE_NONE) return false;
		members = members || value == VALUE_OBJECT;
		if (named && members && memchr(begin, '\n', (size_t)(at - begin))) return true;
	}
	return members;
}

/* `at` is behind the "[". */
static bool has_elements(struct json_tokener *tokener, const struct head *head, const char *at)
{
	bool objects = true;
	at = skip_blank(at, head->end);
	if (at < head->end && *at == ']') return skip_blank(at + 1, head->end) == head->end;
	for (;;) {
		const char *begin = at = skip_blank(at, head->end);
		if (at == head->end) return !head->whole;
		enum value value = read_value(tokener, &at, head->end);
		if (value == VALUE_CUT) return is_json(head, begin);
		if (value == VALUE_NONE) return false;
		objects = objects && value == VALUE_OBJECT;
		at = skip_blank(at, head->end);
		if (at == head->end) return !head->whole || objects;
		if (*at == ']') return skip_blank(at + 1, head->end) == head->end;
		if (*at++ != ',') return false;
		if (objects) return true;
	}
}

static enum status find_json(const struct head *head, bool named, enum data_kind *ret, struct error *err)
{
	struct json_tokener *tokener = rows_tokener();
	if (!tokener) return error_set(err, STATUS_NO_MEMORY, "no memory to parse JSON");
	const char *first = skip_blank(head->text, head->end);
	bool bracket = first < head->end && *first == '[', brace = first < head->end && *first == '{';
	if (bracket && has_elements(tokener, head, first + 1))
		*ret = DATA_JSON_ARRAY;
	else if (has_rows(tokener, head))
		*ret = DATA_JSON_LINES;
	else if (brace && has_objects(tokener, head, named))
		*ret = DATA_JSON_OBJECTS;
	else
		*ret = !named ? DATA_TEXT : bracket ? DATA_JSON_ARRAY : DATA_JSON_LINES;
	json_tokener_free(tokener);
	return STATUS_OK;
}

/* ---- the name ------------------------------------------------------------------------------------------------------------- */

/* Whether the name ends so, in whatever case, apart from the suffix of a compression. */
static bool has_suffix(const char *name, const char *suffix)
{
	static const char *const packed[] = {".gz", ".zst", ".zstd", ".gzip"};
	size_t length = strlen(name), tail = strlen(suffix);
	for (size_t i = 0; i < sizeof packed / sizeof *packed; i++) {
		size_t more = strlen(packed[i]);
		if (length > more && strcasecmp(name + length - more, packed[i]) == 0) {
			length -= more;
			break;
		}
	}
	return length > tail && strncasecmp(name + length - tail, suffix, tail) == 0;
}

static enum status refuse_name(const struct file *file, const char *name, struct error *err)
{
	if (has_suffix(name, ".safetensors"))
		return error_set(err, STATUS_INVALID, "%s: is not a safetensors file, though its name says so", file->path);
	if (!has_suffix(name, ".csv") && !has_suffix(name, ".tsv")) return STATUS_OK;
	return error_set(
		err, STATUS_UNSUPPORTED,
		"%s: is a table by its name; write its rows as JSON Lines, one object with a text field a line, or give it "
		"another name to have all of it read as plain text",
		file->path);
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

/* A safetensors file begins with the length of its header, which a text would not, and then the header's brace. */
static bool is_safetensors(const char *head, size_t bytes)
{
	return bytes >= 9 && head[8] == '{' && !head[4] && !head[5] && !head[6] && !head[7];
}

static enum status find(const struct file *file, const char *name, const struct head *unpacked, enum compression compression,
			enum data_kind *ret, struct error *err)
{
	size_t bytes = (size_t)(unpacked->end - unpacked->text);
	if (is_safetensors(unpacked->text, bytes)) {
		if (compression != COMPRESSION_NONE)
			return error_set(err, STATUS_UNSUPPORTED, "%s: is a packed safetensors file; unpack it (%s -d)", file->path,
					 compression_name(compression));
		*ret = DATA_TOKENS;
		return STATUS_OK;
	}
	TRY(foreign_refuse(file, unpacked->text, bytes, compression, err));
	struct head head = *unpacked;
	if (bytes >= 3 && memcmp(head.text, "\xef\xbb\xbf", 3) == 0) head.text += 3;
	struct census census = census_take(head.text, (size_t)(head.end - head.text), !head.whole);
	TRY(census_judge(&census, (size_t)(head.end - head.text), file->path, err));
	bool named = has_suffix(name, ".json") || has_suffix(name, ".jsonl") || has_suffix(name, ".ndjson");
	TRY(find_json(&head, named, ret, err));
	return *ret == DATA_TEXT ? refuse_name(file, name, err) : STATUS_OK;
}

enum status data_kind_find(const struct file *file, const char *name, enum data_kind *ret, enum compression *ret_compression,
			   struct error *err)
{
	struct unpack *unpack;
	const char *text;
	size_t bytes;
	if (file->size == 0) return error_set(err, STATUS_INVALID, "%s: is empty", file->path);
	TRY(unpack_open(file, &unpack, err));
	enum data_kind kind = DATA_TEXT;
	enum compression compression = unpack_compression(unpack);
	enum status status = unpack_next(unpack, &text, &bytes, err);
	if (status == STATUS_OK) {
		const struct head head = {text, text + (bytes > HEAD ? HEAD : bytes), bytes <= HEAD};
		status = find(file, name, &head, compression, &kind, err);
	}
	unpack_close(unpack);
	TRY(status);
	*ret = kind;
	if (ret_compression) *ret_compression = compression;
	return STATUS_OK;
}
