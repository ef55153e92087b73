/* From what was measured of blocks to how many weights each loses (engine/prune/allotment.h), against numbers by hand. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/prune/allotment.h"

enum { MOST = 40 };

static void near(double value, double expected)
{
	if (!(fabs(value - expected) <= 1e-9)) fail_msg("%.12f, and not %.12f", value, expected);
}

static void has_mean(const double *shares, int blocks, double target)
{
	double sum = 0;
	for (int b = 0; b < blocks; b++)
		sum += shares[b];
	near(sum / blocks, target);
}

/* With outliers o of blocks: n = (o − least) / (most − least), share = target + 2 · 0.08 · (mean n − n). */
static void test_outliers(void **state)
{
	(void)state;
	const double outliers[] = {0.01, 0.02, 0.04};
	double shares[3];
	shares_by_outliers(outliers, 3, 0.6, 0.08, shares);
	near(shares[0], 0.6 + 0.16 * 4 / 9);
	near(shares[1], 0.6 + 0.16 * 1 / 9);
	near(shares[2], 0.6 - 0.16 * 5 / 9);
}

/* Three quarters of the way to 1 is as far as a share goes; then all go less far. */
static void test_outliers_at_the_edge(void **state)
{
	(void)state;
	const double outliers[] = {1, 1, 1, 0};
	double shares[4];
	shares_by_outliers(outliers, 4, 0.9, 0.08, shares);
	near(shares[3], 0.975); /* not 0.9 + 0.16 · 3/4 */
	for (int b = 0; b < 3; b++)
		near(shares[b], 0.875);
	const double fewer[] = {1, 0, 0, 0};
	shares_by_outliers(fewer, 4, 0.1, 0.08, shares);
	near(shares[0], 0.025);
	near(shares[1], 0.125);
}

static void test_outliers_alike(void **state)
{
	(void)state;
	const double outliers[] = {0.3, 0.3};
	double shares[2];
	shares_by_outliers(outliers, 2, 0.6, 0.08, shares);
	near(shares[0], 0.6);
	near(shares[1], 0.6);
	shares_by_outliers(outliers, 1, 0.6, 0.08, shares);
	near(shares[0], 0.6);
}

static void test_bounds(void **state)
{
	(void)state;
	struct share_bounds bounds = share_bounds(0.6, 0.08);
	near(bounds.low, 0.52);
	near(bounds.high, 0.68);
	bounds = share_bounds(0.9, 0.5);
	near(bounds.low, 0.4);
	near(bounds.high, 0.975);
	bounds = share_bounds(0.04, 0.5);
	near(bounds.low, 0.01);
	bounds = share_bounds(0, 0.08);
	near(bounds.low, 0);
}

/* Losses that grow by e² over the width of 0.2, one e times the other: equal slopes are 0.1 apart. */
static void test_losses(void **state)
{
	(void)state;
	const struct share_bounds bounds = {0.5, 0.7};
	const double low[] = {1, M_E}, high[] = {M_E * M_E, M_E * M_E * M_E};
	const double *const at[] = {low, high};
	double shares[2];
	shares_by_losses(at, 2, 0.6, bounds, shares);
	near(shares[0], 0.65);
	near(shares[1], 0.55);
}

/* A block whose loss is far above the others' is at its lower bound, and the rest is divided among the others. */
static void test_losses_at_the_bounds(void **state)
{
	(void)state;
	const struct share_bounds bounds = {0.5, 0.7};
	const double low[] = {1, 1e6, 1}, high[] = {M_E * M_E, 1e6 * M_E * M_E, M_E * M_E};
	const double *const at[] = {low, high};
	double shares[3];
	shares_by_losses(at, 3, 0.6, bounds, shares);
	near(shares[0], 0.65);
	near(shares[1], 0.5);
	near(shares[2], 0.65);
}

static double loss_at(double low, double high, struct share_bounds bounds, double share)
{
	return low * pow(high / low, (share - bounds.low) / (bounds.high - bounds.low));
}

/* No other shares of the same mean lose less: tried in steps around what was found. */
static void test_losses_are_least(void **state)
{
	(void)state;
	const struct share_bounds bounds = {0.52, 0.68};
	const double low[] = {0.05, 0.02, 0.11}, high[] = {0.2, 0.3, 0.25};
	const double *const at[] = {low, high};
	double shares[3], found = 0;
	shares_by_losses(at, 3, 0.6, bounds, shares);
	has_mean(shares, 3, 0.6);
	for (int b = 0; b < 3; b++)
		found += loss_at(low[b], high[b], bounds, shares[b]);
	for (double x = bounds.low; x <= bounds.high; x += 0.001)
		for (double y = bounds.low; y <= bounds.high; y += 0.001) {
			double z = 1.8 - x - y;
			if (z < bounds.low || z > bounds.high) continue;
			assert_true(loss_at(low[0], high[0], bounds, x) + loss_at(low[1], high[1], bounds, y) +
					    loss_at(low[2], high[2], bounds, z) >=
				    found - 1e-12);
		}
}

/* A loss that does not rise, or is nothing, is no reason for what is not a number. */
static void test_losses_without_a_slope(void **state)
{
	(void)state;
	const struct share_bounds bounds = share_bounds(0.6, 0.08);
	const double low[] = {0, 0.1, 0.2, 0.1}, high[] = {0, 0.1, 0.15, 0.3};
	const double *const at[] = {low, high};
	double shares[4];
	shares_by_losses(at, 4, 0.6, bounds, shares);
	has_mean(shares, 4, 0.6);
	near(shares[0], 0.68); /* nothing is lost by it */
	near(shares[3], 0.52);
	for (int b = 0; b < 4; b++)
		assert_true(shares[b] >= bounds.low && shares[b] <= bounds.high);
}

static void test_losses_without_room(void **state)
{
	(void)state;
	const double low[] = {0.1, 0.2}, high[] = {0.1, 0.2};
	const double *const at[] = {low, high};
	double shares[2];
	shares_by_losses(at, 2, 0.6, share_bounds(0.6, 0), shares);
	near(shares[0], 0.6);
	near(shares[1], 0.6);
}

static int64_t sum_of(const int64_t *zeros, int blocks)
{
	int64_t sum = 0;
	for (int b = 0; b < blocks; b++)
		sum += zeros[b];
	return sum;
}

static void test_zeros(void **state)
{
	(void)state;
	struct error err;
	const double shares[] = {0.51, 0.6, 0.69};
	int64_t zeros[MOST];
	assert_int_equal(shares_to_zeros(shares, 3, 0.6, 1001, zeros, &err), STATUS_OK); /* 510.57, 600.67 and 690.77 of 1802 */
	assert_int_equal(sum_of(zeros, 3), 1802);
	assert_int_equal(zeros[0], 510);
	assert_int_equal(zeros[1], 601);
	assert_int_equal(zeros[2], 691);
	const double none[] = {0, 0};
	assert_int_equal(shares_to_zeros(none, 2, 0, 1001, zeros, &err), STATUS_OK);
	assert_int_equal(sum_of(zeros, 2), 0);
	const double wrong[] = {0.5, NAN};
	assert_int_equal(shares_to_zeros(wrong, 2, 0.5, 1001, zeros, &err), STATUS_INTERNAL);
}

/* As many weights as the largest models have. */
static void test_zeros_of_many(void **state)
{
	(void)state;
	struct error err;
	double outliers[MOST], shares[MOST];
	int64_t zeros[MOST];
	const int64_t params = 855638016;
	for (int b = 0; b < MOST; b++)
		outliers[b] = 0.01 + 0.03 * ((b * 7919) % MOST) / MOST;
	for (double target = 0.05; target < 0.96; target += 0.0501) {
		shares_by_outliers(outliers, MOST, target, 0.08, shares);
		has_mean(shares, MOST, target);
		assert_int_equal(shares_to_zeros(shares, MOST, target, params, zeros, &err), STATUS_OK);
		assert_int_equal(sum_of(zeros, MOST), llround(target * (double)params * MOST));
		for (int b = 0; b < MOST; b++)
			assert_true(fabs((double)zeros[b] - shares[b] * (double)params) <= 2);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_outliers),
		cmocka_unit_test(test_outliers_at_the_edge),
		cmocka_unit_test(test_outliers_alike),
		cmocka_unit_test(test_bounds),
		cmocka_unit_test(test_losses),
		cmocka_unit_test(test_losses_at_the_bounds),
		cmocka_unit_test(test_losses_are_least),
		cmocka_unit_test(test_losses_without_a_slope),
		cmocka_unit_test(test_losses_without_room),
		cmocka_unit_test(test_zeros),
		cmocka_unit_test(test_zeros_of_many),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
