/* Wanda (Sun et al., arXiv 2306.11695): what goes of a row is what is smallest in |w| · ‖x‖, x being the input it multiplies. */
#include "engine/methods/one_shot/one_shot.h"

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	return one_shot_new(setup, IMPORTANCE_WANDA, true, ret, err);
}

const struct method method_wanda = {.create = create,
				    .destroy = one_shot_destroy,
				    .begin = one_shot_begin,
				    .observe = one_shot_observe,
				    .prune = one_shot_prune};
