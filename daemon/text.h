#ifndef BESAD_DAEMON_TEXT_H
#define BESAD_DAEMON_TEXT_H

#include "base/buffer.h"

/* A copy in which every byte that is no part of valid UTF-8 is a '?': file names may be anything, JSON may not. NULL when memory
 * runs out. */
char *text_valid_utf8(const char *text);

/* Appends the text with U+FFFD for each zero byte: JSON's strings end at one here. */
void text_append_without_zeros(struct buffer *, const char *text, size_t bytes);

#endif
