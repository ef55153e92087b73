/* What the conformance programs need and `make cuda-only` leaves out: a runner of tests, and a CPU backend that says there is
 * none. */
#include <cmocka.h>

#include "engine/compute/backend.h"

jmp_buf cmocka_end;

int cmocka_run(const struct CMUnitTest *tests, size_t n, int (*setup)(void **), int (*teardown)(void **))
{
	static const char *const words[] = {"      OK", " FAILED ", " SKIPPED"};
	volatile int failed = 0;
	void *state = NULL;
	if (setup && setup(&state) != 0) return 1;
	for (volatile size_t i = 0; i < n; i++) {
		int how = setjmp(cmocka_end);
		if (how == CMOCKA_PASSED) tests[i].run(&state);
		fprintf(stderr, "[ %s ] %s\n", words[how], tests[i].name);
		failed += how == CMOCKA_FAILED;
	}
	if (teardown) (void)teardown(&state);
	fprintf(stderr, "%zu tests, %d failed\n", n, failed);
	return failed;
}

enum status backend_cpu_create(int threads, struct backend **ret, struct error *err)
{
	(void)threads;
	(void)ret;
	return error_set(err, STATUS_UNSUPPORTED, "this program was built for a GPU alone");
}
