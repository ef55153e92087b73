#include "engine/prune/allocate.h"

#include <malloc.h>
#include <math.h>
#include <stdlib.h>

#include "engine/compute/half.h"
#include "engine/prune/allotment.h"
#include "engine/prune/exact.h"
#include "engine/prune/walk.h"

enum { POINTS = 2 }; /* of a block's loss over its sparsity */

/* What is measured of each block. */
struct measures {
	enum allocation_method method;
	double threshold;
	struct share_bounds bounds;
	double *outliers;   /* the part of its weights */
	double *at[POINTS]; /* its loss at the bounds */
	double *norms;      /* of the columns of a product's input: as many as the widest has */
};

static bool wanted(const struct spec *spec)
{
	return spec->allocation.method != ALLOCATION_UNIFORM;
}

double allocate_work(const struct spec *spec, int64_t layers)
{
	int passes = spec->allocation.method == ALLOCATION_LOSS ? 1 + POINTS : wanted(spec) ? 1 : 0;
	return (double)spec->calibration.samples * spec->calibration.sequence_length * passes * (double)layers;
}

double allocate_target(const struct spec *spec, const struct savepoint *savepoint, int index, int64_t params)
{
	const cJSON *zeros = cJSON_GetArrayItem(savepoint->allocation, index);
	return zeros ? cJSON_GetNumberValue(zeros) / (double)params : spec->sparsity;
}

/* ---- the walk that measures -------------------------------------------------------------------------------------------------- */

/* In place of a method: it looks at the dense blocks as Wanda does, and prunes nothing for good. */
struct look {
	struct mask mask;
	struct column_norms norms;
};

static void destroy_look(void *method)
{
	struct look *look = method;
	if (!look) return;
	mask_release(&look->mask);
	column_norms_release(&look->norms);
	free(look);
}

static enum status create_look(const struct method_setup *setup, void **ret, struct error *err)
{
	struct look *look = calloc(1, sizeof *look);
	if (!look) return error_set(err, STATUS_NO_MEMORY, "no memory for an allocation");
	enum status status = mask_create(setup->block, &look->mask, err);
	if (status == STATUS_OK) status = column_norms_create(setup->block, &look->norms, err);
	if (status == STATUS_OK)
		*ret = look;
	else
		destroy_look(look);
	return status;
}

static enum status begin_look(void *method)
{
	return column_norms_reset(&((struct look *)method)->norms);
}

static enum status observe_look(void *method, int product, struct tensor x)
{
	return column_norms_observe(&((struct look *)method)->norms, product, x);
}

static const struct method looker = {.create = create_look, .destroy = destroy_look, .begin = begin_look, .observe = observe_look};
static const struct probe_plan no_probe = {0};

static struct walk walk_of(const struct pruning *unprobed)
{
	return (struct walk){.p = unprobed, .spec = unprobed->job->spec, .backend = unprobed->backend, .method = &looker};
}

static struct pruning without_probe(const struct pruning *p)
{
	struct pruning unprobed = *p;
	unprobed.plan = &no_probe;
	return unprobed;
}

static void work_done(struct walk *w)
{
	progress_add(w->p->progress, (double)(w->input.sequences * w->input.tokens));
}

/* ---- outliers ---------------------------------------------------------------------------------------------------------------- */

/* Over a linear's weights: the sum of |w| · ‖x‖ where `ret_sum` is not NULL, and how many are above `level`. */
static enum status look_at_linear(struct walk *w, const struct linear *linear, const double *norms, double level, double *ret_sum,
				  int64_t *ret_above, struct error *err)
{
	enum dtype type = w->block.file_type;
	struct tensor rows = tensor_rows(w->block.weight[linear->fused], linear->first, linear->rows);
	const char *at = w->pipeline.room;
	double sum = 0;
	TRY(walk_check_stop(w, err));
	enum status status = w->backend->ops->download(w->backend, w->pipeline.room, rows.data, tensor_bytes(&rows));
	if (status != STATUS_OK) {
		*err = w->backend->error;
		return status;
	}
	for (int64_t r = 0; r < linear->rows && !w->backend->dry; r++, at += linear->cols * (int64_t)dtype_size(type)) {
		double of_row = 0;
		int64_t above = 0;
		for (int64_t c = 0; c < linear->cols; c++) {
			double importance = fabs((double)half_load(at, type, c)) * norms[c];
			of_row += importance;
			above += importance > level;
		}
		sum += of_row;
		*ret_above += above;
	}
	if (ret_sum) *ret_sum += sum;
	return STATUS_OK;
}

/* Over all weights of the block. An expert that no token reached has no importance that could stand out. */
static enum status look_at_block(struct walk *w, double *norms, double level, double *ret_sum, int64_t *ret_above,
				 struct error *err)
{
	const struct look *look = w->state;
	const struct block_layout *layout = &w->block.layout;
	int have = -1; /* the product whose norms these are */
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		if (linear->product != have) {
			enum status status = w->backend->ops->download(w->backend, norms, look->norms.sums[linear->product],
								       (size_t)linear->cols * sizeof *norms);
			if (status != STATUS_OK) {
				*err = w->backend->error;
				return status;
			}
			for (int64_t c = 0; c < linear->cols; c++)
				norms[c] = sqrt(norms[c]);
			have = linear->product;
		}
		TRY(look_at_linear(w, linear, norms, level, ret_sum, ret_above, err));
	}
	return STATUS_OK;
}

/* The part of the block's weights that are so many times as important as they are on average. */
static enum status find_outliers(struct walk *w, const struct measures *m, double *ret, struct error *err)
{
	double sum = 0, params = (double)w->block.layout.params;
	int64_t above = 0;
	TRY(look_at_block(w, m->norms, INFINITY, &sum, &above, err));
	if (!isfinite(sum)) return error_set(err, STATUS_NUMERIC, "the importance of its weights is not finite");
	TRY(look_at_block(w, m->norms, m->threshold * sum / params, NULL, &above, err));
	*ret = (double)above / params;
	return STATUS_OK;
}

/* ---- losses ------------------------------------------------------------------------------------------------------------------ */

/* The mean loss of the block's outputs, on the dense model's inputs, when Wanda takes this share of it. */
static enum status find_loss(struct walk *w, double share, double *ret, struct error *err)
{
	struct look *look = w->state;
	const struct block_layout *layout = &w->block.layout;
	double sum = 0;
	for (int64_t r = 0; r < layout->rows; r++)
		w->rates[r] = (float)share;
	TRY(exact_thresholds(layout, w->rates, llround(share * (double)layout->params), look->mask.host_thresholds, err));
	enum status status = mask_set(&look->mask, &w->block);
	if (status == STATUS_OK) status = mask_apply(&look->mask, &w->block, w->block.active);
	if (status != STATUS_OK) {
		*err = w->backend->error;
		return status;
	}
	TRY(walk_losses(w, w->input.sequences, NULL, w->host_losses, err));
	for (int64_t i = 0; i < w->input.sequences; i++)
		sum += w->host_losses[i];
	if (!isfinite(sum))
		return error_set(err, STATUS_NUMERIC, "its outputs are not finite with %.4g of its weights zero", share);
	*ret = sum / (double)w->input.sequences;
	work_done(w);
	return STATUS_OK;
}

static enum status find_losses(struct walk *w, struct measures *m, int index, struct error *err)
{
	struct look *look = w->state;
	const double shares[POINTS] = {m->bounds.low, m->bounds.high};
	enum status status =
		mask_rank(&look->mask, &w->block, IMPORTANCE_WANDA, &look->norms, w->input.sequences, (struct pattern){0});
	if (status != STATUS_OK) {
		*err = w->backend->error;
		return status;
	}
	for (int i = 0; i < POINTS; i++)
		TRY(find_loss(w, shares[i], &m->at[i][index], err));
	return STATUS_OK;
}

/* ---- the pass ---------------------------------------------------------------------------------------------------------------- */

static void release(struct measures *m)
{
	free(m->outliers);
	free(m->norms);
}

static enum status make_room(const struct walk *w, int64_t layers, struct measures *ret, struct error *err)
{
	const struct block_layout *layout = &w->block.layout;
	const struct allocation *allocation = &w->spec->allocation;
	size_t widest = (size_t)layout_most_columns(layout), blocks = (size_t)layers;
	struct measures m = {.method = allocation->method,
			     .threshold = allocation->threshold,
			     .bounds = share_bounds(w->spec->sparsity, allocation->deviation),
			     .outliers = calloc((1 + POINTS) * blocks, sizeof *m.outliers),
			     .norms = calloc(widest, sizeof *m.norms)};
	*ret = m;
	if (!m.outliers || !m.norms)
		return error_set(err, STATUS_NO_MEMORY, "no memory for what is measured of %zu blocks", blocks);
	for (int i = 0; i < POINTS; i++)
		ret->at[i] = m.outliers + (size_t)(1 + i) * blocks;
	return STATUS_OK;
}

/* Of the block that is loaded: what goes into it is in `input`, before and, of the next block, behind it. */
static enum status measure_loaded(struct walk *w, struct measures *m, int index, struct error *err)
{
	TRY(walk_reference(w, NULL, err));
	work_done(w);
	TRY(m->method == ALLOCATION_OUTLIER ? find_outliers(w, m, &m->outliers[index], err) : find_losses(w, m, index, err));
	struct stream outputs = w->reference;
	w->reference = w->input;
	w->input = outputs;
	return STATUS_OK;
}

static enum status measure_block(struct walk *w, struct measures *m, int index, struct error *err)
{
	w->p->progress->block = index;
	progress_phase(w->p->progress, "allocating");
	TRY(block_load(&w->block, w->p->model, index, err));
	pipeline_beside(&w->pipeline, index);
	TRY(measure_loaded(w, m, index, err));
	return pipeline_stop(&w->pipeline, err);
}

/* From what was measured to whole zeros, in the savepoint. */
static enum status settle(struct walk *w, const struct measures *m, int layers, struct error *err)
{
	const struct spec *spec = w->spec;
	const double *const at[POINTS] = {m->at[0], m->at[1]};
	double *shares = malloc((size_t)layers * sizeof *shares);
	int64_t *zeros = malloc((size_t)layers * sizeof *zeros);
	cJSON *kept = cJSON_CreateArray();
	enum status status = STATUS_OK;
	if (!shares || !zeros || !kept) {
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the shares of %d blocks", layers);
	} else {
		if (m->method == ALLOCATION_OUTLIER)
			shares_by_outliers(m->outliers, layers, spec->sparsity, spec->allocation.deviation, shares);
		else
			shares_by_losses(at, layers, spec->sparsity, m->bounds, shares);
		status = shares_to_zeros(shares, layers, spec->sparsity, w->block.layout.params, zeros, err);
	}
	for (int b = 0; status == STATUS_OK && b < layers; b++)
		if (!cJSON_AddItemToArray(kept, cJSON_CreateNumber((double)zeros[b])))
			status = error_set(err, STATUS_NO_MEMORY, "no memory for an allocation");
	free(shares);
	free(zeros);
	if (status != STATUS_OK)
		cJSON_Delete(kept);
	else
		w->p->savepoint->allocation = kept;
	return status;
}

static enum status measure_all(struct walk *w, struct measures *m, const struct sequences *calibration, struct error *err)
{
	int layers = (int)w->p->model->config.layers;
	TRY(make_room(w, layers, m, err));
	TRY(walk_embed(w, calibration, err));
	for (int index = 0; index < layers; index++) {
		enum status status = measure_block(w, m, index, err);
		if (status != STATUS_OK)
			return status == STATUS_CANCELLED ? status : error_prefix(err, "allocation, block %d of %d", index, layers);
	}
	return settle(w, m, layers, err);
}

/* One that is there must be one of this model, and add up. */
static enum status check(const struct pruning *p, struct error *err)
{
	const struct savepoint *savepoint = p->savepoint;
	int layers = (int)p->model->config.layers;
	struct block_layout layout;
	TRY(block_layout_create(&p->model->config, &layout, err));
	double params = (double)layout.params, sum = 0, all = (double)llround(p->job->spec->sparsity * params * layers);
	block_layout_release(&layout);
	bool good = cJSON_GetArraySize(savepoint->allocation) == layers;
	const cJSON *zeros;
	cJSON_ArrayForEach(zeros, savepoint->allocation)
	{
		double value = cJSON_GetNumberValue(zeros);
		good = good && value >= 0 && value <= params && value == floor(value);
		sum += value;
	}
	return good && sum == all
		       ? STATUS_OK
		       : error_set(err, STATUS_INVALID,
				   "%s/savepoint.json: its allocation is not one of %d blocks with %.0f zeros in all; submit "
				   "the job again",
				   savepoint->directory, layers, all);
}

enum status allocate_blocks(const struct pruning *p, const struct sequences *calibration, struct error *err)
{
	if (!wanted(p->job->spec)) return STATUS_OK;
	if (p->savepoint->allocation || savepoint_blocks(p->savepoint)) return check(p, err);
	const struct pruning unprobed = without_probe(p);
	struct walk w = walk_of(&unprobed);
	struct measures m = {0};
	enum status status = walk_create(&w, err);
	if (status == STATUS_OK) status = measure_all(&w, &m, calibration, err);
	walk_destroy(&w);
	release(&m);
	malloc_trim(0); /* as between a job's phases */
	TRY(status);
	return savepoint_save(p->savepoint, p->spec_json, err);
}

/* ---- the rehearsal ----------------------------------------------------------------------------------------------------------- */

static enum status rehearse(struct walk *w, struct measures *m, struct error *err)
{
	TRY(walk_create(w, err));
	TRY(make_room(w, 1, m, err));
	w->input.sequences = w->reference.sequences = walk_few_sequences(w);
	TRY(block_load(&w->block, w->p->model, 0, err));
	TRY(measure_loaded(w, m, 0, err));
	return w->p->model->config.layers > 1 ? block_load(&w->block, w->p->model, 1, err) : STATUS_OK;
}

enum status allocate_rehearse(const struct pruning *p, struct error *err)
{
	if (!wanted(p->job->spec)) return STATUS_OK;
	const struct pruning unprobed = without_probe(p);
	struct walk w = walk_of(&unprobed);
	struct measures m = {0};
	enum status status = rehearse(&w, &m, err);
	walk_destroy(&w);
	release(&m);
	return status;
}
