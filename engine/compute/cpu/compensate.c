/* Pruning with compensation: what SparseGPT takes beside products. */
#include <math.h>
#include <string.h>

#include "engine/compute/cpu/cpu.h"

/* ---- the inverse of a factor ------------------------------------------------------------------------------------------------- */

/* r = the upper triangular R with a = R·Rᵀ, from its last column to its first; false where a pivot is not positive. */
static bool factorize(double (*r)[FACTOR_TILE], const struct tensor *a)
{
	const float *values = a->data;
	for (int64_t j = a->rows - 1; j >= 0; j--) {
		for (int64_t i = j; i >= 0; i--) {
			double sum = values[i * a->stride + j];
			for (int64_t k = j + 1; k < a->rows; k++)
				sum -= r[i][k] * r[j][k];
			if (i < j)
				r[i][j] = sum / r[j][j];
			else if (sum > 0)
				r[j][j] = sqrt(sum);
			else
				return false;
		}
	}
	return true;
}

/* Column j of R⁻¹. */
static void solve_column(double *v, double (*r)[FACTOR_TILE], int64_t j)
{
	v[j] = 1 / r[j][j];
	for (int64_t i = j - 1; i >= 0; i--) {
		double sum = 0;
		for (int64_t k = i + 1; k <= j; k++)
			sum -= r[i][k] * v[k];
		v[i] = sum / r[i][i];
	}
}

static enum status invert_factor(struct backend *backend, struct tensor inverse, struct tensor negated, struct tensor a, void *bad)
{
	double r[FACTOR_TILE][FACTOR_TILE], v[FACTOR_TILE];
	float *to = inverse.data, *minus = negated.data;
	if (backend->dry) return STATUS_OK;
	if (!factorize(r, &a)) {
		*(int32_t *)bad = 1;
		return STATUS_OK;
	}
	for (int64_t j = 0; j < a.rows; j++) {
		solve_column(v, r, j);
		for (int64_t i = 0; i < a.rows; i++) {
			to[i * inverse.stride + j] = i <= j ? (float)v[i] : 0;
			minus[i * negated.stride + j] = i <= j ? (float)-v[i] : 0;
		}
	}
	return STATUS_OK;
}

/* ---- columns ----------------------------------------------------------------------------------------------------------------- */

struct score_work {
	const struct cpu_backend *cpu;
	uint32_t *score;
	struct tensor weight, factor;
};

static void score_part(const void *context, struct share rows)
{
	const struct score_work *w = context;
	w->cpu->kernels->compensate->score(w->score, &w->weight, &w->factor, rows.first, rows.last);
}

struct sweep_work {
	const struct cpu_backend *cpu;
	struct tensor weight, negated_error, factor;
	uint8_t *gone;
	const struct pattern *pattern;
};

static void sweep_part(const void *context, struct share rows)
{
	const struct sweep_work *w = context;
	w->cpu->kernels->compensate->sweep(&w->weight, &w->negated_error, &w->factor, w->gone, w->pattern, rows.first, rows.last);
}

static enum status prune_columns(struct backend *backend, struct tensor weight, struct tensor negated_error, struct tensor factor,
				 int64_t zeros, const struct pattern *pattern)
{
	struct cpu_backend *cpu = cpu_of(backend);
	int64_t n = weight.rows * weight.cols;
	void *scratch;
	TRY(cpu_scratch(cpu, "prune_columns", (size_t)n * (sizeof(uint32_t) + 1), &scratch));
	if (backend->dry) return STATUS_OK;
	uint32_t *score = scratch;
	uint8_t *gone = (uint8_t *)(score + n);
	if (!pattern->of) {
		const struct score_work work = {cpu, score, weight, factor};
		cpu_share_out(cpu, weight.rows, 1, n, score_part, &work);
		select_smallest(cpu, gone, score, n, zeros);
	}
	const struct sweep_work work = {cpu, weight, negated_error, factor, gone, pattern};
	cpu_share_out(cpu, weight.rows, 1, n * weight.cols, sweep_part, &work);
	return STATUS_OK;
}

void cpu_compensate_operations(struct backend_ops *ops)
{
	ops->invert_factor = invert_factor;
	ops->prune_columns = prune_columns;
}
