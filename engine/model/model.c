#include "engine/model/model.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/text.h"
#include "engine/compute/dry.h"
#include "engine/compute/half.h"
#include "engine/model/families.h"
#include "engine/model/packed.h"

static const char *tensor_name(char room[128], const char *name, const char *kind);
static enum status missing_tensor(const struct model *model, const char *name, struct error *err);

void model_name_ends(struct model *model)
{
	char name[128];
	const struct model_config *config = &model->config;
	model->embeddings = config->names->embeddings;
	model->head = config->names->head && !model_find(model, "lm_head.weight") ? config->names->head : "lm_head";
	if (config->names->experts) {
		snprintf(name, sizeof name, "%s.0.%s.gate_up_proj", config->names->blocks, config->names->experts);
		model->config.stacked_experts = model_find(model, name) != NULL;
	}
	if (!config->tied_embeddings) return;
	if (!model_find(model, tensor_name(name, model->head, "weight")))
		model->head = model->embeddings;
	else if (!model_find(model, tensor_name(name, model->embeddings, "weight")))
		model->embeddings = model->head;
}

/* Which tensors are embeddings and head. */
static enum status find_ends(struct model *model, struct warnings *warnings, struct error *err)
{
	char name[128];
	bool same;
	struct model_config *config = &model->config;
	model_name_ends(model);
	if (!config->tied_embeddings || strcmp(model->embeddings, model->head) == 0) return STATUS_OK;
	const struct tensor_info *embeddings = model_find(model, tensor_name(name, model->embeddings, "weight"));
	const struct tensor_info *head = model_find(model, tensor_name(name, model->head, "weight"));
	TRY(checkpoint_same(&model->checkpoint, embeddings, head, &same, err));
	if (same) {
		model->head = model->embeddings;
		return STATUS_OK;
	}
	config->tied_embeddings = false;
	warnings_add(warnings,
		     "the embeddings are tied ('tie_word_embeddings'), but the model has a '%s' that differs from '%s': it is used "
		     "as the head, "
		     "as transformers does; set 'tie_word_embeddings' to false in config.json if that is right",
		     head->name, embeddings->name);
	return STATUS_OK;
}

enum status model_open(const struct place *place, struct warnings *warnings, struct model *ret, struct error *err)
{
	struct model model = {0};
	TRY(model_config_read(place, warnings, &model.config, err));
	TRY(checkpoint_open(place, warnings, &model.checkpoint, err));
	enum status status = packed_find(&model.checkpoint, &model.config.packing, err);
	if (status == STATUS_OK) status = find_ends(&model, warnings, err);
	if (status != STATUS_OK) {
		model_close(&model);
		return status;
	}
	*ret = model;
	return STATUS_OK;
}

void model_close(struct model *model)
{
	checkpoint_close(&model->checkpoint);
	*model = (struct model){0};
}

static const char *shard_path(const struct model *model, const struct tensor_info *info)
{
	return model->checkpoint.shards[info->shard].path;
}

/* Of a language model inside another: "model.x" is "language_model.model.x" or "model.language_model.x", as transformers 4 and 5
 * have it, and "lm_head.weight" may be "language_model.lm_head.weight". */
static const struct tensor_info *find_text_tensor(const struct model *model, const char *name)
{
	char room[256];
	snprintf(room, sizeof room, "language_model.%s", name);
	const struct tensor_info *info = checkpoint_find(&model->checkpoint, room);
	if (info || !text_starts_with(name, "model.")) return info;
	snprintf(room, sizeof room, "model.language_model.%s", name + strlen("model."));
	return checkpoint_find(&model->checkpoint, room);
}

const struct tensor_info *model_find(const struct model *model, const char *name)
{
	size_t base = strcspn(model->config.names->embeddings, ".") + 1;
	const struct tensor_info *info = checkpoint_find(&model->checkpoint, name);
	if (!info && strncmp(name, model->config.names->embeddings, base) == 0)
		info = checkpoint_find(&model->checkpoint, name + base);
	if (!info && model->config.multimodal) info = find_text_tensor(model, name);
	if (info && model->seen) model->seen[info - model->checkpoint.tensors] = true;
	return info;
}

/* The first tensor whose name has `part`; NULL when there is none. */
static const struct tensor_info *find_part(const struct model *model, const char *part)
{
	for (size_t i = 0; i < model->checkpoint.n_tensors; i++)
		if (strstr(model->checkpoint.tensors[i].name, part)) return &model->checkpoint.tensors[i];
	return NULL;
}

/* Why a tensor is not there, as far as the others tell. */
static enum status missing_tensor(const struct model *model, const char *name, struct error *err)
{
	const struct tensor_info *fused = model->config.experts ? find_part(model, ".experts.gate_up_proj") : NULL;
	const char *last = strrchr(name, '.'), *start = strncmp(name, "model.", 6) == 0 ? name + 6 : name;
	char stem[160], head[128];
	if (fused)
		return error_set(
			err, STATUS_UNSUPPORTED,
			"tensor '%s' is missing: the experts are fused into '%s', which is not supported; load the model with "
			"transformers and write it with save_pretrained, which keeps experts apart unless told otherwise",
			name, fused->name);
	if (!model->config.tied_embeddings && strcmp(name, tensor_name(head, model->head, "weight")) == 0)
		return error_set(err, STATUS_INVALID,
				 "tensor '%s' is missing, and the embeddings are not tied ('tie_word_embeddings'): a "
				 "model without "
				 "the head of a language model cannot be evaluated; use one that was saved whole (as %s)",
				 name, family_of_type(model->config.family)->architecture);
	if (last && strcmp(last, ".bias") == 0)
		return error_set(
			err, STATUS_INVALID,
			"tensor '%s' is missing: config.json asks for biases ('attention_bias', 'mlp_bias', 'enable_bias', or the "
			"model_type), and the model has none there",
			name);
	snprintf(stem, sizeof stem, "%.*s", (int)(last ? last + 1 - start : 0), start);
	const struct tensor_info *other = *stem ? find_part(model, stem) : NULL;
	if (other)
		return error_set(
			err, STATUS_UNSUPPORTED,
			"tensor '%s' is missing, and '%s' in its place: a quantized or compressed model, or an adapter; use the "
			"model in F32, BF16 or F16",
			name, other->name);
	return error_set(err, STATUS_INVALID, "tensor '%s' is missing from the model; it has %zu tensors%s%s%s", name,
			 model->checkpoint.n_tensors, model->checkpoint.n_tensors ? ", the first of which is '" : "",
			 model->checkpoint.n_tensors ? model->checkpoint.tensors[0].name : "",
			 model->checkpoint.n_tensors ? "'" : "");
}

/* "[2, 3]" of a shape, as far as it fits. */
static void print_shape(char *text, size_t room, const int64_t *shape, int rank)
{
	size_t used = (size_t)snprintf(text, room, "[");
	for (int i = 0; i < rank && used + 24 < room; i++)
		used += (size_t)snprintf(text + used, room - used, "%s%" PRId64, i ? ", " : "", shape[i]);
	snprintf(text + used, room - used, "]");
}

static enum status tensor_of_shape(const struct model *model, const char *name, const int64_t *shape, int rank,
				   const struct tensor_info **ret, struct error *err)
{
	const struct tensor_info *info = model_find(model, name);
	if (!info) return missing_tensor(model, name, err);
	bool fits = info->rank == rank;
	for (int i = 0; fits && i < rank; i++)
		fits = info->shape[i] == shape[i];
	if (!fits) {
		char there[128], expected[128];
		print_shape(there, sizeof there, info->shape, info->rank);
		print_shape(expected, sizeof expected, shape, rank);
		return error_set(err, STATUS_INVALID, "%s: tensor '%s' has shape %s, but config.json asks for %s",
				 shard_path(model, info), name, there, expected);
	}
	if (info->dtype != DTYPE_F32 && info->dtype != DTYPE_BF16 && info->dtype != DTYPE_F16)
		return error_set(err, STATUS_UNSUPPORTED, "%s: tensor '%s' has dtype %s, and F32, BF16 or F16 is wanted",
				 shard_path(model, info), name, info->opaque ? info->opaque : "of integers or F64");
	*ret = info;
	return STATUS_OK;
}

enum status model_tensor(const struct model *model, const char *name, int64_t rows, int64_t cols, const struct tensor_info **ret,
			 struct error *err)
{
	int64_t shape[] = {rows, cols};
	return rows ? tensor_of_shape(model, name, shape, 2, ret, err) : tensor_of_shape(model, name, &cols, 1, ret, err);
}

enum status model_stack(const struct model *model, const char *name, int64_t count, int64_t rows, int64_t cols,
			const struct tensor_info **ret, struct error *err)
{
	int64_t shape[] = {count, rows, cols};
	return tensor_of_shape(model, name, shape, 3, ret, err);
}

int64_t count_zero_weights(const void *data, enum dtype dtype, int64_t count)
{
	int64_t zeros = 0;
	if (dtype == DTYPE_F32)
		for (int64_t i = 0; i < count; i++)
			zeros += ((const float *)data)[i] == 0;
	else
		for (int64_t i = 0; i < count; i++)
			zeros += (((const uint16_t *)data)[i] & 0x7fff) == 0;
	return zeros;
}

/* The index of the first element that is NaN or infinite (all exponent bits set), or `count`. */
static int64_t first_not_finite(const void *data, enum dtype dtype, int64_t count)
{
	if (dtype == DTYPE_F32) {
		const uint32_t *bits = data;
		for (int64_t i = 0; i < count; i++)
			if ((bits[i] & 0x7f800000u) == 0x7f800000u) return i;
		return count;
	}
	const uint16_t *bits = data;
	uint16_t mask = dtype == DTYPE_BF16 ? 0x7f80 : 0x7c00;
	for (int64_t i = 0; i < count; i++)
		if ((bits[i] & mask) == mask) return i;
	return count;
}

enum status model_read(const struct model *model, const struct tensor_info *info, void **ret, struct error *err)
{
	void *data = malloc((size_t)info->bytes + 1);
	if (!data)
		return error_set(err, STATUS_NO_MEMORY, "no memory for tensor '%s' (%" PRId64 " bytes)", info->name, info->bytes);
	enum status status = checkpoint_read(&model->checkpoint, info, data, err);
	if (status == STATUS_OK) {
		int64_t count = info->bytes / (int64_t)dtype_size(info->dtype), bad = first_not_finite(data, info->dtype, count);
		if (bad < count)
			status = error_set(err, STATUS_NUMERIC,
					   "%s: tensor '%s' is not finite (NaN or infinity) at element %" PRId64,
					   shard_path(model, info), info->name, bad);
	}
	if (status != STATUS_OK) {
		free(data);
		return status;
	}
	*ret = data;
	return STATUS_OK;
}

/* A new device tensor with the file's data, in the file's type. */
static enum status upload(const struct model *model, struct backend *backend, const struct tensor_info *info, int64_t rows,
			  int64_t cols, struct tensor *ret, struct error *err)
{
	void *host = NULL, *device = NULL;
	if (!backend->dry) TRY(model_read(model, info, &host, err));
	dry_host(backend, info->bytes);
	enum status status = backend->ops->alloc(backend, (size_t)info->bytes, &device);
	if (status == STATUS_OK) status = backend->ops->upload(backend, device, host, (size_t)info->bytes);
	free(host);
	dry_host(backend, -info->bytes);
	if (status != STATUS_OK) {
		*err = backend->error;
		backend->ops->release(backend, device);
		return status;
	}
	*ret = tensor_make(device, rows, cols, info->dtype);
	return STATUS_OK;
}

/* Turns a device tensor into one of another type; frees the old one. */
static enum status retype(struct backend *backend, enum dtype type, struct tensor *tensor, struct error *err)
{
	if (tensor->dtype == type) return STATUS_OK;
	struct tensor to = tensor_make(NULL, tensor->rows, tensor->cols, type);
	enum status status = backend->ops->alloc(backend, tensor_bytes(&to), &to.data);
	if (status == STATUS_OK) status = backend->ops->convert(backend, to, *tensor);
	if (status != STATUS_OK) {
		*err = backend->error;
		backend->ops->release(backend, to.data);
		return status;
	}
	backend->ops->release(backend, tensor->data);
	*tensor = to;
	return STATUS_OK;
}

static enum status upload_as(const struct model *model, struct backend *backend, const struct tensor_info *info, int64_t rows,
			     int64_t cols, enum dtype type, struct tensor *ret, struct error *err)
{
	struct tensor tensor = {0};
	TRY(upload(model, backend, info, rows, cols, &tensor, err));
	enum status status = retype(backend, type, &tensor, err);
	if (status != STATUS_OK) {
		backend->ops->release(backend, tensor.data);
		return status;
	}
	*ret = tensor;
	return STATUS_OK;
}

enum status model_upload_vector(const struct model *model, struct backend *backend, const char *name, int64_t cols,
				struct tensor *ret, struct error *err)
{
	const struct tensor_info *info;
	TRY(model_tensor(model, name, 0, cols, &info, err));
	return upload_as(model, backend, info, 1, cols, DTYPE_F32, ret, err);
}

enum status model_upload_flat(const struct model *model, struct backend *backend, const struct tensor_info *info, int64_t length,
			      struct tensor *ret, struct error *err)
{
	return upload_as(model, backend, info, 1, length, DTYPE_F32, ret, err);
}

enum status model_upload_matrix(const struct model *model, struct backend *backend, const char *name, int64_t rows, int64_t cols,
				enum dtype type, struct tensor *ret, struct error *err)
{
	const struct tensor_info *info;
	TRY(model_tensor(model, name, rows, cols, &info, err));
	return upload_as(model, backend, info, rows, cols, type, ret, err);
}

/* "NAME.KIND" */
static const char *tensor_name(char room[128], const char *name, const char *kind)
{
	snprintf(room, 128, "%s.%s", name, kind);
	return room;
}

/* A table whose rows are read one by one. */
static enum status table_tensor(const struct model *model, const char *name, int64_t rows, const struct tensor_info **ret,
				struct error *err)
{
	TRY(model_tensor(model, name, rows, model->config.hidden, ret, err));
	if (!(*ret)->packed) return STATUS_OK;
	return error_set(err, STATUS_UNSUPPORTED, "%s: the table '%s' is packed; only linears may be", shard_path(model, *ret),
			 name);
}

/* The position table: one row for each position behind `position_offset` others. */
static enum status position_table(const struct model *model, const struct tensor_info **ret, struct error *err)
{
	char name[128];
	const struct model_config *config = &model->config;
	*ret = NULL;
	if (config->position_offset < 0) return STATUS_OK;
	return table_tensor(model, tensor_name(name, config->names->positions, "weight"),
			    config->max_positions + config->position_offset, ret, err);
}

enum status model_check(const struct model *model, struct error *err)
{
	char name[128];
	const struct tensor_info *info;
	const struct model_config *config = &model->config;
	TRY(table_tensor(model, tensor_name(name, model->embeddings, "weight"), config->vocab, &info, err));
	TRY(model_tensor(model, tensor_name(name, model->head, "weight"), config->vocab, config->hidden, &info, err));
	TRY(model_tensor(model, tensor_name(name, config->names->final_norm, "weight"), 0, config->hidden, &info, err));
	if (config->head_bias) TRY(model_tensor(model, "lm_head.bias", 0, config->vocab, &info, err));
	if (config->norm_bias)
		TRY(model_tensor(model, tensor_name(name, config->names->final_norm, "bias"), 0, config->hidden, &info, err));
	return position_table(model, &info, err);
}

/* values [cols] += scale · row `index` of a table. `row` has room for it in the file's type. */
static enum status add_row(const struct model *model, const struct tensor_info *table, int64_t index, float scale, void *row,
			   float *values, struct error *err)
{
	int64_t cols = table->shape[1];
	size_t bytes = (size_t)cols * dtype_size(table->dtype);
	TRY(file_read(&model->checkpoint.shards[table->shard], row, bytes, table->offset + index * (int64_t)bytes, err));
	if (first_not_finite(row, table->dtype, cols) < cols)
		return error_set(err, STATUS_NUMERIC, "%s: tensor '%s' is not finite (NaN or infinity) in row %" PRId64,
				 shard_path(model, table), table->name, index);
	for (int64_t j = 0; j < cols; j++)
		values[j] += half_load(row, table->dtype, j) * scale;
	return STATUS_OK;
}

/* The tables that embeddings are taken from; positions is NULL where there is none. */
struct embedding_tables {
	const struct tensor_info *tokens, *positions;
};

static enum status find_tables(const struct model *model, struct embedding_tables *ret, struct error *err)
{
	char name[128];
	TRY(table_tensor(model, tensor_name(name, model->embeddings, "weight"), model->config.vocab, &ret->tokens, err));
	return position_table(model, &ret->positions, err);
}

/* Of a sequence of `length` tokens. */
static enum status check_length(const struct model *model, const struct embedding_tables *tables, int64_t length, struct error *err)
{
	if (!tables->positions || length <= model->config.max_positions) return STATUS_OK;
	return error_set(err, STATUS_INVALID, "sequences of %" PRId64 " tokens are longer than the model's %" PRId64 " positions",
			 length, model->config.max_positions);
}

/* values [H] += the embedding of a token. `row` has room for H floats. */
static enum status add_embedding(const struct model *model, const struct embedding_tables *tables, int32_t id, int64_t position,
				 void *row, float *values, struct error *err)
{
	const struct model_config *config = &model->config;
	TRY(add_row(model, tables->tokens, id, config->embedding_scale, row, values, err));
	if (!tables->positions) return STATUS_OK;
	return add_row(model, tables->positions, position + config->position_offset, 1, row, values, err);
}

enum status model_embed_token(const struct model *model, int32_t id, int64_t position, float *ret, struct error *err)
{
	struct embedding_tables tables;
	TRY(find_tables(model, &tables, err));
	TRY(check_length(model, &tables, position + 1, err));
	void *row = malloc((size_t)model->config.hidden * sizeof(float));
	if (!row) return error_set(err, STATUS_NO_MEMORY, "no memory for the embedding of a token");
	memset(ret, 0, (size_t)model->config.hidden * sizeof *ret);
	enum status status = add_embedding(model, &tables, id, position, row, ret, err);
	free(row);
	return status;
}

enum status model_embed(const struct model *model, struct backend *backend, const int32_t *ids, int64_t tokens, int64_t length,
			struct tensor out, struct error *err)
{
	const struct model_config *config = &model->config;
	struct embedding_tables tables;
	TRY(find_tables(model, &tables, err));
	TRY(check_length(model, &tables, length, err));
	int64_t bytes = tokens * config->hidden * (int64_t)sizeof(float);
	dry_host(backend, bytes);
	dry_host(backend, -bytes);
	if (backend->dry) return STATUS_OK;
	void *row = malloc((size_t)config->hidden * sizeof(float));
	float *values = calloc((size_t)(tokens * config->hidden), sizeof *values);
	enum status status = STATUS_OK;
	if (!row || !values)
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the embeddings of %" PRId64 " tokens", tokens);
	for (int64_t t = 0; status == STATUS_OK && t < tokens; t++)
		status = add_embedding(model, &tables, ids[t], t % length, row, values + t * config->hidden, err);
	if (status == STATUS_OK) {
		status = backend->ops->upload(backend, out.data, values, (size_t)bytes);
		if (status != STATUS_OK) *err = backend->error;
	}
	free(row);
	free(values);
	return status;
}

enum status model_norm_tensor(const struct model *model, bool bias, const struct tensor_info **ret, struct error *err)
{
	char name[128];
	tensor_name(name, model->config.names->final_norm, bias ? "bias" : "weight");
	return model_tensor(model, name, 0, model->config.hidden, ret, err);
}

static enum status load_norm_part(const struct model *model, struct backend *backend, bool bias, struct tensor *ret,
				  struct error *err)
{
	const struct tensor_info *info;
	TRY(model_norm_tensor(model, bias, &info, err));
	return upload_as(model, backend, info, 1, model->config.hidden, DTYPE_F32, ret, err);
}

enum status model_norm_load(const struct model *model, struct backend *backend, struct model_norm *ret, struct error *err)
{
	struct model_norm norm = {0};
	enum status status = load_norm_part(model, backend, false, &norm.weight, err);
	if (status == STATUS_OK && model->config.norm_bias) status = load_norm_part(model, backend, true, &norm.bias, err);
	if (status == STATUS_OK)
		*ret = norm;
	else
		model_norm_release(&norm, backend);
	return status;
}

void model_norm_release(struct model_norm *norm, struct backend *backend)
{
	backend->ops->release(backend, norm->weight.data);
	backend->ops->release(backend, norm->bias.data);
	*norm = (struct model_norm){0};
}

enum status model_head_load(const struct model *model, struct backend *backend, enum dtype type, struct model_head *ret,
			    struct error *err)
{
	const struct model_config *config = &model->config;
	const struct tensor_info *info;
	struct model_head head = {0};
	struct model_norm norm;
	char name[128];
	TRY(model_tensor(model, tensor_name(name, model->head, "weight"), config->vocab, config->hidden, &info, err));
	TRY(model_norm_load(model, backend, &norm, err));
	head.norm_weight = norm.weight;
	head.norm_bias = norm.bias;
	enum status status = upload_as(model, backend, info, config->vocab, config->hidden, type, &head.head, err);
	if (status == STATUS_OK && config->head_bias)
		status = model_upload_vector(model, backend, "lm_head.bias", config->vocab, &head.bias, err);
	if (status != STATUS_OK) {
		model_head_release(&head, backend);
		return status;
	}
	*ret = head;
	return STATUS_OK;
}

void model_head_release(struct model_head *head, struct backend *backend)
{
	backend->ops->release(backend, head->norm_weight.data);
	backend->ops->release(backend, head->norm_bias.data);
	backend->ops->release(backend, head->head.data);
	backend->ops->release(backend, head->bias.data);
	*head = (struct model_head){0};
}

enum status model_logits(const struct model_config *config, const struct model_head *head, struct backend *backend,
			 struct tensor logits, struct tensor normed)
{
	TRY(backend->ops->matmul(backend, logits, normed, false, head->head, true, false));
	if (head->bias.data) TRY(backend->ops->add_bias(backend, logits, head->bias));
	if (config->logit_scale == 1) return STATUS_OK;
	return backend->ops->scale(backend, logits, logits, NULL, NULL, config->logit_scale, false);
}

enum status model_logits_backward(const struct model_config *config, const struct model_head *head, struct backend *backend,
				  struct tensor dnormed, struct tensor dlogits)
{
	TRY(backend->ops->matmul(backend, dnormed, dlogits, false, head->head, false, false));
	if (config->logit_scale == 1) return STATUS_OK;
	return backend->ops->scale(backend, dnormed, dnormed, NULL, NULL, config->logit_scale, false);
}
