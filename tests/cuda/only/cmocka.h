/* Stands in for cmocka where there is none: what tests/backend/ uses of it, for `make cuda-only`. The first failure ends its
 * test. */
#ifndef BESAD_ONLY_CMOCKA_H
#define BESAD_ONLY_CMOCKA_H

#include <setjmp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct CMUnitTest {
	const char *name;
	void (*run)(void **state);
};

enum { CMOCKA_PASSED, CMOCKA_FAILED, CMOCKA_SKIPPED };
extern jmp_buf cmocka_end; /* of the running test */

#define cmocka_leave(how, ...)                                                                                                     \
	do {                                                                                                                       \
		fprintf(stderr, __VA_ARGS__);                                                                                      \
		fprintf(stderr, " (%s:%d)\n", __FILE__, __LINE__);                                                                 \
		longjmp(cmocka_end, how);                                                                                          \
	} while (0)
#define fail_msg(...) cmocka_leave(CMOCKA_FAILED, __VA_ARGS__)
#define skip() cmocka_leave(CMOCKA_SKIPPED, "skipped")
#define cmocka_expect(condition, text)                                                                                             \
	do {                                                                                                                       \
		if (!(condition)) fail_msg("not so: %s", text);                                                                    \
	} while (0)
#define assert_true(x) cmocka_expect(x, #x)
#define assert_false(x) cmocka_expect(!(x), "not " #x)
#define assert_null(x) cmocka_expect((x) == NULL, #x " is NULL")
#define assert_non_null(x) cmocka_expect((x) != NULL, #x " is not NULL")
#define assert_ptr_equal(a, b) cmocka_expect((const void *)(a) == (const void *)(b), #a " == " #b)
#define assert_int_equal(a, b) cmocka_expect((intmax_t)(a) == (intmax_t)(b), #a " == " #b)
#define assert_int_not_equal(a, b) cmocka_expect((intmax_t)(a) != (intmax_t)(b), #a " != " #b)
#define assert_memory_equal(a, b, n) cmocka_expect(memcmp(a, b, n) == 0, #a " is " #b)
#define assert_in_range(x, low, high)                                                                                              \
	cmocka_expect((uintmax_t)(x) >= (low) && (uintmax_t)(x) <= (high), #x " in [" #low ", " #high "]")

#define cmocka_unit_test(f)                                                                                                        \
	{                                                                                                                          \
#f, f                                                                                                              \
	}
#define cmocka_run_group_tests(tests, setup, teardown) cmocka_run(tests, sizeof(tests) / sizeof *(tests), setup, teardown)

/* Runs them; the number of failures. */
int cmocka_run(const struct CMUnitTest *tests, size_t n, int (*setup)(void **), int (*teardown)(void **));

#endif
