/* --device-memory: a limit is kept, and a job that has less puts its hidden states elsewhere before it fits no more. Nothing is
 * computed here but by dry runs, on the emulated CUDA backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cuda/index.h"
#include "engine/prune/rehearsal.h"

/* A limit is kept, an operation's failure names it, and freed memory can be had again. */
static void test_limit(void **state)
{
	struct backend *limited;
	struct error err;
	void *first, *second;
	size_t free_bytes, total, limit = WORKSPACE_BYTES + ((size_t)12 << 20);
	(void)state;
	assert_int_equal(backend_cuda_create(limit, &limited, &err), STATUS_OK);
	assert_int_equal(limited->ops->alloc(limited, (size_t)6 << 20, &first), STATUS_OK);
	/* 6 MB are left; 76/32 of them are the operations'. */
	assert_int_equal(limited->ops->alloc(limited, (size_t)5 << 20, &second), STATUS_NO_MEMORY);
	assert_non_null(strstr(limited->error.message, "5242880"));
	limited->ops->release(limited, first);
	assert_int_equal(limited->ops->alloc(limited, (size_t)8 << 20, &second), STATUS_OK); /* what was kept is given back */
	assert_int_equal(limited->ops->memory(limited, &free_bytes, &total), STATUS_OK);
	assert_true(total == limit && free_bytes == (size_t)4 << 20);
	assert_int_equal(limited->memory.most, WORKSPACE_BYTES + ((size_t)8 << 20));
	limited->ops->release(limited, second);
	assert_int_equal(limited->memory.now, WORKSPACE_BYTES);
	backend_destroy(limited);
}

/* Small parts come in grains of 512 bytes, large ones in whole pages of the device. */
static void test_rounding(void **state)
{
	static const size_t asked[] = {0, 1, 513, (size_t)1 << 20, ((size_t)1 << 20) + 1, (size_t)5 << 20};
	static const size_t counted[] = {512, 512, 1024, (size_t)1 << 20, (size_t)2 << 20, (size_t)6 << 20};
	struct backend *backend;
	struct error err;
	(void)state;
	assert_int_equal(backend_cuda_create(0, &backend, &err), STATUS_OK);
	size_t before = backend->memory.now;
	for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
		void *memory;
		assert_int_equal(backend->ops->alloc(backend, asked[i], &memory), STATUS_OK);
		assert_int_equal(backend->memory.now - before, counted[i]);
		backend->ops->release(backend, memory);
	}
	backend_destroy(backend);
}

static void test_streams_leave(void **state)
{
	static const atomic_bool running = false;
	const struct spec spec = {.method = METHOD_BESA,
				  .sparsity = 0.5,
				  .besa = {.candidates = 101, .rows_per_group = 1, .batch_size = 1, .epochs = 1},
				  .calibration = {.n_sources = 1, .samples = 512, .sequence_length = 256}};
	const struct engine_job job = {.spec = &spec, .stop = &running};
	struct error err;
	struct model model;
	struct pruning pruning = {.job = &job, .model = &model, .compute_type = DTYPE_BF16, .device_streams = 2, .orders = true};
	int last = 2, with_orders = 0, without = 0;
	bool seen[3] = {false}, refused = false;
	(void)state;
	assert_int_equal(model_open(&PLACE("demo/tiny-llama"), NULL, &model, &err), STATUS_OK);
	for (size_t limit = (size_t)1 << 30; limit > WORKSPACE_BYTES + ((size_t)4 << 20); limit -= (size_t)10 << 20) {
		struct rehearsal need;
		assert_int_equal(backend_cuda_create(limit, &pruning.backend, &err), STATUS_OK);
		size_t available;
		assert_int_equal(rehearsal_available(pruning.backend, &available, &err), STATUS_OK);
		if (rehearse_largest(&pruning, available, &need, &err) != STATUS_OK) fail_msg("%zu bytes: %s", limit, err.message);
		assert_int_equal(available, limit);
		assert_true(need.device_streams <= last && (need.fits || need.device_streams == 0));
		assert_true(need.fits ? need.peak <= limit && !refused : need.peak > limit - limit / 16);
		assert_int_equal(need.host, (size_t)(2 - need.device_streams) * 512 * 256 * (size_t)model.config.hidden * 4);
		with_orders += need.fits && need.orders;
		without += need.fits && !need.orders; /* where they would have moved a stream, or the job would not fit */
		last = need.device_streams;
		seen[last] = seen[last] || need.fits;
		refused = refused || !need.fits;
		backend_destroy(pruning.backend);
	}
	assert_true(seen[0] && seen[1] && seen[2] && refused);
	assert_true(with_orders > 0 && without > 0);
	model_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_rounding),
		cmocka_unit_test(test_streams_leave),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
