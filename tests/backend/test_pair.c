/* Two blocks that learn together (engine/methods/besa/pair.h) on the backend under test: what is looked ahead to is the next block,
 * dense, and the gradient is that of the CPU, which test_block.c compares with finite differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "engine/methods/besa/pair.h"
#include "tests/backend/harness.h"
#include "tests/backend/tiny_model.h"

static const struct tiny_shape SHAPE = {.hidden = 24, .intermediate = 40, .heads = 6, .kv_heads = 2, .layers = 2, .vocab = 11};
enum { TOKENS = 9, SEQUENCES = 5, BATCH = 2, CANDIDATES = 13, VALUES = SEQUENCES * TOKENS * 24 };

static const atomic_bool running = false;

/* The first block, and the pair it is in. */
struct first {
	struct backend *backend;
	struct model model;
	struct block block;
	struct mask mask;
	struct besa besa;
	struct pair pair;
	struct activations activations;
	struct stream x, reference, again;
};

static void ok(enum status status, const struct error *err)
{
	if (status != STATUS_OK) fail_msg("%s: %s", status_name(status), err->message);
}

static struct spec spec_of(int rows_per_group)
{
	return (struct spec){.sparsity = 0.6,
			     .calibration.samples = SEQUENCES,
			     .besa = {.rows_per_group = rows_per_group,
				      .reconstruct = RECONSTRUCT_TWO_BLOCKS,
				      .candidates = CANDIDATES,
				      .lambda = 5,
				      .epochs = 1,
				      .batch_size = BATCH}};
}

/* to = block(from), dense. */
static void pass(struct first *f, struct stream *from, struct stream *to)
{
	struct tensor x, y;
	ok(block_activate_dense(&f->block), &f->backend->error);
	for (int64_t i = 0; i < SEQUENCES; i += BATCH) {
		int64_t n = SEQUENCES - i < BATCH ? SEQUENCES - i : BATCH;
		ok(stream_batch(from, i, n, true, &x), &f->backend->error);
		ok(stream_batch(to, i, n, false, &y), &f->backend->error);
		ok(block_forward(&f->block, &f->activations, (int)n, x, y, NULL), &f->backend->error);
		ok(stream_store(to, i, n, y), &f->backend->error);
	}
}

static void open_first(struct first *f, struct backend *backend, const char *directory, const struct spec *spec, const float *x)
{
	struct error err;
	struct tensor all;
	struct stream *streams[] = {&f->x, &f->reference, &f->again};
	*f = (struct first){.backend = backend};
	ok(model_open(&PLACE(directory), NULL, &f->model, &err), &err);
	ok(block_create(&f->model, backend, DTYPE_F32, TOKENS, &f->block, &err), &err);
	ok(block_load(&f->block, &f->model, 0, &err), &err);
	ok(activations_create(&f->block, BATCH, TOKENS, false, &f->activations, &err), &err);
	ok(mask_create(&f->block, &f->mask, &err), &err);
	ok(mask_rank(&f->mask, &f->block, IMPORTANCE_MAGNITUDE, NULL, 1, (struct pattern){0}), &backend->error);
	ok(besa_create(spec, &f->block, &f->mask, NULL, TOKENS, &f->besa, &err), &err);
	const struct method_setup setup = {
		.spec = spec, .model = &f->model, .block = &f->block, .sequences = SEQUENCES, .tokens = TOKENS, .stop = &running};
	ok(pair_create(&setup, &f->pair, &err), &err);
	for (int i = 0; i < 3; i++)
		ok(stream_create(backend, SEQUENCES, TOKENS, SHAPE.hidden, SEQUENCES, streams[i], &err), &err);
	ok(stream_batch(&f->x, 0, SEQUENCES, false, &all), &backend->error);
	ok(backend->ops->upload(backend, all.data, x, VALUES * sizeof *x), &backend->error);
	pass(f, &f->x, &f->reference);
}

static void close_first(struct first *f)
{
	stream_release(&f->x);
	stream_release(&f->reference);
	stream_release(&f->again);
	pair_release(&f->pair);
	besa_release(&f->besa);
	mask_release(&f->mask);
	activations_release(&f->activations, f->backend);
	block_release(&f->block);
	model_close(&f->model);
}

static void look_ahead(struct first *f, double next_target)
{
	struct error err;
	const struct block_task task = {.index = 0, .target = 0.6, .next_target = next_target, .reference = &f->reference};
	assert_true(pair_follows(&f->pair, &task));
	assert_false(pair_follows(&f->pair, &(struct block_task){.index = 1}));
	ok(pair_look_ahead(&f->pair, &task, &err), &err);
}

static double *values_of(struct backend *backend, struct tensor t)
{
	float *host = malloc(tensor_bytes(&t));
	assert_non_null(host);
	ok(backend->ops->download(backend, host, t.data, tensor_bytes(&t)), &backend->error);
	double *wide = doubles(t.rows * t.cols);
	for (int64_t i = 0; i < t.rows * t.cols; i++)
		wide[i] = host[i];
	free(host);
	return wide;
}

/* What a stream has of some sequences, without more of them at once than it has room for. */
static double *some_of(struct stream *stream, int64_t first, int64_t count)
{
	struct tensor t;
	ok(stream_batch(stream, first, count, true, &t), &stream->backend->error);
	return values_of(stream->backend, t);
}

/* θ of a block at random, and its bins. */
static void begin(struct besa *besa, const float *theta)
{
	struct backend *backend = besa->backend;
	for (int f = 0; f < besa->block->layout.n_fused; f++)
		ok(backend->ops->bin_ranks(backend, besa->bin[f], besa->mask->rank[f], CANDIDATES, besa->rates.below,
					   besa->rates.above),
		   &backend->error);
	ok(backend->ops->upload(backend, besa->theta.data, theta, tensor_bytes(&besa->theta)), &backend->error);
}

static float *random_floats(int64_t n)
{
	float *values = malloc((size_t)n * sizeof *values);
	assert_non_null(values);
	for (int64_t i = 0; i < n; i++)
		values[i] = (float)random_uniform(-1, 1);
	return values;
}

/* What is to be given is what the model's next block gives behind the first, dense, on the batches of learning. */
static void test_looks_ahead(void **state)
{
	struct first f;
	struct error err;
	char *directory = tiny_model_write(&SHAPE, 7);
	const struct spec spec = spec_of(1);
	float *x = random_floats(VALUES);
	(void)state;
	open_first(&f, test_backend(), directory, &spec, x);
	look_ahead(&f, 0.6);
	ok(block_load(&f.block, &f.model, 1, &err), &err);
	pass(&f, &f.reference, &f.again);
	for (int64_t i = 0; i < SEQUENCES; i++) {
		double *got = some_of(&f.pair.wanted, i, 1), *expected = some_of(&f.again, i, 1);
		expect_equal(got, expected, TOKENS * SHAPE.hidden, "sequence %d", (int)i);
		free(got);
		free(expected);
	}
	close_first(&f);
	free(x);
	tiny_model_remove(directory);
}

/* The gradients of both blocks of a pair, one behind the other. `thetas` [2]. */
static void find_gradients(struct backend *backend, const char *directory, const struct spec *spec, double next_target,
			   const float *x, float *const thetas[2], double *ret[2], int64_t *ret_count)
{
	struct first f;
	open_first(&f, backend, directory, spec, x);
	look_ahead(&f, next_target);
	begin(&f.besa, thetas[0]);
	begin(&f.pair.besa, thetas[1]);
	f.besa.second = &f.pair.besa;
	ok(besa_gradient(&f.besa, &f.x, &f.pair.wanted, BATCH, BATCH), &backend->error);
	ret[0] = values_of(backend, f.besa.gradient);
	ret[1] = next_target > 0 ? values_of(backend, f.pair.besa.gradient) : NULL;
	*ret_count = f.besa.rates.groups * CANDIDATES;
	close_first(&f);
}

static void compare(int rows_per_group, double next_target)
{
	const struct spec spec = spec_of(rows_per_group);
	char *directory = tiny_model_write(&SHAPE, 7);
	float *x = random_floats(VALUES), *thetas[2] = {random_floats(1000 * CANDIDATES), random_floats(1000 * CANDIDATES)};
	double *expected[2], *got[2];
	struct backend *cpu;
	struct error err;
	int64_t count, count_again;
	ok(backend_cpu_create(2, &cpu, &err), &err);
	find_gradients(cpu, directory, &spec, next_target, x, thetas, expected, &count);
	find_gradients(test_backend(), directory, &spec, next_target, x, thetas, got, &count_again);
	assert_int_equal(count, count_again);
	for (int i = 0; i < 2; i++) {
		if (got[i]) expect_close(got[i], expected[i], count, 1e-8, "%d rows, block %d", rows_per_group, i);
		free(got[i]);
		free(expected[i]);
		free(thetas[i]);
	}
	backend_destroy(cpu);
	free(x);
	tiny_model_remove(directory);
}

static void test_gradients(void **state)
{
	(void)state;
	compare(1, 0.6);
	compare(3, 0.4); /* blocks with targets of their own */
}

/* The next block may be one that loses nothing. */
static void test_gradient_before_a_dense_block(void **state)
{
	(void)state;
	compare(1, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_looks_ahead),
		cmocka_unit_test(test_gradients),
		cmocka_unit_test(test_gradient_before_a_dense_block),
	};
	return cmocka_run_group_tests(tests, NULL, test_backend_teardown);
}
