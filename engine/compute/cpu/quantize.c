/* Weights on a grid, and the gradient of what sets it. */
#include "engine/compute/cpu/cpu.h"

static enum status quantize(struct backend *backend, const struct grid *grid, struct tensor out, struct tensor steps,
			    struct tensor zeros, struct tensor weight, struct tensor strength)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, weight.rows *weight.cols))
	{
		struct share rows = cpu_share(weight.rows, 1);
		cpu->kernels->quantize->quantize(grid, &out, &steps, &zeros, &weight, &strength, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status quantize_columns(struct backend *backend, const struct grid *grid, struct tensor weight,
				    struct tensor negated_error, struct tensor support, struct tensor factor, struct tensor steps,
				    struct tensor zeros)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, weight.rows *weight.cols *weight.cols))
	{
		struct share rows = cpu_share(weight.rows, 1);
		cpu->kernels->quantize->columns(grid, &weight, &negated_error, &support, &factor, &steps, &zeros, rows.first,
						rows.last);
	}
	return STATUS_OK;
}

static enum status quantize_backward(struct backend *backend, const struct grid *grid, struct tensor dstrength, struct tensor g,
				     struct tensor weight, struct tensor steps, struct tensor zeros, struct tensor strength)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, weight.rows *weight.cols))
	{
		struct share rows = cpu_share(weight.rows, 1);
		cpu->kernels->quantize->backward(grid, &dstrength, &g, &weight, &steps, &zeros, &strength, rows.first, rows.last);
	}
	return STATUS_OK;
}

void cpu_quantize_operations(struct backend_ops *ops)
{
	ops->quantize = quantize;
	ops->quantize_columns = quantize_columns;
	ops->quantize_backward = quantize_backward;
}
