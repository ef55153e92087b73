#include "engine/methods/one_shot/one_shot.h"

#include <math.h>
#include <stdlib.h>

#include "engine/methods/one_shot/order.h"
#include "engine/methods/one_shot/settings.h"
#include "engine/prune/exact.h"
#include "engine/spec/sections.h"

enum status one_shot_create(const struct method_setup *setup, enum importance importance, bool looks_on, struct one_shot *ret,
			    struct error *err)
{
	*ret = (struct one_shot){.setup = *setup};
	TRY(mask_create(setup->block, &ret->mask, err));
	return ranking_create(setup, importance, looks_on, &ret->ranking, err);
}

void one_shot_release(struct one_shot *one_shot)
{
	ranking_release(&one_shot->ranking);
	mask_release(&one_shot->mask);
}

enum status one_shot_new(const struct method_setup *setup, enum importance importance, bool looks_on, void **ret, struct error *err)
{
	struct one_shot *one_shot = calloc(1, sizeof *one_shot);
	if (!one_shot) return error_set(err, STATUS_NO_MEMORY, "no memory for a method");
	enum status status = one_shot_create(setup, importance, looks_on, one_shot, err);
	if (status == STATUS_OK)
		*ret = one_shot;
	else
		one_shot_destroy(one_shot);
	return status;
}

void one_shot_destroy(void *method)
{
	if (method) one_shot_release(method);
	free(method);
}

enum status one_shot_begin(void *method)
{
	return ranking_begin(&((struct one_shot *)method)->ranking);
}

enum status one_shot_observe(void *method, int product, struct tensor x)
{
	return ranking_observe(&((struct one_shot *)method)->ranking, product, x);
}

/* The thresholds of ranks in rows, or in the groups of a pattern. What a block was allotted goes exactly. */
static enum status fill_thresholds(const struct block_layout *layout, const struct spec *spec, double target, int32_t *thresholds,
				   float *rates, struct error *err)
{
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		double share = (double)linear->cols * target;
		int32_t threshold = spec->pattern.of ? spec->pattern.of - spec->pattern.keep : (int32_t)share;
		for (int64_t r = linear->row; r < linear->row + linear->rows; r++) {
			rates[r] = (float)target;
			thresholds[r] = threshold;
		}
	}
	if (spec->allocation.method == ALLOCATION_UNIFORM) return STATUS_OK;
	return exact_thresholds(layout, rates, llround(target * (double)layout->params), thresholds, err);
}

enum status one_shot_prune(void *method, const struct block_task *task, struct block_outcome *outcome, struct error *err)
{
	struct one_shot *one_shot = method;
	struct mask *mask = &one_shot->mask;
	const struct method_setup *setup = &one_shot->setup;
	const struct block *block = setup->block;
	TRY(ranking_find(&one_shot->ranking, task, mask, err));
	TRY(order_check(setup, one_shot->ranking.by, mask, task, err));
	TRY(task->ranked(task->context, err));
	TRY(fill_thresholds(&block->layout, setup->spec, task->target, mask->host_thresholds, outcome->rates, err));
	enum status status = mask_set(mask, block);
	if (status != STATUS_OK) *err = block->backend->error;
	outcome->mask = mask;
	return status;
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	const struct one_shot_settings *settings = spec_settings(setup->spec, &method_one_shot_settings);
	return one_shot_new(setup, settings->importance, true, ret, err);
}

static double work(const struct spec *spec)
{
	const struct one_shot_settings *settings = spec_settings(spec, &method_one_shot_settings);
	return ranking_work(settings->importance);
}

const struct method method_one_shot = {.work = work,
				       .create = create,
				       .destroy = one_shot_destroy,
				       .begin = one_shot_begin,
				       .observe = one_shot_observe,
				       .prune = one_shot_prune};
