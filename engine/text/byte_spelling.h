/* ByteLevel's spelling of bytes: each is a character, printable Latin-1 itself, the others from U+0100 on. */
#ifndef BESAD_ENGINE_BYTE_SPELLING_H
#define BESAD_ENGINE_BYTE_SPELLING_H

#include <stddef.h>
#include <stdint.h>

#include "engine/text/text_buffer.h"

/* The code point of each byte. */
void byte_spelling_table(uint32_t code_points[256]);

/* Appends the spelling of `bytes` bytes. */
enum status byte_spelling(struct text_buffer *out, const char *text, size_t bytes, struct error *err);

#endif
