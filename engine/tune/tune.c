#include "engine/tune/tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/place.h"
#include "engine/output/format.h"
#include "engine/prune/end_loss.h"
#include "engine/prune/store.h"
#include "engine/stages/schedule.h"
#include "engine/tune/batch.h"
#include "engine/tune/latents.h"

enum {
	SAVE_SECONDS = 60, /* between two saves of the state, by default */
	SAVE_SHARE = 10,   /* and so many times what a save takes */
};

/* The most sequences whose loss is taken before the tune and behind it. */
enum { LOOKED_AT = 64 };

/* Between two tune.step events. */
static const double STEP_SECONDS = 0.5;

struct tune {
	const struct pruning *p;
	const struct sequences *calibration;
	struct backend *backend;
	struct state state;
	struct batch batch;
	struct schedule schedule;
	struct stream dense; /* the dense model's hidden states behind its last block */
	int32_t *ids;        /* of a batch */
	char path[4096];     /* of tune.bin */
	char latents[4096];  /* of latents.bin */
	int64_t saved;       /* the steps that it has */
	double last_save, save_seconds, told;
};

bool tune_wanted(const struct spec *spec)
{
	return spec->refit.method == REFIT_GLOBAL;
}

static int64_t batch_of(const struct spec *spec)
{
	return spec->refit.batch_size < spec->calibration.samples ? spec->refit.batch_size : spec->calibration.samples;
}

/* Forward passes of the head, in those of a block. */
static double head_blocks(const struct model_config *config)
{
	return (double)config->vocab * (double)config->hidden / (double)layout_params_per_token(config);
}

/* Of a calibration token in an epoch: forward, forward again, and two products for each back; of the head two, and one back. */
static double step_work(const struct model_config *config)
{
	return 4 * (double)config->layers + 3 * head_blocks(config);
}

/* Batches of them, from the first sequence on. */
static int64_t batches_looked_at(const struct spec *spec)
{
	int64_t batch = batch_of(spec), most = spec->calibration.samples < LOOKED_AT ? spec->calibration.samples : LOOKED_AT;
	return most > batch ? most / batch : 1;
}

/* Of taking their loss once. */
static double look_work(const struct spec *spec, const struct model_config *config)
{
	double tokens = (double)batches_looked_at(spec) * (double)batch_of(spec) * spec->calibration.sequence_length;
	return tokens * ((double)config->layers + 3 * head_blocks(config));
}

double tune_work(const struct spec *spec, const struct model_config *config)
{
	double tokens = (double)spec->calibration.samples * spec->calibration.sequence_length;
	if (!tune_wanted(spec)) return 0;
	return tokens * ((double)config->layers + spec->refit.global_epochs * step_work(config)) + 2 * look_work(spec, config);
}

int64_t tune_disk_bytes(const struct spec *spec, const struct model_config *config, int64_t params, int64_t before)
{
	int64_t weight = (int64_t)sizeof(float) * params * config->layers;
	if (!tune_wanted(spec)) return before;
	if (latents_wanted(spec)) before += weight;
	return before > 6 * weight ? before : 6 * weight; /* a state is three numbers a weight, and is replaced by another */
}

static enum status backend_failed(const struct tune *t, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = t->backend->error;
	return status;
}

static enum status check_stop(const struct tune *t, struct error *err)
{
	return atomic_load_explicit(t->p->job->stop, memory_order_relaxed)
		       ? error_set(err, STATUS_CANCELLED, "stopped while tuning")
		       : STATUS_OK;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static enum status create(struct tune *t, struct state_source source, struct error *err)
{
	const struct spec *spec = t->p->job->spec;
	int64_t samples = spec->calibration.samples, length = spec->calibration.sequence_length, batch = batch_of(spec);
	int64_t hidden = t->p->model->config.hidden;
	bool on_device = t->backend->unified || t->p->device_streams == 2;
	TRY(schedule_create(samples, batch, spec->refit.global_learning_rate, &t->schedule, err));
	/* The blocks have the seeds before. */
	schedule_begin(&t->schedule, samples, spec->refit.global_epochs,
		       (uint64_t)spec->calibration.seed + (uint64_t)t->p->model->config.layers);
	t->ids = malloc((size_t)(batch * length) * sizeof *t->ids);
	if (!t->ids) return error_set(err, STATUS_NO_MEMORY, "no memory for the tokens of a batch");
	TRY(state_create(spec, t->p->model, source, t->backend, t->p->compute_type, batch * length, length, &t->state, err));
	t->state.steps = t->schedule.steps;
	TRY(batch_create(&t->state, batch, length, spec->refit.norms, &t->batch, err));
	return (on_device ? stream_create : stream_create_on_host)(t->backend, samples, length, hidden, batch, &t->dense, err);
}

static void destroy(struct tune *t)
{
	stream_release(&t->dense);
	batch_release(&t->batch);
	state_release(&t->state);
	schedule_release(&t->schedule);
	free(t->ids);
}

/* ---- the dense model --------------------------------------------------------------------------------------------------------- */

static enum status embed(struct tune *t, const int32_t *ids, int64_t sequences, struct tensor to, struct error *err)
{
	int64_t length = t->dense.tokens;
	if (t->backend->dry) return STATUS_OK;
	return model_embed(t->p->model, t->backend, ids, sequences * length, length, to, err);
}

/* The stream from one block to the next, or, before the first, from the tokens. */
static enum status dense_pass(struct tune *t, int index, struct error *err)
{
	struct stream *stream = &t->dense;
	int64_t length = stream->tokens;
	for (int64_t i = 0; i < stream->sequences; i += t->batch.sequences) {
		int64_t left = stream->sequences - i, n = left < t->batch.sequences ? left : t->batch.sequences;
		struct tensor x, y = tensor_rows(t->batch.y, 0, n * length);
		TRY(check_stop(t, err));
		TRY(backend_failed(t, stream_batch(stream, i, n, index > 0, &x), err));
		if (index == 0) TRY(embed(t, t->calibration ? t->calibration->ids + i * length : NULL, n, x, err));
		TRY(backend_failed(t, block_forward(&t->state.block, &t->batch.activations, (int)n, x, y, NULL), err));
		TRY(backend_failed(t, stream_store(stream, i, n, y), err));
	}
	progress_add(t->p->progress, (double)(stream->sequences * length));
	return STATUS_OK;
}

static enum status run_dense(struct tune *t, struct error *err)
{
	for (int i = 0; i < t->p->model->config.layers; i++) {
		TRY(block_load(&t->state.block, t->p->model, i, err));
		TRY(backend_failed(t, block_activate_dense(&t->state.block), err));
		TRY(dense_pass(t, i, err));
	}
	return STATUS_OK;
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------- */

static enum status fill_batch(struct tune *t, const int64_t *chosen, struct error *err)
{
	int64_t length = t->dense.tokens, n = t->batch.sequences;
	for (int64_t i = 0; t->calibration && i < n; i++)
		memcpy(t->ids + i * length, t->calibration->ids + chosen[i] * length, (size_t)length * sizeof *t->ids);
	TRY(embed(t, t->ids, n, batch_input(&t->batch), err));
	return backend_failed(t, stream_gather(&t->dense, chosen, n, t->batch.wanted), err);
}

static enum status fetch_loss(struct tune *t, double *ret, struct error *err)
{
	return backend_failed(t, t->backend->ops->download(t->backend, ret, t->state.end.loss, sizeof *ret), err);
}

static enum status take_step(struct tune *t, double *ret_loss, struct error *err)
{
	TRY(fill_batch(t, schedule_choose(&t->schedule, t->state.step), err));
	TRY(backend_failed(t, batch_step(&t->batch, schedule_rate(&t->schedule, t->state.step)), err));
	return fetch_loss(t, ret_loss, err);
}

/* The mean loss, as the model is now, of the sequences that are looked at. */
static enum status look(struct tune *t, double *ret, struct error *err)
{
	const struct spec *spec = t->p->job->spec;
	int64_t n = t->batch.sequences, batches = batches_looked_at(spec);
	double sum = 0, loss;
	int64_t *chosen = malloc((size_t)n * sizeof *chosen);
	if (!chosen) return error_set(err, STATUS_NO_MEMORY, "no memory for a batch's sequences");
	enum status status = STATUS_OK;
	for (int64_t b = 0; status == STATUS_OK && b < batches; b++) {
		for (int64_t i = 0; i < n; i++)
			chosen[i] = b * n + i;
		status = check_stop(t, err);
		if (status == STATUS_OK) status = fill_batch(t, chosen, err);
		if (status == STATUS_OK) status = backend_failed(t, batch_loss(&t->batch), err);
		if (status == STATUS_OK) status = fetch_loss(t, &loss, err);
		if (status == STATUS_OK) sum += loss;
	}
	free(chosen);
	*ret = sum / (double)batches;
	progress_add(t->p->progress, look_work(spec, &t->p->model->config));
	return status;
}

static enum status report(struct tune *t, double loss, struct error *err)
{
	const struct pruning *p = t->p;
	double tokens = (double)p->job->spec->calibration.samples * p->job->spec->calibration.sequence_length;
	double now = monotonic_seconds(), epochs = p->job->spec->refit.global_epochs;
	bool due = t->state.step == 1 || t->state.step == t->state.steps || now - t->told >= STEP_SECONDS;
	progress_add(p->progress, epochs * tokens * step_work(&p->model->config) / (double)t->state.steps);
	if (!due) return STATUS_OK;
	t->told = now;
	struct event event = event_tune_step((int)t->state.step, (int)t->state.steps, loss, p->job->attempt);
	return event_tell(p->sink, &event, err);
}

/* ---- durability -------------------------------------------------------------------------------------------------------------- */

static enum status save(struct tune *t, struct error *err)
{
	double started = monotonic_seconds();
	if (t->saved == t->state.step) return STATUS_OK;
	TRY(state_save(&t->state, t->path, err));
	unlink(t->latents); /* not needed any more; what cannot be removed goes with the job's directory */
	t->saved = t->state.step;
	t->last_save = monotonic_seconds();
	t->save_seconds = t->last_save - started;
	return STATUS_OK;
}

static bool save_due(const struct tune *t)
{
	double every = t->p->job->save_every >= 0 ? t->p->job->save_every : SAVE_SECONDS,
	       passed = monotonic_seconds() - t->last_save;
	return every <= 0 || (passed >= every && passed >= SAVE_SHARE * t->save_seconds);
}

static enum status run_steps(struct tune *t, struct error *err)
{
	t->last_save = monotonic_seconds();
	if (t->state.step == 0) TRY(look(t, &t->state.before, err));
	while (t->state.step < t->state.steps) {
		double loss;
		TRY(check_stop(t, err));
		TRY(take_step(t, &loss, err));
		if (!isfinite(loss)) {
			t->state.step = t->state.steps; /* what would follow is lost */
			return STATUS_OK;
		}
		TRY(report(t, loss, err));
		if (t->state.step < t->state.steps && save_due(t)) TRY(save(t, err));
	}
	return look(t, &t->state.after, err);
}

/* Whatever stops the steps, those that are done are not lost. A step that failed half-way is none. */
static enum status run_and_save(struct tune *t, struct error *err)
{
	enum status status = run_steps(t, err);
	if (status != STATUS_OK && status != STATUS_CANCELLED) return status;
	struct error failure;
	enum status saved = save(t, &failure);
	if (status != STATUS_OK || saved == STATUS_OK) return status;
	*err = failure;
	return saved;
}

/* What the block's weights and vectors came to, to the output, and their zeros over those that are noted. */
static enum status store_block(struct tune *t, struct block_result *result, void *room, struct error *err)
{
	struct block *block = &t->state.block;
	const struct store store = {
		.model = t->p->model, .writer = t->p->writer, .backend = t->backend, .layout = &block->layout, .room = room};
	TRY(block_store_vectors(block, t->p->model, result->index, &result->vectors, err));
	TRY(backend_failed(t, vectors_keep(block, &t->state.blocks[result->index].vectors), err));
	if (format_packing(t->p->job->spec).bits) TRY(grids_take(&t->state.quantizer, &result->grids, err));
	TRY(backend_failed(t, t->backend->ops->sync(t->backend), err));
	TRY(store_weights(&store, result, block->weight, err));
	return block_result_recount(result, &block->layout, cJSON_GetArrayItem(t->p->savepoint->blocks, result->index), err);
}

static enum status write_block(struct tune *t, int index, void *room, struct error *err)
{
	struct block_result result;
	TRY(backend_failed(t, state_enter(&t->state, index), err));
	TRY(block_result_create(&t->state.block.layout, index, &result, err));
	enum status status = store_block(t, &result, room, err);
	block_result_release(&result);
	return status;
}

static enum status write_norm(struct tune *t, void *room, struct error *err)
{
	for (int i = 0; i < END_VECTORS; i++) {
		const struct tensor_info *info;
		struct tensor values = t->state.end.norm[i].values, rounded = t->state.block.rounding;
		if (!values.data) continue;
		TRY(model_norm_tensor(t->p->model, i == 1, &info, err));
		rounded = tensor_make(rounded.data, 1, values.cols, info->dtype);
		TRY(backend_failed(t, t->backend->ops->convert(t->backend, rounded, values), err));
		TRY(backend_failed(t, t->backend->ops->download(t->backend, room, rounded.data, tensor_bytes(&rounded)), err));
		TRY(backend_failed(t, t->backend->ops->convert(t->backend, values, rounded), err));
		TRY(writer_write(t->p->writer, info->name, 0, room, tensor_bytes(&rounded), err));
	}
	return STATUS_OK;
}

/* The outputs of the batch that begins with sequence `first`; behind the last one come others. */
static enum status run_batch(struct tune *t, int64_t *chosen, int64_t first, struct tensor *ret, struct error *err)
{
	for (int64_t i = 0; i < t->batch.sequences; i++)
		chosen[i] = first + i < t->dense.sequences ? first + i : 0;
	TRY(check_stop(t, err));
	TRY(fill_batch(t, chosen, err));
	return backend_failed(t, batch_output(&t->batch, ret), err);
}

/* What the self-check will compare the files with, of the first sequences of the calibration: as engine/prune/end_loss.h has it
 * of the walk. */
static enum status find_end_loss(struct tune *t, double *ret, struct error *err)
{
	int64_t batch = t->batch.sequences, length = t->dense.tokens, n = end_loss_sequences(t->p->job->spec);
	int64_t *chosen = malloc((size_t)batch * sizeof *chosen);
	double sum = 0, *room = malloc((size_t)length * sizeof *room);
	struct tensor out;
	enum status status = chosen && room ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for log-probabilities");
	for (int64_t i = 0; status == STATUS_OK && i < n; i++) {
		if (i % batch == 0) status = run_batch(t, chosen, i, &out, err);
		const int32_t *ids = t->calibration->ids + i * length;
		if (status == STATUS_OK)
			status = backend_failed(
				t, end_logprobs(&t->state.end, tensor_rows(out, i % batch * length, length - 1), ids + 1, room),
				err);
		for (int64_t k = 0; status == STATUS_OK && k < length - 1; k++)
			sum -= room[k];
	}
	free(chosen);
	free(room);
	*ret = n && isfinite(sum) ? sum / (double)(n * (length - 1)) : NAN;
	return status;
}

/* From the state to the output (3); what is rounded there is in the state too. */
static enum status write_output(struct tune *t, struct error *err)
{
	int64_t bytes = layout_room(&t->state.block.layout, DTYPE_F32), norm = t->p->model->config.hidden * (int64_t)sizeof(float);
	void *room = malloc((size_t)(norm > bytes ? norm : bytes));
	if (!room) return error_set(err, STATUS_NO_MEMORY, "no memory for the weights of a linear");
	enum status status = STATUS_OK;
	for (int i = 0; status == STATUS_OK && i < t->p->model->config.layers; i++)
		status = write_block(t, i, room, err);
	if (status == STATUS_OK) status = write_norm(t, room, err);
	if (status == STATUS_OK) status = writer_sync(t->p->writer, err);
	free(room);
	return status;
}

/* What was written is all that blocks have written before. */
static enum status note_written(struct tune *t, struct error *err)
{
	cJSON **written = &t->p->savepoint->written, *list = cJSON_CreateArray();
	enum status status = list ? writer_take_sums(t->p->writer, list, err)
				  : error_set(err, STATUS_NO_MEMORY, "no memory for the checksums of an output");
	if (status != STATUS_OK) {
		cJSON_Delete(list);
		return status;
	}
	cJSON_Delete(*written);
	*written = list;
	return STATUS_OK;
}

/* Whether the tuned model is the better one; if not, people are told. */
static enum status judge(struct tune *t, bool *ret_better, struct error *err)
{
	const struct state *state = &t->state;
	char message[400], after[40] = "is no number";
	*ret_better = state->after <= state->before;
	if (*ret_better) return STATUS_OK;
	if (isfinite(state->after)) snprintf(after, sizeof after, "rose to %.6f", state->after);
	snprintf(message, sizeof message,
		 "the global tune diverged: its loss, %.6f before the first step, %s, and the model stays as it was before; a "
		 "smaller "
		 "'refit.global_learning_rate' than %g may help",
		 state->before, after, t->p->job->spec->refit.global_learning_rate);
	struct event event = event_warning(message);
	return event_tell(t->p->sink, &event, err);
}

/* ---- a job's ----------------------------------------------------------------------------------------------------------------- */

/* Where the state is on disk, the output is not read: what it holds may be half written (3). */
static enum status start(struct tune *t, bool saved, struct error *err)
{
	struct model stored;
	if (saved) {
		TRY(create(t, (struct state_source){t->p->model, NULL}, err));
		TRY(state_load(&t->state, t->path, err));
		t->saved = t->state.step;
		return STATUS_OK;
	}
	TRY(model_open(writer_place(t->p->writer), NULL, &stored, err));
	enum status status = create(t, (struct state_source){&stored, latents_wanted(t->p->job->spec) ? t->latents : NULL}, err);
	model_close(&stored);
	return status;
}

static enum status run(struct tune *t, struct error *err)
{
	const struct pruning *p = t->p;
	bool begun;
	TRY(path_look(t->path, &begun, err));
	TRY(start(t, begun, err));
	double done = (double)t->state.step / (double)t->state.steps;
	double tokens = (double)p->job->spec->calibration.samples * p->job->spec->calibration.sequence_length;
	double looked = t->state.step > 0 ? look_work(p->job->spec, &p->model->config) : 0;
	progress_resume(p->progress, looked + done * p->job->spec->refit.global_epochs * tokens * step_work(&p->model->config));
	if (t->state.step < t->state.steps) {
		TRY(run_dense(t, err));
		TRY(run_and_save(t, err));
	}
	bool better;
	TRY(judge(t, &better, err));
	if (better) {
		TRY(write_output(t, err));
		TRY(note_written(t, err));
		TRY(find_end_loss(t, &p->savepoint->end_loss, err));
	}
	p->savepoint->tuned = true;
	return savepoint_save(p->savepoint, p->spec_json, err);
}

enum status tune_model(const struct pruning *p, const struct sequences *calibration, struct error *err)
{
	struct tune t = {.p = p, .calibration = calibration, .backend = p->backend};
	enum status status = STATUS_OK;
	if (snprintf(t.path, sizeof t.path, "%s/tune.bin", p->savepoint->directory) >= (int)sizeof t.path)
		return error_set(err, STATUS_INVALID, "path too long: %s", p->savepoint->directory);
	TRY(latents_path(p->savepoint, t.latents, err));
	if (!p->savepoint->tuned) {
		progress_phase(p->progress, "tuning");
		status = run(&t, err);
		destroy(&t);
	}
	if (status == STATUS_OK) unlink(t.latents);
	if (status == STATUS_OK) unlink(t.path); /* (4); what cannot be removed goes with the job's directory */
	return status;
}

enum status tune_rehearse(const struct pruning *p, struct error *err)
{
	struct tune t = {.p = p, .backend = p->backend};
	double loss;
	enum status status = create(&t, (struct state_source){p->model, NULL}, err);
	if (status == STATUS_OK) {
		t.dense.sequences = t.batch.sequences;
		status = run_dense(&t, err);
	}
	if (status == STATUS_OK) status = take_step(&t, &loss, err);
	destroy(&t);
	return status;
}
