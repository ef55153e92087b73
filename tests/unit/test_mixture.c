/* Calibration from several files: the division of the samples, their order, and the tokens. */
#include <math.h>

#include "tests/unit/scratch.h"

#include "engine/spec/apportion.h"
#include "engine/text/mixture.h"

enum { VOCAB = 2048, LENGTH = 256 };

static const atomic_bool running = false;
static const char demo[] = "demo/tiny-llama";
static const struct place tokens = {NULL, "demo/calibration.safetensors"}, text = {NULL, "tests/data/wikitext2.valid.txt.gz"};

/* A file under its own name. */
#define FILE_OF(place)                                                                                                             \
	{                                                                                                                          \
		&(place), (place).path, "text"                                                                                     \
	}

static void expect_shares(const double *weights, int count, int64_t whole, const int64_t *expected)
{
	int64_t shares[MIXTURE_MAX_SOURCES];
	apportion(weights, count, whole, shares);
	for (int i = 0; i < count; i++)
		assert_int_equal(shares[i], expected[i]);
}

static void test_apportion(void **state)
{
	(void)state;
	expect_shares((double[]){1}, 1, 128, (int64_t[]){128});
	expect_shares((double[]){3, 1}, 2, 128, (int64_t[]){96, 32});
	expect_shares((double[]){1, 1, 1}, 3, 128, (int64_t[]){43, 43, 42}); /* equal fractions: the earlier */
	expect_shares((double[]){0.1, 0.2, 0.7}, 3, 10, (int64_t[]){1, 2, 7});
	expect_shares((double[]){1, 2, 4}, 3, 10, (int64_t[]){1, 3, 6}); /* 1.43, 2.86, 5.71 */
	expect_shares((double[]){1e-6, 1e6}, 2, 100, (int64_t[]){0, 100});
	srand(1);
	for (int round = 0; round < 200; round++) {
		double weights[MIXTURE_MAX_SOURCES], sum = 0;
		int64_t shares[MIXTURE_MAX_SOURCES], all = 0, whole = 1 + rand() % 1000;
		int count = 1 + rand() % MIXTURE_MAX_SOURCES;
		for (int i = 0; i < count; i++)
			sum += weights[i] = 0.01 + rand() % 1000;
		apportion(weights, count, whole, shares);
		for (int i = 0; i < count; i++) {
			all += shares[i];
			assert_true(fabs((double)shares[i] - (double)whole * weights[i] / sum) < 1 + 1e-6);
		}
		assert_int_equal(all, whole);
	}
}

static enum status mix(struct scratch *s, const struct mixture_source *sources, int count, int64_t seed, struct sequences *ret)
{
	return mixture_calibration(sources, count, &PLACE(demo), VOCAB, LENGTH, seed, &running, NULL, ret, &s->err);
}

static enum status one(struct scratch *s, const struct place *data, int64_t samples, int64_t seed, struct sequences *ret)
{
	const struct data_source source = {data, data->path, "text"};
	return corpus_calibration(&source, &PLACE(demo), VOCAB, samples, LENGTH, seed, &running, NULL, ret, &s->err);
}

static const int32_t *row(const struct sequences *sequences, int64_t i)
{
	return sequences->ids + i * LENGTH;
}

static void test_one_source_is_the_file_itself(void **state)
{
	struct scratch *s = *state;
	struct sequences mixed, alone;
	SUCCEEDS(mix(s, &(struct mixture_source){FILE_OF(text), 7}, 1, 42, &mixed));
	SUCCEEDS(one(s, &text, 7, 42, &alone));
	assert_int_equal(mixed.count, 7);
	assert_memory_equal(mixed.ids, alone.ids, 7 * LENGTH * sizeof *alone.ids);
	assert_true(mixed.hash == alone.hash);
	sequences_free(&mixed);
	sequences_free(&alone);
}

/* Each source's sequences stand in their own order, and every prefix has its part of each. */
static void test_sources_stand_spread(void **state)
{
	struct scratch *s = *state;
	const struct mixture_source sources[] = {{FILE_OF(tokens), 12}, {FILE_OF(text), 5}, {FILE_OF(tokens), 3}};
	struct sequences mixed, first, third;
	SUCCEEDS(mix(s, sources, 3, 42, &mixed));
	SUCCEEDS(one(s, &tokens, 12, 0, &first));
	SUCCEEDS(one(s, &tokens, 3, 0, &third));
	assert_int_equal(mixed.count, 20);
	assert_int_equal(mixed.length, LENGTH);
	/* Both token files are the demo's: a row of either is told by its content, and the text's by being neither. */
	int64_t of_tokens = 0, of_text = 0, seen[12] = {0};
	for (int64_t i = 0; i < mixed.count; i++) {
		int64_t match = -1;
		for (int64_t j = 0; j < 12 && match < 0; j++)
			if (memcmp(row(&mixed, i), row(&first, j), LENGTH * sizeof(int32_t)) == 0) match = j;
		if (match >= 0) {
			of_tokens++;
			seen[match]++;
		} else {
			of_text++;
		}
		assert_true(fabs((double)of_text - 5.0 / 20 * (double)(i + 1)) < 1);
		assert_true(fabs((double)of_tokens - 15.0 / 20 * (double)(i + 1)) < 2);
	}
	assert_int_equal(of_text, 5);
	for (int j = 0; j < 12; j++)
		assert_int_equal(seen[j], j < 3 ? 2 : 1);
	struct sequences again, other;
	SUCCEEDS(mix(s, sources, 3, 42, &again));
	SUCCEEDS(mix(s, sources, 3, 43, &other));
	assert_true(again.hash == mixed.hash && other.hash != mixed.hash && mixed.hash != first.hash);
	sequences_free(&mixed);
	sequences_free(&first);
	sequences_free(&third);
	sequences_free(&again);
	sequences_free(&other);
}

/* The same text twice gives different windows. */
static void test_sources_have_seeds_of_their_own(void **state)
{
	struct scratch *s = *state;
	const struct mixture_source sources[] = {{FILE_OF(text), 4}, {FILE_OF(text), 4}};
	struct sequences mixed;
	SUCCEEDS(mix(s, sources, 2, 1, &mixed));
	for (int64_t i = 0; i < mixed.count; i++)
		for (int64_t j = 0; j < i; j++)
			assert_memory_not_equal(row(&mixed, i), row(&mixed, j), LENGTH * sizeof(int32_t));
	sequences_free(&mixed);
}

static void test_a_broken_source_is_named(void **state)
{
	struct scratch *s = *state;
	struct sequences mixed;
	scratch_text(s, "short.txt", "too short");
	const struct place short_text = PLACE(scratch_path(s, "short.txt"));
	const struct mixture_source sources[] = {{FILE_OF(tokens), 4}, {FILE_OF(short_text), 4}};
	FAILS(STATUS_INVALID, "short.txt", mix(s, sources, 2, 1, &mixed));
	const struct mixture_source many[] = {{FILE_OF(tokens), 200}, {FILE_OF(text), 4}};
	FAILS(STATUS_INVALID, "calibration.safetensors", mix(s, many, 2, 1, &mixed));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_apportion),
		SCRATCH_TEST(test_one_source_is_the_file_itself),
		SCRATCH_TEST(test_sources_stand_spread),
		SCRATCH_TEST(test_sources_have_seeds_of_their_own),
		SCRATCH_TEST(test_a_broken_source_is_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
