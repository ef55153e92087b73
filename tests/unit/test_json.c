/* JSON: what is refused, with the place, and the typed reads. */
#include <math.h>
#include <sys/resource.h>

#include "tests/unit/scratch.h"

#include "base/json.h"

static void test_accepts(void **state)
{
	struct scratch *s = *state;
	static const char *const texts[] = {"{}", " [1, 2.5e3, -0]\n", "\"\\u00e9\\ud83d\\ude00 \xc3\xa9\"", "null",
					    "\xef\xbb\xbf{\"a\":{\"a\":1}}"};
	for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
		cJSON *json = NULL;
		SUCCEEDS(json_parse(texts[i], strlen(texts[i]), "text", &json, &s->err));
		assert_non_null(json);
		cJSON_Delete(json);
	}
}

/* What Python's json writes and reads, and JSON does not know. */
static void test_python(void **state)
{
	struct scratch *s = *state;
	static const char text[] =
		"\xef\xbb\xbf{\"a\":1,\"n\":NaN,\"word\":\"NaN \\\" Infinity\",\"i\":[Infinity,-Infinity],\"a\":{\"b\":1,"
		"\"c\":5,\"b\":2},\"a\":{\"b\":3,\"b\":4}}";
	cJSON *json = NULL;
	double number = 0;
	SUCCEEDS(json_parse_python(text, strlen(text), "text", &json, &s->err));
	assert_int_equal(cJSON_GetArraySize(json), 4);
	const cJSON *a = cJSON_GetObjectItemCaseSensitive(json, "a"), *i = cJSON_GetObjectItemCaseSensitive(json, "i");
	assert_int_equal(cJSON_GetArraySize(a), 1);
	assert_true(cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(a, "b")) == 4);
	assert_true(isinf(cJSON_GetNumberValue(cJSON_GetArrayItem(i, 0))));
	assert_true(cJSON_GetNumberValue(cJSON_GetArrayItem(i, 1)) < -1e308);
	assert_string_equal(cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(json, "word")), "NaN \" Infinity");
	FAILS(STATUS_INVALID, "'n' must be a number", json_get_double(json, "text", "n", &number, &s->err));
	cJSON_Delete(json);
	json = NULL;
	static const char *const refused[] = {"{\"a\":NaNa}", "{\"a\":nan}", "{\"a\":1,}", "{\"a\\", "{NaN:1}"};
	for (size_t k = 0; k < sizeof refused / sizeof *refused; k++)
		FAILS(STATUS_INVALID, "text", json_parse_python(refused[k], strlen(refused[k]), "text", &json, &s->err));
	assert_null(json);
}

static void test_lfs_pointer(void **state)
{
	struct scratch *s = *state;
	cJSON *json = NULL;
	scratch_text(s, "config.json", "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n");
	FAILS(STATUS_INVALID, "a git-lfs pointer",
	      json_read_place(&PLACE(scratch_path(s, "config.json")), NULL, 1000, &json, &s->err));
	assert_non_null(strstr(s->err.message, "git lfs pull"));
}

static void test_refuses(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *text, *part;
	} cases[] = {
		{"", "not valid JSON"},
		{"{\"a\":1} x", "not valid JSON"},
		{"{\n\"a\":\n}", "line 3"},
		{"[1,", "not valid JSON"},
		{"{\"1\":1,", "not valid JSON"},
		{"\"abc", "a string without an end"},
		{"\"a\\", "a string without an end"},
		{"\"a\nb\"", "a control character in a string"},
		{"[\1]", "a control character"},
		{"\"\\u12g4\"", "four hexadecimal digits"},
		{"\"\\u12", "four hexadecimal digits"},
		{"\"a\\u0000b\"", "NUL"},
		{"\"\\udc00\"", "not valid JSON"},
		{"\"\xff\"", "UTF-8"},
		{"\"\xed\xa0\x80\"", "UTF-8"},
		{"\"\xc0\x80\"", "UTF-8"},
		{"\"\xf4\x90\x80\x80\"", "UTF-8"},
		{"\"\xe2\x82", "UTF-8"},
		{"{\"a\":1,\"b\":2,\"a\":3}", "'a' is there twice"},
		{"[{\"x\":{\"k\":1,\"k\":2}}]", "'k' is there twice"},
		{"NaN", "not valid JSON"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		cJSON *json = NULL;
		/* A heap copy without a 0, so that a sanitizer sees a read beyond it. */
		size_t bytes = strlen(cases[i].text);
		char *exact = malloc(bytes ? bytes : 1);
		memcpy(exact, cases[i].text, bytes);
		FAILS(STATUS_INVALID, cases[i].part, json_parse(exact, bytes, "text", &json, &s->err));
		assert_null(json);
		free(exact);
	}
	cJSON *json = NULL;
	FAILS(STATUS_INVALID, "a control character", json_parse("[1]\0", 4, "text", &json, &s->err));
}

static void test_depth(void **state)
{
	struct scratch *s = *state;
	char text[2 * (JSON_MAX_DEPTH + 1)];
	for (int depth = JSON_MAX_DEPTH; depth <= JSON_MAX_DEPTH + 1; depth++) {
		cJSON *json = NULL;
		memset(text, '[', (size_t)depth);
		memset(text + depth, ']', (size_t)depth);
		if (depth == JSON_MAX_DEPTH)
			SUCCEEDS(json_parse(text, 2 * (size_t)depth, "text", &json, &s->err));
		else
			FAILS(STATUS_INVALID, "nested too deeply", json_parse(text, 2 * (size_t)depth, "text", &json, &s->err));
		cJSON_Delete(json);
	}
}

static void test_typed(void **state)
{
	struct scratch *s = *state;
	static const char text[] =
		"{\"i\":7,\"half\":0.5,\"big\":1e300,\"huge\":1e999,\"t\":true,\"s\":\"x\",\"n\":null,\"edge\":9007199254740992}";
	cJSON *json = NULL;
	int64_t integer = -1;
	double number = -1;
	bool flag = false;
	const char *string = "old";
	SUCCEEDS(json_parse(text, strlen(text), "text", &json, &s->err));
	SUCCEEDS(json_get_int(json, "text", "i", 0, 7, &integer, &s->err));
	assert_int_equal(integer, 7);
	SUCCEEDS(json_get_int(json, "text", "edge", 0, INT64_MAX, &integer, &s->err));
	assert_int_equal(integer, INT64_C(1) << 53);
	SUCCEEDS(json_get_int(json, "text", "n", 0, 7, &integer, &s->err));
	SUCCEEDS(json_get_int(json, "text", "none", 0, 7, &integer, &s->err));
	assert_int_equal(integer, INT64_C(1) << 53);
	FAILS(STATUS_INVALID, "text: 'i' must be an integer from 0 to 6", json_get_int(json, "text", "i", 0, 6, &integer, &s->err));
	FAILS(STATUS_INVALID, "'half'", json_get_int(json, "text", "half", 0, 6, &integer, &s->err));
	FAILS(STATUS_INVALID, "'big'", json_get_int(json, "text", "big", 0, INT64_MAX, &integer, &s->err));
	FAILS(STATUS_INVALID, "'s'", json_get_int(json, "text", "s", 0, 6, &integer, &s->err));
	SUCCEEDS(json_get_double(json, "text", "half", &number, &s->err));
	assert_true(number == 0.5);
	FAILS(STATUS_INVALID, "'huge' must be a number", json_get_double(json, "text", "huge", &number, &s->err));
	SUCCEEDS(json_get_bool(json, "text", "t", &flag, &s->err));
	assert_true(flag);
	FAILS(STATUS_INVALID, "'i' must be true or false", json_get_bool(json, "text", "i", &flag, &s->err));
	SUCCEEDS(json_get_string(json, "text", "s", &string, &s->err));
	assert_string_equal(string, "x");
	FAILS(STATUS_INVALID, "'t' must be a string", json_get_string(json, "text", "t", &string, &s->err));
	cJSON_Delete(json);
}

static void test_mask(void **state)
{
	(void)state;
	static const struct {
		const char *text, *repaired;
	} cases[] = {
		{"", ""},
		{"a\xc3\xa9\xe2\x80\xa6\xf0\x9f\x98\x80", "a\xc3\xa9\xe2\x80\xa6\xf0\x9f\x98\x80"},
		{"\xff/a\xc3", "?/a?"},
		{"\xed\xa0\x80.", "???."},
		{"\xe2\x80", "??"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char text[32];
		strcpy(text, cases[i].text);
		utf8_mask(text);
		assert_string_equal(text, cases[i].repaired);
	}
}

/* A message that has no room shows that it goes on, and is valid UTF-8 all the same. */
static void test_long_messages(void **state)
{
	struct scratch *s = *state;
	char text[2 * sizeof s->err.message];
	for (size_t shift = 0; shift < 3; shift++) {
		memset(text, 'x', shift);
		for (size_t i = shift; i + 3 < sizeof text; i += 3)
			strcpy(text + i, "\xe2\x82\xac");
		error_set(&s->err, STATUS_INVALID, "%s", text);
		const char *message = s->err.message;
		assert_true(utf8_valid(message, strlen(message)));
		assert_string_equal(message + strlen(message) - strlen("€…"), "€…");
		error_prefix(&s->err, "é");
		assert_true(utf8_valid(message, strlen(message)));
		assert_string_equal(message + strlen(message) - strlen("€…"), "€…");
	}
	error_set(&s->err, STATUS_INVALID, "%s", "short");
	assert_string_equal(s->err.message, "short");
}

/* The pointer of the first difference of two texts, or "none"; good until the next call. */
static const char *difference(const char *a, const char *b, bool shared)
{
	static struct json_difference found;
	cJSON *x = cJSON_Parse(a), *y = cJSON_Parse(b);
	assert_true(x && y);
	bool differ = json_differ(x, y, shared, &found);
	cJSON_Delete(x);
	cJSON_Delete(y);
	return differ ? found.pointer : "none";
}

static void test_difference(void **state)
{
	(void)state;
	static const char text[] = "{\"a\":{\"b/c\":[1,{\"d~\":\"x\"}]},\"e\":true}";
	for (int shared = 0; shared < 2; shared++) {
		assert_string_equal(difference(text, text, shared), "none");
		assert_string_equal(difference("{\"a\":1,\"b\":2}", "{\"b\":2,\"a\":1}", shared), "none");
		assert_string_equal(difference(text, "{\"a\":{\"b/c\":[1,{\"d~\":\"y\"}]},\"e\":true}", shared), "/a/b~1c/1/d~0");
		assert_string_equal(difference(text, "{\"a\":{\"b/c\":[1]},\"e\":true}", shared), "/a/b~1c/1");
		assert_string_equal(difference(text, "{\"a\":{\"b/c\":[1,{\"d~\":\"x\"},3]},\"e\":true}", shared), "/a/b~1c/2");
		assert_string_equal(difference(text, "{\"a\":{\"b/c\":{}},\"e\":true}", shared), "/a/b~1c");
		assert_string_equal(difference(text, "{\"a\":{\"b/c\":[1,{\"d~\":\"x\"}]},\"e\":false}", shared), "/e");
		assert_string_equal(difference("{}", "[]", shared), "");
	}
	assert_string_equal(difference("{\"a\":{\"x\":1,\"y\":2}}", "{\"a\":{\"y\":2,\"z\":3},\"b\":0}", true), "none");
	assert_string_equal(difference("{\"a\":{\"x\":1,\"y\":2}}", "{\"a\":{\"y\":2}}", false), "/a/x");
	assert_string_equal(difference("{\"a\":{\"y\":2}}", "{\"a\":{\"y\":2},\"b\":0}", false), "/b");

	/* A pointer that has no room for all ends where it has none. */
	char deep[1200] = "1", wrapped[1200];
	for (int i = 0; i < 50; i++) {
		snprintf(wrapped, sizeof wrapped, "{\"long~key\":%s}", deep);
		strcpy(deep, wrapped);
	}
	char other[1200];
	strcpy(other, deep);
	*strchr(other, '1') = '2';
	size_t length = strlen(difference(deep, other, false));
	assert_true(length >= 195 && length < sizeof((struct json_difference){0}).pointer);
}

/* In the order in which they come first; entries without the member, and without keys, add none. */
static void test_keys_below(void **state)
{
	(void)state;
	cJSON *list = cJSON_Parse("[{\"p\":{\"b\":1,\"a\":2}},{\"q\":{\"x\":1}},{\"p\":null},{\"p\":{\"c\":3,\"b\":4}}]");
	cJSON *keys = json_keys_below(list, "p");
	char *text = cJSON_PrintUnformatted(keys);
	assert_string_equal(text, "{\"b\":null,\"a\":null,\"c\":null}");
	cJSON_free(text);
	cJSON_Delete(keys);
	cJSON_Delete(list);
}

/* What lacks something for want of memory is known; an allocation fails by its size. */
static void test_ran_out(void **state)
{
	(void)state;
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
	skip(); /* they want all of the address space */
#endif
	struct rlimit limit, less;
	size_t length = (size_t)64 << 20;
	char *large = malloc(length + 1);
	assert_non_null(large);
	memset(large, 'x', length);
	large[length] = 0;
	json_heed_memory();
	json_begin();
	cJSON *json = cJSON_CreateObject();
	cJSON_AddNumberToObject(json, "a", 1);
	assert_false(json_ran_out());
	getrlimit(RLIMIT_AS, &limit);
	less = (struct rlimit){(rlim_t)1 << 20, limit.rlim_max};
	setrlimit(RLIMIT_AS, &less);
	cJSON_AddStringToObject(json, "b", large);
	setrlimit(RLIMIT_AS, &limit);
	assert_true(json_ran_out());
	assert_false(cJSON_HasObjectItem(json, "b"));
	json_begin();
	assert_false(json_ran_out());
	cJSON_Delete(json);
	free(large);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_accepts),        SCRATCH_TEST(test_refuses),    SCRATCH_TEST(test_depth),
		SCRATCH_TEST(test_typed),          SCRATCH_TEST(test_python),     SCRATCH_TEST(test_lfs_pointer),
		SCRATCH_TEST(test_mask),           SCRATCH_TEST(test_difference), SCRATCH_TEST(test_long_messages),
		cmocka_unit_test(test_keys_below), cmocka_unit_test(test_ran_out)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
