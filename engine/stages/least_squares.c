/* Least squares: what the weights that are kept become so that each linear gives, on the calibration, what its dense weights
 * give, of the inputs that it has behind the linears that are fitted already (engine/prune/least_squares.h). */
#include "engine/prune/least_squares.h"

#include <stdlib.h>

#include "engine/prune/grams.h"
#include "engine/stages/stage.h"

struct fit {
	struct block *block;
	struct least_squares_settings settings;
	struct grams grams;
	struct least_squares solver;
};

static bool wanted(const struct spec *spec)
{
	return spec->refit.method == REFIT_LEAST_SQUARES;
}

static void destroy(void *stage)
{
	struct fit *fit = stage;
	if (!fit) return;
	least_squares_release(&fit->solver);
	grams_release(&fit->grams);
	free(fit);
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	const struct refit_settings *refit = &setup->spec->refit;
	struct fit *fit = calloc(1, sizeof *fit);
	if (!fit) return error_set(err, STATUS_NO_MEMORY, "no memory for a stage");
	fit->block = setup->block;
	fit->settings = (struct least_squares_settings){refit->cg_steps, refit->cg_damping};
	enum status status = grams_create(setup->block, &fit->grams, err);
	if (status == STATUS_OK) status = least_squares_create(setup->block, setup->stop, &fit->solver, err);
	if (status == STATUS_OK)
		*ret = fit;
	else
		destroy(fit);
	return status;
}

/* The dense weights are in block->weight. */
static enum status fit_linear(struct fit *fit, const struct linear *linear)
{
	struct backend *backend = fit->block->backend;
	struct tensor weight = tensor_rows(fit->block->master[linear->fused], linear->first, linear->rows);
	struct tensor dense = tensor_rows(fit->block->weight[linear->fused], linear->first, linear->rows);
	struct tensor gram = fit->grams.gram[linear->product];
	least_squares_begin(&fit->solver, linear->rows, linear->cols);
	TRY(backend->ops->convert(backend, fit->solver.support, weight));
	TRY(backend->ops->convert(backend, weight, dense));
	TRY(least_squares_aim(&fit->solver, weight, gram));
	return least_squares_solve(&fit->solver, &fit->settings, weight, gram);
}

/* The linears of one fused matrix, but for those that no token reached; the block goes on with what they became. */
static enum status fit_fused(struct fit *fit, enum fused fused)
{
	struct block *block = fit->block;
	for (int i = 0; i < block->layout.n_linears; i++) {
		const struct linear *linear = &block->layout.linears[i];
		if (linear->fused != fused || (!fit->grams.tokens[linear->product] && !block->backend->dry)) continue;
		TRY(fit_linear(fit, linear));
	}
	return block->backend->ops->convert(block->backend, block->active[fused], block->master[fused]);
}

static enum status run(void *stage, const struct block_task *task, struct error *err)
{
	struct fit *fit = stage;
	for (int f = 0; f < fit->block->layout.n_fused; f++) {
		TRY(grams_collect(&fit->grams, task, f, err));
		if (fit_fused(fit, f) == STATUS_OK) continue;
		*err = fit->block->backend->error;
		return err->status;
	}
	return STATUS_OK;
}

/* Three partial passes, the Gram matrices, and some thirty products of the weights with those. */
static double work(const struct spec *spec)
{
	(void)spec;
	return 2;
}

const struct stage stage_least_squares = {
	.name = "least_squares", .wanted = wanted, .work = work, .create = create, .destroy = destroy, .run = run};
