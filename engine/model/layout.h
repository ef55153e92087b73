/* How the prunable linears of a block lie in memory, and under which names in a checkpoint.
 *
 * Linears that read the same input lie one under the other in one "fused" matrix: q, k, v · o · gate, up · down. With experts
 * the latter two hold gate, up of all experts and down of all experts, expert by expert. A shared expert is one more, the last,
 * with a size of its own: its down is a fused matrix by itself. A product is the part of a fused matrix that multiplies one
 * input: a whole one, or an expert's part. */
#ifndef BESAD_ENGINE_LAYOUT_H
#define BESAD_ENGINE_LAYOUT_H

#include "base/error.h"
#include "engine/compute/tensor.h"
#include "engine/model/config.h"

enum fused { FUSED_QKV, FUSED_O, FUSED_MLP_IN, FUSED_MLP_OUT, FUSED_SHARED_OUT, FUSED_COUNT };
enum { LAYOUT_MAX_KINDS = 10, LAYOUT_MAX_PATH = 80 };

/* Rows [first, first + rows) of a fused matrix. */
struct product {
	enum fused fused;
	int64_t first, rows, cols;
	int64_t row; /* the first of its rows when the rows of all linears are counted through */
	int expert;  /* -1 for none, and for a shared one: every token goes there */
};

/* One prunable linear of a block: rows [first, first + rows) of a fused matrix. */
struct linear {
	char path[LAYOUT_MAX_PATH]; /* "self_attn.q_proj", "mlp.experts.3.up_proj": its place in weight names, but for `stored` */
	char stored
		[LAYOUT_MAX_PATH]; /* the place of the file's tensor that holds it, as rows [stored_first, stored_first + rows) of
					 stored_rows */
	int64_t stored_first, stored_rows;
	bool transposed; /* that tensor has a row for each column … */
	bool paired;     /* … and in each row the first two of gate and up first, then the second two, and so on */
	int heads; /* of q, k and v that lie head by head in the file, and one behind the other in memory; 0 where the order is the
		      same */
	int stacked; /* so many matrices are in that tensor, one under the other; 0 where it is a matrix, and its name ends in
			".weight" */
	enum fused fused;
	int product; /* index of the one it belongs to */
	int kind;    /* of layout.kinds */
	int64_t first, rows, cols;
	int64_t row; /* as in struct product */
	bool bias;
};

/* Rows of a linear, or elements of its bias, that lie together in the file and in memory: from `stored` on of its rows in the
 * file, and from `first` on of those in memory. */
struct stretch {
	int64_t stored, first, rows;
};

struct block_layout {
	struct linear *linears;
	int n_linears;
	struct product *products; /* the first four are the fused matrices' where there are no experts; see layout_expert */
	int n_products;
	int n_fused;                                   /* of enum fused, those that there are */
	int experts;                                   /* without a shared one */
	char kinds[LAYOUT_MAX_KINDS][LAYOUT_MAX_PATH]; /* the keys in events and reports: "q_proj", "experts.up_proj" */
	int n_kinds;
	int64_t fused_rows[FUSED_COUNT], fused_cols[FUSED_COUNT];
	int64_t fused_row[FUSED_COUNT]; /* counted through, as linear.row */
	int64_t rows, params;           /* of all linears */
};

/* Sees the input of each product in a pass, before it is multiplied: x, compute type [T, cols]. Not called for an expert that
 * got no token. Fills the backend's error. */
struct observer {
	enum status (*observe)(void *context, int product, struct tensor x);
	void *context;
	bool until; /* the pass ends where the products of `last` were seen: no output is computed */
	enum fused last;
};

static inline bool observer_ends(const struct observer *observer, enum fused fused)
{
	return observer && observer->until && observer->last == fused;
}

/* The input and the gradient of the output of a product; without rows for an expert that got no token. */
struct product_gradient {
	struct tensor dy, x; /* compute type [T, rows], [T, cols] */
};
/* Called for each product, those of a fused matrix after those of the next, while its tensors are valid. */
typedef enum status (*product_gradient_fn)(void *context, int product, const struct product_gradient *gradient);

enum status block_layout_create(const struct model_config *, struct block_layout *ret, struct error *err);
void block_layout_release(struct block_layout *);

/* The stretches that a linear is made of: their number, and the i-th. */
int layout_stretches(const struct linear *);
struct stretch layout_stretch(const struct linear *, int i);

/* The product that is a whole fused matrix; of the MLP's only where there are no experts. */
static inline int layout_product(enum fused fused)
{
	return (int)fused;
}

/* The product of what goes into an expert, FUSED_MLP_IN, or comes out, FUSED_MLP_OUT; the shared one is behind the last. */
int layout_expert(const struct block_layout *, enum fused, int expert);

/* The most columns, and the most weights, that a linear has. */
int64_t layout_most_columns(const struct block_layout *);
int64_t layout_largest_linear(const struct block_layout *);

/* Host memory for layout_file_order of any linear, in the file's type. */
int64_t layout_room(const struct block_layout *, enum dtype);

/* The weights of a linear as the file has them. `room`, of layout_room's size, begins with its rows, one behind the other; what
 * comes back lies in there too. */
void *layout_file_order(const struct linear *, void *room, enum dtype);

/* The reverse, for a linear that is not as the file has it: `to` gets its rows. */
void layout_memory_order(const struct linear *, void *to, const void *stored, enum dtype);

/* The weights of a block that one token multiplies: of all linears, but of the experts that it is sent to only. */
int64_t layout_params_per_token(const struct model_config *);

#endif
