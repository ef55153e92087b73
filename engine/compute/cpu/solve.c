/* Pruning by ADMM, and conjugate gradients on what is kept. */
#include "engine/compute/cpu/cpu.h"

struct scale_work {
	const struct cpu_backend *cpu;
	struct tensor y, x;
	const void *by_row, *by_col;
	float factor;
	bool accumulate;
};

static void scale_part(const void *context, struct share rows)
{
	const struct scale_work *w = context;
	w->cpu->kernels->solve->scale(&w->y, &w->x, w->by_row, w->by_col, w->factor, w->accumulate, rows.first, rows.last);
}

static enum status scale(struct backend *backend, struct tensor y, struct tensor x, const void *by_row, const void *by_col,
			 float factor, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct scale_work work = {cpu, y, x, by_row, by_col, factor, accumulate};
	cpu_share_out(cpu, y.rows, 1, y.rows * y.cols, scale_part, &work);
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

struct project_score_work {
	const struct cpu_backend *cpu;
	uint32_t *score;
	struct tensor w, u;
	const struct cut *cut;
	uint8_t *gone;
	bool by_row;
};

static void project_score_part(const void *context, struct share rows)
{
	const struct project_score_work *w = context;
	w->cpu->kernels->solve->score(w->score, &w->w, &w->u, &w->cut->pattern, rows.first, rows.last);
	for (int64_t row = rows.first; w->by_row && row < rows.last; row++)
		w->cpu->kernels->solve->select_row(w->gone + row * w->w.cols, w->score + row * w->w.cols, w->w.cols,
						   zeros_of_row(w->cut, row, w->w.cols));
}

struct project_move_work {
	const struct cpu_backend *cpu;
	struct tensor w, u, rhs, b;
	float rho;
	uint8_t *gone;
};

static void project_move_part(const void *context, struct share rows)
{
	const struct project_move_work *w = context;
	w->cpu->kernels->solve->project(&w->w, &w->u, &w->rhs, &w->b, w->rho, w->gone, rows.first, rows.last);
}

static enum status project(struct backend *backend, struct tensor w, struct tensor u, struct tensor rhs, struct tensor b, float rho,
			   const struct cut *cut)
{
	struct cpu_backend *cpu = cpu_of(backend);
	int64_t n = w.rows * w.cols;
	bool by_row = cut->row_zeros || cut->pattern.of;
	void *scratch;
	TRY(cpu_scratch(cpu, "project", (size_t)n * (sizeof(uint32_t) + 1), &scratch));
	if (backend->dry) return STATUS_OK;
	uint32_t *score = scratch;
	uint8_t *gone = (uint8_t *)(score + n);
	const struct project_score_work work = {cpu, score, w, u, cut, gone, by_row};
	cpu_share_out(cpu, w.rows, 1, n, project_score_part, &work);
	if (!by_row) select_smallest(cpu, gone, score, n, cut->zeros);
	const struct project_move_work move = {cpu, w, u, rhs, b, rho, gone};
	cpu_share_out(cpu, w.rows, 1, n, project_move_part, &move);
	return STATUS_OK;
}

struct keep_where_work {
	const struct cpu_backend *cpu;
	struct tensor out, weight, support;
};

static void keep_where_part(const void *context, struct share rows)
{
	const struct keep_where_work *w = context;
	w->cpu->kernels->solve->keep_where(&w->out, &w->weight, &w->support, rows.first, rows.last);
}

static enum status keep_where(struct backend *backend, struct tensor out, struct tensor weight, struct tensor support)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct keep_where_work work = {cpu, out, weight, support};
	cpu_share_out(cpu, out.rows, 1, out.rows * out.cols, keep_where_part, &work);
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

struct conjugate_start_work {
	const struct cpu_backend *cpu;
	struct tensor r, p;
	void *energy;
	struct tensor target, product, support;
	const float *inverse;
};

static void conjugate_start_part(const void *context, struct share rows)
{
	const struct conjugate_start_work *w = context;
	w->cpu->kernels->solve->conjugate_start(&w->r, &w->p, w->energy, &w->target, &w->product, &w->support, w->inverse,
						rows.first, rows.last);
}

static enum status conjugate_start(struct backend *backend, struct tensor r, struct tensor p, void *energy, struct tensor target,
				   struct tensor product, struct tensor support, struct tensor diagonal, float lambda)
{
	struct cpu_backend *cpu = cpu_of(backend);
	float *inverse;
	TRY(invert_diagonal(cpu, "conjugate_start", &diagonal, lambda, &inverse));
	if (backend->dry) return STATUS_OK;
	const struct conjugate_start_work work = {cpu, r, p, energy, target, product, support, inverse};
	cpu_share_out(cpu, r.rows, 1, r.rows * r.cols, conjugate_start_part, &work);
	return STATUS_OK;
}

struct conjugate_step_work {
	const struct cpu_backend *cpu;
	struct tensor x, r, p;
	void *energy;
	struct tensor product, support;
	const float *inverse;
	float lambda;
};

static void conjugate_step_part(const void *context, struct share rows)
{
	const struct conjugate_step_work *w = context;
	w->cpu->kernels->solve->conjugate_step(&w->x, &w->r, &w->p, w->energy, &w->product, &w->support, w->inverse, w->lambda,
					       rows.first, rows.last);
}

static enum status conjugate_step(struct backend *backend, struct tensor x, struct tensor r, struct tensor p, void *energy,
				  struct tensor product, struct tensor support, struct tensor diagonal, float lambda)
{
	struct cpu_backend *cpu = cpu_of(backend);
	float *inverse;
	TRY(invert_diagonal(cpu, "conjugate_step", &diagonal, lambda, &inverse));
	if (backend->dry) return STATUS_OK;
	const struct conjugate_step_work work = {cpu, x, r, p, energy, product, support, inverse, lambda};
	cpu_share_out(cpu, x.rows, 1, x.rows * x.cols, conjugate_step_part, &work);
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
