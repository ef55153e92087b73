#include "engine/text/census.h"

#include <string.h>

#include "engine/text/unicode.h"

enum { LONGEST_CHARACTER = 4, ONE_IN = 100 };

struct census census_take(const char *text, size_t bytes, bool cut)
{
	struct census census = {0};
	if (bytes == 0) return census; /* `text` may be NULL */
	const char *end = text + bytes;
	for (const char *at = text; at < end;) {
		unsigned char c = (unsigned char)*at;
		int length = utf8_length(at, end);
		if (c == 0 && !census.zeros++) census.first_zero = (size_t)(at - text);
		census.controls += c && c < ' ' && !memchr("\t\n\v\f\r\b\x1b", c, 7);
		census.wide += length > 1;
		if (length < 0 && at - length == end && cut && end - at < LONGEST_CHARACTER) break;
		if (length < 0 && !census.invalid++) census.first_bad = (size_t)(at - text);
		at += length < 0 ? -length : length;
	}
	return census;
}

enum status census_judge(const struct census *census, size_t bytes, const char *path, struct error *err)
{
	if (census->zeros || census->controls > bytes / ONE_IN + 1)
		return error_set(
			err, STATUS_UNSUPPORTED,
			"%s: holds binary data of a kind that besad does not know%s; wanted are UTF-8 text, JSON Lines, a JSON "
			"array, each also as gzip or zstd, or token ids as a safetensors file with a tensor 'input_ids'",
			path, census->zeros ? " (it has zero bytes)" : "");
	if (census->invalid > census->wide || census->invalid > bytes / ONE_IN + 1)
		return error_set(
			err, STATUS_UNSUPPORTED,
			"%s: is not UTF-8 (the first wrong byte is at %zu), but maybe Latin-1 or Windows-1252; write it as UTF-8 "
			"(iconv -f WINDOWS-1252 -t UTF-8)",
			path, census->first_bad);
	return STATUS_OK;
}
