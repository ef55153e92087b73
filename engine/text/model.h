/* The "model" of a tokenizer.json: a vocabulary, and how a piece of text becomes ids of it. */
#ifndef BESAD_ENGINE_TOKENIZER_MODEL_H
#define BESAD_ENGINE_TOKENIZER_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "engine/text/string_map.h"
#include "engine/text/words.h"

struct model;

/* What the kinds of models differ in. `scratch` is what one encoding, in one thread, needs. */
struct model_kind {
	void (*free)(struct model *);
	enum status (*scratch_new)(const struct model *, void **ret, struct error *err);
	void (*scratch_free)(void *scratch);
	enum status (*encode)(void *scratch, struct words *, const char *text, size_t bytes, struct error *err); /* bytes > 0 */
};

/* The first member of every kind's own struct. */
struct model {
	const struct model_kind *kind;
	struct string_map vocabulary;
	int64_t size;       /* entries of the vocabulary: ids of added tokens start here */
	int32_t largest_id; /* -1: none */
	size_t longest;     /* bytes of the longest token */
};

/* Known: BPE, Unigram, WordPiece, WordLevel. `what` is the file's path. `byte_level`: the pieces are bytes, each standing for the
 * character that ByteLevel gives it; only where model_takes_bytes says so. On failure nothing needs to be freed. */
enum status model_parse(const cJSON *json, const char *what, bool byte_level, struct model **ret, struct error *err);
void model_free(struct model *); /* NULL is fine */
bool model_takes_bytes(const cJSON *json);
bool model_is_unigram(const cJSON *json);

/* The kinds' own, for model_parse. */
enum status bpe_parse(const cJSON *json, const char *what, bool byte_level, struct model **ret, struct error *err);
enum status unigram_parse(const cJSON *json, const char *what, struct model **ret, struct error *err);
enum status wordpiece_parse(const cJSON *json, const char *what, struct model **ret, struct error *err);
enum status wordlevel_parse(const cJSON *json, const char *what, struct model **ret, struct error *err);

/* Reads "vocab", an object of tokens and ids, into a model that is zero but for its kind. */
enum status model_parse_vocabulary(struct model *, const cJSON *json, const char *what, struct error *err);

/* ids[byte] becomes the id of <0x00> … <0xFF>, or -1. */
void model_byte_tokens(const struct model *, int32_t ids[256]);

#endif
