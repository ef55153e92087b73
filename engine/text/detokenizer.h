/* Token ids back to text, one after the other, as they are generated. */
#ifndef BESAD_ENGINE_DETOKENIZER_H
#define BESAD_ENGINE_DETOKENIZER_H

#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

struct tokenizer;
struct detokenizer;

/* The tokenizer stays while it is used. STATUS_UNSUPPORTED for one whose tokens do not say where spaces are: WordPiece's,
 * WordLevel's, and BPE's with marks for parts of words. */
enum status detokenizer_create(const struct tokenizer *, struct detokenizer **ret, struct error *err);
void detokenizer_free(struct detokenizer *); /* takes NULL */

/* The text that a token adds, valid UTF-8: bytes of a character that is not whole are kept until it is. Special tokens, and ids
 * that no token has, add nothing. *ret is 0-terminated and stays until the next call. */
enum status detokenizer_add(struct detokenizer *, int32_t id, const char **ret, size_t *ret_bytes, struct error *err);

/* What was kept, as U+FFFD; a new text begins. */
enum status detokenizer_end(struct detokenizer *, const char **ret, size_t *ret_bytes, struct error *err);

#endif
