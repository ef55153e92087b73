#include <math.h>

#include "engine/compute/cpu/cpu.h"

static enum status rates_forward(struct backend *backend, const struct rates *rates, struct tensor beta, void *s, void *threshold,
				 void *stats, struct tensor theta, double target, double lambda)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, rates->groups * rates->candidates))
	{
		struct share groups = cpu_share(rates->groups, 1);
		cpu->kernels->learn->rates_forward(rates, &beta, s, threshold, &theta, groups.first, groups.last);
	}
	const float *rate = s;
	const double *share = rates->share;
	double sparsity = 0, *out = stats;
	for (int64_t group = 0; group < rates->groups; group++)
		sparsity += share[group] * (double)rate[group];
	out[STEP_SPARSITY] = sparsity;
	out[STEP_SLOPE] = 2 * lambda * (sparsity - target) / (target * target);
	return STATUS_OK;
}

static enum status rates_backward(struct backend *backend, const struct rates *rates, struct tensor dtheta, struct tensor theta,
				  struct tensor beta, struct tensor sums, const void *stats)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	double slope = ((const double *)stats)[STEP_SLOPE];
#pragma omp parallel num_threads(cpu_threads(cpu, rates->groups * rates->candidates))
	{
		struct share groups = cpu_share(rates->groups, 1);
		cpu->kernels->learn->rates_backward(rates, &dtheta, &theta, &beta, &sums, slope, groups.first, groups.last);
	}
	return STATUS_OK;
}

static enum status reconstruction(struct backend *backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				  bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	void *scratch;
	TRY(cpu_scratch(cpu, "reconstruction", (size_t)y.cols * sizeof(double), &scratch));
	if (backend->dry) return STATUS_OK;
	double *loss = scratch, sum = 0, *out = stats;
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share cols = cpu_share(y.cols, 16);
		cpu->kernels->learn->reconstruction(loss, &dy, &y, &ref, cols.first, cols.last);
	}
	for (int64_t col = 0; col < y.cols; col++)
		sum += loss[col];
	if (y.cols) sum /= (double)y.cols;
	out[STEP_RECONSTRUCTION] = (accumulate ? out[STEP_RECONSTRUCTION] : 0) + sum;
	return STATUS_OK;
}

/* The sum is of one part for each row, so that it does not depend on the number of threads. */
static enum status weighted_error(struct backend *backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				  struct tensor weight, double factor, bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	void *scratch;
	TRY(cpu_scratch(cpu, "weighted_error", (size_t)y.rows * sizeof(double), &scratch));
	if (backend->dry) return STATUS_OK;
	double *loss = scratch, sum = 0, *out = stats;
#pragma omp parallel num_threads(cpu_threads(cpu, y.rows *y.cols))
	{
		struct share rows = cpu_share(y.rows, 1);
		cpu->kernels->learn->weighted_error(loss, &dy, &y, &ref, weight.data, factor, rows.first, rows.last);
	}
	for (int64_t row = 0; row < y.rows; row++)
		sum += loss[row];
	out[STEP_RECONSTRUCTION] = (accumulate ? out[STEP_RECONSTRUCTION] : 0) + factor * sum;
	return STATUS_OK;
}

static enum status prodigy_step(struct backend *backend, const struct prodigy *prodigy, int64_t n, void *theta, const void *theta0,
				void *m, void *v, void *s, const void *gradient, void *device_state)
{
	struct cpu_backend *cpu = cpu_of(backend);
	const struct learn_kernels *kernels = cpu->kernels->learn;
	int64_t chunks = (n + OPTIMIZER_CHUNK - 1) / OPTIMIZER_CHUNK;
	void *scratch;
	TRY(cpu_scratch(cpu, "prodigy_step", 2 * (size_t)chunks * sizeof(double), &scratch));
	if (backend->dry) return STATUS_OK;
	double *dots = scratch, *sums = dots + chunks, *state = device_state;
	double d = state[PRODIGY_D], d0 = state[PRODIGY_D0], dot = 0, sum = 0;
#pragma omp parallel for schedule(static) num_threads(cpu_threads(cpu, n))
	for (int64_t chunk = 0; chunk < chunks; chunk++) {
		int64_t first = chunk * OPTIMIZER_CHUNK, last = first + OPTIMIZER_CHUNK < n ? first + OPTIMIZER_CHUNK : n;
		kernels->prodigy_moments(prodigy, d, d0, theta, theta0, m, v, s, gradient, first, last, &dots[chunk], &sums[chunk]);
	}
	for (int64_t chunk = 0; chunk < chunks; chunk++) {
		dot += dots[chunk];
		sum += sums[chunk];
	}
	if (sum == 0) return STATUS_OK;
	double r = sqrt((double)prodigy->beta2) * state[PRODIGY_R] + d / d0 * d * dot, estimate = prodigy->d_coef * r / sum;
	double d_max = estimate > state[PRODIGY_D_MAX] ? estimate : state[PRODIGY_D_MAX];
	state[PRODIGY_R] = r;
	state[PRODIGY_D] = state[PRODIGY_D_MAX] = d_max;
#pragma omp parallel num_threads(cpu_threads(cpu, n))
	{
		struct share share = cpu_share(n, 64);
		kernels->prodigy_move((float)d, (float)(d_max * (double)prodigy->eps), theta, m, v, share.first, share.last);
	}
	return STATUS_OK;
}

static enum status adamw_step(struct backend *backend, const struct adamw *adamw, struct tensor theta, struct tensor m,
			      struct tensor v, struct tensor gradient, struct tensor copy)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	int64_t pieces = theta.rows * ((theta.cols + OPTIMIZER_CHUNK - 1) / OPTIMIZER_CHUNK);
#pragma omp parallel num_threads(cpu_threads(cpu, theta.rows *theta.cols))
	{
		struct share share = cpu_share(pieces, 1);
		cpu->kernels->learn->adamw(adamw, &theta, &m, &v, &gradient, &copy, share.first, share.last);
	}
	return STATUS_OK;
}

void cpu_learn_operations(struct backend_ops *ops)
{
	ops->rates_forward = rates_forward;
	ops->rates_backward = rates_backward;
	ops->reconstruction = reconstruction;
	ops->weighted_error = weighted_error;
	ops->prodigy_step = prodigy_step;
	ops->adamw_step = adamw_step;
}
