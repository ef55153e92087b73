#include "engine/methods/besa/parts.h"

#include "engine/methods/besa/learn.h"

/* ---- which there are --------------------------------------------------------------------------------------------------------- */

static int part_of(enum reconstruct reconstruct, enum fused fused)
{
	switch (reconstruct) {
	case RECONSTRUCT_LAYER:
		return (int)fused;
	case RECONSTRUCT_HALF_BLOCK:
		return fused >= FUSED_MLP_IN;
	case RECONSTRUCT_BLOCK:
	case RECONSTRUCT_TWO_BLOCKS:
		break;
	}
	return 0;
}

static int products_of(const struct block_layout *layout, enum fused fused)
{
	int products = 0;
	for (int i = 0; i < layout->n_products; i++)
		products += layout->products[i].fused == fused;
	return products;
}

int parts_find(const struct spec *spec, const struct block_layout *layout, const struct groups *groups,
	       struct part ret[FUSED_COUNT])
{
	bool by_layer = spec->besa.reconstruct == RECONSTRUCT_LAYER;
	int parts = 0;
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		int index = part_of(spec->besa.reconstruct, linear->fused);
		struct part *part = &ret[index];
		if (index == parts) {
			*part = (struct part){.first = linear->fused,
					      .group = groups->first[i],
					      .losses = by_layer ? products_of(layout, linear->fused) : 1};
			parts++;
		}
		part->last = linear->fused;
		part->groups = groups->first[i + 1] - part->group;
		part->params += (double)(linear->rows * linear->cols);
	}
	return parts;
}

/* The backward counts twice; what comes before a part in its block is run again, and a part twice, dense and pruned. Attention
 * is taken for a third of a block. */
double parts_work(const struct spec *spec)
{
	static const double work[] = {
		[RECONSTRUCT_BLOCK] = 3, [RECONSTRUCT_HALF_BLOCK] = 4.3, [RECONSTRUCT_LAYER] = 4.4, [RECONSTRUCT_TWO_BLOCKS] = 6};
	return work[spec->besa.reconstruct];
}

void parts_room(const struct spec *spec, const struct block *block, int64_t tokens, int64_t *ret_rows, int64_t *ret_cols)
{
	*ret_rows = tokens;
	*ret_cols = block->config->hidden;
	if (spec->besa.reconstruct != RECONSTRUCT_LAYER) return;
	if (block->layout.experts) *ret_rows = routing_span(tokens);
	for (int p = 0; p < block->layout.n_products; p++)
		if (block->layout.products[p].rows > *ret_cols) *ret_cols = block->layout.products[p].rows;
}

/* ---- a half ------------------------------------------------------------------------------------------------------------------ */

static enum status activate_dense(const struct besa *besa)
{
	for (int f = (int)besa->part->first; f <= (int)besa->part->last; f++)
		TRY(besa->backend->ops->convert(besa->backend, besa->block->active[f], besa->block->weight[f]));
	return STATUS_OK;
}

static enum status attention_gradient(struct besa *besa, struct tensor input, int batch)
{
	struct backend *backend = besa->backend;
	struct activations *a = &besa->activations;
	struct tensor dense = tensor_rows(besa->dense, 0, input.rows), dy = tensor_rows(besa->dy, 0, input.rows),
		      h = tensor_rows(a->h, 0, input.rows);
	TRY(activate_dense(besa));
	TRY(block_forward_attention(besa->block, a, batch, input, NULL));
	TRY(backend->ops->copy(backend, dense.data, h.data, tensor_bytes(&h)));
	TRY(besa_update_masks(besa));
	TRY(block_forward_attention(besa->block, a, batch, input, NULL));
	TRY(backend->ops->reconstruction(backend, besa->stats, dy, h, dense, false));
	return block_backward_attention(besa->block, a, batch, dy, besa_bin_gradient, besa);
}

static enum status mlp_gradient(struct besa *besa, struct tensor input, int batch)
{
	struct backend *backend = besa->backend;
	struct activations *a = &besa->activations;
	struct tensor dense = tensor_rows(besa->dense, 0, input.rows), dy = tensor_rows(besa->dy, 0, input.rows),
		      y = tensor_rows(besa->y, 0, input.rows);
	TRY(activate_dense(besa));
	TRY(block_forward_attention(besa->block, a, batch, input, NULL));
	TRY(block_forward_mlp(besa->block, a, batch, dense, NULL));
	TRY(besa_update_masks(besa));
	TRY(block_forward_mlp(besa->block, a, batch, y, NULL));
	TRY(backend->ops->reconstruction(backend, besa->stats, dy, y, dense, false));
	return block_backward_mlp(besa->block, a, batch, dy, besa_bin_gradient, besa);
}

/* ---- the linears that read one input ----------------------------------------------------------------------------------------- */

struct layer_pass {
	struct besa *besa;
	bool begun; /* a loss is in the stats already */
};

static struct tensor corner(struct tensor t, int64_t rows, int64_t cols)
{
	return tensor_cols(tensor_rows(t, 0, rows), 0, cols);
}

/* Loss and gradient of a product of the part, which the pass ends before. */
static enum status product_gradient(void *context, int index, struct tensor x)
{
	struct layer_pass *pass = context;
	struct besa *besa = pass->besa;
	const struct block *block = besa->block;
	const struct product *product = &block->layout.products[index];
	const struct backend_ops *ops = besa->backend->ops;
	struct tensor weight = block_product(block, block->weight, index), active = block_product(block, block->active, index);
	struct tensor dense = corner(besa->dense, x.rows, product->rows), y = corner(besa->y, x.rows, product->rows),
		      dy = corner(besa->dproduct, x.rows, product->rows);
	if (product->fused != besa->part->first) return STATUS_OK; /* of one before */
	TRY(ops->convert(besa->backend, active, weight));
	TRY(ops->matmul(besa->backend, dense, x, false, active, true, false));
	TRY(besa_mask_product(besa, index));
	TRY(ops->matmul(besa->backend, y, x, false, active, true, false));
	TRY(ops->reconstruction(besa->backend, besa->stats, dy, y, dense, pass->begun));
	pass->begun = true;
	return besa_bin_gradient(besa, index, &(struct product_gradient){dy, x});
}

static enum status layer_gradient(struct besa *besa, struct tensor input, int batch)
{
	struct backend *backend = besa->backend;
	struct layer_pass pass = {.besa = besa};
	const struct observer observer = {.observe = product_gradient, .context = &pass, .until = true, .last = besa->part->last};
	struct tensor y = tensor_make(besa->y.data, input.rows, input.cols, DTYPE_F32); /* where nothing comes to */
	TRY(besa_find_rates(besa));
	/* An expert without tokens is not seen. */
	if (besa->part->losses > 1) TRY(backend->ops->zero(backend, besa->sums.data, tensor_bytes(&besa->sums)));
	return block_forward(besa->block, &besa->activations, batch, input, y, &observer);
}

enum status parts_gradient(struct besa *besa, struct tensor input, int64_t count)
{
	if (besa->spec->besa.reconstruct == RECONSTRUCT_LAYER) return layer_gradient(besa, input, (int)count);
	return besa->part->first == FUSED_QKV ? attention_gradient(besa, input, (int)count) : mlp_gradient(besa, input, (int)count);
}
