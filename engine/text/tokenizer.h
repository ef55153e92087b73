/* Text to token ids, as the model's own tokenizer files say. */
#ifndef BESAD_ENGINE_TOKENIZER_H
#define BESAD_ENGINE_TOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "engine/place.h"
#include "engine/warnings.h"

struct tokenizer;

/* Loads tokenizer.model (SentencePiece) and tokenizer_config.json from a model directory, or tokenizer.json where there is no
 * tokenizer.model. STATUS_UNSUPPORTED names what a file asks for and besad lacks. A tokenizer with more ids than `vocab`, the
 * embedding's rows, is STATUS_INVALID. */
enum status tokenizer_load(const struct place *model, int64_t vocab, struct warnings *warnings, struct tokenizer **ret,
			   struct error *err);
void tokenizer_free(struct tokenizer *);

/* Encodes `bytes` bytes as one piece, without special tokens. *ret_ids (int32, *ret_count of them) is freed by the caller. */
enum status tokenizer_encode(const struct tokenizer *, const char *text, size_t bytes, int32_t **ret_ids, size_t *ret_count,
			     struct error *err);

/* The id that stands once before a whole text, or -1: add_bos_token decides (or the post-processor of a tokenizer.json). */
int32_t tokenizer_bos(const struct tokenizer *);

#endif
