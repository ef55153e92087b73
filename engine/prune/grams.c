#include "engine/prune/grams.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

/* Places the matrices of a fused matrix from byte `used` on, where there is memory; returns where they end. */
static size_t place(struct grams *grams, enum fused fused, size_t used)
{
	const struct block_layout *layout = &grams->block->layout;
	for (int i = 0; i < layout->n_products; i++) {
		const struct product *product = &layout->products[i];
		if (product->fused != fused) continue;
		grams->gram[i] = tensor_padded(NULL, product->cols, product->cols, DTYPE_F32);
		if (grams->memory) grams->gram[i].data = (char *)grams->memory + used;
		used += (tensor_room(&grams->gram[i]) + 255) / 256 * 256;
	}
	return used;
}

/* Places the matrices; returns what they take. */
static size_t place_all(struct grams *grams)
{
	size_t most = 0, used = 0;
	for (int f = 0; f < grams->block->layout.n_fused; f++) {
		used = place(grams, f, grams->all ? used : 0);
		if (used > most) most = used;
	}
	return most;
}

static enum status create(struct block *block, bool all, struct grams *ret, struct error *err)
{
	size_t products = (size_t)block->layout.n_products;
	struct grams grams = {.block = block,
			      .all = all,
			      .gram = calloc(products, sizeof *grams.gram),
			      .tokens = calloc(products, sizeof *grams.tokens)};
	const struct backend_ops *ops = block->backend->ops;
	size_t diagonal = (size_t)layout_most_columns(&block->layout) * sizeof(float);
	enum status status = grams.gram && grams.tokens ? ops->alloc(block->backend, place_all(&grams), &grams.memory)
							: error_set(&block->backend->error, STATUS_NO_MEMORY,
								    "no memory for the Gram matrices of a block");
	if (status == STATUS_OK) status = ops->alloc(block->backend, diagonal, &grams.diagonal);
	if (status != STATUS_OK) {
		*err = block->backend->error;
		grams_release(&grams);
		return status;
	}
	place_all(&grams);
	*ret = grams;
	return STATUS_OK;
}

enum status grams_create(struct block *block, struct grams *ret, struct error *err)
{
	return create(block, false, ret, err);
}

enum status grams_create_all(struct block *block, struct grams *ret, struct error *err)
{
	return create(block, true, ret, err);
}

void grams_release(struct grams *grams)
{
	if (grams->block) {
		struct backend *backend = grams->block->backend;
		backend->ops->release(backend, grams->memory);
		backend->ops->release(backend, grams->diagonal);
	}
	free(grams->gram);
	free(grams->tokens);
	*grams = (struct grams){0};
}

static enum status reset(struct grams *grams, int product)
{
	struct backend *backend = grams->block->backend;
	grams->tokens[product] = 0;
	return backend->ops->zero(backend, grams->gram[product].data, tensor_room(&grams->gram[product]));
}

enum status grams_reset(struct grams *grams)
{
	for (int i = 0; i < grams->block->layout.n_products; i++)
		TRY(reset(grams, i));
	return STATUS_OK;
}

enum status grams_observe(struct grams *grams, int product, struct tensor x)
{
	struct backend *backend = grams->block->backend;
	grams->tokens[product] += x.rows;
	return backend->ops->matmul(backend, grams->gram[product], x, true, x, false, true);
}

static enum status observe(void *context, int product, struct tensor x)
{
	struct grams *grams = context;
	bool wanted = grams->block->layout.products[product].fused == grams->fused;
	return wanted ? grams_observe(grams, product, x) : STATUS_OK;
}

enum status grams_collect(struct grams *grams, const struct block_task *task, enum fused fused, struct error *err)
{
	const struct block_layout *layout = &grams->block->layout;
	struct backend *backend = grams->block->backend;
	const struct observer observer = {.observe = observe, .context = grams, .until = true, .last = fused};
	grams->fused = fused;
	for (int i = 0; i < layout->n_products; i++) {
		if (layout->products[i].fused != fused) continue;
		enum status status = reset(grams, i);
		if (status != STATUS_OK) {
			*err = backend->error;
			return status;
		}
	}
	TRY(task->pass(task->context, &observer, err));
	for (int i = 0; i < layout->n_products; i++)
		if (layout->products[i].fused == fused) TRY(grams_settle(grams, task, i, err));
	return STATUS_OK;
}

/* gram = share · gram off its diagonal */
static enum status shrink(struct grams *grams, struct tensor gram, float share)
{
	struct backend *backend = grams->block->backend;
	struct tensor diagonal = tensor_diagonal(gram);
	struct tensor missing = tensor_make(grams->diagonal, gram.rows, 1, DTYPE_F32);
	TRY(backend->ops->convert(backend, missing, diagonal));
	TRY(backend->ops->scale(backend, missing, missing, NULL, NULL, 1 - share, false));
	TRY(backend->ops->scale(backend, gram, gram, NULL, NULL, share, false));
	return backend->ops->add(backend, diagonal, missing);
}

static const char *path_of(const struct block_layout *layout, int product)
{
	const char *path = "";
	for (int i = layout->n_linears - 1; i >= 0; i--)
		if (layout->linears[i].product == product) path = layout->linears[i].path;
	return path;
}

/* Whether it speaks for the others: of all that every token reaches the widest, of the first block; of experts that which got
 * the fewest. */
static bool speaks(const struct grams *grams, const struct block_task *task, int product)
{
	const struct block_layout *layout = &grams->block->layout;
	const struct product *this = &layout->products[product];
	if (this->expert < 0) return task->index == 0 && this->cols == layout_most_columns(layout);
	for (int i = 0; i < layout->n_products; i++) {
		int64_t tokens = grams->tokens[i], mine = grams->tokens[product];
		if (layout->products[i].fused != this->fused || i == product || !tokens) continue;
		if (tokens < mine || (tokens == mine && i < product)) return false;
	}
	return true;
}

enum status grams_settle(struct grams *grams, const struct block_task *task, int product, struct error *err)
{
	int64_t tokens = grams->tokens[product], cols = grams->gram[product].cols;
	char message[400];
	if (tokens >= cols || tokens == 0) return STATUS_OK;
	if (shrink(grams, grams->gram[product], (float)tokens / (float)cols) != STATUS_OK) {
		*err = grams->block->backend->error;
		return err->status;
	}
	if (grams->block->backend->dry || !speaks(grams, task, product)) return STATUS_OK;
	snprintf(message, sizeof message,
		 "only %" PRId64 " tokens of the calibration reach %s, which has %" PRId64
		 " inputs: how these go together is known in part, and counts less; more samples make a better model",
		 tokens, path_of(&grams->block->layout, product), cols);
	return task->find(task->context, &(struct finding){DIAGNOSIS_FEW_TOKENS, (double)tokens / (double)cols, message}, err);
}

enum status grams_warn(const struct block_layout *layout, const struct block_task *task, int product, const struct damping *damping,
		       struct error *err)
{
	char message[400];
	const char *path = path_of(layout, product);
	if (damping->dead) {
		snprintf(message, sizeof message,
			 "%" PRId64 " of the %" PRId64 " inputs of %s are zero all over the calibration: their weights go first",
			 damping->dead, layout->products[product].cols, path);
		TRY(task->warn(task->context, message, err));
	}
	return grams_warn_of_damping(layout, task, product, damping, "pruned", err);
}

enum status grams_warn_of_damping(const struct block_layout *layout, const struct block_task *task, int product,
				  const struct damping *damping, const char *done, struct error *err)
{
	char message[400];
	if (damping->used == damping->asked) return STATUS_OK;
	snprintf(message, sizeof message, "the inputs of %s are nearly dependent on each other: %s with a damping of %g, not %g",
		 path_of(layout, product), done, damping->used, damping->asked);
	return task->find(task->context, &(struct finding){DIAGNOSIS_DEPENDENT_INPUTS, damping->used / damping->asked, message},
			  err);
}
