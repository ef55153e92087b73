/* Progress perplexity: a few sequences follow the pruned blocks, and after a block run ahead through the blocks that are still
 * dense, and the head. What comes out is the perplexity of the model as it is then: pruned so far, dense from there on.
 *
 * What that costs is known beforehand in token-blocks (one token's forward through one block), so which blocks are probed
 * follows from the spec, the model and the kind of device alone: the same in every run. */
#ifndef BESAD_ENGINE_PROBE_H
#define BESAD_ENGINE_PROBE_H

#include <stdatomic.h>

#include "engine/model/block.h"
#include "engine/prune/stream.h"
#include "engine/spec/spec.h"
#include "engine/text/corpus.h"

enum { PROBE_MOST_SEQUENCES = 8 };

struct probe_plan {
	int64_t sequences; /* 0: no block is probed */
	bool *due;         /* [layers] */
};

/* `every`: as struct spec.probe_every. `block_work`: token-blocks that pruning one block takes. `available`: sequences of
 * `length` tokens there are. `unified`: weights need not be moved to a device. The caller frees ret->due. */
enum status probe_plan(const struct model_config *, int every, double block_work, int64_t available, int64_t length, bool unified,
		       struct probe_plan *ret, struct error *err);

struct probe {
	const struct model *model;
	struct block *block;             /* the walk's */
	struct activations *activations; /* the walk's, without a backward between the calls here */
	int batch;                       /* sequences that they have room for */
	struct tensor y;                 /* the walk's room for a batch of outputs, F32 [batch · length, H] */
	const atomic_bool *stop;
	const struct sequences *tokens;
	const struct probe_plan *plan; /* its sequences ≥ 1 */
	struct stream behind, ahead;   /* hidden states behind the last pruned block; those that run ahead */
};

/* Room for the plan's sequences, once the rest is filled in. What the walk lends must live as long. */
enum status probe_create(struct probe *, struct error *err);
void probe_release(struct probe *);

/* The hidden states in front of the first block. */
enum status probe_embed(struct probe *, struct error *err);

/* The dense model's perplexity on the sequences, to compare with; right after probe_embed. Overwrites the block's weights. */
enum status probe_dense(struct probe *, double *ret, struct error *err);

/* Sends the sequences through the loaded, active block `index`, which nothing stops, and where that block is due through all
 * later ones, which overwrite the block's weights. *ret is the perplexity, or NAN where it was not due or is not finite. */
enum status probe_advance(struct probe *, int index, double *ret, struct error *err);

#endif
