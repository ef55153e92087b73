#include "engine/prune/column_norms.h"

#include <stdlib.h>
#include <string.h>

static enum status allocate(struct column_norms *norms)
{
	const struct block_layout *layout = norms->layout;
	struct backend *backend = norms->backend;
	norms->sums = calloc((size_t)layout->n_products, sizeof *norms->sums);
	norms->tokens = calloc((size_t)layout->n_products, sizeof *norms->tokens);
	if (!norms->sums || !norms->tokens)
		return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for %d column norms", layout->n_products);
	for (int i = 0; i < layout->n_products; i++)
		TRY(backend->ops->alloc(backend, (size_t)layout->products[i].cols * sizeof(double), &norms->sums[i]));
	return STATUS_OK;
}

enum status column_norms_create(const struct block *block, struct column_norms *ret, struct error *err)
{
	struct column_norms norms = {.backend = block->backend, .layout = &block->layout};
	enum status status = allocate(&norms);
	if (status != STATUS_OK) {
		*err = block->backend->error;
		column_norms_release(&norms);
		return status;
	}
	*ret = norms;
	return STATUS_OK;
}

void column_norms_release(struct column_norms *norms)
{
	if (!norms->backend) return;
	for (int i = 0; norms->sums && i < norms->layout->n_products; i++)
		norms->backend->ops->release(norms->backend, norms->sums[i]);
	free(norms->sums);
	free(norms->tokens);
	*norms = (struct column_norms){0};
}

enum status column_norms_reset(struct column_norms *norms)
{
	const struct block_layout *layout = norms->layout;
	memset(norms->tokens, 0, (size_t)layout->n_products * sizeof *norms->tokens);
	for (int i = 0; i < layout->n_products; i++)
		TRY(norms->backend->ops->zero(norms->backend, norms->sums[i], (size_t)layout->products[i].cols * sizeof(double)));
	return STATUS_OK;
}

enum status column_norms_observe(struct column_norms *norms, int product, struct tensor x)
{
	norms->tokens[product] += x.rows;
	return norms->backend->ops->column_norms(norms->backend, norms->sums[product], x);
}
