/* The text of a JSON row: the value that a dotted path names. */
#ifndef BESAD_ENGINE_FIELD_H
#define BESAD_ENGINE_FIELD_H

#include <stdbool.h>

#include <json-c/json.h>

#include "base/error.h"
#include "engine/text/text_buffer.h"

/* The longest path of a field in bytes. */
enum { FIELD_MAX = 1024 };

/* Appends the text that `field` names to `text`; *ret_found says whether there is one.
 *
 * Each part of the path is an object's key or a list's index, counted from 0; a key with dots in it is found too. The value is a
 * string; or a list of messages, {"content": …} or {"value": …}, whose contents are joined by newlines; or a list of parts, as a
 * content may be one itself: strings and {"type": "text", "text": …}, with nothing between them. Messages without text, such as
 * calls of tools, and parts of other types are left out. */
enum status field_text(const struct json_object *row, const char *field, struct text_buffer *text, bool *ret_found,
		       struct error *err);

/* Why the row has no text in `field`, for messages: "'text' is a number", "it has 'prompt', 'completion'". */
void field_describe(const struct json_object *row, const char *field, char *to, size_t size);

#endif
