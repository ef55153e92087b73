#include "engine/hardware/hardware.h"

#include <stdlib.h>

#include "engine/hardware/vitcod.h"
#include "engine/model/block.h"

static const char *const variant_names[VITCOD_VARIANTS] = {"published", "corrected", "memory"};

/* A kind of layers, or all. */
struct tally {
	int64_t linears, params, zeros;
	struct vitcod_cost cost;
};

/* The columns that the array computes at a time: all, but those of the MLP's last linear, where it has more than outputs, are cut as
 * BESA's published code cuts down_proj, into squares. */
static int64_t patch_columns(const struct linear *linear)
{
	bool last = linear->fused == FUSED_MLP_OUT || linear->fused == FUSED_SHARED_OUT;
	return last && linear->cols > linear->rows ? linear->rows : linear->cols;
}

static enum status simulate_linear(const struct model *model, const struct linear *linear, int block, struct tally *ret,
				   struct error *err)
{
	struct tensor_info info;
	struct nonzeros nonzeros;
	void *data;
	TRY(block_read_linear(model, linear, block, &info, &data, err));
	*ret = (struct tally){.linears = 1, .params = linear->rows * linear->cols};
	ret->zeros = count_zero_weights(data, info.dtype, ret->params);
	enum status status = nonzeros_find(data, info.dtype, linear->rows, linear->cols, &nonzeros, err);
	free(data);
	TRY(status);
	status = vitcod_simulate(&nonzeros, patch_columns(linear), (int)dtype_size(info.dtype), &ret->cost, err);
	nonzeros_free(&nonzeros);
	return status;
}

static void tally_add(struct tally *sum, const struct tally *one)
{
	sum->linears += one->linears;
	sum->params += one->params;
	sum->zeros += one->zeros;
	vitcod_add(&sum->cost, &one->cost);
}

static cJSON *variant_json(const struct vitcod_cost *cost, enum vitcod_variant variant)
{
	const struct vitcod_cycles *pruned = &cost->pruned[variant], *dense = &cost->dense[variant];
	cJSON *json = cJSON_CreateObject();
	cJSON_AddNumberToObject(json, "cycles", (double)pruned->cycles);
	cJSON_AddNumberToObject(json, "dense_cycles", (double)dense->cycles);
	if (pruned->cycles)
		cJSON_AddNumberToObject(json, "speedup", (double)dense->cycles / (double)pruned->cycles);
	else
		cJSON_AddNullToObject(json, "speedup");
	if (variant == VITCOD_MEMORY) {
		cJSON_AddNumberToObject(json, "compute_cycles", (double)pruned->compute);
		cJSON_AddNumberToObject(json, "transfer_cycles", (double)pruned->transfer);
	}
	return json;
}

static void add_cost(cJSON *object, const struct vitcod_cost *cost)
{
	cJSON *simulated = cJSON_AddObjectToObject(object, "simulated");
	for (int v = 0; v < VITCOD_VARIANTS; v++)
		cJSON_AddItemToObject(simulated, variant_names[v], variant_json(cost, (enum vitcod_variant)v));
}

static cJSON *layer_json(const struct block_layout *layout, int kind, const struct tally *tally)
{
	const struct linear *linear = layout->linears;
	while (linear->kind != kind)
		linear++;
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "layer", layout->kinds[kind]);
	cJSON_AddNumberToObject(json, "linears", (double)tally->linears);
	cJSON_AddNumberToObject(json, "rows", (double)linear->rows);
	cJSON_AddNumberToObject(json, "cols", (double)linear->cols);
	cJSON_AddNumberToObject(json, "params", (double)tally->params);
	cJSON_AddNumberToObject(json, "zeros", (double)tally->zeros);
	add_cost(json, &tally->cost);
	return json;
}

static cJSON *report_json(const struct block_layout *layout, const struct tally tallies[LAYOUT_MAX_KINDS])
{
	struct vitcod_cost all = {0};
	cJSON *json = cJSON_CreateObject(), *layers = cJSON_AddArrayToObject(json, "layers");
	for (int kind = 0; kind < layout->n_kinds; kind++) {
		cJSON_AddItemToArray(layers, layer_json(layout, kind, &tallies[kind]));
		vitcod_add(&all, &tallies[kind].cost);
	}
	add_cost(json, &all);
	return json;
}

static enum status simulate_blocks(const struct model *model, const struct block_layout *layout, const atomic_bool *stop,
				   struct tally ret[LAYOUT_MAX_KINDS], struct error *err)
{
	for (int block = 0; block < (int)model->config.layers; block++)
		for (int i = 0; i < layout->n_linears; i++) {
			struct tally tally;
			if (stop && atomic_load(stop))
				return error_set(err, STATUS_CANCELLED, "stopped while hardware was simulated");
			TRY(simulate_linear(model, &layout->linears[i], block, &tally, err));
			tally_add(&ret[layout->linears[i].kind], &tally);
		}
	return STATUS_OK;
}

enum status hardware_simulate(const struct model *model, const atomic_bool *stop, cJSON **ret, struct error *err)
{
	struct block_layout layout;
	struct tally tallies[LAYOUT_MAX_KINDS] = {0};
	TRY(block_layout_create(&model->config, &layout, err));
	enum status status = simulate_blocks(model, &layout, stop, tallies, err);
	if (!status) {
		*ret = report_json(&layout, tallies);
		if (!*ret) status = error_set(err, STATUS_NO_MEMORY, "no memory for the simulation's figures");
	}
	block_layout_release(&layout);
	return status;
}
