#include "engine/methods/one_shot/saliency.h"

#include <math.h>
#include <stdlib.h>

#include "base/random.h"

static enum status allocate(struct saliency *s, struct tensor *tensor, int64_t rows, int64_t cols)
{
	struct backend *backend = s->block->backend;
	*tensor = tensor_make(NULL, rows, cols, DTYPE_F32);
	return backend->ops->alloc(backend, tensor_bytes(tensor), &tensor->data);
}

static enum status upload_signs(struct saliency *s)
{
	struct backend *backend = s->block->backend;
	int64_t n = s->signs.rows * s->signs.cols;
	float *host = malloc((size_t)n * sizeof *host);
	if (!host) return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for %lld signs", (long long)n);
	for (int64_t i = 0; i < n; i += 64) {
		uint64_t bits = random_at(0, (uint64_t)i);
		for (int64_t j = i; j < n && j < i + 64; j++, bits >>= 1)
			host[j] = bits & 1 ? 1 : -1;
	}
	enum status status = backend->ops->upload(backend, s->signs.data, host, tensor_bytes(&s->signs));
	free(host);
	return status;
}

static enum status allocate_all(struct saliency *s, int64_t tokens, int64_t hidden)
{
	const struct block_layout *layout = &s->block->layout;
	struct backend *backend = s->block->backend;
	const struct product *largest = &layout->products[0];
	for (int i = 0; i < layout->n_products; i++) {
		const struct product *product = &layout->products[i];
		if (product->rows * product->cols > largest->rows * largest->cols) largest = product;
	}
	s->host_squares = malloc((size_t)hidden * (sizeof(double) + sizeof(float)));
	if (!s->host_squares)
		return error_set(&backend->error, STATUS_NO_MEMORY, "no memory for the norms of %lld channels", (long long)hidden);
	for (int f = 0; f < layout->n_fused; f++)
		TRY(allocate(s, &s->score[f], layout->fused_rows[f], layout->fused_cols[f]));
	TRY(allocate(s, &s->gradient, largest->rows, largest->cols));
	struct tensor *const states[] = {&s->signs, &s->y, &s->dy};
	for (size_t i = 0; i < sizeof states / sizeof *states; i++)
		TRY(allocate(s, states[i], tokens, hidden));
	TRY(backend->ops->alloc(backend, (size_t)hidden * sizeof(double), &s->squares));
	TRY(backend->ops->alloc(backend, (size_t)hidden * sizeof(float), &s->inverse));
	return upload_signs(s);
}

enum status saliency_create(const struct method_setup *setup, struct saliency *ret, struct error *err)
{
	struct block *block = setup->block;
	*ret = (struct saliency){.block = block, .stop = setup->stop};
	if (allocate_all(ret, setup->tokens, block->config->hidden) != STATUS_OK) {
		*err = block->backend->error;
		return err->status;
	}
	return activations_create(block, 1, setup->tokens, true, &ret->activations, err);
}

void saliency_release(struct saliency *s)
{
	if (!s->block) return;
	struct backend *backend = s->block->backend;
	void *const memory[] = {s->gradient.data, s->signs.data, s->y.data, s->dy.data, s->squares, s->inverse};
	for (int f = 0; f < FUSED_COUNT; f++)
		backend->ops->release(backend, s->score[f].data);
	for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
		backend->ops->release(backend, memory[i]);
	activations_release(&s->activations, backend);
	free(s->host_squares);
	*s = (struct saliency){0};
}

/* dy of Σ ±y/‖Y‖; a channel whose norm is zero adds nothing. */
static enum status fill_gradient(struct saliency *s)
{
	struct backend *backend = s->block->backend;
	size_t hidden = (size_t)s->y.cols;
	double *squares = s->host_squares;
	float *inverse = (float *)(squares + hidden);
	TRY(backend->ops->zero(backend, s->squares, hidden * sizeof *squares));
	TRY(backend->ops->column_norms(backend, s->squares, s->y));
	TRY(backend->ops->download(backend, squares, s->squares, hidden * sizeof *squares));
	for (size_t i = 0; i < hidden; i++)
		inverse[i] = squares[i] > 0 ? (float)(1 / sqrt(squares[i])) : 0;
	TRY(backend->ops->upload(backend, s->inverse, inverse, hidden * sizeof *inverse));
	return backend->ops->scale(backend, s->dy, s->signs, NULL, s->inverse, 1, false);
}

static enum status add(void *context, int index, const struct product_gradient *gradient)
{
	struct saliency *s = context;
	struct backend *backend = s->block->backend;
	const struct product *product = &s->block->layout.products[index];
	if (!gradient->x.rows) return STATUS_OK; /* an expert without tokens */
	struct tensor g = tensor_make(s->gradient.data, product->rows, product->cols, DTYPE_F32);
	TRY(backend->ops->matmul(backend, g, gradient->dy, true, gradient->x, false, false));
	return backend->ops->add_saliency(backend, block_product(s->block, s->score, index), g,
					  block_product(s->block, s->block->weight, index));
}

static enum status find(struct saliency *s, struct stream *input)
{
	struct backend *backend = s->block->backend;
	for (int f = 0; f < s->block->layout.n_fused; f++)
		TRY(backend->ops->zero(backend, s->score[f].data, tensor_bytes(&s->score[f])));
	for (int64_t i = 0; i < input->sequences; i++) {
		struct tensor x;
		if (atomic_load_explicit(s->stop, memory_order_relaxed))
			return error_set(&backend->error, STATUS_CANCELLED, "stopped while pruning");
		TRY(stream_batch(input, i, 1, true, &x));
		TRY(block_forward(s->block, &s->activations, 1, x, s->y, NULL));
		TRY(fill_gradient(s));
		TRY(block_backward(s->block, &s->activations, 1, s->dy, add, s, NULL));
	}
	return STATUS_OK;
}

enum status saliency_find(struct saliency *s, const struct block_task *task, struct error *err)
{
	enum status status = find(s, task->input);
	if (status != STATUS_OK) *err = s->block->backend->error;
	return status;
}
