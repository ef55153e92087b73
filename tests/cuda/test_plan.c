/* The memory plan against what is really allocated: the engine's objects of one block on the emulated CUDA backend. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "cuda/index.h"
#include "cuda/plan.h"
#include "engine/methods/besa/learn.h"

enum { TOKENS = 48, SEQUENCES = 6, LEARN_BATCH = 1, PASS_BATCH = 3, PROCESSORS = 4 /* the emulator's */ };

static struct backend *backend;

static size_t used(void)
{
	size_t free_bytes, total;
	assert_int_equal(backend->ops->memory(backend, &free_bytes, &total), STATUS_OK);
	return total - free_bytes;
}

static struct plan_sizes sizes_of(const struct model_config *c, bool by_row, enum dtype compute_type)
{
	return (struct plan_sizes){.hidden = c->hidden,
				   .intermediate = c->intermediate,
				   .heads = c->heads,
				   .kv_heads = c->kv_heads,
				   .head_dim = c->head_dim,
				   .vocab = c->vocab,
				   .experts = c->experts,
				   .experts_per_token = c->experts_per_token,
				   .qk_norm = c->qk_norm,
				   .plain_mlp = !c->gated_mlp,
				   .layer_norm = c->norm.kind == NORM_LAYER,
				   .output_norms = c->output_norms,
				   .local_rope = c->local_rope.kind != ROPE_NONE,
				   .sequences = SEQUENCES,
				   .tokens = TOKENS,
				   .learn_batch = LEARN_BATCH,
				   .pass_batch = PASS_BATCH,
				   .candidates = 101,
				   .by_row = by_row,
				   .records = !c->experts,
				   .file_type = DTYPE_BF16,
				   .compute_type = compute_type,
				   .streams_on_device = 2,
				   .processors = PROCESSORS};
}

/* One of tests/data/families as a model's directory. */
static char *family_directory(const char *family, const char *name)
{
	char target[512], link[128], *directory = strdup("/tmp/besad-plan-XXXXXX"), *here = getcwd(NULL, 0);
	assert_true(directory && here && mkdtemp(directory));
	snprintf(target, sizeof target, "%s/tests/data/families/%s/model.safetensors", here, family);
	snprintf(link, sizeof link, "%s/model.safetensors", directory);
	assert_int_equal(symlink(target, link), 0);
	snprintf(target, sizeof target, "%s/tests/data/families/%s/%s.json", here, family, name);
	snprintf(link, sizeof link, "%s/config.json", directory);
	assert_int_equal(symlink(target, link), 0);
	free(here);
	return directory;
}

static void family_directory_free(char *directory)
{
	static const char *const names[] = {"model.safetensors", "config.json"};
	char link[128];
	for (int i = 0; i < 2; i++) {
		snprintf(link, sizeof link, "%s/%s", directory, names[i]);
		unlink(link);
	}
	rmdir(directory);
	free(directory);
}

/* Allocations are rounded up; the plan rounds too, but not each where the engine makes several of one line. */
static void expect_bytes(const char *what, size_t planned, size_t real)
{
	if (planned < real || planned > real + real / 100 + 8192)
		fail_msg("%s: %zu bytes planned, %zu allocated", what, planned, real);
}

static void compare(const char *directory, bool by_row, enum dtype compute_type)
{
	struct model model;
	struct block block;
	struct mask mask;
	struct besa besa;
	struct activations activations;
	struct stream stream;
	struct error err;
	struct plan plan;
	struct spec spec = {.sparsity = 0.5,
			    .besa = {.granularity = by_row ? GRANULARITY_ROW : GRANULARITY_LAYER,
				     .candidates = 101,
				     .batch_size = LEARN_BATCH,
				     .epochs = 1}};
	assert_int_equal(backend_cuda_create(0, &backend, &err),
			 STATUS_OK); /* a new one: what was kept may be a little larger than asked for */
	assert_int_equal(model_open(&PLACE(directory), NULL, &model, &err), STATUS_OK);
	struct plan_sizes sizes = sizes_of(&model.config, by_row, compute_type);
	plan_predict(&sizes, &plan);

	size_t before = used();
	assert_int_equal(block_create(&model, backend, compute_type, TOKENS, &block, &err), STATUS_OK);
	assert_int_equal(block_load(&block, &model, 0, &err), STATUS_OK);
	expect_bytes("weights", plan.weights, used() - before);
	before = used();
	assert_int_equal(block_add_spare(&block, &err), STATUS_OK);
	expect_bytes("a second block", plan.spare, used() - before);
	before = used();
	assert_int_equal(mask_create(&block, &mask, &err), STATUS_OK);
	expect_bytes("ranks", plan.ranks, used() - before);
	before = used();
	assert_int_equal(besa_create(&spec, &block, &mask, TOKENS, &besa, &err), STATUS_OK);
	assert_int_equal(activations_create(&block, PASS_BATCH, TOKENS, false, &activations, &err), STATUS_OK);
	expect_bytes("learning and activations", plan.learning + plan.activations, used() - before);
	before = used();
	assert_int_equal(stream_create(backend, SEQUENCES, TOKENS, model.config.hidden, PASS_BATCH, &stream, &err), STATUS_OK);
	size_t one = used() - before;
	sizes.streams_on_device = 1;
	struct plan less;
	plan_predict(&sizes, &less);
	size_t staging = 2 * (size_t)(PASS_BATCH * TOKENS * model.config.hidden) * 4;
	expect_bytes("a stream", plan.streams - less.streams, one - staging);

	stream_release(&stream);
	activations_release(&activations, backend);
	besa_release(&besa);
	mask_release(&mask);
	block_release(&block);
	model_close(&model);
	backend_destroy(backend);
}

static void test_plan_is_what_is_allocated(void **state)
{
	(void)state;
	compare("demo/tiny-llama", true, DTYPE_BF16);
	compare("demo/tiny-llama", true, DTYPE_F32);
	compare("demo/tiny-llama", false, DTYPE_BF16);
	char *experts = family_directory("mixtral", "classic");
	compare(experts, true, DTYPE_BF16);
	compare(experts, true, DTYPE_F32);
	compare(experts, false, DTYPE_BF16);
	family_directory_free(experts);
}

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
	limited->ops->release(limited, second);
	backend_destroy(limited);
}

/* The backend's answer: streams leave a device that has less, before a job fits no more. */
static void test_footprint(void **state)
{
	struct error err;
	struct model model;
	struct footprint need;
	int last = 2;
	(void)state;
	assert_int_equal(model_open(&PLACE("demo/tiny-llama"), NULL, &model, &err), STATUS_OK);
	struct workload workload = {.config = &model.config,
				    .file_type = DTYPE_BF16,
				    .compute_type = DTYPE_BF16,
				    .sequences = 512,
				    .tokens = 256,
				    .learn_batch = 1,
				    .pass_batch = 4,
				    .candidates = 101,
				    .by_row = true};
	bool seen[3] = {false}, refused = false;
	for (size_t limit = (size_t)1 << 30; limit >= WORKSPACE_BYTES + ((size_t)1 << 20); limit -= (size_t)10 << 20) {
		assert_int_equal(backend_cuda_create(limit, &backend, &err), STATUS_OK);
		assert_int_equal(backend->ops->footprint(backend, &workload, &need), STATUS_OK);
		assert_int_equal(need.available, limit);
		assert_true(need.streams_on_device <= last && (need.fits || need.streams_on_device == 0));
		assert_true(!need.fits || (need.peak <= limit && !refused));
		last = need.streams_on_device;
		seen[last] = seen[last] || need.fits;
		refused = refused || !need.fits;
		backend_destroy(backend);
	}
	assert_true(seen[0] && seen[1] && seen[2] && refused);
	model_close(&model);
}

/* LLaMA-2-70B within 24 GB: hidden states do not all fit on the device, the rest does. */
static void test_70b_in_24_gb(void **state)
{
	struct plan_sizes sizes = {.hidden = 8192,
				   .intermediate = 28672,
				   .heads = 64,
				   .kv_heads = 8,
				   .head_dim = 128,
				   .vocab = 32000,
				   .sequences = 128,
				   .tokens = 2048,
				   .learn_batch = 1,
				   .pass_batch = 4,
				   .candidates = 101,
				   .by_row = true,
				   .file_type = DTYPE_BF16,
				   .compute_type = DTYPE_BF16,
				   .processors = 132};
	struct plan plan;
	(void)state;
	assert_true(plan_fit(&sizes, (size_t)140 << 30, &plan) && sizes.streams_on_device == 2);
	assert_true(plan_fit(&sizes, (size_t)24 << 30, &plan) && sizes.streams_on_device < 2);
	assert_true(plan.peak <= (size_t)24 << 30);
	assert_true(plan.weights + plan.ranks > (size_t)4800 << 20); /* 856 million weights, 2 + 2 + 2 bytes each */
	assert_false(plan_fit(&sizes, (size_t)4 << 30, &plan));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan_is_what_is_allocated),
		cmocka_unit_test(test_limit),
		cmocka_unit_test(test_footprint),
		cmocka_unit_test(test_70b_in_24_gb),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
