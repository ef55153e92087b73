/* Text to token ids, as the model's own tokenizer files say and transformers 5.24 reads them. */
#ifndef BESAD_ENGINE_TOKENIZER_H
#define BESAD_ENGINE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"
#include "base/place.h"
#include "base/warnings.h"

struct tokenizer;
struct tokenizer_json;

/* Loads tokenizer.json from a model directory, or tokenizer.model (SentencePiece) where there is none or it does not parse,
 * which is a warning; with what tokenizer_config.json, special_tokens_map.json and added_tokens.json say. STATUS_UNSUPPORTED
 * names what a file asks for and besad lacks. A tokenizer may have more ids than `vocab`, the embedding's rows. */
enum status tokenizer_load(const struct place *model, int64_t vocab, struct warnings *warnings, struct tokenizer **ret,
			   struct error *err);
void tokenizer_free(struct tokenizer *);

/* Encodes `bytes` bytes as one piece, without special tokens around it; those spelled out in the text become their ids. An id
 * beyond the embedding is STATUS_INVALID. *ret_ids (int32, *ret_count of them) is freed by the caller. */
enum status tokenizer_encode(const struct tokenizer *, const char *text, size_t bytes, int32_t **ret_ids, size_t *ret_count,
			     struct error *err);

/* The id that stands once before a whole text, or -1: the post-processor of a tokenizer.json decides, or add_bos_token where
 * there is but a tokenizer.model. */
int32_t tokenizer_bos(const struct tokenizer *);

/* What it is made of (tokenizer_json.h). */
const struct tokenizer_json *tokenizer_parts(const struct tokenizer *);

#endif
