/* What methods and filters of strings share. */
#ifndef BESAD_ENGINE_CHAT_STRINGS_H
#define BESAD_ENGINE_CHAT_STRINGS_H

#include "engine/chat/value.h"

/* At most `most` of them; all where it is negative. */
enum status string_replace(struct run *, const struct text *, const struct text *old, const struct text *new, int64_t most,
			   struct value *ret);

/* A list of the parts between `separator`, or between white space where that is NULL. */
enum status string_split(struct run *, const struct text *, const struct text *separator, int64_t most, struct value *ret);
enum status string_split_right(struct run *, const struct text *, const struct text *separator, int64_t most, struct value *ret);
enum status string_lines(struct run *, const struct text *, bool keep_ends, struct value *ret);

enum status string_join(struct run *, const struct text *separator, const struct list *, struct value *ret); /* by str() */

/* So many times the same. */
enum status string_repeat(struct run *, const struct text *, int64_t times, struct value *ret);

/* What a buffer has, as a value; frees it, whatever `status`, which is returned where it is none that is good. */
enum status string_take(struct run *, enum status status, struct buffer *, struct value *ret);

/* Values that are collected. */
struct collector {
	struct value *items;
	size_t count, room;
};
enum status collect_value(struct run *, struct collector *, const struct value *);
enum status collect_text(struct run *, struct collector *, const char *data, size_t bytes);

#endif
