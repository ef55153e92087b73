#include "engine/text/detokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "engine/text/byte_spelling.h"
#include "engine/text/tokenizer.h"
#include "engine/text/tokenizer_json.h"
#include "engine/text/unicode.h"

enum { BYTE_CHARACTERS = 0x200, NO_BYTE = -1 };
static const char SPACE[] = "\xe2\x96\x81" /* ▁ */, REPLACEMENT[] = "\xef\xbf\xbd";

struct detokenizer {
	const struct tokenizer_json *parts;
	enum token_spelling spelling;
	struct string_view *tokens; /* [count]; without text for ids that the vocabulary lacks */
	int64_t count;
	int16_t bytes[BYTE_CHARACTERS]; /* the byte that ByteLevel spells by a code point */
	struct text_buffer kept, out;   /* bytes that are not text yet; what was returned */
};

static void fill_bytes(struct detokenizer *d)
{
	uint32_t table[256];
	byte_spelling_table(table);
	for (int i = 0; i < BYTE_CHARACTERS; i++)
		d->bytes[i] = NO_BYTE;
	for (int byte = 0; byte < 256; byte++)
		d->bytes[table[byte]] = (int16_t)byte;
}

enum status detokenizer_create(const struct tokenizer *tokenizer, struct detokenizer **ret, struct error *err)
{
	const struct tokenizer_json *parts = tokenizer_parts(tokenizer);
	if (tokenizer_json_spelling(parts) == TOKENS_SPELL_OTHERWISE)
		return error_set(err, STATUS_UNSUPPORTED,
				 "the tokenizer's tokens are words or marked parts of words, from which besad makes no text");
	struct detokenizer *d = calloc(1, sizeof *d);
	int64_t count = tokenizer_json_size(parts);
	struct string_view *tokens = calloc((size_t)count + 1, sizeof *tokens);
	if (!d || !tokens) {
		free(d);
		free(tokens);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the texts of %lld tokens", (long long)count);
	}
	*d = (struct detokenizer){.parts = parts, .spelling = tokenizer_json_spelling(parts), .tokens = tokens, .count = count};
	tokenizer_json_tokens(parts, tokens, count);
	fill_bytes(d);
	*ret = d;
	return STATUS_OK;
}

void detokenizer_free(struct detokenizer *d)
{
	if (!d) return;
	text_buffer_free(&d->kept);
	text_buffer_free(&d->out);
	free(d->tokens);
	free(d);
}

static int hex(char c)
{
	return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The byte of <0x00> … <0xFF>; NO_BYTE for other tokens. */
static int byte_token(struct string_view token)
{
	const char *t = token.text;
	if (token.bytes != 6 || memcmp(t, "<0x", 3) != 0 || t[5] != '>' || hex(t[3]) < 0 || hex(t[4]) < 0) return NO_BYTE;
	return 16 * hex(t[3]) + hex(t[4]);
}

static enum status add_byte(struct detokenizer *d, int byte, struct error *err)
{
	char c = (char)byte;
	return text_append(&d->kept, &c, 1, err);
}

/* A token that is spelled byte by byte; characters that spell none are themselves. */
static enum status add_spelled(struct detokenizer *d, struct string_view token, struct error *err)
{
	for (const char *at = token.text, *end = at + token.bytes; at < end;) {
		const char *start = at;
		uint32_t code_point = utf8_next(&at);
		if (code_point < BYTE_CHARACTERS && d->bytes[code_point] != NO_BYTE)
			TRY(add_byte(d, d->bytes[code_point], err));
		else
			TRY(text_append(&d->kept, start, (size_t)(at - start), err));
	}
	return STATUS_OK;
}

static enum status add_spaced(struct detokenizer *d, struct string_view token, struct error *err)
{
	const char *at = token.text, *end = at + token.bytes;
	size_t mark = sizeof SPACE - 1;
	for (const char *space; (space = memmem(at, (size_t)(end - at), SPACE, mark)) != NULL; at = space + mark) {
		TRY(text_append(&d->kept, at, (size_t)(space - at), err));
		TRY(add_byte(d, ' ', err));
	}
	return text_append(&d->kept, at, (size_t)(end - at), err);
}

static enum status add_token(struct detokenizer *d, int32_t id, struct error *err)
{
	struct string_view token;
	bool special;
	if (tokenizer_json_added(d->parts, id, &token, &special)) {
		if (special) return STATUS_OK;
		return d->spelling == TOKENS_SPELL_BYTES ? text_append(&d->kept, token.text, token.bytes, err)
							 : add_spaced(d, token, err);
	}
	if (id < 0 || id >= d->count || !d->tokens[id].text) return STATUS_OK;
	token = d->tokens[id];
	if (d->spelling == TOKENS_SPELL_BYTES) return add_spelled(d, token, err);
	int byte = byte_token(token);
	return byte == NO_BYTE ? add_spaced(d, token, err) : add_byte(d, byte, err);
}

/* Moves what is text from `kept` to `out`. At the end there may be the start of a character, which stays unless the text `ends`. */
static enum status give(struct detokenizer *d, bool ends, const char **ret, size_t *ret_bytes, struct error *err)
{
	const char *at = d->kept.data, *end = at + d->kept.size;
	d->out.size = 0;
	while (at < end) {
		int length = utf8_length(at, end);
		if (length < 0 && at - length == end && !ends) break;
		if (length < 0)
			TRY(text_append(&d->out, REPLACEMENT, sizeof REPLACEMENT - 1, err));
		else
			TRY(text_append(&d->out, at, (size_t)length, err));
		at += length < 0 ? -length : length;
	}
	if (d->kept.size) memmove(d->kept.data, at, (size_t)(end - at));
	d->kept.size = (size_t)(end - at);
	TRY(text_append(&d->out, "", 1, err));
	*ret = d->out.data;
	*ret_bytes = d->out.size - 1;
	return STATUS_OK;
}

enum status detokenizer_add(struct detokenizer *d, int32_t id, const char **ret, size_t *ret_bytes, struct error *err)
{
	TRY(add_token(d, id, err));
	return give(d, false, ret, ret_bytes, err);
}

enum status detokenizer_end(struct detokenizer *d, const char **ret, size_t *ret_bytes, struct error *err)
{
	return give(d, true, ret, ret_bytes, err);
}
