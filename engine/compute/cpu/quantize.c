/* Weights on a grid, and the gradient of what sets it. */
#include "engine/compute/cpu/cpu.h"

struct quantize_work {
	const struct cpu_backend *cpu;
	const struct grid *grid;
	struct tensor out, steps, zeros, weight, strength;
};

static void quantize_part(const void *context, struct share rows)
{
	const struct quantize_work *w = context;
	w->cpu->kernels->quantize->quantize(w->grid, &w->out, &w->steps, &w->zeros, &w->weight, &w->strength, rows.first,
					    rows.last);
}

static enum status quantize(struct backend *backend, const struct grid *grid, struct tensor out, struct tensor steps,
			    struct tensor zeros, struct tensor weight, struct tensor strength)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct quantize_work work = {cpu, grid, out, steps, zeros, weight, strength};
	cpu_share_out(cpu, weight.rows, 1, weight.rows * weight.cols, quantize_part, &work);
	return STATUS_OK;
}

struct quantize_columns_work {
	const struct cpu_backend *cpu;
	const struct grid *grid;
	struct tensor weight, negated_error, support, factor, steps, zeros;
};

static void quantize_columns_part(const void *context, struct share rows)
{
	const struct quantize_columns_work *w = context;
	w->cpu->kernels->quantize->columns(w->grid, &w->weight, &w->negated_error, &w->support, &w->factor, &w->steps, &w->zeros,
					   rows.first, rows.last);
}

static enum status quantize_columns(struct backend *backend, const struct grid *grid, struct tensor weight,
				    struct tensor negated_error, struct tensor support, struct tensor factor, struct tensor steps,
				    struct tensor zeros)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct quantize_columns_work work = {cpu, grid, weight, negated_error, support, factor, steps, zeros};
	cpu_share_out(cpu, weight.rows, 1, weight.rows * weight.cols * weight.cols, quantize_columns_part, &work);
	return STATUS_OK;
}

struct quantize_backward_work {
	const struct cpu_backend *cpu;
	const struct grid *grid;
	struct tensor dstrength, g, weight, steps, zeros, strength;
};

static void quantize_backward_part(const void *context, struct share rows)
{
	const struct quantize_backward_work *w = context;
	w->cpu->kernels->quantize->backward(w->grid, &w->dstrength, &w->g, &w->weight, &w->steps, &w->zeros, &w->strength,
					    rows.first, rows.last);
}

static enum status quantize_backward(struct backend *backend, const struct grid *grid, struct tensor dstrength, struct tensor g,
				     struct tensor weight, struct tensor steps, struct tensor zeros, struct tensor strength)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct quantize_backward_work work = {cpu, grid, dstrength, g, weight, steps, zeros, strength};
	cpu_share_out(cpu, weight.rows, 1, weight.rows * weight.cols, quantize_backward_part, &work);
	return STATUS_OK;
}

void cpu_quantize_operations(struct backend_ops *ops)
{
	ops->quantize = quantize;
	ops->quantize_columns = quantize_columns;
	ops->quantize_backward = quantize_backward;
}
