#include "engine/model/experts.h"

#include "engine/model/block.h"

struct routing experts_routing(const struct model_config *config)
{
	return (struct routing){config->experts, config->experts_per_token, config->normalised_routing};
}

void experts_place(struct expert_activations *e, const struct block *block, struct arena *arena, int64_t tokens, bool backward)
{
	const struct model_config *config = block->config;
	struct routing routing = experts_routing(config);
	int64_t rows = routing_rows(&routing, tokens), chosen = routing.chosen, experts = routing.experts;
	enum dtype type = block->compute_type;
	e->logits = arena_place_whole(arena, tokens, experts, DTYPE_F32);
	e->weights = arena_place_whole(arena, tokens, chosen, DTYPE_F32);
	e->chosen = arena_take(arena, (size_t)(tokens * chosen) * sizeof(int32_t));
	e->places = arena_take(arena, (size_t)(tokens * chosen) * sizeof(int32_t));
	e->counts = arena_take(arena, (size_t)experts * sizeof(int32_t));
	e->sources = arena_take(arena, (size_t)rows * sizeof(int32_t));
	e->grouped = arena_place(arena, rows, config->hidden, type);
	e->gate_up = arena_place(arena, rows, (config->gated_mlp ? 2 : 1) * config->intermediate, type);
	e->mlp = arena_place(arena, rows, config->intermediate, type);
	e->outputs = arena_place(arena, rows, config->hidden, type);
	if (!backward) return;
	e->dmlp = arena_place(arena, rows, config->intermediate, type);
	e->dlogits = arena_place(arena, tokens, experts, type);
}

/* The grouped rows of an expert: [first, first + rows), with the empty ones behind them. */
struct span {
	int64_t first, rows;
};

static struct span next_span(const struct expert_activations *e, struct span before, int expert)
{
	int64_t tokens = e->tokens[expert];
	return (struct span){before.first + before.rows, (tokens + ROUTE_GRAIN - 1) / ROUTE_GRAIN * ROUTE_GRAIN};
}

/* The worst that a routing can be for the operations' own memory, in a dry run: some experts get every token. */
static void route_worst(const struct routing *routing, int64_t tokens, int32_t *counts)
{
	for (int i = 0; i < routing->experts; i++)
		counts[i] = i < routing->chosen ? (int32_t)tokens : 0;
}

static enum status route(const struct block *block, struct expert_activations *e, struct tensor x)
{
	struct backend *backend = block->backend;
	struct routing routing = experts_routing(block->config);
	struct tensor logits = tensor_rows(e->logits, 0, x.rows), weights = tensor_rows(e->weights, 0, x.rows);
	struct span span = {0, 0};
	TRY(backend->ops->matmul(backend, logits, x, false, block->router, true, false));
	TRY(backend->ops->route(backend, &routing, weights, e->chosen, e->counts, e->places, e->sources, logits));
	TRY(backend->ops->download(backend, e->tokens, e->counts, (size_t)routing.experts * sizeof *e->tokens));
	if (backend->dry) route_worst(&routing, x.rows, e->tokens);
	for (int i = 0; i < routing.experts; i++)
		span = next_span(e, span, i);
	e->rows = span.first + span.rows;
	return STATUS_OK;
}

/* y = x · the expert's part of a fused matrix, for the rows of every expert. */
static enum status multiply(const struct block *block, const struct expert_activations *e, enum fused fused, struct tensor y,
			    struct tensor x, const struct observer *observer)
{
	struct backend *backend = block->backend;
	struct span span = {0, 0};
	for (int i = 0; i < block->config->experts; i++) {
		int product = layout_expert(&block->layout, fused, i);
		span = next_span(e, span, i);
		if (!span.rows) continue;
		struct tensor input = tensor_rows(x, span.first, span.rows);
		if (observer) TRY(observer->observe(observer->context, product, input));
		if (observer_ends(observer, fused)) continue;
		TRY(backend->ops->matmul(backend, tensor_rows(y, span.first, span.rows), input, false,
					 block_product(block, block->active, product), true, false));
	}
	return STATUS_OK;
}

enum status experts_forward(const struct block *block, struct expert_activations *e, struct tensor x, struct tensor y,
			    const struct observer *observer)
{
	struct backend *backend = block->backend;
	const struct model_config *config = block->config;
	struct tensor none = {0};
	TRY(route(block, e, x));
	struct tensor grouped = tensor_rows(e->grouped, 0, e->rows), gate_up = tensor_rows(e->gate_up, 0, e->rows);
	struct tensor mlp = tensor_rows(e->mlp, 0, e->rows), outputs = tensor_rows(e->outputs, 0, e->rows);
	TRY(backend->ops->dispatch(backend, grouped, x, e->sources, config->experts_per_token, none));
	TRY(multiply(block, e, FUSED_MLP_IN, gate_up, grouped, observer));
	if (observer_ends(observer, FUSED_MLP_IN)) return STATUS_OK;
	TRY(backend->ops->activation_forward(backend, config->activation, mlp, block_gate(config, gate_up),
					     block_up(config, gate_up)));
	TRY(multiply(block, e, FUSED_MLP_OUT, outputs, mlp, observer));
	if (observer_ends(observer, FUSED_MLP_OUT)) return STATUS_OK;
	return backend->ops->combine(backend, y, outputs, e->places, config->experts_per_token, tensor_rows(e->weights, 0, x.rows),
				     true);
}

/* dx = dy · the weights, and the gradients of every expert's weights, those of the experts without tokens too. */
static enum status multiply_back(const struct block *block, const struct expert_activations *e, enum fused fused, struct tensor dx,
				 struct tensor dy, struct tensor x, product_gradient_fn use, void *context)
{
	struct span span = {0, 0};
	for (int i = 0; i < block->config->experts; i++) {
		int product = layout_expert(&block->layout, fused, i);
		span = next_span(e, span, i);
		struct tensor gradient = tensor_rows(dy, span.first, span.rows);
		if (span.rows)
			TRY(block->backend->ops->matmul(block->backend, tensor_rows(dx, span.first, span.rows), gradient, false,
							block_product(block, block->active, product), false, false));
		TRY(use(context, product, &(struct product_gradient){gradient, tensor_rows(x, span.first, span.rows)}));
	}
	return STATUS_OK;
}

enum status experts_backward(const struct block *block, struct expert_activations *e, struct tensor dx, struct tensor dy,
			     product_gradient_fn use, void *context)
{
	struct backend *backend = block->backend;
	const struct model_config *config = block->config;
	struct routing routing = experts_routing(config);
	int64_t tokens = dy.rows;
	struct tensor logits = tensor_rows(e->logits, 0, tokens), weights = tensor_rows(e->weights, 0, tokens), none = {0};
	struct tensor dlogits = tensor_rows(e->dlogits, 0, tokens), grouped = tensor_rows(e->grouped, 0, e->rows);
	struct tensor gate_up = tensor_rows(e->gate_up, 0, e->rows), mlp = tensor_rows(e->mlp, 0, e->rows);
	struct tensor dmlp = tensor_rows(e->dmlp, 0, e->rows), outputs = tensor_rows(e->outputs, 0, e->rows);
	struct tensor gate = block_gate(config, gate_up), up = block_up(config, gate_up);

	TRY(backend->ops->route_backward(backend, &routing, dlogits, logits, weights, e->chosen, e->places, dy, outputs));
	/* From here on `outputs` holds their gradient, and then that of the inputs. */
	TRY(backend->ops->dispatch(backend, outputs, dy, e->sources, routing.chosen, weights));
	TRY(multiply_back(block, e, FUSED_MLP_OUT, dmlp, outputs, mlp, use, context));
	TRY(backend->ops->activation_backward(backend, config->activation, gate, up, dmlp, gate, up));
	TRY(multiply_back(block, e, FUSED_MLP_IN, outputs, gate_up, grouped, use, context));
	TRY(backend->ops->combine(backend, dx, outputs, e->places, routing.chosen, none, false));
	return backend->ops->matmul(backend, dx, dlogits, false, block->router, false, true);
}
