/* A pruned block's way to disk, in the order that makes a crash at any point safe: the tensors and the hidden states behind the block are on
 * disk, then the savepoint, then the caller's commit; only then goes what the block started from. */
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "engine/prune/walk.h"

static const char *const PHASE_NAMES[PHASE_COUNT] = {"load", "reference", "rank", "learn", "final", "write", "probe"};

enum status block_result_create(const struct block_layout *layout, int index, struct block_result *ret, struct error *err)
{
	struct block_result result = {.index = index, .perplexity = NAN};
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
	*result = (struct block_result){0};
}

/* ---- on disk -------------------------------------------------------------------------------------------------------------------- */

static enum status write_linear(struct walk *w, const struct linear *linear, const struct tensor weights[FUSED_COUNT],
				struct block_result *result, struct error *err)
{
	struct tensor_info info;
	struct tensor rows = tensor_rows(weights[linear->fused], linear->first, linear->rows);
	TRY(block_linear_tensor(w->p->model, linear, result->index, &info, err));
	TRY(w->backend->ops->side_download(w->backend, w->weights, rows.data, (size_t)info.bytes, err));
	TRY(output_write(w->p->output, &info, w->weights, err));
	int64_t params = linear->rows * linear->cols, zeros = count_zero_weights(w->weights, info.dtype, params);
	int expert = w->block.layout.products[linear->product].expert;
	struct part_result *kind = &result->kinds[linear->kind];
	kind->zeros += zeros;
	kind->params += params;
	result->zeros += zeros;
	if (expert < 0) return STATUS_OK;
	result->experts[expert].zeros += zeros;
	result->experts[expert].params += params;
	return STATUS_OK;
}

static enum status save_stream(const struct walk *w, const char *kind, int index, const struct stream *stream, struct error *err)
{
	char path[4096];
	struct stream saved = *stream;
	savepoint_path(w->p->savepoint, kind, index, path);
	return stream_save(&saved, path, err);
}

enum status finish_weights(struct walk *w, struct block_result *result, const struct tensor weights[FUSED_COUNT], struct error *err)
{
	for (int i = 0; i < w->block.layout.n_linears; i++)
		TRY(write_linear(w, &w->block.layout.linears[i], weights, result, err));
	result->params = w->block.layout.params;
	return output_sync(w->p->output, err);
}

enum status finish_streams(struct walk *w, int index, const struct stream *outputs, struct error *err)
{
	int next = index + 1;
	if (next == w->p->model->config.layers) return STATUS_OK;
	if (walk_calibrated(w)) TRY(save_stream(w, "hidden", next, outputs, err));
	if (w->dense_stream) TRY(save_stream(w, "dense", next, &w->reference, err));
	return walk_probes(w) ? save_stream(w, "probe", next, &w->probe.behind, err) : STATUS_OK;
}

/* ---- the commit ----------------------------------------------------------------------------------------------------------------- */

static cJSON *number_or_null(bool there, double number)
{
	return there ? cJSON_CreateNumber(number) : cJSON_CreateNull();
}

/* Of each expert the calibration tokens that it got (null without a calibration), and its sparsity. */
static cJSON *experts_json(const struct walk *w, const struct block_result *result)
{
	cJSON *experts = cJSON_CreateArray();
	for (int i = 0; i < w->block.layout.experts; i++) {
		const struct part_result *part = &result->experts[i];
		cJSON *expert = cJSON_CreateObject();
		cJSON_AddItemToObject(expert, "tokens", number_or_null(walk_calibrated(w), (double)result->seen[i]));
		cJSON_AddNumberToObject(expert, "sparsity", (double)part->zeros / (double)part->params);
		cJSON_AddItemToArray(experts, expert);
	}
	return experts;
}

static cJSON *layers_json(const struct block_layout *layout, const struct block_result *result)
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

static cJSON *block_json(const struct walk *w, const struct block_result *result)
{
	const struct block_layout *layout = &w->block.layout;
	double sparsity = (double)result->zeros / (double)result->params, loss = result->reconstruction;
	double dense = w->p->savepoint->probe_dense;
	if (w->method->loss) loss = w->method->loss(w->spec, loss, sparsity);
	bool probed = !isnan(result->perplexity);
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "block", result->index);
	cJSON_AddNumberToObject(data, "blocks", (double)w->p->model->config.layers);
	cJSON_AddItemToObject(data, "loss", number_or_null(walk_calibrated(w), loss));
	cJSON_AddItemToObject(data, "reconstruction", number_or_null(walk_calibrated(w), result->reconstruction));
	cJSON_AddNumberToObject(data, "sparsity", sparsity);
	cJSON_AddItemToObject(data, "layers", layers_json(layout, result));
	if (layout->experts) cJSON_AddItemToObject(data, "experts", experts_json(w, result));
	cJSON_AddItemToObject(data, "perplexity", number_or_null(probed, result->perplexity));
	cJSON_AddItemToObject(data, "perplexity_dense", number_or_null(probed && !isnan(dense), dense));
	cJSON_AddNumberToObject(data, "seconds", result->seconds);
	cJSON *phases = cJSON_AddObjectToObject(data, "phases");
	for (int i = 0; i < PHASE_COUNT; i++)
		cJSON_AddNumberToObject(phases, PHASE_NAMES[i], result->phases[i]);
	return data;
}

static void drop_streams(const struct walk *w, int index)
{
	static const char *const kinds[] = {"hidden", "dense", "probe"};
	char path[4096];
	for (int i = 0; i < 3; i++) {
		savepoint_path(w->p->savepoint, kinds[i], index, path);
		unlink(path);
	}
}

enum status finish_commit(struct walk *w, const struct block_result *result, struct error *err)
{
	struct savepoint *savepoint = w->p->savepoint;
	cJSON *data = block_json(w, result);
	cJSON_AddItemToArray(savepoint->blocks, cJSON_Duplicate(data, true));
	enum status status = savepoint_save(savepoint, w->p->spec_json, err);
	struct event event = event_block_finished(data);
	if (status == STATUS_OK) status = w->p->sink->commit_block(w->p->sink->context, result->index, &event, err);
	cJSON_Delete(event.data);
	if (status == STATUS_OK) drop_streams(w, result->index);
	return status;
}
