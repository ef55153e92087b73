/* UTF-8 and the character classes that tokenizers name. Every function but utf8_length and utf8_repair expects valid UTF-8. */
#ifndef BESAD_ENGINE_UNICODE_H
#define BESAD_ENGINE_UNICODE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/error.h"

/* Reads the code point at *at and moves *at behind it. */
static inline uint32_t utf8_next(const char **at)
{
	const unsigned char *s = (const unsigned char *)*at;
	if (s[0] < 0x80) {
		*at += 1;
		return s[0];
	}
	if (s[0] < 0xe0) {
		*at += 2;
		return (s[0] & 0x1fu) << 6 | (s[1] & 0x3fu);
	}
	if (s[0] < 0xf0) {
		*at += 3;
		return (s[0] & 0x0fu) << 12 | (s[1] & 0x3fu) << 6 | (s[2] & 0x3fu);
	}
	*at += 4;
	return (s[0] & 0x07u) << 18 | (s[1] & 0x3fu) << 12 | (s[2] & 0x3fu) << 6 | (s[3] & 0x3fu);
}

/* The start of the character that ends right before `at`; there must be one. */
static inline const char *utf8_previous(const char *at)
{
	do
		at--;
	while ((*at & 0xc0) == 0x80);
	return at;
}

/* Writes the code point to out[0..3] and returns how many bytes it took. */
int utf8_write(uint32_t code_point, char out[4]);

/* The length of the well-formed character at `at`, or minus the length of the maximal invalid sequence there (Unicode, table
 * 3-7). */
int utf8_length(const char *at, const char *end);

/* A copy of `text` in which each maximal invalid sequence is U+FFFD, as Python's bytes.decode("utf-8", errors="replace") has it:
 * the longest start of a well-formed character is one sequence, any other byte its own. The caller frees it. */
enum status utf8_repair(const char *text, size_t bytes, char **ret_text, size_t *ret_bytes, struct error *err);

bool unicode_is_space(uint32_t code_point);       /* White_Space */
bool unicode_is_word(uint32_t code_point);        /* Alphabetic, marks, decimal digits, connectors, joiners: UTS 18's \w */
bool unicode_is_number(uint32_t code_point);      /* Nd, Nl, No */
bool unicode_is_punctuation(uint32_t code_point); /* P*, and ASCII's symbols */
bool unicode_is_nonspacing(uint32_t code_point);  /* Mn */
bool unicode_is_combining(uint32_t code_point);   /* M* */
bool unicode_is_unprintable(uint32_t code_point); /* what BERT drops: Cc but tab and newlines, Cf, Co, U+0000, U+FFFD */

/* A number for the script, Han, Hiragana and Katakana being one; a space and what is in no script are UNICODE_SCRIPT_ANY. */
enum { UNICODE_SCRIPT_ANY = -1 };
int unicode_script_group(uint32_t code_point);

#endif
