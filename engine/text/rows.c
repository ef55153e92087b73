#include "engine/text/rows.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/json.h"
#include "engine/text/reader.h"
#include "engine/text/text_buffer.h"

enum { MAX_DEPTH = 1000, END = -1 };

struct rows {
	const struct file *file;
	enum data_kind kind;
	struct reader *reader;
	struct json_tokener *tokener;
	struct json_object *row;
	int64_t number, line; /* of the row */
	char where[64];

	/* Where rows are not lines: what is left of the last stretch, and the row that is put together of it. */
	const char *rest;
	size_t rest_bytes;
	int64_t at_line;
	bool begun, ended; /* the array's brackets were read */
	struct text_buffer element;
};

struct json_tokener *rows_tokener(void)
{
	struct json_tokener *tokener = json_tokener_new_ex(MAX_DEPTH);
	if (tokener) json_tokener_set_flags(tokener, JSON_TOKENER_STRICT | JSON_TOKENER_ALLOW_TRAILING_CHARS);
	return tokener;
}

const char *rows_type_name(const struct json_object *json)
{
	switch (json_object_get_type(json)) {
	case json_type_null:
		return "null";
	case json_type_boolean:
		return "true or false";
	case json_type_double:
	case json_type_int:
		return "a number";
	case json_type_object:
		return "an object";
	case json_type_array:
		return "a list";
	case json_type_string:
		break;
	}
	return "a string";
}

enum status rows_open(const struct file *file, enum data_kind kind, struct rows **ret, struct error *err)
{
	struct rows *rows = calloc(1, sizeof *rows);
	if (!rows) return error_set(err, STATUS_NO_MEMORY, "no memory to read %s", file->path);
	rows->file = file;
	rows->kind = kind;
	rows->at_line = 1;
	rows->tokener = rows_tokener();
	enum status status = rows->tokener ? reader_open(file, &rows->reader, err)
					   : error_set(err, STATUS_NO_MEMORY, "no memory to read %s", file->path);
	if (status != STATUS_OK) {
		rows_close(rows);
		return status;
	}
	*ret = rows;
	return STATUS_OK;
}

void rows_close(struct rows *rows)
{
	if (!rows) return;
	json_object_put(rows->row);
	if (rows->tokener) json_tokener_free(rows->tokener);
	reader_close(rows->reader);
	text_buffer_free(&rows->element);
	free(rows);
}

const char *rows_where(const struct rows *rows)
{
	return rows->where;
}

static enum status invalid(const struct rows *rows, const char *problem, struct error *err)
{
	return error_set(err, STATUS_INVALID, "%s: %s: %s", rows->file->path, rows->where, problem);
}

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r' || c == '\n';
}

/* ---- rows that are not lines ------------------------------------------------------------------------------------------------- */

/* The next byte that is not blank, which is not consumed, or END. */
static enum status peek(struct rows *rows, int *ret, struct error *err)
{
	for (;;) {
		for (; rows->rest_bytes; rows->rest++, rows->rest_bytes--) {
			rows->at_line += *rows->rest == '\n';
			if (is_blank(*rows->rest)) continue;
			*ret = (unsigned char)*rows->rest;
			return STATUS_OK;
		}
		TRY(reader_next(rows->reader, &rows->rest, &rows->rest_bytes, err));
		if (rows->rest_bytes) continue;
		*ret = END;
		return STATUS_OK;
	}
}

static void consume(struct rows *rows)
{
	rows->rest++;
	rows->rest_bytes--;
}

/* Where within a value the reading is. */
struct scan {
	int64_t depth;
	bool in_string, escaped, bare; /* bare: a number or a word */
};

/* How many of the bytes belong to the value; *ended when its end is among them. */
static size_t scan_value(struct scan *scan, const char *text, size_t bytes, int64_t *line, bool *ended)
{
	for (size_t i = 0; i < bytes; i++) {
		char c = text[i];
		*line += c == '\n';
		if (scan->in_string) {
			if (scan->escaped)
				scan->escaped = false;
			else if (c == '\\')
				scan->escaped = true;
			else if (c == '"')
				scan->in_string = false;
			*ended = !scan->in_string && !scan->depth;
			if (*ended) return i + 1;
			continue;
		}
		if (scan->bare && (is_blank(c) || strchr(",]}", c))) {
			*line -= c == '\n';
			*ended = true;
			return i;
		}
		if (scan->bare) continue;
		scan->in_string = c == '"';
		scan->depth += c == '{' || c == '[';
		scan->depth -= c == '}' || c == ']';
		*ended = !scan->in_string && scan->depth <= 0;
		if (*ended) return i + 1;
	}
	*ended = false;
	return bytes;
}

/* The value that begins at the next byte. The end of the file ends it too: the parser will say what is missing. */
static enum status take_value(struct rows *rows, const char **ret, size_t *ret_bytes, struct error *err)
{
	struct scan scan = {.bare = !strchr("{[\"", *rows->rest)};
	bool ended = false;
	rows->element.size = 0;
	while (!ended && rows->rest_bytes) {
		size_t bytes = scan_value(&scan, rows->rest, rows->rest_bytes, &rows->at_line, &ended);
		if (rows->element.size + bytes > READER_MAX_LINE) {
			snprintf(rows->where, sizeof rows->where, "row %" PRId64, rows->number);
			return error_set(err, STATUS_INVALID, "%s: %s is longer than %d bytes", rows->file->path, rows->where,
					 READER_MAX_LINE);
		}
		TRY(text_append(&rows->element, rows->rest, bytes, err));
		rows->rest += bytes;
		rows->rest_bytes -= bytes;
		if (!ended && !rows->rest_bytes) TRY(reader_next(rows->reader, &rows->rest, &rows->rest_bytes, err));
	}
	*ret = rows->element.data;
	*ret_bytes = rows->element.size;
	return STATUS_OK;
}

static void set_where(struct rows *rows)
{
	rows->line = rows->at_line;
	snprintf(rows->where, sizeof rows->where, "row %" PRId64 " (line %" PRId64 ")", rows->number, rows->line);
}

/* What parts the rows of an array; *ret_more says whether one follows. */
static enum status next_element(struct rows *rows, bool *ret_more, struct error *err)
{
	int c;
	bool first = !rows->begun;
	*ret_more = false;
	TRY(peek(rows, &c, err));
	set_where(rows);
	if (first) {
		rows->begun = true;
		if (c != '[') return invalid(rows, "not valid JSON: no [ at the beginning of the array", err);
		consume(rows);
		TRY(peek(rows, &c, err));
		set_where(rows);
	}
	if (c == ']' && !rows->ended) {
		rows->ended = true;
		consume(rows);
		TRY(peek(rows, &c, err));
		set_where(rows);
	}
	if (rows->ended) return c == END ? STATUS_OK : invalid(rows, "not valid JSON: something stands behind the array's ]", err);
	if (!first) {
		if (c == END) return invalid(rows, "not valid JSON: the array ends without its ]", err);
		if (c != ',') return invalid(rows, "not valid JSON: no comma before this row", err);
		consume(rows);
		TRY(peek(rows, &c, err));
		set_where(rows);
	}
	if (c == END) return invalid(rows, "not valid JSON: the array ends without its ]", err);
	*ret_more = true;
	return STATUS_OK;
}

static enum status next_object(struct rows *rows, bool *ret_more, struct error *err)
{
	int c;
	TRY(peek(rows, &c, err));
	set_where(rows);
	*ret_more = c != END;
	return c == END || c == '{' ? STATUS_OK : invalid(rows, "not valid JSON: an object should begin here", err);
}

/* ---- rows -------------------------------------------------------------------------------------------------------------------- */

/* The bytes of the next row; *ret is NULL at the end. */
static enum status next_bytes(struct rows *rows, const char **ret, size_t *ret_bytes, struct error *err)
{
	bool more;
	rows->number++;
	if (rows->kind != DATA_JSON_LINES) {
		TRY((rows->kind == DATA_JSON_ARRAY ? next_element : next_object)(rows, &more, err));
		if (more) return take_value(rows, ret, ret_bytes, err);
		*ret = NULL;
		return STATUS_OK;
	}
	do {
		TRY(reader_line(rows->reader, ret, ret_bytes, err));
		while (*ret && *ret_bytes && is_blank(**ret))
			++*ret, --*ret_bytes;
	} while (*ret && *ret_bytes == 0);
	snprintf(rows->where, sizeof rows->where, "line %" PRId64, reader_line_number(rows->reader));
	return STATUS_OK;
}

static enum status parse(struct rows *rows, const char *text, size_t bytes, struct error *err)
{
	if (!utf8_valid(text, bytes)) return invalid(rows, "not valid UTF-8", err);
	json_tokener_reset(rows->tokener);
	rows->row = json_tokener_parse_ex(rows->tokener, text, (int)bytes);
	enum json_tokener_error error = json_tokener_get_error(rows->tokener);
	size_t end = json_tokener_get_parse_end(rows->tokener);
	if (error == json_tokener_continue) { /* a number ends with what is behind it */
		rows->row = json_tokener_parse_ex(rows->tokener, " ", 1);
		error = json_tokener_get_error(rows->tokener);
		end = bytes;
	}
	const char *problem =
		error == json_tokener_continue ? "it ends before the row is complete" : json_tokener_error_desc(error);
	if (error == json_tokener_success) {
		problem = NULL;
		while (end < bytes && is_blank(text[end]))
			end++;
		if (end < bytes) problem = "something stands behind the row";
	}
	if (problem)
		return error_set(err, STATUS_INVALID, "%s: %s: not valid JSON: %s (byte %zu of the row)", rows->file->path,
				 rows->where, problem, end + 1);
	if (json_object_is_type(rows->row, json_type_object)) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "%s: %s: must be an object, and is %s", rows->file->path, rows->where,
			 rows_type_name(rows->row));
}

enum status rows_next(struct rows *rows, struct json_object **ret, struct error *err)
{
	const char *text;
	size_t bytes;
	json_object_put(rows->row);
	rows->row = NULL;
	TRY(next_bytes(rows, &text, &bytes, err));
	if (text) TRY(parse(rows, text, bytes, err));
	*ret = rows->row;
	return STATUS_OK;
}
