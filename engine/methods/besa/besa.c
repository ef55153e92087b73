/* BESA (arXiv 2402.16880): how many weights each row, or each linear, loses is learned by gradient descent on the block's
 * reconstruction loss; which ones is their order of importance. */
#include <math.h>
#include <stdlib.h>

#include "engine/methods/besa/pair.h"
#include "engine/methods/besa/safe.h"
#include "engine/methods/one_shot/one_shot.h"
#include "engine/model/masters.h"
#include "engine/prune/exact.h"

struct besa_method {
	struct one_shot first; /* the ranks, and where learning starts from */
	struct besa besa;      /* where there is something to learn */
	struct pair pair;      /* where two blocks learn together */
};

/* A target of 0 leaves no rates to learn, and of N:M each row loses the same. */
static bool learns(const struct spec *spec)
{
	return (spec->sparsity > 0 && !spec->pattern.of) || quantization_is_joint(spec);
}

static bool learns_pairs(const struct spec *spec)
{
	return learns(spec) && spec->besa.reconstruct == RECONSTRUCT_TWO_BLOCKS;
}

static const char *caution(const struct spec *spec)
{
	return spec->pattern.of
		       ? "under a pattern besa learns no rates: the most important weights of each group are kept, and each row "
			 "loses the same"
		       : NULL;
}

static double work(const struct spec *spec)
{
	double ranks = ranking_work(spec->besa.importance);
	if (spec->pattern.of) return ranks;
	/* The gradient of the quantized weights is one product more in a step. */
	return ranks + (parts_work(spec) + (quantization_is_joint(spec) ? 1 : 0)) * spec->besa.epochs +
	       (learns(spec) && spec->besa.safeguards ? SAFE_PASSES : 0) + (learns_pairs(spec) ? 1 : 0);
}

static bool dense_stream(const struct spec *spec)
{
	return spec->besa.target == TARGET_DENSE_STREAM;
}

static int64_t batch(const struct spec *spec)
{
	return spec->besa.batch_size;
}

static void destroy(void *method)
{
	struct besa_method *b = method;
	if (!b) return;
	pair_release(&b->pair);
	besa_release(&b->besa);
	one_shot_release(&b->first);
	free(b);
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	struct besa_method *b = calloc(1, sizeof *b);
	if (!b) return error_set(err, STATUS_NO_MEMORY, "no memory for a method");
	enum status status = one_shot_create(setup, setup->spec->besa.importance, true, &b->first, err);
	if (status == STATUS_OK && learns(setup->spec))
		status = besa_create(setup->spec, setup->block, &b->first.mask,
				     quantization_is_joint(setup->spec) ? setup->quantizer : NULL, setup->tokens, &b->besa, err);
	if (status == STATUS_OK && b->besa.backend && setup->orders) status = besa_add_orders(&b->besa, err);
	if (status == STATUS_OK && learns_pairs(setup->spec) && setup->model->config.layers > 1)
		status = pair_create(setup, &b->pair, err);
	if (status == STATUS_OK)
		*ret = b;
	else
		destroy(b);
	return status;
}

static enum status learn(struct besa_method *b, const struct block_task *task, float *rates, struct error *err)
{
	const struct method_setup *setup = &b->first.setup;
	const struct block_layout *layout = &setup->block->layout;
	struct method_step last;
	TRY(besa_learn(&b->besa, task, setup->stop, NULL, rates, &last, err));
	int64_t zeros = llround(task->target * (double)layout->params);
	return exact_thresholds(layout, rates, zeros, b->first.mask.host_thresholds, err);
}

/* What was learned becomes block->master: weights on their grids, or, where these come when it is refitted, as they are; and
 * zeros. */
static enum status quantize(struct besa_method *b, struct block_outcome *outcome)
{
	const struct block *block = b->first.setup.block;
	outcome->mask = NULL;
	outcome->masters = true;
	TRY(quantization_follows(b->first.setup.spec) ? block_load_masters(b->first.setup.block)
						      : quantizer_apply(b->besa.quantizer, block->weight, block->master));
	return mask_apply_from(&b->first.mask, block, block->master, block->master);
}

static enum status learn_block(struct besa_method *b, const struct block_task *task, struct block_outcome *outcome,
			       struct error *err)
{
	const struct method_setup *setup = &b->first.setup;
	struct block_task learned = *task;
	b->besa.second = NULL;
	if (b->pair.block.backend && pair_follows(&b->pair, task)) {
		TRY(pair_look_ahead(&b->pair, task, err));
		b->besa.second = &b->pair.besa;
		learned.reference = &b->pair.wanted;
	}
	if (setup->spec->besa.safeguards)
		return besa_learn_safely(&b->besa, &b->first.mask, &learned, setup->stop, outcome->rates, &outcome->start, err);
	TRY(learn(b, &learned, outcome->rates, err));
	enum status status = mask_set(&b->first.mask, setup->block);
	if (status != STATUS_OK) *err = setup->block->backend->error;
	return status;
}

static enum status prune(void *method, const struct block_task *task, struct block_outcome *outcome, struct error *err)
{
	struct besa_method *b = method;
	const struct block *block = b->first.setup.block;
	TRY(one_shot_prune(&b->first, task, outcome, err));
	struct quantizer *quantizer = b->besa.quantizer;
	bool none_goes = llround(task->target * (double)block->layout.params) == 0; /* there are no rates to learn then */
	if (!learns(b->first.setup.spec) || (none_goes && !quantizer)) return STATUS_OK;
	besa_aim(&b->besa, none_goes ? 0 : task->target);
	enum status status = quantizer ? quantizer_begin(quantizer) : STATUS_OK;
	if (status == STATUS_OK) {
		TRY(learn_block(b, task, outcome, err));
		status = quantizer ? quantize(b, outcome) : STATUS_OK;
	}
	if (status != STATUS_OK) *err = block->backend->error;
	return status;
}

/* besa.md 1.8. */
static double loss(const struct spec *spec, double target, double reconstruction, double sparsity)
{
	bool exact = learns(spec) && target > 0 && !spec->quantization.bits; /* what is rounded to 0 is no miss */
	double miss = exact ? (sparsity - target) / target : 0;
	return reconstruction + spec->besa.lambda * miss * miss;
}

const struct method method_besa = {.work = work,
				   .dense_stream = dense_stream,
				   .batch = batch,
				   .create = create,
				   .destroy = destroy,
				   .begin = one_shot_begin,
				   .observe = one_shot_observe,
				   .prune = prune,
				   .caution = caution,
				   .loss = loss};
