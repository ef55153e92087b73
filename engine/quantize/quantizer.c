#include "engine/quantize/quantizer.h"

#include <stdlib.h>

/* Of the logit of γ and δ at first: 0.982. And AdamW's, as in OmniQuant (arXiv 2308.13137). */
static const float STRENGTH_START = 4, LEARNING_RATE = 1e-2f;

/* At most so much for the gradient of weights, unless a row takes more. */
enum { PANEL_BYTES_CPU = 2 << 20, PANEL_BYTES_DEVICE = 64 << 20 };

bool quantization_is_joint(const struct spec *spec)
{
	return spec->quantization.bits && spec->quantization.order == QUANTIZE_JOINTLY;
}

bool quantization_follows(const struct spec *spec)
{
	const struct quantization_settings *settings = &spec->quantization;
	return settings->bits &&
	       (settings->order == QUANTIZE_AFTER || (quantization_is_joint(spec) && spec->refit.method != REFIT_NONE));
}

struct grid quantizer_grid(const struct quantizer *q, enum fused fused)
{
	const struct block *block = q->block;
	return (struct grid){.bits = q->bits,
			     .symmetric = q->symmetric,
			     .group = q->group ? q->group : block->layout.fused_cols[fused],
			     .step = block->file_type};
}

static enum status allocate(struct backend *backend, int64_t rows, int64_t cols, struct tensor *ret)
{
	struct tensor tensor = tensor_make(NULL, rows, cols, DTYPE_F32);
	TRY(backend->ops->alloc(backend, tensor_bytes(&tensor), &tensor.data));
	*ret = tensor;
	return STATUS_OK;
}

static enum status allocate_all(struct quantizer *q, bool learned)
{
	const struct block_layout *layout = &q->block->layout;
	int64_t panel = (q->backend->unified ? PANEL_BYTES_CPU : PANEL_BYTES_DEVICE) / (int64_t)sizeof(float);
	int64_t widest = layout_most_columns(layout), largest = layout_largest_linear(layout);
	for (int f = 0; f < layout->n_fused; f++) {
		int64_t rows = layout->fused_rows[f], groups = layout->fused_cols[f] / quantizer_grid(q, f).group;
		TRY(allocate(q->backend, rows, groups, &q->steps[f]));
		TRY(allocate(q->backend, rows, groups, &q->zeros[f]));
		struct tensor *const learnables[] = {&q->strength[f], &q->gradient[f], &q->m[f], &q->v[f]};
		for (int i = 0; learned && i < 4; i++)
			TRY(allocate(q->backend, rows, q->symmetric ? groups : 2 * groups, learnables[i]));
	}
	if (panel < widest) panel = widest;
	return learned ? allocate(q->backend, 1, panel < largest ? panel : largest, &q->panel) : STATUS_OK;
}

enum status quantizer_create(const struct spec *spec, struct block *block, bool learns, struct quantizer *ret, struct error *err)
{
	const struct quantization_settings *settings = &spec->quantization;
	*ret = (struct quantizer){.block = block,
				  .backend = block->backend,
				  .bits = settings->bits,
				  .group = settings->group_size == GROUP_IS_CHANNEL ? 0 : settings->group_size,
				  .symmetric = settings->symmetric};
	enum status status = allocate_all(ret, learns);
	if (status != STATUS_OK) *err = block->backend->error;
	return status;
}

void quantizer_release(struct quantizer *q)
{
	if (!q->backend) return;
	void (*release)(struct backend *, void *) = q->backend->ops->release;
	for (int f = 0; f < FUSED_COUNT; f++) {
		release(q->backend, q->steps[f].data);
		release(q->backend, q->zeros[f].data);
		release(q->backend, q->strength[f].data);
		release(q->backend, q->gradient[f].data);
		release(q->backend, q->m[f].data);
		release(q->backend, q->v[f].data);
	}
	release(q->backend, q->panel.data);
	*q = (struct quantizer){0};
}

enum status quantizer_apply(struct quantizer *q, const struct tensor from[FUSED_COUNT], const struct tensor to[FUSED_COUNT])
{
	for (int f = 0; f < q->block->layout.n_fused; f++) {
		const struct grid grid = quantizer_grid(q, f);
		TRY(q->backend->ops->quantize(q->backend, &grid, to[f], q->steps[f], q->zeros[f], from[f], q->strength[f]));
	}
	return STATUS_OK;
}

static enum status fill(struct quantizer *q, struct tensor tensor, float value)
{
	int64_t n = tensor.rows * tensor.cols;
	float *host = malloc((size_t)n * sizeof *host);
	if (!host)
		return error_set(&q->backend->error, STATUS_NO_MEMORY, "no memory for the strengths of %lld groups", (long long)n);
	for (int64_t i = 0; i < n; i++)
		host[i] = value;
	enum status status = q->backend->ops->upload(q->backend, tensor.data, host, tensor_bytes(&tensor));
	free(host);
	return status;
}

enum status quantizer_begin(struct quantizer *q)
{
	const struct backend_ops *ops = q->backend->ops;
	q->taken = 0;
	for (int f = 0; f < q->block->layout.n_fused; f++) {
		TRY(fill(q, q->strength[f], STRENGTH_START));
		TRY(ops->zero(q->backend, q->m[f].data, tensor_bytes(&q->m[f])));
		TRY(ops->zero(q->backend, q->v[f].data, tensor_bytes(&q->v[f])));
	}
	return STATUS_OK;
}

/* Of the rows of a linear from `first` on, whose gradient by the weights is g. */
static enum status gradient_of_rows(struct quantizer *q, const struct linear *linear, int64_t first, struct tensor g)
{
	const struct grid grid = quantizer_grid(q, linear->fused);
	enum fused f = linear->fused;
	int64_t row = linear->first + first, n = g.rows;
	return q->backend->ops->quantize_backward(q->backend, &grid, tensor_rows(q->gradient[f], row, n), g,
						  tensor_rows(q->block->weight[f], row, n), tensor_rows(q->steps[f], row, n),
						  tensor_rows(q->zeros[f], row, n), tensor_rows(q->strength[f], row, n));
}

/* dy: of the linear. */
static enum status gradient_of_linear(struct quantizer *q, int index, struct tensor dy, struct tensor x, quantizer_mask_fn mask,
				      void *context)
{
	const struct linear *linear = &q->block->layout.linears[index];
	int64_t at_once = q->panel.cols / linear->cols;
	if (!x.rows) { /* an expert that got no token */
		struct tensor gradient = tensor_rows(q->gradient[linear->fused], linear->first, linear->rows);
		return q->backend->ops->zero(q->backend, gradient.data, tensor_bytes(&gradient));
	}
	for (int64_t first = 0; first < linear->rows; first += at_once) {
		int64_t left = linear->rows - first, n = left < at_once ? left : at_once;
		struct tensor g = tensor_make(q->panel.data, n, linear->cols, DTYPE_F32);
		TRY(q->backend->ops->matmul(q->backend, g, tensor_cols(dy, first, n), true, x, false, false));
		TRY(mask(context, index, first, g));
		TRY(gradient_of_rows(q, linear, first, g));
	}
	return STATUS_OK;
}

enum status quantizer_gradient(struct quantizer *q, int product, const struct product_gradient *gradient, quantizer_mask_fn mask,
			       void *context)
{
	const struct block_layout *layout = &q->block->layout;
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		if (linear->product != product) continue;
		struct tensor dy = tensor_cols(gradient->dy, linear->first - layout->products[product].first, linear->rows);
		TRY(gradient_of_linear(q, i, dy, gradient->x, mask, context));
	}
	return STATUS_OK;
}

enum status quantizer_step(struct quantizer *q)
{
	const struct adamw adamw = {.lr = LEARNING_RATE, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = ++q->taken};
	for (int f = 0; f < q->block->layout.n_fused; f++)
		TRY(q->backend->ops->adamw_step(q->backend, &adamw, q->strength[f], q->m[f], q->v[f], q->gradient[f],
						(struct tensor){0}));
	return STATUS_OK;
}
