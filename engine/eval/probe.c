#include "engine/eval/probe.h"

#include <math.h>
#include <stdlib.h>

#include "engine/eval/scorer.h"

enum {
	MOST_SEQUENCES = PROBE_MOST_SEQUENCES,
	FEWEST_SEQUENCES = 2, /* where more would not fit into the share of the time */
	/* Reading a block's weights, in tokens that could go through the block in that time: from the page cache with a check of
	   every value, and to a device besides. */
	LOAD_TOKENS_UNIFIED = 150,
	LOAD_TOKENS_DEVICE = 100000,
};
/* Of the time that pruning takes; 0.1 is what may be spent. */
static const double SHARE = 0.07;

/* ---- the plan -------------------------------------------------------------------------------------------------------------- */

/* What probing costs, in token-blocks. */
struct cost {
	int layers;
	double tokens, load, head; /* of all sequences; of a block; the head's size in blocks */
};

static double cost_ahead(const struct cost *cost, int index)
{
	return (cost->layers - 1 - index + cost->head) * (cost->tokens + cost->load);
}

static double total_cost(const struct cost *cost, const bool *due)
{
	double total = cost_ahead(cost, -1); /* the dense model's */
	for (int i = 0; i < cost->layers; i++)
		total += cost->tokens + (due[i] ? cost_ahead(cost, i) : 0);
	return total;
}

/* Marks each block whose probe the share of the blocks up to it pays for. */
static bool choose_affordable(const struct cost *cost, double block_budget, bool *due)
{
	double saved = -cost_ahead(cost, -1);
	bool any = false;
	for (int i = 0; i < cost->layers; i++) {
		saved += block_budget - cost->tokens;
		due[i] = saved >= cost_ahead(cost, i);
		if (!due[i]) continue;
		saved -= cost_ahead(cost, i);
		any = true;
	}
	return any;
}

static double head_blocks(const struct model_config *config)
{
	return (double)config->vocab * (double)config->hidden / (double)layout_params_per_token(config);
}

enum status probe_plan(const struct model_config *config, int every, double block_work, int64_t available, int64_t length,
		       bool unified, struct probe_plan *ret, struct error *err)
{
	struct cost cost = {.layers = (int)config->layers,
			    .load = unified ? LOAD_TOKENS_UNIFIED : LOAD_TOKENS_DEVICE,
			    .head = head_blocks(config)};
	double block_budget = SHARE * block_work;
	*ret = (struct probe_plan){0};
	if (every == PROBE_NEVER || available < 1) return STATUS_OK;
	bool *due = malloc((size_t)cost.layers * sizeof *due);
	if (!due) return error_set(err, STATUS_NO_MEMORY, "no memory for a plan");
	for (int i = 0; i < cost.layers; i++)
		due[i] = every == PROBE_AUTO || (i + 1) % every == 0 || i == cost.layers - 1;
	int64_t sequences = available < MOST_SEQUENCES ? available : MOST_SEQUENCES;
	for (;; sequences = sequences / 2 < FEWEST_SEQUENCES ? FEWEST_SEQUENCES : sequences / 2) {
		cost.tokens = (double)(sequences * length);
		if (total_cost(&cost, due) <= block_budget * cost.layers) break;
		if (sequences > FEWEST_SEQUENCES) continue;
		if (every != PROBE_AUTO || choose_affordable(&cost, block_budget, due)) break;
		free(due);
		return STATUS_OK;
	}
	*ret = (struct probe_plan){sequences, due};
	return STATUS_OK;
}

/* ---- the sequences --------------------------------------------------------------------------------------------------------- */

static enum status backend_failed(const struct probe *p, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = p->block->backend->error;
	return status;
}

static enum status check_stop(const struct probe *p, struct error *err)
{
	return atomic_load_explicit(p->stop, memory_order_relaxed) ? error_set(err, STATUS_CANCELLED, "stopped while probing")
								   : STATUS_OK;
}

enum status probe_create(struct probe *p, struct error *err)
{
	int64_t hidden = p->model->config.hidden, sequences = p->plan->sequences, length = p->tokens->length;
	TRY(stream_create(p->block->backend, sequences, length, hidden, p->batch, &p->behind, err));
	return stream_create(p->block->backend, sequences, length, hidden, p->batch, &p->ahead, err);
}

void probe_release(struct probe *p)
{
	stream_release(&p->behind);
	stream_release(&p->ahead);
	*p = (struct probe){0};
}

static int64_t batch_at(const struct probe *p, int64_t first)
{
	int64_t left = p->plan->sequences - first;
	return left < p->batch ? left : p->batch;
}

enum status probe_embed(struct probe *p, struct error *err)
{
	int64_t length = p->tokens->length;
	for (int64_t i = 0; i < p->plan->sequences; i += p->batch) {
		int64_t n = batch_at(p, i);
		struct tensor x;
		TRY(backend_failed(p, stream_batch(&p->behind, i, n, false, &x), err));
		TRY(model_embed(p->model, p->block->backend, p->tokens->ids + i * length, n * length, length, x, err));
		TRY(backend_failed(p, stream_store(&p->behind, i, n, x), err));
	}
	return STATUS_OK;
}

/* to = active block(from); both may be one stream. `stoppable`: the flag ends it. */
static enum status pass(struct probe *p, struct stream *from, struct stream *to, bool stoppable, struct error *err)
{
	for (int64_t i = 0; i < p->plan->sequences; i += p->batch) {
		int64_t n = batch_at(p, i);
		struct tensor x, y = tensor_rows(p->y, 0, n * from->tokens);
		if (stoppable) TRY(check_stop(p, err));
		TRY(backend_failed(p, stream_batch(from, i, n, true, &x), err));
		TRY(backend_failed(p, block_forward(p->block, p->activations, (int)n, x, y, NULL), err));
		TRY(backend_failed(p, stream_store(to, i, n, y), err));
	}
	return STATUS_OK;
}

static enum status score(struct probe *p, struct stream *from, double *ret, struct error *err)
{
	struct scorer scorer = {0};
	int64_t length = p->tokens->length;
	double sum = 0, *room = malloc((size_t)length * sizeof *room);
	if (!room) return error_set(err, STATUS_NO_MEMORY, "no memory for log-probabilities");
	enum status status = scorer_create(p->model, p->block->backend, p->block->compute_type, length, &scorer, err);
	for (int64_t i = 0; status == STATUS_OK && i < p->plan->sequences; i++) {
		struct tensor x;
		status = check_stop(p, err);
		if (status == STATUS_OK) status = backend_failed(p, stream_batch(from, i, 1, true, &x), err);
		if (status == STATUS_OK) status = scorer_next_tokens(&scorer, x, p->tokens->ids + i * length, room, &sum, err);
	}
	scorer_release(&scorer);
	free(room);
	if (status == STATUS_OK) *ret = exp(-sum / (double)(p->plan->sequences * (length - 1)));
	return status;
}

/* The perplexity behind all blocks from `index` on, taken as they are in the model. */
static enum status run_ahead(struct probe *p, int index, double *ret, struct error *err)
{
	struct stream *last = &p->behind;
	for (; index < p->model->config.layers; index++) {
		TRY(block_load(p->block, p->model, index, err));
		TRY(backend_failed(p, block_activate_dense(p->block), err));
		TRY(pass(p, last, &p->ahead, true, err));
		last = &p->ahead;
	}
	TRY(score(p, last, ret, err));
	if (!isfinite(*ret)) *ret = NAN;
	return STATUS_OK;
}

enum status probe_dense(struct probe *p, double *ret, struct error *err)
{
	return run_ahead(p, 0, ret, err);
}

enum status probe_advance(struct probe *p, int index, double *ret, struct error *err)
{
	*ret = NAN;
	TRY(pass(p, &p->behind, &p->behind, false, err));
	return p->plan->due[index] ? run_ahead(p, index + 1, ret, err) : STATUS_OK;
}
