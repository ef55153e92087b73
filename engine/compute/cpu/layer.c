#include "engine/compute/cpu/cpu.h"

enum status cpu_convert(struct backend *backend, struct tensor to, struct tensor from)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_convert(backend, to, from));
#pragma omp parallel num_threads(cpu_threads(cpu, to.rows *to.cols))
	{
		struct share rows = cpu_share(to.rows, 1);
		cpu->kernels->layer->copy(&to, &from, NULL, 1, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_add_bias(struct backend *backend, struct tensor y, struct tensor bias)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_add_bias(backend, y, bias));
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share rows = cpu_share(y.rows, 1);
		cpu->kernels->layer->add(&y, &bias, true, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_add(struct backend *backend, struct tensor y, struct tensor x)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_add(backend, y, x));
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share rows = cpu_share(y.rows, 1);
		cpu->kernels->layer->add(&y, &x, false, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_embed(struct backend *backend, struct tensor out, struct tensor table, const void *ids, float scale)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_embed(backend, out, table, ids));
#pragma omp parallel num_threads(cpu_threads(cpu, out.rows *out.cols))
	{
		struct share rows = cpu_share(out.rows, 1);
		cpu->kernels->layer->copy(&out, &table, ids, scale, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_norm_forward(struct backend *backend, const struct norm *norm, struct tensor y, struct tensor stats,
			     struct tensor x, struct tensor weight, struct tensor bias)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_norm_forward(backend, norm, y, stats, x, weight, bias));
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share rows = cpu_share(x.rows, 1);
		cpu->kernels->layer->norm_forward(norm, &y, &stats, &x, weight.data, bias.data, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_norm_backward(struct backend *backend, const struct norm *norm, struct tensor dx, struct tensor dy, struct tensor x,
			      struct tensor stats, struct tensor weight, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_norm_backward(backend, norm, dx, dy, x, stats, weight));
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share rows = cpu_share(x.rows, 1);
		cpu->kernels->layer->norm_backward(norm, &dx, &dy, &x, &stats, weight.data, accumulate, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_rope(struct backend *backend, struct tensor x, struct tensor table, int head_dim, int rotary, bool inverse)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_rope(backend, x, table, head_dim, rotary));
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share rows = cpu_share(x.rows, 1);
		cpu->kernels->layer->rope(&x, &table, head_dim, rotary, inverse, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_activation_forward(struct backend *backend, enum activation kind, struct tensor y, struct tensor gate,
				   struct tensor up)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_activation_forward(backend, y, gate, up));
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share rows = cpu_share(y.rows, 1);
		cpu->kernels->layer->activation_forward(kind, &y, &gate, &up, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_activation_backward(struct backend *backend, enum activation kind, struct tensor dgate, struct tensor dup,
				    struct tensor dy, struct tensor gate, struct tensor up)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_activation_backward(backend, dgate, dup, dy, gate, up));
#pragma omp parallel num_threads(cpu_threads(cpu, dy.rows *dy.cols))
	{
		struct share rows = cpu_share(dy.rows, 1);
		cpu->kernels->layer->activation_backward(kind, &dgate, &dup, &dy, &gate, &up, rows.first, rows.last);
	}
	return STATUS_OK;
}

enum status cpu_token_logprobs(struct backend *backend, void *out, struct tensor logits, const void *targets, float softcap)
{
	struct cpu_backend *cpu = cpu_of(backend);
	TRY(check_token_logprobs(backend, out, logits, targets));
#pragma omp parallel num_threads(cpu_threads(cpu, logits.rows *logits.cols))
	{
		struct share rows = cpu_share(logits.rows, 1);
		cpu->kernels->layer->token_logprobs(out, &logits, targets, softcap, rows.first, rows.last);
	}
	return STATUS_OK;
}
