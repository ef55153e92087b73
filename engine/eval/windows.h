/* Windows of tokens through a whole model, one block in memory at a time: the log-probability of each token but the first. */
#ifndef BESAD_ENGINE_WINDOWS_H
#define BESAD_ENGINE_WINDOWS_H

#include <stdatomic.h>

#include "engine/job/progress.h"
#include "engine/model/model.h"
#include "engine/text/corpus.h"

/* Takes window `index`: logprobs[t] is that of its token t + 1, given those before it; n of them. */
typedef void (*window_fn)(void *context, int64_t index, const double *logprobs, int64_t n);

struct window_set {
	const struct sequences *windows;
	window_fn take;
	void *context;
};
enum { WINDOWS_MOST_SETS = 2 };

/* Sends the windows of all sets, which have one length, through the model in one go, and calls each set's `take` for its
 * windows, in order, with products in `type`. What a set comes to does not depend on the others. Adds windows · length · layers
 * to the progress. */
enum status windows_evaluate(const struct model *, struct backend *, enum dtype type, const struct window_set *sets, int n_sets,
			     const atomic_bool *stop, struct progress *, struct error *err);

#endif
