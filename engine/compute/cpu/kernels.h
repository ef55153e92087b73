/* The kernels in engine/compute/cpu/isa/, which are compiled once per instruction set (v2, v3, v4: the x86-64 levels). Every
 * kernel runs on one thread and works on the rows, columns or elements [first, last): engine/compute/cpu/ checks the shapes and
 * shares out the ranges. Unless a comment says otherwise the arguments are those of the operation in engine/compute/backend.h. */
#ifndef BESAD_ENGINE_CPU_KERNELS_H
#define BESAD_ENGINE_CPU_KERNELS_H

#include "engine/compute/backend.h"

static inline int64_t least(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

struct layer_kernels {
	/* to = scale · from, by rows; `rows`, where not NULL, names the row of `from` for each row of `to`. */
	void (*copy)(const struct tensor *to, const struct tensor *from, const int32_t *rows, float scale, int64_t first,
		     int64_t last);
	/* y += x, by rows; with `broadcast` row 0 of x is added to every row. */
	void (*add)(const struct tensor *y, const struct tensor *x, bool broadcast, int64_t first, int64_t last);
	void (*norm_forward)(const struct norm *, const struct tensor *y, const struct tensor *stats, const struct tensor *x,
			     const float *weight, const float *bias, int64_t first, int64_t last);
	void (*norm_backward)(const struct norm *, const struct tensor *dx, const struct tensor *dy, const struct tensor *x,
			      const struct tensor *stats, const float *weight, bool accumulate, int64_t first, int64_t last);
	void (*norm_gradient)(const struct norm *, float *dweight, float *dbias, const struct tensor *dy, const struct tensor *x,
			      const struct tensor *stats, int64_t first, int64_t last);        /* by columns of dweight */
	void (*column_sums)(float *sums, const struct tensor *x, int64_t first, int64_t last); /* by columns */
	void (*rope)(const struct rotation *, const struct tensor *x, const struct tensor *table, int64_t first, int64_t last);
	void (*attention_sinks)(const struct attention *, const struct tensor *out, const struct tensor *lse, const float *sinks,
				int64_t first, int64_t last);
	void (*activation_forward)(struct activation, const struct tensor *y, const struct tensor *gate, const struct tensor *up,
				   int64_t first, int64_t last);
	void (*activation_backward)(struct activation, const struct tensor *dgate, const struct tensor *dup,
				    const struct tensor *dy, const struct tensor *gate, const struct tensor *up, int64_t first,
				    int64_t last);
	void (*token_logprobs)(double *out, const struct tensor *logits, const int32_t *targets, float softcap, int64_t first,
			       int64_t last);
	/* loss[t] = KL(softmax(softcap(wanted)) ‖ softmax(softcap(logits))), and dlogits, factor times its gradient, for the
	 * rows [first, last). */
	void (*divergence)(double *loss, const struct tensor *dlogits, const struct tensor *logits, const struct tensor *wanted,
			   float softcap, float factor, int64_t first, int64_t last);
};

struct route_kernels {
	/* By rows of `to`. scale may be NULL. */
	void (*dispatch)(const struct tensor *to, const struct tensor *from, const int32_t *sources, int chosen, const float *scale,
			 int64_t first, int64_t last);
	void (*combine)(const struct tensor *to, const struct tensor *from, const int32_t *places, int chosen, const float *scale,
			bool accumulate, int64_t first, int64_t last);
	/* ⟨row `row` of a, row `other` of b⟩ */
	float (*dot)(const struct tensor *a, int64_t row, const struct tensor *b, int64_t other);
};

/* Queries and keys are cut into tiles of this many rows. */
enum { ATTENTION_TILE = 64, ATTENTION_GRAIN = 32 };

/* One attention operation. K and V are unpacked once into fp32, per sequence, key/value head and tile. With `width` head_dim
 * rounded up to a multiple of ATTENTION_GRAIN, a tile by rows is [ATTENTION_TILE][width] and a transposed one
 * [width][ATTENTION_TILE]; what lies beyond the tensor is 0. */
struct attention_job {
	struct attention shape;
	int width, tiles;
	int parts; /* backward: into how many parts the query tiles of a key/value head are dealt; each has its own dk and dv */
	struct tensor q, k, v, out, lse;
	struct tensor dq, dk, dv, dout;
	bool in_place; /* rows of a tile are fp32, and whole blocks of a product wide: they are read where they lie */
	float *k_transposed, *v_transposed, *k_rows, *v_rows; /* [batch][kv_heads][tiles] tiles; forward: no v_transposed, k_rows */
	float *dk_parts, *dv_parts;                           /* [batch][kv_heads][parts][tiles] tiles by rows */
};

struct attention_kernels {
	/* Unpacks the key tiles [first, last) of [batch][kv_heads][tiles] into the buffers that the job has. */
	void (*unpack)(const struct attention_job *, int64_t first, int64_t last);
	/* One tile of queries of one head: attention_workspace() floats at `workspace`. */
	void (*forward)(const struct attention_job *, int batch, int head, int tile, float *workspace);
	/* One part of the queries of one key/value head: writes their dq, and dk_parts and dv_parts. */
	void (*backward)(const struct attention_job *, int batch, int kv_head, int part, float *workspace);
	/* dk, dv = the sums of the parts, for the key tiles [first, last) of [batch][kv_heads][tiles]. */
	void (*reduce)(const struct attention_job *, int64_t first, int64_t last);
};

static inline size_t attention_workspace(int width)
{
	return 4 * (size_t)ATTENTION_TILE * (size_t)width + 2 * (size_t)ATTENTION_TILE * ATTENTION_TILE +
	       4 * (size_t)ATTENTION_TILE;
}

/* The least and the largest of a row's importances, each the bits of a float that is not negative. */
enum { KEY_OF_INFINITY = 0x7f800000 }; /* those above it are NaN */
struct key_range {
	uint32_t lowest, highest;
};

struct prune_kernels {
	void (*column_norms)(double *sums, const struct tensor *x, int64_t first, int64_t last); /* by columns */
	void (*add_saliency)(const struct tensor *scores, const struct tensor *gradient, const struct tensor *weight, int64_t first,
			     int64_t last);
	/* key[j] = the importance of weight j of the row; scale NULL: 1. */
	struct key_range (*importance)(uint32_t *key, const struct tensor *weight, const float *scale, int64_t row);
	void (*mask_weights)(const struct tensor *out, const struct tensor *weight, const struct tensor *rank,
			     const int32_t *threshold, bool shared, int64_t first, int64_t last);
};

enum {
	PRODUCT_DEPTH = 512,                 /* of the inner dimension, packed at a time */
	PRODUCT_GROUP = 256 * PRODUCT_DEPTH, /* elements of the right operand, packed at a time: half of a second-level cache */
	PRODUCT_PANEL = 48,                  /* a multiple of the columns that are packed side by side */
	PRODUCT_MOST_COLS = 20 * PRODUCT_PANEL,
	PRODUCT_MOST_ROWS = 8,    /* that are computed at once */
	PRODUCT_TILE = 512 * 512, /* elements of C that are computed at a time where it is no fp32 */
};

/* So many columns are packed at a time. */
static inline int64_t product_group_cols(int64_t inner)
{
	int64_t cols = PRODUCT_GROUP / (inner < PRODUCT_DEPTH ? inner : PRODUCT_DEPTH) / PRODUCT_PANEL * PRODUCT_PANEL;
	return cols < PRODUCT_MOST_COLS ? cols : PRODUCT_MOST_COLS;
}

/* C [M,N] = op(A) · op(B) (+ addend, which has C's type and may be C, or no data), summed in fp32; each of any float type. No
 * element depends on the rows and columns that are computed with it. */
struct product_job {
	struct tensor c, a, b, addend;
	bool transpose_a, transpose_b;
};

/* Whether panels are read where they lie, and not packed: in a matrix that is not transposed, so small that its rows stay in a
 * second-level cache, and of whole vectors. */
static inline bool product_reads_in_place(const struct product_job *job)
{
	const struct tensor *b = &job->b;
	bool near = b->stride % 1024 && b->rows <= 3 * PRODUCT_GROUP / b->cols;
	return !job->transpose_b && b->dtype == DTYPE_F32 && b->cols % 16 == 0 && near;
}

/* Floats that a thread needs to make products. */
static inline size_t product_workspace(const struct tensor *c)
{
	size_t tile = c->dtype == DTYPE_F32 ? 0 : PRODUCT_TILE;
	return PRODUCT_GROUP + PRODUCT_MOST_ROWS * (PRODUCT_DEPTH + 16) + tile;
}

struct product_kernels {
	/* Computes the rows [first, last) of the columns [first_col, last_col) of C; first_col is a multiple of PRODUCT_PANEL.
	 * Neither range is empty, nor is the inner dimension. */
	void (*multiply)(const struct product_job *, int64_t first, int64_t last, int64_t first_col, int64_t last_col,
			 float *workspace);
};

/* The block of G = dyᵀ·x that is made, and dropped into bins, at a time. Multiples of any BLOCK_ROWS and BLOCK_COLS. */
enum { GRADIENT_ROWS = 48, GRADIENT_COLS = 512, GRADIENT_GRAIN = 32 };

struct gradient_job {
	struct tensor dy, x, weight, bin;
	float *x_panels; /* x packed: x.rows times x.cols rounded up to GRADIENT_GRAIN */
	/* Of the rows from `sums_row` on: 256 each, `sums_stride` apart; those of bins that count, and of BIN_NONE, zero at
	 * first. */
	float *sums;
	int64_t sums_row, sums_stride;
};

static inline float *gradient_sums(const struct gradient_job *job, int64_t row)
{
	return job->sums + (row - job->sums_row) * job->sums_stride;
}

struct gradient_kernels {
	/* Packs the columns [first, last) of x; first is a multiple of GRADIENT_GRAIN. */
	void (*pack)(const struct gradient_job *, int64_t first, int64_t last);
	/* Adds to the sums of the rows [first, last), GRADIENT_ROWS at most. workspace: GRADIENT_ROWS · (GRADIENT_COLS + tokens)
	 * floats. */
	void (*gradient)(const struct gradient_job *, int64_t first, int64_t last, float *workspace);
	/* The same for a gradient that was made elsewhere: g holds the rows [row, row + rows), columns [col, col + cols). */
	void (*drop)(const struct gradient_job *, const float *g, int64_t g_stride, int64_t row, int64_t rows, int64_t col,
		     int64_t cols);
};

/* Elements per partial sum of the optimizer: fixed, so that a sum does not depend on the number of threads. */
enum { OPTIMIZER_CHUNK = 4096 };

struct learn_kernels {
	void (*rates_forward)(const struct rates *, const struct tensor *beta, float *s, int32_t *threshold,
			      const struct tensor *theta, int64_t first, int64_t last);
	void (*rates_backward)(const struct rates *, const struct tensor *dtheta, const struct tensor *theta,
			       const struct tensor *beta, const struct tensor *sums, double slope, int64_t first, int64_t last);
	/* loss[h] = Σ_t ((ref − y)/‖ref[:,h]‖)², and dy, for the columns [first, last). */
	void (*reconstruction)(double *loss, const struct tensor *dy, const struct tensor *y, const struct tensor *ref,
			       int64_t first, int64_t last);
	/* loss[t] = Σ_h weight[h]·(y − ref)², and dy, for the rows [first, last). */
	void (*weighted_error)(double *loss, const struct tensor *dy, const struct tensor *y, const struct tensor *ref,
			       const float *weight, double factor, int64_t first, int64_t last);
	/* The moments of the elements [first, last), and their ⟨g, p0 − p⟩ and Σ|s|. */
	void (*prodigy_moments)(const struct prodigy *, double d, double d0, const float *theta, const float *theta0, float *m,
				float *v, float *s, const float *gradient, int64_t first, int64_t last, double *ret_dot,
				double *ret_sum);
	void (*prodigy_move)(float step, float eps, float *theta, const float *m, const float *v, int64_t first, int64_t last);
	/* Rows are cut into pieces of OPTIMIZER_CHUNK columns, counted through; works on the pieces [first, last). */
	void (*adamw)(const struct adamw *, const struct tensor *theta, const struct tensor *m, const struct tensor *v,
		      const struct tensor *gradient, const struct tensor *copy, int64_t first, int64_t last);
};

struct compensate_kernels {
	/* scores [R,B] = the bits of (w / U[j,j])², for the rows [first, last). */
	void (*score)(uint32_t *scores, const struct tensor *weight, const struct tensor *factor, int64_t first, int64_t last);
	/* prune_columns on the rows [first, last); gone [R,B]: what goes, which it finds itself where there is a pattern. */
	void (*sweep)(const struct tensor *weight, const struct tensor *negated_error, const struct tensor *factor, uint8_t *gone,
		      const struct pattern *, int64_t first, int64_t last);
};

/* By rows. */
struct solve_kernels {
	void (*scale)(const struct tensor *y, const struct tensor *x, const float *rows, const float *cols, float factor,
		      bool accumulate, int64_t first, int64_t last);
	/* w += u; scores [R,C] = the bits of |w|, but of what the pattern keeps the largest there are. */
	void (*score)(uint32_t *scores, const struct tensor *w, const struct tensor *u, const struct pattern *, int64_t first,
		      int64_t last);
	/* Marks in gone [cols] the `count` smallest scores of a row, the earlier of equal ones. */
	void (*select_row)(uint8_t *gone, const uint32_t *scores, int64_t cols, int64_t count);
	/* `project` from w = v and gone [R,C]: what goes. */
	void (*project)(const struct tensor *w, const struct tensor *u, const struct tensor *rhs, const struct tensor *b, float rho,
			const uint8_t *gone, int64_t first, int64_t last);
	void (*keep_where)(const struct tensor *out, const struct tensor *weight, const struct tensor *support, int64_t first,
			   int64_t last);
	/* inverse [C] = 1 / (diagonal + λ). */
	void (*conjugate_start)(const struct tensor *r, const struct tensor *p, float *energy, const struct tensor *target,
				const struct tensor *product, const struct tensor *support, const float *inverse, int64_t first,
				int64_t last);
	void (*conjugate_step)(const struct tensor *x, const struct tensor *r, const struct tensor *p, float *energy,
			       const struct tensor *product, const struct tensor *support, const float *inverse, float lambda,
			       int64_t first, int64_t last);
};

/* By rows. */
struct quantize_kernels {
	void (*quantize)(const struct grid *, const struct tensor *out, const struct tensor *steps, const struct tensor *zeros,
			 const struct tensor *weight, const struct tensor *strength, int64_t first, int64_t last);
	void (*columns)(const struct grid *, const struct tensor *weight, const struct tensor *negated_error,
			const struct tensor *support, const struct tensor *factor, const struct tensor *steps,
			const struct tensor *zeros, int64_t first, int64_t last);
	void (*backward)(const struct grid *, const struct tensor *dstrength, const struct tensor *g, const struct tensor *weight,
			 const struct tensor *steps, const struct tensor *zeros, const struct tensor *strength, int64_t first,
			 int64_t last);
};

struct cpu_kernels {
	const char *isa;
	const struct layer_kernels *layer;
	const struct route_kernels *route;
	const struct attention_kernels *attention;
	const struct prune_kernels *prune;
	const struct compensate_kernels *compensate;
	const struct product_kernels *product;
	const struct gradient_kernels *gradient;
	const struct learn_kernels *learn;
	const struct solve_kernels *solve;
	const struct quantize_kernels *quantize;
};

#define CPU_DECLARE_KERNELS(isa)                                                                                                   \
	extern const struct layer_kernels layer_kernels_##isa;                                                                     \
	extern const struct route_kernels route_kernels_##isa;                                                                     \
	extern const struct attention_kernels attention_kernels_##isa;                                                             \
	extern const struct prune_kernels prune_kernels_##isa;                                                                     \
	extern const struct compensate_kernels compensate_kernels_##isa;                                                           \
	extern const struct product_kernels product_kernels_##isa;                                                                 \
	extern const struct gradient_kernels gradient_kernels_##isa;                                                               \
	extern const struct learn_kernels learn_kernels_##isa;                                                                     \
	extern const struct solve_kernels solve_kernels_##isa;                                                                     \
	extern const struct quantize_kernels quantize_kernels_##isa;
/* Attention of bf16 by instructions that x86-64-v4 alone does not have (attention_bf16.c). It takes no softcap, a scale above 0,
 * and heads and rows of an even length. */
extern const struct attention_kernels attention_kernels_bf16;
CPU_DECLARE_KERNELS(v2)
CPU_DECLARE_KERNELS(v3)
CPU_DECLARE_KERNELS(v4)

#endif
