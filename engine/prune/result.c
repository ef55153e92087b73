#include "engine/prune/result.h"

#include <math.h>
#include <stdlib.h>

#include "base/json.h"
#include "engine/methods/method.h"

static const char *const PHASE_NAMES[PHASE_COUNT] = {"load", "reference", "rank", "learn", "refit", "final", "write", "probe"};

enum status block_result_create(const struct block_layout *layout, int index, struct block_result *ret, struct error *err)
{
	struct block_result result = {.index = index, .perplexity = NAN, .start = NAN};
	result.experts = calloc((size_t)layout->experts + 1, sizeof *result.experts);
	result.seen = calloc((size_t)layout->experts + 1, sizeof *result.seen);
	if (!result.experts || !result.seen) {
		block_result_release(&result);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the results of %d experts", layout->experts);
	}
	*ret = result;
	return STATUS_OK;
}

void block_result_release(struct block_result *result)
{
	free(result->experts);
	free(result->seen);
	stored_vectors_release(&result->vectors);
	grids_release(&result->grids);
	*result = (struct block_result){0};
}

static cJSON *number_or_null(bool there, double number)
{
	return there ? cJSON_CreateNumber(number) : cJSON_CreateNull();
}

/* Of each expert the calibration tokens that it got (null without a calibration), and its sparsity. */
static cJSON *experts_json(const struct block_result *result, int count, bool calibrated)
{
	cJSON *experts = cJSON_CreateArray();
	for (int i = 0; i < count; i++) {
		const struct part_result *part = &result->experts[i];
		cJSON *expert = cJSON_CreateObject();
		json_add(expert, "tokens", number_or_null(calibrated, (double)result->seen[i]));
		cJSON_AddNumberToObject(expert, "sparsity", (double)part->zeros / (double)part->params);
		json_add(experts, NULL, expert);
	}
	return experts;
}

static cJSON *layers_json(const struct block_result *result, const struct block_layout *layout)
{
	cJSON *layers = cJSON_CreateObject();
	for (int i = 0; i < layout->n_kinds; i++) {
		cJSON *layer = cJSON_AddObjectToObject(layers, layout->kinds[i]);
		cJSON_AddNumberToObject(layer, "rate", result->kinds[i].rate);
		cJSON_AddNumberToObject(layer, "zeros", (double)result->kinds[i].zeros);
		cJSON_AddNumberToObject(layer, "params", (double)result->kinds[i].params);
	}
	return layers;
}

cJSON *block_result_json(const struct block_result *result, const struct block_layout *layout, const struct spec *spec, int blocks,
			 double probe_dense)
{
	const struct method *method = method_find(spec->method);
	double sparsity = (double)result->zeros / (double)result->params, loss = result->reconstruction;
	bool calibrated = spec->calibration.n_sources > 0, probed = !isnan(result->perplexity);
	if (method->loss) loss = method->loss(spec, result->target, loss, sparsity);
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "block", result->index);
	cJSON_AddNumberToObject(data, "blocks", blocks);
	json_add(data, "loss", number_or_null(calibrated, loss));
	json_add(data, "reconstruction", number_or_null(calibrated, result->reconstruction));
	if (!isnan(result->start)) cJSON_AddNumberToObject(data, "reconstruction_start", result->start);
	cJSON_AddNumberToObject(data, "sparsity", sparsity);
	if (spec->allocation.method != ALLOCATION_UNIFORM) cJSON_AddNumberToObject(data, "target", result->target);
	json_add(data, "layers", layers_json(result, layout));
	if (layout->experts) json_add(data, "experts", experts_json(result, layout->experts, calibrated));
	json_add(data, "perplexity", number_or_null(probed, result->perplexity));
	json_add(data, "perplexity_dense", number_or_null(probed && !isnan(probe_dense), probe_dense));
	cJSON_AddNumberToObject(data, "seconds", result->seconds);
	cJSON *phases = cJSON_AddObjectToObject(data, "phases");
	for (int i = 0; i < PHASE_COUNT; i++)
		cJSON_AddNumberToObject(phases, PHASE_NAMES[i], result->phases[i]);
	return data;
}

static bool set_number(cJSON *object, const char *name, double number)
{
	cJSON *member = cJSON_GetObjectItemCaseSensitive(object, name);
	if (member) cJSON_SetNumberValue(member, number);
	return member;
}

enum status block_result_recount(const struct block_result *result, const struct block_layout *layout, cJSON *data,
				 struct error *err)
{
	cJSON *layers = cJSON_GetObjectItemCaseSensitive(data, "layers");
	cJSON *experts = cJSON_GetObjectItemCaseSensitive(data, "experts");
	bool whole = set_number(data, "sparsity", (double)result->zeros / (double)result->params);
	for (int i = 0; i < layout->n_kinds; i++)
		whole = whole && set_number(cJSON_GetObjectItemCaseSensitive(layers, layout->kinds[i]), "zeros",
					    (double)result->kinds[i].zeros);
	for (int i = 0; i < layout->experts; i++)
		whole = whole && set_number(cJSON_GetArrayItem(experts, i), "sparsity",
					    (double)result->experts[i].zeros / (double)result->experts[i].params);
	return whole ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for the zeros of block %d", result->index);
}
