/* A step of the tune: forward through all blocks, the loss, and back, block by block. What goes into each block is kept; what is
 * in it is computed again on the way back. Each block is changed as soon as its gradient is there, so that no more than some
 * rows of one is in memory. */
#ifndef BESAD_ENGINE_TUNE_BATCH_H
#define BESAD_ENGINE_TUNE_BATCH_H

#include "engine/prune/stream.h"
#include "engine/stages/trainer.h"
#include "engine/tune/state.h"

struct batch {
	struct state *state;
	int64_t sequences, tokens; /* of a batch, and of each */
	bool norms;                /* vectors are trained too */
	struct activations activations;
	struct tensor inputs; /* F32 [(layers + 1) · T, H]: of each block; the last is what comes out */
	struct tensor wanted; /* F32 [T, H]: the dense model's behind the last block */
	struct tensor y, dy;  /* F32 [T, H] */
	struct trainer trainer;
	struct vector_gradients by_vector;
};

/* On failure batch_release frees what there is. */
enum status batch_create(struct state *, int64_t sequences, int64_t tokens, bool norms, struct batch *ret, struct error *err);
void batch_release(struct batch *);

/* What goes into the first block of a batch, to be filled. */
struct tensor batch_input(const struct batch *);

/* What comes out of the last block for what was filled there, F32 [T,H], valid until the next call. Fills the backend's error. */
enum status batch_output(struct batch *, struct tensor *ret);

/* The loss of what was filled there, as it is now: into state->end.loss, on the device. Fills the backend's error. */
enum status batch_loss(struct batch *);

/* One step from what was filled there and what is in batch->wanted, at that learning rate. Fills the backend's error. */
enum status batch_step(struct batch *, double rate);

#endif
