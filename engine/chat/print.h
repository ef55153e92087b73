/* Values as text. */
#ifndef BESAD_ENGINE_CHAT_PRINT_H
#define BESAD_ENGINE_CHAT_PRINT_H

#include "engine/chat/value.h"

/* Python's str() and repr(). */
enum status print_value(struct run *, struct buffer *, const struct value *);
enum status print_repr(struct run *, struct buffer *, const struct value *);

/* str() as a value: a string is itself. */
enum status value_to_string(struct run *, const struct value *, struct value *ret);

struct json_style {
	bool ascii, sorted;
	const struct text *indent;     /* of a level; NULL: all on one line */
	const struct text *item, *key; /* what separates items, and keys from values */
};

/* Python's json.dumps. */
enum status print_json(struct run *, struct buffer *, const struct value *, const struct json_style *);

#endif
