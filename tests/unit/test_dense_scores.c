/* Perplexities of dense models that are kept: what they are known by, and what damage does. */
#include "tests/unit/scratch.h"

#include "base/place.h"
#include "engine/eval/dense_scores.h"

static void key_of(struct scratch *s, const char *model, int32_t first, enum dtype precision, const char *device,
		   char ret[SHA256_TEXT])
{
	int32_t ids[] = {first, 2, 3, 4};
	const struct sequences windows = {.ids = ids, .count = 2, .length = 2};
	cJSON *files = cJSON_Parse(model);
	assert_non_null(files);
	SUCCEEDS(dense_scores_key(files, &windows, precision, device, ret, &s->err));
	cJSON_Delete(files);
}

static void test_key(void **state)
{
	struct scratch *s = *state;
	char key[SHA256_TEXT], other[SHA256_TEXT];
	key_of(s, "[{\"inode\": \"1\"}]", 1, DTYPE_F32, "a device", key);
	key_of(s, "[{\"inode\": \"1\"}]", 1, DTYPE_F32, "a device", other);
	assert_string_equal(key, other);
	key_of(s, "[{\"inode\": \"2\"}]", 1, DTYPE_F32, "a device", other);
	assert_string_not_equal(key, other);
	key_of(s, "[{\"inode\": \"1\"}]", 5, DTYPE_F32, "a device", other);
	assert_string_not_equal(key, other);
	key_of(s, "[{\"inode\": \"1\"}]", 1, DTYPE_BF16, "a device", other);
	assert_string_not_equal(key, other);
	key_of(s, "[{\"inode\": \"1\"}]", 1, DTYPE_F32, "another", other);
	assert_string_not_equal(key, other);
}

static void test_keep(void **state)
{
	struct scratch *s = *state;
	char directory[256], key[SHA256_TEXT], other[SHA256_TEXT];
	const double score = 18.623412821773453;
	double found = 0;
	snprintf(directory, sizeof directory, "%s/scores", s->directory);
	key_of(s, "[]", 1, DTYPE_F32, "a device", key);
	key_of(s, "[]", 2, DTYPE_F32, "a device", other);
	assert_false(dense_scores_find(directory, key, &found));
	SUCCEEDS(dense_scores_keep(directory, key, score, &s->err));
	assert_true(dense_scores_find(directory, key, &found));
	assert_memory_equal(&found, &score, sizeof score);
	assert_false(dense_scores_find(directory, other, &found));
}

/* A number that the disk has changed would look right. */
static void test_damage(void **state)
{
	struct scratch *s = *state;
	char directory[256], key[SHA256_TEXT], *text;
	size_t bytes;
	double found;
	snprintf(directory, sizeof directory, "%s/scores", s->directory);
	key_of(s, "[]", 1, DTYPE_F32, "a device", key);
	SUCCEEDS(dense_scores_keep(directory, key, 18.5, &s->err));
	SUCCEEDS(place_slurp(&PLACE(directory), key, 1000, &text, &bytes, &s->err));
	for (size_t i = 0; i <= bytes; i++) {
		char damaged[1000];
		memcpy(damaged, text, bytes);
		if (i < bytes) damaged[i] ^= 1;
		SUCCEEDS(place_replace(&PLACE(directory), key, damaged, i < bytes ? bytes : bytes - 1, &s->err));
		assert_false(dense_scores_find(directory, key, &found));
	}
	SUCCEEDS(place_replace(&PLACE(directory), key, text, bytes, &s->err));
	assert_true(dense_scores_find(directory, key, &found));
	free(text);
}

/* It does not grow for ever, and nothing goes that is not its own. */
static void test_bound(void **state)
{
	struct scratch *s = *state;
	char directory[256], key[SHA256_TEXT], name[400];
	double found;
	struct file file;
	snprintf(directory, sizeof directory, "%s/scores", s->directory);
	key_of(s, "[]", 1, DTYPE_F32, "a device", key);
	SUCCEEDS(directory_make(directory, &s->err));
	SUCCEEDS(place_make(&PLACE(directory), "somebody else's", &s->err));
	for (int i = 0; i < DENSE_SCORES_MOST; i++) {
		snprintf(name, sizeof name, "%s/%064x", directory, i);
		SUCCEEDS(file_create(name, 0, &file, &s->err));
		file_close(&file);
	}
	SUCCEEDS(dense_scores_keep(directory, key, 7, &s->err));
	assert_true(dense_scores_find(directory, key, &found));
	assert_false(place_has(&PLACE(name), NULL));
	assert_true(place_has(&PLACE(directory), "somebody else's"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {SCRATCH_TEST(test_key), SCRATCH_TEST(test_keep), SCRATCH_TEST(test_damage),
					   SCRATCH_TEST(test_bound)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
