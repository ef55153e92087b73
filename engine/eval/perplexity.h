/* Perplexity by the papers' recipe: whole windows of T tokens, each predicts its own T − 1 next tokens; exp of the mean
 * cross-entropy (besa.md section 4). */
#ifndef BESAD_ENGINE_PERPLEXITY_H
#define BESAD_ENGINE_PERPLEXITY_H

#include <stdatomic.h>

#include "engine/job/progress.h"
#include "engine/model/model.h"
#include "engine/text/corpus.h"

/* Runs the windows through the model, one block in memory at a time, with products in `type`. Adds windows · length · layers to the
 * progress. STATUS_NUMERIC when the result is not finite. */
enum status perplexity(const struct model *, struct backend *, enum dtype type, const struct sequences *windows,
		       const atomic_bool *stop, struct progress *, double *ret, struct error *err);

/* The same, and in the same go through the model *ret_loss, minus the mean log-probability over the windows `beside`, of the
 * same length. */
enum status perplexity_beside(const struct model *, struct backend *, enum dtype type, const struct sequences *windows,
			      const struct sequences *beside, const atomic_bool *stop, struct progress *, double *ret,
			      double *ret_loss, struct error *err);

/* That alone. */
enum status mean_loss(const struct model *, struct backend *, enum dtype type, const struct sequences *windows,
		      const atomic_bool *stop, struct progress *, double *ret, struct error *err);

#endif
