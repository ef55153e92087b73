/* Boža's method (arXiv 2401.02938): which weights of a linear go, and what the others become, are one problem, min ‖(V − W)·Xᵀ‖²
 * over V with so many zeros. ADMM finds the zeros: V and its projection onto what is that sparse are drawn to each other, the
 * number of zeros rising to the target meanwhile; conjugate gradients then find the weights that stay
 * (engine/prune/least_squares.h).
 *
 * ADMM works on columns scaled by d, the root of the Gram matrix' diagonal: with H = G/(d·dᵀ) + damping·1 and w = W·d,
 *   z = what is largest of w + u;   u += w − z;   w = (b + ρ·(z − u))·(H + ρ·1)⁻¹,   b = w₀·H.
 *
 * Linears are pruned in the order in which a token meets them, each by the inputs that it has behind those that are pruned
 * already. */
#include <math.h>
#include <stdlib.h>

#include "engine/methods/admm/budgets.h"
#include "engine/methods/method.h"
#include "engine/model/masters.h"
#include "engine/prune/factor.h"
#include "engine/prune/grams.h"
#include "engine/prune/least_squares.h"
#include "engine/spec/sections.h"

struct admm {
	struct method_setup setup;
	struct admm_settings settings;
	struct grams grams;
	struct factor factor;
	struct least_squares solver;
	struct tensor inverse; /* F32 [C,C]: (H + ρ·1)⁻¹ of the product at hand */
	void *room, *u_room;   /* of the former, and of u */
	void *scale, *unscale; /* device F32 [C]: d and 1/d */
	struct budgets budgets;
};

/* A column's d² is no less than this part of the mean: dead columns are divided by it. */
static const double LEAST_DIAGONAL = 1e-8;

static struct block *block_of(const struct admm *a)
{
	return a->setup.block;
}

static const struct block_layout *layout_of(const struct admm *a)
{
	return &a->setup.block->layout;
}

static struct backend *backend_of(const struct admm *a)
{
	return a->setup.block->backend;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static void destroy(void *method)
{
	struct admm *a = method;
	if (!a) return;
	void *const memory[] = {a->room, a->u_room, a->scale, a->unscale};
	for (size_t i = 0; i < sizeof memory / sizeof *memory; i++)
		backend_of(a)->ops->release(backend_of(a), memory[i]);
	least_squares_release(&a->solver);
	factor_release(&a->factor);
	grams_release(&a->grams);
	budgets_release(&a->budgets);
	free(a);
}

static enum status allocate(struct admm *a, struct error *err)
{
	const struct block_layout *layout = layout_of(a);
	struct backend *backend = backend_of(a);
	int64_t cols = layout_most_columns(layout);
	struct tensor square = tensor_padded(NULL, cols, cols, DTYPE_F32);
	const size_t bytes[] = {tensor_room(&square), least_squares_room(layout), (size_t)cols * sizeof(float),
				(size_t)cols * sizeof(float)};
	void **const memory[] = {&a->room, &a->u_room, &a->scale, &a->unscale};
	TRY(budgets_create(&a->setup, a->settings.rates, &a->budgets, err));
	TRY(grams_create(block_of(a), &a->grams, err));
	TRY(factor_create(backend, cols, &a->factor, err));
	TRY(least_squares_create(block_of(a), a->setup.stop, &a->solver, err));
	for (size_t i = 0; i < sizeof memory / sizeof *memory; i++) {
		if (backend->ops->alloc(backend, bytes[i], memory[i]) == STATUS_OK) continue;
		*err = backend->error;
		return err->status;
	}
	return STATUS_OK;
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	struct admm *a = calloc(1, sizeof *a);
	if (!a) return error_set(err, STATUS_NO_MEMORY, "no memory for a method");
	a->setup = *setup;
	a->settings = *(const struct admm_settings *)spec_settings(setup->spec, &method_admm_settings);
	enum status status = allocate(a, err);
	if (status == STATUS_OK)
		*ret = a;
	else
		destroy(a);
	return status;
}

/* ---- a product: the inverse that its linears share --------------------------------------------------------------------------- */

/* d and 1/d on the device, of a Gram matrix whose diagonal is in factor->host. */
static enum status set_scales(struct admm *a, int64_t cols, double mean)
{
	struct backend *backend = backend_of(a);
	float *host = a->factor.host;
	for (int64_t i = 0; i < cols; i++)
		host[i] = (float)sqrt(fmax(host[i], LEAST_DIAGONAL * mean));
	TRY(backend->ops->upload(backend, a->scale, host, (size_t)cols * sizeof *host));
	for (int64_t i = 0; i < cols; i++)
		host[i] = 1 / host[i];
	return backend->ops->upload(backend, a->unscale, host, (size_t)cols * sizeof *host);
}

/* (G/(d·dᵀ) + (damping + ρ)·1)⁻¹; *damping grows where that takes more. */
static enum status invert(struct admm *a, struct tensor gram, double *damping)
{
	struct backend *backend = backend_of(a);
	const struct backend_ops *ops = backend->ops;
	struct tensor u = factor_part(&a->factor, 0, gram.rows, 0, gram.rows);
	double first = *damping + a->settings.rho, lambda = first;
	a->inverse = tensor_padded(a->room, gram.rows, gram.rows, DTYPE_F32);
	TRY(ops->scale(backend, a->inverse, gram, a->unscale, a->unscale, 1, false));
	TRY(factor_damped(&a->factor, a->inverse, &lambda));
	if (lambda > first) *damping = lambda - a->settings.rho;
	return ops->matmul(backend, a->inverse, u, true, u, false, false);
}

/* Makes what the linears of a product share. *ret_damping is what it came to; *ret_blind: its inputs tell nothing. */
static enum status prepare_product(struct admm *a, int product, double *ret_damping, bool *ret_blind)
{
	struct tensor gram = a->grams.gram[product];
	double mean;
	*ret_damping = a->settings.damping;
	TRY(factor_diagonal(&a->factor, gram, &mean));
	*ret_blind = !(mean > 0) && !backend_of(a)->dry;
	if (*ret_blind) return STATUS_OK;
	TRY(set_scales(a, gram.rows, mean > 0 ? mean : 1));
	return invert(a, gram, ret_damping);
}

/* ---- a linear ---------------------------------------------------------------------------------------------------------------- */

/* The part of its budget that goes of a linear in iteration i: a cubic that ends at 1 after `ramp` iterations. */
static double part_of(int i, int ramp)
{
	double missing = i + 1 < ramp ? 1 - (double)(i + 1) / ramp : 0;
	return 1 - missing * missing * missing;
}

/* The support of a linear whose weights are `weight` F32, by their magnitude. */
static enum status choose_by_magnitude(struct admm *a, int linear, struct tensor weight)
{
	struct backend *backend = backend_of(a);
	struct least_squares *s = &a->solver;
	struct tensor u = tensor_padded(a->u_room, weight.rows, weight.cols, DTYPE_F32);
	struct cut cut;
	TRY(budgets_cut(&a->budgets, linear, 1, &cut));
	TRY(backend->ops->convert(backend, s->support, weight));
	TRY(backend->ops->zero(backend, u.data, tensor_room(&u)));
	TRY(backend->ops->project(backend, s->support, u, s->product, weight, 1, &cut));
	return backend->ops->keep_where(backend, weight, weight, s->support);
}

/* The same by ADMM; the solver's target is W·G. */
static enum status choose_by_admm(struct admm *a, int linear, struct tensor weight, double damping)
{
	struct backend *backend = backend_of(a);
	const struct backend_ops *ops = backend->ops;
	const struct admm_settings *settings = &a->settings;
	struct least_squares *s = &a->solver;
	struct tensor w = s->support, b = s->p, right = s->product;
	struct tensor u = tensor_padded(a->u_room, weight.rows, weight.cols, DTYPE_F32);
	TRY(ops->scale(backend, w, weight, NULL, a->scale, 1, false));
	TRY(ops->scale(backend, b, s->target, NULL, a->unscale, 1, false));
	TRY(ops->scale(backend, b, weight, NULL, a->scale, (float)damping, true));
	TRY(ops->zero(backend, u.data, tensor_room(&u)));
	for (int i = 0; i < settings->iterations; i++) {
		struct cut cut;
		if (atomic_load_explicit(a->setup.stop, memory_order_relaxed))
			return error_set(&backend->error, STATUS_CANCELLED, "stopped while pruning");
		TRY(budgets_cut(&a->budgets, linear, part_of(i, settings->ramp), &cut));
		if (i > 0) TRY(ops->matmul(backend, w, right, false, a->inverse, false, false));
		TRY(ops->project(backend, w, u, right, b, (float)settings->rho, &cut));
	}
	return STATUS_OK;
}

static enum status prune_linear(struct admm *a, int linear, double damping, bool blind)
{
	const struct linear *l = &layout_of(a)->linears[linear];
	const struct least_squares_settings fit = {a->settings.cg_steps, a->settings.cg_damping};
	struct tensor weight = tensor_rows(block_of(a)->master[l->fused], l->first, l->rows);
	struct tensor gram = a->grams.gram[l->product];
	least_squares_begin(&a->solver, l->rows, l->cols);
	if (blind) return choose_by_magnitude(a, linear, weight);
	TRY(least_squares_aim(&a->solver, weight, gram));
	TRY(choose_by_admm(a, linear, weight, damping));
	return least_squares_solve(&a->solver, &fit, weight, gram);
}

static enum status prune_product(struct admm *a, int product, double *ret_damping)
{
	bool blind;
	TRY(prepare_product(a, product, ret_damping, &blind));
	for (int i = 0; i < layout_of(a)->n_linears; i++)
		if (layout_of(a)->linears[i].product == product) TRY(prune_linear(a, i, *ret_damping, blind));
	return STATUS_OK;
}

/* ---- a block ----------------------------------------------------------------------------------------------------------------- */

static enum status failed(const struct admm *a, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = backend_of(a)->error;
	return status;
}

/* The linears of one fused matrix; the block goes on with what they became. */
static enum status prune_fused(struct admm *a, const struct block_task *task, enum fused fused, struct error *err)
{
	struct block *block = block_of(a);
	TRY(grams_collect(&a->grams, task, fused, err));
	for (int i = 0; i < block->layout.n_products; i++) {
		struct damping damping = {.asked = a->settings.damping};
		if (block->layout.products[i].fused != fused) continue;
		TRY(failed(a, prune_product(a, i, &damping.used), err));
		TRY(grams_warn(&block->layout, task, i, &damping, err));
	}
	return failed(a, block->backend->ops->convert(block->backend, block->active[fused], block->master[fused]), err);
}

static enum status prune(void *method, const struct block_task *task, struct block_outcome *outcome, struct error *err)
{
	struct admm *a = method;
	TRY(budgets_find(&a->budgets, task, outcome->rates, err));
	TRY(failed(a, block_load_masters(block_of(a)), err));
	for (int f = 0; f < block_of(a)->layout.n_fused; f++)
		TRY(prune_fused(a, task, f, err));
	return STATUS_OK;
}

static enum status begin(void *method)
{
	return budgets_begin(&((struct admm *)method)->budgets);
}

static enum status observe(void *method, int product, struct tensor x)
{
	return budgets_observe(&((struct admm *)method)->budgets, product, x);
}

/* Three partial passes, the Gram matrices, and some fifty products of the weights with those: about as much again. And what is
 * learned. */
static double work(const struct spec *spec)
{
	const struct admm_settings *settings = spec_settings(spec, &method_admm_settings);
	return 3 + budgets_work(spec, settings->rates);
}

/* Of what is learned. */
static int64_t batch(const struct spec *spec)
{
	return spec->besa.batch_size;
}

const struct method method_admm = {.work = work,
				   .batch = batch,
				   .create = create,
				   .destroy = destroy,
				   .begin = begin,
				   .observe = observe,
				   .prune = prune,
				   .changes_weights = true,
				   .masters = true};
