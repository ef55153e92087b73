/* One transformer block: its weights on the device, and its forward and backward.
 *
 * Linears that read the same input lie one under the other in one "fused" matrix, so that a block is four large products instead of seven
 * small ones: q, k, v · o · gate, up · down. The frozen weights stay in the file's type; `active` holds what the products use, in the
 * compute type: the dense weights, or W ⊙ M.
 *
 *   n1 = norm(x)           qkv = n1·Wqkvᵀ (+ bias)     q, k = rope(q, k)     a = attention(q, k, v)     h = x + a·Woᵀ
 *   n2 = norm(h)           g, u = n2·Wguᵀ              s = act(g) ⊙ u        y = h + s·Wdᵀ
 *
 * Without a gate there is no u, and s = act(g).
 *
 * Where the family has q and k norms, each head of q and k is normalised before it turns; where it has output norms, a·Woᵀ and s·Wdᵀ are
 * normalised before they are added.
 *
 * T is the number of token rows of a batch (sequences one after the other), H the hidden size, I the intermediate size. */
#ifndef BESAD_ENGINE_BLOCK_H
#define BESAD_ENGINE_BLOCK_H

#include "engine/backend.h"
#include "engine/model/model.h"

enum fused { FUSED_QKV, FUSED_O, FUSED_MLP_IN, FUSED_MLP_OUT, FUSED_COUNT };
enum { BLOCK_MAX_LINEARS = 7 };

/* One prunable linear of a block: rows [first, first + rows) of a fused matrix. */
struct linear {
	const char *name; /* "q_proj": the key in events and reports */
	const char *path; /* "self_attn.q_proj": its place in weight names, but for `stored` */
	const char *
		stored; /* the place of the file's tensor that holds it, as rows [stored_first, stored_first + rows) of stored_rows */
	int64_t stored_first, stored_rows;
	enum fused fused;
	int64_t first, rows, cols;
	int64_t row; /* the first of its rows when the rows of all linears are counted through */
	bool bias;
};

struct block_layout {
	struct linear linears[BLOCK_MAX_LINEARS];
	int n_linears;
	int64_t fused_rows[FUSED_COUNT], fused_cols[FUSED_COUNT];
	int64_t fused_row[FUSED_COUNT]; /* counted through, as linear.row */
	int64_t rows, params;           /* of all linears */
};
void block_layout_init(const struct model_config *, struct block_layout *ret);

/* Device memory of one block, used again for each block. */
struct block {
	const struct model_config *config;
	struct block_layout layout;
	struct backend *backend;
	enum dtype file_type, compute_type;
	struct tensor weight[FUSED_COUNT];      /* frozen, file_type */
	struct tensor active[FUSED_COUNT];      /* compute_type */
	struct tensor bias[FUSED_COUNT];        /* F32 [1, rows]; no data where there is none */
	struct tensor norm1, norm2;             /* F32 [1, H] */
	struct tensor norm1_bias, norm2_bias;   /* F32 [1, H]; no data where there are none */
	struct tensor q_norm, k_norm;           /* F32 [1, head_dim]; no data where there are none */
	struct tensor attention_norm, mlp_norm; /* output norms, F32 [1, H]; no data where there are none */
	struct tensor rope, local_rope;         /* F32 [positions, rotary]; the latter, where it has data, of sliding layers */
	int64_t window;                         /* of the block that is loaded */
};

enum status block_create(const struct model *, struct backend *, enum dtype compute_type, int64_t sequence_length,
			 struct block *ret, struct error *err);
void block_release(struct block *);

/* Checks that every tensor of every block is there with the shape and a type that can be used. */
enum status block_check(const struct model *, struct error *err);

/* Reads block `index` into `weight`, the biases and the norms. */
enum status block_load(struct block *, const struct model *, int index, struct error *err);

/* Where the file holds `linear` of block `index`: its rows of a tensor, described as a tensor of their own. The name is that of the
 * whole tensor and stays the checkpoint's. */
enum status block_linear_tensor(const struct model *, const struct linear *, int index, struct tensor_info *ret, struct error *err);

/* active = weight. The operations of the rest of this header fill block->backend->error. */
enum status block_activate_dense(struct block *);

/* Activations of one batch, kept for the backward. */
struct activations {
	int batch;
	int64_t tokens;                                     /* per sequence */
	struct tensor n1, qkv, attention, n2, gate_up, mlp; /* compute type */
	struct tensor h;                                    /* F32 [T,H] */
	struct tensor qk; /* compute type: q and k normalised and turned, where there are q and k norms */
	struct tensor stats1, stats2, stats_q, stats_k, lse; /* F32 */
	struct tensor dmlp, dn2, dqkv, dattention,
		dhalf;               /* of the backward: compute type; without data unless `backward` was asked for */
	struct tensor dqk, dqk_wide; /* with q and k norms: compute type; F32, unless that is the compute type */
	/* With output norms: F32 [T,H] what the two linears gave, F32 statistics, and the gradient of what they gave. */
	struct tensor attention_output, mlp_output, stats_attention, stats_mlp, doutput;
	void *memory;
};

/* Room for batches of up to `batch` sequences of `tokens`. */
enum status activations_create(const struct block *, int batch, int64_t tokens, bool backward, struct activations *ret,
			       struct error *err);
void activations_release(struct activations *, struct backend *);

/* y [T,H] = block(x [T,H]), both F32, T = batch · tokens with batch ≤ the activations' room. `sums`, where not NULL, are device F64 arrays
 * [cols] per fused matrix that receive the squared column norms of its input. y must not be x. */
enum status block_forward(const struct block *, struct activations *, int batch, struct tensor x, struct tensor y,
			  void *const *sums);

/* The input and the gradient of the output of a fused matrix. */
struct fused_gradient {
	struct tensor dy, x; /* compute type [T, rows], [T, cols] */
};
/* Called for each fused matrix, from the last to the first, while its tensors are valid. */
typedef enum status (*fused_gradient_fn)(void *context, enum fused fused, const struct fused_gradient *gradient);

/* The backward of the last block_forward, from dy F32 [T,H], which it overwrites. The gradient of x is not computed: nothing needs it. */
enum status block_backward(const struct block *, struct activations *, int batch, struct tensor dy, fused_gradient_fn use,
			   void *context);

#endif
