/* SentencePiece's "precompiled charsmap": a trie of what is replaced, and what by. As the tokenizers package applies it: to each
 * grapheme of less than 6 bytes, and else to each character. */
#ifndef BESAD_ENGINE_PRECOMPILED_H
#define BESAD_ENGINE_PRECOMPILED_H

#include "base/error.h"
#include "engine/text/text_buffer.h"

struct precompiled;

/* From base64; `what` names it in errors. */
enum status precompiled_load(const char *base64, const char *what, struct precompiled **ret, struct error *err);
void precompiled_free(struct precompiled *); /* NULL is fine */

/* Appends valid UTF-8, normalized. */
enum status precompiled_apply(const struct precompiled *, struct text_buffer *out, const char *text, size_t bytes,
			      struct error *err);

#endif
