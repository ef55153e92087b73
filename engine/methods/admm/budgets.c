#include "engine/methods/admm/budgets.h"

#include <math.h>
#include <stdlib.h>

#include "engine/prune/exact.h"

static const struct block_layout *layout_of(const struct budgets *b)
{
	return &b->setup.block->layout;
}

static const struct method *learner(void)
{
	return method_find(METHOD_BESA);
}

double budgets_work(const struct spec *spec, enum admm_rates rates)
{
	return rates == ADMM_UNIFORM ? 0 : learner()->work(spec);
}

void budgets_release(struct budgets *b)
{
	if (!b->setup.block) return;
	struct backend *backend = b->setup.block->backend;
	learner()->destroy(b->besa);
	backend->ops->release(backend, b->device);
	free(b->zeros);
	free(b->of_row);
	free(b->now);
	*b = (struct budgets){0};
}

enum status budgets_create(const struct method_setup *setup, enum admm_rates rates, struct budgets *ret, struct error *err)
{
	*ret = (struct budgets){.setup = *setup, .rates = rates};
	struct backend *backend = setup->block->backend;
	size_t rows = (size_t)layout_of(ret)->rows, bytes = rows * sizeof *ret->of_row;
	ret->zeros = calloc((size_t)layout_of(ret)->n_linears, sizeof *ret->zeros);
	ret->of_row = calloc(rows, sizeof *ret->of_row);
	ret->now = calloc(rows, sizeof *ret->now);
	if (!ret->zeros || !ret->of_row || !ret->now)
		return error_set(err, STATUS_NO_MEMORY, "no memory for the budgets of %zu rows", rows);
	if (rates == ADMM_UNIFORM) return STATUS_OK;
	if (backend->ops->alloc(backend, bytes, &ret->device) != STATUS_OK) {
		*err = backend->error;
		return err->status;
	}
	return learner()->create(setup, &ret->besa, err);
}

enum status budgets_begin(struct budgets *b)
{
	return b->besa ? learner()->begin(b->besa) : STATUS_OK;
}

enum status budgets_observe(struct budgets *b, int product, struct tensor x)
{
	return b->besa ? learner()->observe(b->besa, product, x) : STATUS_OK;
}

/* ---- what is learned --------------------------------------------------------------------------------------------------------- */

/* By how much layers' rates are nearer to the target than learning would take them. The sigmoid's candidates stand 2·min(t, 1 −
 * t) wide about a target t, and what they reach shrinks with that: at 70 % to three fifths of what it is at 50 %. */
static double room_lost(const struct spec *spec, double target)
{
	double room = 2 * fmin(target, 1 - target);
	return spec->besa.parameterization == PARAM_SOFTMAX || room <= 0 ? 1 : 1 / room;
}

/* Takes the linears' budgets as far from the target as candidates a whole wide would have: at most so far that one goes whole,
 * or stays. Their sum stays. */
static void stretch(struct budgets *b, double target)
{
	const struct block_layout *layout = layout_of(b);
	double factor = room_lost(b->setup.spec, target), zeros = 0, sum = 0;
	int64_t done = 0;
	for (int i = 0; i < layout->n_linears; i++)
		zeros += (double)b->zeros[i];
	if (zeros == 0 || zeros == (double)layout->params) return; /* the room may be none, too */
	double share = zeros / (double)layout->params;
	for (int i = 0; i < layout->n_linears; i++) {
		double off = (double)b->zeros[i] / (double)(layout->linears[i].rows * layout->linears[i].cols) - share;
		if (off != 0) factor = fmin(factor, off > 0 ? (1 - share) / off : -share / off);
	}
	for (int i = 0; i < layout->n_linears; i++) {
		double params = (double)(layout->linears[i].rows * layout->linears[i].cols);
		sum += share * params + factor * ((double)b->zeros[i] - share * params);
		b->zeros[i] = llround(sum) - done;
		done += b->zeros[i];
	}
}

/* BESA's rates, of whose exact thresholds the budgets are sums. It has its masks in block->active, which is dense again then. */
static enum status learn(struct budgets *b, const struct block_task *task, float *rates, struct error *err)
{
	const struct block_layout *layout = layout_of(b);
	double work = learner()->work(b->setup.spec), all = method_find(b->setup.spec->method)->work(b->setup.spec);
	struct block_task learned = *task;
	struct block_outcome outcome = {.rates = rates};
	learned.share = work / all;
	TRY(learner()->prune(b->besa, &learned, &outcome, err));
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		b->zeros[i] = 0;
		for (int64_t r = linear->row; r < linear->row + linear->rows; r++) {
			b->of_row[r] = outcome.mask->host_thresholds[r];
			b->zeros[i] += b->of_row[r];
		}
	}
	if (b->rates == ADMM_LAYER) stretch(b, task->target);
	enum status status = block_activate_dense(b->setup.block);
	if (status != STATUS_OK) *err = b->setup.block->backend->error;
	return status;
}

enum status budgets_find(struct budgets *b, const struct block_task *task, float *rates, struct error *err)
{
	const struct block_layout *layout = layout_of(b);
	if (b->besa) {
		TRY(learn(b, task, rates, err));
	} else {
		exact_uniform(layout, task->target, b->zeros);
		TRY(task->ranked(task->context, err));
	}
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		double share = (double)b->zeros[i] / (double)(linear->rows * linear->cols);
		for (int64_t r = linear->row; r < linear->row + linear->rows; r++)
			rates[r] = b->rates == ADMM_ROW ? (float)((double)b->of_row[r] / (double)linear->cols) : (float)share;
	}
	return STATUS_OK;
}

enum status budgets_cut(struct budgets *b, int linear, double part, struct cut *ret)
{
	const struct linear *l = &layout_of(b)->linears[linear];
	struct backend *backend = b->setup.block->backend;
	const struct pattern *pattern = &b->setup.spec->pattern;
	int64_t zeros = pattern->of ? l->cols / pattern->of * (pattern->of - pattern->keep) : b->zeros[linear];
	*ret = (struct cut){.pattern = *pattern, .zeros = llround((double)zeros * part)};
	if (b->rates != ADMM_ROW) return STATUS_OK;
	for (int64_t r = 0; r < l->rows; r++)
		b->now[r] = (int32_t)lround((double)b->of_row[l->row + r] * part);
	ret->row_zeros = b->device;
	return backend->ops->upload(backend, b->device, b->now, (size_t)l->rows * sizeof *b->now);
}
