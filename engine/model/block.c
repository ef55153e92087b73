#include "engine/model/block.h"

#include <stdio.h>
#include <stdlib.h>

#include "engine/compute/dry.h"
#include "engine/model/fixed.h"
#include "engine/model/norms.h"
#include "engine/model/qk_norm.h"
#include "engine/model/rope.h"

/* ---- weights ---------------------------------------------------------------------------------------------------------------- */

static void tensor_name(const struct model_config *config, char name[BLOCK_TENSOR_NAME], int index, const char *path,
			const char *kind)
{
	snprintf(name, BLOCK_TENSOR_NAME, "%s.%d.%s.%s", config->names->blocks, index, path, kind);
}

enum status block_file_type(const struct model *model, const struct block_layout *layout, enum dtype *ret, struct error *err)
{
	struct tensor_info info;
	TRY(block_linear_tensor(model, &layout->linears[0], 0, &info, err));
	*ret = info.dtype;
	return STATUS_OK;
}

/* Checks the tensors of block `index`, whose linears must be of `type`. */
static enum status check_block(const struct model *model, const struct block_layout *layout, int index, enum dtype type,
			       struct error *err)
{
	const struct model_config *config = &model->config;
	const struct tensor_info *info;
	struct tensor_info weight;
	struct norm_vector norms[MAX_NORM_VECTORS];
	char name[BLOCK_TENSOR_NAME];
	int n_norms = norm_vectors(config, NULL, norms);
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		TRY(block_linear_tensor(model, linear, index, &weight, err));
		if (weight.dtype != type)
			return error_set(err, STATUS_UNSUPPORTED, "tensor '%s' has another type than the linears before it",
					 weight.name);
		if (!linear->bias) continue;
		tensor_name(config, name, index, linear->path, "bias");
		TRY(model_tensor(model, name, 0, linear->rows, &info, err));
	}
	for (int n = 0; n < n_norms; n++)
		for (int64_t i = 0; i < norm_tensors(&norms[n]); i++) {
			struct block_vector vector = norm_tensor(&norms[n], i);
			TRY(block_vector_tensor(model, &vector, index, &info, err));
		}
	return fixed_check(model, index, err);
}

enum status block_check(const struct model *model, struct error *err)
{
	struct block_layout layout;
	enum dtype type;
	TRY(block_layout_create(&model->config, &layout, err));
	enum status status = block_file_type(model, &layout, &type, err);
	for (int index = 0; status == STATUS_OK && index < model->config.layers; index++)
		status = check_block(model, &layout, index, type, err);
	block_layout_release(&layout);
	return status;
}

/* What products read; unlike the frozen weights, it is neither uploaded nor downloaded as a whole. */
static enum status allocate_padded(struct backend *backend, int64_t rows, int64_t cols, enum dtype type, struct tensor *ret,
				   struct error *err)
{
	struct tensor padded = tensor_padded(NULL, rows, cols, type), room;
	TRY(backend_allocate(backend, rows, padded.stride, type, &room, err));
	padded.data = room.data;
	*ret = padded;
	return STATUS_OK;
}

typedef float *(*rope_table_fn)(const struct model_config *, const struct rope *, int64_t positions);

static enum status upload_rope(struct block *block, const struct rope *rope, rope_table_fn make, int64_t positions,
			       struct tensor *ret, struct error *err)
{
	const struct model_config *config = block->config;
	if (rope->kind == ROPE_NONE) return STATUS_OK;
	TRY(backend_allocate(block->backend, positions, rope->rotary, DTYPE_F32, ret, err));
	float *table = make(config, rope, positions);
	if (!table) return error_set(err, STATUS_NO_MEMORY, "no memory for the rope table");
	enum status status = block->backend->ops->upload(block->backend, ret->data, table, tensor_bytes(ret));
	free(table);
	if (status != STATUS_OK) *err = block->backend->error;
	return status;
}

enum status block_create(const struct model *model, struct backend *backend, enum dtype compute_type, int64_t sequence_length,
			 struct block *ret, struct error *err)
{
	struct block block = {.config = &model->config, .backend = backend, .compute_type = compute_type};
	TRY(block_layout_create(block.config, &block.layout, err));
	enum status status = block_file_type(model, &block.layout, &block.file_type, err);
	for (int f = 0; status == STATUS_OK && f < block.layout.n_fused; f++) {
		int64_t rows = block.layout.fused_rows[f], cols = block.layout.fused_cols[f];
		status = backend_allocate(backend, rows, cols, block.file_type, &block.weight[f], err);
		if (status == STATUS_OK) status = allocate_padded(backend, rows, cols, compute_type, &block.active[f], err);
	}
	for (int i = 0; status == STATUS_OK && i < block.layout.n_linears; i++) {
		enum fused f = block.layout.linears[i].fused;
		if (block.layout.linears[i].bias && !block.bias[f].data)
			status = backend_allocate(backend, 1, block.layout.fused_rows[f], DTYPE_F32, &block.bias[f], err);
	}
	const struct rope *rope = &block.config->rope, *local = &block.config->local_rope;
	if (status == STATUS_OK) status = upload_rope(&block, rope, model_rope_table, sequence_length, &block.rope, err);
	if (status == STATUS_OK) status = upload_rope(&block, local, model_rope_table, sequence_length, &block.local_rope, err);
	if (status == STATUS_OK && rope_scales_queries(rope, sequence_length))
		status = upload_rope(&block, rope, rope_query_table, sequence_length, &block.query_rope, err);
	if (status != STATUS_OK) {
		block_release(&block);
		return status;
	}
	*ret = block;
	return STATUS_OK;
}

static void release(struct backend *backend, struct tensor *tensor)
{
	backend->ops->release(backend, tensor->data);
	*tensor = (struct tensor){0};
}

static void release_norms(struct block *block)
{
	struct norm_vector norms[MAX_NORM_VECTORS];
	int n = norm_vectors(block->config, block, norms);
	for (int i = 0; i < n; i++)
		release(block->backend, norms[i].place);
}

void block_release(struct block *block)
{
	if (!block->backend) return;
	for (int f = 0; f < FUSED_COUNT; f++) {
		release(block->backend, &block->weight[f]);
		release(block->backend, &block->spare[f]);
		release(block->backend, &block->active[f]);
		release(block->backend, &block->bias[f]);
		release(block->backend, &block->master[f]);
	}
	release(block->backend, &block->rounding);
	release_norms(block);
	fixed_release(block->backend, &block->fixed);
	release(block->backend, &block->rope);
	release(block->backend, &block->local_rope);
	release(block->backend, &block->query_rope);
	block_layout_release(&block->layout);
	*block = (struct block){0};
}

/* Reads a linear into `weight`, or, beside operations, into `spare`. */
static enum status read_linear(struct block *block, const struct model *model, const struct linear *linear, int index, bool beside,
			       struct error *err)
{
	const struct backend_ops *ops = block->backend->ops;
	struct tensor_info info;
	void *host = NULL;
	if (block->backend->dry) {
		TRY(block_linear_tensor(model, linear, index, &info, err));
		int64_t bytes = linear->transposed ? 2 * info.bytes : info.bytes;
		dry_host(block->backend, bytes);
		dry_host(block->backend, -bytes);
		return STATUS_OK;
	}
	TRY(block_read_linear(model, linear, index, &info, &host, err));
	*(beside ? &block->spare_zeros : &block->zeros) += count_zero_weights(host, info.dtype, linear->rows * linear->cols);
	struct tensor weight = (beside ? block->spare : block->weight)[linear->fused];
	enum status status = STATUS_OK;
	for (int i = 0; status == STATUS_OK && i < layout_stretches(linear); i++) {
		struct stretch stretch = layout_stretch(linear, i);
		struct tensor to = tensor_rows(weight, linear->first + stretch.first, stretch.rows);
		int64_t row_bytes = info.bytes / linear->rows;
		const char *from = (const char *)host + stretch.stored * row_bytes;
		size_t bytes = (size_t)(stretch.rows * row_bytes);
		status = beside ? ops->side_upload(block->backend, to.data, from, bytes, err)
				: ops->upload(block->backend, to.data, from, bytes);
	}
	free(host);
	if (status != STATUS_OK && !beside) *err = block->backend->error;
	return status;
}

static enum status load_bias(struct block *block, const struct model *model, const struct linear *linear, int index,
			     struct error *err)
{
	struct backend *backend = block->backend;
	char name[BLOCK_TENSOR_NAME];
	struct tensor bias = {0};
	if (!linear->bias) return STATUS_OK;
	tensor_name(&model->config, name, index, linear->path, "bias");
	TRY(model_upload_vector(model, backend, name, linear->rows, &bias, err));
	enum status status = STATUS_OK;
	for (int i = 0; status == STATUS_OK && i < layout_stretches(linear); i++) {
		struct stretch stretch = layout_stretch(linear, i);
		struct tensor to = tensor_cols(block->bias[linear->fused], linear->first + stretch.first, stretch.rows);
		struct tensor from = tensor_cols(bias, stretch.stored, stretch.rows);
		status = backend->ops->copy(backend, to.data, from.data, tensor_bytes(&from));
	}
	if (status != STATUS_OK) *err = backend->error;
	backend->ops->release(backend, bias.data);
	return status;
}

enum status block_add_spare(struct block *block, struct error *err)
{
	for (int f = 0; f < block->layout.n_fused; f++)
		TRY(backend_allocate(block->backend, block->layout.fused_rows[f], block->layout.fused_cols[f], block->file_type,
				     &block->spare[f], err));
	block->spare_index = -1;
	return STATUS_OK;
}

enum status block_fetch(struct block *block, const struct model *model, int index, struct error *err)
{
	block->spare_index = -1;
	block->spare_zeros = 0;
	for (int i = 0; i < block->layout.n_linears; i++)
		TRY(read_linear(block, model, &block->layout.linears[i], index, true, err));
	block->spare_index = index;
	return STATUS_OK;
}

/* Brings the linears of block `index` into `weight`. */
static enum status load_linears(struct block *block, const struct model *model, int index, struct error *err)
{
	if (block->spare[0].data) {
		bool fetched = block->spare_index == index;
		for (int f = 0; f < FUSED_COUNT; f++) {
			struct tensor other = block->weight[f];
			block->weight[f] = block->spare[f];
			block->spare[f] = other;
		}
		block->spare_index = -1;
		block->zeros = block->spare_zeros;
		if (fetched) return STATUS_OK;
	}
	block->zeros = 0;
	for (int i = 0; i < block->layout.n_linears; i++)
		TRY(read_linear(block, model, &block->layout.linears[i], index, false, err));
	return STATUS_OK;
}

static enum status load_norm(struct block *block, const struct model *model, int index, const struct norm_vector *norm,
			     struct error *err)
{
	struct backend *backend = block->backend;
	const struct tensor_info *info;
	struct tensor part;
	if (norm_tensors(norm) == 1) {
		struct block_vector vector = norm_tensor(norm, 0);
		TRY(block_vector_tensor(model, &vector, index, &info, err));
		return model_upload_flat(model, backend, info, norm->length, norm->place, err);
	}
	TRY(backend_allocate(backend, 1, norm->length, DTYPE_F32, norm->place, err));
	for (int64_t i = 0; i < norm_tensors(norm); i++) {
		struct block_vector vector = norm_tensor(norm, i);
		TRY(block_vector_tensor(model, &vector, index, &info, err));
		TRY(model_upload_flat(model, backend, info, vector.length, &part, err));
		enum status status = backend->ops->copy(backend, vector.values.data, part.data, tensor_bytes(&part));
		if (status != STATUS_OK) *err = backend->error;
		backend->ops->release(backend, part.data);
		if (status != STATUS_OK) return status;
	}
	return STATUS_OK;
}

void block_set_index(struct block *block, int index)
{
	block->window = model_window(block->config, index);
	block->still = layer_bit(block->config->still_layers, index);
}

enum status block_load(struct block *block, const struct model *model, int index, struct error *err)
{
	struct norm_vector norms[MAX_NORM_VECTORS];
	TRY(load_linears(block, model, index, err));
	for (int i = 0; i < block->layout.n_linears; i++)
		TRY(load_bias(block, model, &block->layout.linears[i], index, err));
	block_set_index(block, index);
	release_norms(block);
	int n_norms = norm_vectors(block->config, block, norms);
	for (int i = 0; i < n_norms; i++)
		TRY(load_norm(block, model, index, &norms[i], err));
	return fixed_load(block, model, index, err);
}

enum status block_activate(struct block *block, const struct tensor weights[FUSED_COUNT])
{
	for (int f = 0; f < block->layout.n_fused; f++)
		TRY(block->backend->ops->convert(block->backend, block->active[f], weights[f]));
	return STATUS_OK;
}

enum status block_activate_dense(struct block *block)
{
	return block_activate(block, block->weight);
}

/* ---- activations ------------------------------------------------------------------------------------------------------------ */

static void place_activations(const struct block *block, struct activations *a, struct arena *arena, bool backward)
{
	const struct model_config *config = block->config;
	int64_t rows = a->batch * a->tokens, hidden = config->hidden;
	int64_t rotated = (config->heads + config->kv_heads) * config->head_dim;
	const int64_t *width = block->layout.fused_rows;
	enum dtype type = block->compute_type;
	a->n1 = arena_place(arena, rows, hidden, type);
	a->qkv = arena_place(arena, rows, width[FUSED_QKV], type);
	a->attention = arena_place(arena, rows, config->heads * config->head_dim, type);
	a->n2 = arena_place(arena, rows, hidden, type);
	if (config->experts) {
		experts_place(&a->experts, block, arena, rows, backward);
	} else {
		a->gate_up = arena_place(arena, rows, width[FUSED_MLP_IN], type);
		a->mlp = arena_place(arena, rows, config->intermediate, type);
	}
	a->h = arena_place_whole(arena, rows, hidden, DTYPE_F32); /* copied whole */
	a->stats1 = arena_place_whole(arena, rows, 2, DTYPE_F32);
	a->stats2 = arena_place_whole(arena, rows, 2, DTYPE_F32);
	a->lse = arena_place_whole(arena, a->batch * config->heads, a->tokens, DTYPE_F32);
	if (config->qk_norm) {
		a->qk = arena_place(arena, rows, rotated, type);
		a->stats_q = arena_place_whole(arena, rows, 2 * qk_norm_groups(config, config->heads), DTYPE_F32);
		a->stats_k = arena_place_whole(arena, rows, 2 * qk_norm_groups(config, config->kv_heads), DTYPE_F32);
	}
	bool outputs = config->output_norms || config->residual_scale != 1;
	if (outputs) {
		a->attention_output = arena_place(arena, rows, hidden, DTYPE_F32);
		a->mlp_output = arena_place(arena, rows, hidden, DTYPE_F32);
	}
	if (config->output_norms) {
		a->stats_attention = arena_place_whole(arena, rows, 2, DTYPE_F32);
		a->stats_mlp = arena_place_whole(arena, rows, 2, DTYPE_F32);
	}
	if (!backward) return;
	if (outputs) a->doutput = arena_place(arena, rows, hidden, DTYPE_F32);
	if (!config->experts) a->dmlp = arena_place(arena, rows, config->intermediate, type);
	a->dn2 = arena_place(arena, rows, hidden, type);
	a->dqkv = arena_place(arena, rows, width[FUSED_QKV], type);
	a->dattention = arena_place(arena, rows, config->heads * config->head_dim, type);
	if (type != DTYPE_F32) a->dhalf = arena_place(arena, rows, hidden, type);
	if (!config->qk_norm) return;
	a->dqk = arena_place(arena, rows, rotated, type);
	if (type != DTYPE_F32) a->dqk_wide = arena_place(arena, rows, rotated, DTYPE_F32);
}

enum status activations_create(const struct block *block, int batch, int64_t tokens, bool backward, struct activations *ret,
			       struct error *err)
{
	struct activations a = {.batch = batch, .tokens = tokens};
	struct arena arena = {0};
	place_activations(block, &a, &arena, backward);
	void *memory;
	if (block->config->experts) {
		size_t experts = (size_t)experts_routing(block->config).experts;
		a.experts.tokens = calloc(experts, sizeof *a.experts.tokens);
		if (!a.experts.tokens) return error_set(err, STATUS_NO_MEMORY, "no memory for the counts of experts' tokens");
	}
	enum status status = block->backend->ops->alloc(block->backend, arena.used, &memory);
	if (status != STATUS_OK) {
		*err = block->backend->error;
		free(a.experts.tokens);
		return status;
	}
	arena = (struct arena){.memory = memory};
	place_activations(block, &a, &arena, backward);
	a.memory = memory;
	*ret = a;
	return STATUS_OK;
}

void activations_release(struct activations *a, struct backend *backend)
{
	backend->ops->release(backend, a->memory);
	free(a->experts.tokens);
	*a = (struct activations){0};
}

struct activations activations_of_starts(const struct block *block, const struct activations *a, int64_t tokens)
{
	struct activations few = *a;
	few.tokens = tokens;
	few.lse = tensor_make(a->lse.data, a->batch * block->config->heads, tokens, DTYPE_F32);
	return few;
}

/* ---- forward and backward ---------------------------------------------------------------------------------------------------- */

/* Query, key and value columns of a fused qkv tensor; q and k lie side by side, so that one rope turns both. */
struct qkv {
	struct tensor q, k, v, qk;
};

static struct qkv split_qkv(const struct model_config *config, struct tensor qkv)
{
	int64_t query = config->heads * config->head_dim, key = config->kv_heads * config->head_dim;
	return (struct qkv){tensor_cols(qkv, 0, query), tensor_cols(qkv, query, key), tensor_cols(qkv, query + key, key),
			    tensor_cols(qkv, 0, query + key)};
}

/* The same v, with q and k in a tensor of their own. */
static struct qkv with_qk(struct qkv qkv, struct tensor qk)
{
	return (struct qkv){tensor_cols(qk, 0, qkv.q.cols), tensor_cols(qk, qkv.q.cols, qkv.k.cols), qkv.v, qk};
}

/* q and k of the loaded block, rotated in place. */
static enum status turn(const struct block *block, const struct qkv *heads, bool back)
{
	const struct backend_ops *ops = block->backend->ops;
	struct tensor table = block->window && block->local_rope.data ? block->local_rope : block->rope;
	if (!table.data || block->still) return STATUS_OK;
	struct rotation rotation = {(int)block->config->head_dim, (int)table.cols, block->config->turns_neighbours, back};
	if (!block->query_rope.data) return ops->rope(block->backend, &rotation, heads->qk, table);
	TRY(ops->rope(block->backend, &rotation, heads->q, block->query_rope));
	return ops->rope(block->backend, &rotation, heads->k, table);
}

/* *heads: in, the outputs of the q, k and v products; out, what attention reads. */
static enum status rotate_heads(const struct block *block, const struct activations *a, struct qkv *heads)
{
	const struct model_config *config = block->config;
	int64_t rows = heads->q.rows;
	if (config->qk_norm) {
		struct qkv raw = *heads;
		*heads = with_qk(raw, tensor_rows(a->qk, 0, rows));
		TRY(qk_norm_forward(block, config->heads, heads->q, tensor_rows(a->stats_q, 0, rows), raw.q, block->q_norm));
		TRY(qk_norm_forward(block, config->kv_heads, heads->k, tensor_rows(a->stats_k, 0, rows), raw.k, block->k_norm));
	}
	return turn(block, heads, false);
}

/* The gradient of a norm's weight, and of the bias that is the next vector where it has one, if they are wanted. */
static enum status norm_gradient(const struct block *block, const struct vector_gradients *wanted, enum vector weight,
				 const struct norm *norm, struct tensor dy, struct tensor x, struct tensor stats)
{
	struct tensor none = {0};
	if (!wanted || !wanted->vectors.of[weight].data) return STATUS_OK;
	bool biased = weight == VECTOR_NORM1 || weight == VECTOR_NORM2;
	return block->backend->ops->norm_gradient(block->backend, norm, wanted->vectors.of[weight],
						  biased ? wanted->vectors.of[weight + 1] : none, dy, x, stats);
}

/* From the gradients of what attention read to those of the products' outputs, `to`; `raw` are these outputs. Without norms
 * `gradients` is `to`. */
static enum status rotate_heads_back(const struct block *block, const struct activations *a, struct qkv gradients, struct qkv raw,
				     struct qkv to, const struct vector_gradients *vectors)
{
	const struct backend_ops *ops = block->backend->ops;
	const struct model_config *config = block->config;
	int64_t rows = to.q.rows;
	TRY(turn(block, &gradients, true));
	if (!config->qk_norm) return STATUS_OK;
	struct tensor stats_q = tensor_rows(a->stats_q, 0, rows), stats_k = tensor_rows(a->stats_k, 0, rows);
	if (vectors) {
		const struct tensor *of = vectors->vectors.of;
		TRY(qk_norm_gradient(block, config->heads, of[VECTOR_Q_NORM], gradients.q, raw.q, stats_q));
		TRY(qk_norm_gradient(block, config->kv_heads, of[VECTOR_K_NORM], gradients.k, raw.k, stats_k));
	}
	struct qkv wide = a->dqk_wide.data ? with_qk(to, tensor_rows(a->dqk_wide, 0, rows)) : to;
	TRY(qk_norm_backward(block, config->heads, wide.q, gradients.q, raw.q, stats_q, block->q_norm));
	TRY(qk_norm_backward(block, config->kv_heads, wide.k, gradients.k, raw.k, stats_k, block->k_norm));
	return a->dqk_wide.data ? ops->convert(block->backend, to.qk, wide.qk) : STATUS_OK;
}

/* What goes into the first linears of a sublayer: x, normalised where there is a norm, in the compute type. */
static enum status normalise(const struct block *block, struct tensor n, struct tensor stats, struct tensor x, struct tensor weight,
			     struct tensor bias)
{
	const struct backend_ops *ops = block->backend->ops;
	if (!weight.data) return ops->convert(block->backend, n, x);
	return ops->norm_forward(block->backend, &block->config->norm, n, stats, x, weight, bias);
}

/* dx += the gradient of what `normalise` read. */
static enum status normalise_back(const struct block *block, struct tensor dx, struct tensor dn, struct tensor stats,
				  struct tensor x, struct tensor weight)
{
	const struct backend_ops *ops = block->backend->ops;
	if (!weight.data) return ops->add(block->backend, dx, dn);
	return ops->norm_backward(block->backend, &block->config->norm, dx, dn, x, stats, weight, true);
}

struct attention block_attention(const struct block *block, int batch, int64_t tokens)
{
	const struct model_config *config = block->config;
	return (struct attention){.batch = batch,
				  .tokens = (int)tokens,
				  .heads = (int)config->heads,
				  .kv_heads = (int)config->kv_heads,
				  .head_dim = (int)config->head_dim,
				  .scale = config->attention_scale,
				  .softcap = config->attention_softcap,
				  .window = block->window};
}

static enum status copy_rows(struct backend *backend, struct tensor to, struct tensor from)
{
	return backend->ops->copy(backend, to.data, from.data, tensor_bytes(&from));
}

/* y = onto + x · activeᵀ, or, where `onto` has no data, the product alone. */
static enum status multiply_onto(struct backend *backend, struct tensor y, struct tensor x, struct tensor active,
				 struct tensor onto)
{
	if (!onto.data) return backend->ops->matmul(backend, y, x, false, active, true, false);
	if (backend->ops->matmul_onto) return backend->ops->matmul_onto(backend, y, x, false, active, true, onto);
	TRY(copy_rows(backend, y, onto));
	return backend->ops->matmul(backend, y, x, false, active, true, true);
}

/* y = onto + linear(x), or without data in `onto` what the linear gives. */
static enum status linear_forward(const struct block *block, enum fused f, struct tensor y, struct tensor x, struct tensor onto,
				  const struct observer *observer)
{
	struct backend *backend = block->backend;
	if (observer) TRY(observer->observe(observer->context, layout_product(f), x));
	if (observer_ends(observer, f)) return STATUS_OK;
	TRY(multiply_onto(backend, y, x, block->active[f], onto));
	return block->bias[f].data ? backend->ops->add_bias(backend, y, block->bias[f]) : STATUS_OK;
}

/* The linear whose outputs are added to the residual stream, attention's or the MLP's: they are kept in `output` where they are
 * normalised, by `weight`, or scaled. Without data they are neither. */
struct residual {
	enum fused fused;
	struct tensor output, stats, weight;
	enum vector norm;
};

static struct residual attention_residual(const struct block *block, const struct activations *a)
{
	return (struct residual){FUSED_O, a->attention_output, a->stats_attention, block->attention_norm, VECTOR_ATTENTION_NORM};
}

static struct residual mlp_residual(const struct block *block, const struct activations *a)
{
	return (struct residual){FUSED_MLP_OUT, a->mlp_output, a->stats_mlp, block->mlp_norm, VECTOR_MLP_NORM};
}

/* to = from + linear(x), all F32 [T,H] but x. */
static enum status residual_forward(const struct block *block, struct residual residual, struct tensor to, struct tensor from,
				    struct tensor x, const struct observer *observer)
{
	struct backend *backend = block->backend;
	if (!residual.output.data) return linear_forward(block, residual.fused, to, x, from, observer);
	struct tensor output = tensor_rows(residual.output, 0, to.rows), stats = tensor_rows(residual.stats, 0, to.rows),
		      none = {0};
	TRY(linear_forward(block, residual.fused, output, x, none, observer));
	if (observer_ends(observer, residual.fused)) return STATUS_OK;
	if (!residual.weight.data) {
		TRY(copy_rows(backend, to, from));
		return backend->ops->scale(backend, to, output, NULL, NULL, block->config->residual_scale, true);
	}
	TRY(backend->ops->norm_forward(backend, &block->config->norm, to, stats, output, residual.weight, none));
	return backend->ops->add(backend, to, from);
}

/* y = h + mlp(n2), for one MLP or for experts. */
static enum status mlp_forward(const struct block *block, struct activations *a, struct tensor y, struct tensor h, struct tensor n2,
			       const struct observer *observer)
{
	const struct backend_ops *ops = block->backend->ops;
	const struct model_config *config = block->config;
	if (config->experts) {
		TRY(copy_rows(block->backend, y, h));
		return experts_forward(block, &a->experts, n2, y, observer);
	}
	struct tensor gate_up = tensor_rows(a->gate_up, 0, y.rows), mlp = tensor_rows(a->mlp, 0, y.rows);
	TRY(linear_forward(block, FUSED_MLP_IN, gate_up, n2, (struct tensor){0}, observer));
	if (observer_ends(observer, FUSED_MLP_IN)) return STATUS_OK;
	TRY(ops->activation_forward(block->backend, config->activation, mlp, block_gate(config, gate_up),
				    block_up(config, gate_up)));
	return residual_forward(block, mlp_residual(block, a), y, h, mlp, observer);
}

enum status block_forward_attention(const struct block *block, struct activations *a, int batch, struct tensor x,
				    const struct observer *observer)
{
	struct backend *backend = block->backend;
	const struct backend_ops *ops = backend->ops;
	const struct model_config *config = block->config;
	int64_t rows = batch * a->tokens;
#define ROWS(t) tensor_rows(t, 0, rows)
	struct tensor n1 = ROWS(a->n1), qkv = ROWS(a->qkv), out = ROWS(a->attention);

	TRY(normalise(block, n1, ROWS(a->stats1), x, block->norm1, block->norm1_bias));
	if (config->parallel && config->names->norm2)
		TRY(normalise(block, ROWS(a->n2), ROWS(a->stats2), x, block->norm2, block->norm2_bias));
	TRY(linear_forward(block, FUSED_QKV, qkv, n1, (struct tensor){0}, observer));
	if (observer_ends(observer, FUSED_QKV)) return STATUS_OK;
	struct qkv heads = split_qkv(config, qkv);
	TRY(rotate_heads(block, a, &heads));
	struct attention attention = block_attention(block, batch, a->tokens);
	struct tensor lse = tensor_rows(a->lse, 0, batch * config->heads);
	TRY(ops->attention_forward(backend, &attention, out, lse, heads.q, heads.k, heads.v));
	if (block->fixed.sinks.data) TRY(ops->attention_sinks(backend, &attention, out, lse, block->fixed.sinks));
	return residual_forward(block, attention_residual(block, a), ROWS(a->h), x, out, observer);
}

/* Attention and the MLP read the very same. */
static bool reads_same(const struct model_config *config)
{
	return config->parallel && !config->names->norm2;
}

/* What the MLP reads. */
static struct tensor mlp_input(const struct block *block, const struct activations *a, int64_t rows)
{
	return reads_same(block->config) ? ROWS(a->n1) : ROWS(a->n2);
}

enum status block_forward_mlp(const struct block *block, struct activations *a, int batch, struct tensor y,
			      const struct observer *observer)
{
	int64_t rows = batch * a->tokens;
	struct tensor h = ROWS(a->h), n2 = mlp_input(block, a, rows);
	if (!block->config->parallel) TRY(normalise(block, n2, ROWS(a->stats2), h, block->norm2, block->norm2_bias));
	return mlp_forward(block, a, y, h, n2, observer);
}

enum status block_forward(const struct block *block, struct activations *a, int batch, struct tensor x, struct tensor y,
			  const struct observer *observer)
{
	TRY(block_forward_attention(block, a, batch, x, observer));
	if (observer_ends(observer, FUSED_QKV) || observer_ends(observer, FUSED_O)) return STATUS_OK;
	return block_forward_mlp(block, a, batch, y, observer);
}

/* What a backward hands out. */
struct wanted {
	product_gradient_fn use;
	void *context;
	const struct vector_gradients *vectors;
};

/* dx = dy · active, or is added to, through a fused matrix to its input, where dx has data; and the gradients of its weights and
 * bias. */
static enum status linear_backward(const struct block *block, enum fused f, struct tensor dx, struct tensor dy, struct tensor x,
				   bool accumulate, const struct wanted *wanted)
{
	struct backend *backend = block->backend;
	struct tensor dbias = wanted->vectors ? wanted->vectors->vectors.of[VECTOR_BIAS + f] : (struct tensor){0};
	if (dx.data) TRY(backend->ops->matmul(backend, dx, dy, false, block->active[f], false, accumulate));
	if (dbias.data) TRY(backend->ops->column_sums(backend, dbias, dy));
	return wanted->use(wanted->context, layout_product(f), &(struct product_gradient){dy, x});
}

/* The F32 gradient in the type that the products take: itself, or rounded into `half`. */
static enum status round_gradient(struct backend *backend, struct tensor gradient, struct tensor half, struct tensor *ret)
{
	if (!half.data) {
		*ret = gradient;
		return STATUS_OK;
	}
	*ret = tensor_rows(half, 0, gradient.rows);
	return backend->ops->convert(backend, *ret, gradient);
}

/* The gradient of what a linear gave, in the type that the products take, from that of the sum it went into. */
static enum status end_backward(const struct block *block, const struct activations *a, struct residual residual, struct tensor dy,
				const struct wanted *wanted, struct tensor *ret)
{
	struct backend *backend = block->backend;
	if (residual.output.data && !residual.weight.data) {
		struct tensor scaled = tensor_rows(a->doutput, 0, dy.rows);
		TRY(backend->ops->scale(backend, scaled, dy, NULL, NULL, block->config->residual_scale, false));
		dy = scaled;
	}
	if (residual.weight.data) {
		struct tensor output = tensor_rows(residual.output, 0, dy.rows), stats = tensor_rows(residual.stats, 0, dy.rows);
		struct tensor doutput = tensor_rows(a->doutput, 0, dy.rows);
		TRY(norm_gradient(block, wanted->vectors, residual.norm, &block->config->norm, dy, output, stats));
		TRY(backend->ops->norm_backward(backend, &block->config->norm, doutput, dy, output, stats, residual.weight, false));
		dy = doutput;
	}
	return round_gradient(backend, dy, a->dhalf, ret);
}

/* dn2 from dy, the gradient of what the MLP gave. */
static enum status mlp_backward(const struct block *block, struct activations *a, struct tensor dn2, struct tensor dy,
				struct tensor n2, const struct wanted *wanted)
{
	const struct backend_ops *ops = block->backend->ops;
	const struct model_config *config = block->config;
	if (config->experts) return experts_backward(block, &a->experts, dn2, dy, wanted->use, wanted->context);
	struct tensor dmlp = tensor_rows(a->dmlp, 0, dy.rows), gate_up = tensor_rows(a->gate_up, 0, dy.rows), g;
	struct tensor gate = block_gate(config, gate_up), up = block_up(config, gate_up);
	TRY(end_backward(block, a, mlp_residual(block, a), dy, wanted, &g));
	TRY(linear_backward(block, FUSED_MLP_OUT, dmlp, g, tensor_rows(a->mlp, 0, dy.rows), false, wanted));
	TRY(ops->activation_backward(block->backend, config->activation, gate, up, dmlp, gate, up));
	return linear_backward(block, FUSED_MLP_IN, dn2, gate_up, n2, false, wanted);
}

/* The gradients of the first linears, and, where they are wanted, of the norm before them and of what went into it: this one is
 * added to dy, that of what goes past the linears. */
static enum status first_backward(const struct block *block, struct activations *a, struct tensor dy, const struct wanted *wanted)
{
	const struct vector_gradients *vectors = wanted->vectors;
	const struct norm *norm = &block->config->norm;
	int64_t rows = dy.rows;
	bool through = vectors && (vectors->input || vectors->vectors.of[VECTOR_NORM1].data);
	struct tensor dn1 = through ? ROWS(a->dn2) : (struct tensor){0}; /* which is not needed any more */
	/* The MLP's are there already where it read the same. */
	TRY(linear_backward(block, FUSED_QKV, dn1, ROWS(a->dqkv), ROWS(a->n1), reads_same(block->config), wanted));
	if (!through) return STATUS_OK;
	TRY(norm_gradient(block, vectors, VECTOR_NORM1, norm, dn1, vectors->x, ROWS(a->stats1)));
	if (!vectors->input) return STATUS_OK;
	return normalise_back(block, dy, dn1, ROWS(a->stats1), vectors->x, block->norm1);
}

/* The gradient that goes through norm2 to what it read, x, is added to dy; and that of the norm itself. */
static enum status norm2_backward(const struct block *block, const struct activations *a, struct tensor dy, struct tensor x,
				  const struct vector_gradients *vectors)
{
	int64_t rows = dy.rows;
	struct tensor dn2 = ROWS(a->dn2), stats = ROWS(a->stats2);
	TRY(norm_gradient(block, vectors, VECTOR_NORM2, &block->config->norm, dn2, x, stats));
	if (block->config->parallel && !vectors->input) return STATUS_OK;
	return normalise_back(block, dy, dn2, stats, x, block->norm2);
}

/* From the gradient of h, which is dy. */
static enum status attention_half_backward(const struct block *block, struct activations *a, int batch, struct tensor dy,
					   const struct wanted *wanted)
{
	struct backend *backend = block->backend;
	const struct backend_ops *ops = backend->ops;
	const struct model_config *config = block->config;
	int64_t rows = batch * a->tokens;
	struct tensor dout = ROWS(a->dattention), g;
	TRY(end_backward(block, a, attention_residual(block, a), dy, wanted, &g));
	TRY(linear_backward(block, FUSED_O, dout, g, ROWS(a->attention), false, wanted));
	/* dy is not needed for h any more, and dn2 is about to be written over. */
	if (wanted->vectors && config->parallel && config->names->norm2)
		TRY(norm2_backward(block, a, dy, wanted->vectors->x, wanted->vectors));
	struct qkv raw = split_qkv(config, ROWS(a->qkv)), draw = split_qkv(config, ROWS(a->dqkv)), heads = raw, d = draw;
	if (config->qk_norm) {
		heads = with_qk(raw, ROWS(a->qk));
		d = with_qk(draw, ROWS(a->dqk));
	}
	struct attention attention = block_attention(block, batch, a->tokens);
	struct tensor lse = tensor_rows(a->lse, 0, batch * config->heads);
	TRY(ops->attention_backward(backend, &attention, d.q, d.k, d.v, heads.q, heads.k, heads.v, ROWS(a->attention), lse, dout));
	TRY(rotate_heads_back(block, a, d, raw, draw, wanted->vectors));
	return first_backward(block, a, dy, wanted);
}

/* Leaves the gradient of what the MLP read in dn2. */
static enum status mlp_half_backward(const struct block *block, struct activations *a, int batch, struct tensor dy,
				     const struct wanted *wanted)
{
	int64_t rows = batch * a->tokens;
	return mlp_backward(block, a, ROWS(a->dn2), dy, mlp_input(block, a, rows), wanted);
}

enum status block_backward(const struct block *block, struct activations *a, int batch, struct tensor dy, product_gradient_fn use,
			   void *context, const struct vector_gradients *vectors)
{
	const struct wanted wanted = {use, context, vectors};
	int64_t rows = batch * a->tokens;
	TRY(mlp_half_backward(block, a, batch, dy, &wanted));
	if (!block->config->parallel) TRY(norm2_backward(block, a, dy, ROWS(a->h), vectors));
	return attention_half_backward(block, a, batch, dy, &wanted);
}

enum status block_backward_attention(const struct block *block, struct activations *a, int batch, struct tensor dh,
				     product_gradient_fn use, void *context)
{
	return attention_half_backward(block, a, batch, dh, &(struct wanted){use, context, NULL});
}

enum status block_backward_mlp(const struct block *block, struct activations *a, int batch, struct tensor dy,
			       product_gradient_fn use, void *context)
{
	return mlp_half_backward(block, a, batch, dy, &(struct wanted){use, context, NULL});
}
#undef ROWS
