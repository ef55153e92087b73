/* Quantization of what a method and a refit leave: each weight goes to the nearest on its group's grid, which its extremes give,
 * by itself or with feedback to those that follow. Where the clipping is learned with the rates and no refit follows, or the
 * rounded weights are what is pruned, it is done already. */
#include "engine/quantize/quantizer.h"

#include <stdlib.h>

#include "engine/prune/grams.h"
#include "engine/quantize/feedback.h"
#include "engine/stages/stage.h"

struct quantization {
	struct block *block;
	struct quantizer *quantizer;
	const atomic_bool *stop;
	bool done;
	bool feeds_back; /* what follows is for that alone */
	struct grams grams;
	struct feedback feedback;
};

static bool wanted(const struct spec *spec)
{
	return spec->quantization.bits != 0;
}

static void destroy(void *stage)
{
	struct quantization *quantization = stage;
	if (!quantization) return;
	feedback_release(&quantization->feedback);
	grams_release(&quantization->grams);
	free(quantization);
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	const struct quantization_settings *settings = &setup->spec->quantization;
	struct quantization *quantization = malloc(sizeof *quantization);
	if (!quantization) return error_set(err, STATUS_NO_MEMORY, "no memory for a stage");
	*quantization = (struct quantization){.block = setup->block,
					      .quantizer = setup->quantizer,
					      .stop = setup->stop,
					      .done = !quantization_follows(setup->spec),
					      .feeds_back = settings->rounding == ROUND_WITH_FEEDBACK};
	enum status status = STATUS_OK;
	if (quantization->feeds_back) status = grams_create(setup->block, &quantization->grams, err);
	if (status == STATUS_OK && quantization->feeds_back)
		status = feedback_create(setup->block->backend, &setup->block->layout, &quantization->feedback, err);
	if (status == STATUS_OK)
		*ret = quantization;
	else
		destroy(quantization);
	return status;
}

static enum status quantize_linear(struct quantization *quantization, const struct linear *linear)
{
	struct quantizer *quantizer = quantization->quantizer;
	struct backend *backend = quantization->block->backend;
	enum fused fused = linear->fused;
	const struct grid grid = quantizer_grid(quantizer, fused);
	if (atomic_load_explicit(quantization->stop, memory_order_relaxed))
		return error_set(&backend->error, STATUS_CANCELLED, "stopped while quantizing");
	return feedback_quantize(&quantization->feedback, &grid,
				 tensor_rows(quantization->block->master[fused], linear->first, linear->rows),
				 tensor_rows(quantizer->steps[fused], linear->first, linear->rows),
				 tensor_rows(quantizer->zeros[fused], linear->first, linear->rows));
}

/* The linears of a product, which share its inputs. */
static enum status quantize_product(struct quantization *quantization, int product, struct damping *ret_damping)
{
	const struct block_layout *layout = &quantization->block->layout;
	TRY(feedback_begin(&quantization->feedback, quantization->grams.gram[product], ret_damping));
	for (int i = 0; i < layout->n_linears; i++)
		if (layout->linears[i].product == product) TRY(quantize_linear(quantization, &layout->linears[i]));
	return STATUS_OK;
}

/* A fused matrix, behind those that are quantized already; the block goes on with what it became. */
static enum status quantize_fused(struct quantization *quantization, const struct block_task *task, enum fused fused,
				  struct error *err)
{
	struct block *block = quantization->block;
	TRY(grams_collect(&quantization->grams, task, fused, err));
	for (int i = 0; i < block->layout.n_products; i++) {
		struct damping damping;
		if (block->layout.products[i].fused != fused) continue;
		if (quantize_product(quantization, i, &damping) != STATUS_OK) {
			*err = block->backend->error;
			return err->status;
		}
		TRY(grams_warn_of_damping(&block->layout, task, i, &damping, "quantized", err));
	}
	enum status status = block->backend->ops->convert(block->backend, block->active[fused], block->master[fused]);
	if (status != STATUS_OK) *err = block->backend->error;
	return status;
}

static enum status run(void *stage, const struct block_task *task, struct error *err)
{
	struct quantization *quantization = stage;
	struct block *block = quantization->block;
	for (int f = 0; quantization->feeds_back && f < block->layout.n_fused; f++)
		TRY(quantize_fused(quantization, task, f, err));
	if (quantization->done || quantization->feeds_back ||
	    quantizer_apply(quantization->quantizer, block->master, block->master) == STATUS_OK)
		return STATUS_OK;
	*err = block->backend->error;
	return err->status;
}

/* With feedback: partial passes, the Gram matrices, and their factors. */
static double work(const struct spec *spec)
{
	return spec->quantization.rounding == ROUND_WITH_FEEDBACK ? 3 : 0;
}

const struct stage stage_quantize = {
	.name = "quantize", .wanted = wanted, .work = work, .create = create, .destroy = destroy, .run = run, .rounds = true};
