#include "engine/model/fixed.h"

#include <stdio.h>

enum part { ROUTER, SHARED_GATE, ROUTER_BIAS, SINKS, IN_BIAS, OUT_BIAS, PARTS };

/* A tensor of the file, [rows, cols], or [cols] where rows is 0; without a path where the family has none. */
struct source {
	const char *path, *kind;
	int64_t rows, cols;
};

static struct source source_of(const struct model_config *config, enum part part)
{
	const struct weight_names *names = config->names;
	int64_t experts = config->experts, hidden = config->hidden;
	const char *paired = config->paired_experts ? names->experts : NULL;
	const struct source sources[PARTS] = {
		[ROUTER] = {experts ? names->router : NULL, ".weight", experts, hidden},
		[SHARED_GATE] = {config->shared_intermediate ? names->shared_gate : NULL, ".weight", 1, hidden},
		[ROUTER_BIAS] = {paired ? names->router : NULL, ".bias", 0, experts},
		[SINKS] = {names->sinks, "", 0, config->heads},
		[IN_BIAS] = {paired, ".gate_up_proj_bias", experts, 2 * config->intermediate},
		[OUT_BIAS] = {paired, ".down_proj_bias", experts, hidden},
	};
	return sources[part];
}

static enum status find(const struct model *model, int index, const struct source *source, const struct tensor_info **ret,
			struct error *err)
{
	char name[BLOCK_TENSOR_NAME];
	snprintf(name, sizeof name, "%s.%d.%s%s", model->config.names->blocks, index, source->path, source->kind);
	return model_tensor(model, name, source->rows, source->cols, ret, err);
}

enum status fixed_check(const struct model *model, int index, struct error *err)
{
	const struct tensor_info *info;
	for (int part = 0; part < PARTS; part++) {
		struct source source = source_of(&model->config, (enum part)part);
		if (source.path) TRY(find(model, index, &source, &info, err));
	}
	return STATUS_OK;
}

/* A part as a matrix, or a row, of F32; no data where there is none. */
static enum status upload(struct block *block, const struct model *model, int index, enum part part, struct tensor *ret,
			  struct error *err)
{
	struct source source = source_of(block->config, part);
	const struct tensor_info *info;
	if (!source.path) return STATUS_OK;
	int64_t rows = source.rows ? source.rows : 1;
	TRY(find(model, index, &source, &info, err));
	TRY(model_upload_flat(model, block->backend, info, rows * source.cols, ret, err));
	*ret = tensor_make(ret->data, rows, source.cols, DTYPE_F32);
	return STATUS_OK;
}

/* In the compute type, with a shared expert's gate as the last row. */
static enum status load_router(struct block *block, const struct model *model, int index, struct error *err)
{
	struct backend *backend = block->backend;
	int64_t experts = block->config->experts;
	struct tensor *router = &block->fixed.router, parts[2] = {{0}};
	enum status status = upload(block, model, index, ROUTER, &parts[0], err);
	if (status == STATUS_OK) status = upload(block, model, index, SHARED_GATE, &parts[1], err);
	if (status == STATUS_OK)
		status =
			backend_allocate(backend, experts + parts[1].rows, block->config->hidden, block->compute_type, router, err);
	if (status == STATUS_OK) {
		status = backend->ops->convert(backend, tensor_rows(*router, 0, experts), parts[0]);
		if (status == STATUS_OK && parts[1].data)
			status = backend->ops->convert(backend, tensor_rows(*router, experts, 1), parts[1]);
		if (status != STATUS_OK) *err = backend->error;
	}
	backend->ops->release(backend, parts[0].data);
	backend->ops->release(backend, parts[1].data);
	return status;
}

/* One of gate's and up's biases of all experts, which lie in turn. */
static enum status pick(struct block *block, struct tensor pairs, int which, struct tensor *ret, struct error *err)
{
	int64_t rows = pairs.rows, cols = pairs.cols / 2;
	TRY(backend_allocate(block->backend, rows, cols, DTYPE_F32, ret, err));
	struct tensor to = tensor_make(ret->data, rows * cols, 1, DTYPE_F32);
	struct tensor from = tensor_cols(tensor_make(pairs.data, rows * cols, 2, DTYPE_F32), which, 1);
	enum status status = block->backend->ops->convert(block->backend, to, from);
	if (status != STATUS_OK) *err = block->backend->error;
	return status;
}

static enum status load_biases(struct block *block, const struct model *model, int index, struct error *err)
{
	struct fixed_weights *fixed = &block->fixed;
	struct tensor pairs = {0};
	TRY(upload(block, model, index, ROUTER_BIAS, &fixed->router_bias, err));
	TRY(upload(block, model, index, OUT_BIAS, &fixed->down_bias, err));
	TRY(upload(block, model, index, IN_BIAS, &pairs, err));
	if (!pairs.data) return STATUS_OK;
	enum status status = pick(block, pairs, 0, &fixed->gate_bias, err);
	if (status == STATUS_OK) status = pick(block, pairs, 1, &fixed->up_bias, err);
	block->backend->ops->release(block->backend, pairs.data);
	return status;
}

enum status fixed_load(struct block *block, const struct model *model, int index, struct error *err)
{
	fixed_release(block->backend, &block->fixed);
	if (block->config->experts) TRY(load_router(block, model, index, err));
	TRY(upload(block, model, index, SINKS, &block->fixed.sinks, err));
	return load_biases(block, model, index, err);
}

void fixed_release(struct backend *backend, struct fixed_weights *fixed)
{
	struct tensor *const all[] = {&fixed->router,    &fixed->router_bias, &fixed->sinks,
				      &fixed->gate_bias, &fixed->up_bias,     &fixed->down_bias};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		backend->ops->release(backend, all[i]->data);
	*fixed = (struct fixed_weights){0};
}
