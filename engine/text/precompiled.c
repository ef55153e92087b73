#include "engine/text/precompiled.h"

#include <stdbool.h>
#include <stdint.h>
#include <utf8proc.h>

#include "base/json.h"
#include "engine/text/unicode.h"

enum { LONGEST_GRAPHEME = 6 }; /* bytes from which on a grapheme is not looked up as a whole */

/* The trie is a double array of darts-clone: a unit's low byte is its label, bit 8 says that a value hangs on it, bits 10 to
 * 30 (shifted by 8 if bit 9 is set) lead to its children; a value is the low 31 bits of a unit. */
struct precompiled {
	uint32_t *units;
	size_t count;
	char *replacements; /* each ends with a 0 byte, and so does the whole */
	size_t size;
	bool plain[128]; /* ASCII characters that stay */
};

static int base64_digit(char c)
{
	if (c >= 'A' && c <= 'Z') return c - 'A';
	if (c >= 'a' && c <= 'z') return c - 'a' + 26;
	if (c >= '0' && c <= '9') return c - '0' + 52;
	return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* Decodes into `out`, which has room for 3/4 of the text; false for what is not base64. */
static bool decode_base64(const char *text, unsigned char *out, size_t *ret_bytes)
{
	uint32_t bits = 0;
	int held = 0;
	size_t bytes = 0;
	for (; *text && *text != '='; text++) {
		int digit = base64_digit(*text);
		if (digit < 0) return false;
		bits = (bits << 6 | (uint32_t)digit) & 0xffff;
		held += 6;
		if (held >= 8) {
			held -= 8;
			out[bytes++] = (unsigned char)(bits >> held);
		}
	}
	while (*text == '=')
		text++;
	*ret_bytes = bytes;
	return *text == 0;
}

static uint32_t read_u32(const unsigned char *at)
{
	return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* The value of the shortest start of `text` that the trie has, or -1. The shortest, since that is what the package takes. */
static int64_t find_shortest(const struct precompiled *map, const char *text, size_t bytes)
{
	size_t at = 0;
	uint32_t unit = map->units[0];
	at ^= (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
	for (size_t i = 0; i < bytes; i++) {
		unsigned char byte = (unsigned char)text[i];
		if (byte == 0) return -1;
		at ^= byte;
		if (at >= map->count) return -1;
		unit = map->units[at];
		if ((unit & (1u << 31 | 0xff)) != byte) return -1;
		at ^= (size_t)(unit >> 10) << ((unit & (1u << 9)) >> 6);
		if (unit >> 8 & 1) return at < map->count ? (int64_t)(map->units[at] & 0x7fffffff) : -1;
	}
	return -1;
}

/* What stands for the text, or NULL. */
static const char *find_replacement(const struct precompiled *map, const char *text, size_t bytes)
{
	int64_t at = find_shortest(map, text, bytes);
	return at >= 0 && (size_t)at < map->size ? map->replacements + at : NULL;
}

static enum status parse(struct precompiled *map, const unsigned char *data, size_t bytes, const char *what, struct error *err)
{
	uint32_t trie = bytes >= 4 ? read_u32(data) : 0;
	if (trie < 4 || trie % 4 || trie > bytes - 4)
		return error_set(err, STATUS_INVALID, "%s: the charsmap of %zu bytes has no trie", what, bytes);
	map->count = trie / 4;
	map->size = bytes - 4 - trie;
	map->units = malloc(trie);
	map->replacements = malloc(map->size + 1);
	if (!map->units || !map->replacements) return error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	for (size_t i = 0; i < map->count; i++)
		map->units[i] = read_u32(data + 4 + 4 * i);
	memcpy(map->replacements, data + 4 + trie, map->size);
	map->replacements[map->size] = 0;
	if (!utf8_valid(map->replacements, map->size))
		return error_set(err, STATUS_INVALID, "%s: the charsmap's replacements are not UTF-8", what);
	for (char c = 1; c > 0 && c < 127; c++)
		map->plain[(int)c] = !find_replacement(map, &c, 1);
	return STATUS_OK;
}

enum status precompiled_load(const char *base64, const char *what, struct precompiled **ret, struct error *err)
{
	struct precompiled *map = calloc(1, sizeof *map);
	unsigned char *data = malloc(strlen(base64) / 4 * 3 + 4);
	size_t bytes = 0;
	enum status status;
	if (!map || !data)
		status = error_set(err, STATUS_NO_MEMORY, "no memory to load %s", what);
	else if (!decode_base64(base64, data, &bytes))
		status = error_set(err, STATUS_INVALID, "%s: the charsmap is not base64", what);
	else
		status = parse(map, data, bytes, what, err);
	free(data);
	if (status != STATUS_OK) {
		precompiled_free(map);
		return status;
	}
	*ret = map;
	return STATUS_OK;
}

void precompiled_free(struct precompiled *map)
{
	if (!map) return;
	free(map->units);
	free(map->replacements);
	free(map);
}

/* A replacement may start within a character of another, in a file made to harm. */
static enum status append_replacement(struct text_buffer *out, const char *replacement, struct error *err)
{
	size_t bytes = strlen(replacement);
	if (!utf8_valid(replacement, bytes)) return error_set(err, STATUS_INVALID, "the tokenizer's charsmap is damaged");
	return text_append(out, replacement, bytes, err);
}

static enum status apply_grapheme(const struct precompiled *map, struct text_buffer *out, const char *text, const char *end,
				  struct error *err)
{
	size_t bytes = (size_t)(end - text);
	const char *whole = bytes < LONGEST_GRAPHEME ? find_replacement(map, text, bytes) : NULL;
	if (whole) return append_replacement(out, whole, err);
	while (text < end) {
		const char *start = text;
		utf8_next(&text);
		const char *replacement = find_replacement(map, start, (size_t)(text - start));
		if (replacement)
			TRY(append_replacement(out, replacement, err));
		else
			TRY(text_append(out, start, (size_t)(text - start), err));
	}
	return STATUS_OK;
}

/* Whether the character stays and ends where another ASCII character starts, which no grapheme crosses. */
static bool is_plain(const struct precompiled *map, const char *at, const char *end)
{
	return (unsigned char)*at < 128 && map->plain[(int)*at] && *at != '\r' && (at + 1 == end || (unsigned char)at[1] < 128);
}

enum status precompiled_apply(const struct precompiled *map, struct text_buffer *out, const char *text, size_t bytes,
			      struct error *err)
{
	const char *end = text + bytes;
	while (text < end) {
		const char *start = text;
		while (text < end && is_plain(map, text, end))
			text++;
		TRY(text_append(out, start, (size_t)(text - start), err));
		if (text == end) break;
		start = text;
		utf8proc_int32_t state = 0, last = (utf8proc_int32_t)utf8_next(&text);
		while (text < end) {
			const char *next = text;
			utf8proc_int32_t character = (utf8proc_int32_t)utf8_next(&next);
			if (utf8proc_grapheme_break_stateful(last, character, &state)) break;
			last = character;
			text = next;
		}
		TRY(apply_grapheme(map, out, start, text, err));
	}
	return STATUS_OK;
}
