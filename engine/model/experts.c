#include "engine/model/experts.h"

#include "engine/model/block.h"

struct routing experts_routing(const struct model_config *config)
{
	bool shared = config->shared_intermediate > 0;
	return (struct routing){config->experts + shared, config->experts_per_token + shared, config->normalised_routing, shared};
}

void experts_place(struct expert_activations *e, const struct block *block, struct arena *arena, int64_t tokens, bool backward)
{
	const struct model_config *config = block->config;
	struct routing routing = experts_routing(config);
	int64_t rows = routing_rows(&routing, tokens), chosen = routing.chosen, experts = routing.experts;
	int64_t shared_rows = routing.shared ? routing_span(tokens) : 0, rest = rows - shared_rows;
	int64_t intermediate = config->intermediate, shared = config->shared_intermediate;
	enum dtype type = block->compute_type;
	e->logits = arena_place_whole(arena, tokens, experts, DTYPE_F32);
	e->weights = arena_place_whole(arena, tokens, chosen, DTYPE_F32);
	e->chosen = arena_take(arena, (size_t)(tokens * chosen) * sizeof(int32_t));
	e->places = arena_take(arena, (size_t)(tokens * chosen) * sizeof(int32_t));
	e->counts = arena_take(arena, (size_t)experts * sizeof(int32_t));
	e->sources = arena_take(arena, (size_t)rows * sizeof(int32_t));
	e->grouped = arena_place(arena, rows, config->hidden, type);
	e->gate_up = arena_place(arena, rest, (config->gated_mlp ? 2 : 1) * intermediate, type);
	e->mlp = arena_place(arena, rest, intermediate, type);
	e->shared_gate_up = arena_place(arena, shared_rows, (config->gated_mlp ? 2 : 1) * shared, type);
	e->shared_mlp = arena_place(arena, shared_rows, shared, type);
	e->outputs = arena_place(arena, rows, config->hidden, type);
	if (!backward) return;
	e->dmlp = arena_place(arena, rest, intermediate, type);
	e->shared_dmlp = arena_place(arena, shared_rows, shared, type);
	e->dlogits = arena_place(arena, tokens, experts, type);
}

/* Rows of the grouped tokens, which for a shared expert may have a width of their own. */
struct grouped {
	struct tensor rest, shared; /* of all other experts; of the shared one */
};

static struct grouped apart(const struct expert_activations *e, struct tensor rest, struct tensor shared)
{
	return (struct grouped){tensor_rows(rest, 0, e->rows - e->shared_rows), tensor_rows(shared, 0, e->shared_rows)};
}

static struct grouped together(const struct expert_activations *e, struct tensor all)
{
	return apart(e, all, tensor_rows(all, e->rows - e->shared_rows, e->shared_rows));
}

/* The rows of an expert: [first, first + rows), with the empty ones behind them. */
struct span {
	int64_t first, rows;
};

static struct span next_span(const struct expert_activations *e, struct span before, int expert)
{
	return (struct span){before.first + before.rows, routing_span(e->tokens[expert])};
}

static struct tensor rows_of(const struct block *block, struct grouped grouped, int expert, struct span span)
{
	return expert < block->config->experts ? tensor_rows(grouped.rest, span.first, span.rows) : grouped.shared;
}

/* The worst that a routing can be for the operations' own memory, in a dry run: some experts get every token. */
static void route_worst(const struct routing *routing, int64_t tokens, int32_t *counts)
{
	int some = routing->chosen - routing->shared;
	for (int i = 0; i < routing->experts; i++)
		counts[i] = i < some || (routing->shared && i == routing->experts - 1) ? (int32_t)tokens : 0;
}

static enum status route(const struct block *block, struct expert_activations *e, struct tensor x)
{
	struct backend *backend = block->backend;
	struct routing routing = experts_routing(block->config);
	struct tensor logits = tensor_rows(e->logits, 0, x.rows), weights = tensor_rows(e->weights, 0, x.rows);
	struct span span = {0, 0};
	TRY(backend->ops->matmul(backend, logits, x, false, block->fixed.router, true, false));
	if (block->fixed.router_bias.data) TRY(backend->ops->add_bias(backend, logits, block->fixed.router_bias));
	TRY(backend->ops->route(backend, &routing, weights, e->chosen, e->counts, e->places, e->sources, logits));
	TRY(backend->ops->download(backend, e->tokens, e->counts, (size_t)routing.experts * sizeof *e->tokens));
	if (backend->dry) route_worst(&routing, x.rows, e->tokens);
	for (int i = 0; i < routing.experts; i++)
		span = next_span(e, span, i);
	e->rows = span.first + span.rows;
	e->shared_rows = routing.shared ? span.rows : 0;
	return STATUS_OK;
}

/* Whether the pass ends before these products, as far as the experts have them: what comes out of a shared one is a fused matrix
 * by itself. */
static bool ends(const struct observer *observer, enum fused fused)
{
	return observer_ends(observer, fused) || (fused == FUSED_MLP_OUT && observer_ends(observer, FUSED_SHARED_OUT));
}

/* Adds the biases of an expert to what its product gave, but in the empty rows: these stay zero, so that nobody sees them. */
static enum status add_biases(const struct block *block, enum fused fused, struct tensor y, int expert)
{
	const struct backend_ops *ops = block->backend->ops;
	const struct fixed_weights *fixed = &block->fixed;
	if (!fixed->down_bias.data) return STATUS_OK;
	if (fused == FUSED_MLP_OUT) return ops->add_bias(block->backend, y, tensor_rows(fixed->down_bias, expert, 1));
	TRY(ops->add_bias(block->backend, block_gate(block->config, y), tensor_rows(fixed->gate_bias, expert, 1)));
	return ops->add_bias(block->backend, block_up(block->config, y), tensor_rows(fixed->up_bias, expert, 1));
}

/* y = x · the expert's part of what goes into the experts, FUSED_MLP_IN, or comes out, FUSED_MLP_OUT, for the rows of every
 * expert. */
static enum status multiply(const struct block *block, const struct expert_activations *e, enum fused fused, struct grouped y,
			    struct grouped x, const struct observer *observer)
{
	struct backend *backend = block->backend;
	struct routing routing = experts_routing(block->config);
	struct span span = {0, 0};
	for (int i = 0; i < routing.experts; i++) {
		int product = layout_expert(&block->layout, fused, i);
		span = next_span(e, span, i);
		if (!span.rows) continue;
		struct tensor input = rows_of(block, x, i, span);
		if (observer) TRY(observer->observe(observer->context, product, input));
		if (ends(observer, fused)) continue;
		struct tensor output = rows_of(block, y, i, span);
		TRY(backend->ops->matmul(backend, output, input, false, block_product(block, block->active, product), true, false));
		TRY(add_biases(block, fused, tensor_rows(output, 0, e->tokens[i]), i));
	}
	return STATUS_OK;
}

static enum status activate(const struct block *block, struct tensor mlp, struct tensor gate_up)
{
	const struct model_config *config = block->config;
	if (!mlp.rows) return STATUS_OK;
	return block->backend->ops->activation_forward(block->backend, config->activation, mlp, block_gate(config, gate_up),
						       block_up(config, gate_up));
}

enum status experts_forward(const struct block *block, struct expert_activations *e, struct tensor x, struct tensor y,
			    const struct observer *observer)
{
	struct backend *backend = block->backend;
	int chosen = experts_routing(block->config).chosen;
	struct tensor none = {0};
	TRY(route(block, e, x));
	struct tensor inputs = tensor_rows(e->grouped, 0, e->rows), outputs = tensor_rows(e->outputs, 0, e->rows);
	struct grouped gate_up = apart(e, e->gate_up, e->shared_gate_up), mlp = apart(e, e->mlp, e->shared_mlp);
	TRY(backend->ops->dispatch(backend, inputs, x, e->sources, chosen, none));
	TRY(multiply(block, e, FUSED_MLP_IN, gate_up, together(e, inputs), observer));
	if (ends(observer, FUSED_MLP_IN)) return STATUS_OK;
	TRY(activate(block, mlp.rest, gate_up.rest));
	TRY(activate(block, mlp.shared, gate_up.shared));
	TRY(multiply(block, e, FUSED_MLP_OUT, together(e, outputs), mlp, observer));
	if (ends(observer, FUSED_MLP_OUT)) return STATUS_OK;
	return backend->ops->combine(backend, y, outputs, e->places, chosen, tensor_rows(e->weights, 0, x.rows), true);
}

/* dx = dy · the weights, and the gradients of every expert's weights, those of the experts without tokens too. */
static enum status multiply_back(const struct block *block, const struct expert_activations *e, enum fused fused, struct grouped dx,
				 struct grouped dy, struct grouped x, product_gradient_fn use, void *context)
{
	struct routing routing = experts_routing(block->config);
	struct span span = {0, 0};
	for (int i = 0; i < routing.experts; i++) {
		int product = layout_expert(&block->layout, fused, i);
		span = next_span(e, span, i);
		struct tensor gradient = rows_of(block, dy, i, span);
		if (span.rows)
			TRY(block->backend->ops->matmul(block->backend, rows_of(block, dx, i, span), gradient, false,
							block_product(block, block->active, product), false, false));
		TRY(use(context, product, &(struct product_gradient){gradient, rows_of(block, x, i, span)}));
	}
	return STATUS_OK;
}

/* The gradients of gate and up over them. */
static enum status activate_back(const struct block *block, struct tensor gate_up, struct tensor dmlp)
{
	const struct model_config *config = block->config;
	struct tensor gate = block_gate(config, gate_up), up = block_up(config, gate_up);
	if (!dmlp.rows) return STATUS_OK;
	return block->backend->ops->activation_backward(block->backend, config->activation, gate, up, dmlp, gate, up);
}

enum status experts_backward(const struct block *block, struct expert_activations *e, struct tensor dx, struct tensor dy,
			     product_gradient_fn use, void *context)
{
	struct backend *backend = block->backend;
	struct routing routing = experts_routing(block->config);
	int64_t tokens = dy.rows;
	struct tensor logits = tensor_rows(e->logits, 0, tokens), weights = tensor_rows(e->weights, 0, tokens), none = {0};
	struct tensor dlogits = tensor_rows(e->dlogits, 0, tokens), inputs = tensor_rows(e->grouped, 0, e->rows);
	struct tensor outputs = tensor_rows(e->outputs, 0, e->rows);
	struct grouped gate_up = apart(e, e->gate_up, e->shared_gate_up), mlp = apart(e, e->mlp, e->shared_mlp);
	struct grouped dmlp = apart(e, e->dmlp, e->shared_dmlp), gradients = together(e, outputs);

	TRY(backend->ops->route_backward(backend, &routing, dlogits, logits, weights, e->chosen, e->places, dy, outputs));
	/* From here on `outputs` holds their gradient, and then that of the inputs. */
	TRY(backend->ops->dispatch(backend, outputs, dy, e->sources, routing.chosen, weights));
	TRY(multiply_back(block, e, FUSED_MLP_OUT, dmlp, gradients, mlp, use, context));
	TRY(activate_back(block, gate_up.rest, dmlp.rest));
	TRY(activate_back(block, gate_up.shared, dmlp.shared));
	TRY(multiply_back(block, e, FUSED_MLP_IN, gradients, gate_up, together(e, inputs), use, context));
	TRY(backend->ops->combine(backend, dx, outputs, e->places, routing.chosen, none, false));
	return backend->ops->matmul(backend, dx, dlogits, false, block->fixed.router, false, true);
}
