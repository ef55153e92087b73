/* One transformer block: its weights on the device, and its forward and backward.
 *
 * Linears that read the same input lie one under the other in one "fused" matrix (engine/model/layout.h), so that a block is
 * four large products instead of seven small ones. The frozen weights stay in the file's type; `active` holds what the products
 * use, in the compute type: the dense weights, or W ⊙ M.
 *
 *   n1 = norm(x)           qkv = n1·Wqkvᵀ (+ bias)     q, k = rope(q, k)     a = attention(q, k, v)     h = x + a·Woᵀ
 *   n2 = norm(h)           g, u = n2·Wguᵀ              s = act(g) ⊙ u        y = h + s·Wdᵀ
 *
 * Where attention and the MLP are parallel, n2 is norm2(x), or n1 where there is no norm2.
 * Without a gate there is no u, and s = act(g). With experts there are many such MLPs: engine/model/experts.h.
 *
 * Where the family has q and k norms, each head of q and k, or all of it, is normalised before it is rotated; where it has no
 * norms before the sublayers, n1 is x and n2 is h; where it has output norms, a·Woᵀ and s·Wdᵀ are normalised before they are
 * added; where it has a residual scale, they are multiplied by it.
 *
 * T is the number of token rows of a batch (sequences one after the other), H the hidden size, I the intermediate size. */
#ifndef BESAD_ENGINE_BLOCK_H
#define BESAD_ENGINE_BLOCK_H

#include "engine/compute/backend.h"
#include "engine/model/experts.h"
#include "engine/model/layout.h"
#include "engine/model/model.h"
#include "engine/model/vectors.h"

/* What of a block nothing changes. Those that the family lacks are without data. */
struct fixed_weights {
	struct tensor router;                        /* compute type [experts, H], with a shared one's gate as the last row */
	struct tensor router_bias;                   /* F32 [1, experts] */
	struct tensor sinks;                         /* F32 [1, heads] */
	struct tensor gate_bias, up_bias, down_bias; /* of the experts, F32 [experts, I], the last [experts, H] */
};

/* Device memory of one block, used again for each block. */
struct block {
	const struct model_config *config;
	struct block_layout layout;
	struct backend *backend;
	enum dtype file_type, compute_type;
	struct tensor weight[FUSED_COUNT];      /* frozen, file_type */
	struct tensor spare[FUSED_COUNT];       /* as weight, of another block; no data unless block_add_spare was called */
	int spare_index;                        /* of the block whose weights are in `spare` as they are in the file; -1 for none */
	struct tensor active[FUSED_COUNT];      /* compute_type */
	struct tensor bias[FUSED_COUNT];        /* F32 [1, rows]; no data where there is none */
	struct tensor norm1, norm2;             /* F32 [1, H]; no data where there are none */
	struct tensor norm1_bias, norm2_bias;   /* F32 [1, H]; no data where there are none */
	struct tensor q_norm, k_norm;           /* F32 [1, head_dim or all of q or k]; no data where there are none */
	struct tensor attention_norm, mlp_norm; /* output norms, F32 [1, H]; no data where there are none */
	struct fixed_weights fixed;
	struct tensor rope, local_rope;    /* F32 [positions, rotary]; the latter, where it has data, of sliding layers */
	struct tensor query_rope;          /* the same of queries, which it scales; no data where there is none */
	struct tensor master[FUSED_COUNT]; /* F32, as weight: see block_add_masters */
	struct tensor rounding;            /* device room for the longest vector, with the masters */
	int64_t window;                    /* of the block that is loaded */
	bool still;                        /* its q and k do not turn */
	int64_t zeros, spare_zeros;        /* of the linears of the block that was read into `weight` and into `spare` */
};

enum status block_create(const struct model *, struct backend *, enum dtype compute_type, int64_t sequence_length,
			 struct block *ret, struct error *err);
void block_release(struct block *);

/* The type of a checkpoint's linears, which block_check has found to be one. */
enum status block_file_type(const struct model *, const struct block_layout *, enum dtype *ret, struct error *err);

/* Checks that every tensor of every block is there with the shape and a type that can be used. */
enum status block_check(const struct model *, struct error *err);

/* A second set of weights: what is in `weight` goes there when the next block is loaded, and stays until one is fetched. */
enum status block_add_spare(struct block *, struct error *err);

/* Reads the linears of block `index` into `spare`, beside operations that use the rest. Where it fails, block_load will say why. */
enum status block_fetch(struct block *, const struct model *, int index, struct error *err);

/* Tells it which block of the model it is, as far as its weights do not: whether it has a window, and turns q and k. block_load
 * does it too. */
void block_set_index(struct block *, int index);

/* How its tokens look at each other, in `batch` sequences of `tokens` tokens each. */
struct attention block_attention(const struct block *, int batch, int64_t tokens);

/* Reads block `index` into `weight`, the biases and the norms; the linears were fetched, or are read now. With a spare the
 * weights that were there change places with it. */
enum status block_load(struct block *, const struct model *, int index, struct error *err);

/* Where the file holds `linear` of block `index`: its rows of a tensor, described as a tensor of their own, also where they lie
 * transposed. The name is that of the whole tensor and stays the checkpoint's. */
enum status block_linear_tensor(const struct model *, const struct linear *, int index, struct tensor_info *ret, struct error *err);

/* Reads them as they lie in memory, checked as by model_read. The caller frees *ret. */
enum status block_read_linear(const struct model *, const struct linear *, int index, struct tensor_info *ret_info, void **ret,
			      struct error *err);

/* A vector of a block: a norm's weight or bias, or a linear's bias. */
struct block_vector {
	const char *path, *kind; /* the last parts of its name … */
	int head;                /* … with the head's number between, of a norm whose heads have a tensor each; else -1 */
	int64_t rows;            /* of the matrix that it is in the file; 0 where it is a vector there */
	int64_t length;
	struct tensor values;        /* F32 [1, length]; without data while no block is loaded */
	const struct linear *linear; /* whose bias it is; NULL of a norm */
};
enum { BLOCK_TENSOR_NAME = 160 };

/* The i-th of them, the norms' first; false where there are no more. */
bool block_vector(const struct block *, int i, struct block_vector *ret);

/* The file's tensor of it in block `index`. */
enum status block_vector_tensor(const struct model *, const struct block_vector *, int index, const struct tensor_info **ret,
				struct error *err);

/* active = weight, or what is given as weights. The operations of the rest of this header fill block->backend->error. */
enum status block_activate_dense(struct block *);
enum status block_activate(struct block *, const struct tensor weights[FUSED_COUNT]);

/* The rows of a product in an array of the fused matrices, such as block->active. */
static inline struct tensor block_product(const struct block *block, const struct tensor fused[FUSED_COUNT], int product)
{
	const struct product *p = &block->layout.products[product];
	return tensor_rows(fused[p->fused], p->first, p->rows);
}

/* Gate and up of the first linear's outputs; up is without data where there is no gate. */
static inline struct tensor block_gate(const struct model_config *config, struct tensor gate_up)
{
	return tensor_cols(gate_up, 0, config->gated_mlp ? gate_up.cols / 2 : gate_up.cols);
}

static inline struct tensor block_up(const struct model_config *config, struct tensor gate_up)
{
	return config->gated_mlp ? tensor_cols(gate_up, gate_up.cols / 2, gate_up.cols / 2) : (struct tensor){0};
}

/* Activations of one batch, kept for the backward. */
struct activations {
	int batch;
	int64_t tokens;                                     /* per sequence */
	struct tensor n1, qkv, attention, n2, gate_up, mlp; /* compute type; with experts the last two are without data */
	struct expert_activations experts;                  /* unused where there are none */
	struct tensor h;                                    /* F32 [T,H] */
	struct tensor qk; /* compute type: q and k normalised and rotated, where there are q and k norms */
	struct tensor stats1, stats2, stats_q, stats_k, lse; /* F32 */
	struct tensor dmlp, dn2, dqkv, dattention,
		dhalf;               /* of the backward: compute type; without data unless `backward` was asked for */
	struct tensor dqk, dqk_wide; /* with q and k norms: compute type; F32, unless that is the compute type */
	/* With output norms or a residual scale: F32 [T,H] what the two linears gave, F32 statistics, and the gradient of what
	 * they gave. */
	struct tensor attention_output, mlp_output, stats_attention, stats_mlp, doutput;
	void *memory;
};

/* Room for batches of up to `batch` sequences of `tokens`. */
enum status activations_create(const struct block *, int batch, int64_t tokens, bool backward, struct activations *ret,
			       struct error *err);
void activations_release(struct activations *, struct backend *);

/* The same memory for sequences of fewer tokens, which must not be released. */
struct activations activations_of_starts(const struct block *, const struct activations *, int64_t tokens);

/* y [T,H] = block(x [T,H]), both F32, T = batch · tokens with batch ≤ the activations' room. `observer` may be NULL; where it
 * ends the pass, y is not what the block gives. y must not be x. */
enum status block_forward(const struct block *block, struct activations *, int batch, struct tensor x, struct tensor y,
			  const struct observer *observer);

/* The halves of it, one after the other: attention's leaves h in the activations, and the MLP's goes on from there. The second
 * is not to be called where the observer ended the first. */
enum status block_forward_attention(const struct block *block, struct activations *, int batch, struct tensor x,
				    const struct observer *observer);
enum status block_forward_mlp(const struct block *block, struct activations *, int batch, struct tensor y,
			      const struct observer *observer);

/* What a backward is to give besides: the gradients of a block's vectors, and of its input. */
struct vector_gradients {
	struct tensor x;        /* what went into the last block_forward */
	struct vectors vectors; /* those without data are not computed */
	bool input;             /* dy becomes the gradient of x */
};

/* The backward of the last block_forward, from dy F32 [T,H], which it overwrites: with the gradient of x where that is wanted.
 * `use` may change the active weights of its product: nothing after it reads them. `vectors` may be NULL. */
enum status block_backward(const struct block *, struct activations *, int batch, struct tensor dy, product_gradient_fn use,
			   void *context, const struct vector_gradients *vectors);

/* Of one half of the last forward, from the gradient of what it gave, h or y: those of its own products. */
enum status block_backward_attention(const struct block *, struct activations *, int batch, struct tensor dh,
				     product_gradient_fn use, void *context);
enum status block_backward_mlp(const struct block *, struct activations *, int batch, struct tensor dy, product_gradient_fn use,
			       void *context);

#endif
