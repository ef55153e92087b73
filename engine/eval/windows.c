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
};

/* The windows of one set in a turn: where they begin in the stream, and in the set. */
struct part {
	const struct window_set *set;
	int64_t at, first, count;
};

struct turn {
	struct part parts[WINDOWS_MOST_SETS];
	int n;
};

static const int32_t *ids_of(const struct evaluation *e, const struct part *part, int64_t i)
{
	return part->set->windows->ids + (part->first + i) * e->length;
}

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

static enum status run_embeddings(struct evaluation *e, const struct part *part, struct error *err)
{
	for (int64_t i = 0; i < part->count; i += e->batch) {
		int64_t n = batch_at(e, i, part->count);
		struct tensor x;
		TRY(check_stop(e, err));
		TRY(backend_failed(e, stream_batch(&e->stream, part->at + i, n, false, &x), err));
		TRY(model_embed(e->model, e->backend, ids_of(e, part, i), n * e->length, e->length, x, err));
		TRY(backend_failed(e, stream_store(&e->stream, part->at + i, n, x), err));
	}
	return STATUS_OK;
}

/* Through the block that is loaded. */
static enum status run_part(struct evaluation *e, const struct part *part, struct error *err)
{
	for (int64_t i = 0; i < part->count; i += e->batch) {
		int64_t n = batch_at(e, i, part->count);
		struct tensor x, y = tensor_rows(e->y, 0, n * e->length);
		TRY(check_stop(e, err));
		TRY(backend_failed(e, stream_batch(&e->stream, part->at + i, n, true, &x), err));
		TRY(backend_failed(e, block_forward(&e->block, &e->activations, (int)n, x, y, NULL), err));
		TRY(backend_failed(e, stream_store(&e->stream, part->at + i, n, y), err));
		progress_add(e->progress, (double)(n * e->length));
	}
	return STATUS_OK;
}

static enum status run_block(struct evaluation *e, int index, const struct turn *turn, struct error *err)
{
	TRY(block_load(&e->block, e->model, index, err));
	TRY(backend_failed(e, block_activate_dense(&e->block), err));
	for (int i = 0; i < turn->n; i++)
		TRY(run_part(e, &turn->parts[i], err));
	return STATUS_OK;
}

static enum status run_head(struct evaluation *e, const struct part *part, struct error *err)
{
	enum status status = STATUS_OK;
	for (int64_t i = 0; status == STATUS_OK && i < part->count; i++) {
		struct tensor x;
		status = check_stop(e, err);
		if (status == STATUS_OK) status = backend_failed(e, stream_batch(&e->stream, part->at + i, 1, true, &x), err);
		if (status == STATUS_OK)
			status = scorer_logprobs(&e->scorer, tensor_rows(x, 0, e->length - 1), ids_of(e, part, i) + 1, e->logprobs,
						 err);
		if (status == STATUS_OK) part->set->take(part->set->context, part->first + i, e->logprobs, e->length - 1);
	}
	return status;
}

/* A dry run takes all memory with one batch and two blocks. */
static enum status run_turn(struct evaluation *e, struct turn *turn, struct error *err)
{
	int64_t blocks = e->model->config.layers;
	if (e->backend->dry) {
		turn->n = 1;
		turn->parts[0].count = batch_at(e, 0, turn->parts[0].count);
		blocks = blocks < 2 ? blocks : 2;
	}
	for (int i = 0; i < turn->n; i++)
		TRY(run_embeddings(e, &turn->parts[i], err));
	for (int index = 0; index < blocks; index++)
		TRY(run_block(e, index, turn, err));
	for (int i = 0; i < turn->n; i++)
		TRY(run_head(e, &turn->parts[i], err));
	return STATUS_OK;
}

/* The windows [first, first + count) of all sets, one behind the other. */
static struct turn turn_of(const struct window_set *sets, int n_sets, int64_t first, int64_t count)
{
	struct turn turn = {0};
	int64_t begin = 0;
	for (int i = 0; i < n_sets; i++) {
		int64_t end = begin + sets[i].windows->count;
		int64_t from = first > begin ? first : begin, to = first + count < end ? first + count : end;
		if (to > from) turn.parts[turn.n++] = (struct part){&sets[i], from - first, from - begin, to - from};
		begin = end;
	}
	return turn;
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

enum status windows_evaluate(const struct model *model, struct backend *backend, enum dtype type, const struct window_set *sets,
			     int n_sets, const atomic_bool *stop, struct progress *progress, struct error *err)
{
	int64_t length = sets[0].windows->length, windows = 0, most = 0;
	struct evaluation e = {
		.model = model, .backend = backend, .type = type, .stop = stop, .progress = progress, .length = length};
	for (int i = 0; i < n_sets; i++) {
		windows += sets[i].windows->count;
		most = sets[i].windows->count > most ? sets[i].windows->count : most;
	}
	int64_t at_once = MAX_STREAM_BYTES / (length * model->config.hidden * (int64_t)sizeof(float));
	at_once = at_once < 1 ? 1 : at_once > windows ? windows : at_once;
	e.batch = length >= BATCH_TOKENS ? 1 : (int)(BATCH_TOKENS / length);
	if (e.batch > most) e.batch = (int)most;
	if (e.batch > at_once) e.batch = (int)at_once;
	enum status status = create(&e, at_once, err);
	for (int64_t i = 0; status == STATUS_OK && i < windows; i += at_once) {
		struct turn turn = turn_of(sets, n_sets, i, windows - i < at_once ? windows - i : at_once);
		status = run_turn(&e, &turn, err);
	}
	destroy(&e);
	return status;
}
