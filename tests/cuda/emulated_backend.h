/* What the tests of the emulated device share: a backend on it, for a group of tests. */
#ifndef BESAD_TESTS_EMULATED_BACKEND_H
#define BESAD_TESTS_EMULATED_BACKEND_H

#include "engine/compute/backend.h"
#include "tests/cuda/emulator/faults.h"

static struct backend *backend;
#define OPS (backend->ops)
#define RUN(call)                                                                                                                  \
	do {                                                                                                                       \
		if ((call) != STATUS_OK) fail_msg("%s: %s", #call, backend->error.message);                                        \
	} while (0)

static int open_backend(void **state)
{
	struct error err;
	(void)state;
	if (backend_cuda_create(0, &backend, &err) != STATUS_OK) fail_msg("%s", err.message);
	return 0;
}

static int close_backend(void **state)
{
	(void)state;
	emulator_faults = (struct emulator_faults){.choices_add_parts = true};
	backend_destroy(backend);
	return 0;
}

#endif
