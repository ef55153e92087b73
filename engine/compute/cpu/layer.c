#include "engine/compute/cpu/cpu.h"

static enum status convert(struct backend *backend, struct tensor to, struct tensor from)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, to.rows *to.cols))
	{
		struct share rows = cpu_share(to.rows, 1);
		cpu->kernels->layer->copy(&to, &from, NULL, 1, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status add_bias(struct backend *backend, struct tensor y, struct tensor bias)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share rows = cpu_share(y.rows, 1);
		cpu->kernels->layer->add(&y, &bias, true, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status add(struct backend *backend, struct tensor y, struct tensor x)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share rows = cpu_share(y.rows, 1);
		cpu->kernels->layer->add(&y, &x, false, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status embed(struct backend *backend, struct tensor out, struct tensor table, const void *ids, float scale)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, out.rows *out.cols))
	{
		struct share rows = cpu_share(out.rows, 1);
		cpu->kernels->layer->copy(&out, &table, ids, scale, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status norm_forward(struct backend *backend, const struct norm *norm, struct tensor y, struct tensor stats,
				struct tensor x, struct tensor weight, struct tensor bias)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share rows = cpu_share(x.rows, 1);
		cpu->kernels->layer->norm_forward(norm, &y, &stats, &x, weight.data, bias.data, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status norm_backward(struct backend *backend, const struct norm *norm, struct tensor dx, struct tensor dy,
				 struct tensor x, struct tensor stats, struct tensor weight, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share rows = cpu_share(x.rows, 1);
		cpu->kernels->layer->norm_backward(norm, &dx, &dy, &x, &stats, weight.data, accumulate, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status norm_gradient(struct backend *backend, const struct norm *norm, struct tensor dweight, struct tensor dbias,
				 struct tensor dy, struct tensor x, struct tensor stats)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share cols = cpu_share(dweight.cols, 16);
		cpu->kernels->layer->norm_gradient(norm, dweight.data, dbias.data, &dy, &x, &stats, cols.first, cols.last);
	}
	return STATUS_OK;
}

static enum status column_sums(struct backend *backend, struct tensor sums, struct tensor x)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share cols = cpu_share(x.cols, 16);
		cpu->kernels->layer->column_sums(sums.data, &x, cols.first, cols.last);
	}
	return STATUS_OK;
}

static enum status rope(struct backend *backend, const struct rotation *rotation, struct tensor x, struct tensor table)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share rows = cpu_share(x.rows, 1);
		cpu->kernels->layer->rope(rotation, &x, &table, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status attention_sinks(struct backend *backend, const struct attention *shape, struct tensor out, struct tensor lse,
				   struct tensor sinks)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, out.rows *out.cols))
	{
		struct share rows = cpu_share(out.rows, 1);
		cpu->kernels->layer->attention_sinks(shape, &out, &lse, sinks.data, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status activation_forward(struct backend *backend, struct activation activation, struct tensor y, struct tensor gate,
				      struct tensor up)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share rows = cpu_share(y.rows, 1);
		cpu->kernels->layer->activation_forward(activation, &y, &gate, &up, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status activation_backward(struct backend *backend, struct activation activation, struct tensor dgate,
				       struct tensor dup, struct tensor dy, struct tensor gate, struct tensor up)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, dy.rows *dy.cols))
	{
		struct share rows = cpu_share(dy.rows, 1);
		cpu->kernels->layer->activation_backward(activation, &dgate, &dup, &dy, &gate, &up, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status token_logprobs(struct backend *backend, void *out, struct tensor logits, const void *targets, float softcap)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, logits.rows *logits.cols))
	{
		struct share rows = cpu_share(logits.rows, 1);
		cpu->kernels->layer->token_logprobs(out, &logits, targets, softcap, rows.first, rows.last);
	}
	return STATUS_OK;
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
#pragma omp parallel num_threads(cpu_threads(cpu, logits.rows *logits.cols))
	{
		struct share rows = cpu_share(logits.rows, 1);
		cpu->kernels->layer->divergence(loss, &dlogits, &logits, &wanted, softcap, (float)factor, rows.first, rows.last);
	}
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
