/* How unlike two texts are (engine/text/divergence.h), against divergences by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/text/divergence.h"

enum { HALF = DIVERGENCE_TEXT / 2, VOCAB = 12 };

/* `count` tokens that go round from `from` to below `to`. */
static void fill(int32_t *ids, int64_t count, int32_t from, int32_t to)
{
	for (int64_t i = 0; i < count; i++)
		ids[i] = from + (int32_t)(i % (to - from));
}

static double unlike(int32_t *sample, int64_t given, int32_t *text, int64_t whole)
{
	const struct sequences a = {.ids = sample, .count = 1, .length = given}, b = {.ids = text, .count = whole / 2, .length = 2};
	struct error err;
	double found;
	assert_int_equal(token_divergence(&a, &b, VOCAB, &found, &err), STATUS_OK);
	return found;
}

static void near(double value, double expected)
{
	if (!(fabs(value - expected) <= 1e-12)) fail_msg("%.15f, and not %.15f", value, expected);
}

static void test_divergences(void **state)
{
	(void)state;
	static int32_t sample[2 * HALF], text[2 * HALF];
	fill(text, 2 * HALF, 0, 4);
	fill(sample, 2 * HALF, 0, 4);
	near(unlike(sample, HALF, text, 2 * HALF), 0);
	fill(sample, 2 * HALF, 4, 8); /* no token in common */
	near(unlike(sample, HALF, text, 2 * HALF), 1);
	near(unlike(sample, 2 * HALF, text, 2 * HALF), 1); /* of a longer one, as much as half the text has */
	/* p = (¼, ¼, ¼, ¼), q = (½, ½, 0, 0), m = (3/8, 3/8, 1/8, 1/8) */
	fill(sample, 2 * HALF, 0, 2);
	near(unlike(sample, HALF, text, 2 * HALF), (0.5 * log2(0.25 / 0.375) + 0.5 * log2(0.25 / 0.125) + log2(0.5 / 0.375)) / 2);
	/* A text whose halves have nothing in common is as far from itself. */
	fill(text, HALF, 4, 8);
	fill(text + HALF, HALF, 8, 12);
	near(unlike(sample, HALF, text, 2 * HALF), 0);
}

static void test_too_short(void **state)
{
	(void)state;
	static int32_t sample[2 * HALF], text[2 * HALF];
	fill(sample, 2 * HALF, 0, 1);
	fill(text, 2 * HALF, 1, 2);
	near(unlike(sample, DIVERGENCE_SAMPLE, text, 2 * HALF), 1);
	assert_true(isnan(unlike(sample, DIVERGENCE_SAMPLE - 1, text, 2 * HALF)));
	assert_true(isnan(unlike(sample, HALF, text, 2 * HALF - 2)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_divergences), cmocka_unit_test(test_too_short)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
