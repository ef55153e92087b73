/* A stage: what becomes of the weights that a method keeps. Stages follow the method, block by block, in the order of
 * engine/stages/list.h, those that the spec asks for. As methods, they see one block after the other, and leave passes, files
 * and progress to the walk. */
#ifndef BESAD_ENGINE_STAGE_H
#define BESAD_ENGINE_STAGE_H

#include "engine/methods/method.h"
#include "engine/stages/list.h"

struct stage {
	const char *name; /* in events */

	bool (*wanted)(const struct spec *);

	/* As in struct method; NULL for nothing, and 1. */
	double (*work)(const struct spec *);
	int64_t (*batch)(const struct spec *);
	enum status (*create)(const struct method_setup *, void **ret, struct error *err);
	void (*destroy)(void *stage); /* takes NULL */

	/* block->master holds the weights, F32, and block->active the same: what is zero there stays zero. Changes master, and
	 * where `changes_vectors` is set the block's vectors (engine/model/masters.h), in place. */
	enum status (*run)(void *stage, const struct block_task *, struct error *err);

	bool changes_vectors;
	bool rounds; /* takes the weights to their grids: what others left of them is what training goes on from */
};

#define STAGE_COUNT(name) +1
enum { STAGES_MOST = 1 STAGES(STAGE_COUNT) }; /* more than there are */

/* The i-th of the stages that the spec asks for; NULL where there are no more. */
const struct stage *stage_of(const struct spec *, int i);

#endif
