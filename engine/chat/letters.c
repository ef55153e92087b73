#include "engine/chat/letters.h"

#include <utf8proc.h>

#include "engine/text/unicode.h"

static utf8proc_category_t category(uint32_t c)
{
	return utf8proc_category((utf8proc_int32_t)c);
}

bool letter_is_space(uint32_t c)
{
	return unicode_is_space(c) || (c >= 0x1c && c <= 0x1f);
}

bool letter_is_alphabetic(uint32_t c)
{
	utf8proc_category_t of = category(c);
	return of >= UTF8PROC_CATEGORY_LU && of <= UTF8PROC_CATEGORY_LO;
}

bool letter_is_decimal(uint32_t c)
{
	return category(c) == UTF8PROC_CATEGORY_ND;
}

bool letter_is_numeric(uint32_t c)
{
	return unicode_is_number(c);
}

bool letter_is_lower(uint32_t c)
{
	return category(c) == UTF8PROC_CATEGORY_LL || utf8proc_islower((utf8proc_int32_t)c);
}

bool letter_is_upper(uint32_t c)
{
	return category(c) == UTF8PROC_CATEGORY_LU || utf8proc_isupper((utf8proc_int32_t)c);
}

bool letter_is_title(uint32_t c)
{
	return category(c) == UTF8PROC_CATEGORY_LT;
}

bool letter_is_printable(uint32_t c)
{
	switch (category(c)) {
	case UTF8PROC_CATEGORY_CN:
	case UTF8PROC_CATEGORY_CC:
	case UTF8PROC_CATEGORY_CF:
	case UTF8PROC_CATEGORY_CS:
	case UTF8PROC_CATEGORY_CO:
	case UTF8PROC_CATEGORY_ZL:
	case UTF8PROC_CATEGORY_ZP:
		return false;
	case UTF8PROC_CATEGORY_ZS:
		return c == ' ';
	default:
		return true;
	}
}

/* ---- case ---------------------------------------------------------------------------------------------------------------- */
static bool is_cased(uint32_t c)
{
	return letter_is_lower(c) || letter_is_upper(c) || letter_is_title(c);
}

/* What is passed over where the end of a word is looked for. */
static bool is_case_ignorable(uint32_t c)
{
	switch (category(c)) {
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_CF:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_SK:
		return true;
	default:
		return c == '\'' || c == '.' || c == ':' || c == 0xb7 || c == 0x2018 || c == 0x2019 || c == 0x2024 || c == 0x2027;
	}
}

/* Whether a Σ at `at` ends a word: it is ς then. */
static bool ends_word(const struct text *text, const char *at)
{
	const char *next = at, *end = text->data + text->bytes;
	uint32_t c = 0;
	for (utf8_next(&next); next < end;) {
		c = utf8_next(&next);
		if (!is_case_ignorable(c)) break;
		c = 0;
	}
	if (c && is_cased(c)) return false;
	while (at > text->data) {
		const char *previous = at = utf8_previous(at);
		c = utf8_next(&previous);
		if (!is_case_ignorable(c)) return is_cased(c);
	}
	return false;
}

/* Characters whose upper case is more than one. */
static bool has_long_upper(uint32_t c)
{
	return c == 0x149 || c == 0x1f0 || c == 0x390 || c == 0x3b0 || c == 0x587 || (c >= 0x1e96 && c <= 0x1e9a) ||
	       (c >= 0x1f50 && c <= 0x1f57) || (c >= 0x1f80 && c <= 0x1fff) || (c >= 0xfb00 && c <= 0xfb17);
}

static enum status put(struct run *run, struct buffer *buffer, uint32_t c)
{
	char bytes[4];
	return run_append(run, buffer, bytes, (size_t)utf8_write(c, bytes));
}

static enum status put_lower(struct run *run, struct buffer *buffer, const struct text *text, const char *at, uint32_t c)
{
	if (c == 0x130) return run_append(run, buffer, "i\xcc\x87", 3);
	if (c == 0x3a3) {
		TRY(run_spend_bytes(run, text->bytes));
		return put(run, buffer, ends_word(text, at) ? 0x3c2 : 0x3c3);
	}
	return put(run, buffer, (uint32_t)utf8proc_tolower((utf8proc_int32_t)c));
}

static enum status put_upper(struct run *run, struct buffer *buffer, uint32_t c, bool title)
{
	if (c == 0xdf) return run_append(run, buffer, title ? "Ss" : "SS", 2);
	if (has_long_upper(c)) return run_refuse(run, "the upper case of U+%04X", (unsigned)c);
	utf8proc_int32_t to = title ? utf8proc_totitle((utf8proc_int32_t)c) : utf8proc_toupper((utf8proc_int32_t)c);
	return put(run, buffer, (uint32_t)to);
}

enum status letters_change(struct run *run, struct buffer *buffer, const struct text *text, enum letter_case to)
{
	const char *at = text->data, *end = text->data + text->bytes;
	bool begins = true; /* a word */
	while (at < end) {
		const char *here = at;
		uint32_t c = utf8_next(&at);
		bool upper = to == CASE_UPPER || (to == CASE_TITLE && begins) || (to == CASE_CAPITALIZE && here == text->data);
		TRY(upper ? put_upper(run, buffer, c, to != CASE_UPPER) : put_lower(run, buffer, text, here, c));
		begins = !is_cased(c);
	}
	return STATUS_OK;
}

/* ---- ends ---------------------------------------------------------------------------------------------------------------- */
static enum status is_stripped(struct run *run, uint32_t c, const struct text *chars, bool *ret)
{
	if (!chars) {
		*ret = letter_is_space(c);
		return run_spend(run, 1);
	}
	char bytes[4];
	int count = utf8_write(c, bytes);
	*ret = memmem(chars->data, chars->bytes, bytes, (size_t)count) != NULL;
	return run_spend_bytes(run, chars->bytes);
}

enum status letters_strip(struct run *run, const struct text *text, const struct text *chars, int sides, struct value *ret)
{
	const char *start = text->data, *end = text->data + text->bytes;
	bool goes = true;
	while (sides & STRIP_LEFT && goes && start < end) {
		const char *next = start;
		TRY(is_stripped(run, utf8_next(&next), chars, &goes));
		if (goes) start = next;
	}
	for (goes = true; sides & STRIP_RIGHT && goes && end > start;) {
		const char *previous = utf8_previous(end), *next = previous;
		TRY(is_stripped(run, utf8_next(&next), chars, &goes));
		if (goes) end = previous;
	}
	return value_string(run, start, (size_t)(end - start), ret);
}
