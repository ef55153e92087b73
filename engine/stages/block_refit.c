/* The refit of a block: Adam on the weights that are kept, the norms and the biases, until the block gives what it is to give.
 *
 * The loss is the mean over tokens t and channels h of (y − Y)² / mean_t Y_h², these means taken over the whole calibration, so
 * that each channel counts alike. The learning rate rises over the first twentieth of the steps and falls to 0 along a cosine.
 * What is zero stays zero.
 *
 * The products use the weights as they would be stored: what training does not see it cannot make up for. Where these are
 * rounded to the nearest on a grid when the stages are done, that follows their extremes from step to step, and the gradient
 * goes straight through the rounding. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/model/masters.h"
#include "engine/stages/schedule.h"
#include "engine/stages/stage.h"
#include "engine/stages/trainer.h"

/* Of what goes into a linear, all may move its output the same way: the wider it is, the less each weight is to move. */
static const double RATE_OF_WIDTH = 0.028;

static const double LEAST_CHANNEL = 1e-12;

struct refit {
	struct method_setup setup;
	struct backend *backend;
	struct quantizer *quantizer; /* that the weights go through; NULL where they do not */
	int64_t batch;               /* sequences of a step */
	int64_t per_epoch;           /* its steps, rounded up */
	struct activations activations;
	struct tensor m[FUSED_COUNT], v[FUSED_COUNT]; /* F32, as the masters */
	struct trainer trainer;
	struct vector_gradients by_vector;
	struct vectors vector_m, vector_v, kept; /* kept: as they were at the start */
	struct tensor x, wanted, y, dy;          /* F32 [batch · tokens, H] */
	struct tensor weight;                    /* F32 [1, H]: of each channel in the loss */
	void *squares;                           /* F64 [H] */
	void *losses; /* F64 [per_epoch + STEP_STATS]: of the last epoch's steps; at the end what is read at once */
	double *host; /* of the same size, or H */
	struct schedule schedule;
};

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static enum status allocate(struct backend *backend, struct tensor shape, struct tensor *ret)
{
	TRY(backend->ops->alloc(backend, tensor_room(&shape), &shape.data));
	*ret = shape;
	return STATUS_OK;
}

static enum status allocate_all(struct refit *r)
{
	struct backend *backend = r->backend;
	const struct block *block = r->setup.block;
	const struct block_layout *layout = &block->layout;
	int64_t hidden = block->config->hidden, rows = r->batch * r->setup.tokens;
	struct tensor *const batches[] = {&r->x, &r->wanted, &r->y};
	for (int f = 0; f < layout->n_fused; f++) {
		struct tensor shape = tensor_make(NULL, layout->fused_rows[f], layout->fused_cols[f], DTYPE_F32);
		TRY(allocate(backend, shape, &r->m[f]));
		TRY(allocate(backend, shape, &r->v[f]));
	}
	for (size_t i = 0; i < sizeof batches / sizeof *batches; i++)
		TRY(allocate(backend, tensor_make(NULL, rows, hidden, DTYPE_F32), batches[i]));
	r->by_vector.x = r->x;
	TRY(allocate(backend, tensor_padded(NULL, rows, hidden, DTYPE_F32), &r->dy));
	TRY(allocate(backend, tensor_make(NULL, 1, hidden, DTYPE_F32), &r->weight));
	TRY(backend->ops->alloc(backend, (size_t)hidden * sizeof(double), &r->squares));
	return backend->ops->alloc(backend, (size_t)(r->per_epoch + STEP_STATS) * sizeof(double), &r->losses);
}

static enum status allocate_vectors(struct refit *r, struct error *err)
{
	struct vectors *const vectors[] = {&r->by_vector.vectors, &r->vector_m, &r->vector_v, &r->kept};
	for (size_t i = 0; r->setup.spec->refit.norms && i < sizeof vectors / sizeof *vectors; i++)
		TRY(vectors_create(r->setup.block, vectors[i], err));
	return STATUS_OK;
}

static enum status allocate_host(struct refit *r, struct error *err)
{
	int64_t hidden = r->setup.block->config->hidden, numbers = r->per_epoch > hidden ? r->per_epoch : hidden;
	r->host = malloc((size_t)(numbers + STEP_STATS) * sizeof *r->host);
	if (!r->host) return error_set(err, STATUS_NO_MEMORY, "no memory for the losses of a refit");
	double asked = r->setup.spec->refit.learning_rate,
	       rate = asked > 0 ? asked : RATE_OF_WIDTH / sqrt((double)r->setup.block->config->hidden);
	return schedule_create(r->setup.sequences, r->batch, rate, &r->schedule, err);
}

static void destroy(void *stage)
{
	struct refit *r = stage;
	if (!r) return;
	struct backend *backend = r->backend;
	struct tensor *const tensors[] = {&r->x, &r->wanted, &r->y, &r->dy, &r->weight};
	struct vectors *const vectors[] = {&r->by_vector.vectors, &r->vector_m, &r->vector_v, &r->kept};
	for (int f = 0; f < FUSED_COUNT; f++) {
		backend->ops->release(backend, r->m[f].data);
		backend->ops->release(backend, r->v[f].data);
	}
	for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++)
		backend->ops->release(backend, tensors[i]->data);
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++)
		vectors_release(vectors[i], backend);
	backend->ops->release(backend, r->squares);
	backend->ops->release(backend, r->losses);
	trainer_release(&r->trainer);
	activations_release(&r->activations, backend);
	free(r->host);
	schedule_release(&r->schedule);
	free(r);
}

static int64_t batch_of(const struct spec *spec)
{
	return spec->refit.batch_size < spec->calibration.samples ? spec->refit.batch_size : spec->calibration.samples;
}

/* With feedback weights are rounded another way than one by one, when all else is done. */
static bool rounds_nearest(const struct spec *spec)
{
	return quantization_follows(spec) && spec->quantization.rounding == ROUND_TO_NEAREST;
}

static enum status create(const struct method_setup *setup, void **ret, struct error *err)
{
	struct refit *r = calloc(1, sizeof *r);
	if (!r) return error_set(err, STATUS_NO_MEMORY, "no memory for a refit");
	*r = (struct refit){.setup = *setup,
			    .backend = setup->block->backend,
			    .quantizer = rounds_nearest(setup->spec) ? setup->quantizer : NULL,
			    .batch = batch_of(setup->spec)};
	r->per_epoch = (setup->sequences + r->batch - 1) / r->batch;
	enum status status = allocate_all(r);
	if (status != STATUS_OK) *err = r->backend->error;
	if (status == STATUS_OK) status = trainer_create(setup->block, !r->quantizer, &r->trainer, err);
	if (status == STATUS_OK) status = allocate_vectors(r, err);
	if (status == STATUS_OK) status = allocate_host(r, err);
	if (status == STATUS_OK)
		status = activations_create(setup->block, (int)r->batch, setup->tokens, true, &r->activations, err);
	if (status == STATUS_OK)
		*ret = r;
	else
		destroy(r);
	return status;
}

/* ---- the loss ---------------------------------------------------------------------------------------------------------------- */

static enum status weigh_channels(struct refit *r, struct stream *reference)
{
	struct backend *backend = r->backend;
	int64_t hidden = reference->hidden;
	float *weight = (float *)r->host;
	double tokens = (double)(reference->sequences * reference->tokens);
	TRY(backend->ops->zero(backend, r->squares, (size_t)hidden * sizeof(double)));
	for (int64_t i = 0; i < reference->sequences; i += r->batch) {
		int64_t left = reference->sequences - i;
		struct tensor wanted;
		TRY(stream_batch(reference, i, left < r->batch ? left : r->batch, true, &wanted));
		TRY(backend->ops->column_norms(backend, r->squares, wanted));
	}
	TRY(backend->ops->download(backend, r->host, r->squares, (size_t)hidden * sizeof(double)));
	for (int64_t h = 0; h < hidden; h++)
		weight[h] = (float)(1 / fmax(r->host[h] / tokens, LEAST_CHANNEL));
	return backend->ops->upload(backend, r->weight.data, weight, tensor_bytes(&r->weight));
}

static enum status check_stop(struct refit *r)
{
	return atomic_load_explicit(r->setup.stop, memory_order_relaxed)
		       ? error_set(&r->backend->error, STATUS_CANCELLED, "stopped while refitting")
		       : STATUS_OK;
}

/* The loss over the whole calibration, with the weights that are active. */
static enum status whole_loss(struct refit *r, const struct block_task *task, double *ret)
{
	struct backend *backend = r->backend;
	struct stream *x = task->input;
	double factor = 1 / (double)(x->sequences * x->tokens * x->hidden);
	TRY(backend->ops->zero(backend, r->losses, STEP_STATS * sizeof(double)));
	for (int64_t i = 0; i < x->sequences; i += r->batch) {
		int64_t left = x->sequences - i, n = left < r->batch ? left : r->batch;
		struct tensor input, wanted, y = tensor_rows(r->y, 0, n * x->tokens), none = {0};
		TRY(check_stop(r));
		TRY(stream_batch(x, i, n, true, &input));
		TRY(stream_batch(task->reference, i, n, true, &wanted));
		TRY(block_forward(r->setup.block, &r->activations, (int)n, input, y, NULL));
		TRY(backend->ops->weighted_error(backend, r->losses, none, y, wanted, r->weight, factor, true));
	}
	return backend->ops->download(backend, ret, r->losses, sizeof *ret);
}

/* ---- a step ------------------------------------------------------------------------------------------------------------------ */

static enum status train_vectors(struct refit *r)
{
	for (int i = 0; i < VECTOR_COUNT; i++)
		TRY(trainer_vector(&r->trainer, block_vector_values(r->setup.block, (enum vector)i), r->vector_m.of[i],
				   r->vector_v.of[i], r->by_vector.vectors.of[i]));
	return STATUS_OK;
}

static enum status take_step(struct refit *r, const struct block_task *task, int64_t step)
{
	struct backend *backend = r->backend;
	const struct block *block = r->setup.block;
	double *loss = (double *)r->losses + step % r->per_epoch;
	struct training training = {&r->trainer, block->master, r->m, r->v};
	trainer_step(&r->trainer, schedule_rate(&r->schedule, step), step);
	const int64_t *chosen = schedule_choose(&r->schedule, step);
	TRY(stream_gather(task->input, chosen, r->batch, r->x));
	TRY(stream_gather(task->reference, chosen, r->batch, r->wanted));
	TRY(block_forward(block, &r->activations, (int)r->batch, r->x, r->y, NULL));
	TRY(backend->ops->weighted_error(backend, loss, r->dy, r->y, r->wanted, r->weight, 1 / (double)(r->y.rows * r->y.cols),
					 false));
	TRY(block_backward(block, &r->activations, (int)r->batch, r->dy, trainer_product, &training, &r->by_vector));
	if (r->quantizer) TRY(quantizer_apply(r->quantizer, block->master, block->active));
	return train_vectors(r);
}

/* ---- a block ----------------------------------------------------------------------------------------------------------------- */

static enum status zero_moments(struct refit *r)
{
	struct backend *backend = r->backend;
	for (int f = 0; f < r->setup.block->layout.n_fused; f++) {
		TRY(backend->ops->zero(backend, r->m[f].data, tensor_bytes(&r->m[f])));
		TRY(backend->ops->zero(backend, r->v[f].data, tensor_bytes(&r->v[f])));
	}
	if (!r->vector_m.memory) return STATUS_OK;
	TRY(backend->ops->zero(backend, r->vector_m.memory, r->vector_m.bytes));
	return backend->ops->zero(backend, r->vector_v.memory, r->vector_v.bytes);
}

/* Keeps the start, as it would be stored, in block->weight, which nobody reads before the stages have ended. */
static enum status begin(struct refit *r, const struct block_task *task, double *ret_loss)
{
	struct block *block = r->setup.block;
	TRY(zero_moments(r));
	TRY(block_store_masters(block));
	if (r->kept.memory) TRY(vectors_keep(block, &r->kept));
	TRY(weigh_channels(r, task->reference));
	TRY(r->quantizer ? quantizer_apply(r->quantizer, block->master, block->active) : block_activate_dense(block));
	return whole_loss(r, task, ret_loss);
}

static enum status go_back(struct refit *r)
{
	TRY(block_load_masters(r->setup.block));
	return r->kept.memory ? vectors_restore(r->setup.block, &r->kept) : STATUS_OK;
}

static enum status report(struct refit *r, const struct block_task *task, int64_t step, struct error *err)
{
	double loss;
	enum status status = r->backend->ops->download(r->backend, &loss, (double *)r->losses + step % r->per_epoch, sizeof loss);
	if (status != STATUS_OK) *err = r->backend->error;
	TRY(status);
	const struct method_step told = {.step = (int)step + 1,
					 .steps = (int)r->schedule.steps,
					 .loss = loss,
					 .reconstruction = loss,
					 .sparsity = task->target};
	return isfinite(loss) ? task->step(task->context, &told, err) : STATUS_OK;
}

static enum status take_steps(struct refit *r, const struct block_task *task, struct error *err)
{
	const double report_seconds = 0.25;
	double reported = 0;
	for (int64_t step = 0; step < r->schedule.steps; step++) {
		enum status status = check_stop(r);
		if (status == STATUS_OK) status = take_step(r, task, step);
		if (status != STATUS_OK) *err = r->backend->error;
		TRY(status);
		bool due = step == 0 || step + 1 == r->schedule.steps || monotonic_seconds() - reported >= report_seconds;
		if (!due) continue;
		TRY(report(r, task, step, err));
		reported = monotonic_seconds();
	}
	return STATUS_OK;
}

/* The loss that the block ends with. The mean over the last epoch's steps is not below it where it falls, and where it has
 * fallen well below `start` a pass that says by how much more is spared. */
static enum status end_loss(struct refit *r, const struct block_task *task, double start, double *ret)
{
	int64_t count = r->schedule.steps < r->per_epoch ? r->schedule.steps : r->per_epoch;
	double sum = 0;
	TRY(r->backend->ops->download(r->backend, r->host, r->losses, (size_t)count * sizeof *r->host));
	for (int64_t i = 0; i < count; i++)
		sum += r->host[i];
	*ret = sum / (double)count;
	return *ret < 0.9 * start ? STATUS_OK : whole_loss(r, task, ret);
}

static enum status refit(struct refit *r, const struct block_task *task, struct error *err)
{
	struct backend *backend = r->backend;
	double start, end;
	char message[200];
	enum status status = begin(r, task, &start);
	if (status == STATUS_OK) {
		TRY(take_steps(r, task, err));
		status = end_loss(r, task, start, &end);
	}
	if (status == STATUS_OK && !(end <= start)) {
		snprintf(message, sizeof message,
			 "the refit left it with a loss of %.4g, from %.4g: it stays as it was (a smaller refit.learning_rate may "
			 "help)",
			 end, start);
		TRY(task->warn(task->context, message, err));
		status = go_back(r);
	}
	if (status != STATUS_OK) *err = backend->error;
	return status;
}

static enum status run(void *stage, const struct block_task *task, struct error *err)
{
	struct refit *r = stage;
	const struct spec *spec = r->setup.spec;
	uint64_t seed = (uint64_t)spec->calibration.seed + (uint64_t)task->index;
	schedule_begin(&r->schedule, task->input->sequences, spec->refit.epochs, seed);
	return refit(r, task, err);
}

static bool wanted(const struct spec *spec)
{
	return spec->refit.method == REFIT_BLOCK || spec->refit.method == REFIT_GLOBAL;
}

/* The loss at the start is a forward pass. */
static double work(const struct spec *spec)
{
	return 1 + 3 * spec->refit.epochs;
}

const struct stage stage_block_refit = {.name = "refit",
					.wanted = wanted,
					.work = work,
					.batch = batch_of,
					.create = create,
					.destroy = destroy,
					.run = run,
					.changes_vectors = true};
