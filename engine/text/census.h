/* Whether bytes are UTF-8 text. */
#ifndef BESAD_ENGINE_CENSUS_H
#define BESAD_ENGINE_CENSUS_H

#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

/* Sequences that are not UTF-8 are counted as the tokenizers replace them, each by one U+FFFD (utf8_repair). */
struct census {
	size_t wide;               /* valid characters of several bytes */
	size_t invalid, first_bad; /* invalid sequences, and where the first is */
	size_t zeros, first_zero;
	size_t controls; /* other characters that texts do not have: C0 without tab, newlines, backspace and escape */
};

/* Where `cut`, a character that the end of the bytes cuts off is not counted. */
struct census census_take(const char *text, size_t bytes, bool cut);

/* Refuses what is no UTF-8 text: it has a zero byte; more than one in a hundred bytes (and more than one at all) is a control
 * character, or begins an invalid sequence; or invalid sequences are more than the characters of several bytes, so that it is
 * in another encoding. A few invalid sequences in UTF-8 text pass: the caller warns of them. STATUS_UNSUPPORTED, with what to
 * do. */
enum status census_judge(const struct census *, size_t bytes, const char *path, struct error *err);

#endif
