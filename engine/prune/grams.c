#include "engine/prune/grams.h"

#include <stdlib.h>

/* The bytes of the matrices of a fused matrix; each gets its place, where there is memory. */
static size_t place(struct grams *grams, enum fused fused)
{
	const struct block_layout *layout = &grams->block->layout;
	size_t used = 0;
	for (int i = 0; i < layout->n_products; i++) {
		const struct product *product = &layout->products[i];
		if (product->fused != fused) continue;
		grams->gram[i] = tensor_padded(NULL, product->cols, product->cols, DTYPE_F32);
		if (grams->memory) grams->gram[i].data = (char *)grams->memory + used;
		used += (tensor_room(&grams->gram[i]) + 255) / 256 * 256;
	}
	return used;
}

static size_t most_bytes(struct grams *grams)
{
	size_t most = 0;
	for (int f = 0; f < FUSED_COUNT; f++) {
		size_t bytes = place(grams, f);
		if (bytes > most) most = bytes;
	}
	return most;
}

enum status grams_create(struct block *block, struct grams *ret, struct error *err)
{
	size_t products = (size_t)block->layout.n_products;
	struct grams grams = {
		.block = block, .gram = calloc(products, sizeof *grams.gram), .tokens = calloc(products, sizeof *grams.tokens)};
	enum status status =
		grams.gram && grams.tokens
			? block->backend->ops->alloc(block->backend, most_bytes(&grams), &grams.memory)
			: error_set(&block->backend->error, STATUS_NO_MEMORY, "no memory for the Gram matrices of a block");
	if (status != STATUS_OK) {
		*err = block->backend->error;
		grams_release(&grams);
		return status;
	}
	for (int f = 0; f < FUSED_COUNT; f++)
		place(&grams, f);
	*ret = grams;
	return STATUS_OK;
}

void grams_release(struct grams *grams)
{
	if (grams->block) grams->block->backend->ops->release(grams->block->backend, grams->memory);
	free(grams->gram);
	free(grams->tokens);
	*grams = (struct grams){0};
}

static enum status observe(void *context, int product, struct tensor x)
{
	struct grams *grams = context;
	struct backend *backend = grams->block->backend;
	if (grams->block->layout.products[product].fused != grams->fused) return STATUS_OK;
	grams->tokens[product] += x.rows;
	return backend->ops->matmul(backend, grams->gram[product], x, true, x, false, true);
}

enum status grams_collect(struct grams *grams, const struct block_task *task, enum fused fused, struct error *err)
{
	const struct block_layout *layout = &grams->block->layout;
	struct backend *backend = grams->block->backend;
	const struct observer observer = {.observe = observe, .context = grams, .until = true, .last = fused};
	grams->fused = fused;
	for (int i = 0; i < layout->n_products; i++) {
		if (layout->products[i].fused != fused) continue;
		grams->tokens[i] = 0;
		enum status status = backend->ops->zero(backend, grams->gram[i].data, tensor_room(&grams->gram[i]));
		if (status != STATUS_OK) {
			*err = backend->error;
			return status;
		}
	}
	return task->pass(task->context, &observer, err);
}
