#include "base/json_stream.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { EXPECT_VALUE, EXPECT_FIRST_VALUE, EXPECT_FIRST_KEY, EXPECT_COMMA_OR_END, EXPECT_NOTHING };

void json_stream_memory(struct json_stream *s, const char *text, size_t bytes, const char *what)
{
	s->what = what;
	s->file = NULL;
	s->memory = text;
	s->next = 0;
	s->end = (int64_t)bytes;
	s->at = s->filled = 0;
	s->consumed = 0;
	s->depth = 0;
	s->expected = EXPECT_VALUE;
	s->text[0] = 0;
	s->cut = false;
	s->number = 0;
}

void json_stream_file(struct json_stream *s, const struct file *file, int64_t begin, int64_t end)
{
	json_stream_memory(s, NULL, 0, file->path);
	s->file = file;
	s->next = begin;
	s->end = end;
}

static enum status invalid(const struct json_stream *s, const char *problem, struct error *err)
{
	return error_set(err, STATUS_INVALID, "%s: not valid JSON: %s at byte %lld", s->what, problem,
			 (long long)(s->consumed + (int64_t)s->at));
}

static enum status fill(struct json_stream *s, struct error *err)
{
	int64_t left = s->end - s->next;
	size_t n = left < JSON_STREAM_WINDOW ? (size_t)left : JSON_STREAM_WINDOW;
	if (s->file)
		TRY(file_read(s->file, s->window, n, s->next, err));
	else if (n)
		memcpy(s->window, s->memory + s->next, n);
	s->next += (int64_t)n;
	s->consumed += (int64_t)s->filled;
	s->at = 0;
	s->filled = n;
	return STATUS_OK;
}

/* The next byte, which stays; -1 at the end. */
static enum status peek(struct json_stream *s, int *ret, struct error *err)
{
	if (s->at == s->filled) TRY(fill(s, err));
	*ret = s->at < s->filled ? (unsigned char)s->window[s->at] : -1;
	return STATUS_OK;
}

static enum status take(struct json_stream *s, int *ret, struct error *err)
{
	TRY(peek(s, ret, err));
	s->at += *ret >= 0;
	return STATUS_OK;
}

/* The next byte that is not white space, which stays. */
static enum status peek_token(struct json_stream *s, int *ret, struct error *err)
{
	for (;;) {
		TRY(peek(s, ret, err));
		if (*ret != ' ' && *ret != '\t' && *ret != '\n' && *ret != '\r') return STATUS_OK;
		s->at++;
	}
}

/* Appends a character to the text, whole or not at all. */
static void append(struct json_stream *s, size_t *length, const char *bytes, size_t n)
{
	if (s->cut || *length + n > JSON_STREAM_TEXT) {
		s->cut = true;
		return;
	}
	memcpy(s->text + *length, bytes, n);
	*length += n;
}

static enum status take_hex(struct json_stream *s, unsigned *ret, struct error *err)
{
	unsigned value = 0;
	for (int i = 0; i < 4; i++) {
		int c;
		TRY(take(s, &c, err));
		int digit = c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
		if (c < 0 || digit < 0) return invalid(s, "a \\u that four hexadecimal digits do not follow", err);
		value = value << 4 | (unsigned)digit;
	}
	*ret = value;
	return STATUS_OK;
}

/* What follows a backslash. */
static enum status take_escape(struct json_stream *s, size_t *length, struct error *err)
{
	static const char plain[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
	int c;
	TRY(take(s, &c, err));
	const char *found = c > 0 ? strchr(plain, c) : NULL;
	if (found) {
		append(s, length, &meant[found - plain], 1);
		return STATUS_OK;
	}
	if (c != 'u') return invalid(s, "an unknown escape", err);
	unsigned code, low;
	TRY(take_hex(s, &code, err));
	if (code >= 0xd800 && code < 0xdc00) {
		int backslash, u;
		TRY(take(s, &backslash, err));
		TRY(take(s, &u, err));
		if (backslash != '\\' || u != 'u') return invalid(s, "half of a surrogate pair", err);
		TRY(take_hex(s, &low, err));
		if (low < 0xdc00 || low > 0xdfff) return invalid(s, "half of a surrogate pair", err);
		code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
	} else if (code >= 0xdc00 && code < 0xe000) {
		return invalid(s, "half of a surrogate pair", err);
	}
	if (code == 0) return invalid(s, "a NUL character in a string", err);
	char bytes[4];
	size_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
	static const unsigned char leads[] = {0, 0, 0xc0, 0xe0, 0xf0};
	for (size_t i = n; i-- > 1; code >>= 6)
		bytes[i] = (char)(0x80 | (code & 0x3f));
	bytes[0] = (char)(leads[n] | code);
	append(s, length, bytes, n);
	return STATUS_OK;
}

/* The rest of the string whose first quote was taken. */
static enum status take_string(struct json_stream *s, struct error *err)
{
	size_t length = 0;
	s->cut = false;
	for (;;) {
		int c;
		TRY(take(s, &c, err));
		if (c < 0) return invalid(s, "a string without an end", err);
		if (c == '"') break;
		if (c < 0x20) return invalid(s, "a control character in a string", err);
		if (c == '\\') {
			TRY(take_escape(s, &length, err));
			continue;
		}
		char bytes[4] = {(char)c};
		size_t n = c < 0x80 ? 1 : c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
		for (size_t i = 1; i < n; i++) {
			TRY(take(s, &c, err));
			bytes[i] = (char)c;
			if (c < 0) n = i;
		}
		if (!utf8_valid(bytes, n)) return error_set(err, STATUS_INVALID, "%s: not valid UTF-8", s->what);
		append(s, &length, bytes, n);
	}
	s->text[length] = 0;
	return STATUS_OK;
}

static bool is_word_byte(int c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '+' || c == '-' || c == '.';
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* JSON's grammar of a number, which is narrower than strtod's. */
static bool is_number(const char *text)
{
	if (*text == '-') text++;
	if (!is_digit(*text) || (*text == '0' && is_digit(text[1]))) return false;
	while (is_digit(*text))
		text++;
	if (*text == '.') {
		if (!is_digit(*++text)) return false;
		while (is_digit(*text))
			text++;
	}
	if (*text == 'e' || *text == 'E') {
		text++;
		if (*text == '+' || *text == '-') text++;
		if (!is_digit(*text)) return false;
		while (is_digit(*text))
			text++;
	}
	return !*text;
}

/* A number, true, false or null. */
static enum status take_word(struct json_stream *s, enum json_token *ret, struct error *err)
{
	size_t length = 0;
	int c;
	s->cut = false;
	for (;;) {
		TRY(peek(s, &c, err));
		if (!is_word_byte(c)) break;
		char byte = (char)c;
		append(s, &length, &byte, 1);
		s->at++;
	}
	s->text[length] = 0;
	if (s->cut) return invalid(s, "a very long number", err);
	if (is_number(s->text)) {
		s->number = strtod(s->text, NULL);
		*ret = JSON_NUMBER;
		return STATUS_OK;
	}
	if (strcmp(s->text, "true") != 0 && strcmp(s->text, "false") != 0 && strcmp(s->text, "null") != 0)
		return invalid(s, "a value is wanted", err);
	*ret = JSON_WORD;
	return STATUS_OK;
}

static int after_value(const struct json_stream *s)
{
	return s->depth ? EXPECT_COMMA_OR_END : EXPECT_NOTHING;
}

static enum status open_container(struct json_stream *s, bool object, enum json_token *ret, struct error *err)
{
	if (s->depth == JSON_MAX_DEPTH) return invalid(s, "nested too deeply", err);
	s->in_object[s->depth++] = object;
	s->expected = object ? EXPECT_FIRST_KEY : EXPECT_FIRST_VALUE;
	*ret = object ? JSON_OBJECT : JSON_ARRAY;
	return STATUS_OK;
}

static enum status close_container(struct json_stream *s, enum json_token *ret)
{
	*ret = s->in_object[--s->depth] ? JSON_OBJECT_END : JSON_ARRAY_END;
	s->expected = after_value(s);
	return STATUS_OK;
}

static enum status take_key(struct json_stream *s, enum json_token *ret, struct error *err)
{
	int c;
	TRY(peek_token(s, &c, err));
	if (c != '"') return invalid(s, "a key is wanted", err);
	s->at++;
	TRY(take_string(s, err));
	TRY(peek_token(s, &c, err));
	if (c != ':') return invalid(s, "a colon is wanted", err);
	s->at++;
	s->expected = EXPECT_VALUE;
	*ret = JSON_KEY;
	return STATUS_OK;
}

static enum status take_value(struct json_stream *s, enum json_token *ret, struct error *err)
{
	int c;
	TRY(peek_token(s, &c, err));
	if (c == '{' || c == '[') {
		s->at++;
		return open_container(s, c == '{', ret, err);
	}
	if (c == '"') {
		s->at++;
		TRY(take_string(s, err));
		*ret = JSON_STRING;
	} else {
		TRY(take_word(s, ret, err));
	}
	s->expected = after_value(s);
	return STATUS_OK;
}

enum status json_next(struct json_stream *s, enum json_token *ret, struct error *err)
{
	int c;
	TRY(peek_token(s, &c, err));
	switch (s->expected) {
	case EXPECT_NOTHING:
		if (c >= 0) return invalid(s, "text behind the value", err);
		*ret = JSON_END;
		return STATUS_OK;
	case EXPECT_FIRST_KEY:
		if (c != '}') return take_key(s, ret, err);
		s->at++;
		return close_container(s, ret);
	case EXPECT_FIRST_VALUE:
		if (c != ']') return take_value(s, ret, err);
		s->at++;
		return close_container(s, ret);
	case EXPECT_COMMA_OR_END: {
		bool object = s->in_object[s->depth - 1];
		if (c == (object ? '}' : ']')) {
			s->at++;
			return close_container(s, ret);
		}
		if (c != ',') return invalid(s, c < 0 ? "the text ends" : "a comma or the end is wanted", err);
		s->at++;
		return object ? take_key(s, ret, err) : take_value(s, ret, err);
	}
	default:
		return take_value(s, ret, err);
	}
}

enum status json_skip(struct json_stream *s, enum json_token token, struct error *err)
{
	int depth = token == JSON_OBJECT || token == JSON_ARRAY;
	while (depth) {
		TRY(json_next(s, &token, err));
		depth += token == JSON_OBJECT || token == JSON_ARRAY;
		depth -= token == JSON_OBJECT_END || token == JSON_ARRAY_END;
	}
	return STATUS_OK;
}
