/* Magnitude pruning (Han et al., arXiv 1506.02626), row by row: the weights nearest to zero go. It needs no data. */
#include "engine/methods/one_shot/one_shot.h"

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	return one_shot_new(setup, IMPORTANCE_MAGNITUDE, false, ret, err);
}

const struct method method_magnitude = {.create = create, .destroy = one_shot_destroy, .prune = one_shot_prune};
