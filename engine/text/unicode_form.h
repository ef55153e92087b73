/* Unicode's normal forms, of version 9: those of the tokenizers package. */
#ifndef BESAD_ENGINE_UNICODE_FORM_H
#define BESAD_ENGINE_UNICODE_FORM_H

#include <stddef.h>

#include "base/error.h"
#include "engine/text/text_buffer.h"

enum unicode_form { UNICODE_NFC, UNICODE_NFD, UNICODE_NFKC, UNICODE_NFKD };

/* Appends valid UTF-8 in that form to `out`, in O(n log n). `scratch` is any buffer, to be used again. */
enum status unicode_normalize(struct text_buffer *out, struct text_buffer *scratch, enum unicode_form form, const char *text,
			      size_t bytes, struct error *err);

#endif
