#include "engine/methods/one_shot/importance.h"

#include <stdlib.h>

/* Of the mean of the diagonal of a Gram matrix, what SparseGPT's importance adds to it, as published. */
static const double DAMPENING = 0.01;

static bool by_grams(const struct ranking *r)
{
	return r->by == IMPORTANCE_SPARSEGPT || r->by == IMPORTANCE_SPARSEGPT_PUBLISHED;
}

enum status ranking_create(const struct method_setup *setup, enum importance importance, bool looks_on, struct ranking *ret,
			   struct error *err)
{
	struct block *block = setup->block;
	*ret = (struct ranking){.setup = *setup, .by = importance};
	if (!looks_on) return STATUS_OK;
	TRY(column_norms_create(block, &ret->norms, err));
	if (importance == IMPORTANCE_GRADIENT) return saliency_create(setup, &ret->saliency, err);
	if (!by_grams(ret)) return STATUS_OK;
	TRY(grams_create_all(block, &ret->grams, err));
	return factor_create(block->backend, layout_most_columns(&block->layout), &ret->factor, err);
}

void ranking_release(struct ranking *r)
{
	saliency_release(&r->saliency);
	factor_release(&r->factor);
	grams_release(&r->grams);
	column_norms_release(&r->norms);
}

enum status ranking_begin(struct ranking *r)
{
	return by_grams(r) ? grams_reset(&r->grams) : column_norms_reset(&r->norms);
}

enum status ranking_observe(struct ranking *r, int product, struct tensor x)
{
	return by_grams(r) ? grams_observe(&r->grams, product, x) : column_norms_observe(&r->norms, product, x);
}

static enum status failed(const struct ranking *r, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = r->setup.block->backend->error;
	return status;
}

/* With u the diagonal of the upper Cholesky factor of the inverse of a product's damped Gram matrix, w²/u² is the error that the
 * outputs get where w goes and those right of it make up for that; w²/u is what BESA's published code has by that name (besa.md
 * 1.2). By either weights are ordered as by |w| times its root, which is by norms whose squares are 1/u² and 1/u. */
static enum status weigh_product(struct ranking *r, int product, struct damping *ret)
{
	struct backend *backend = r->setup.block->backend;
	int64_t cols = r->setup.block->layout.products[product].cols;
	TRY(factor_compute(&r->factor, r->grams.gram[product], DAMPENING, ret));
	TRY(factor_read_diagonal(&r->factor, cols));
	double *squares = malloc((size_t)cols * sizeof *squares);
	if (!squares)
		return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for the importance of %lld columns",
				 (long long)cols);
	for (int64_t i = 0; i < cols; i++) {
		double u = r->factor.host[i];
		squares[i] = r->by == IMPORTANCE_SPARSEGPT ? 1 / (u * u) : 1 / u;
	}
	enum status status = backend->ops->upload(backend, r->norms.sums[product], squares, (size_t)cols * sizeof *squares);
	free(squares);
	r->norms.tokens[product] = r->grams.tokens[product];
	return status;
}

static enum status weigh(struct ranking *r, const struct block_task *task, struct error *err)
{
	const struct block_layout *layout = &r->setup.block->layout;
	for (int i = 0; i < layout->n_products; i++) {
		struct damping damping;
		TRY(grams_settle(&r->grams, task, i, err));
		TRY(failed(r, weigh_product(r, i, &damping), err));
		TRY(grams_warn(layout, task, i, &damping, err));
	}
	return STATUS_OK;
}

double ranking_work(enum importance importance)
{
	return importance == IMPORTANCE_GRADIENT ? SALIENCY_PASSES : 0;
}

enum status ranking_find(struct ranking *r, const struct block_task *task, struct mask *mask, struct error *err)
{
	const struct column_norms *norms = r->norms.sums ? &r->norms : NULL;
	const struct block *block = r->setup.block;
	struct pattern pattern = r->setup.spec->pattern;
	if (r->by == IMPORTANCE_GRADIENT) {
		TRY(saliency_find(&r->saliency, task, err));
		return failed(r, mask_rank_scores(mask, block, r->saliency.score, norms, pattern), err);
	}
	if (!by_grams(r)) return failed(r, mask_rank(mask, block, r->by, norms, r->setup.sequences, pattern), err);
	TRY(weigh(r, task, err));
	return failed(r, mask_rank(mask, block, IMPORTANCE_WANDA, norms, 1, pattern), err);
}
