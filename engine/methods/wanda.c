/* Wanda (Sun et al., arXiv 2306.11695): what goes of a row is what is smallest in |w| · ‖x‖, x being the input it multiplies. */
#include <stdlib.h>

#include "engine/methods/one_shot.h"

struct wanda {
	struct method_setup setup;
	struct mask mask;
	struct column_norms norms;
};

static void destroy(void *method)
{
	struct wanda *wanda = method;
	if (!wanda) return;
	column_norms_release(&wanda->norms);
	mask_release(&wanda->mask);
	free(wanda);
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	struct wanda *wanda = calloc(1, sizeof *wanda);
	if (!wanda) return error_set(err, STATUS_NO_MEMORY, "no memory for a method");
	wanda->setup = *setup;
	enum status status = mask_create(setup->block, &wanda->mask, err);
	if (status == STATUS_OK) status = column_norms_create(setup->block, &wanda->norms, err);
	if (status == STATUS_OK)
		*ret = wanda;
	else
		destroy(wanda);
	return status;
}

static enum status begin(void *method)
{
	return column_norms_reset(&((struct wanda *)method)->norms);
}

static enum status observe(void *method, int product, struct tensor x)
{
	return column_norms_observe(&((struct wanda *)method)->norms, product, x);
}

static enum status prune(void *method, const struct block_task *task, struct block_outcome *outcome, struct error *err)
{
	struct wanda *wanda = method;
	return one_shot_prune(&wanda->mask, &wanda->setup, IMPORTANCE_WANDA, &wanda->norms, task, outcome, err);
}

const struct method method_wanda = {.create = create, .destroy = destroy, .begin = begin, .observe = observe, .prune = prune};
