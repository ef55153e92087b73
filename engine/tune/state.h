/* All that a tune of the whole model changes, on the device: of each block the weights in F32 and its vectors, the final norm,
 * and Adam's two moments of them, 12 bytes a weight. One struct block stands for all: `state_enter` brings a block of the state
 * into it. */
#ifndef BESAD_ENGINE_TUNE_STATE_H
#define BESAD_ENGINE_TUNE_STATE_H

#include "engine/model/masters.h"
#include "engine/quantize/quantizer.h"
#include "engine/tune/end.h"

struct tuned_block {
	struct tensor master[FUSED_COUNT], m[FUSED_COUNT], v[FUSED_COUNT]; /* F32, as block->weight */
	struct tensor strength[FUSED_COUNT]; /* as the quantizer's: without data where none was learned */
	struct vectors vectors, vector_m, vector_v;
	struct fixed_weights fixed;
};

struct state {
	struct backend *backend;
	struct block block;
	struct quantizer quantizer; /* that the weights are stored through; without a backend where they are not quantized */
	struct tuned_block *blocks; /* [config.layers] */
	struct end end;
	int64_t step, steps;  /* steps that are done, of so many */
	double before, after; /* the loss before the first step and behind the last, on the sequences that are looked at; NaN where
				 unknown */
	bool entered;         /* the block has something of the state's */
};

/* Where a state begins. */
struct state_source {
	const struct model *from; /* the output as the walk over the blocks has left it */
	const char *latents;      /* the file with the weights before they were rounded; NULL where they are those of `from` */
};

/* Takes the memory, for batches of up to `tokens` tokens, in sequences of `length`, and the weights of the source; moments are
 * 0. `model` is the dense one. On failure state_release frees what there is. */
enum status state_create(const struct spec *, const struct model *model, struct state_source, struct backend *,
			 enum dtype compute_type, int64_t tokens, int64_t length, struct state *ret, struct error *err);
void state_release(struct state *);

/* Brings block `index` into state->block: weight as the weights will be stored, rounded, or on their grids, and active the same.
 * Training sees what rounding does, and can make up for it; its gradient goes straight through. No block is loaded into it any
 * more. Fills the backend's error. */
enum status state_enter(struct state *, int index);

/* Brings all of it to a file, durably, under another name until it is whole, and back. A file of another size, or of other
 * numbers of steps, is STATUS_INVALID. */
enum status state_save(const struct state *, const char *path, struct error *err);
enum status state_load(struct state *, const char *path, struct error *err);

#endif
