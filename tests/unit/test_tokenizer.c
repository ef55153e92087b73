/* Tokenizers: which files decide, BOS, a vocabulary that does not fit, and broken files. The ids themselves are compared with
 * known ones in test_corpus.c (SentencePiece) and in the tests of tokenizer.json. */
#include <unistd.h>

#include "tests/unit/scratch.h"

#include "engine/text/tokenizer.h"

static const char demo[] = "demo/tiny-llama";

/* A model directory with the demo's tokenizer.model. */
static void link_model(struct scratch *s)
{
	char *real = realpath("demo/tiny-llama/tokenizer.model", NULL);
	assert_non_null(real);
	assert_int_equal(symlink(real, scratch_path(s, "tokenizer.model")), 0);
	free(real);
}

static void assert_ids(struct scratch *s, const struct tokenizer *tokenizer, const char *text, size_t bytes,
		       const int32_t *expected, size_t count)
{
	int32_t *ids;
	size_t got;
	SUCCEEDS(tokenizer_encode(tokenizer, text, bytes, &ids, &got, &s->err));
	assert_int_equal(got, count);
	assert_memory_equal(ids, expected, count * sizeof *ids);
	free(ids);
}

static void test_encode(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	SUCCEEDS(tokenizer_load(&PLACE(demo), 2048, NULL, &tokenizer, &s->err));
	assert_int_equal(tokenizer_bos(tokenizer), 1);
	assert_ids(s, tokenizer, "", 0, NULL, 0);
	/* Byte fallback: <0x00> is id 3, 1957 the space in front. A newline, and a character that the vocabulary lacks. */
	static const int32_t fallback[] = {1957, 3 + 0x0a, 3 + 0xe2, 3 + 0x86, 3 + 0xaf};
	assert_ids(s, tokenizer, "\n\xe2\x86\xaf", 4, fallback, 5);
	/* What is not UTF-8 is U+FFFD. */
	static const int32_t replaced[] = {1957, 3 + 0xef, 3 + 0xbf, 3 + 0xbd};
	assert_ids(s, tokenizer, "\xff", 1, replaced, 4);
	tokenizer_free(tokenizer);
	tokenizer_free(NULL);
}

/* Long texts are encoded in stretches; that must not show, wherever the cuts fall. */
static void test_long_text(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	static const char words[] = "the game of 1234 was , and  then\nshe said \xc3\xa9t\xc3\xa9 to me \xe2\x80\x93 it is late ";
	enum { REPEATS = 2000 };
	size_t unit = strlen(words), once, twice, all;
	char *text = malloc(REPEATS * unit);
	int32_t *one, *two, *ids;
	for (int i = 0; i < REPEATS; i++)
		memcpy(text + (size_t)i * unit, words, unit);
	SUCCEEDS(tokenizer_load(&PLACE(demo), 2048, NULL, &tokenizer, &s->err));
	SUCCEEDS(tokenizer_encode(tokenizer, text, unit - 1, &one, &once, &s->err));
	SUCCEEDS(tokenizer_encode(tokenizer, text, 2 * unit - 1, &two, &twice, &s->err));
	SUCCEEDS(tokenizer_encode(tokenizer, text, REPEATS * unit - 1, &ids, &all, &s->err));
	assert_int_equal(twice, 2 * once); /* the unit's ids repeat */
	assert_int_equal(all, REPEATS * once);
	for (int i = 0; i < REPEATS; i++)
		assert_memory_equal(ids + (size_t)i * once, one, once * sizeof *ids);
	free(one);
	free(two);
	free(ids);
	free(text);
	tokenizer_free(tokenizer);
}

static void test_bos(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *config;
		int32_t bos;
	} cases[] = {
		{"{}", 1},
		{"{\"add_bos_token\":false}", -1},
		{"{\"add_bos_token\":true,\"bos_token\":\"</s>\"}", 2},
		{"{\"bos_token\":{\"content\":\"<s>\",\"lstrip\":false}}", 1},
		{"{\"add_bos_token\":null,\"bos_token\":null}", 1},
		{"{\"add_bos_token\":false,\"bos_token\":\"<|none|>\"}", -1},
	};
	struct tokenizer *tokenizer;
	link_model(s);
	SUCCEEDS(tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err)); /* no tokenizer_config.json at all */
	assert_int_equal(tokenizer_bos(tokenizer), 1);
	tokenizer_free(tokenizer);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		scratch_text(s, "tokenizer_config.json", cases[i].config);
		SUCCEEDS(tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
		assert_int_equal(tokenizer_bos(tokenizer), cases[i].bos);
		tokenizer_free(tokenizer);
	}
	scratch_text(s, "tokenizer_config.json", "{\"bos_token\":\"<|none|>\"}");
	FAILS(STATUS_UNSUPPORTED, "'bos_token' '<|none|>'", tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	scratch_text(s, "tokenizer_config.json", "{\"add_bos_token\":\"yes\"}");
	FAILS(STATUS_INVALID, "tokenizer_config.json: 'add_bos_token'",
	      tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
}

static void test_larger_than_embedding(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	FAILS(STATUS_INVALID, "tokenizer.model: the tokenizer has 2048 ids, but the model's embedding only 2047 rows",
	      tokenizer_load(&PLACE(demo), 2047, NULL, &tokenizer, &s->err));
	SUCCEEDS(tokenizer_load(&PLACE(demo), 4096, NULL, &tokenizer, &s->err)); /* an embedding may be padded */
	tokenizer_free(tokenizer);
}

static void test_broken(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	char *model;
	size_t bytes;
	FAILS(STATUS_NOT_FOUND, "neither tokenizer.model nor tokenizer.json",
	      tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	scratch_text(s, "tokenizer.model", "");
	FAILS(STATUS_INVALID, "tokenizer.model: not a SentencePiece model",
	      tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	scratch_text(s, "tokenizer.model", "no model");
	FAILS(STATUS_INVALID, "tokenizer.model: not a SentencePiece model",
	      tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	SUCCEEDS(file_slurp("demo/tiny-llama/tokenizer.model", 1 << 20, &model, &bytes, &s->err));
	scratch_write(s, "tokenizer.model", model, bytes / 2);
	FAILS(STATUS_INVALID, "tokenizer.model: not a SentencePiece model",
	      tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	free(model);
}

static void test_tokenizer_json(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	char *text;
	size_t bytes;
	scratch_text(s, "tokenizer.json", "{");
	FAILS(STATUS_INVALID, "tokenizer.json", tokenizer_load(&PLACE(s->directory), 1 << 20, NULL, &tokenizer, &s->err));
	SUCCEEDS(file_slurp("tests/data/tokenizers/llama3.json", 1 << 20, &text, &bytes, &s->err));
	scratch_write(s, "tokenizer.json", text, bytes);
	free(text);
	scratch_text(s, "tokenizer_config.json", "{\"add_bos_token\":false}"); /* the post-processor decides */
	SUCCEEDS(tokenizer_load(&PLACE(s->directory), 1 << 20, NULL, &tokenizer, &s->err));
	assert_true(tokenizer_bos(tokenizer) >= 0);
	int32_t *ids;
	size_t count;
	SUCCEEDS(tokenizer_encode(tokenizer, "hello", 5, &ids, &count, &s->err));
	assert_true(count >= 1 && count <= 5);
	free(ids);
	tokenizer_free(tokenizer);
	FAILS(STATUS_INVALID, "but the model's embedding only 10 rows",
	      tokenizer_load(&PLACE(s->directory), 10, NULL, &tokenizer, &s->err));
	link_model(s); /* where both are there, tokenizer.model counts */
	scratch_text(s, "tokenizer.json", "{");
	SUCCEEDS(tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	tokenizer_free(tokenizer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_encode), SCRATCH_TEST(test_long_text),
		SCRATCH_TEST(test_bos),    SCRATCH_TEST(test_larger_than_embedding),
		SCRATCH_TEST(test_broken), SCRATCH_TEST(test_tokenizer_json),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
