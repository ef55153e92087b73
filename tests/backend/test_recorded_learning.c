/* Learning by replays of a recorded step, and with masks that are moved instead of written whole, against learning step by step, on
 * the CUDA backend: the same rates, to the last bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "engine/methods/besa/learn.h"

enum { TOKENS = 8, SEQUENCES = 5, BATCH = 2, EPOCHS = 2, WATCHED_EPOCHS = 8 }; /* the last batch of an epoch is not whole */

struct learner {
	struct backend *backend;
	struct backend_ops ops; /* the backend's, but for record_begin */
	enum status (*record_begin)(struct backend *);
	struct model model;
	struct block block;
	struct mask mask;
	struct besa besa;
	struct stream x, wanted;
	enum status (*move_mask)(struct backend *, struct tensor out, struct tensor weight, struct tensor rank, struct tensor order,
				 void *held, const void *threshold, bool shared);
	int recordings, moves;
};

static struct learner *counting; /* whose recordings and moves are counted */

static enum status count_recordings(struct backend *backend)
{
	counting->recordings++;
	return counting->record_begin(backend);
}

static enum status count_moves(struct backend *backend, struct tensor out, struct tensor weight, struct tensor rank,
			       struct tensor order, void *held, const void *threshold, bool shared)
{
	counting->moves++;
	return counting->move_mask(backend, out, weight, rank, order, held, threshold, shared);
}

static void ok(enum status status, const struct error *err)
{
	if (status != STATUS_OK) fail_msg("%s", err->message);
}

static void fill(struct learner *l, struct stream *stream, unsigned seed)
{
	struct error err;
	int64_t count = SEQUENCES * TOKENS * l->model.config.hidden;
	float *values = malloc((size_t)count * sizeof *values);
	struct tensor all;
	assert_non_null(values);
	srand(seed);
	for (int64_t i = 0; i < count; i++)
		values[i] = (float)rand() / (float)RAND_MAX - 0.5f;
	ok(stream_create(l->backend, SEQUENCES, TOKENS, l->model.config.hidden, BATCH, stream, &err), &err);
	ok(stream_batch(stream, 0, SEQUENCES, false, &all), &l->backend->error);
	ok(l->backend->ops->upload(l->backend, all.data, values, (size_t)count * sizeof *values), &l->backend->error);
	free(values);
}

static void open_learner(struct learner *l, const struct spec *spec, bool records, bool moves)
{
	struct error err;
	*l = (struct learner){0};
	ok(backend_cuda_create(0, &l->backend, &err), &err);
	l->ops = *l->backend->ops;
	l->record_begin = l->ops.record_begin;
	l->ops.record_begin = records ? count_recordings : NULL;
	l->move_mask = l->ops.move_mask;
	l->ops.move_mask = count_moves;
	l->backend->ops = &l->ops;
	counting = l;
	const char *model = getenv("FEW") ? "tests/data/saved/llama" : "demo/tiny-llama";
	ok(model_open(&PLACE(model), NULL, &l->model, &err), &err);
	ok(block_create(&l->model, l->backend, DTYPE_BF16, TOKENS, &l->block, &err), &err);
	ok(block_add_spare(&l->block, &err), &err);
	ok(mask_create(&l->block, &l->mask, &err), &err);
	ok(besa_create(spec, &l->block, &l->mask, NULL, TOKENS, &l->besa, &err), &err);
	if (moves) ok(besa_add_orders(&l->besa, &err), &err);
	fill(l, &l->x, 1);
	fill(l, &l->wanted, 2);
}

static void close_learner(struct learner *l)
{
	stream_release(&l->x);
	stream_release(&l->wanted);
	besa_release(&l->besa);
	mask_release(&l->mask);
	block_release(&l->block);
	model_close(&l->model);
	backend_destroy(l->backend);
}

static enum status ignore(void *context, const struct method_step *step, struct error *err)
{
	(void)context;
	(void)step;
	(void)err;
	return STATUS_OK;
}

/* The rates of two blocks, one after the other: their weights and norms lie in other places. With safeguards of one, and the
 * loss of the start is said to be so small that every window of steps diverges. */
static float *learn(struct learner *l)
{
	static const atomic_bool running = false;
	static const double start[SEQUENCES] = {1e-9, 1e-9, 1e-9, 1e-9, 1e-9};
	const struct besa_settings *settings = &l->besa.spec->besa;
	struct besa_watch watch = {0};
	struct error err;
	struct method_step last;
	const struct block_task task = {.target = l->besa.spec->sparsity, .input = &l->x, .reference = &l->wanted, .step = ignore};
	int64_t rows = l->block.layout.rows;
	int blocks = settings->safeguards ? 1 : 2;
	float *rates = calloc((size_t)(blocks * rows), sizeof *rates);
	assert_non_null(rates);
	for (int index = 0; index < blocks; index++) {
		ok(block_load(&l->block, &l->model, index, &err), &err);
		ok(mask_rank(&l->mask, &l->block, IMPORTANCE_MAGNITUDE, NULL, SEQUENCES, (struct pattern){0}), &l->backend->error);
		watch = (struct besa_watch){0};
		loss_watch_begin(&watch.watch, start);
		ok(besa_learn(&l->besa, &task, &running, settings->safeguards ? &watch : NULL, rates + index * rows, &last, &err),
		   &err);
		assert_int_equal(last.step, l->besa.n_parts * settings->epochs * ((SEQUENCES + BATCH - 1) / BATCH));
		assert_int_equal(watch.divergences, settings->safeguards ? (last.step - 1) / WATCH_STEPS : 0);
		assert_null(l->besa.step);
	}
	return rates;
}

static void compare(enum granularity granularity, int rows_per_group, enum reconstruct reconstruct, bool safeguards)
{
	const struct spec spec = {.sparsity = 0.5,
				  .besa = {.granularity = granularity,
					   .rows_per_group = rows_per_group,
					   .reconstruct = reconstruct,
					   .parameterization = PARAM_SOFTMAX,
					   .optimizer = OPTIMIZER_PRODIGY,
					   .d_coef = safeguards ? 1250 : 50, /* a fifth of a fifth in the end */
					   .lambda = 5,
					   .candidates = 11,
					   .batch_size = BATCH,
					   .epochs = safeguards ? WATCHED_EPOCHS : EPOCHS,
					   .safeguards = safeguards}};
	struct learner plain, recorded;
	open_learner(&plain, &spec, false, false);
	float *expected = learn(&plain);
	assert_int_equal(plain.recordings + plain.moves, 0);
	open_learner(&recorded, &spec, true, true);
	float *got = learn(&recorded);
	assert_int_equal(recorded.moves > 0, reconstruct == RECONSTRUCT_BLOCK && rows_per_group == 1);
	assert_int_equal(recorded.recordings,
			 safeguards ? 3 : 2 * recorded.besa.n_parts); /* anew for smaller steps, and for each part */
	size_t rows = (safeguards ? 1 : 2) * (size_t)plain.block.layout.rows, moved = 0;
	for (size_t i = 0; i < rows; i++)
		moved += expected[i] < 0.499f || expected[i] > 0.501f;
	assert_true(moved > 0); /* something was learned */
	assert_memory_equal(got, expected, rows * sizeof *got);
	free(expected);
	free(got);
	close_learner(&plain);
	close_learner(&recorded);
}

static void test_recorded_learning(void **state)
{
	const char *backend = getenv("BESAD_TEST_BACKEND");
	(void)state;
	if (!backend || strcmp(backend, "cuda") != 0) skip(); /* the CPU backend records nothing */
	compare(GRANULARITY_ROW, 1, RECONSTRUCT_BLOCK, true);
	compare(GRANULARITY_ROW, 1, RECONSTRUCT_BLOCK, false);
	compare(GRANULARITY_ROW, 5, RECONSTRUCT_HALF_BLOCK, false);
	compare(GRANULARITY_ROW, 1, RECONSTRUCT_LAYER, false);
	compare(GRANULARITY_LAYER, 1, RECONSTRUCT_BLOCK, false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_recorded_learning)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
