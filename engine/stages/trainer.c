#include "engine/stages/trainer.h"

/* Gradients that are in memory at once: about what a core's caches hold, or, on a device, what fills it. */
enum { PANEL_BYTES_CPU = 4 << 20, PANEL_BYTES_DEVICE = 256 << 20 };

static enum status allocate(const struct trainer *t, int64_t elements, enum dtype type, struct tensor *ret, struct error *err)
{
	struct backend *backend = t->block->backend;
	struct tensor room = tensor_make(NULL, 1, elements, type);
	if (backend->ops->alloc(backend, tensor_bytes(&room), &room.data) != STATUS_OK) {
		*err = backend->error;
		return err->status;
	}
	*ret = room;
	return STATUS_OK;
}

enum status trainer_create(const struct block *block, bool stores, struct trainer *ret, struct error *err)
{
	const struct block_layout *layout = &block->layout;
	int64_t panel = (block->backend->unified ? PANEL_BYTES_CPU : PANEL_BYTES_DEVICE) / (int64_t)sizeof(float);
	int64_t widest = layout_most_columns(layout);
	*ret = (struct trainer){.block = block, .stores = stores};
	if (panel < widest) panel = widest;
	if (panel > layout->params) panel = layout->params;
	TRY(allocate(ret, panel, DTYPE_F32, &ret->gradient, err));
	/* Products that take fewer bits than are stored get these at once. */
	bool rounds = stores && block->compute_type == DTYPE_F32 && block->file_type != DTYPE_F32;
	return rounds ? allocate(ret, panel, block->file_type, &ret->rounded, err) : STATUS_OK;
}

void trainer_release(struct trainer *t)
{
	if (!t->block) return;
	struct backend *backend = t->block->backend;
	backend->ops->release(backend, t->gradient.data);
	backend->ops->release(backend, t->rounded.data);
	*t = (struct trainer){0};
}

void trainer_step(struct trainer *t, double rate, int64_t step)
{
	t->adam = (struct adamw){
		.lr = (float)rate, .beta1 = 0.9f, .beta2 = 0.99f, .eps = 1e-10f, .step = (int)step + 1, .keep_zeros = true};
}

enum status trainer_product(void *context, int product, const struct product_gradient *gradient)
{
	const struct training *training = context;
	const struct trainer *t = training->trainer;
	const struct block *block = t->block;
	struct backend *backend = block->backend;
	struct tensor master = block_product(block, training->master, product),
		      active = block_product(block, block->active, product);
	struct tensor m = block_product(block, training->m, product), v = block_product(block, training->v, product);
	int64_t at_once = t->gradient.cols / master.cols;
	if (!gradient->dy.rows) return STATUS_OK;
	for (int64_t first = 0; first < master.rows; first += at_once) {
		int64_t left = master.rows - first, n = left < at_once ? left : at_once;
		struct tensor by_weight = tensor_make(t->gradient.data, n, master.cols, DTYPE_F32), copy = {0};
		if (t->rounded.data)
			copy = tensor_make(t->rounded.data, n, master.cols, block->file_type);
		else if (t->stores)
			copy = tensor_rows(active, first, n);
		TRY(backend->ops->matmul(backend, by_weight, tensor_cols(gradient->dy, first, n), true, gradient->x, false, false));
		TRY(backend->ops->adamw_step(backend, &t->adam, tensor_rows(master, first, n), tensor_rows(m, first, n),
					     tensor_rows(v, first, n), by_weight, copy));
		if (t->rounded.data) TRY(backend->ops->convert(backend, tensor_rows(active, first, n), copy));
	}
	return STATUS_OK;
}

enum status trainer_vector(const struct trainer *t, struct tensor values, struct tensor m, struct tensor v, struct tensor gradient)
{
	struct backend *backend = t->block->backend;
	struct adamw adam = t->adam;
	adam.keep_zeros = false;
	return gradient.data ? backend->ops->adamw_step(backend, &adam, values, m, v, gradient, (struct tensor){0}) : STATUS_OK;
}
