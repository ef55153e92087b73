/* A pull parser: JSON read token by token through a small window, in memory that does not grow with the text. For what may be
 * large and comes from a file: the heads of safetensors files, and their index. */
#ifndef BESAD_BASE_JSON_STREAM_H
#define BESAD_BASE_JSON_STREAM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/file.h"
#include "base/json.h"

enum json_token {
	JSON_OBJECT,
	JSON_OBJECT_END,
	JSON_ARRAY,
	JSON_ARRAY_END,
	JSON_KEY,    /* `text` */
	JSON_STRING, /* `text` */
	JSON_NUMBER, /* `number` */
	JSON_WORD,   /* true, false or null: `text` */
	JSON_END,    /* of the text: after one value there is nothing but white space */
};

enum { JSON_STREAM_WINDOW = 16384, JSON_STREAM_TEXT = 1024 };

struct json_stream {
	const char *what; /* names the source in errors */
	const struct file *file;
	const char *memory; /* the text itself where there is no file */
	int64_t next, end;  /* of what the window has not had yet: offsets in the file or in `memory` */
	size_t at, filled;  /* in the window */
	int64_t consumed;
	bool in_object[JSON_MAX_DEPTH];
	int depth;
	int expected; /* json_stream.c */

	/* Of the last token. */
	char text[JSON_STREAM_TEXT + 1]; /* valid UTF-8 without NUL; of a longer text the first JSON_STREAM_TEXT bytes at most */
	bool cut;
	double number;

	char window[JSON_STREAM_WINDOW];
};

/* The text is the bytes from `begin` to `end` of a file, or a buffer. All three are borrowed. */
void json_stream_file(struct json_stream *, const struct file *, int64_t begin, int64_t end);
void json_stream_memory(struct json_stream *, const char *text, size_t bytes, const char *what);

/* The next token. STATUS_INVALID for what is not JSON, for invalid UTF-8 and NUL in strings, and for nesting beyond
 * JSON_MAX_DEPTH. Escapes are resolved. */
enum status json_next(struct json_stream *, enum json_token *ret, struct error *err);

/* Reads to the end of the value that begins with `token`. */
enum status json_skip(struct json_stream *, enum json_token token, struct error *err);

#endif
