/* Characters as Python's str has them. */
#ifndef BESAD_ENGINE_CHAT_LETTERS_H
#define BESAD_ENGINE_CHAT_LETTERS_H

#include "engine/chat/value.h"

bool letter_is_space(uint32_t code_point); /* str.isspace, and \s */
bool letter_is_alphabetic(uint32_t code_point);
bool letter_is_decimal(uint32_t code_point); /* Nd */
bool letter_is_numeric(uint32_t code_point); /* what has a number for its value */
bool letter_is_lower(uint32_t code_point);
bool letter_is_upper(uint32_t code_point); /* title case is neither */
bool letter_is_title(uint32_t code_point);
bool letter_is_printable(uint32_t code_point);

/* str.lower and its like, appended. STATUS_UNSUPPORTED for the few characters whose upper case is more than one that is not ß. */
enum letter_case {
	CASE_LOWER,
	CASE_UPPER,
	CASE_CAPITALIZE, /* the first upper */
	CASE_TITLE,      /* the first of each word */
};
enum status letters_change(struct run *, struct buffer *, const struct text *, enum letter_case);

/* What is left of a text without characters of `chars`, or white space where that is NULL, at its start and end. */
enum { STRIP_LEFT = 1, STRIP_RIGHT = 2 };
enum status letters_strip(struct run *, const struct text *, const struct text *chars, int sides, struct value *ret);

#endif
