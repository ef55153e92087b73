/* When learning is said to diverge (engine/methods/besa/loss_watch.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "engine/methods/besa/loss_watch.h"

static const double START[] = {1, 2, 4, 8};

/* The verdict on steps of two sequences each whose losses are so many times those of the start. */
static enum loss_watch_verdict judge(struct loss_watch *watch, double first, double second)
{
	loss_watch_step(watch, 0, 2, first * (START[0] + START[1]) / 2);
	loss_watch_step(watch, 2, 2, second * (START[2] + START[3]) / 2);
	return loss_watch_judge(watch);
}

static void test_against_the_same_sequences(void **state)
{
	struct loss_watch watch;
	(void)state;
	loss_watch_begin(&watch, START);
	assert_int_equal(judge(&watch, 1, 1), WATCH_GOES_ON);
	assert_float_equal(watch.began, 3.75, 1e-12);
	assert_float_equal(watch.loss, 3.75, 1e-12);
	/* What is harder is not worse. */
	loss_watch_step(&watch, 3, 1, 8);
	assert_int_equal(loss_watch_judge(&watch), WATCH_GOES_ON);
	assert_float_equal(watch.last, 1, 1e-12);
	assert_int_equal(judge(&watch, 0.5, 0.5), WATCH_IS_BEST);
	assert_float_equal(watch.best, 0.5, 1e-12);
}

static void test_against_the_best(void **state)
{
	struct loss_watch watch;
	(void)state;
	loss_watch_begin(&watch, START);
	assert_int_equal(judge(&watch, 1.2, 1.2), WATCH_GOES_ON); /* noise */
	assert_int_equal(judge(&watch, 1.3, 1.3), WATCH_DIVERGES);
	assert_int_equal(judge(&watch, 0.5, 0.5), WATCH_IS_BEST);
	assert_int_equal(judge(&watch, 0.6, 0.6), WATCH_GOES_ON);
	assert_int_equal(judge(&watch, 0.7, 0.7), WATCH_DIVERGES);
	assert_float_equal(watch.best, 0.5, 1e-12);
	assert_float_equal(watch.last, 0.7, 1e-12);
}

static void test_stuck_above_the_start(void **state)
{
	struct loss_watch watch;
	(void)state;
	loss_watch_begin(&watch, START);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(judge(&watch, 1.1, 1.1), WATCH_GOES_ON);
		assert_int_equal(judge(&watch, 1.01, 1.01), WATCH_GOES_ON);
		assert_int_equal(judge(&watch, 1.1, 1.1), WATCH_GOES_ON);
		assert_int_equal(judge(&watch, 1.05, 1.05), WATCH_DIVERGES);
	}
}

static void test_no_number_diverges(void **state)
{
	struct loss_watch watch;
	(void)state;
	loss_watch_begin(&watch, START);
	assert_int_equal(judge(&watch, 0.5, (double)NAN), WATCH_DIVERGES);
	assert_int_equal(judge(&watch, 0.5, (double)INFINITY), WATCH_DIVERGES);
	assert_int_equal(judge(&watch, 0.5, 0.5), WATCH_IS_BEST); /* and is forgotten */
}

/* Where nothing is lost, there is nothing to be worse than. */
static void test_no_loss(void **state)
{
	static const double none[2] = {0, 0};
	struct loss_watch watch;
	(void)state;
	loss_watch_begin(&watch, none);
	loss_watch_step(&watch, 0, 2, 0);
	assert_int_equal(loss_watch_judge(&watch), WATCH_GOES_ON);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_against_the_same_sequences),
					   cmocka_unit_test(test_against_the_best), cmocka_unit_test(test_stuck_above_the_start),
					   cmocka_unit_test(test_no_number_diverges), cmocka_unit_test(test_no_loss)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
