/* The pull parser: tokens, over the edges of its window too, and what it refuses. */
#include "tests/unit/scratch.h"

#include "base/json_stream.h"

static struct json_stream stream;

/* All tokens as one text, or an error. */
static enum status tokens(const char *text, size_t bytes, char *ret, size_t room, struct error *err)
{
	static const char *const marks[] = {"{", "}", "[", "]"};
	size_t used = 0;
	enum json_token token;
	json_stream_memory(&stream, text, bytes, "text");
	for (;;) {
		TRY(json_next(&stream, &token, err));
		if (token == JSON_END) return STATUS_OK;
		if (token == JSON_NUMBER)
			used += (size_t)snprintf(ret + used, room - used, "%g ", stream.number);
		else if (token <= JSON_ARRAY_END)
			used += (size_t)snprintf(ret + used, room - used, "%s ", marks[token]);
		else
			used += (size_t)snprintf(ret + used, room - used, "%s%s ", stream.text, token == JSON_KEY ? ":" : "");
	}
}

static void test_tokens(void **state)
{
	struct scratch *s = *state;
	char got[400] = "";
	static const char text[] = " {\"a\" : [1, -2.5e3,\ttrue , null,[],{}], "
				   "\"b\\u00e9\\ud83d\\ude00\\n\":\"x\\\\\\\"\xc3\xa9\", \"c\":{\"d\":false}}\n";
	SUCCEEDS(tokens(text, strlen(text), got, sizeof got, &s->err));
	assert_string_equal(got,
			    "{ a: [ 1 -2500 true null [ ] { } ] b\xc3\xa9\xf0\x9f\x98\x80\n: x\\\"\xc3\xa9 c: { d: false } } ");
	SUCCEEDS(tokens("7", 1, got, sizeof got, &s->err));
	assert_string_equal(got, "7 ");
}

/* A text longer than the window, from memory and from a file, with strings that lie across its edges; longer ones are cut. */
static void test_window(void **state)
{
	struct scratch *s = *state;
	enum { COUNT = 3000 };
	char *text = malloc(20 * COUNT), name[32];
	size_t used = 1;
	struct file file;
	enum json_token token;
	text[0] = '[';
	for (int i = 0; i < COUNT; i++)
		used += (size_t)sprintf(text + used, "\"\xe2\x82\xac%d\"%c", i, i + 1 < COUNT ? ',' : ']');
	scratch_write(s, "f", text, used);
	SUCCEEDS(file_open_read(scratch_path(s, "f"), &file, &s->err));
	for (int pass = 0; pass < 2; pass++) {
		if (pass == 0)
			json_stream_memory(&stream, text, used, "text");
		else
			json_stream_file(&stream, &file, 0, file.size);
		SUCCEEDS(json_next(&stream, &token, &s->err));
		for (int i = 0; i < COUNT; i++) {
			SUCCEEDS(json_next(&stream, &token, &s->err));
			snprintf(name, sizeof name, "\xe2\x82\xac%d", i);
			assert_int_equal(token, JSON_STRING);
			assert_string_equal(stream.text, name);
		}
	}
	file_close(&file);
	memset(text, 'x', 2000);
	text[0] = text[1999] = '"';
	json_stream_memory(&stream, text, 2000, "text");
	SUCCEEDS(json_next(&stream, &token, &s->err));
	assert_true(stream.cut);
	assert_int_equal(strlen(stream.text), JSON_STREAM_TEXT);
	free(text);
}

static void test_skip(void **state)
{
	struct scratch *s = *state;
	enum json_token token;
	static const char text[] = "[{\"a\":[1,{\"b\":2}]},7]";
	json_stream_memory(&stream, text, strlen(text), "text");
	SUCCEEDS(json_next(&stream, &token, &s->err));
	SUCCEEDS(json_next(&stream, &token, &s->err));
	SUCCEEDS(json_skip(&stream, token, &s->err));
	SUCCEEDS(json_next(&stream, &token, &s->err));
	assert_true(token == JSON_NUMBER && stream.number == 7);
	SUCCEEDS(json_skip(&stream, token, &s->err));
	SUCCEEDS(json_next(&stream, &token, &s->err));
	assert_int_equal(token, JSON_ARRAY_END);
}

static void test_refuses(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *text, *part;
	} cases[] = {
		{"", "a value is wanted at byte 0"},
		{"{\"a\":1} x", "text behind the value"},
		{"[1,]", "a value is wanted"},
		{"[1 2]", "a comma or the end"},
		{"{\"a\":1,}", "a key is wanted"},
		{"{\"a\" 1}", "a colon is wanted"},
		{"{1:2}", "a key is wanted"},
		{"[1}", "a comma or the end"},
		{"[", "a value is wanted"},
		{"[1", "the text ends"},
		{"\"abc", "a string without an end"},
		{"\"a\nb\"", "a control character"},
		{"\"\\x\"", "an unknown escape"},
		{"\"\\u12g4\"", "four hexadecimal digits"},
		{"\"\\u0000\"", "NUL"},
		{"\"\\udc00\"", "surrogate"},
		{"\"\\ud800\"", "surrogate"},
		{"\"\xff\"", "UTF-8"},
		{"\"\xed\xa0\x80\"", "UTF-8"},
		{"\"\xe2\x82", "UTF-8"},
		{"01", "a value is wanted"},
		{"1.", "a value is wanted"},
		{"+1", "a value is wanted"},
		{"1e", "a value is wanted"},
		{"NaN", "a value is wanted"},
		{"truex", "a value is wanted"},
	};
	char got[400];
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		size_t bytes = strlen(cases[i].text);
		char *exact = malloc(bytes ? bytes : 1); /* so that a sanitizer sees a read beyond it */
		memcpy(exact, cases[i].text, bytes);
		FAILS(STATUS_INVALID, cases[i].part, tokens(exact, bytes, got, sizeof got, &s->err));
		free(exact);
	}
	char deep[2 * JSON_MAX_DEPTH + 2];
	memset(deep, '[', JSON_MAX_DEPTH + 1);
	FAILS(STATUS_INVALID, "nested too deeply", tokens(deep, JSON_MAX_DEPTH + 1, got, sizeof got, &s->err));
	char long_number[1100];
	memset(long_number, '1', sizeof long_number);
	FAILS(STATUS_INVALID, "a very long number", tokens(long_number, sizeof long_number, got, sizeof got, &s->err));
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_tokens), SCRATCH_TEST(test_window), SCRATCH_TEST(test_skip),
					   SCRATCH_TEST(test_refuses)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
