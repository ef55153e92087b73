#include "engine/text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/text/unicode_tables.h"

int utf8_write(uint32_t code_point, char out[4])
{
	return (int)utf8proc_encode_char((utf8proc_int32_t)code_point, (utf8proc_uint8_t *)out);
}

int utf8_length(const char *at, const char *text_end)
{
	const unsigned char *s = (const unsigned char *)at, *end = (const unsigned char *)text_end;
	unsigned char lead = *s;
	if (lead < 0x80) return 1;
	if (lead < 0xc2 || lead > 0xf4) return -1;
	int length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
	unsigned char low = lead == 0xe0 ? 0xa0 : lead == 0xf0 ? 0x90 : 0x80;
	unsigned char high = lead == 0xed ? 0x9f : lead == 0xf4 ? 0x8f : 0xbf;
	for (int i = 1; i < length; i++) {
		if (s + i == end || s[i] < low || s[i] > high) return -i;
		low = 0x80;
		high = 0xbf;
	}
	return length;
}

enum status utf8_repair(const char *text, size_t bytes, char **ret_text, size_t *ret_bytes, struct error *err)
{
	if (bytes > (SIZE_MAX - 1) / 3) return error_set(err, STATUS_NO_MEMORY, "no memory for %zu bytes of text", bytes);
	char *copy = malloc(bytes * 3 + 1); /* U+FFFD takes 3 bytes for as little as one */
	if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory for %zu bytes of text", bytes);
	const char *s = text, *end = s + bytes;
	char *out = copy;
	while (s < end) {
		int length = utf8_length(s, end);
		if (length > 0) {
			memcpy(out, s, (size_t)length);
			out += length;
			s += length;
		} else {
			memcpy(out, "\xef\xbf\xbd", 3);
			out += 3;
			s -= length;
		}
	}
	*ret_text = copy;
	*ret_bytes = (size_t)(out - copy);
	return STATUS_OK;
}

bool unicode_is_space(uint32_t c)
{
	if (c < 0x80) return c == ' ' || (c >= '\t' && c <= '\r');
	return c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
	       c == 0x205f || c == 0x3000;
}

bool unicode_is_word(uint32_t c)
{
	switch (utf8proc_category((utf8proc_int32_t)c)) {
	case UTF8PROC_CATEGORY_LU:
	case UTF8PROC_CATEGORY_LL:
	case UTF8PROC_CATEGORY_LT:
	case UTF8PROC_CATEGORY_LM:
	case UTF8PROC_CATEGORY_LO:
	case UTF8PROC_CATEGORY_MN:
	case UTF8PROC_CATEGORY_MC:
	case UTF8PROC_CATEGORY_ME:
	case UTF8PROC_CATEGORY_ND:
	case UTF8PROC_CATEGORY_NL:
	case UTF8PROC_CATEGORY_PC:
		return true;
	default:
		/* Other_Alphabetic symbols (circled and squared letters) and Join_Control. */
		return (c >= 0x24b6 && c <= 0x24e9) || (c >= 0x1f130 && c <= 0x1f149) || (c >= 0x1f150 && c <= 0x1f169) ||
		       (c >= 0x1f170 && c <= 0x1f189) || c == 0x200c || c == 0x200d;
	}
}

bool unicode_is_number(uint32_t c)
{
	utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)c);
	return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}

const struct unicode_range *unicode_find_range(const struct unicode_range *ranges, size_t count, uint32_t c)
{
	size_t low = 0, high = count;
	while (low < high) {
		size_t middle = (low + high) / 2;
		if (ranges[middle].last < c)
			low = middle + 1;
		else
			high = middle;
	}
	return low < count && ranges[low].first <= c ? &ranges[low] : NULL;
}

bool unicode_is_punctuation(uint32_t c)
{
	if (c < 0x80) return (c >= '!' && c <= '/') || (c >= ':' && c <= '@') || (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
	return unicode_find_range(unicode_punctuation, unicode_punctuation_count, c);
}

bool unicode_is_nonspacing(uint32_t c)
{
	return c >= 0x300 && unicode_find_range(unicode_nonspacing, unicode_nonspacing_count, c);
}

bool unicode_is_combining(uint32_t c)
{
	return c >= 0x300 && unicode_find_range(unicode_combining, unicode_combining_count, c);
}

bool unicode_is_unprintable(uint32_t c)
{
	if (c >= ' ' && c < 0x7f) return false;
	return unicode_find_range(unicode_unprintable, unicode_unprintable_count, c);
}

int unicode_script_group(uint32_t c)
{
	const struct unicode_range *range = unicode_find_range(unicode_scripts, unicode_scripts_count, c);
	return range ? (int)range->value : UNICODE_SCRIPT_ANY;
}
