/* The tokens of a file: whose they are, what is refused in it, and what becomes of them when it is read again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "api/token.h"
#include "api/user.h"

static struct tokens *parse(const char *text)
{
	struct tokens *tokens = NULL;
	struct error err;
	if (tokens_parse(text, "FILE", &tokens, &err)) fail_msg("%s", err.message);
	return tokens;
}

static void test_alone(void **state)
{
	(void)state;
	static const char *const texts[] = {"0123456789abcdef", "0123456789abcdef\n", "0123456789abcdef\r\n",
					    "0123456789abcdef\nwhatever else there is\n\n",
					    "0123456789abcdef\n# admin token of ci\n"};
	static const char *const wrong[] = {"0123456789abcdeg", "0123456789abcde", "0123456789abcdef0", ""};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		struct tokens *tokens = parse(texts[i]);
		struct holder holder;
		assert_true(tokens_find(tokens, "0123456789abcdef", &holder));
		assert_string_equal(holder.name, "token");
		assert_int_equal(holder.role, ROLE_ADMIN);
		assert_int_equal(holder.max_queued, 0);
		for (size_t j = 0; j < sizeof wrong / sizeof *wrong; j++)
			assert_false(tokens_find(tokens, wrong[j], &holder));
		tokens_free(tokens);
	}
	struct tokens *tokens = parse("################\n");
	struct holder holder;
	assert_true(tokens_find(tokens, "################", &holder));
	tokens_free(tokens);
}

static void test_named(void **state)
{
	(void)state;
	struct tokens *tokens = parse(
		"#################\n# who\n\n  \nalice admin alice-0123456789\r\n"
		"bob\tsubmit   bob-0123456789ab  max-per-day=12 max-bytes=20G max-queued=3\n  dash.board-1 read dash-0123456789a");
	struct holder holder;
	assert_true(tokens_find(tokens, "alice-0123456789", &holder));
	assert_string_equal(holder.name, "alice");
	assert_int_equal(holder.role, ROLE_ADMIN);
	uint64_t alice = holder.serial;
	assert_true(tokens_find(tokens, "bob-0123456789ab", &holder));
	assert_int_equal(holder.role, ROLE_SUBMIT);
	assert_int_equal(holder.max_queued, 3);
	assert_int_equal(holder.max_per_day, 12);
	assert_int_equal(holder.max_bytes, INT64_C(20) << 30);
	assert_true(holder.serial != alice);
	assert_true(tokens_find(tokens, "dash-0123456789a", &holder));
	assert_string_equal(holder.name, "dash.board-1");
	assert_int_equal(holder.role, ROLE_READ);
	assert_false(tokens_find(tokens, "#################", &holder));
	assert_false(tokens_find(tokens, "alice", &holder));
	tokens_free(tokens);
}

static void test_refused(void **state)
{
	(void)state;
	static const struct {
		const char *text, *says;
	} cases[] = {
		{"", "has no token"},
		{"\n\n# nobody\n", "has no token"},
		{"short\n", "line 1: must be NAME ROLE TOKEN"},
		{"a read short\n", "line 1: a token has at least 16"},
		{"a read 0123456789abcd\xc3\xa9\n", "line 1: a token has at least 16"},
		{"\na root 0123456789abcdef\n", "line 2: the role must be read, submit or admin"},
		{"a read\n", "line 1: must be NAME ROLE TOKEN"},
		{"group:besad-admins\n", "line 1: a user or a group needs a name and a role"},
		{"user:compressor01\n", "line 1: a user or a group needs a name and a role"},
		{"a/b read 0123456789abcdef\n", "line 1: a name has"},
		{"a read 0123456789abcdef\na read 0123456789abcdeg\n", "line 2: the name is there twice"},
		{"a read 0123456789abcdef\nb admin 0123456789abcdef\n", "line 2: the token is there twice"},
		{"0123456789abcdef\nb admin 0123456789abcdeg\n", "line 1: with others, a token needs a name and a role"},
		{"a read 0123456789abcdef max-queued=0\n", "a limit must be"},
		{"a read 0123456789abcdef max-queued=-1\n", "a limit must be"},
		{"a read 0123456789abcdef max-queued=1 max-queued=1\n", "a limit is there twice"},
		{"a read 0123456789abcdef max-size=1\n", "behind the token there may be"},
		{"a read 0123456789abcdef max-bytes=\n", "max-bytes must be a size"},
		{"a read 0123456789abcdef max-bytes=0\n", "max-bytes must be a size"},
		{"a read 0123456789abcdef max-bytes=1GB\n", "max-bytes must be a size"},
		{"a read 0123456789abcdef max-bytes=1P\n", "max-bytes must be a size"},
		{"a read 0123456789abcdef max-bytes=99999999T\n", "max-bytes must be a size"},
		{"a read 0123456789abcdef max-bytes=1 max-bytes=2\n", "a limit is there twice"},
		{"a read 0123456789abcdef max-queued=1 max-per-day=1 max-bytes=1 x\n", "there are too many words"},
		{"a read user:no-such-user-here\n", "line 1: there is no such user"},
		{"a read group:no-such-group-here\n", "line 1: there is no such group"},
		{"a read user:\n", "line 1: there is no such user"},
		{"a read user:4294967295\n", "line 1: there is no such user"},
		{"a read group:65534\n", "line 1: nobody's id"},
		{"a read user:5\nb read user:5\n", "line 2: the token is there twice"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct tokens *tokens = NULL;
		struct error err;
		assert_int_equal(tokens_parse(cases[i].text, "FILE", &tokens, &err), STATUS_INVALID);
		if (!strstr(err.message, cases[i].says)) fail_msg("case %zu: %s", i, err.message);
		assert_null(strstr(err.message, "0123456789"));
	}
}

static void test_replaced(void **state)
{
	(void)state;
	struct tokens *tokens = parse("a read token-a-01234567\nb read token-b-01234567\nc read token-c-01234567\n");
	struct holder a, b, c, now;
	assert_true(tokens_find(tokens, "token-a-01234567", &a) && tokens_find(tokens, "token-b-01234567", &b) &&
		    tokens_find(tokens, "token-c-01234567", &c));
	unsigned version = tokens_version(tokens);
	/* a has another role, b another token, c's token is d's. */
	tokens_replace(tokens, parse("b read token-B-01234567\na admin token-a-01234567\nd read token-c-01234567\n"));
	assert_true(tokens_version(tokens) != version);
	assert_true(tokens_hold(tokens, a.serial));
	assert_false(tokens_hold(tokens, b.serial));
	assert_false(tokens_hold(tokens, c.serial));
	assert_true(tokens_find(tokens, "token-a-01234567", &now));
	assert_int_equal(now.role, ROLE_ADMIN);
	assert_int_equal(now.serial, a.serial);
	assert_false(tokens_find(tokens, "token-b-01234567", &now));
	assert_true(tokens_find(tokens, "token-B-01234567", &now));
	assert_true(now.serial != b.serial);
	tokens_free(tokens);
}

static void test_users(void **state)
{
	(void)state;
	gid_t groups[] = {100, 2000, 65534};
	const struct user members[] = {
		{1000, groups, 3}, {1001, groups + 1, 1}, {1002, groups + 2, 1}, {0, NULL, 0}, {65534, NULL, 0}};
	struct tokens *tokens = parse("one admin user:1000\nmany read group:2000\nroot submit user:root max-queued=3\n"
				      "by-token read user-0123456789ab\nlate admin group:100\n");
	static const char *const names[] = {"one", "many", NULL, "root", NULL};
	struct holder holder;
	for (size_t i = 0; i < sizeof members / sizeof *members; i++) {
		assert_int_equal(tokens_find_user(tokens, &members[i], &holder), names[i] != NULL);
		if (names[i]) assert_string_equal(holder.name, names[i]);
	}
	assert_true(tokens_find_user(tokens, &members[3], &holder));
	assert_int_equal(holder.max_queued, 3);
	/* What stands in place of a token is none. */
	assert_false(tokens_find(tokens, "user:1000", &holder));
	assert_false(tokens_find(tokens, "group:2000", &holder));
	assert_true(tokens_find(tokens, "user-0123456789ab", &holder));
	assert_true(tokens_find_user(tokens, &members[0], &holder));
	uint64_t serial = holder.serial;
	tokens_replace(tokens, parse("one read user:1000\n"));
	assert_true(tokens_hold(tokens, serial));
	assert_true(tokens_find_user(tokens, &members[0], &holder));
	assert_int_equal(holder.role, ROLE_READ);
	assert_false(tokens_find_user(tokens, &members[1], &holder));
	assert_true(tokens_hold(tokens, TOKEN_OPERATOR));
	tokens_free(tokens);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_alone), cmocka_unit_test(test_named),
					   cmocka_unit_test(test_refused), cmocka_unit_test(test_replaced),
					   cmocka_unit_test(test_users)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
