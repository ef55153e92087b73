/* A hash table from strings, which it copies, to numbers from 0 to INT32_MAX. All zero is empty. */
#ifndef BESAD_ENGINE_STRING_MAP_H
#define BESAD_ENGINE_STRING_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "engine/text/text_buffer.h"

struct string_map {
	struct string_map_entry *entries;
	size_t capacity, count; /* capacity: a power of two */
	struct text_buffer strings;
};

enum status string_map_put(struct string_map *, const char *text, size_t bytes, int32_t value, struct error *err); /* or replaces */
int32_t string_map_get(const struct string_map *, const char *text, size_t bytes); /* -1: not there */
/* A string of that value, by looking at all; false: none. */
bool string_map_find_value(const struct string_map *, int32_t value, const char **ret_text, size_t *ret_bytes);

/* A string of the map; it stays until one is put. */
struct string_view {
	const char *text; /* not 0-terminated */
	size_t bytes;
};
/* ret[value] of each string whose value is below `count`; the others stay as they are. */
void string_map_invert(const struct string_map *, struct string_view *ret, int64_t count);
void string_map_free(struct string_map *);

#endif
