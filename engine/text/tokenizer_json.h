/* What a tokenizer.json holds: its parts, and the ids that the tokenizers package gives with them. */
#ifndef BESAD_ENGINE_TOKENIZER_JSON_H
#define BESAD_ENGINE_TOKENIZER_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/json.h"
#include "engine/text/string_map.h"

struct tokenizer_json;

/* From the tree of a tokenizer.json; `path` names it in errors. `more`: tokens to be added behind the file's own, in the same
 * form, or NULL. `split_special`: special tokens in the text are text. STATUS_UNSUPPORTED names the place and the value of
 * what the file asks for and besad lacks. The "decoder" is not used, nor are "truncation" and "padding". */
enum status tokenizer_json_load(const cJSON *json, const cJSON *more, bool split_special, const char *path,
				struct tokenizer_json **ret, struct error *err);
void tokenizer_json_free(struct tokenizer_json *);

/* Encodes text as one piece, without the post-processor's special tokens; those spelled out in the text become their ids. Text
 * that is not valid UTF-8 is read as utf8_repair has it (unicode.h). *ret_ids (*ret_count of them) is freed by the caller.
 * Threads may share a tokenizer. */
enum status tokenizer_json_encode(const struct tokenizer_json *, const char *text, size_t bytes, int32_t **ret_ids,
				  size_t *ret_count, struct error *err);

int64_t tokenizer_json_size(const struct tokenizer_json *); /* 1 + the largest id */

/* The id that the post-processor puts in front of a single text, or -1. */
int32_t tokenizer_json_bos(const struct tokenizer_json *);

int32_t tokenizer_json_id(const struct tokenizer_json *, const char *token); /* -1: not there */

/* A token of the id, not 0-terminated; false: none. */
bool tokenizer_json_name(const struct tokenizer_json *, int32_t id, const char **ret_text, size_t *ret_bytes);

/* How the tokens of the vocabulary spell text: byte by byte (byte_spelling.h); with "▁" for a space and <0x00> … <0xFF> for
 * bytes; or in another way, from which text is not put together again. */
enum token_spelling { TOKENS_SPELL_BYTES, TOKENS_SPELL_SPACES, TOKENS_SPELL_OTHERWISE };
enum token_spelling tokenizer_json_spelling(const struct tokenizer_json *);

/* The text of an added token as it is found in texts, and whether it is special; false: the id is none's. */
bool tokenizer_json_added(const struct tokenizer_json *, int32_t id, struct string_view *ret, bool *ret_special);

/* ret[id] of each token of the vocabulary whose id is below `count`; the others stay as they are. */
void tokenizer_json_tokens(const struct tokenizer_json *, struct string_view *ret, int64_t count);

#endif
