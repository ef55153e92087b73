#include "engine/compute/cpu/cpu.h"

struct copy_work {
	const struct cpu_backend *cpu;
	struct tensor to, from;
	const int32_t *rows;
	float scale;
};

static void copy_part(const void *context, struct share rows)
{
	const struct copy_work *w = context;
	w->cpu->kernels->layer->copy(&w->to, &w->from, w->rows, w->scale, rows.first, rows.last);
}

static enum status convert(struct backend *backend, struct tensor to, struct tensor from)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct copy_work work = {cpu, to, from, NULL, 1};
	cpu_share_out(cpu, to.rows, 1, to.rows * to.cols, copy_part, &work);
	return STATUS_OK;
}

struct add_work {
	const struct cpu_backend *cpu;
	struct tensor y, x;
	bool broadcast;
};

static void add_part(const void *context, struct share rows)
{
	const struct add_work *w = context;
	w->cpu->kernels->layer->add(&w->y, &w->x, w->broadcast, rows.first, rows.last);
}

static enum status add_bias(struct backend *backend, struct tensor y, struct tensor bias)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct add_work work = {cpu, y, bias, true};
	cpu_share_out(cpu, y.rows, 1, y.rows * y.cols, add_part, &work);
	return STATUS_OK;
}

static enum status add(struct backend *backend, struct tensor y, struct tensor x)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct add_work work = {cpu, y, x, false};
	cpu_share_out(cpu, y.rows, 1, y.rows * y.cols, add_part, &work);
	return STATUS_OK;
}

static enum status embed(struct backend *backend, struct tensor out, struct tensor table, const void *ids, float scale)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct copy_work work = {cpu, out, table, ids, scale};
	cpu_share_out(cpu, out.rows, 1, out.rows * out.cols, copy_part, &work);
	return STATUS_OK;
}

struct norm_forward_work {
	const struct cpu_backend *cpu;
	const struct norm *norm;
	struct tensor y, stats, x, weight, bias;
};

static void norm_forward_part(const void *context, struct share rows)
{
	const struct norm_forward_work *w = context;
	w->cpu->kernels->layer->norm_forward(w->norm, &w->y, &w->stats, &w->x, w->weight.data, w->bias.data, rows.first, rows.last);
}

static enum status norm_forward(struct backend *backend, const struct norm *norm, struct tensor y, struct tensor stats,
				struct tensor x, struct tensor weight, struct tensor bias)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct norm_forward_work work = {cpu, norm, y, stats, x, weight, bias};
	cpu_share_out(cpu, x.rows, 1, x.rows * x.cols, norm_forward_part, &work);
	return STATUS_OK;
}

struct norm_backward_work {
	const struct cpu_backend *cpu;
	const struct norm *norm;
	struct tensor dx, dy, x, stats, weight;
	bool accumulate;
};

static void norm_backward_part(const void *context, struct share rows)
{
	const struct norm_backward_work *w = context;
	w->cpu->kernels->layer->norm_backward(w->norm, &w->dx, &w->dy, &w->x, &w->stats, w->weight.data, w->accumulate, rows.first,
					      rows.last);
}

static enum status norm_backward(struct backend *backend, const struct norm *norm, struct tensor dx, struct tensor dy,
				 struct tensor x, struct tensor stats, struct tensor weight, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct norm_backward_work work = {cpu, norm, dx, dy, x, stats, weight, accumulate};
	cpu_share_out(cpu, x.rows, 1, x.rows * x.cols, norm_backward_part, &work);
	return STATUS_OK;
}

struct norm_gradient_work {
	const struct cpu_backend *cpu;
	const struct norm *norm;
	struct tensor dweight, dbias, dy, x, stats;
};

static void norm_gradient_part(const void *context, struct share cols)
{
	const struct norm_gradient_work *w = context;
	w->cpu->kernels->layer->norm_gradient(w->norm, w->dweight.data, w->dbias.data, &w->dy, &w->x, &w->stats, cols.first,
					      cols.last);
}

static enum status norm_gradient(struct backend *backend, const struct norm *norm, struct tensor dweight, struct tensor dbias,
				 struct tensor dy, struct tensor x, struct tensor stats)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct norm_gradient_work work = {cpu, norm, dweight, dbias, dy, x, stats};
	cpu_share_out(cpu, dweight.cols, 16, x.rows * x.cols, norm_gradient_part, &work);
	return STATUS_OK;
}

struct column_sums_work {
	const struct cpu_backend *cpu;
	struct tensor sums, x;
};

static void column_sums_part(const void *context, struct share cols)
{
	const struct column_sums_work *w = context;
	w->cpu->kernels->layer->column_sums(w->sums.data, &w->x, cols.first, cols.last);
}

static enum status column_sums(struct backend *backend, struct tensor sums, struct tensor x)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct column_sums_work work = {cpu, sums, x};
	cpu_share_out(cpu, x.cols, 16, x.rows * x.cols, column_sums_part, &work);
	return STATUS_OK;
}

struct rope_work {
	const struct cpu_backend *cpu;
	const struct rotation *rotation;
	struct tensor x, table;
};

static void rope_part(const void *context, struct share rows)
{
	const struct rope_work *w = context;
	w->cpu->kernels->layer->rope(w->rotation, &w->x, &w->table, rows.first, rows.last);
}

static enum status rope(struct backend *backend, const struct rotation *rotation, struct tensor x, struct tensor table)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct rope_work work = {cpu, rotation, x, table};
	cpu_share_out(cpu, x.rows, 1, x.rows * x.cols, rope_part, &work);
	return STATUS_OK;
}

struct attention_sinks_work {
	const struct cpu_backend *cpu;
	const struct attention *shape;
	struct tensor out, lse, sinks;
};

static void attention_sinks_part(const void *context, struct share rows)
{
	const struct attention_sinks_work *w = context;
	w->cpu->kernels->layer->attention_sinks(w->shape, &w->out, &w->lse, w->sinks.data, rows.first, rows.last);
}

static enum status attention_sinks(struct backend *backend, const struct attention *shape, struct tensor out, struct tensor lse,
				   struct tensor sinks)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct attention_sinks_work work = {cpu, shape, out, lse, sinks};
	cpu_share_out(cpu, out.rows, 1, out.rows * out.cols, attention_sinks_part, &work);
	return STATUS_OK;
}

struct activation_forward_work {
	const struct cpu_backend *cpu;
	struct activation activation;
	struct tensor y, gate, up;
};

static void activation_forward_part(const void *context, struct share rows)
{
	const struct activation_forward_work *w = context;
	w->cpu->kernels->layer->activation_forward(w->activation, &w->y, &w->gate, &w->up, rows.first, rows.last);
}

static enum status activation_forward(struct backend *backend, struct activation activation, struct tensor y, struct tensor gate,
				      struct tensor up)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct activation_forward_work work = {cpu, activation, y, gate, up};
	cpu_share_out(cpu, y.rows, 1, y.rows * y.cols, activation_forward_part, &work);
	return STATUS_OK;
}

struct activation_backward_work {
	const struct cpu_backend *cpu;
	struct activation activation;
	struct tensor dgate, dup, dy, gate, up;
};

static void activation_backward_part(const void *context, struct share rows)
{
	const struct activation_backward_work *w = context;
	w->cpu->kernels->layer->activation_backward(w->activation, &w->dgate, &w->dup, &w->dy, &w->gate, &w->up, rows.first,
						    rows.last);
}

static enum status activation_backward(struct backend *backend, struct activation activation, struct tensor dgate,
				       struct tensor dup, struct tensor dy, struct tensor gate, struct tensor up)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct activation_backward_work work = {cpu, activation, dgate, dup, dy, gate, up};
	cpu_share_out(cpu, dy.rows, 1, dy.rows * dy.cols, activation_backward_part, &work);
	return STATUS_OK;
}

struct token_logprobs_work {
	const struct cpu_backend *cpu;
	void *out;
	struct tensor logits;
	const void *targets;
	float softcap;
};

static void token_logprobs_part(const void *context, struct share rows)
{
	const struct token_logprobs_work *w = context;
	w->cpu->kernels->layer->token_logprobs(w->out, &w->logits, w->targets, w->softcap, rows.first, rows.last);
}

static enum status token_logprobs(struct backend *backend, void *out, struct tensor logits, const void *targets, float softcap)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct token_logprobs_work work = {cpu, out, logits, targets, softcap};
	cpu_share_out(cpu, logits.rows, 1, logits.rows * logits.cols, token_logprobs_part, &work);
	return STATUS_OK;
}

struct divergence_work {
	const struct cpu_backend *cpu;
	double *loss;
	struct tensor dlogits, logits, wanted;
	float softcap;
	double factor;
};

static void divergence_part(const void *context, struct share rows)
{
	const struct divergence_work *w = context;
	w->cpu->kernels->layer->divergence(w->loss, &w->dlogits, &w->logits, &w->wanted, w->softcap, (float)w->factor, rows.first,
					   rows.last);
}

/* The sum is of one part for each row, so that it does not depend on the number of threads. */
static enum status divergence(struct backend *backend, void *stats, struct tensor dlogits, struct tensor logits,
			      struct tensor wanted, float softcap, double factor, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	void *scratch;
	TRY(cpu_scratch(cpu, "divergence", (size_t)logits.rows * sizeof(double), &scratch));
	if (backend->dry) return STATUS_OK;
	double *loss = scratch, sum = 0, *out = stats;
	const struct divergence_work work = {cpu, loss, dlogits, logits, wanted, softcap, factor};
	cpu_share_out(cpu, logits.rows, 1, logits.rows * logits.cols, divergence_part, &work);
	for (int64_t row = 0; row < logits.rows; row++)
		sum += loss[row];
	out[STEP_RECONSTRUCTION] = (accumulate ? out[STEP_RECONSTRUCTION] : 0) + factor * sum;
	return STATUS_OK;
}

void cpu_layer_operations(struct backend_ops *ops)
{
	ops->convert = convert;
	ops->add_bias = add_bias;
	ops->add = add;
	ops->embed = embed;
	ops->norm_forward = norm_forward;
	ops->norm_backward = norm_backward;
	ops->norm_gradient = norm_gradient;
	ops->column_sums = column_sums;
	ops->rope = rope;
	ops->attention_sinks = attention_sinks;
	ops->activation_forward = activation_forward;
	ops->activation_backward = activation_backward;
	ops->token_logprobs = token_logprobs;
	ops->divergence = divergence;
}
