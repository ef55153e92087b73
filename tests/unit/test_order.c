/* The rank correlation of an order with what it costs (engine/methods/one_shot/order.h). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>

#include "engine/methods/one_shot/order.h"

#define CORRELATION(...) order_correlation((const double[]){__VA_ARGS__}, (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)))

static void test_by_order(void **state)
{
	(void)state;
	assert_float_equal(CORRELATION(1, 2, 3, 10, 100, 1000), 1, 1e-12);
	assert_float_equal(CORRELATION(5, 4, 0, -1, -2, -3), -1, 1e-12);
	/* 1 − 6·Σd² / (n·(n² − 1)), with Σd² = 2 and 48. */
	assert_float_equal(CORRELATION(1, 2, 3, 4, 6, 5), 0.9428571428571428, 1e-12);
	assert_float_equal(CORRELATION(3, 5, 6, 8, 1, 2), -0.37142857142857144, 1e-12);
	assert_float_equal(CORRELATION(2, 1), -1, 1e-12);
}

/* Equal ones are in order: weights that are zero already cost nothing, whatever ranks them. */
static void test_ties(void **state)
{
	(void)state;
	assert_float_equal(CORRELATION(7, 7), 1, 1e-12);
	assert_float_equal(CORRELATION(0, 1, 1, 2), 1, 1e-12);
	assert_float_equal(CORRELATION(0, 0, 0, 0, 0, 1), 1, 1e-12);
}

static void test_no_number(void **state)
{
	(void)state;
	assert_true(isnan(CORRELATION(1, NAN, 3)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_by_order),
		cmocka_unit_test(test_ties),
		cmocka_unit_test(test_no_number),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
