/* What magnitude and Wanda are, which go by one importance, and the method one_shot, which goes by any, and what BESA begins
 * with: the weights of each row are ranked, and the share that was asked for goes. */
#ifndef BESAD_ENGINE_ONE_SHOT_H
#define BESAD_ENGINE_ONE_SHOT_H

#include "engine/methods/one_shot/importance.h"

/* The state of a method that does that alone, and the first member of one that does more: these are struct method's functions
 * for both. */
struct one_shot {
	struct method_setup setup;
	struct mask mask;
	struct ranking ranking;
};

enum status one_shot_create(const struct method_setup *, enum importance, bool looks_on, struct one_shot *ret, struct error *err);
void one_shot_release(struct one_shot *); /* takes one that is zeroed, or was not created whole */

/* The whole of `create` and `destroy`, of a method that does nothing else. */
enum status one_shot_new(const struct method_setup *, enum importance, bool looks_on, void **ret, struct error *err);
void one_shot_destroy(void *method);

enum status one_shot_begin(void *method);
enum status one_shot_observe(void *method, int product, struct tensor x);

/* Ranks the block's weights, and has ⌊C·target⌋ of each row go, or M − N of each M of a pattern; where blocks were allotted
 * shares of their own, exactly the block's. */
enum status one_shot_prune(void *method, const struct block_task *, struct block_outcome *, struct error *err);

#endif
