/* Magnitude pruning (Han et al., arXiv 1506.02626), row by row: the weights nearest to zero go. It needs no data. */
#include <stdlib.h>

#include "engine/methods/one_shot.h"

struct magnitude {
	struct method_setup setup;
	struct mask mask;
};

static void destroy(void *method)
{
	struct magnitude *magnitude = method;
	if (!magnitude) return;
	mask_release(&magnitude->mask);
	free(magnitude);
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	struct magnitude *magnitude = calloc(1, sizeof *magnitude);
	if (!magnitude) return error_set(err, STATUS_NO_MEMORY, "no memory for a method");
	magnitude->setup = *setup;
	enum status status = mask_create(setup->block, &magnitude->mask, err);
	if (status == STATUS_OK)
		*ret = magnitude;
	else
		destroy(magnitude);
	return status;
}

static enum status prune(void *method, const struct block_task *task, struct block_outcome *outcome, struct error *err)
{
	struct magnitude *magnitude = method;
	return one_shot_prune(&magnitude->mask, &magnitude->setup, IMPORTANCE_MAGNITUDE, NULL, task, outcome, err);
}

const struct method method_magnitude = {.create = create, .destroy = destroy, .prune = prune};
