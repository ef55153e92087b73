/* Tokenizers: the ids that transformers gives for whole directories (tests/data/tokenizers/directories, see
 * make_directories.py there), which files decide, BOS, an id that the embedding lacks, and broken files. */
#include <dirent.h>
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

/* The words of a long text are remembered; that must not show. */
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

/* ---- directories as transformers reads them ------------------------------------------------------------------------------- */
static const unsigned char *next_record(const char *data, size_t size, size_t *at, uint32_t *bytes)
{
	assert_true(*at + 4 <= size);
	memcpy(bytes, data + *at, 4);
	const unsigned char *record = (const unsigned char *)data + *at + 4;
	*at += 4 + *bytes;
	assert_true(*at <= size);
	return record;
}

static void check_directory(struct scratch *s, const char *directory)
{
	char path[1024], *texts, *golden;
	size_t texts_size, golden_size, at = 0, golden_at = 0;
	uint32_t bytes;
	int32_t bos;
	struct tokenizer *tokenizer;
	struct warnings warnings = {0};
	snprintf(path, sizeof path, "%s/ids", directory);
	SUCCEEDS(file_slurp("tests/data/tokenizers/texts.bin", 1 << 20, &texts, &texts_size, &s->err));
	SUCCEEDS(file_slurp(path, 1 << 20, &golden, &golden_size, &s->err));
	SUCCEEDS(tokenizer_load(&PLACE(directory), INT32_MAX, &warnings, &tokenizer, &s->err));
	assert_int_equal(warnings.count, 0);
	memcpy(&bos, next_record(golden, golden_size, &golden_at, &bytes), 4);
	if (tokenizer_bos(tokenizer) != bos) fail_msg("%s: %d in front, not %d", directory, tokenizer_bos(tokenizer), bos);
	for (int text = 0; at < texts_size; text++) {
		int32_t *ids;
		size_t count;
		uint32_t want_bytes;
		const unsigned char *record = next_record(texts, texts_size, &at, &bytes);
		const unsigned char *want = next_record(golden, golden_size, &golden_at, &want_bytes);
		SUCCEEDS(tokenizer_encode(tokenizer, (const char *)record, bytes, &ids, &count, &s->err));
		for (size_t i = 0; i < count && i < want_bytes / 2; i++)
			if (ids[i] != (want[2 * i] | want[2 * i + 1] << 8))
				fail_msg("%s, text %d, id %zu: %d instead of %d", directory, text, i, ids[i],
					 want[2 * i] | want[2 * i + 1] << 8);
		if (count != want_bytes / 2) fail_msg("%s, text %d: %zu ids instead of %u", directory, text, count, want_bytes / 2);
		free(ids);
	}
	assert_int_equal(golden_at, golden_size);
	tokenizer_free(tokenizer);
	free(texts);
	free(golden);
}

static void test_directories(void **state)
{
	struct scratch *s = *state;
	static const char root[] = "tests/data/tokenizers/directories";
	DIR *list = opendir(root);
	assert_non_null(list);
	int checked = 0;
	for (struct dirent *entry; (entry = readdir(list));) {
		char path[512];
		if (entry->d_name[0] == '.') continue;
		snprintf(path, sizeof path, "%s/%s", root, entry->d_name);
		check_directory(s, path);
		checked++;
	}
	closedir(list);
	assert_true(checked >= 29);
}

/* ---- */
static void test_bos(void **state)
{
	struct scratch *s = *state;
	static const struct {
		const char *config;
		int32_t bos;
	} cases[] = {
		{"{}", -1},
		{"{\"add_bos_token\":true}", 1},
		{"{\"add_bos_token\":false}", -1},
		{"{\"add_bos_token\":true,\"bos_token\":\"</s>\"}", 2},
		{"{\"add_bos_token\":true,\"bos_token\":{\"content\":\"<s>\",\"lstrip\":false}}", 1},
		{"{\"add_bos_token\":true,\"bos_token\":null}", -1},
		{"{\"add_bos_token\":true,\"bos_token\":\"<|new|>\"}", 2048}, /* it is added */
	};
	struct tokenizer *tokenizer;
	link_model(s);
	SUCCEEDS(tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err)); /* no tokenizer_config.json at all */
	assert_int_equal(tokenizer_bos(tokenizer), -1);
	tokenizer_free(tokenizer);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		scratch_text(s, "tokenizer_config.json", cases[i].config);
		SUCCEEDS(tokenizer_load(&PLACE(s->directory), 2049, NULL, &tokenizer, &s->err));
		assert_int_equal(tokenizer_bos(tokenizer), cases[i].bos);
		tokenizer_free(tokenizer);
	}
	FAILS(STATUS_INVALID, "in front of a text has the id 2048, but the model's embedding has 2048 rows",
	      tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	scratch_text(s, "tokenizer_config.json", "{\"add_bos_token\":\"yes\"}");
	FAILS(STATUS_INVALID, "tokenizer_config.json: 'add_bos_token'",
	      tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
}

/* An id beyond the embedding is an error when a text has it. */
static void test_larger_than_embedding(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	int32_t *ids;
	size_t count;
	link_model(s);
	scratch_text(s, "tokenizer_config.json", "{\"pad_token\":\"[PAD]\"}");
	SUCCEEDS(tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	SUCCEEDS(tokenizer_encode(tokenizer, "a [PAD", 6, &ids, &count, &s->err));
	free(ids);
	FAILS(STATUS_INVALID,
	      "tokenizer.model: the text holds the token '[PAD]' of id 2048, but the model's embedding has 2048 rows",
	      tokenizer_encode(tokenizer, "a [PAD] b", 9, &ids, &count, &s->err));
	tokenizer_free(tokenizer);
	SUCCEEDS(tokenizer_load(&PLACE(demo), 10, NULL, &tokenizer, &s->err));
	FAILS(STATUS_INVALID, "the token '\xe2\x96\x81the' of id", tokenizer_encode(tokenizer, "the", 3, &ids, &count, &s->err));
	tokenizer_free(tokenizer);
}

static void test_broken(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	char *model;
	size_t bytes;
	FAILS(STATUS_NOT_FOUND, "tokenizer.json: is not there, nor is a tokenizer.model",
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

static const char pointer[] = "version https://git-lfs.github.com/spec/v1\noid sha256:"
			      "0000000000000000000000000000000000000000000000000000000000000000\nsize 499723\n";

static void test_pointer(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	scratch_text(s, "tokenizer.model", pointer);
	FAILS(STATUS_INVALID, "tokenizer.model: a git-lfs pointer",
	      tokenizer_load(&PLACE(s->directory), 9, NULL, &tokenizer, &s->err));
	scratch_text(s, "tokenizer.json", pointer);
	FAILS(STATUS_INVALID, "tokenizer.json: a git-lfs pointer",
	      tokenizer_load(&PLACE(s->directory), 9, NULL, &tokenizer, &s->err));
	assert_non_null(strstr(s->err.message, "git lfs pull"));
}

/* tokenizer.json counts; one that does not parse gives way, with a warning, but not one that asks for what is not supported. */
static void test_which_file(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	struct warnings warnings = {0};
	static const char *const broken[] = {"{", "{}", pointer};
	int32_t *ids;
	size_t count;
	scratch_text(s, "tokenizer.json", "{");
	FAILS(STATUS_INVALID, "tokenizer.json", tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
	link_model(s);
	scratch_text(s, "tokenizer_config.json", "{\"add_bos_token\":true}");
	for (size_t i = 0; i < sizeof broken / sizeof *broken; i++) {
		scratch_text(s, "tokenizer.json", broken[i]);
		SUCCEEDS(tokenizer_load(&PLACE(s->directory), 2048, &warnings, &tokenizer, &s->err));
		assert_int_equal(tokenizer_bos(tokenizer), 1);
		tokenizer_free(tokenizer);
		assert_int_equal(warnings.count, 1);
		assert_non_null(strstr(warnings.messages[0], "/tokenizer.json"));
		assert_non_null(strstr(warnings.messages[0], "the tokenizer is from tokenizer.model"));
		warnings_free(&warnings);
	}
	scratch_text(s, "tokenizer.json", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[],\"dropout\":0.5}}");
	FAILS(STATUS_UNSUPPORTED, "tokenizer.json: model: dropout",
	      tokenizer_load(&PLACE(s->directory), 9, NULL, &tokenizer, &s->err));
	scratch_text(s, "tokenizer.json", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}");
	SUCCEEDS(tokenizer_load(&PLACE(s->directory), 9, &warnings, &tokenizer, &s->err));
	assert_int_equal(warnings.count, 0);
	assert_int_equal(tokenizer_bos(tokenizer), -1); /* add_bos_token does not count here */
	SUCCEEDS(tokenizer_encode(tokenizer, "ab", 2, &ids, &count, &s->err));
	assert_int_equal(count, 1);
	free(ids);
	tokenizer_free(tokenizer);
	scratch_text(s, "tokenizer.json", "{");
	assert_int_equal(unlink(scratch_path(s, "tokenizer.model")), 0);
	scratch_text(s, "tokenizer.model", "no model");
	FAILS(STATUS_INVALID,
	      "nor does the other file serve: ", tokenizer_load(&PLACE(s->directory), 9, NULL, &tokenizer, &s->err));
	assert_non_null(strstr(s->err.message, "tokenizer.model: not a SentencePiece model"));
}

/* A class that transformers builds anew and besad does not is told; without tokenizer.json it is refused. */
static void test_other_classes(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	struct warnings warnings = {0};
	scratch_text(s, "tokenizer_config.json", "{\"tokenizer_class\":\"CohereTokenizerFast\"}");
	scratch_text(s, "tokenizer.json", "{\"model\":{\"vocab\":{\"a\":0},\"merges\":[]}}");
	SUCCEEDS(tokenizer_load(&PLACE(s->directory), 9, &warnings, &tokenizer, &s->err));
	tokenizer_free(tokenizer);
	assert_int_equal(warnings.count, 1);
	assert_non_null(strstr(warnings.messages[0], "CohereTokenizer"));
	warnings_free(&warnings);
	assert_int_equal(unlink(scratch_path(s, "tokenizer.json")), 0);
	link_model(s);
	FAILS(STATUS_UNSUPPORTED, "a CohereTokenizer is not supported without a tokenizer.json",
	      tokenizer_load(&PLACE(s->directory), 2048, NULL, &tokenizer, &s->err));
}

/* A qwen2 model with a tokenizer.json of its own: transformers would split as Qwen2 does. */
static void test_own_splitting(void **state)
{
	struct scratch *s = *state;
	struct tokenizer *tokenizer;
	struct warnings warnings = {0};
	int32_t *ids;
	size_t count;
	SUCCEEDS(tokenizer_load(&PLACE("tests/data/tiny-qwen"), 2048, &warnings, &tokenizer, &s->err));
	assert_int_equal(warnings.count, 1);
	assert_non_null(strstr(warnings.messages[0], "splits text otherwise than Qwen2Tokenizer"));
	assert_int_equal(tokenizer_bos(tokenizer), 2046);
	SUCCEEDS(tokenizer_encode(tokenizer, "<|end_of_text|>", 15, &ids, &count, &s->err));
	assert_int_equal(count, 1);
	assert_int_equal(ids[0], 2047);
	free(ids);
	tokenizer_free(tokenizer);
	warnings_free(&warnings);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		SCRATCH_TEST(test_encode),        SCRATCH_TEST(test_long_text),  SCRATCH_TEST(test_directories),
		SCRATCH_TEST(test_bos),           SCRATCH_TEST(test_broken),     SCRATCH_TEST(test_larger_than_embedding),
		SCRATCH_TEST(test_pointer),       SCRATCH_TEST(test_which_file), SCRATCH_TEST(test_other_classes),
		SCRATCH_TEST(test_own_splitting),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
