/* A pruning method: how it decides which weights of a block go, and what the others become. The walk over the blocks
 * (engine/prune/) loads a block, runs the passes and brings the result to disk; a method sees one block after the other, and
 * none of that. */
#ifndef BESAD_ENGINE_METHOD_H
#define BESAD_ENGINE_METHOD_H

#include <stdatomic.h>

#include "engine/job/diagnosis.h"
#include "engine/model/block.h"
#include "engine/prune/mask.h"
#include "engine/prune/stream.h"
#include "engine/quantize/quantizer.h"
#include "engine/spec/spec.h"

/* What stays the same from block to block. */
struct method_setup {
	const struct spec *spec;
	const struct model *model;
	struct block *block;         /* where each block is loaded */
	struct quantizer *quantizer; /* of its weights; NULL where they are not quantized */
	int64_t sequences, tokens;   /* of the calibration: how many, and of each; 0 sequences where there is none */
	bool orders;                 /* the orders of ranks may be kept beside them, 2 bytes a weight, for speed */
	const atomic_bool *stop;     /* to be read between pieces of work: STATUS_CANCELLED where it is set */
};

/* A step of what learns. */
struct method_step {
	int step, steps; /* 1 … steps */
	double loss, reconstruction, sparsity;
	double share; /* as in struct block_task */
};

/* The block that is to be pruned. It is loaded, as it is in the file; without a calibration `input` and `reference` are NULL. */
struct block_task {
	int index;
	double target;            /* the share of its weights that are to be zero: round(target · layout.params) of them */
	double next_target;       /* the same of the next block, where there is one */
	struct stream *input;     /* what goes into it: of the pruned blocks before it */
	struct stream *reference; /* what it shall give */
	double share;             /* of the method's work that steps are; 0 for all of it */
	/* Tells that importance is known and learning begins, and a step, after the first, the last, and now and then between. */
	enum status (*ranked)(void *context, struct error *err);
	enum status (*step)(void *context, const struct method_step *, struct error *err);
	/* Tells people of something about this block; the block's number is put before it. */
	enum status (*warn)(void *context, const char *message, struct error *err);
	enum status (*find)(void *context, const struct finding *, struct error *err); /* the same, of a rule of diagnosis.h */
	/* Runs the block, with what is in block->active now, over all of `input`, for the observer. */
	enum status (*pass)(void *context, const struct observer *, struct error *err);
	/* Runs the block, with what is in block->active now, over the first `sequences` of `input`, the first `tokens` of each: ret
	 * [sequences] receives the reconstruction loss of each. */
	enum status (*losses)(void *context, int64_t sequences, int64_t tokens, double *ret, struct error *err);
	void *context;
};

struct block_outcome {
	float *rates;      /* [layout.rows], host, to be filled: the share of its weights that each row loses */
	struct mask *mask; /* which those are; the method's. NULL where they are zero already: in block->master, or block->weight */
	bool masters;      /* block->master is filled, though the method does not always do that */
	double start;      /* the mean reconstruction loss that it was to improve on; NaN, as it comes, for none */
};

struct method {
	/* In forward passes of the calibration through a block, what pruning it takes beside the passes of the walk; NULL for
	 * nothing. */
	double (*work)(const struct spec *);

	/* Whether the reference is what the dense model gives on its own activations, instead of the dense block on the pruned
	 * model's; NULL for no. */
	bool (*dense_stream)(const struct spec *);

	/* The most sequences that it asks of the streams at once; NULL for 1. */
	int64_t (*batch)(const struct spec *);

	/* Takes the memory that pruning needs, so that what will not fit fails before the first block. */
	enum status (*create)(const struct method_setup *, void **ret, struct error *err);
	void (*destroy)(void *method); /* takes NULL */

	/* Where it looks at the inputs of a block's products: `begin` before the reference pass of a block, `observe` as in
	 * struct observer, with `method` as its context. Both fill the backend's error. NULL where it does not. */
	enum status (*begin)(void *method);
	enum status (*observe)(void *method, int product, struct tensor x);

	/* Prunes the block, which block->active holds dense. It may change block->weight, in the file's type, or, with
	 * `masters`, fill block->master; where `changes_weights` is set, also those that are zero already. */
	enum status (*prune)(void *method, const struct block_task *, struct block_outcome *, struct error *err);

	bool changes_weights, masters;

	/* What people are to know of a job before it begins, as that something it could do is not done here; NULL for nothing. */
	const char *(*caution)(const struct spec *);

	/* The loss that is reported of a block, from its target, its reconstruction loss and its sparsity; NULL for the second. */
	double (*loss)(const struct spec *, double target, double reconstruction, double sparsity);
};

/* That of METHOD_NONE, whose sparsity is 0, is magnitude's, which keeps all weights then: what prunes nothing still goes over
 * the blocks to quantize them. */
const struct method *method_find(enum method_id);

#endif
