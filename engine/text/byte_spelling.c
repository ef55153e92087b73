#include "engine/text/byte_spelling.h"

#include <stdbool.h>

#include "engine/text/unicode.h"

void byte_spelling_table(uint32_t code_points[256])
{
	uint32_t next = 0x100;
	for (unsigned byte = 0; byte < 256; byte++) {
		bool printable = (byte >= '!' && byte <= '~') || (byte >= 0xa1 && byte != 0xad);
		code_points[byte] = printable ? byte : next++;
	}
}

enum status byte_spelling(struct text_buffer *out, const char *text, size_t bytes, struct error *err)
{
	uint32_t table[256];
	byte_spelling_table(table);
	for (size_t i = 0; i < bytes; i++) {
		char encoded[4];
		int length = utf8_write(table[(unsigned char)text[i]], encoded);
		TRY(text_append(out, encoded, (size_t)length, err));
	}
	return STATUS_OK;
}
