#include "engine/text/words.h"

#include <stdlib.h>
#include <string.h>

enum {
	CACHED_BYTES = 22,  /* of the words that are remembered */
	MAX_CACHED = 65536, /* words remembered */
	MAX_CACHED_IDS = 255,
};

/* A word seen: its ids are at ids[at], among those of its last appearance. */
struct seen_word {
	uint64_t at;
	uint8_t bytes, count; /* bytes 0: free */
	char word[CACHED_BYTES];
};

enum status words_new(size_t text_bytes, struct words *ret, struct error *err)
{
	size_t places = 256;
	while (places < MAX_CACHED && places < text_bytes / 16)
		places *= 2;
	struct seen_word *seen = calloc(places, sizeof *seen);
	size_t capacity = text_bytes / 4 + 16;
	int32_t *ids = malloc(capacity * sizeof *ids);
	if (!seen || !ids) {
		free(seen);
		free(ids);
		return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	}
	*ret = (struct words){.ids = ids, .capacity = capacity, .seen = seen, .seen_mask = places - 1};
	return STATUS_OK;
}

void words_free(struct words *words)
{
	free(words->ids);
	free(words->seen);
	*words = (struct words){0};
}

void words_take(struct words *words, int32_t **ret_ids, size_t *ret_count)
{
	*ret_ids = words->ids;
	*ret_count = words->count;
	words->ids = NULL;
}

enum status words_grow(void *array, size_t count, size_t size, struct error *err)
{
	void *old, *grown = NULL;
	memcpy(&old, array, sizeof old);
	if (count <= SIZE_MAX / size) grown = realloc(old, count * size);
	if (!grown) return error_set(err, STATUS_NO_MEMORY, "no memory to encode text");
	memcpy(array, &grown, sizeof grown);
	return STATUS_OK;
}

enum status words_reserve(struct words *words, size_t more, struct error *err)
{
	if (more <= words->capacity - words->count) return STATUS_OK;
	size_t capacity = words->capacity * 2;
	if (capacity < words->count + more) capacity = words->count + more;
	TRY(words_grow(&words->ids, capacity, sizeof *words->ids, err));
	words->capacity = capacity;
	return STATUS_OK;
}

enum status words_id(struct words *words, int32_t id, struct error *err)
{
	TRY(words_reserve(words, 1, err));
	words->ids[words->count++] = id;
	return STATUS_OK;
}

enum status words_encode(struct words *words, const char *text, size_t bytes, word_encode encode, void *arg, struct error *err)
{
	if (bytes > CACHED_BYTES) return encode(arg, words, text, bytes, err);
	char word[24] = {0};
	uint64_t parts[3];
	memcpy(word, text, bytes);
	memcpy(parts, word, sizeof parts);
	uint64_t hash =
		(parts[0] * 0x9e3779b97f4a7c15u) ^ (parts[1] * 0xc2b2ae3d27d4eb4fu) ^ ((parts[2] + bytes) * 0x165667b19e3779f9u);
	struct seen_word *seen = &words->seen[(hash >> 29 ^ hash >> 47) & words->seen_mask];
	if (seen->bytes == bytes && memcmp(seen->word, word, CACHED_BYTES) == 0) {
		TRY(words_reserve(words, seen->count, err));
		memcpy(words->ids + words->count, words->ids + seen->at, seen->count * sizeof *words->ids);
		words->count += seen->count;
		return STATUS_OK;
	}
	size_t at = words->count;
	TRY(encode(arg, words, text, bytes, err));
	if (words->count - at > MAX_CACHED_IDS) return STATUS_OK;
	seen->at = at;
	seen->bytes = (uint8_t)bytes;
	seen->count = (uint8_t)(words->count - at);
	memcpy(seen->word, word, CACHED_BYTES);
	return STATUS_OK;
}
