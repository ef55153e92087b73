#include "engine/eval/windows.h"

#include <stdlib.h>

#include "engine/eval/scorer.h"
#include "engine/model/block.h"
#include "engine/prune/stream.h"

/* Tokens that go through a block at once: enough to keep the products busy. */
enum { BATCH_TOKENS = 1024 };
/* Bytes of hidden states kept at once; more windows than fit go through the blocks in several turns. */
static const int64_t MAX_STREAM_BYTES = (int64_t)8 << 30;

struct evaluation {
	const struct model *model;
	struct backend *backend;
	enum dtype type;
	const atomic_bool *stop;
	struct progress *progress;
	int batch; /* sequences */
	int64_t length;
	struct block block;
	struct activations activations;
	struct scorer scorer;
	double *logprobs; /* [length] */
	struct tensor y;  /* F32 [batch·length, H] */
	struct stream stream;
	window_fn take;
	void *context;
};

static enum status check_stop(const struct evaluation *e, struct error *err)
{
	return atomic_load_explicit(e->stop, memory_order_relaxed) ? error_set(err, STATUS_CANCELLED, "stopped while evaluating")
								   : STATUS_OK;
}

static enum status backend_failed(const struct evaluation *e, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = e->backend->error;
	return status;
}

static int64_t batch_at(const struct evaluation *e, int64_t first, int64_t count)
{
	return count - first < e->batch ? count - first : e->batch;
}

static enum status run_embeddings(struct evaluation *e, const int32_t *ids, int64_t count, struct error *err)
{
	for (int64_t i = 0; i < count; i += e->batch) {
		int64_t n = batch_at(e, i, count);
		struct tensor x;
		TRY(check_stop(e, err));
		TRY(backend_failed(e, stream_batch(&e->stream, i, n, false, &x), err));
		TRY(model_embed(e->model, e->backend, ids + i * e->length, n * e->length, e->length, x, err));
		TRY(backend_failed(e, stream_store(&e->stream, i, n, x), err));
	}
	return STATUS_OK;
}

static enum status run_block(struct evaluation *e, int index, int64_t count, struct error *err)
{
	TRY(block_load(&e->block, e->model, index, err));
	TRY(backend_failed(e, block_activate_dense(&e->block), err));
	for (int64_t i = 0; i < count; i += e->batch) {
		int64_t n = batch_at(e, i, count);
		struct tensor x, y = tensor_rows(e->y, 0, n * e->length);
		TRY(check_stop(e, err));
		TRY(backend_failed(e, stream_batch(&e->stream, i, n, true, &x), err));
		TRY(backend_failed(e, block_forward(&e->block, &e->activations, (int)n, x, y, NULL), err));
		TRY(backend_failed(e, stream_store(&e->stream, i, n, y), err));
		progress_add(e->progress, (double)(n * e->length));
	}
	return STATUS_OK;
}

static enum status run_head(struct evaluation *e, const int32_t *ids, int64_t first, int64_t count, struct error *err)
{
	enum status status = STATUS_OK;
	for (int64_t i = 0; status == STATUS_OK && i < count; i++) {
		struct tensor x;
		status = check_stop(e, err);
		if (status == STATUS_OK) status = backend_failed(e, stream_batch(&e->stream, i, 1, true, &x), err);
		if (status == STATUS_OK)
			status = scorer_logprobs(&e->scorer, tensor_rows(x, 0, e->length - 1), ids + i * e->length + 1, e->logprobs,
						 err);
		if (status == STATUS_OK) e->take(e->context, first + i, e->logprobs, e->length - 1);
	}
	return status;
}

/* A dry run takes all memory with one batch and two blocks. */
static enum status run_turn(struct evaluation *e, const struct sequences *windows, int64_t first, int64_t count, struct error *err)
{
	const int32_t *ids = windows->ids + first * e->length;
	int64_t blocks = e->model->config.layers;
	if (e->backend->dry) {
		count = batch_at(e, 0, count);
		blocks = blocks < 2 ? blocks : 2;
	}
	TRY(run_embeddings(e, ids, count, err));
	for (int index = 0; index < blocks; index++)
		TRY(run_block(e, index, count, err));
	return run_head(e, ids, first, count, err);
}

static enum status create(struct evaluation *e, int64_t turn, struct error *err)
{
	int64_t hidden = e->model->config.hidden;
	TRY(block_check(e->model, err));
	TRY(block_create(e->model, e->backend, e->type, e->length, &e->block, err));
	TRY(activations_create(&e->block, e->batch, e->length, false, &e->activations, err));
	TRY(scorer_create(e->model, e->backend, e->type, e->length, &e->scorer, err));
	e->logprobs = malloc((size_t)e->length * sizeof *e->logprobs);
	if (!e->logprobs) return error_set(err, STATUS_NO_MEMORY, "no memory for log-probabilities");
	struct tensor y = tensor_make(NULL, e->batch * e->length, hidden, DTYPE_F32);
	TRY(backend_failed(e, e->backend->ops->alloc(e->backend, tensor_bytes(&y), &y.data), err));
	e->y = y;
	return stream_create(e->backend, turn, e->length, hidden, e->batch, &e->stream, err);
}

static void destroy(struct evaluation *e)
{
	block_release(&e->block);
	activations_release(&e->activations, e->backend);
	scorer_release(&e->scorer);
	free(e->logprobs);
	e->backend->ops->release(e->backend, e->y.data);
	stream_release(&e->stream);
}

enum status windows_evaluate(const struct model *model, struct backend *backend, enum dtype type, const struct sequences *windows,
			     const atomic_bool *stop, struct progress *progress, window_fn take, void *context, struct error *err)
{
	struct evaluation e = {.model = model,
			       .backend = backend,
			       .type = type,
			       .stop = stop,
			       .progress = progress,
			       .length = windows->length,
			       .take = take,
			       .context = context};
	int64_t turn = MAX_STREAM_BYTES / (windows->length * model->config.hidden * (int64_t)sizeof(float));
	turn = turn < 1 ? 1 : turn > windows->count ? windows->count : turn;
	e.batch = windows->length >= BATCH_TOKENS ? 1 : (int)(BATCH_TOKENS / windows->length);
	if (e.batch > turn) e.batch = (int)turn;
	enum status status = create(&e, turn, err);
	for (int64_t i = 0; status == STATUS_OK && i < windows->count; i += turn)
		status = run_turn(&e, windows, i, windows->count - i < turn ? windows->count - i : turn, err);
	destroy(&e);
	return status;
}
