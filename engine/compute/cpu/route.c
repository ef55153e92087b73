/* Tokens to experts and back. */
#include <math.h>
#include <string.h>

#include "engine/compute/cpu/cpu.h"

/* The logits of token t, as fp32. */
static void read_logits(const struct cpu_backend *cpu, const struct tensor *logits, int64_t t, float row[ROUTE_MAX_EXPERTS])
{
	struct tensor to = tensor_make(row, 1, logits->cols, DTYPE_F32), from = tensor_rows(*logits, t, 1);
	cpu->kernels->layer->copy(&to, &from, NULL, 1, 0, 1);
}

/* The experts of token t and its weights of them. */
static void choose(const struct cpu_backend *cpu, const struct routing *routing, const struct tensor *weights, int32_t *experts,
		   const struct tensor *logits, int64_t t)
{
	float row[ROUTE_MAX_EXPERTS], *weight = (float *)weights->data + t * weights->stride, sum = 0;
	bool taken[ROUTE_MAX_EXPERTS] = {false};
	int32_t *chosen = experts + t * routing->chosen;
	int others = routing->experts - routing->shared, some = routing->chosen - routing->shared;
	read_logits(cpu, logits, t, row);
	for (int s = 0; s < some; s++) {
		int best = -1;
		for (int i = 0; i < others; i++)
			if (!taken[i] && (best < 0 || row[i] > row[best])) best = i;
		taken[best] = true;
		chosen[s] = best;
		weight[s] = expf(row[best] - row[chosen[0]]);
	}
	if (routing->normalise)
		for (int s = 0; s < some; s++)
			sum += weight[s];
	else
		for (int i = 0; i < others; i++)
			sum += expf(row[i] - row[chosen[0]]);
	for (int s = 0; s < some; s++)
		weight[s] /= sum;
	if (!routing->shared) return;
	chosen[some] = others;
	weight[some] = 1 / (1 + expf(-row[others]));
}

struct route_work {
	const struct cpu_backend *cpu;
	const struct routing *routing;
	struct tensor weights;
	void *experts;
	struct tensor logits;
};

static void route_part(const void *context, struct share tokens)
{
	const struct route_work *w = context;
	for (int64_t t = tokens.first; t < tokens.last; t++)
		choose(w->cpu, w->routing, &w->weights, w->experts, &w->logits, t);
}

static enum status route(struct backend *backend, const struct routing *routing, struct tensor weights, void *experts, void *counts,
			 void *places, void *sources, struct tensor logits)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	int64_t choices = logits.rows * routing->chosen, rows = routing_rows(routing, logits.rows), next = 0;
	int32_t *count = counts, *place = places, *source = sources, at[ROUTE_MAX_EXPERTS];
	const int32_t *expert = experts;
	const struct route_work work = {cpu, routing, weights, experts, logits};
	cpu_share_out(cpu, logits.rows, 1, logits.rows * logits.cols, route_part, &work);
	memset(count, 0, (size_t)routing->experts * sizeof *count);
	for (int64_t c = 0; c < choices; c++)
		count[expert[c]]++;
	for (int i = 0; i < routing->experts; i++) {
		at[i] = (int32_t)next;
		next += routing_span(count[i]);
	}
	for (int64_t row = 0; row < rows; row++)
		source[row] = -1;
	for (int64_t c = 0; c < choices; c++) {
		place[c] = at[expert[c]]++;
		source[place[c]] = (int32_t)c;
	}
	return STATUS_OK;
}

struct dispatch_work {
	const struct cpu_backend *cpu;
	struct tensor to, from;
	const void *sources;
	int chosen;
	struct tensor scale;
};

static void dispatch_part(const void *context, struct share rows)
{
	const struct dispatch_work *w = context;
	w->cpu->kernels->route->dispatch(&w->to, &w->from, w->sources, w->chosen, w->scale.data, rows.first, rows.last);
}

static enum status dispatch(struct backend *backend, struct tensor to, struct tensor from, const void *sources, int chosen,
			    struct tensor scale)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct dispatch_work work = {cpu, to, from, sources, chosen, scale};
	cpu_share_out(cpu, to.rows, 1, to.rows * to.cols, dispatch_part, &work);
	return STATUS_OK;
}

struct combine_work {
	const struct cpu_backend *cpu;
	struct tensor to, from;
	const void *places;
	int chosen;
	struct tensor scale;
	bool accumulate;
};

static void combine_part(const void *context, struct share rows)
{
	const struct combine_work *w = context;
	w->cpu->kernels->route->combine(&w->to, &w->from, w->places, w->chosen, w->scale.data, w->accumulate, rows.first,
					rows.last);
}

static enum status combine(struct backend *backend, struct tensor to, struct tensor from, const void *places, int chosen,
			   struct tensor scale, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct combine_work work = {cpu, to, from, places, chosen, scale, accumulate};
	cpu_share_out(cpu, to.rows, 1, to.rows * to.cols, combine_part, &work);
	return STATUS_OK;
}

/* With w_s the weights and d_s = ⟨dy, output of choice s⟩: for the chosen ∂l_s = w_s·(d_s − Σ w·d). Where the softmax runs over
 * all experts, the others have −p·Σ w·d, with p = their share, which the weight of the first choice gives. A shared one has w·(1
 * − w)·d. */
static void token_backward(const struct cpu_backend *cpu, const struct routing *routing, const struct tensor *dlogits,
			   const struct tensor *logits, const struct tensor *weights, const int32_t *experts, const int32_t *places,
			   const struct tensor *dy, const struct tensor *outputs, int64_t t)
{
	float row[ROUTE_MAX_EXPERTS], dots[ROUTE_MAX_EXPERTS], mean = 0;
	const float *weight = (const float *)weights->data + t * weights->stride;
	const int32_t *chosen = experts + t * routing->chosen, *place = places + t * routing->chosen;
	int others = routing->experts - routing->shared, some = routing->chosen - routing->shared;
	for (int s = 0; s < routing->chosen; s++) {
		dots[s] = cpu->kernels->route->dot(dy, t, outputs, place[s]);
		if (s < some) mean += weight[s] * dots[s];
	}
	read_logits(cpu, logits, t, row);
	float most = row[chosen[0]];
	for (int i = 0; i < others; i++)
		row[i] = routing->normalise ? 0 : -weight[0] * expf(row[i] - most) * mean;
	for (int s = 0; s < some; s++)
		row[chosen[s]] = weight[s] * (dots[s] - mean);
	if (routing->shared) row[others] = weight[some] * (1 - weight[some]) * dots[some];
	struct tensor to = tensor_rows(*dlogits, t, 1), from = tensor_make(row, 1, routing->experts, DTYPE_F32);
	cpu->kernels->layer->copy(&to, &from, NULL, 1, 0, 1);
}

struct route_backward_work {
	const struct cpu_backend *cpu;
	const struct routing *routing;
	struct tensor dlogits, logits, weights;
	const void *experts, *places;
	struct tensor dy, outputs;
};

static void route_backward_part(const void *context, struct share tokens)
{
	const struct route_backward_work *w = context;
	for (int64_t t = tokens.first; t < tokens.last; t++)
		token_backward(w->cpu, w->routing, &w->dlogits, &w->logits, &w->weights, w->experts, w->places, &w->dy, &w->outputs,
			       t);
}

static enum status route_backward(struct backend *backend, const struct routing *routing, struct tensor dlogits,
				  struct tensor logits, struct tensor weights, const void *experts, const void *places,
				  struct tensor dy, struct tensor outputs)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct route_backward_work work = {cpu, routing, dlogits, logits, weights, experts, places, dy, outputs};
	cpu_share_out(cpu, dy.rows, 1, dy.rows * dy.cols, route_backward_part, &work);
	return STATUS_OK;
}

void cpu_route_operations(struct backend_ops *ops)
{
	ops->route = route;
	ops->dispatch = dispatch;
	ops->combine = combine;
	ops->route_backward = route_backward;
}
