/* The threads that share out work: all of it is done, once, whoever does it, with more of them than there are cores too. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
#include <omp.h>

#include "engine/compute/cpu/crew.h"

enum { MOST = 1000, CALLS = 3000 };

struct counting {
	int64_t n, chunk;
	int threads, omp_threads;
	uint8_t *times; /* [n] */
	atomic_int *wrong;
};

static void count(const void *context, struct share share)
{
	const struct counting *c = context;
	if (share.first < 0 || share.first >= share.last || share.last > c->n || share.first % c->chunk ||
	    share.last - share.first > c->chunk || share.thread < 0 || share.thread >= c->threads ||
	    omp_get_max_threads() != c->omp_threads)
		atomic_fetch_add(c->wrong, 1);
	for (int64_t i = share.first; i < share.last; i++)
		c->times[i]++;
}

static void count_calls(int threads)
{
	uint8_t times[MOST];
	atomic_int wrong = 0;
	struct crew *crew = crew_create(threads);
	assert_non_null(crew);
	srand(1);
	for (int call = 0; call < CALLS; call++) {
		struct counting counting = {rand() % MOST, 1 + rand() % (call % 2 ? 4 : MOST), threads, 1, times, &wrong};
		memset(times, 0, sizeof times);
		crew_run(crew, counting.n, counting.chunk, count, &counting);
		assert_int_equal(wrong, 0);
		for (int64_t i = 0; i < counting.n; i++)
			assert_int_equal(times[i], 1);
	}
	crew_free(crew);
}

static void test_one_thread(void **state)
{
	(void)state;
	count_calls(1);
}

static void test_several_threads(void **state)
{
	(void)state;
	count_calls(2);
	count_calls(3);
}

/* Of which some have no core while they hold a chunk, and are lent one. */
static void test_more_threads_than_cores(void **state)
{
	(void)state;
	count_calls((int)sysconf(_SC_NPROCESSORS_ONLN) + 3);
}

static void rest(const void *context, struct share share)
{
	(void)share;
	usleep(200);
	atomic_fetch_add(*(atomic_int *const *)context, 1);
}

/* Helpers that sleep in between wake for the next, and who waits for long sleeps until they are done. */
static void test_sleeps(void **state)
{
	(void)state;
	atomic_int done = 0, *counter = &done;
	struct crew *crew = crew_create(2);
	assert_non_null(crew);
	for (int call = 0; call < 50; call++) {
		usleep(500);
		crew_run(crew, 5, 1, rest, &counter);
		assert_int_equal(done, 5 * (call + 1));
	}
	crew_free(crew);
}

static void test_threads_of_openmp_stay(void **state)
{
	(void)state;
	int before = omp_get_max_threads();
	atomic_int done = 0, *counter = &done;
	struct crew *crew = crew_create(2);
	assert_non_null(crew);
	omp_set_num_threads(3);
	crew_run(crew, 4, 1, rest, &counter);
	assert_int_equal(omp_get_max_threads(), 3);
	omp_set_num_threads(before);
	crew_free(crew);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_one_thread),
		cmocka_unit_test(test_several_threads),
		cmocka_unit_test(test_more_threads_than_cores),
		cmocka_unit_test(test_sleeps),
		cmocka_unit_test(test_threads_of_openmp_stay),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
