#include "engine/model/layout.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The expert that every token takes, which is none of those that have a number. */
enum { NO_EXPERT = -1, SHARED_EXPERT = -2 };

/* A linear that is added to a layout. */
struct addition {
	const char *path; /* in weight names; of an expert: below "<experts>.<index>.", or "<shared>." */
	enum fused fused;
	int64_t rows, cols;
	bool bias;
};

static int kind_of(struct block_layout *layout, const char *name)
{
	for (int i = 0; i < layout->n_kinds; i++)
		if (strcmp(layout->kinds[i], name) == 0) return i;
	snprintf(layout->kinds[layout->n_kinds], LAYOUT_MAX_PATH, "%s", name);
	return layout->n_kinds++;
}

static const char *last_part(const char *path)
{
	const char *dot = strrchr(path, '.');
	return dot ? dot + 1 : path;
}

/* What events and reports call a linear outside the experts: by the last part of its path, or by all of it where the other
 * linear that a block ends in has the same last part (GPT-2's attn.c_proj and mlp.c_proj), which may be of another shape. */
static const char *kind_name(const struct weight_names *names, const char *path)
{
	const char *last = last_part(path);
	bool twice = strcmp(last_part(names->o), last_part(names->down)) == 0;
	return twice && strcmp(last, last_part(names->o)) == 0 ? path : last;
}

/* The product that a linear of `expert` belongs to: the last one, or a new one. */
static int product_of(struct block_layout *layout, const struct addition *addition, int expert)
{
	struct product *last = layout->n_products ? &layout->products[layout->n_products - 1] : NULL;
	if (expert == SHARED_EXPERT) expert = NO_EXPERT;
	if (!last || last->fused != addition->fused || last->expert != expert) {
		last = &layout->products[layout->n_products++];
		*last = (struct product){.fused = addition->fused,
					 .first = layout->fused_rows[addition->fused],
					 .cols = addition->cols,
					 .row = layout->rows,
					 .expert = expert};
	}
	last->rows += addition->rows;
	return layout->n_products - 1;
}

static void add_linear(struct block_layout *layout, const struct model_config *config, const struct addition *addition, int expert)
{
	struct linear *linear = &layout->linears[layout->n_linears++];
	enum fused fused = addition->fused;
	char kind[LAYOUT_MAX_PATH];
	*linear = (struct linear){.stored_rows = addition->rows,
				  .transposed = config->transposed,
				  .fused = fused,
				  .first = layout->fused_rows[fused],
				  .rows = addition->rows,
				  .cols = addition->cols,
				  .row = layout->rows,
				  .bias = addition->bias};
	if (expert == NO_EXPERT) {
		snprintf(linear->path, sizeof linear->path, "%s", addition->path);
		snprintf(kind, sizeof kind, "%s", kind_name(config->names, addition->path));
	} else if (expert == SHARED_EXPERT) {
		snprintf(linear->path, sizeof linear->path, "%s.%s", config->names->shared, addition->path);
		snprintf(kind, sizeof kind, "shared_expert.%s", addition->path);
	} else {
		snprintf(linear->path, sizeof linear->path, "%s.%d.%s", config->names->experts, expert, addition->path);
		snprintf(kind, sizeof kind, "experts.%s", addition->path);
	}
	memcpy(linear->stored, linear->path, sizeof linear->stored);
	linear->kind = kind_of(layout, kind);
	linear->product = product_of(layout, addition, expert);
	if (!linear->first) layout->fused_row[fused] = layout->rows;
	layout->fused_rows[fused] += linear->rows;
	layout->fused_cols[fused] = linear->cols;
	if (layout->n_fused <= (int)fused) layout->n_fused = (int)fused + 1;
	layout->rows += linear->rows;
	layout->params += linear->rows * linear->cols;
}

/* Says that all linears of a fused matrix are one tensor of the file, in their order. */
static void store_fused(struct block_layout *layout, enum fused fused, const char *stored)
{
	for (int i = 0; i < layout->n_linears; i++) {
		struct linear *linear = &layout->linears[i];
		if (linear->fused != fused) continue;
		snprintf(linear->stored, sizeof linear->stored, "%s", stored);
		linear->stored_first = linear->first;
		linear->stored_rows = layout->fused_rows[fused];
	}
}

/* Says that the linears of all experts but a shared one are two tensors of the file. */
static void stack_experts(struct block_layout *layout, const struct model_config *config)
{
	const int64_t stored_rows[FUSED_COUNT] = {[FUSED_MLP_IN] =
							  layout->experts * (config->gated_mlp ? 2 : 1) * config->intermediate,
						  [FUSED_MLP_OUT] = layout->experts * config->hidden};
	for (int i = 0; i < layout->n_linears; i++) {
		struct linear *linear = &layout->linears[i];
		if (layout->products[linear->product].expert < 0) continue;
		snprintf(linear->stored, sizeof linear->stored, "%s.%s", config->names->experts,
			 linear->fused == FUSED_MLP_IN ? "gate_up_proj" : "down_proj");
		linear->stored_first = linear->first;
		linear->stored_rows = stored_rows[linear->fused];
		linear->stacked = layout->experts;
		linear->transposed = config->paired_experts;
		linear->paired = config->paired_experts && linear->fused == FUSED_MLP_IN;
	}
}

/* Gate and up. */
static void add_inputs(struct block_layout *layout, const struct model_config *config, int64_t intermediate, int expert)
{
	const struct addition gate = {config->names->gate, FUSED_MLP_IN, intermediate, config->hidden, config->mlp_bias};
	const struct addition up = {config->names->up, FUSED_MLP_IN, intermediate, config->hidden, config->mlp_bias};
	const struct addition both = {config->names->gate, FUSED_MLP_IN, 2 * intermediate, config->hidden, false};
	add_linear(layout, config, config->paired_experts ? &both : &gate, expert);
	if (config->gated_mlp && !config->paired_experts) add_linear(layout, config, &up, expert);
}

enum status block_layout_create(const struct model_config *config, struct block_layout *ret, struct error *err)
{
	int64_t hidden = config->hidden, intermediate = config->intermediate, query = config->heads * config->head_dim,
		key = config->kv_heads * config->head_dim;
	const struct addition by_head[] = {
		{config->names->qkv, FUSED_QKV, query + 2 * key, hidden, config->qkv_bias},
		{config->names->o, FUSED_O, hidden, query, config->o_bias},
	};
	const struct addition attention[] = {
		{"self_attn.q_proj", FUSED_QKV, query, hidden, config->qkv_bias},
		{"self_attn.k_proj", FUSED_QKV, key, hidden, config->qkv_bias},
		{"self_attn.v_proj", FUSED_QKV, key, hidden, config->qkv_bias},
		{config->names->o, FUSED_O, hidden, query, config->o_bias},
	};
	const struct addition down = {config->names->down, FUSED_MLP_OUT, hidden, intermediate, config->mlp_bias};
	const struct addition shared_down = {config->names->down, FUSED_SHARED_OUT, hidden, config->shared_intermediate, false};
	size_t mlps = config->experts ? (size_t)config->experts : 1;
	struct block_layout layout = {.experts = config->experts,
				      .linears = calloc(4 + 3 * (mlps + 1), sizeof *layout.linears),
				      .products = calloc(2 + 2 * (mlps + 1), sizeof *layout.products)};
	if (!layout.linears || !layout.products) {
		block_layout_release(&layout);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the list of a block's linears");
	}
	if (config->names->qkv) {
		add_linear(&layout, config, &by_head[0], NO_EXPERT);
		layout.linears[0].heads = config->qkv_by_head ? (int)config->heads : 0;
		add_linear(&layout, config, &by_head[1], NO_EXPERT);
	} else {
		for (size_t i = 0; i < sizeof attention / sizeof *attention; i++)
			add_linear(&layout, config, &attention[i], NO_EXPERT);
	}
	for (int i = 0; i < (int)mlps; i++)
		add_inputs(&layout, config, intermediate, config->experts ? i : NO_EXPERT);
	if (config->shared_intermediate) add_inputs(&layout, config, config->shared_intermediate, SHARED_EXPERT);
	for (int i = 0; i < (int)mlps; i++)
		add_linear(&layout, config, &down, config->experts ? i : NO_EXPERT);
	if (config->shared_intermediate) add_linear(&layout, config, &shared_down, SHARED_EXPERT);
	if (config->stored_qkv) store_fused(&layout, FUSED_QKV, "self_attn.qkv_proj");
	if (config->stored_gate_up) store_fused(&layout, FUSED_MLP_IN, "mlp.gate_up_proj");
	if (config->stacked_experts) stack_experts(&layout, config);
	*ret = layout;
	return STATUS_OK;
}

int layout_stretches(const struct linear *linear)
{
	return linear->heads ? 3 * linear->heads : 1;
}

struct stretch layout_stretch(const struct linear *linear, int i)
{
	int64_t rows = linear->rows / layout_stretches(linear);
	if (!linear->heads) return (struct stretch){0, 0, rows};
	/* Stretch i holds q, k or v, in turn, of head i / 3. */
	return (struct stretch){i * rows, (i % 3 * linear->heads + i / 3) * rows, rows};
}

void block_layout_release(struct block_layout *layout)
{
	free(layout->linears);
	free(layout->products);
	*layout = (struct block_layout){0};
}

int layout_expert(const struct block_layout *layout, enum fused fused, int expert)
{
	int shared = layout->n_fused > FUSED_SHARED_OUT;
	return 2 + (fused == FUSED_MLP_OUT ? layout->experts + shared : 0) + expert;
}

int64_t layout_most_columns(const struct block_layout *layout)
{
	int64_t most = 0;
	for (int f = 0; f < FUSED_COUNT; f++)
		if (layout->fused_cols[f] > most) most = layout->fused_cols[f];
	return most;
}

int64_t layout_largest_linear(const struct block_layout *layout)
{
	int64_t most = 0;
	for (int i = 0; i < layout->n_linears; i++)
		if (layout->linears[i].rows * layout->linears[i].cols > most)
			most = layout->linears[i].rows * layout->linears[i].cols;
	return most;
}

int64_t layout_room(const struct block_layout *layout, enum dtype type)
{
	bool transposed = layout->linears[layout->n_linears - 1].transposed;
	return layout_largest_linear(layout) * (int64_t)dtype_size(type) * (transposed ? 2 : 1);
}

/* Copies between a linear's rows and the transposed form that the file has, in tiles: of what is read and of what is written a
 * few cache lines at a time. Elements have 2 bytes or 4. */
static void turn(const struct linear *linear, void *to, const void *from, size_t size, bool to_file)
{
	enum { TILE = 32 };
	int64_t rows = linear->rows, cols = linear->cols, half = rows / 2;
	for (int64_t top = 0; top < rows; top += TILE)
		for (int64_t left = 0; left < cols; left += TILE)
			for (int64_t i = top; i < rows && i < top + TILE; i++)
				for (int64_t j = left; j < cols && j < left + TILE; j++) {
					int64_t column = !linear->paired ? i : i < half ? 2 * i : 2 * (i - half) + 1;
					int64_t here = i * cols + j, there = j * rows + column;
					int64_t source = to_file ? here : there, target = to_file ? there : here;
					if (size == 2)
						((uint16_t *)to)[target] = ((const uint16_t *)from)[source];
					else
						((uint32_t *)to)[target] = ((const uint32_t *)from)[source];
				}
}

void *layout_file_order(const struct linear *linear, void *room, enum dtype type)
{
	if (!linear->transposed) return room;
	char *turned = (char *)room + linear->rows * linear->cols * (int64_t)dtype_size(type);
	turn(linear, turned, room, dtype_size(type), true);
	return turned;
}

void layout_memory_order(const struct linear *linear, void *to, const void *stored, enum dtype type)
{
	turn(linear, to, stored, dtype_size(type), false);
}

int64_t layout_params_per_token(const struct model_config *config)
{
	int64_t query = config->heads * config->head_dim, key = config->kv_heads * config->head_dim;
	int64_t mlps = (config->experts ? config->experts_per_token : 1) * config->intermediate + config->shared_intermediate;
	return (2 * query + 2 * key + (config->gated_mlp ? 3 : 2) * mlps) * config->hidden;
}
