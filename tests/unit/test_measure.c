/* Timing products (engine/hardware/measure.h): what is told meanwhile, that it stops, and that what was timed in parts adds up.
 * The times themselves are not looked at, but that there are some. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/hardware/measure.h"
#include "engine/sparse/matvec.h"

enum { ROWS = 17, COLS = 70, LINEARS = 5, AT_ONCE = 2, KINDS = 2 };

static const struct measure_size size = {.linears = LINEARS,
					 .at_once = AT_ONCE,
					 .weights = AT_ONCE * ROWS * COLS,
					 .rows = AT_ONCE * ROWS,
					 .most_rows = ROWS,
					 .most_cols = COLS,
					 .words = AT_ONCE * ROWS * 2};

static void count_reports(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	(void)phase, (void)block, (void)blocks, (void)fraction, (void)eta_seconds;
	++*(int *)context;
}

/* Every `kept`-th weight is not zero. */
static void add(struct measure *measure, int kept, int kind)
{
	float weights[ROWS * COLS] = {0};
	for (int i = 0; i < ROWS * COLS; i += kept)
		weights[i] = 1;
	measure_add(measure, weights, DTYPE_F32, ROWS, COLS, kind);
}

/* More linears than are timed at once: the bytes of each are those of its own matrix. */
static void test_in_parts(void **state)
{
	(void)state;
	static const int kept[LINEARS] = {1, 2, 3, 5, 7};
	int64_t bytes[KINDS] = {0};
	int reports = 0;
	struct engine_sink sink = {.context = &reports, .progress = count_reports};
	struct progress progress;
	struct measure *measure;
	struct error err;
	progress_start(&progress, &sink, 1, 1, 0);
	reports = 0;
	assert_int_equal(measure_create(&size, &measure, &err), STATUS_OK);
	for (int i = 0; i < LINEARS; i++) {
		add(measure, kept[i], i % KINDS);
		bytes[i % KINDS] += ROWS * 2 * 8;
		for (int first = 0; first < ROWS; first += SPARSE_BLOCK_ROWS) {
			int last = first + SPARSE_BLOCK_ROWS < ROWS ? first + SPARSE_BLOCK_ROWS : ROWS;
			int values = (last * COLS + kept[i] - 1) / kept[i] - (first * COLS + kept[i] - 1) / kept[i];
			bytes[i % KINDS] += (values * 2 + SPARSE_ALIGNMENT - 1) / SPARSE_ALIGNMENT * SPARSE_ALIGNMENT;
		}
		if (i % AT_ONCE == 1 || i == LINEARS - 1)
			assert_int_equal(measure_run(measure, 2, NULL, &progress, &err), STATUS_OK);
	}
	assert_true(reports >= 2 * LINEARS);
	for (int kind = 0; kind < KINDS; kind++) {
		const struct measured sum = measure_sum(measure, kind);
		assert_int_equal(sum.linears, kind ? 2 : 3);
		assert_int_equal(sum.sparse_bytes, bytes[kind]);
		assert_int_equal(sum.dense_bytes, sum.linears * ROWS * COLS * 2);
		assert_true(sum.dense > 0 && sum.dense < 1 && sum.sparse > 0 && sum.sparse < 1);
	}
	assert_int_equal(measure_sum(measure, -1).sparse_bytes, bytes[0] + bytes[1]);
	assert_true(measure_copy_rate(measure) > 1e6);
	measure_free(measure);
}

static void test_stops(void **state)
{
	(void)state;
	atomic_bool stop = true;
	struct measure *measure;
	struct error err;
	assert_int_equal(measure_create(&size, &measure, &err), STATUS_OK);
	add(measure, 2, 0);
	assert_int_equal(measure_run(measure, 1, &stop, NULL, &err), STATUS_CANCELLED);
	measure_free(measure);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_in_parts), cmocka_unit_test(test_stops)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
