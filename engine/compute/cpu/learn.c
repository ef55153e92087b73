#include <math.h>

#include "engine/compute/cpu/cpu.h"

struct rates_forward_work {
	const struct cpu_backend *cpu;
	const struct rates *rates;
	struct tensor beta;
	void *s, *threshold;
	struct tensor theta;
};

static void rates_forward_part(const void *context, struct share groups)
{
	const struct rates_forward_work *w = context;
	w->cpu->kernels->learn->rates_forward(w->rates, &w->beta, w->s, w->threshold, &w->theta, groups.first, groups.last);
}

static enum status rates_forward(struct backend *backend, const struct rates *rates, struct tensor beta, void *s, void *threshold,
				 void *stats, struct tensor theta, double target, double lambda)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct rates_forward_work work = {cpu, rates, beta, s, threshold, theta};
	cpu_share_out(cpu, rates->groups, 1, rates->groups * rates->candidates, rates_forward_part, &work);
	const float *rate = s;
	const double *share = rates->share;
	double sparsity = 0, *out = stats;
	for (int64_t group = 0; group < rates->groups; group++)
		sparsity += share[group] * (double)rate[group];
	out[STEP_SPARSITY] = sparsity;
	out[STEP_SLOPE] = 2 * lambda * (sparsity - target) / (target * target);
	return STATUS_OK;
}

struct rates_backward_work {
	const struct cpu_backend *cpu;
	const struct rates *rates;
	struct tensor dtheta, theta, beta, sums;
	double slope;
};

static void rates_backward_part(const void *context, struct share groups)
{
	const struct rates_backward_work *w = context;
	w->cpu->kernels->learn->rates_backward(w->rates, &w->dtheta, &w->theta, &w->beta, &w->sums, w->slope, groups.first,
					       groups.last);
}

static enum status rates_backward(struct backend *backend, const struct rates *rates, struct tensor dtheta, struct tensor theta,
				  struct tensor beta, struct tensor sums, const void *stats)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	double slope = ((const double *)stats)[STEP_SLOPE];
	const struct rates_backward_work work = {cpu, rates, dtheta, theta, beta, sums, slope};
	cpu_share_out(cpu, rates->groups, 1, rates->groups * rates->candidates, rates_backward_part, &work);
	return STATUS_OK;
}

struct reconstruction_work {
	const struct cpu_backend *cpu;
	double *loss;
	struct tensor dy, y, ref;
};

static void reconstruction_part(const void *context, struct share cols)
{
	const struct reconstruction_work *w = context;
	w->cpu->kernels->learn->reconstruction(w->loss, &w->dy, &w->y, &w->ref, cols.first, cols.last);
}

static enum status reconstruction(struct backend *backend, void *stats, struct tensor dy, struct tensor y, struct tensor ref,
				  bool accumulate)
{
	struct cpu_backend *cpu = cpu_of(backend);
	void *scratch;
	TRY(cpu_scratch(cpu, "reconstruction", (size_t)y.cols * sizeof(double), &scratch));
	if (backend->dry) return STATUS_OK;
	double *loss = scratch, sum = 0, *out = stats;
	const struct reconstruction_work work = {cpu, loss, dy, y, ref};
	cpu_share_out(cpu, y.cols, 16, y.rows * y.cols, reconstruction_part, &work);
	for (int64_t col = 0; col < y.cols; col++)
		sum += loss[col];
	if (y.cols) sum /= (double)y.cols;
	out[STEP_RECONSTRUCTION] = (accumulate ? out[STEP_RECONSTRUCTION] : 0) + sum;
	return STATUS_OK;
}

struct weighted_error_work {
	const struct cpu_backend *cpu;
	double *loss;
	struct tensor dy, y, ref, weight;
	double factor;
};

static void weighted_error_part(const void *context, struct share rows)
{
	const struct weighted_error_work *w = context;
	w->cpu->kernels->learn->weighted_error(w->loss, &w->dy, &w->y, &w->ref, w->weight.data, w->factor, rows.first, rows.last);
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
	const struct weighted_error_work work = {cpu, loss, dy, y, ref, weight, factor};
	cpu_share_out(cpu, y.rows, 1, y.rows * y.cols, weighted_error_part, &work);
	for (int64_t row = 0; row < y.rows; row++)
		sum += loss[row];
	out[STEP_RECONSTRUCTION] = (accumulate ? out[STEP_RECONSTRUCTION] : 0) + factor * sum;
	return STATUS_OK;
}

struct moments_work {
	const struct learn_kernels *kernels;
	const struct prodigy *prodigy;
	int64_t n;
	double d, d0;
	const float *theta, *theta0, *gradient;
	float *m, *v, *s;
	double *dots, *sums; /* of each chunk */
};

static void moments_part(const void *context, struct share chunks)
{
	const struct moments_work *w = context;
	for (int64_t chunk = chunks.first; chunk < chunks.last; chunk++) {
		int64_t first = chunk * OPTIMIZER_CHUNK, last = w->n - first < OPTIMIZER_CHUNK ? w->n : first + OPTIMIZER_CHUNK;
		w->kernels->prodigy_moments(w->prodigy, w->d, w->d0, w->theta, w->theta0, w->m, w->v, w->s, w->gradient, first,
					    last, &w->dots[chunk], &w->sums[chunk]);
	}
}

struct prodigy_move_work {
	const struct learn_kernels *kernels;
	float step, eps;
	float *theta, *m, *v;
};

static void prodigy_move_part(const void *context, struct share share)
{
	const struct prodigy_move_work *w = context;
	w->kernels->prodigy_move(w->step, w->eps, w->theta, w->m, w->v, share.first, share.last);
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
	const struct moments_work moments = {kernels, prodigy, n, d, d0, theta, theta0, gradient, m, v, s, dots, sums};
	cpu_share_out(cpu, chunks, 1, n, moments_part, &moments);
	for (int64_t chunk = 0; chunk < chunks; chunk++) {
		dot += dots[chunk];
		sum += sums[chunk];
	}
	if (sum == 0) return STATUS_OK;
	double r = sqrt((double)prodigy->beta2) * state[PRODIGY_R] + d / d0 * d * dot, estimate = prodigy->d_coef * r / sum;
	double d_max = estimate > state[PRODIGY_D_MAX] ? estimate : state[PRODIGY_D_MAX];
	state[PRODIGY_R] = r;
	state[PRODIGY_D] = state[PRODIGY_D_MAX] = d_max;
	const struct prodigy_move_work work = {kernels, (float)d, (float)(d_max * (double)prodigy->eps), theta, m, v};
	cpu_share_out(cpu, n, 64, n, prodigy_move_part, &work);
	return STATUS_OK;
}

struct adamw_step_work {
	const struct cpu_backend *cpu;
	const struct adamw *adamw;
	struct tensor theta, m, v, gradient, copy;
};

static void adamw_step_part(const void *context, struct share share)
{
	const struct adamw_step_work *w = context;
	w->cpu->kernels->learn->adamw(w->adamw, &w->theta, &w->m, &w->v, &w->gradient, &w->copy, share.first, share.last);
}

static enum status adamw_step(struct backend *backend, const struct adamw *adamw, struct tensor theta, struct tensor m,
			      struct tensor v, struct tensor gradient, struct tensor copy)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	int64_t pieces = theta.rows * ((theta.cols + OPTIMIZER_CHUNK - 1) / OPTIMIZER_CHUNK);
	const struct adamw_step_work work = {cpu, adamw, theta, m, v, gradient, copy};
	cpu_share_out(cpu, pieces, 1, theta.rows * theta.cols, adamw_step_part, &work);
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
