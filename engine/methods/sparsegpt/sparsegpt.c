/* SparseGPT (Frantar and Alistarh, arXiv 2301.00774): a linear is pruned column by column, and what each weight that goes leaves
 * as an error of the outputs, on the calibration, is made up for by the weights to its right. Which go is chosen 128 columns at
 * a time, over all rows of a linear, by the error that each would leave. Weights change: no mask is left but their zeros. */
#include <math.h>
#include <stdlib.h>

#include "engine/methods/method.h"
#include "engine/methods/sparsegpt/settings.h"
#include "engine/model/masters.h"
#include "engine/prune/exact.h"
#include "engine/prune/grams.h"
#include "engine/spec/sections.h"

struct sparsegpt {
	struct method_setup setup;
	double dampening;
	struct grams grams; /* of all products */
	int64_t *zeros;     /* per linear: how many weights it loses */
	struct factor factor;
	struct tensor error; /* F32 [the most rows, PRUNE_COLUMNS] */
};

static const struct block_layout *layout_of(const struct sparsegpt *s)
{
	return &s->setup.block->layout;
}

static struct backend *backend_of(const struct sparsegpt *s)
{
	return s->setup.block->backend;
}

static void destroy(void *method)
{
	struct sparsegpt *s = method;
	if (!s) return;
	struct backend *backend = backend_of(s);
	grams_release(&s->grams);
	free(s->zeros);
	factor_release(&s->factor);
	backend->ops->release(backend, s->error.data);
	free(s);
}

static enum status allocate(struct sparsegpt *s)
{
	const struct block_layout *layout = layout_of(s);
	struct backend *backend = backend_of(s);
	int64_t rows = 0;
	for (int i = 0; i < layout->n_linears; i++)
		if (layout->linears[i].rows > rows) rows = layout->linears[i].rows;
	s->error = tensor_make(NULL, rows, PRUNE_COLUMNS, DTYPE_F32);
	return backend->ops->alloc(backend, tensor_bytes(&s->error), &s->error.data);
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	struct sparsegpt *s = calloc(1, sizeof *s);
	if (!s) return error_set(err, STATUS_NO_MEMORY, "no memory for a method");
	s->setup = *setup;
	const struct sparsegpt_settings *settings = spec_settings(setup->spec, &method_sparsegpt_settings);
	s->dampening = settings->dampening;
	s->zeros = calloc((size_t)layout_of(s)->n_linears, sizeof *s->zeros);
	enum status status = s->zeros ? allocate(s) : error_set(&backend_of(s)->error, STATUS_NO_MEMORY, "no memory for a method");
	if (status != STATUS_OK) *err = backend_of(s)->error;
	if (status == STATUS_OK) status = grams_create_all(setup->block, &s->grams, err);
	if (status == STATUS_OK) status = factor_create(backend_of(s), layout_most_columns(layout_of(s)), &s->factor, err);
	if (status == STATUS_OK)
		*ret = s;
	else
		destroy(s);
	return status;
}

/* ---- what a pass shows ------------------------------------------------------------------------------------------------------- */

static enum status begin(void *method)
{
	return grams_reset(&((struct sparsegpt *)method)->grams);
}

static enum status observe(void *method, int product, struct tensor x)
{
	return grams_observe(&((struct sparsegpt *)method)->grams, product, x);
}

/* ---- a linear ---------------------------------------------------------------------------------------------------------------- */

/* Columns that are pruned at a time: whole groups of a pattern. */
static int64_t columns_at_once(const struct pattern *pattern)
{
	return pattern->of ? PRUNE_COLUMNS - PRUNE_COLUMNS % pattern->of : PRUNE_COLUMNS;
}

/* Of weights [rows, cols], `zeros` go where there is no pattern: each batch of columns gets its share. */
static enum status sweep(struct sparsegpt *s, struct tensor weight, int64_t zeros)
{
	struct backend *backend = backend_of(s);
	const struct pattern *pattern = &s->setup.spec->pattern;
	int64_t cols = weight.cols, step = columns_at_once(pattern), done = 0;
	for (int64_t first = 0; first < cols; first += step) {
		int64_t n = cols - first < step ? cols - first : step, next = first + n;
		int64_t share = llround((double)zeros * (double)next / (double)cols) - done;
		struct tensor error = tensor_cols(tensor_rows(s->error, 0, weight.rows), 0, n);
		TRY(backend->ops->prune_columns(backend, tensor_cols(weight, first, n), error,
						factor_part(&s->factor, first, n, first, n), share, pattern));
		done += share;
		if (next == cols) break;
		TRY(backend->ops->matmul(backend, tensor_cols(weight, next, cols - next), error, false,
					 factor_part(&s->factor, first, n, next, cols - next), false, true));
	}
	return STATUS_OK;
}

/* All linears of a product, which share its inputs. */
static enum status prune_product(struct sparsegpt *s, int product, struct damping *ret_damping)
{
	const struct block_layout *layout = layout_of(s);
	TRY(factor_compute(&s->factor, s->grams.gram[product], s->dampening, ret_damping));
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		if (linear->product != product) continue;
		if (atomic_load_explicit(s->setup.stop, memory_order_relaxed))
			return error_set(&backend_of(s)->error, STATUS_CANCELLED, "stopped while pruning");
		TRY(sweep(s, tensor_rows(s->setup.block->master[linear->fused], linear->first, linear->rows), s->zeros[i]));
	}
	return STATUS_OK;
}

static enum status prune(void *method, const struct block_task *task, struct block_outcome *outcome, struct error *err)
{
	struct sparsegpt *s = method;
	const struct block_layout *layout = layout_of(s);
	exact_uniform(layout, task->target, s->zeros);
	TRY(task->ranked(task->context, err));
	enum status status = block_load_masters(s->setup.block);
	for (int i = 0; status == STATUS_OK && i < layout->n_products; i++) {
		struct damping damping;
		TRY(grams_settle(&s->grams, task, i, err));
		status = prune_product(s, i, &damping);
		if (status == STATUS_OK) TRY(grams_warn(layout, task, i, &damping, err));
	}
	if (status != STATUS_OK) {
		*err = backend_of(s)->error;
		return status;
	}
	for (int64_t r = 0; r < layout->rows; r++)
		outcome->rates[r] = (float)task->target;
	return STATUS_OK;
}

const struct method method_sparsegpt = {.create = create,
					.destroy = destroy,
					.begin = begin,
					.observe = observe,
					.prune = prune,
					.changes_weights = true,
					.masters = true};
