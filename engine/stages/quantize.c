/* Quantization of what a method and a refit leave: each weight goes to the nearest on its group's grid, which its extremes give. Where the
 * clipping is learned with the rates, or the rounded weights are what is pruned, it is done already. */
#include "engine/quantize/quantizer.h"

#include <stdlib.h>

#include "engine/stages/stage.h"

struct quantization {
	struct block *block;
	struct quantizer *quantizer;
	bool done;
};

static bool wanted(const struct spec *spec)
{
	return spec->quantization.bits != 0;
}

static void destroy(void *stage)
{
	free(stage);
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	struct quantization *quantization = malloc(sizeof *quantization);
	if (!quantization) return error_set(err, STATUS_NO_MEMORY, "no memory for a stage");
	*quantization = (struct quantization){setup->block, setup->quantizer, setup->spec->quantization.order != QUANTIZE_AFTER};
	*ret = quantization;
	return STATUS_OK;
}

static enum status run(void *stage, const struct block_task *task, struct error *err)
{
	struct quantization *quantization = stage;
	struct block *block = quantization->block;
	(void)task;
	if (quantization->done || quantizer_apply(quantization->quantizer, block->master, block->master) == STATUS_OK)
		return STATUS_OK;
	*err = block->backend->error;
	return err->status;
}

const struct stage stage_quantize = {.name = "quantize", .wanted = wanted, .create = create, .destroy = destroy, .run = run};
