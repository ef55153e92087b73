#include "engine/generate/decoder.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "engine/generate/attend.h"
#include "engine/model/block.h"
#include "engine/model/fixed.h"
#include "engine/model/norms.h"
#include "engine/model/qk_norm.h"
#include "engine/model/rope.h"

/* A block that stays in memory: its vectors as block_load puts them, and a matrix for each product of its layout. */
struct layer {
	struct block block; /* without weights; the layout and the ropes are the decoder's */
	struct matrix *matrices;
	void *weights;
	struct cache cache;
};

/* What a step computes with: F32 [tokens, …], as the block has it. Of tokens that go through experts there is one at a time. */
struct step_room {
	struct tensor x, h, y, n1, n2, qkv, qk, attention, gate_up, mlp, output, stats;
	struct tensor logits, router, shares;        /* [1, …] */
	int32_t *chosen, *counts, *places, *sources; /* as `route` gives them */
	uint16_t *half;                              /* what the longest product reads */
	float *scores;
};

struct decoder {
	const struct model *model;
	const struct model_config *config;
	struct backend *backend;
	struct decoder_wishes wishes;
	struct block_layout layout;
	struct layer *layers;
	struct model_norm norm;
	struct matrix head;
	void *head_weights;
	struct tensor head_bias;
	struct step_room room;                      /* for DECODER_TOKENS */
	void *memory;                               /* the room's */
	struct tensor rope, local_rope, query_rope; /* as in struct block, of `context` positions */
	int64_t context, length;                    /* the room for tokens, and those that there are */
};

static enum status backend_failed(const struct decoder *d, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = d->backend->error;
	return status;
}

/* ---- loading ---------------------------------------------------------------------------------------------------------------- */

/* The norms and biases of the loaded block become the layer's. */
static enum status take_vectors(struct decoder *d, struct block *loader, struct layer *layer, struct error *err)
{
	struct norm_vector norms[MAX_NORM_VECTORS];
	struct block *block = &layer->block;
	*block = *loader;
	block->rope = block->local_rope = block->query_rope = (struct tensor){0};
	for (int f = 0; f < FUSED_COUNT; f++)
		block->weight[f] = block->active[f] = block->bias[f] = (struct tensor){0};
	int n = norm_vectors(d->config, loader, norms);
	for (int i = 0; i < n; i++)
		*norms[i].place = (struct tensor){0};
	loader->fixed = (struct fixed_weights){0};
	for (int f = 0; f < FUSED_COUNT; f++) {
		struct tensor from = loader->bias[f], *to = &block->bias[f];
		if (!from.data) continue;
		TRY(backend_allocate(d->backend, 1, from.cols, DTYPE_F32, to, err));
		TRY(backend_failed(d, d->backend->ops->copy(d->backend, to->data, from.data, tensor_bytes(&from)), err));
	}
	return STATUS_OK;
}

static enum status take_matrices(struct decoder *d, const struct block *loader, struct layer *layer, struct error *err)
{
	const struct block_layout *layout = &loader->layout;
	int64_t bytes = 0;
	for (int i = 0; i < layout->n_products; i++)
		bytes += matrix_memory(layout->products[i].rows, layout->products[i].cols, d->wishes.type, d->wishes.choice);
	layer->matrices = calloc((size_t)layout->n_products, sizeof *layer->matrices);
	layer->weights = matvec_allocate((size_t)bytes);
	if (!layer->matrices || !layer->weights)
		return error_set(err, STATUS_NO_MEMORY, "no memory for a block's weights (%" PRId64 " MiB)", bytes >> 20);
	char *memory = layer->weights;
	for (int i = 0; i < layout->n_products; i++)
		TRY(matrix_make(block_product(loader, loader->weight, i), d->wishes.type, d->wishes.choice, &memory,
				&layer->matrices[i], err));
	return STATUS_OK;
}

static enum status load_layers(struct decoder *d, const atomic_bool *stop, struct error *err)
{
	struct block loader;
	TRY(block_create(d->model, d->backend, DTYPE_F32, 1, &loader, err));
	enum status status = block_layout_create(d->config, &d->layout, err);
	for (int i = 0; status == STATUS_OK && i < d->config->layers; i++) {
		if (stop && atomic_load(stop)) status = error_set(err, STATUS_CANCELLED, "stopped while the model was loaded");
		if (status == STATUS_OK) status = block_load(&loader, d->model, i, err);
		if (status == STATUS_OK) status = take_vectors(d, &loader, &d->layers[i], err);
		d->layers[i].block.layout = d->layout;
		if (status == STATUS_OK) status = take_matrices(d, &loader, &d->layers[i], err);
	}
	block_release(&loader);
	return status;
}

/* Norm, head and its bias. */
static enum status load_end(struct decoder *d, struct error *err)
{
	struct model_head head;
	const struct model_config *config = d->config;
	enum dtype type = d->wishes.type;
	/* A head is in what the products are in, so that nothing is kept twice for long. */
	TRY(model_head_load(d->model, d->backend, type, &head, err));
	d->norm = (struct model_norm){head.norm_weight, head.norm_bias};
	d->head_bias = head.bias;
	/* Zeros are not what a head is pruned for: it stays dense unless it has them. */
	enum matrix_choice choice = d->wishes.choice == MATRIX_DENSE ? MATRIX_DENSE : MATRIX_AUTO;
	int64_t bytes = matrix_memory(config->vocab, config->hidden, type, choice);
	enum status status = STATUS_OK;
	char *memory = d->head_weights = matvec_allocate((size_t)bytes);
	if (!memory)
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the head (%" PRId64 " MiB)", bytes >> 20);
	else
		status = matrix_make(head.head, type, choice, &memory, &d->head, err);
	d->backend->ops->release(d->backend, head.head.data);
	return status;
}

static void place_room(const struct decoder *d, struct step_room *room, struct arena *arena)
{
	const struct model_config *config = d->config;
	struct routing routing = experts_routing(config);
	int64_t hidden = config->hidden, heads = config->heads * config->head_dim, keys = config->kv_heads * config->head_dim;
	const int64_t tokens = DECODER_TOKENS;
	int64_t inner = config->intermediate > config->shared_intermediate ? config->intermediate : config->shared_intermediate;
	int64_t most = layout_most_columns(&d->layout) > hidden ? layout_most_columns(&d->layout) : hidden;
	struct tensor *const wide[] = {&room->x, &room->h, &room->y, &room->n1, &room->n2, &room->output};
	for (size_t i = 0; i < sizeof wide / sizeof *wide; i++)
		*wide[i] = arena_place_whole(arena, tokens, hidden, DTYPE_F32);
	room->qkv = arena_place_whole(arena, tokens, heads + 2 * keys, DTYPE_F32);
	room->qk = arena_place_whole(arena, tokens, heads + keys, DTYPE_F32);
	room->attention = arena_place_whole(arena, tokens, heads, DTYPE_F32);
	room->gate_up = arena_place_whole(arena, tokens, (config->gated_mlp ? 2 : 1) * inner, DTYPE_F32);
	room->mlp = arena_place_whole(arena, tokens, inner, DTYPE_F32);
	room->logits = arena_place_whole(arena, 1, config->vocab, DTYPE_F32);
	room->stats = arena_place_whole(arena, tokens, 2 * config->heads, DTYPE_F32);
	room->half = arena_take(arena, (size_t)(tokens * matvec_length(most)) * sizeof *room->half);
	if (!config->experts) return;
	room->router = arena_place_whole(arena, 1, routing.experts, DTYPE_F32);
	room->shares = arena_place_whole(arena, 1, routing.chosen, DTYPE_F32);
	room->chosen = arena_take(arena, (size_t)routing.chosen * sizeof *room->chosen);
	room->places = arena_take(arena, (size_t)routing.chosen * sizeof *room->places);
	room->counts = arena_take(arena, (size_t)routing.experts * sizeof *room->counts);
	room->sources = arena_take(arena, (size_t)routing_rows(&routing, 1) * sizeof *room->sources);
}

static enum status make_room(struct decoder *d, struct error *err)
{
	struct arena arena = {0};
	place_room(d, &d->room, &arena);
	d->memory = aligned_alloc(256, arena.used);
	if (!d->memory) return error_set(err, STATUS_NO_MEMORY, "no memory for the activations of %d tokens", DECODER_TOKENS);
	arena = (struct arena){.memory = d->memory};
	place_room(d, &d->room, &arena);
	return STATUS_OK;
}

enum status decoder_create(const struct model *model, struct backend *backend, const struct decoder_wishes *wishes,
			   const atomic_bool *stop, struct decoder **ret, struct error *err)
{
	struct decoder *d = calloc(1, sizeof *d);
	if (!d) return error_set(err, STATUS_NO_MEMORY, "no memory for a model");
	*d = (struct decoder){.model = model, .config = &model->config, .backend = backend, .wishes = *wishes};
	d->layers = calloc((size_t)d->config->layers, sizeof *d->layers);
	enum status status = d->layers ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for a model's blocks");
	if (status == STATUS_OK) status = load_layers(d, stop, err);
	if (status == STATUS_OK) status = load_end(d, err);
	if (status == STATUS_OK) status = make_room(d, err);
	if (status == STATUS_OK)
		*ret = d;
	else
		decoder_free(d);
	return status;
}

enum status decoder_memory(const struct model_config *config, const struct decoder_wishes *wishes, int64_t *ret, struct error *err)
{
	struct block_layout layout;
	int64_t block = 0, wide = 0, head = config->vocab * config->hidden * (int64_t)dtype_size(wishes->type); /* as it is read */
	TRY(block_layout_create(config, &layout, err));
	for (int i = 0; i < layout.n_products; i++) {
		block += matrix_memory(layout.products[i].rows, layout.products[i].cols, wishes->type, wishes->choice);
		wide += layout.products[i].rows * layout.products[i].cols * (int64_t)sizeof(float);
	}
	block_layout_release(&layout);
	*ret = config->layers * block + (wide > head ? wide : head) +
	       matrix_memory(config->vocab, config->hidden, wishes->type, wishes->choice);
	return STATUS_OK;
}

int64_t decoder_sequence_memory(const struct model_config *config, int64_t context)
{
	int64_t keys = config->layers * 2 * config->kv_heads * config->head_dim;
	return context * (keys + config->heads + 3 * config->head_dim) * (int64_t)sizeof(float);
}

static void release(struct backend *backend, struct tensor *tensor)
{
	backend->ops->release(backend, tensor->data);
	*tensor = (struct tensor){0};
}

static void free_layer(struct decoder *d, struct layer *layer)
{
	struct norm_vector norms[MAX_NORM_VECTORS];
	int n = norm_vectors(d->config, &layer->block, norms);
	for (int i = 0; i < n; i++)
		release(d->backend, norms[i].place);
	for (int f = 0; f < FUSED_COUNT; f++)
		release(d->backend, &layer->block.bias[f]);
	fixed_release(d->backend, &layer->block.fixed);
	free(layer->matrices);
	free(layer->weights);
	cache_free(&layer->cache);
}

/* What belongs to a sequence. */
static void end_sequence(struct decoder *d)
{
	struct tensor *const ropes[] = {&d->rope, &d->local_rope, &d->query_rope};
	for (size_t i = 0; i < sizeof ropes / sizeof *ropes; i++) {
		free(ropes[i]->data);
		*ropes[i] = (struct tensor){0};
	}
	for (int64_t i = 0; i < d->config->layers; i++)
		cache_free(&d->layers[i].cache);
	free(d->room.scores);
	d->room.scores = NULL;
	d->context = d->length = 0;
}

void decoder_free(struct decoder *d)
{
	if (!d) return;
	if (d->layers) {
		end_sequence(d);
		for (int64_t i = 0; i < d->config->layers; i++)
			free_layer(d, &d->layers[i]);
	}
	free(d->layers);
	block_layout_release(&d->layout);
	model_norm_release(&d->norm, d->backend);
	release(d->backend, &d->head_bias);
	free(d->head_weights);
	free(d->memory);
	free(d);
}

struct decoder_size decoder_size(const struct decoder *d)
{
	struct decoder_size size = {0};
	for (int64_t i = 0; i <= d->config->layers; i++) {
		bool head = i == d->config->layers;
		const struct matrix *matrices = head ? &d->head : d->layers[i].matrices;
		for (int m = 0; m < (head ? 1 : d->layout.n_products); m++) {
			size.matrices++;
			size.sparse += !matrices[m].wide && !matrices[m].dense;
			size.weights += matrices[m].rows * matrices[m].cols;
			size.zeros += matrices[m].zeros;
			size.bytes += matrix_bytes(&matrices[m]);
		}
	}
	return size;
}

/* ---- a sequence ------------------------------------------------------------------------------------------------------------- */

int64_t decoder_most_tokens(const struct model_config *config, int64_t prompt)
{
	const struct rope *ropes[] = {&config->rope, &config->local_rope};
	int64_t most = config->max_positions;
	for (int i = 0; i < 2; i++) {
		int64_t original = ropes[i]->original_max_positions;
		/* Behind these all positions turn by other factors, those of the tokens before too. */
		if (ropes[i]->kind == ROPE_LONG && prompt <= original && original < most) most = original;
	}
	return most;
}

typedef float *(*rope_table_fn)(const struct model_config *, const struct rope *, int64_t positions);

static enum status make_rope(const struct decoder *d, const struct rope *rope, rope_table_fn make, struct tensor *ret,
			     struct error *err)
{
	if (rope->kind == ROPE_NONE) return STATUS_OK;
	float *table = make(d->config, rope, d->context);
	if (!table) return error_set(err, STATUS_NO_MEMORY, "no memory for the rope table");
	*ret = tensor_make(table, d->context, rope->rotary, DTYPE_F32);
	return STATUS_OK;
}

static enum status begin(struct decoder *d, struct error *err)
{
	const struct model_config *config = d->config;
	TRY(make_rope(d, &config->rope, model_rope_table, &d->rope, err));
	TRY(make_rope(d, &config->local_rope, model_rope_table, &d->local_rope, err));
	if (rope_scales_queries(&config->rope, d->context)) TRY(make_rope(d, &config->rope, rope_query_table, &d->query_rope, err));
	d->room.scores = malloc((size_t)config->heads * (size_t)d->context * sizeof(float));
	if (!d->room.scores) return error_set(err, STATUS_NO_MEMORY, "no memory for the scores of %" PRId64 " tokens", d->context);
	for (int64_t i = 0; i < config->layers; i++) {
		struct attention attention = block_attention(&d->layers[i].block, 1, 1);
		TRY(cache_create(&attention, d->context, &d->layers[i].cache, err));
	}
	return STATUS_OK;
}

enum status decoder_begin(struct decoder *d, int64_t context, struct error *err)
{
	end_sequence(d);
	if (context < 1) return error_set(err, STATUS_INVALID, "a sequence has a token at least");
	d->context = context;
	enum status status = begin(d, err);
	if (status != STATUS_OK) end_sequence(d);
	return status;
}

/* ---- a step: of some tokens, one behind the other ---------------------------------------------------------------------------- */

/* The rows of one token, or the first rows of all. */
static struct step_room rows_of(const struct step_room *room, int64_t first, int64_t count)
{
	struct step_room rows = *room;
	struct tensor *const all[] = {&rows.x,  &rows.h,         &rows.y,       &rows.n1,  &rows.n2,     &rows.qkv,
				      &rows.qk, &rows.attention, &rows.gate_up, &rows.mlp, &rows.output, &rows.stats};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		*all[i] = tensor_rows(*all[i], first, count);
	return rows;
}

/* As in block.c: x, normalised where there is a norm. */
static enum status normalise(const struct decoder *d, const struct step_room *room, struct tensor n, struct tensor x,
			     struct tensor weight, struct tensor bias)
{
	const struct backend_ops *ops = d->backend->ops;
	struct tensor stats = tensor_cols(room->stats, 0, 2);
	if (!weight.data) return ops->convert(d->backend, n, x);
	return ops->norm_forward(d->backend, &d->config->norm, n, stats, x, weight, bias);
}

/* Of a whole fused matrix. */
static enum status linear(const struct decoder *d, const struct layer *layer, const struct step_room *room, enum fused f,
			  struct tensor y, struct tensor x)
{
	TRY(matrix_multiply(&layer->matrices[layout_product(f)], d->backend, y, x, room->half));
	struct tensor bias = layer->block.bias[f];
	return bias.data ? d->backend->ops->add_bias(d->backend, y, bias) : STATUS_OK;
}

/* to = from + what attention or the MLP gave, which is in room.output: normalised, where there is such a norm, or scaled. */
static enum status add_output(const struct decoder *d, const struct step_room *room, struct tensor to, struct tensor from,
			      struct tensor norm)
{
	const struct backend_ops *ops = d->backend->ops;
	struct tensor none = {0}, stats = tensor_cols(room->stats, 0, 2);
	if (norm.data) {
		TRY(ops->norm_forward(d->backend, &d->config->norm, to, stats, room->output, norm, none));
		return ops->add(d->backend, to, from);
	}
	TRY(ops->copy(d->backend, to.data, from.data, tensor_bytes(&from)));
	if (d->config->residual_scale == 1) return ops->add(d->backend, to, room->output);
	return ops->scale(d->backend, to, room->output, NULL, NULL, d->config->residual_scale, true);
}

/* q and k turn as those of the tokens' positions do. */
static enum status turn(const struct decoder *d, const struct block *block, struct tensor q, struct tensor k)
{
	const struct backend_ops *ops = d->backend->ops;
	struct tensor table = block->window && d->local_rope.data ? d->local_rope : d->rope;
	if (!table.data || block->still) return STATUS_OK;
	struct rotation rotation = {(int)d->config->head_dim, (int)table.cols, d->config->turns_neighbours, false};
	struct tensor queries = d->query_rope.data ? d->query_rope : table;
	TRY(ops->rope(d->backend, &rotation, q, tensor_rows(queries, d->length, q.rows)));
	return ops->rope(d->backend, &rotation, k, tensor_rows(table, d->length, k.rows));
}

/* Each token to itself and those before it. */
static void attend_all(const struct decoder *d, struct layer *layer, const struct step_room *room, struct tensor q, struct tensor k,
		       struct tensor v)
{
	struct attention attention = block_attention(&layer->block, 1, 1);
	for (int64_t t = 0; t < q.rows; t++) {
		int64_t at = d->length + t;
		cache_put(&layer->cache, &attention, at, tensor_rows(k, t, 1).data, tensor_rows(v, t, 1).data);
		attend(&attention, &layer->cache, at, tensor_rows(q, t, 1).data, layer->block.fixed.sinks.data, room->scores,
		       tensor_rows(room->attention, t, 1).data, d->backend->threads);
	}
}

/* Leaves in room.h the sum of x and what attention gives. */
static enum status attention_half(const struct decoder *d, struct layer *layer, const struct step_room *room)
{
	const struct model_config *config = d->config;
	const struct block *block = &layer->block;
	int64_t query = config->heads * config->head_dim, key = config->kv_heads * config->head_dim;
	TRY(normalise(d, room, room->n1, room->x, block->norm1, block->norm1_bias));
	if (config->parallel && config->names->norm2) TRY(normalise(d, room, room->n2, room->x, block->norm2, block->norm2_bias));
	TRY(linear(d, layer, room, FUSED_QKV, room->qkv, room->n1));
	struct tensor q = tensor_cols(room->qkv, 0, query), k = tensor_cols(room->qkv, query, key);
	struct tensor v = tensor_cols(room->qkv, query + key, key);
	if (config->qk_norm) {
		struct tensor raw_q = q, raw_k = k;
		q = tensor_cols(room->qk, 0, query);
		k = tensor_cols(room->qk, query, key);
		int64_t q_stats = 2 * qk_norm_groups(config, config->heads), k_stats = 2 * qk_norm_groups(config, config->kv_heads);
		TRY(qk_norm_forward(block, config->heads, q, tensor_cols(room->stats, 0, q_stats), raw_q, block->q_norm));
		TRY(qk_norm_forward(block, config->kv_heads, k, tensor_cols(room->stats, 0, k_stats), raw_k, block->k_norm));
	}
	TRY(turn(d, block, q, k));
	attend_all(d, layer, room, q, k, v);
	TRY(linear(d, layer, room, FUSED_O, room->output, room->attention));
	return add_output(d, room, room->h, room->x, block->attention_norm);
}

/* room.y += share · what the expert gives of n, of one token. */
static enum status run_expert(const struct decoder *d, const struct layer *layer, const struct step_room *room, int expert,
			      float share, struct tensor n)
{
	const struct backend_ops *ops = d->backend->ops;
	const struct fixed_weights *fixed = &layer->block.fixed;
	const struct matrix *in = &layer->matrices[layout_expert(&d->layout, FUSED_MLP_IN, expert)];
	const struct matrix *out = &layer->matrices[layout_expert(&d->layout, FUSED_MLP_OUT, expert)];
	struct tensor gate_up = tensor_make(room->gate_up.data, 1, in->rows, DTYPE_F32);
	struct tensor mlp = tensor_make(room->mlp.data, 1, out->cols, DTYPE_F32);
	struct tensor gate = block_gate(d->config, gate_up), up = block_up(d->config, gate_up);
	TRY(matrix_multiply(in, d->backend, gate_up, n, room->half));
	if (fixed->gate_bias.data) {
		TRY(ops->add_bias(d->backend, gate, tensor_rows(fixed->gate_bias, expert, 1)));
		TRY(ops->add_bias(d->backend, up, tensor_rows(fixed->up_bias, expert, 1)));
	}
	TRY(ops->activation_forward(d->backend, d->config->activation, mlp, gate, up));
	TRY(matrix_multiply(out, d->backend, room->output, mlp, room->half));
	if (fixed->down_bias.data) TRY(ops->add_bias(d->backend, room->output, tensor_rows(fixed->down_bias, expert, 1)));
	return ops->scale(d->backend, room->y, room->output, NULL, NULL, share, true);
}

/* One token, whose normalised rows are n. */
static enum status run_experts(const struct decoder *d, const struct layer *layer, const struct step_room *room, struct tensor n)
{
	const struct backend_ops *ops = d->backend->ops;
	const struct fixed_weights *fixed = &layer->block.fixed;
	struct routing routing = experts_routing(d->config);
	TRY(ops->copy(d->backend, room->y.data, room->h.data, tensor_bytes(&room->h)));
	TRY(ops->matmul(d->backend, room->router, n, false, fixed->router, true, false));
	if (fixed->router_bias.data) TRY(ops->add_bias(d->backend, room->router, fixed->router_bias));
	TRY(ops->route(d->backend, &routing, room->shares, room->chosen, room->counts, room->places, room->sources, room->router));
	for (int i = 0; i < routing.chosen; i++)
		TRY(run_expert(d, layer, room, room->chosen[i], ((const float *)room->shares.data)[i], n));
	return STATUS_OK;
}

/* Leaves in room.y what the block gives. */
static enum status mlp_half(const struct decoder *d, const struct layer *layer, const struct step_room *room)
{
	const struct model_config *config = d->config;
	const struct block *block = &layer->block;
	struct tensor n = config->parallel && !config->names->norm2 ? room->n1 : room->n2;
	if (!config->parallel) TRY(normalise(d, room, n, room->h, block->norm2, block->norm2_bias));
	for (int64_t t = 0; config->experts && t < n.rows; t++) {
		struct step_room one = rows_of(room, t, 1);
		TRY(run_experts(d, layer, &one, tensor_rows(n, t, 1)));
	}
	if (config->experts) return STATUS_OK;
	TRY(linear(d, layer, room, FUSED_MLP_IN, room->gate_up, n));
	TRY(d->backend->ops->activation_forward(d->backend, config->activation, room->mlp, block_gate(config, room->gate_up),
						block_up(config, room->gate_up)));
	TRY(linear(d, layer, room, FUSED_MLP_OUT, room->output, room->mlp));
	return add_output(d, room, room->y, room->h, block->mlp_norm);
}

/* From the embeddings in room.x to what the last block gives, which is there then. */
static enum status run_layers(struct decoder *d, struct step_room *room)
{
	for (int64_t i = 0; i < d->config->layers; i++) {
		TRY(attention_half(d, &d->layers[i], room));
		TRY(mlp_half(d, &d->layers[i], room));
		struct tensor x = room->x;
		room->x = room->y;
		room->y = x;
	}
	return STATUS_OK;
}

/* Of one token. */
static enum status find_logits(const struct decoder *d, const struct step_room *room)
{
	const struct backend_ops *ops = d->backend->ops;
	TRY(normalise(d, room, room->n1, room->x, d->norm.weight, d->norm.bias));
	TRY(matrix_multiply(&d->head, d->backend, room->logits, room->n1, room->half));
	if (d->head_bias.data) TRY(ops->add_bias(d->backend, room->logits, d->head_bias));
	float *logits = room->logits.data, scale = d->config->logit_scale, cap = d->config->logit_softcap;
	for (int64_t i = 0; scale != 1 && i < d->config->vocab; i++)
		logits[i] *= scale;
	for (int64_t i = 0; cap > 0 && i < d->config->vocab; i++)
		logits[i] = cap * tanhf(logits[i] / cap);
	return STATUS_OK;
}

static enum status check_step(const struct decoder *d, const int32_t *ids, int64_t count, struct error *err)
{
	if (count < 1 || count > DECODER_TOKENS)
		return error_set(err, STATUS_INVALID, "a step is of 1 to %d tokens, not %" PRId64, DECODER_TOKENS, count);
	if (count > d->context - d->length)
		return error_set(err, STATUS_INVALID,
				 "the sequence has %" PRId64 " of its %" PRId64 " tokens, and no room for %" PRId64 " more",
				 d->length, d->context, count);
	for (int64_t i = 0; i < count; i++)
		if (ids[i] < 0 || ids[i] >= d->config->vocab)
			return error_set(err, STATUS_INVALID, "the token %d is not one of the model's %" PRId64, ids[i],
					 d->config->vocab);
	return STATUS_OK;
}

enum status decoder_step(struct decoder *d, const int32_t *ids, int64_t count, const float **ret_logits, struct error *err)
{
	TRY(check_step(d, ids, count, err));
	struct step_room room = rows_of(&d->room, 0, count);
	for (int64_t t = 0; t < count; t++)
		TRY(model_embed_token(d->model, ids[t], d->length + t, tensor_rows(room.x, t, 1).data, err));
	TRY(backend_failed(d, run_layers(d, &room), err));
	if (ret_logits) {
		struct step_room last = rows_of(&room, count - 1, 1);
		TRY(backend_failed(d, find_logits(d, &last), err));
		*ret_logits = d->room.logits.data;
	}
	d->length += count;
	return STATUS_OK;
}
