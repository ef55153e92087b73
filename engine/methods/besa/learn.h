/* BESA's learning: the pruning rates of one block by gradient descent on its reconstruction loss (besa.md section 1, steps 4 to
 * 9). */
#ifndef BESAD_ENGINE_BESA_LEARN_H
#define BESAD_ENGINE_BESA_LEARN_H

#include "engine/methods/besa/groups.h"
#include "engine/methods/besa/loss_watch.h"
#include "engine/methods/besa/parts.h"
#include "engine/methods/method.h"
#include "engine/quantize/quantizer.h"

/* Device memory of the learnables, used again for each block. G groups: what has a rate of its own. */
struct besa {
	const struct spec *spec;
	struct block *block;
	const struct mask *mask;     /* its ranks */
	struct quantizer *quantizer; /* learned too, and in block->master what it makes of the weights; NULL for none */
	struct besa *second; /* the next block's rates, which learn with these by what that block gives; NULL: these alone */
	struct backend *backend;
	struct groups groups;
	struct part parts[FUSED_COUNT]; /* n_parts */
	const struct part *part;        /* that learns */
	int n_parts;
	struct rates rates;
	struct tensor bin[FUSED_COUNT]; /* U8, as block.weight */
	/* Where masks are moved from step to step: the columns of each row in the order of their ranks, U16, as block.weight, and
	 * what the rows of block.active are masked by, I32 [layout.rows], which `moves` says that is known. */
	struct tensor order[FUSED_COUNT];
	void *held;
	bool moves;
	struct tensor theta, theta0, beta, gradient; /* F32 [G,D] */
	struct tensor m, v, s;                       /* F32 [G,D], of the optimizer */
	struct tensor sums;                          /* F32 [G,D−1] */
	struct tensor row_sums;                      /* F32 [layout.rows,D−1], where groups are some rows */
	void *rate, *threshold, *stats, *prodigy, *cols,
		*share; /* F32 [G], I32 [G], F64 [STEP_STATS], F64 [PRODIGY_STATE], I32 [G], F64 [G] */
	struct activations activations;
	struct tensor y, dy; /* F32 [batch·tokens, H]; y as parts_room says; dy is not there by layer */
	/* Of parts: what dense weights give, F32, and, by layer, the gradient of a product, compute type, both as parts_room
	 * says. */
	struct tensor dense, dproduct;
	/* Where steps are recorded: their inputs, F32 [batch·tokens, H], without data where none is. */
	struct tensor x, wanted;
	struct recording *step; /* of the running block; NULL until there is one */
	bool unrecorded;        /* the next whole step is to be recorded */
	double target;          /* what learning aims at: besa_aim */
	float *theta_start;     /* host [G,D]: θ₀ */
	/* How far steps go: the settings', and less behind a divergence. */
	double d_coef, learning_rate;
	int taken; /* steps since the optimizer began, or began again */
	/* Where learning is watched: θ where the running window began and where the best one did, F32 [G,D], and what the
	 * window's steps came to, device F64 [WATCH_STEPS, STEP_STATS]. Without data elsewhere. */
	struct tensor mark, kept;
	void *window;
};

/* What is seen of a block's learning while it goes on. A window of steps that diverges is undone: θ is again where the best
 * window began, and the optimizer begins again, with smaller steps. */
struct besa_watch {
	struct loss_watch watch;
	int divergences;
	int at, back; /* of the last one: behind which step it was seen, and behind which one learning went on */
	/* Of the first: of its window, of the same sequences at the start, and as the best window so far has it. */
	double loss, began, best;
	int first, mark, kept; /* of the first: as `at`; the steps behind which the running and the best window began */
};

/* Whether a learning step is recorded once a block and then replayed: where its operations are so small that launching them
 * would take longer than they do. With experts each step has its own shapes, AdamW's has its number, and of two blocks none is
 * recorded. `tokens` of a sequence, `params` of a block. */
bool besa_records(const struct spec *, const struct model_config *, const struct backend *, int64_t tokens, int64_t params);

static inline bool besa_learns_whole(const struct spec *spec)
{
	return spec->besa.reconstruct == RECONSTRUCT_BLOCK || spec->besa.reconstruct == RECONSTRUCT_TWO_BLOCKS;
}

/* Whether learning is watched while it goes on: against the losses of the block, which are not those of its parts, or of two
 * blocks. */
static inline bool besa_watches(const struct spec *spec)
{
	return spec->besa.safeguards && spec->besa.reconstruct == RECONSTRUCT_BLOCK;
}

/* `quantizer` as in struct besa. */
enum status besa_create(const struct spec *, struct block *, const struct mask *, struct quantizer *, int64_t tokens,
			struct besa *ret, struct error *err);
void besa_release(struct besa *);

/* Memory, 2 bytes a weight, for masks that are moved from step to step where that changes few weights, instead of written whole;
 * does nothing where it does not: by backends without move_mask, of weights that a quantizer changes with each step, of parts,
 * whose dense weights come in between, and of groups of some rows. What is learned is the same to the bit. */
enum status besa_add_orders(struct besa *, struct error *err);

/* Learning of the blocks from now on aims at this sparsity, which is above 0, instead of the spec's. */
void besa_aim(struct besa *, double target);

/* Learns the rates of the block that is loaded and ranked. rates [layout.rows], on the host, receives the learned rate of every
 * row;
 * *ret_last the last step. Reads `stop` before each step. `watch`, with watch.start set, where the spec has safeguards; else
 * NULL. */
enum status besa_learn(struct besa *, const struct block_task *, const atomic_bool *stop, struct besa_watch *watch, float *rates,
		       struct method_step *ret_last, struct error *err);

/* The rates where the best window of the learning just watched began. Fills backend->error. */
enum status besa_best_rates(struct besa *, float *rates);

/* The gradient of the loss of besa->part by θ for sequences first …, in besa->gradient, with the masks of the current θ. What a
 * step does before the optimizer; of use to tests. Fills backend->error. */
enum status besa_gradient(struct besa *, struct stream *x, struct stream *reference, int64_t first, int64_t count);

/* What a part's gradient is made of, by parts.c. They fill backend->error. */

/* From θ of the part to rates and thresholds. */
enum status besa_find_rates(struct besa *);

/* From thresholds to masked weights in block->active, of a product. */
enum status besa_mask_product(struct besa *, int product);

/* Both, of the part. */
enum status besa_update_masks(struct besa *);

/* Sums ∂L/∂(W ⊙ M) ⊙ W of a product into the bins of its groups; `context` is the struct besa. */
enum status besa_bin_gradient(void *context, int product, const struct product_gradient *);

#endif
