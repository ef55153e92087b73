/* The quantizer of a block (besa.md section 3): the grid of each group of its weights, and, where it is learned, how strongly it
 * clips them. */
#ifndef BESAD_ENGINE_QUANTIZER_H
#define BESAD_ENGINE_QUANTIZER_H

#include "engine/model/block.h"
#include "engine/spec/spec.h"

/* Device memory, used again for each block. N groups in a row of a fused matrix. */
struct quantizer {
	struct block *block;
	struct backend *backend; /* NULL: there is no quantizer */
	int bits;
	int64_t group; /* weights of each; 0: a whole row is one */
	bool symmetric;
	struct tensor steps[FUSED_COUNT], zeros[FUSED_COUNT]; /* F32 [rows, N]: the grid that the weights were last brought to */
	/* Where it is learned: F32 [rows, N], or [rows, 2N] where it is not symmetric, with the optimizer's moments. Without
	 * data elsewhere. */
	struct tensor strength[FUSED_COUNT], gradient[FUSED_COUNT], m[FUSED_COUNT], v[FUSED_COUNT];
	struct tensor panel; /* F32: room for the gradient of some rows of weights */
	int taken;           /* steps of the running block */
};

/* Puts zeros into the gradient by the rows of a linear from its row `first` on, F32, where those are pruned. Fills the backend's
 * error. */
typedef enum status (*quantizer_mask_fn)(void *context, int linear, int64_t first, struct tensor gradient);

/* Whether pruning rates and clipping are learned together. */
bool quantization_is_joint(const struct spec *);

/* Whether weights are quantized behind the method and the refit. */
bool quantization_follows(const struct spec *);

/* `learns`: whether its clipping is learned by it. On failure quantizer_release frees what there is. */
enum status quantizer_create(const struct spec *, struct block *, bool learns, struct quantizer *ret, struct error *err);
void quantizer_release(struct quantizer *);

/* Of a fused matrix. */
struct grid quantizer_grid(const struct quantizer *, enum fused);

/* The operations below fill backend->error. */

/* to = the nearest on the grid of `from`; both as block->master or block->weight, and they may be the same. */
enum status quantizer_apply(struct quantizer *, const struct tensor from[FUSED_COUNT], const struct tensor to[FUSED_COUNT]);

/* What is learned is where it starts. */
enum status quantizer_begin(struct quantizer *);

/* Takes the gradient of a product, as product_gradient_fn, whose weights are block->weight, quantized and masked. */
enum status quantizer_gradient(struct quantizer *, int product, const struct product_gradient *, quantizer_mask_fn mask,
			       void *context);

/* A step of AdamW by the gradients of all products. */
enum status quantizer_step(struct quantizer *);

#endif
