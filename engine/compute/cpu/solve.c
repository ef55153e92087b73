/* Pruning by ADMM, and conjugate gradients on what is kept. */
#include "engine/compute/cpu/cpu.h"

static enum status scale(struct backend *backend, struct tensor y, struct tensor x, const void *by_row, const void *by_col,
			 float factor, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share rows = cpu_share(y.rows, 1);
		cpu->kernels->solve->scale(&y, &x, by_row, by_col, factor, accumulate, rows.first, rows.last);
	}
	return STATUS_OK;
}

/* How many of a row go; what the device was told is cut off at what may go. */
static int64_t zeros_of_row(const struct cut *cut, int64_t row, int64_t cols)
{
	const struct pattern *pattern = &cut->pattern;
	int64_t most = pattern->of ? cols / pattern->of * (pattern->of - pattern->keep) : cols;
	int64_t zeros = cut->row_zeros ? ((const int32_t *)cut->row_zeros)[row] : cut->zeros;
	return zeros < 0 ? 0 : zeros < most ? zeros : most;
}

static enum status project(struct backend *backend, struct tensor w, struct tensor u, struct tensor rhs, struct tensor b, float rho,
			   const struct cut *cut)
{
	struct cpu_backend *cpu = cpu_of(backend);
	const struct solve_kernels *kernels = cpu->kernels->solve;
	int64_t n = w.rows * w.cols;
	bool by_row = cut->row_zeros || cut->pattern.of;
	void *scratch;
	TRY(cpu_scratch(cpu, "project", (size_t)n * (sizeof(uint32_t) + 1), &scratch));
	if (backend->dry) return STATUS_OK;
	uint32_t *score = scratch;
	uint8_t *gone = (uint8_t *)(score + n);
#pragma omp parallel num_threads(cpu_threads(cpu, n))
	{
		struct share rows = cpu_share(w.rows, 1);
		kernels->score(score, &w, &u, &cut->pattern, rows.first, rows.last);
		for (int64_t row = rows.first; by_row && row < rows.last; row++)
			kernels->select_row(gone + row * w.cols, score + row * w.cols, w.cols, zeros_of_row(cut, row, w.cols));
	}
	if (!by_row) select_smallest(cpu, gone, score, n, cut->zeros);
#pragma omp parallel num_threads(cpu_threads(cpu, n))
	{
		struct share rows = cpu_share(w.rows, 1);
		kernels->project(&w, &u, &rhs, &b, rho, gone, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status keep_where(struct backend *backend, struct tensor out, struct tensor weight, struct tensor support)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, out.rows *out.cols))
	{
		struct share rows = cpu_share(out.rows, 1);
		cpu->kernels->solve->keep_where(&out, &weight, &support, rows.first, rows.last);
	}
	return STATUS_OK;
}

/* In scratch memory: 1 / (diagonal + λ); not filled for a dry backend. */
static enum status invert_diagonal(struct cpu_backend *cpu, const char *operation, const struct tensor *diagonal, float lambda,
				   float **ret)
{
	const float *values = diagonal->data;
	void *scratch;
	TRY(cpu_scratch(cpu, operation, (size_t)diagonal->cols * sizeof(float), &scratch));
	*ret = scratch;
	for (int64_t i = 0; !cpu->base.dry && i < diagonal->cols; i++)
		(*ret)[i] = 1 / (values[i] + lambda);
	return STATUS_OK;
}

static enum status conjugate_start(struct backend *backend, struct tensor r, struct tensor p, void *energy, struct tensor target,
				   struct tensor product, struct tensor support, struct tensor diagonal, float lambda)
{
	struct cpu_backend *cpu = cpu_of(backend);
	float *inverse;
	TRY(invert_diagonal(cpu, "conjugate_start", &diagonal, lambda, &inverse));
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, r.rows *r.cols))
	{
		struct share rows = cpu_share(r.rows, 1);
		cpu->kernels->solve->conjugate_start(&r, &p, energy, &target, &product, &support, inverse, rows.first, rows.last);
	}
	return STATUS_OK;
}

static enum status conjugate_step(struct backend *backend, struct tensor x, struct tensor r, struct tensor p, void *energy,
				  struct tensor product, struct tensor support, struct tensor diagonal, float lambda)
{
	struct cpu_backend *cpu = cpu_of(backend);
	float *inverse;
	TRY(invert_diagonal(cpu, "conjugate_step", &diagonal, lambda, &inverse));
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share rows = cpu_share(x.rows, 1);
		cpu->kernels->solve->conjugate_step(&x, &r, &p, energy, &product, &support, inverse, lambda, rows.first, rows.last);
	}
	return STATUS_OK;
}

void cpu_solve_operations(struct backend_ops *ops)
{
	ops->scale = scale;
	ops->project = project;
	ops->keep_where = keep_where;
	ops->conjugate_start = conjugate_start;
	ops->conjugate_step = conjugate_step;
}
