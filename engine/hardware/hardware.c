#include "engine/hardware/hardware.h"

#include <stdlib.h>

#include "base/json.h"
#include "engine/hardware/measure.h"
#include "engine/hardware/vitcod.h"
#include "engine/model/block.h"

/* Blocks are timed together as long as their linears have so many weights: dense 2 GiB, more than caches have, and a bound for
 * what besad takes. */
enum { MOST_WEIGHTS = 1 << 30 };

static const char *const variant_names[VITCOD_VARIANTS] = {"published", "corrected", "memory"};

/* A kind of layers, or all. */
struct tally {
	int64_t linears, params, zeros;
	struct vitcod_cost cost;
};

/* The columns that the array computes at a time: all, but those of the MLP's last linear, where it has more than outputs, are
 * cut as BESA's published code cuts down_proj, into squares. */
static int64_t patch_columns(const struct linear *linear)
{
	bool last = linear->fused == FUSED_MLP_OUT || linear->fused == FUSED_SHARED_OUT;
	return last && linear->cols > linear->rows ? linear->rows : linear->cols;
}

struct look {
	const struct model *model;
	const struct hardware_wishes *wishes;
	const atomic_bool *stop;
	struct progress *progress;
	struct block_layout layout;
	struct tally tallies[LAYOUT_MAX_KINDS];
	struct measure *measure;
};

/* Whether a token goes through it; through as many experts as it is sent to, the first. */
static bool is_on_the_way(const struct look *look, const struct linear *linear)
{
	return look->layout.products[linear->product].expert < look->model->config.experts_per_token;
}

static enum status simulate(const struct linear *linear, const void *data, enum dtype dtype, struct vitcod_cost *ret,
			    struct error *err)
{
	struct nonzeros nonzeros;
	TRY(nonzeros_find(data, dtype, linear->rows, linear->cols, &nonzeros, err));
	enum status status = vitcod_simulate(&nonzeros, patch_columns(linear), (int)dtype_size(dtype), ret, err);
	nonzeros_free(&nonzeros);
	return status;
}

static enum status look_at_linear(struct look *look, const struct linear *linear, int block, struct tally *ret, struct error *err)
{
	struct tensor_info info;
	void *data;
	enum status status = STATUS_OK;
	TRY(block_read_linear(look->model, linear, block, &info, &data, err));
	*ret = (struct tally){.linears = 1, .params = linear->rows * linear->cols};
	ret->zeros = count_zero_weights(data, info.dtype, ret->params);
	if (look->wishes->simulate) status = simulate(linear, data, info.dtype, &ret->cost, err);
	if (look->measure && is_on_the_way(look, linear))
		measure_add(look->measure, data, info.dtype, linear->rows, linear->cols, linear->kind);
	free(data);
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
		json_add(simulated, variant_names[v], variant_json(cost, (enum vitcod_variant)v));
}

static void add_speedup(cJSON *object, const struct measured *measured)
{
	cJSON_AddNumberToObject(object, "dense_us", measured->dense * 1e6);
	cJSON_AddNumberToObject(object, "sparse_us", measured->sparse * 1e6);
	cJSON_AddNumberToObject(object, "speedup", measured->dense / measured->sparse);
}

static void add_measured(cJSON *object, const struct measured *measured)
{
	cJSON *json = cJSON_AddObjectToObject(object, "measured");
	cJSON_AddNumberToObject(json, "linears", (double)measured->linears);
	add_speedup(json, measured);
	cJSON_AddNumberToObject(json, "bytes_per_weight", (double)measured->sparse_bytes / (double)measured->weights);
}

static void add_decode(cJSON *object, const struct look *look)
{
	const struct measured all = measure_sum(look->measure, -1);
	cJSON *json = cJSON_AddObjectToObject(object, "decode");
	cJSON_AddNumberToObject(json, "threads", look->wishes->threads);
	add_speedup(json, &all);
	cJSON_AddNumberToObject(json, "dense_gbps", (double)all.dense_bytes / all.dense * 1e-9);
	cJSON_AddNumberToObject(json, "sparse_gbps", (double)all.sparse_bytes / all.sparse * 1e-9);
	cJSON_AddNumberToObject(json, "copy_gbps", measure_copy_rate(look->measure) * 1e-9);
}

static cJSON *layer_json(const struct look *look, int kind)
{
	const struct linear *linear = look->layout.linears;
	const struct tally *tally = &look->tallies[kind];
	while (linear->kind != kind)
		linear++;
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "layer", look->layout.kinds[kind]);
	cJSON_AddNumberToObject(json, "linears", (double)tally->linears);
	cJSON_AddNumberToObject(json, "rows", (double)linear->rows);
	cJSON_AddNumberToObject(json, "cols", (double)linear->cols);
	cJSON_AddNumberToObject(json, "params", (double)tally->params);
	cJSON_AddNumberToObject(json, "zeros", (double)tally->zeros);
	if (look->wishes->simulate) add_cost(json, &tally->cost);
	if (look->measure) {
		const struct measured measured = measure_sum(look->measure, kind);
		add_measured(json, &measured);
	}
	return json;
}

static cJSON *report_json(const struct look *look)
{
	struct vitcod_cost all = {0};
	cJSON *json = cJSON_CreateObject(), *layers = cJSON_AddArrayToObject(json, "layers");
	for (int kind = 0; kind < look->layout.n_kinds; kind++) {
		json_add(layers, NULL, layer_json(look, kind));
		vitcod_add(&all, &look->tallies[kind].cost);
	}
	if (look->wishes->simulate) add_cost(json, &all);
	if (look->measure) add_decode(json, look);
	return json;
}

/* Blocks that are timed together. */
static int64_t blocks_at_once(const struct look *look, int64_t weights_of_block)
{
	int64_t blocks = look->model->config.layers, most = weights_of_block ? MOST_WEIGHTS / weights_of_block : blocks;
	return most < 1 ? 1 : most < blocks ? most : blocks;
}

/* What is timed together, and how many blocks that is. */
static struct measure_size find_size(const struct look *look, int64_t *ret_blocks)
{
	struct measure_size size = {.most_cols = layout_most_columns(&look->layout)};
	for (int i = 0; i < look->layout.n_linears; i++) {
		const struct linear *linear = &look->layout.linears[i];
		if (!is_on_the_way(look, linear)) continue;
		size.at_once++;
		size.weights += linear->rows * linear->cols;
		size.rows += linear->rows;
		size.words += linear->rows * ((linear->cols + 63) / 64);
		if (linear->rows > size.most_rows) size.most_rows = linear->rows;
	}
	*ret_blocks = blocks_at_once(look, size.weights);
	size.linears = size.at_once * look->model->config.layers;
	size.at_once *= *ret_blocks;
	size.weights *= *ret_blocks;
	size.rows *= *ret_blocks;
	size.words *= *ret_blocks;
	return size;
}

static enum status look_at_block(struct look *look, int block, struct error *err)
{
	for (int i = 0; i < look->layout.n_linears; i++) {
		struct tally tally;
		if (look->stop && atomic_load(look->stop))
			return error_set(err, STATUS_CANCELLED, "stopped while hardware was looked at");
		TRY(look_at_linear(look, &look->layout.linears[i], block, &tally, err));
		tally_add(&look->tallies[look->layout.linears[i].kind], &tally);
		if (look->progress) progress_add(look->progress, 0);
	}
	return STATUS_OK;
}

static enum status look_at_blocks(struct look *look, struct error *err)
{
	int blocks = (int)look->model->config.layers;
	int64_t at_once;
	const struct measure_size size = find_size(look, &at_once);
	if (look->wishes->measure) TRY(measure_create(&size, &look->measure, err));
	for (int block = 0; block < blocks; block++) {
		bool timed = look->measure && ((block + 1) % at_once == 0 || block + 1 == blocks);
		TRY(look_at_block(look, block, err));
		if (timed) TRY(measure_run(look->measure, look->wishes->threads, look->stop, look->progress, err));
	}
	return STATUS_OK;
}

enum status hardware_report(const struct model *model, const struct hardware_wishes *wishes, const atomic_bool *stop,
			    struct progress *progress, cJSON **ret, struct error *err)
{
	struct look look = {.model = model, .wishes = wishes, .stop = stop, .progress = progress};
	TRY(block_layout_create(&model->config, &look.layout, err));
	enum status status = look_at_blocks(&look, err);
	cJSON *json = status ? NULL : report_json(&look);
	if (!status && (!json || json_ran_out())) {
		cJSON_Delete(json);
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the figures of the hardware");
	}
	if (!status) *ret = json;
	measure_free(look.measure);
	block_layout_release(&look.layout);
	return status;
}

enum status hardware_memory(const struct model *model, const struct hardware_wishes *wishes, int64_t *ret, struct error *err)
{
	struct look look = {.model = model, .wishes = wishes};
	int64_t ignored;
	TRY(block_layout_create(&model->config, &look.layout, err));
	const struct measure_size size = find_size(&look, &ignored);
	*ret = wishes->measure ? measure_bytes(&size) : 0;
	block_layout_release(&look.layout);
	return STATUS_OK;
}
