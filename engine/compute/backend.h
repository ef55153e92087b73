/* The compute interface: a few dozen tensor operations that engine/compute/cpu/ and cuda/ implement.
 *
 * Contract of every operation
 *  - It returns a status and, on failure, fills `backend->error` with the operation, the reason and the sizes. It never exits.
 *  - Operations run in the order they were issued. They may run asynchronously; `download` and `sync` wait.
 *  - Tensors are row-major views (engine/compute/tensor.h). "any float" means F32, BF16 or F16, each tensor with its own;
 * arithmetic and accumulation are fp32 or better. Where nothing is said, a tensor is F32 and may have gaps between its rows.
 *  - The same inputs, machine and thread count give the same bits.
 *  - Inputs and outputs do not overlap, unless the comment says so.
 *
 * Notation: T tokens (rows of all sequences of a batch, one after the other), H hidden size, R × C a weight (outputs × inputs),
 * D candidate rates, G groups: the units that own one θ each (a row of a linear when row-wise, a whole linear when layer-wise).
 * tests/backend/ runs every operation of every backend against a double-precision reference. */
#ifndef BESAD_ENGINE_BACKEND_H
#define BESAD_ENGINE_BACKEND_H

#include <stdbool.h>

#include "base/error.h"
#include "engine/compute/tensor.h"

struct backend;
struct dry;
struct recording; /* operations that a backend has noted */

enum norm_kind { NORM_RMS, NORM_LAYER };

struct norm {
	enum norm_kind kind;
	float eps;
	float weight_offset; /* y = x̂ · (weight + offset); 1 for Gemma, else 0 */
	int groups;          /* a row is `groups` vectors of cols/groups, normalised each; 1 but for q/k norms (= heads) */
};

/* The last is gpt-oss's: with g = min(gate, limit) and u = up clamped to ±limit, y = (u + 1)·g·sigmoid(alpha·g) instead of a
 * product with up. */
enum activation_kind { ACTIVATION_SILU, ACTIVATION_GELU_TANH, ACTIVATION_GELU, ACTIVATION_RELU, ACTIVATION_CLAMPED_SWIGLU };

struct activation {
	enum activation_kind kind;
	float alpha, limit; /* of CLAMPED_SWIGLU, above 0; of the others nothing */
};

/* Rotary embeddings: the first `rotary` of every `head_dim` columns turn in pairs, column i with i + rotary/2, or, where they
 * are neighbours, 2i with 2i + 1. */
struct rotation {
	int head_dim, rotary;
	bool neighbours;
	bool inverse; /* turns back: the gradient */
};

/* Causal self-attention over T = batch · tokens rows; query head h reads key/value head h / (heads / kv_heads). */
struct attention {
	int batch, tokens;
	int heads, kv_heads, head_dim;
	float scale;    /* logits are multiplied by this: 1/sqrt(head_dim) as a rule */
	float softcap;  /* logits become softcap · tanh(logits / softcap); 0 for none */
	int64_t window; /* a query sees the last `window` keys, itself included; 0 for all */
};

/* How tokens find their experts: each goes to the `chosen` of `experts` with the largest logits, the lower index first where
 * they tie. Its weight of an expert is the softmax over all experts, or, where `normalise` is set, over the chosen. A shared
 * expert is the last of the experts and the last of every token's chosen, with the sigmoid of its logit as weight; the rest is
 * as if it were not there. */
struct routing {
	int experts, chosen; /* up to ROUTE_MAX_EXPERTS, 1 … experts; with a shared one, that is counted in both */
	bool normalise, shared;
};
enum { ROUTE_MAX_EXPERTS = 512 };

/* The rows of what goes through experts are grouped by expert, in the order of their tokens; the first of an expert's rows is a
 * multiple of ROUTE_GRAIN: products of many different heights would each want a plan of their own. */
enum { ROUTE_GRAIN = 16 };

/* The rows that an expert of so many tokens takes. */
static inline int64_t routing_span(int64_t tokens)
{
	return (tokens + ROUTE_GRAIN - 1) / ROUTE_GRAIN * ROUTE_GRAIN;
}

/* The most rows that `tokens` tokens can take. */
static inline int64_t routing_rows(const struct routing *routing, int64_t tokens)
{
	return tokens * routing->chosen + (int64_t)routing->experts * (ROUTE_GRAIN - 1);
}

enum parameterization { PARAM_SIGMOID, PARAM_SOFTMAX }; /* β = softmax(sigmoid(θ)) or softmax(θ): besa.md 1.5 and 2 */
/* What orders weights. A backend knows the first two; what ranks by the others (engine/methods/one_shot/importance.h) makes one
 * of these of them. */
enum importance {
	IMPORTANCE_WANDA,
	IMPORTANCE_MAGNITUDE,
	IMPORTANCE_SPARSEGPT,
	IMPORTANCE_SPARSEGPT_PUBLISHED,
	IMPORTANCE_GRADIENT
};

/* N:M: of each `of` neighbouring weights of a row `keep` are kept; `of` is 0 where any weight may go, else 2 … PATTERN_MOST. */
struct pattern {
	int keep, of;
};
enum { PATTERN_MOST = 32 };
/* Which elements of a matrix [R,C] go: those of the smallest magnitude, of equal ones the earlier, row by row. */
struct cut {
	struct pattern pattern; /* of each `of` neighbours only the of − keep smallest may go, and each row loses the same number */
	int64_t zeros;          /* how many go: of the whole matrix; of each row where there is a pattern */
	const void *row_zeros; /* device I32 [R]: how many of each row go, instead of `zeros`; NULL for `zeros` */
};

/* The values that weights may take (besa.md section 3): in each row, each `group` neighbours have a step h and a zero point z,
 * and a weight is (code − z)·h, its code one of 2^bits whole numbers. Symmetric: z = 0, and codes are −2^(bits−1) … 2^(bits−1) −
 * 1; else 0 … 2^bits − 1. */
struct grid {
	int bits; /* 2 to 8 */
	bool symmetric;
	int64_t group;   /* divides the columns, which are all one group where it is their number */
	enum dtype step; /* the float type that h is rounded to: what is stored of it */
};

enum { FACTOR_TILE = 64, PRUNE_COLUMNS = 128 }; /* the most that `invert_factor` and `prune_columns` take at once */

/* Rates are cut off at both ends in so many parts of the whole. */
enum { CANDIDATES_WHOLE = 1000000, BIN_NONE = 255 };

/* The learnable rates of one block. The candidates stand equally spaced between `below` and 1 − `above`, from the largest to the
 * smallest: with w = 1 − below − above, p_d = below + w·(D − 1 − d) / (D − 1). */
struct rates {
	enum parameterization parameterization;
	int candidates;    /* D, 2 to 256 */
	int64_t groups;    /* G */
	const void *cols;  /* device I32 [G]: C of the linear that group g prunes */
	const void *share; /* device F64 [G]: the group's weights / all weights of the block; they add up to 1 */
	int below, above;  /* in parts of CANDIDATES_WHOLE; less than it together */
};

/* Prodigy (arXiv 2306.06101, Algorithm as published with BESA; besa.md 1.9), lr 1, no decay, no bias correction. */
struct prodigy {
	float beta1, beta2, eps;
	double d_coef;
};
/* Device F64 state of Prodigy: set to {d0, d0, d0, 0} before the first step. */
enum { PRODIGY_D, PRODIGY_D_MAX, PRODIGY_D0, PRODIGY_R, PRODIGY_STATE };

struct adamw {
	float lr, beta1, beta2, eps, weight_decay;
	int step;        /* 1 for the first */
	bool keep_zeros; /* a parameter that is 0 stays 0, and its moments as they are */
};

/* What the learning loop reads back of a step; device F64, see `rates_forward` and `reconstruction`. */
enum { STEP_RECONSTRUCTION, STEP_SPARSITY, STEP_SLOPE, STEP_STATS };

struct backend_ops {
	void (*destroy)(struct backend *);

	/* ---- memory ---------------------------------------------------------------------------------------------------- */
	enum status (*alloc)(struct backend *, size_t bytes, void **ret); /* 256-byte aligned; `bytes` 0 gives a valid pointer */
	void (*release)(struct backend *, void *);                        /* takes NULL; waits for what uses the memory */
	enum status (*upload)(struct backend *, void *device, const void *host, size_t bytes);
	enum status (*download)(struct backend *, void *host, const void *device, size_t bytes); /* done when it returns */
	/* The same beside the operations: one other thread at a time may call these while operations run. They are done when
	 * they return and take no part in the order: meanwhile no operation that has not been waited for may touch what is
	 * uploaded, or write to what is downloaded. */
	enum status (*side_upload)(struct backend *, void *device, const void *host, size_t bytes, struct error *err);
	enum status (*side_download)(struct backend *, void *host, const void *device, size_t bytes, struct error *err);
	/* Host memory that upload and download go to and from directly. What is uploaded from there must stay as it is until the
	 * operations up to then have been waited for. */
	enum status (*alloc_host)(struct backend *, size_t bytes, void **ret);
	/* Uploads from such memory beside operations; NULL where the device's memory is the host's. `fetch` starts when the
	 * operations before it are done and returns at once; what was fetched may be used by the operations after the next
	 * `fetched`, and no other may touch it until then. */
	enum status (*fetch)(struct backend *, void *device, const void *host, size_t bytes);
	enum status (*fetched)(struct backend *);
	void (*release_host)(struct backend *, void *);                                  /* takes NULL; waits for what uses it */
	enum status (*copy)(struct backend *, void *to, const void *from, size_t bytes); /* device to device */
	enum status (*zero)(struct backend *, void *device, size_t bytes);
	enum status (*sync)(struct backend *);
	enum status (*memory)(struct backend *, size_t *ret_free, size_t *ret_total); /* bytes the device has, and has left */

	/* NULL where the device's memory is the host's. The bytes that a job of this backend can have when no other runs on it:
	 * what is free, and what the backend has. Any thread may ask at any time while the backend is there. */
	enum status (*room)(struct backend *, size_t *ret, struct error *err);

	/* A dry backend (engine/compute/dry.h) of the same device, with `capacity` bytes of its memory, of which what the
	 * backend takes for itself is in use. It is destroyed as any other, and makes further ones: as these ask nothing of the
	 * device, one that is made while no other thread uses `backend` serves a thread of its own from then on. */
	enum status (*dry)(struct backend *, size_t capacity, struct backend **ret);

	/* Operations as one, for devices on which a launch costs more than a small operation; NULL elsewhere. Between
	 * `record_begin` and `record_end` operations are noted instead of run; they must not allocate, and not transfer to or
	 * from the host. Where one cannot be noted it fails, and `record_end`, which must be called all the same, gives
	 * STATUS_UNSUPPORTED; nothing has run then. All that they ask for of shapes must have been asked for before. `replay`
	 * issues them on the memory that they were given. */
	enum status (*record_begin)(struct backend *);
	enum status (*record_end)(struct backend *, struct recording **ret);
	enum status (*replay)(struct backend *, struct recording *);
	void (*release_recording)(struct backend *, struct recording *); /* takes NULL; waits for replays */

	/* ---- dense layers ---------------------------------------------------------------------------------------------- */

	/* to = from, element by element, between float types (round to nearest even); same shape. */
	enum status (*convert)(struct backend *, struct tensor to, struct tensor from);

	/* C [M,N] = op(A) · op(B) + (accumulate ? C : 0); op transposes where the flag says. A and B: one float type;
	 * C: any float. Accumulates in fp32. Where A and B are one tensor, and one of the flags is set, the result is symmetric,
	 * and what is added to must be so, too: a backend may compute one triangle and copy it. */
	enum status (*matmul)(struct backend *, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
			      bool transpose_b, bool accumulate);

	/* C = op(A) · op(B) + addend [M,N], which has C's type, F32 or that of A, and may be C; all else as
	 * matmul. NULL where a copy and a matmul that
	 * accumulates do as well. */
	enum status (*matmul_onto)(struct backend *, struct tensor c, struct tensor a, bool transpose_a, struct tensor b,
				   bool transpose_b, struct tensor addend);

	/* y [T,N] += bias [1,N] on every row. y: any float; bias: any float. */
	enum status (*add_bias)(struct backend *, struct tensor y, struct tensor bias);

	/* y = y + x. Any float. */
	enum status (*add)(struct backend *, struct tensor y, struct tensor x);

	/* out [T,H] = scale · table[ids[t]]. ids: device I32 [T], each below table.rows (the caller has checked). Any float. */
	enum status (*embed)(struct backend *, struct tensor out, struct tensor table, const void *ids, float scale);

	/* y = norm(x) · (weight + offset) (+ bias). x, y: any float [T,H]; weight, bias: F32 [1, H/groups], bias may have NULL
	 * data. stats: F32 [T, 2·groups], receives per group (mean, 1/σ) with mean 0 for RMS; the backward reads it. */
	enum status (*norm_forward)(struct backend *, const struct norm *, struct tensor y, struct tensor stats, struct tensor x,
				    struct tensor weight, struct tensor bias);

	/* dx = (accumulate ? dx : 0) + ∂/∂x. dx: F32. dy: any float. */
	enum status (*norm_backward)(struct backend *, const struct norm *, struct tensor dx, struct tensor dy, struct tensor x,
				     struct tensor stats, struct tensor weight, bool accumulate);

	/* The gradients of a norm's parameters: dweight[j] = Σ dy·x̂ over rows and groups, dbias[j] = Σ dy. F32 [1, H/groups];
	 * dbias may have NULL data. dy, x: any float; stats as norm_forward gave them. */
	enum status (*norm_gradient)(struct backend *, const struct norm *, struct tensor dweight, struct tensor dbias,
				     struct tensor dy, struct tensor x, struct tensor stats);

	/* sums F32 [1,C] = Σ_t x[t,:]: the gradient of a bias. x: any float [T,C]. */
	enum status (*column_sums)(struct backend *, struct tensor sums, struct tensor x);

	/* Rotates, in place, pair i of every head of x [T, heads·head_dim] by angle i of position t mod table.rows. table: F32
	 * [positions, rotary]: cos of the rotary/2 angles, then sin. x: any float. */
	enum status (*rope)(struct backend *, const struct rotation *, struct tensor x, struct tensor table);

	/* out [T, heads·head_dim] = softmax(mask(scale · q kᵀ)) v. lse: F32 [batch·heads, tokens], the log-sum-exp of each query's
	 * logits, which the backward reads. q, out: [T, heads·head_dim]; k, v: [T, kv_heads·head_dim]; any float, all the same. */
	enum status (*attention_forward)(struct backend *, const struct attention *, struct tensor out, struct tensor lse,
					 struct tensor q, struct tensor k, struct tensor v);
	enum status (*attention_backward)(struct backend *, const struct attention *, struct tensor dq, struct tensor dk,
					  struct tensor dv, struct tensor q, struct tensor k, struct tensor v, struct tensor out,
					  struct tensor lse, struct tensor dout);

	/* A sink is one more logit of each head, that every query sees, whose value is 0 (gpt-oss): makes of what
	 * attention_forward gave what it gives with sinks, F32 [1, heads]: out ·= sigmoid(lse − sink), lse = log(exp(lse) +
	 * exp(sink)). attention_backward takes both as they are then. */
	enum status (*attention_sinks)(struct backend *, const struct attention *, struct tensor out, struct tensor lse,
				       struct tensor sinks);

	/* y = activation(gate) · up, or activation(gate) where up.data is NULL, which it is not with CLAMPED_SWIGLU. Any float. */
	enum status (*activation_forward)(struct backend *, struct activation, struct tensor y, struct tensor gate,
					  struct tensor up);
	/* May run in place: dgate over gate, dup over up. */
	enum status (*activation_backward)(struct backend *, struct activation, struct tensor dgate, struct tensor dup,
					   struct tensor dy, struct tensor gate, struct tensor up);

	/* ---- experts ---------------------------------------------------------------------------------------------------- */

	/* From logits [T, experts], any float: weights F32 [T, chosen], experts I32 [T, chosen] in order of their logits, a
	 * shared one last, counts I32 [experts] of the tokens that each expert got, places I32 [T, chosen]: the grouped row of
	 * each choice, and sources I32 [routing_rows]: the choice t · chosen + s of each grouped row, -1 in the rows between the
	 * experts' and after the last. */
	enum status (*route)(struct backend *, const struct routing *, struct tensor weights, void *experts, void *counts,
			     void *places, void *sources, struct tensor logits);

	/* Row r of `to` = scale[c] · from[c / chosen] with c = sources[r]; zeros where that is -1. scale: F32 [T, chosen]
	 * without gaps, without data for 1. Any float. */
	enum status (*dispatch)(struct backend *, struct tensor to, struct tensor from, const void *sources, int chosen,
				struct tensor scale);

	/* to[t] = (accumulate ? to[t] : 0) + Σ_s scale[t, s] · from[places[t, s]]. places I32, scale F32 [T, chosen], without
	 * data for
	 * 1. Any float; the sum is taken in fp32. */
	enum status (*combine)(struct backend *, struct tensor to, struct tensor from, const void *places, int chosen,
			       struct tensor scale, bool accumulate);

	/* ∂/∂logits of Σ_s weights[t, s] · outputs[places[t, s]] with gradient dy [T,H], any float. dlogits: any float [T,
	 * experts]. */
	enum status (*route_backward)(struct backend *, const struct routing *, struct tensor dlogits, struct tensor logits,
				      struct tensor weights, const void *experts, const void *places, struct tensor dy,
				      struct tensor outputs);

	/* ---- importance, ranks and masks (besa.md 1.1 to 1.6) ------------------------------------------------------------ */

	/* sums[j] += Σ_t x[t,j]², device F64 [C]. x: any float [T,C]. */
	enum status (*column_norms)(struct backend *, void *sums, struct tensor x);

	/* scores[i,j] += |W[i,j] · gradient[i,j]|. scores, gradient: F32; W: any float; all [R,C]. */
	enum status (*add_saliency)(struct backend *, struct tensor scores, struct tensor gradient, struct tensor weight);

	/* rank [R,C] U16: the position of each weight in its row by importance, ascending, stable; 0 = least important. C ≤ 65,536.
	 * Wanda: |W[i,j]| · sqrt(sums[j] / sequences) in fp32; magnitude: |W| (sums may be NULL). W: any float. */
	enum status (*rank_rows)(struct backend *, enum importance, struct tensor rank, struct tensor weight, const void *sums,
				 double sequences);

	/* The same among each `of` neighbouring weights of a row, which C is a multiple of: 0 … of − 1. 2 ≤ of ≤ PATTERN_MOST. */
	enum status (*rank_groups)(struct backend *, enum importance, struct tensor rank, struct tensor weight, const void *sums,
				   double sequences, int of);

	/* bin [R,C] U8: b − 1 where b = #{d : k_d ≤ rank}, k_d = ⌊C·p_d⌋ in integers, p_d as in struct rates. So 0 … D − 2, and
	 * a weight is pruned by candidate d (rank < k_d) exactly when bin < D − 1 − d; BIN_NONE for those that all candidates
	 * prune, or none does. */
	enum status (*bin_ranks)(struct backend *, struct tensor bin, struct tensor rank, int candidates, int below, int above);

	/* out = W where rank ≥ threshold, else +0. May run in place: out over W. threshold: device I32, [R] or, where `shared`,
	 * [1]. W, out: any float. */
	enum status (*mask_weights)(struct backend *, struct tensor out, struct tensor weight, struct tensor rank,
				    const void *threshold, bool shared);

	/* Both NULL where a mask is always written whole, as on the CPU. order [R,C] U16: where in its row the weight of each
	 * rank stands, order[i, rank[i,j]] = j. rank: of rank_rows. */
	enum status (*order_ranks)(struct backend *, struct tensor order, struct tensor rank);

	/* As mask_weights, to the bit, where `out` holds what this operation left there by other thresholds: only what has come
	 * or gone since then is written. held: device I32 [R], 0 for a row of which nothing is known, which is written whole,
	 * else 1 + the threshold that it has been masked by; receives that of this call. W and rank have not changed since. */
	enum status (*move_mask)(struct backend *, struct tensor out, struct tensor weight, struct tensor rank, struct tensor order,
				 void *held, const void *threshold, bool shared);

	/* The gradient of a masked weight, summed where BESA needs it (besa.md 1.7): with G = dyᵀ·x,
	 * sums[i, b] = Σ_{j : bin[i,j] = b} G[i,j] · W[i,j]. sums: F32 [R, D−1], or, where `shared`, [1, D−1], summed over rows
	 * too. Bins from D − 1 on are left out. dy: [T,R], x: [T,C], any float, both the same. W: any float [R,C]. No [R,C]
	 * gradient is left in memory. */
	enum status (*binned_gradient)(struct backend *, struct tensor sums, struct tensor dy, struct tensor x,
				       struct tensor weight, struct tensor bin, bool shared);

	/* ---- pruning with compensation (SparseGPT, arXiv 2301.00774, Algorithm 1) ------------------------------------------ */

	/* inverse = R⁻¹ of the upper triangular R with a = R·Rᵀ, and negated = −R⁻¹; 0 below the diagonals. All F32 [B,B], B ≤
	 * FACTOR_TILE. a: symmetric and positive definite; of it the upper triangle is read. Where it is not positive definite
	 * *bad, device I32, becomes 1, and the results mean nothing. */
	enum status (*invert_factor)(struct backend *, struct tensor inverse, struct tensor negated, struct tensor a, void *bad);

	/* Prunes B neighbouring columns, weight F32 [R,B], in place; B ≤ PRUNE_COLUMNS. factor F32 [B,B]: on these columns, the
	 * upper triangular U with UᵀU = H⁻¹. What goes has the smallest (w / U[j,j])²: without a pattern `zeros` of all R·B as
	 * they come; with one, which B is a multiple of, in each group as it is when the sweep gets there. Of equal ones the
	 * earlier, row by row. What goes becomes +0, and its error e = w / U[j,j] changes each later column k of the row: w[k]
	 * −= e·U[j,k]. negated_error F32 [R,B] = −e, 0 for what stays: times U, it is what the columns beyond these are to get. */
	enum status (*prune_columns)(struct backend *, struct tensor weight, struct tensor negated_error, struct tensor factor,
				     int64_t zeros, const struct pattern *);

	/* ---- pruning by ADMM, and least squares on what is kept (Boža, arXiv 2401.02938) ------------------------------------ */

	/* y[i,j] = (accumulate ? y[i,j] : 0) + factor · x[i,j] · rows[i] · cols[j]. rows: device F32 [R], cols: device F32 [C];
	 * NULL for ones. F32. May run in place: y over x. */
	enum status (*scale)(struct backend *, struct tensor y, struct tensor x, const void *rows, const void *cols, float factor,
			     bool accumulate);

	/* The projection of a step of ADMM, all F32 [R,C]: with v = w + u, of which what the cut says goes,
	 *   w = v where it is kept, else +0;   u = v where it goes, else +0;   rhs = b + rho · (w − u). */
	enum status (*project)(struct backend *, struct tensor w, struct tensor u, struct tensor rhs, struct tensor b, float rho,
			       const struct cut *);

	/* out = W where the support is not zero, else +0. May run in place: out over W. F32. */
	enum status (*keep_where)(struct backend *, struct tensor out, struct tensor weight, struct tensor support);

	/* Conjugate gradients for each row x of X·(G + λ·1) = T + λ·W on its own, restricted to the elements where the support
	 * is not zero, from the X that is W there; preconditioned by the diagonal. All F32 [R,C] but diagonal [1,C], that of G;
	 * energy: device F32 [R]. The start, with product = X·G: r = T − product on the support, else 0; p = r / (diagonal + λ);
	 * energy[i] = ⟨r, p⟩. May run in place: r over T. */
	enum status (*conjugate_start)(struct backend *, struct tensor r, struct tensor p, void *energy, struct tensor target,
				       struct tensor product, struct tensor support, struct tensor diagonal, float lambda);

	/* A step, with product = p·G, a = product + λ·p on the support, else 0, and z = r / (diagonal + λ), row by row:
	 *   α = energy / ⟨p, a⟩;   x += α·p;   r −= α·a;   β = ⟨r, z⟩ / energy;   p = z + β·p;   energy = ⟨r, z⟩.
	 * What is divided by is 1e-30 at least: a row that is solved stays as it is. */
	enum status (*conjugate_step)(struct backend *, struct tensor x, struct tensor r, struct tensor p, void *energy,
				      struct tensor product, struct tensor support, struct tensor diagonal, float lambda);

	/* ---- quantization (besa.md section 3) ------------------------------------------------------------------------------ */

	/* out = the nearest on the grid. With N = C / group, and γ, δ = sigmoid(strength), of each row and group: of its
	 * weights, and 0,
	 *   symmetric:  h = γ·max|W| / (2^(bits−1) − ½)             z = 0
	 *   else:       h = (γ·max W − δ·min W) / (2^bits − 1)      z = rint(−δ·min W / h)
	 *   out = (clamp(rint(W / h) + z) − z)·h
	 * h is rounded to the grid's type, and 1 where that gives 0; in fp32, halves to even. 0 is on every grid. steps, zeros:
	 * F32 [R,N], receive h and z. strength: F32 [R,N] or, where not symmetric, [R,2N], the logits of γ, then of δ; without
	 * data γ = δ = 1. W, out: any float. May run in place: out over W. */
	enum status (*quantize)(struct backend *, const struct grid *, struct tensor out, struct tensor steps, struct tensor zeros,
				struct tensor weight, struct tensor strength);

	/* Quantizes B neighbouring columns with compensation (GPTQ, arXiv 2210.17323), weight F32 [R,B], in place; B ≤
	 * PRUNE_COLUMNS. They are N groups, or N = 1 and part of one: steps, zeros F32 [R,N] as `quantize` gave them. factor F32
	 * [B,B] as in `prune_columns`. From left to right each w becomes the nearest on its grid, or +0 where support F32 [R,B]
	 * is zero, and what it loses, e = (w − that) / U[j,j], changes each later column k of the row: w[k] −= e·U[j,k].
	 * negated_error F32 [R,B] = −e: times U, it is what the columns beyond these are to get. Of the grid, bits and symmetry
	 * count. */
	enum status (*quantize_columns)(struct backend *, const struct grid *, struct tensor weight, struct tensor negated_error,
					struct tensor support, struct tensor factor, struct tensor steps, struct tensor zeros);

	/* dstrength = ∂L/∂strength from g = ∂L/∂out, F32 [R,C], straight through both roundings: rint(x) counts as x plus a
	 * constant, and the rounding of h as none. steps and zeros as `quantize` gave them; strength has data. */
	enum status (*quantize_backward)(struct backend *, const struct grid *, struct tensor dstrength, struct tensor g,
					 struct tensor weight, struct tensor steps, struct tensor zeros, struct tensor strength);

	/* ---- rates, loss and optimizers (besa.md 1.5, 1.8, 1.9) ----------------------------------------------------------- */

	/* β [G,D] = softmax(g(θ)), s[g] = Σ_d β·p (device F32 [G]), threshold[g] = ⌊(double)s[g] · cols[g]⌋ (device I32 [G]);
	 * stats[STEP_SPARSITY] = ŝ = Σ share·s, stats[STEP_SLOPE] = ∂penalty/∂ŝ = 2λ(ŝ − target)/target². */
	enum status (*rates_forward)(struct backend *, const struct rates *, struct tensor beta, void *s, void *threshold,
				     void *stats, struct tensor theta, double target, double lambda);

	/* ∂L/∂θ [G,D] from the binned sums [G,D−1] of besa.md 1.7 and the penalty: ∂L/∂β_d = −Σ_{b < D−1−d} sums[b] +
	 * slope·share·p_d, then through softmax and g. */
	enum status (*rates_backward)(struct backend *, const struct rates *, struct tensor dtheta, struct tensor theta,
				      struct tensor beta, struct tensor sums, const void *stats);

	/* stats[STEP_RECONSTRUCTION] (+)= (1/H)·Σ_{t,h} ((ref − y)/‖ref[:,h]‖)², norms over the T rows given, channels of norm 0
	 * left out (besa.md 1.8); dy, where its data is not NULL, = ∂/∂y. y, ref, dy: any float. The sum is taken in double. */
	enum status (*reconstruction)(struct backend *, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				      bool accumulate);

	/* stats[STEP_RECONSTRUCTION] (+)= factor · Σ_{t,h} weight[h]·(y − ref)²; dy, where its data is not NULL, = ∂/∂y. weight:
	 * F32 [1,H]. y, ref, dy: any float. The sum is taken in double. */
	enum status (*weighted_error)(struct backend *, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				      struct tensor weight, double factor, bool accumulate);

	/* stats[STEP_RECONSTRUCTION] (+)= factor · Σ_t KL(p_t ‖ q_t), with p = softmax(softcap(wanted)) and q =
	 * softmax(softcap(logits)) by rows; dlogits, where its data is not NULL, = ∂/∂logits. softcap as in attention, 0 for
	 * none. Any float [T,V]. May run in place: dlogits over logits. The sum is taken in double. */
	enum status (*divergence)(struct backend *, void *stats, struct tensor dlogits, struct tensor logits, struct tensor wanted,
				  float softcap, double factor, bool accumulate);

	/* One step over n contiguous F32 parameters; state: device F64 [PRODIGY_STATE]. Sums in double, in a fixed order. */
	enum status (*prodigy_step)(struct backend *, const struct prodigy *, int64_t n, void *theta, const void *theta0, void *m,
				    void *v, void *s, const void *gradient, void *state);
	/* One step, moments corrected for their start at 0. All F32 of one shape; copy, any float, receives the new θ where it
	 * has data. */
	enum status (*adamw_step)(struct backend *, const struct adamw *, struct tensor theta, struct tensor m, struct tensor v,
				  struct tensor gradient, struct tensor copy);

	/* ---- evaluation -------------------------------------------------------------------------------------------------- */

	/* out[t] = log softmax(softcap(logits[t,:]))[targets[t]], device F64 [T]; targets: device I32 [T], below logits.cols.
	 * softcap as in attention, 0 for none. logits: any float. */
	enum status (*token_logprobs)(struct backend *, void *out, struct tensor logits, const void *targets, float softcap);
};

/* Bytes handed out, each allocation rounded up as the device does. */
struct memory_count {
	size_t now, most; /* at this time, and at most at once since the backend was made */
};

struct backend {
	const struct backend_ops *ops; /* what all others call: checks the operands' shapes and types (engine/compute/ops.c) */
	/* The backend's own functions, which trust their operands, and those behind `ops`. What is NULL in one is NULL in the
	 * other. */
	struct backend_ops unchecked, checked;
	const char *name; /* "cpu" or "cuda" */
	char device[128]; /* what it computes on, for people */
	char bus[20];     /* the device's PCI bus id, "0000:1b:00.0"; "" for none */
	bool native_bf16; /* bf16 matmuls run faster than fp32's */
	bool unified;     /* device pointers are host pointers */
	int threads;      /* worker threads of the CPU backend; 1 for others */
	/* What callers and operations have of the device's memory, and callers of alloc_host's. The latter is counted by dry
	 * backends alone. */
	struct memory_count memory, host;
	struct dry *dry;    /* of a dry backend; NULL in one that computes */
	struct error error; /* of the last failed operation */
};

/* The CPU backend: threads of its own (engine/compute/cpu/crew.h) and oneDNN. `threads` 0 takes all that the process may use. */
enum status backend_cpu_create(int threads, struct backend **ret, struct error *err);

/* The first CUDA device; STATUS_UNSUPPORTED, with the reason, when the build has no CUDA, or no driver or device is there.
 * `memory_limit` in bytes caps what it allocates; 0 for no cap but the device's. */
enum status backend_cuda_create(size_t memory_limit, struct backend **ret, struct error *err);

/* Whether this process has lost the device: an access to no memory, say, after which the driver answers its every call with an
 * error. Only another process can use the device again; backend_cuda_create gives STATUS_BACKEND. Any thread may ask. */
bool backend_cuda_lost(void);

/* Puts the checks before the operations in `unchecked`; for who creates a backend, at the end. */
void backend_check_operations(struct backend *);

static inline void memory_add(struct memory_count *count, size_t bytes)
{
	count->now += bytes;
	if (count->now > count->most) count->most = count->now;
}

/* Device memory for a tensor whose rows have no gaps. The caller frees it with `release`. */
enum status backend_allocate(struct backend *, int64_t rows, int64_t cols, enum dtype, struct tensor *ret, struct error *err);

static inline void backend_destroy(struct backend *backend)
{
	if (backend) backend->ops->destroy(backend);
}

#endif
