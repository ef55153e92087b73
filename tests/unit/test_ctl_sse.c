/* besactl's parser of event streams (ctl/sse.h): the cases of the standard, in pieces of every size, and the limits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "ctl/sse.h"

/* Writes each event as "type|id|data\n". */
static void note_event(void *context, const char *type, const char *id, const char *data, size_t size)
{
	assert_int_equal(strlen(data), size);
	buffer_printf(context, "%s|%s|%s\n", type, id, data);
}

/* What `text` gives, fed in pieces of `piece` bytes. */
static void expect(const char *text, size_t size, const char *wanted)
{
	for (size_t piece = 1; piece <= size; piece++) {
		struct sse sse = {0};
		struct buffer got = {0};
		buffer_append(&got, "", 0);
		for (size_t at = 0; at < size; at += piece)
			assert_true(sse_feed(&sse, text + at, size - at < piece ? size - at : piece, note_event, &got));
		assert_string_equal(got.data, wanted);
		buffer_free(&got);
		sse_free(&sse);
	}
}
#define EXPECT(text, wanted) expect(text, sizeof(text) - 1, wanted)

static void test_fields(void **state)
{
	(void)state;
	EXPECT("data: one\n\n", "message||one\n");
	EXPECT("id: 7\nevent: block.step\ndata: {\"a\":1}\n\n", "block.step|7|{\"a\":1}\n");
	EXPECT("data:no space\n\ndata:  two spaces\n\n", "message||no space\nmessage|| two spaces\n");
	EXPECT("data: a\ndata\ndata: b\n\n", "message||a\n\nb\n");
	EXPECT("data: a: b\n\n", "message||a: b\n");
	EXPECT("retry: 2000\nunknown: x\ndata: y\n\n", "message||y\n");
}

static void test_line_ends(void **state)
{
	(void)state;
	EXPECT("data: a\r\n\r\ndata: b\r\rdata: c\n\n", "message||a\nmessage||b\nmessage||c\n");
	EXPECT("data: a\r\ndata: b\rdata: c\n\r\n", "message||a\nb\nc\n");
}

static void test_what_is_no_event(void **state)
{
	(void)state;
	EXPECT(": heartbeat\n\n: another\n\n", "");
	EXPECT("event: x\nid: 3\n\ndata: later\n\n", "message|3|later\n"); /* a type without data is dropped, an id is not */
	EXPECT("data: unfinished\n", "");
	EXPECT("\xef\xbb\xbf"
	       "data: behind a byte order mark\n\n",
	       "message||behind a byte order mark\n");
}

static void test_ids(void **state)
{
	(void)state;
	EXPECT("id: 1\ndata: a\n\ndata: b\n\nid\ndata: c\n\n", "message|1|a\nmessage|1|b\nmessage||c\n");
	EXPECT("id: 1\ndata: a\n\nid: 2\0 3\ndata: b\n\n", "message|1|a\nmessage|1|b\n");
}

static void test_reset_keeps_the_id(void **state)
{
	(void)state;
	static const char first[] = "id: 41\nevent: t\ndata: a\n\nid: 42\nevent: lost\ndata: half";
	static const char second[] = "data: b\n\n";
	struct sse sse = {0};
	struct buffer got = {0};
	assert_true(sse_feed(&sse, first, sizeof first - 1, note_event, &got));
	assert_string_equal(sse.id.data, "42");
	sse_reset(&sse);
	assert_true(sse_feed(&sse, second, sizeof second - 1, note_event, &got));
	assert_string_equal(got.data, "t|41|a\nmessage|42|b\n");
	buffer_free(&got);
	sse_free(&sse);
}

/* Feeds `unit` until the parser refuses; the memory that it holds by then is bounded. */
static void expect_refusal(const char *start, const char *unit)
{
	struct sse sse = {0};
	struct buffer got = {0};
	size_t fed = 0, size = strlen(unit);
	assert_true(sse_feed(&sse, start, strlen(start), note_event, &got));
	while (sse_feed(&sse, unit, size, note_event, &got)) {
		fed += size;
		assert_true(fed < 2 * (size_t)SSE_LIMIT);
	}
	assert_true(sse.line.size <= SSE_LIMIT && sse.data.size <= SSE_LIMIT);
	assert_false(sse_feed(&sse, "\n\n", 2, note_event, &got));
	assert_int_equal(got.size, 0);
	buffer_free(&got);
	sse_free(&sse);
}

static void test_limits(void **state)
{
	(void)state;
	char unit[4097], line[4098] = "data: ";
	memset(unit, 'x', sizeof unit - 1);
	unit[sizeof unit - 1] = 0;
	memset(line + 6, 'y', sizeof line - 8);
	line[sizeof line - 2] = '\n';
	line[sizeof line - 1] = 0;
	expect_refusal("data: ", unit);
	expect_refusal("", line);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_fields), cmocka_unit_test(test_line_ends),          cmocka_unit_test(test_what_is_no_event),
		cmocka_unit_test(test_ids),    cmocka_unit_test(test_reset_keeps_the_id), cmocka_unit_test(test_limits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
