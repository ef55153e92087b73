/* One encoding's ids, and the words it has seen, so that a word met again costs a copy. For one thread. */
#ifndef BESAD_ENGINE_WORDS_H
#define BESAD_ENGINE_WORDS_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct words {
	int32_t *ids;
	size_t count, capacity;

	struct seen_word *seen;
	size_t seen_mask;
};

enum status words_new(size_t text_bytes, struct words *ret, struct error *err);
void words_free(struct words *);

/* Hands out the ids, never NULL, which the caller frees. Nothing more is encoded then. */
void words_take(struct words *, int32_t **ret_ids, size_t *ret_count);

enum status words_reserve(struct words *, size_t more, struct error *err); /* room for `more` ids behind ids[count] */
enum status words_id(struct words *, int32_t id, struct error *err);       /* one id as it is */

/* Appends the ids of a word: what `encode` appended when the word was seen before, else what it appends now. They depend on the
 * word alone. */
typedef enum status (*word_encode)(void *arg, struct words *, const char *text, size_t bytes, struct error *err);
enum status words_encode(struct words *, const char *text, size_t bytes, word_encode encode, void *arg, struct error *err);

/* Makes the array at `array`, a pointer to a pointer, hold `count` elements of `size` bytes; what it held is kept. */
enum status words_grow(void *array, size_t count, size_t size, struct error *err);

#endif
