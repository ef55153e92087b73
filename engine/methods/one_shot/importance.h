/* What orders the weights of a block, and so which go first: an importance of each, by which those of a row, or of a group of a
 * pattern, are ranked. */
#ifndef BESAD_ENGINE_IMPORTANCE_H
#define BESAD_ENGINE_IMPORTANCE_H

#include "engine/methods/one_shot/saliency.h"
#include "engine/prune/grams.h"

struct ranking {
	struct method_setup setup;
	enum importance by;
	struct column_norms
		norms; /* what |w| is multiplied by, or, for the gradient, which experts got tokens; where the method looks on */
	struct grams grams; /* of SparseGPT's, as the next */
	struct factor factor;
	struct saliency saliency; /* of the gradient's */
};

/* `looks_on`: the method has the next two called. */
enum status ranking_create(const struct method_setup *, enum importance, bool looks_on, struct ranking *ret, struct error *err);
void ranking_release(struct ranking *); /* takes one that is zeroed, or was not created whole */

/* As those of struct method. */
enum status ranking_begin(struct ranking *);
enum status ranking_observe(struct ranking *, int product, struct tensor x);

/* What ranking by an importance takes beside the walk's passes, in forward passes of the calibration. */
double ranking_work(enum importance);

/* Ranks the weights of the block of the task, by what was seen of its inputs. */
enum status ranking_find(struct ranking *, const struct block_task *, struct mask *, struct error *err);

#endif
