/* The thread beside the walk: its stages run in order, each can be waited for, and errors come back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <sched.h>

#include "engine/prune/background.h"

struct work {
	atomic_int first, second; /* times that the stages began */
	atomic_bool hold_first, hold_second;
	bool fail_first, fail_second;
};

static void wait_while(atomic_bool *hold)
{
	while (atomic_load(hold))
		sched_yield();
}

static enum status first(void *context, struct error *err)
{
	struct work *work = context;
	atomic_fetch_add(&work->first, 1);
	wait_while(&work->hold_first);
	return work->fail_first ? error_set(err, STATUS_IO, "the first failed") : STATUS_OK;
}

static enum status second(void *context, struct error *err)
{
	struct work *work = context;
	atomic_fetch_add(&work->second, 1);
	wait_while(&work->hold_second);
	return work->fail_second ? error_set(err, STATUS_NOT_FOUND, "the second failed") : STATUS_OK;
}

static void test_stages_in_order(void **state)
{
	struct background *background;
	struct error err;
	struct work work = {.hold_first = true, .hold_second = true};
	(void)state;
	assert_int_equal(background_create(&background, &err), STATUS_OK);
	assert_int_equal(background_wait_second(background, &err), STATUS_OK);
	for (int round = 1; round <= 100; round++) {
		atomic_store(&work.hold_first, true);
		atomic_store(&work.hold_second, true);
		background_start(background, first, second, &work);
		assert_false(background_first_over(background));
		assert_int_equal(atomic_load(&work.second), round - 1);
		atomic_store(&work.hold_first, false);
		assert_int_equal(background_wait_first(background, &err), STATUS_OK);
		assert_true(background_first_over(background));
		atomic_store(&work.hold_second, false);
		assert_int_equal(background_wait_second(background, &err), STATUS_OK);
		assert_int_equal(atomic_load(&work.first), round);
		assert_int_equal(atomic_load(&work.second), round);
	}
	background_destroy(background);
	background_destroy(NULL);
}

static void test_errors(void **state)
{
	struct background *background;
	struct error err;
	struct work work = {.fail_first = true, .fail_second = true};
	(void)state;
	assert_int_equal(background_create(&background, &err), STATUS_OK);
	background_start(background, first, second, &work);
	for (int twice = 0; twice < 2; twice++) {
		assert_int_equal(background_wait_first(background, &err), STATUS_IO);
		assert_non_null(strstr(err.message, "the first failed"));
	}
	assert_int_equal(background_wait_second(background, &err), STATUS_NOT_FOUND);
	assert_non_null(strstr(err.message, "the second failed"));
	work.fail_second = false;
	background_start(background, NULL, second, &work);
	assert_int_equal(background_wait_first(background, &err), STATUS_OK);
	assert_int_equal(background_wait_second(background, &err), STATUS_OK);
	assert_int_equal(atomic_load(&work.first), 1);
	background_destroy(background);
}

/* What runs when it is destroyed is run to its end. */
static void test_destroy_waits(void **state)
{
	(void)state;
	for (int round = 0; round < 100; round++) {
		struct background *background;
		struct error err;
		struct work work = {0};
		assert_int_equal(background_create(&background, &err), STATUS_OK);
		background_start(background, first, second, &work);
		background_destroy(background);
		assert_int_equal(atomic_load(&work.second), 1);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_stages_in_order),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_destroy_waits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
