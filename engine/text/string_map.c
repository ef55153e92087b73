#include "engine/text/string_map.h"

#include <stdlib.h>
#include <string.h>

struct string_map_entry {
	size_t start, bytes; /* in `strings` */
	uint32_t hash;
	int32_t value; /* -1: free */
};

static uint32_t hash(const char *text, size_t bytes)
{
	uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
	for (size_t i = 0; i < bytes; i++)
		h = (h ^ (unsigned char)text[i]) * 0x100000001b3u;
	return (uint32_t)(h ^ h >> 32);
}

/* The entry that holds `text`, or the free one where it belongs. */
static struct string_map_entry *find(const struct string_map *map, const char *text, size_t bytes, uint32_t h)
{
	for (size_t i = h;; i++) {
		struct string_map_entry *entry = &map->entries[i & (map->capacity - 1)];
		if (entry->value < 0) return entry;
		if (entry->hash == h && entry->bytes == bytes && memcmp(map->strings.data + entry->start, text, bytes) == 0)
			return entry;
	}
}

static enum status grow(struct string_map *map, struct error *err)
{
	size_t capacity = map->capacity ? map->capacity * 2 : 64;
	struct string_map_entry *old = map->entries, *entries = calloc(capacity, sizeof *entries);
	if (!entries) return error_set(err, STATUS_NO_MEMORY, "no memory for a vocabulary of %zu strings", map->count);
	for (size_t i = 0; i < capacity; i++)
		entries[i].value = -1;
	for (size_t i = 0; i < map->capacity; i++) {
		if (old[i].value < 0) continue;
		size_t at = old[i].hash & (capacity - 1);
		while (entries[at].value >= 0)
			at = (at + 1) & (capacity - 1);
		entries[at] = old[i];
	}
	free(old);
	map->entries = entries;
	map->capacity = capacity;
	return STATUS_OK;
}

enum status string_map_put(struct string_map *map, const char *text, size_t bytes, int32_t value, struct error *err)
{
	if (map->count * 2 >= map->capacity) TRY(grow(map, err));
	uint32_t h = hash(text, bytes);
	struct string_map_entry *entry = find(map, text, bytes, h);
	if (entry->value < 0) {
		size_t start = map->strings.size;
		TRY(text_append(&map->strings, text, bytes, err));
		*entry = (struct string_map_entry){.start = start, .bytes = bytes, .hash = h};
		map->count++;
	}
	entry->value = value;
	return STATUS_OK;
}

int32_t string_map_get(const struct string_map *map, const char *text, size_t bytes)
{
	return map->capacity ? find(map, text, bytes, hash(text, bytes))->value : -1;
}

bool string_map_find_value(const struct string_map *map, int32_t value, const char **ret_text, size_t *ret_bytes)
{
	for (size_t i = 0; i < map->capacity; i++)
		if (map->entries[i].value == value) {
			*ret_text = map->strings.data + map->entries[i].start;
			*ret_bytes = map->entries[i].bytes;
			return true;
		}
	return false;
}

void string_map_invert(const struct string_map *map, struct string_view *ret, int64_t count)
{
	for (size_t i = 0; i < map->capacity; i++) {
		const struct string_map_entry *entry = &map->entries[i];
		if (entry->value >= 0 && entry->value < count)
			ret[entry->value] = (struct string_view){map->strings.data + entry->start, entry->bytes};
	}
}

void string_map_free(struct string_map *map)
{
	free(map->entries);
	text_buffer_free(&map->strings);
	*map = (struct string_map){0};
}
