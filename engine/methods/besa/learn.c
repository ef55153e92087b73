#include "engine/methods/besa/learn.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/job/progress.h"

/* ---- the start: θ₀ ----------------------------------------------------------------------------------------------------------- */

/* s of β = softmax(τ·p). */
static double softmax_rate(double tau, int candidates)
{
	double sum = 0, weighted = 0;
	for (int d = 0; d < candidates; d++) {
		double p = (double)(candidates - 1 - d) / (candidates - 1), e = exp(tau * (p - (tau > 0 ? 1 : 0)));
		sum += e;
		weighted += e * p;
	}
	return weighted / sum;
}

/* Under the sigmoid the candidates stand evenly about the target: θ₀ = 0, which makes all alike, gives the target, and the
 * gradient has the shape that it has at 50 % (besa.md 2). */
static void place_candidates(double target, struct rates *rates)
{
	rates->below = rates->above = 0;
	if (rates->parameterization != PARAM_SIGMOID) return;
	int twice = (int)llround(2 * target * CANDIDATES_WHOLE);
	if (twice < 1) twice = 1; /* candidates must have some room */
	if (twice > CANDIDATES_WHOLE)
		rates->below = twice - CANDIDATES_WHOLE;
	else
		rates->above = CANDIDATES_WHOLE - twice;
}

/* θ₀ = 0 under the sigmoid; else τ·p_d such that the first rate is the target (besa.md section 2). */
static void fill_theta_start(double target, const struct rates *rates, float *theta)
{
	int candidates = rates->candidates;
	double low = -1e5, high = 1e5;
	if (rates->parameterization == PARAM_SIGMOID) {
		low = high = 0;
	} else {
		for (int i = 0; i < 200; i++) {
			double middle = (low + high) / 2;
			if (softmax_rate(middle, candidates) < target)
				low = middle;
			else
				high = middle;
		}
	}
	for (int64_t g = 0; g < rates->groups; g++)
		for (int d = 0; d < candidates; d++)
			theta[g * candidates + d] = (float)(low * (candidates - 1 - d) / (candidates - 1));
}

void besa_aim(struct besa *besa, double target)
{
	if (target == besa->target) return;
	besa->target = target;
	place_candidates(target, &besa->rates);
	fill_theta_start(target, &besa->rates, besa->theta_start);
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static enum status allocate(struct backend *backend, struct tensor *tensor, int64_t rows, int64_t cols, enum dtype type)
{
	*tensor = tensor_make(NULL, rows, cols, type);
	return backend->ops->alloc(backend, tensor_bytes(tensor), &tensor->data);
}

static enum status allocate_padded(struct backend *backend, struct tensor *tensor, int64_t rows, int64_t cols, enum dtype type)
{
	*tensor = tensor_padded(NULL, rows, cols, type);
	return backend->ops->alloc(backend, tensor_room(tensor), &tensor->data);
}

static enum status upload_new(struct backend *backend, void **device, const void *host, size_t bytes)
{
	TRY(backend->ops->alloc(backend, bytes, device));
	return backend->ops->upload(backend, *device, host, bytes);
}

/* The one that a group is in. */
static const struct part *part_at(const struct besa *besa, int64_t group)
{
	const struct part *part = besa->parts;
	while (group >= part->group + part->groups)
		part++;
	return part;
}

/* Per group: the columns of its linear and its share of the weights of its part. */
static enum status upload_groups(struct besa *besa)
{
	const struct block_layout *layout = &besa->block->layout;
	int64_t groups = besa->rates.groups;
	int32_t *cols = malloc((size_t)groups * sizeof *cols);
	double *share = malloc((size_t)groups * sizeof *share);
	enum status status = STATUS_NO_MEMORY;
	if (!cols || !share) {
		error_set(&besa->backend->error, status, "no memory for %" PRId64 " pruning rates", groups);
		goto out;
	}
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		for (int64_t g = besa->groups.first[i]; g < besa->groups.first[i + 1]; g++) {
			cols[g] = (int32_t)linear->cols;
			share[g] = (double)(groups_rows(&besa->groups, layout, i, g) * linear->cols) / part_at(besa, g)->params;
		}
	}
	status = upload_new(besa->backend, &besa->cols, cols, (size_t)groups * sizeof *cols);
	if (status == STATUS_OK) status = upload_new(besa->backend, &besa->share, share, (size_t)groups * sizeof *share);
	besa->rates.cols = besa->cols;
	besa->rates.share = besa->share;
out:
	free(cols);
	free(share);
	return status;
}

bool besa_records(const struct spec *spec, const struct model_config *config, const struct backend *backend, int64_t tokens,
		  int64_t params)
{
	const double large = 1e12; /* floating-point operations: some milliseconds of a large GPU */
	return backend->ops->record_begin && spec->besa.optimizer == OPTIMIZER_PRODIGY && !quantization_is_joint(spec) &&
	       !config->experts && spec->besa.reconstruct != RECONSTRUCT_TWO_BLOCKS &&
	       6.0 * (double)(spec->besa.batch_size * tokens) * (double)params < large;
}

static enum status allocate_all(struct besa *besa, int64_t tokens)
{
	struct backend *backend = besa->backend;
	const struct spec *spec = besa->spec;
	int64_t groups = besa->rates.groups;
	int candidates = besa->rates.candidates;
	for (int f = 0; f < besa->block->layout.n_fused; f++)
		TRY(allocate(backend, &besa->bin[f], besa->block->layout.fused_rows[f], besa->block->layout.fused_cols[f],
			     DTYPE_U8));
	struct tensor *learnables[] = {&besa->theta, &besa->theta0, &besa->beta, &besa->gradient, &besa->m, &besa->v, &besa->s};
	for (size_t i = 0; i < sizeof learnables / sizeof *learnables; i++)
		TRY(allocate(backend, learnables[i], groups, candidates, DTYPE_F32));
	TRY(allocate(backend, &besa->sums, groups, candidates - 1, DTYPE_F32));
	if (groups_are_some_rows(&besa->groups))
		TRY(allocate(backend, &besa->row_sums, besa->block->layout.rows, candidates - 1, DTYPE_F32));
	TRY(backend->ops->alloc(backend, (size_t)groups * sizeof(float), &besa->rate));
	TRY(backend->ops->alloc(backend, (size_t)groups * sizeof(int32_t), &besa->threshold));
	TRY(backend->ops->alloc(backend, STEP_STATS * sizeof(double), &besa->stats));
	TRY(backend->ops->alloc(backend, PRODIGY_STATE * sizeof(double), &besa->prodigy));
	int64_t rows = spec->besa.batch_size * tokens, hidden = besa->block->config->hidden, part_rows, part_cols;
	bool whole = besa_learns_whole(spec);
	parts_room(spec, besa->block, rows, &part_rows, &part_cols);
	TRY(allocate(backend, &besa->y, part_rows, part_cols, DTYPE_F32));
	if (!whole) TRY(allocate(backend, &besa->dense, part_rows, part_cols, DTYPE_F32));
	if (spec->besa.reconstruct == RECONSTRUCT_LAYER)
		TRY(allocate_padded(backend, &besa->dproduct, part_rows, part_cols, besa->block->compute_type));
	else
		TRY(allocate_padded(backend, &besa->dy, rows, hidden, DTYPE_F32));
	if (besa_records(spec, besa->block->config, backend, tokens, besa->block->layout.params)) {
		TRY(allocate(backend, &besa->x, rows, hidden, DTYPE_F32));
		if (whole) TRY(allocate(backend, &besa->wanted, rows, hidden, DTYPE_F32));
	}
	if (besa_watches(spec)) {
		TRY(allocate(backend, &besa->mark, groups, candidates, DTYPE_F32));
		TRY(allocate(backend, &besa->kept, groups, candidates, DTYPE_F32));
		TRY(backend->ops->alloc(backend, WATCH_STEPS * STEP_STATS * sizeof(double), &besa->window));
	}
	return upload_groups(besa);
}

enum status besa_create(const struct spec *spec, struct block *block, const struct mask *mask, struct quantizer *quantizer,
			int64_t tokens, struct besa *ret, struct error *err)
{
	struct besa besa = {
		.spec = spec, .block = block, .mask = mask, .quantizer = quantizer, .backend = block->backend, .target = -1};
	TRY(groups_create(spec, &block->layout, &besa.groups, err));
	besa.rates = (struct rates){.parameterization = spec->besa.parameterization,
				    .candidates = spec->besa.candidates,
				    .groups = besa.groups.first[block->layout.n_linears]};
	besa.n_parts = parts_find(spec, &block->layout, &besa.groups, besa.parts);
	besa.theta_start = malloc((size_t)(besa.rates.groups * besa.rates.candidates) * sizeof(float));
	if (!besa.theta_start) {
		error_set(err, STATUS_NO_MEMORY, "no memory for %" PRId64 " pruning rates", besa.rates.groups);
		besa_release(&besa);
		return STATUS_NO_MEMORY;
	}
	besa_aim(&besa, spec->sparsity);
	enum status status = allocate_all(&besa, tokens);
	if (status != STATUS_OK) *err = besa.backend->error;
	if (status == STATUS_OK) status = activations_create(block, spec->besa.batch_size, tokens, true, &besa.activations, err);
	if (status != STATUS_OK) {
		besa_release(&besa);
		return status;
	}
	*ret = besa;
	ret->part = ret->parts;
	return STATUS_OK;
}

enum status besa_add_orders(struct besa *besa, struct error *err)
{
	struct backend *backend = besa->backend;
	const struct block_layout *layout = &besa->block->layout;
	enum status status = STATUS_OK;
	if (!backend->ops->move_mask || besa->quantizer || !besa_learns_whole(besa->spec) || groups_are_some_rows(&besa->groups))
		return STATUS_OK;
	for (int f = 0; status == STATUS_OK && f < layout->n_fused; f++)
		status = allocate(backend, &besa->order[f], layout->fused_rows[f], layout->fused_cols[f], DTYPE_U16);
	if (status == STATUS_OK) status = backend->ops->alloc(backend, (size_t)layout->rows * sizeof(int32_t), &besa->held);
	if (status != STATUS_OK) *err = backend->error;
	return status;
}

void besa_release(struct besa *besa)
{
	if (!besa->backend) return;
	void (*release)(struct backend *, void *) = besa->backend->ops->release;
	struct tensor *tensors[] = {&besa->theta, &besa->theta0, &besa->beta,     &besa->gradient, &besa->m,       &besa->v,
				    &besa->s,     &besa->sums,   &besa->y,        &besa->dy,       &besa->x,       &besa->wanted,
				    &besa->mark,  &besa->kept,   &besa->row_sums, &besa->dense,    &besa->dproduct};
	void *arrays[] = {besa->rate, besa->threshold, besa->stats,  besa->prodigy,
			  besa->cols, besa->share,     besa->window, besa->held};
	for (int f = 0; f < FUSED_COUNT; f++) {
		release(besa->backend, besa->bin[f].data);
		release(besa->backend, besa->order[f].data);
	}
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
		release(besa->backend, tensors[i]->data);
	for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
		release(besa->backend, arrays[i]);
	activations_release(&besa->activations, besa->backend);
	groups_release(&besa->groups);
	free(besa->theta_start);
	*besa = (struct besa){0};
}

/* With a target of 0 there is the quantizer alone to learn. */
static bool has_rates(const struct besa *besa)
{
	return besa->target > 0;
}

/* What masks are laid over. */
static const struct tensor *weights_of(const struct besa *besa)
{
	return besa->quantizer ? besa->block->master : besa->block->weight;
}

/* ---- one step ---------------------------------------------------------------------------------------------------------------- */

/* The optimizer begins where θ is. A recording has the step size in it. */
static enum status start_optimizer(struct besa *besa)
{
	struct backend *backend = besa->backend;
	const double prodigy[PRODIGY_STATE] = {[PRODIGY_D] = 1e-6, [PRODIGY_D_MAX] = 1e-6, [PRODIGY_D0] = 1e-6};
	size_t bytes = tensor_bytes(&besa->theta);
	if (besa->step) backend->ops->release_recording(backend, besa->step);
	besa->step = NULL;
	besa->unrecorded = true;
	besa->taken = 0;
	TRY(backend->ops->copy(backend, besa->theta0.data, besa->theta.data, bytes));
	TRY(backend->ops->zero(backend, besa->m.data, bytes));
	TRY(backend->ops->zero(backend, besa->v.data, bytes));
	TRY(backend->ops->zero(backend, besa->s.data, bytes));
	return backend->ops->upload(backend, besa->prodigy, prodigy, sizeof prodigy);
}

/* Nothing is known yet of what block.active holds. */
static enum status begin_moves(struct besa *besa)
{
	struct backend *backend = besa->backend;
	if (!besa->held) return STATUS_OK;
	for (int f = 0; f < besa->block->layout.n_fused; f++)
		TRY(backend->ops->order_ranks(backend, besa->order[f], besa->mask->rank[f]));
	besa->moves = true;
	return backend->ops->zero(backend, besa->held, (size_t)besa->block->layout.rows * sizeof(int32_t));
}

static enum status reset(struct besa *besa)
{
	struct backend *backend = besa->backend;
	size_t bytes = tensor_bytes(&besa->theta);
	TRY(begin_moves(besa));
	for (int f = 0; f < besa->block->layout.n_fused; f++)
		TRY(backend->ops->bin_ranks(backend, besa->bin[f], besa->mask->rank[f], besa->rates.candidates, besa->rates.below,
					    besa->rates.above));
	TRY(backend->ops->zero(backend, besa->stats, STEP_STATS * sizeof(double)));
	besa->part = besa->parts;
	besa->d_coef = besa->spec->besa.d_coef;
	besa->learning_rate = besa->spec->besa.learning_rate;
	TRY(backend->ops->upload(backend, besa->theta.data, besa->theta_start, bytes));
	if (besa->kept.data) {
		TRY(backend->ops->copy(backend, besa->mark.data, besa->theta.data, bytes));
		TRY(backend->ops->copy(backend, besa->kept.data, besa->theta.data, bytes));
	}
	return start_optimizer(besa);
}

/* The rates of the part that learns, and that of [G, …] which is theirs. */
static struct rates rates_of_part(const struct besa *besa)
{
	struct rates rates = besa->rates;
	rates.groups = besa->part->groups;
	rates.cols = (const int32_t *)besa->cols + besa->part->group;
	rates.share = (const double *)besa->share + besa->part->group;
	return rates;
}

static struct tensor of_part(const struct besa *besa, struct tensor of_groups)
{
	return tensor_rows(of_groups, besa->part->group, besa->part->groups);
}

enum status besa_find_rates(struct besa *besa)
{
	struct rates rates = rates_of_part(besa);
	int64_t group = besa->part->group;
	return besa->backend->ops->rates_forward(besa->backend, &rates, of_part(besa, besa->beta), (float *)besa->rate + group,
						 (int32_t *)besa->threshold + group, besa->stats, of_part(besa, besa->theta),
						 besa->target, besa->spec->besa.lambda * besa->part->losses);
}

/* Masks rows of a fused matrix, of the block from row `row` on. */
static enum status mask_rows(struct besa *besa, enum fused f, int64_t first, int64_t rows, int64_t row, const int32_t *limit,
			     bool shared)
{
	struct backend *backend = besa->backend;
	struct tensor active = tensor_rows(besa->block->active[f], first, rows),
		      weight = tensor_rows(weights_of(besa)[f], first, rows), rank = tensor_rows(besa->mask->rank[f], first, rows);
	if (groups_are_some_rows(&besa->groups)) return groups_mask(&besa->groups, backend, active, weight, rank, limit);
	if (!besa->moves) return backend->ops->mask_weights(backend, active, weight, rank, limit, shared);
	return backend->ops->move_mask(backend, active, weight, rank, tensor_rows(besa->order[f], first, rows),
				       (int32_t *)besa->held + row, limit, shared);
}

/* Masks the linears of one product, or, where `product` is −1, of the part. */
static enum status mask_linears(struct besa *besa, int product)
{
	const struct block_layout *layout = &besa->block->layout;
	const int32_t *threshold = besa->threshold;
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		enum fused f = linear->fused;
		if (product < 0 ? f < besa->part->first || f > besa->part->last : linear->product != product) continue;
		TRY(mask_rows(besa, f, linear->first, linear->rows, linear->row, threshold + besa->groups.first[i], true));
	}
	return STATUS_OK;
}

enum status besa_mask_product(struct besa *besa, int index)
{
	const struct block *block = besa->block;
	if (besa->groups.per > 1) return mask_linears(besa, index);
	return besa->backend->ops->mask_weights(besa->backend, block_product(block, block->active, index),
						block_product(block, weights_of(besa), index),
						block_product(block, besa->mask->rank, index),
						(int32_t *)besa->threshold + block->layout.products[index].row, false);
}

enum status besa_update_masks(struct besa *besa)
{
	struct block *block = besa->block;
	if (besa->quantizer) TRY(quantizer_apply(besa->quantizer, block->weight, block->master));
	if (!has_rates(besa)) return block_activate(block, block->master);
	TRY(besa_find_rates(besa));
	if (besa->groups.per > 1) return mask_linears(besa, -1);
	for (int f = (int)besa->part->first; f <= (int)besa->part->last; f++)
		TRY(mask_rows(besa, (enum fused)f, 0, block->active[f].rows, block->layout.fused_row[f],
			      (int32_t *)besa->threshold + block->layout.fused_row[f], false));
	return STATUS_OK;
}

/* Sums ∂L/∂(W ⊙ M) ⊙ W of a product into bins: sums [rows of the product, D−1]. */
static enum status bin_rows(struct besa *besa, struct tensor sums, int index, const struct product_gradient *gradient)
{
	return besa->backend->ops->binned_gradient(besa->backend, sums, gradient->dy, gradient->x,
						   block_product(besa->block, weights_of(besa), index),
						   block_product(besa->block, besa->bin, index), false);
}

enum status besa_bin_gradient(void *context, int index, const struct product_gradient *gradient)
{
	struct besa *besa = context;
	struct backend *backend = besa->backend;
	const struct block_layout *layout = &besa->block->layout;
	const struct product *product = &layout->products[index];
	enum fused f = product->fused;
	bool some_rows = groups_are_some_rows(&besa->groups);
	if (besa->groups.per == 1) return bin_rows(besa, tensor_rows(besa->sums, product->row, product->rows), index, gradient);
	if (some_rows) TRY(bin_rows(besa, tensor_rows(besa->row_sums, product->row, product->rows), index, gradient));
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		int64_t group = besa->groups.first[i], groups = besa->groups.first[i + 1] - group;
		struct tensor sums = tensor_rows(besa->sums, group, groups);
		if (linear->product != index) continue;
		if (some_rows) {
			TRY(groups_sum(&besa->groups, backend, sums, tensor_rows(besa->row_sums, linear->row, linear->rows)));
			continue;
		}
		TRY(backend->ops->binned_gradient(backend, sums,
						  tensor_cols(gradient->dy, linear->first - product->first, linear->rows),
						  gradient->x, tensor_rows(weights_of(besa)[f], linear->first, linear->rows),
						  tensor_rows(besa->bin[f], linear->first, linear->rows), true));
	}
	return STATUS_OK;
}

/* Zeros in the gradient by some rows of a linear, from its row `first` on, where the weights are masked. */
static enum status mask_gradient(void *context, int index, int64_t first, struct tensor g)
{
	struct besa *besa = context;
	const struct linear *linear = &besa->block->layout.linears[index];
	const int32_t *limits = (int32_t *)besa->threshold + besa->groups.first[index];
	struct tensor rank = tensor_rows(besa->mask->rank[linear->fused], linear->first + first, g.rows);
	int64_t per = besa->groups.per, of_group = first % per, head = of_group ? per - of_group : 0;
	if (!has_rates(besa)) return STATUS_OK;
	if (head > g.rows) head = g.rows;
	if (head) { /* what is left of a group */
		struct tensor rows = tensor_rows(g, 0, head);
		TRY(besa->backend->ops->mask_weights(besa->backend, rows, rows, tensor_rows(rank, 0, head), limits + first / per,
						     true));
	}
	struct tensor rest = tensor_rows(g, head, g.rows - head);
	if (!rest.rows) return STATUS_OK;
	return groups_mask(&besa->groups, besa->backend, rest, rest, tensor_rows(rank, head, rest.rows),
			   limits + (first + head) / per);
}

/* Of a block that is reconstructed whole: what its rates and its quantizer need of a product's gradient. */
static enum status take_gradient(void *context, int index, const struct product_gradient *gradient)
{
	struct besa *besa = context;
	if (has_rates(besa)) TRY(besa_bin_gradient(besa, index, gradient));
	return besa->quantizer ? quantizer_gradient(besa->quantizer, index, gradient, mask_gradient, besa) : STATUS_OK;
}

/* Of a block that is reconstructed whole: its masks, its loss, and the gradient in the bins. */
static enum status block_gradient(struct besa *besa, struct tensor input, struct tensor wanted, int64_t count)
{
	struct backend *backend = besa->backend;
	struct tensor y = tensor_rows(besa->y, 0, input.rows), dy = tensor_rows(besa->dy, 0, input.rows);
	TRY(besa_update_masks(besa));
	TRY(block_forward(besa->block, &besa->activations, (int)count, input, y, NULL));
	TRY(backend->ops->reconstruction(backend, besa->stats, dy, y, wanted, false));
	return block_backward(besa->block, &besa->activations, (int)count, dy, take_gradient, besa, NULL);
}

/* The same of a block and the next one: the loss is that of what the second gives. */
static enum status pair_gradient(struct besa *besa, struct tensor input, struct tensor wanted, int64_t count)
{
	struct besa *second = besa->second;
	struct tensor between = tensor_rows(besa->y, 0, input.rows), y = tensor_rows(second->y, 0, input.rows),
		      dy = tensor_rows(besa->dy, 0, input.rows);
	const struct vector_gradients through = {.x = between, .input = true};
	TRY(besa_update_masks(besa));
	if (has_rates(second)) TRY(besa_update_masks(second));
	TRY(block_forward(besa->block, &besa->activations, (int)count, input, between, NULL));
	TRY(block_forward(second->block, &second->activations, (int)count, between, y, NULL));
	TRY(besa->backend->ops->reconstruction(besa->backend, besa->stats, dy, y, wanted, false));
	TRY(block_backward(second->block, &second->activations, (int)count, dy, take_gradient, second, &through));
	return block_backward(besa->block, &besa->activations, (int)count, dy, take_gradient, besa, NULL);
}

/* From the sums in the bins to the gradient by θ. */
static enum status theta_gradient(struct besa *besa)
{
	const struct rates rates = rates_of_part(besa);
	if (!has_rates(besa)) return STATUS_OK;
	return besa->backend->ops->rates_backward(besa->backend, &rates, of_part(besa, besa->gradient), of_part(besa, besa->theta),
						  of_part(besa, besa->beta), of_part(besa, besa->sums), besa->stats);
}

/* The gradient for the sequences whose inputs and, where the whole block is reconstructed, reference outputs are given, in the
 * streams' layout. */
static enum status gradient_of(struct besa *besa, struct tensor input, struct tensor wanted, int64_t count)
{
	TRY(besa->second                    ? pair_gradient(besa, input, wanted, count)
	    : besa_learns_whole(besa->spec) ? block_gradient(besa, input, wanted, count)
					    : parts_gradient(besa, input, count));
	if (besa->second) TRY(theta_gradient(besa->second));
	return theta_gradient(besa);
}

enum status besa_gradient(struct besa *besa, struct stream *x, struct stream *reference, int64_t first, int64_t count)
{
	struct tensor input, wanted = {0};
	TRY(stream_batch(x, first, count, true, &input));
	if (besa_learns_whole(besa->spec)) TRY(stream_batch(reference, first, count, true, &wanted));
	return gradient_of(besa, input, wanted, count);
}

static enum status optimize_alone(struct besa *besa)
{
	struct backend *backend = besa->backend;
	struct tensor theta = of_part(besa, besa->theta), m = of_part(besa, besa->m), v = of_part(besa, besa->v),
		      gradient = of_part(besa, besa->gradient);
	if (besa->quantizer) TRY(quantizer_step(besa->quantizer));
	if (!has_rates(besa)) return STATUS_OK;
	if (besa->spec->besa.optimizer == OPTIMIZER_PRODIGY) {
		const struct prodigy prodigy = {.beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .d_coef = besa->d_coef};
		return backend->ops->prodigy_step(backend, &prodigy, theta.rows * theta.cols, theta.data,
						  of_part(besa, besa->theta0).data, m.data, v.data, of_part(besa, besa->s).data,
						  gradient.data, besa->prodigy);
	}
	const struct adamw adamw = {
		.lr = (float)besa->learning_rate, .beta1 = 0.9f, .beta2 = 0.999f, .eps = 1e-8f, .step = besa->taken};
	return backend->ops->adamw_step(backend, &adamw, theta, m, v, gradient, (struct tensor){0});
}

static enum status optimize(struct besa *besa)
{
	if (besa->second) {
		besa->second->taken = besa->taken;
		TRY(optimize_alone(besa->second));
	}
	return optimize_alone(besa);
}

/* Brings sequences of a stream to where a recorded step finds them. */
static enum status bring(struct stream *stream, int64_t first, int64_t count, struct tensor to)
{
	struct tensor from;
	TRY(stream_batch(stream, first, count, true, &from));
	return stream->backend->ops->copy(stream->backend, to.data, from.data, tensor_bytes(&from));
}

static enum status compute(struct besa *besa, int64_t count)
{
	int64_t rows = count * besa->activations.tokens;
	struct tensor wanted = besa->wanted.data ? tensor_rows(besa->wanted, 0, rows) : besa->wanted;
	TRY(gradient_of(besa, tensor_rows(besa->x, 0, rows), wanted, count));
	return optimize(besa);
}

/* Records a step of a whole batch. Without a recording, where the device makes none, steps go on as they are. */
static enum status record(struct besa *besa)
{
	struct backend *backend = besa->backend;
	enum status begin = backend->ops->record_begin(backend);
	besa->unrecorded = false;
	if (begin != STATUS_OK) return begin == STATUS_UNSUPPORTED ? STATUS_OK : begin;
	enum status status = compute(besa, besa->spec->besa.batch_size), end = backend->ops->record_end(backend, &besa->step);
	if (end == STATUS_OK && status != STATUS_OK) {
		backend->ops->release_recording(backend, besa->step);
		besa->step = NULL;
	}
	return end == STATUS_UNSUPPORTED || status == STATUS_UNSUPPORTED ? STATUS_OK : end != STATUS_OK ? end : status;
}

/* Gradient and optimizer for `count` sequences from `first` on. The first step of a block asks for all shapes, the second can be
 * recorded. */
static enum status take_step(struct besa *besa, struct stream *x, struct stream *reference, int64_t first, int64_t count)
{
	struct backend *backend = besa->backend;
	bool whole = count == besa->spec->besa.batch_size;
	besa->taken++;
	if (!besa->x.data) {
		TRY(besa_gradient(besa, x, reference, first, count));
		return optimize(besa);
	}
	TRY(bring(x, first, count, besa->x));
	if (besa->wanted.data) TRY(bring(reference, first, count, besa->wanted));
	if (besa->unrecorded && besa->taken > 1 && whole) TRY(record(besa));
	return besa->step && whole ? backend->ops->replay(backend, besa->step) : compute(besa, count);
}

static double penalty_of(const struct besa *besa, const double stats[STEP_STATS])
{
	if (!has_rates(besa)) return 0;
	double miss = (stats[STEP_SPARSITY] - besa->target) / besa->target;
	return besa->spec->besa.lambda * miss * miss;
}

static double loss_of(const struct besa *besa, const double stats[STEP_STATS])
{
	return stats[STEP_RECONSTRUCTION] / besa->part->losses + penalty_of(besa, stats);
}

/* Reads back what the step just issued came to; waits for the device. */
static enum status read_step(struct besa *besa, bool watched, struct method_step *step)
{
	double stats[STEP_STATS];
	TRY(besa->backend->ops->download(besa->backend, stats, besa->stats, sizeof stats));
	step->reconstruction = stats[STEP_RECONSTRUCTION] / besa->part->losses;
	step->sparsity = stats[STEP_SPARSITY];
	step->loss = loss_of(besa, stats);
	if (besa->second) {
		TRY(besa->backend->ops->download(besa->backend, stats, besa->second->stats, sizeof stats));
		step->loss += penalty_of(besa->second, stats);
	}
	if (!isfinite(step->loss) && !watched)
		return error_set(&besa->backend->error, STATUS_NUMERIC, "the loss of step %d of %d is not finite", step->step,
				 step->steps);
	return STATUS_OK;
}

/* The learned rate of every row, on the host. */
static enum status read_rates(struct besa *besa, float *rates)
{
	const struct block_layout *layout = &besa->block->layout;
	struct backend *backend = besa->backend;
	for (int64_t r = 0; r < layout->rows; r++)
		rates[r] = 0;
	if (!has_rates(besa)) return STATUS_OK;
	TRY(backend->ops->rates_forward(backend, &besa->rates, besa->beta, besa->rate, besa->threshold, besa->stats, besa->theta,
					besa->target, besa->spec->besa.lambda));
	TRY(backend->ops->download(backend, rates, besa->rate, (size_t)besa->rates.groups * sizeof *rates));
	groups_spread(&besa->groups, layout, rates);
	return STATUS_OK;
}

/* ---- watching it ------------------------------------------------------------------------------------------------------------- */

/* Steps are undone back to where the best window began, and those to come are smaller. */
static enum status go_back(struct besa *besa, struct besa_watch *w, int step)
{
	const double smaller = 1 / 5.0;
	struct backend *backend = besa->backend;
	if (!w->divergences++) {
		w->first = step;
		w->loss = w->watch.loss;
		w->began = w->watch.began;
		w->best = w->watch.began * w->watch.best;
	}
	w->at = step;
	w->back = w->kept;
	besa->d_coef *= smaller;
	besa->learning_rate *= smaller;
	TRY(backend->ops->copy(backend, besa->theta.data, besa->kept.data, tensor_bytes(&besa->theta)));
	return start_optimizer(besa);
}

/* Behind the last step of a window: goes on from there, or goes back; behind the last step of all there is nothing to go back
 * for. */
static enum status judge(struct besa *besa, struct besa_watch *w, int step, bool last)
{
	enum loss_watch_verdict verdict = loss_watch_judge(&w->watch);
	struct tensor better = besa->mark;
	if (verdict == WATCH_DIVERGES && !last) TRY(go_back(besa, w, step));
	if (verdict == WATCH_IS_BEST) {
		besa->mark = besa->kept;
		besa->kept = better;
		w->kept = w->mark;
	}
	w->mark = step;
	return besa->backend->ops->copy(besa->backend, besa->mark.data, besa->theta.data, tensor_bytes(&besa->theta));
}

/* Notes what the step just issued came to, without waiting for it, and, at the end of a window, looks at its steps, of `batch`
 * sequences each, but for the last of an epoch. */
static enum status watch(struct besa *besa, struct besa_watch *w, const struct method_step *step, int64_t batch, int64_t sequences)
{
	struct backend *backend = besa->backend;
	double stats[WATCH_STEPS][STEP_STATS];
	int in_window = (step->step - 1) % WATCH_STEPS;
	int64_t per_epoch = (sequences + batch - 1) / batch;
	bool last = step->step == step->steps;
	TRY(backend->ops->copy(backend, (char *)besa->window + (size_t)in_window * sizeof *stats, besa->stats, sizeof *stats));
	if (in_window + 1 < WATCH_STEPS && !last) return STATUS_OK;
	TRY(backend->ops->download(backend, stats, besa->window, ((size_t)in_window + 1) * sizeof *stats));
	for (int i = 0; i <= in_window; i++) {
		int64_t first = (step->step - 1 - in_window + i) % per_epoch * batch, left = sequences - first;
		loss_watch_step(&w->watch, first, left < batch ? left : batch, loss_of(besa, stats[i]));
	}
	return judge(besa, w, step->step, last);
}

enum status besa_best_rates(struct besa *besa, float *rates)
{
	struct backend *backend = besa->backend;
	TRY(backend->ops->copy(backend, besa->theta.data, besa->kept.data, tensor_bytes(&besa->theta)));
	return read_rates(besa, rates);
}

/* ---- all of it --------------------------------------------------------------------------------------------------------------- */

/* What was learned of a part is what the later ones see. */
static enum status next_part(struct besa *besa)
{
	TRY(besa_update_masks(besa));
	besa->part++;
	return start_optimizer(besa);
}

/* All steps of a block, those of each part in turn. *ret_last is the last one. */
static enum status take_steps(struct besa *besa, const struct block_task *task, const atomic_bool *stop, struct besa_watch *w,
			      struct method_step *ret_last, struct error *err)
{
	struct stream *x = task->input, *reference = task->reference;
	const double report_seconds = 0.25;
	int64_t batch = besa->spec->besa.batch_size, per_epoch = (x->sequences + batch - 1) / batch;
	int per_part = (int)(per_epoch * besa->spec->besa.epochs);
	struct method_step step = {.steps = per_part * besa->n_parts, .share = task->share};
	double reported = 0;
	enum status status = reset(besa);
	if (status == STATUS_OK && besa->second) status = reset(besa->second);
	for (step.step = 1; status == STATUS_OK && step.step <= step.steps; step.step++) {
		if (atomic_load_explicit(stop, memory_order_relaxed))
			return error_set(err, STATUS_CANCELLED, "stopped while learning");
		int64_t first = (step.step - 1) % per_epoch * batch, left = x->sequences - first;
		if (step.step > 1 && (step.step - 1) % per_part == 0) status = next_part(besa);
		if (status == STATUS_OK) status = take_step(besa, x, reference, first, left < batch ? left : batch);
		bool last = step.step == step.steps,
		     due = step.step == 1 || last || monotonic_seconds() - reported >= report_seconds;
		if (status == STATUS_OK && due) status = read_step(besa, w != NULL, &step);
		if (status == STATUS_OK && w) status = watch(besa, w, &step, batch, x->sequences);
		if (status == STATUS_OK && due && isfinite(step.loss)) {
			TRY(task->step(task->context, &step, err));
			reported = monotonic_seconds();
		}
		if (last) *ret_last = step;
	}
	if (status != STATUS_OK) *err = besa->backend->error;
	return status;
}

enum status besa_learn(struct besa *besa, const struct block_task *task, const atomic_bool *stop, struct besa_watch *watch,
		       float *rates, struct method_step *ret_last, struct error *err)
{
	struct backend *backend = besa->backend;
	enum status status = take_steps(besa, task, stop, watch, ret_last, err);
	if (besa->step) backend->ops->release_recording(backend, besa->step); /* the next block's weights lie elsewhere */
	besa->step = NULL;
	besa->moves = false; /* others write to block.active now */
	if (besa->second) besa->second->moves = false;
	TRY(status);
	status = read_rates(besa, rates);
	if (status != STATUS_OK) *err = backend->error;
	return status;
}
