/* The rows of a JSON file, one after the other: JSON Lines, an array's elements, or objects of several lines.
 *
 * They are read as Python's json module reads them: NaN, Infinity and -Infinity are numbers, the last of equal keys counts,
 * U+0000 may stand in a string; a lone surrogate becomes U+FFFD, as no UTF-8 can hold it. */
#ifndef BESAD_ENGINE_ROWS_H
#define BESAD_ENGINE_ROWS_H

#include <stddef.h>
#include <stdint.h>

#include <json-c/json.h>

#include "base/error.h"
#include "base/file.h"
#include "engine/text/kind.h"

struct rows;

/* `kind` is one of the JSON kinds; the file is borrowed and must stay open. */
enum status rows_open(const struct file *file, enum data_kind kind, struct rows **ret, struct error *err);
void rows_close(struct rows *);

/* The next row, always an object, valid until the next call; NULL at the end. STATUS_INVALID, with file and line, for what is
 * no JSON, not UTF-8, no object, nested more than 1000 deep, or longer than READER_MAX_LINE bytes. */
enum status rows_next(struct rows *, struct json_object **ret, struct error *err);

/* Where the last row begins, for messages: "line 7"; "row 3 (line 7)" where rows are not lines. Valid until the next row. */
const char *rows_where(const struct rows *);

/* A parser with these rules; NULL without memory. */
struct json_tokener *rows_tokener(void);

/* "an object", "a string" …, with its article. */
const char *rows_type_name(const struct json_object *);

#endif
