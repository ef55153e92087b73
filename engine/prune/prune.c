#include "engine/prune/prune.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/file.h"
#include "engine/output/format.h"
#include "engine/prune/allocate.h"
#include "engine/prune/end_loss.h"
#include "engine/prune/walk.h"
#include "engine/tune/latents.h"

/* Tokens that go through a block at once in the passes that learn nothing. */
enum { BATCH_TOKENS_CPU = 1024, BATCH_TOKENS_DEVICE = 8192 };

/* Between two block.step events of a block. */
static const double STEP_SECONDS = 0.5;

double prune_block_work(const struct spec *spec)
{
	const struct method *method = method_find(spec->method);
	double work = 2 + (method->work ? method->work(spec) : 0);
	const struct stage *stage;
	for (int i = 0; (stage = stage_of(spec, i)); i++)
		work += stage->work ? stage->work(spec) : 0;
	return work;
}

static enum status backend_failed(const struct walk *w, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = w->backend->error;
	return status;
}

enum status walk_check_stop(const struct walk *w, struct error *err)
{
	return atomic_load_explicit(w->p->job->stop, memory_order_relaxed)
		       ? error_set(err, STATUS_CANCELLED, "stopped while pruning")
		       : STATUS_OK;
}

/* Sequences of the next batch of a pass. */
static int64_t batch_at(const struct walk *w, int64_t first)
{
	int64_t left = w->input.sequences - first;
	return left < w->batch ? left : w->batch;
}

/* ---- passes ------------------------------------------------------------------------------------------------------------------ */

enum status walk_embed(struct walk *w, const struct sequences *calibration, struct error *err)
{
	for (int64_t i = 0; i < calibration->count; i += w->batch) {
		int64_t n = batch_at(w, i);
		struct tensor x;
		TRY(walk_check_stop(w, err));
		TRY(backend_failed(w, stream_batch(&w->input, i, n, false, &x), err));
		TRY(model_embed(w->p->model, w->backend, calibration->ids + i * calibration->length, n * calibration->length,
				calibration->length, x, err));
		TRY(backend_failed(w, stream_store(&w->input, i, n, x), err));
		if (!w->dense_stream) continue;
		TRY(backend_failed(w, stream_store(&w->reference, i, n, x), err));
	}
	return STATUS_OK;
}

/* to = block(from), batch by batch; from and to may be one stream. `observer` as in block_forward; `seen`, where it is not NULL,
 * grows by the tokens that each expert gets. */
static enum status pass(struct walk *w, struct stream *from, struct stream *to, const struct observer *observer, int64_t *seen,
			struct error *err)
{
	for (int64_t i = 0; i < from->sequences; i += w->batch) {
		int64_t n = batch_at(w, i);
		struct tensor x, y = tensor_rows(w->y, 0, n * from->tokens);
		TRY(walk_check_stop(w, err));
		TRY(backend_failed(w, stream_batch(from, i, n, true, &x), err));
		if (to && to != from) TRY(backend_failed(w, stream_batch(to, i, n, false, &y), err));
		TRY(backend_failed(w, block_forward(&w->block, &w->activations, (int)n, x, y, observer), err));
		for (int e = 0; seen && e < w->block.layout.experts; e++)
			seen[e] += w->activations.experts.tokens[e];
		if (to) TRY(backend_failed(w, stream_store(to, i, n, y), err));
	}
	return STATUS_OK;
}

enum status walk_reference(struct walk *w, int64_t *seen, struct error *err)
{
	const struct observer watching = {.observe = w->method->observe, .context = w->state},
			      *observer = w->method->observe ? &watching : NULL;
	if (w->method->begin) TRY(backend_failed(w, w->method->begin(w->state), err));
	TRY(backend_failed(w, block_activate_dense(&w->block), err));
	if (!w->dense_stream) return pass(w, &w->input, &w->reference, observer, seen, err);
	TRY(pass(w, &w->input, NULL, observer, seen, err));
	return pass(w, &w->reference, &w->reference, NULL, NULL, err);
}

enum status walk_losses(struct walk *w, int64_t sequences, struct stream *to, double *ret, struct error *err)
{
	const struct backend_ops *ops = w->backend->ops;
	int64_t tokens = w->input.tokens;
	for (int64_t i = 0; i < sequences; i += w->batch) {
		int64_t n = i + w->batch < sequences ? w->batch : sequences - i;
		struct tensor x, wanted, y = tensor_rows(w->y, 0, n * tokens), none = {0};
		TRY(walk_check_stop(w, err));
		TRY(backend_failed(w, stream_batch(&w->input, i, n, true, &x), err));
		TRY(backend_failed(w, block_forward(&w->block, &w->activations, (int)n, x, y, NULL), err));
		TRY(backend_failed(w, stream_batch(&w->reference, i, n, true, &wanted), err));
		for (int64_t s = 0; s < n; s++)
			TRY(backend_failed(w,
					   ops->reconstruction(w->backend, (double *)w->losses + i + s, none,
							       tensor_rows(y, s * tokens, tokens),
							       tensor_rows(wanted, s * tokens, tokens), false),
					   err));
		if (to) TRY(backend_failed(w, stream_store(to, i, n, y), err));
	}
	return backend_failed(w, ops->download(w->backend, ret, w->losses, (size_t)sequences * sizeof *ret), err);
}

enum status walk_losses_of_starts(struct walk *w, int64_t sequences, int64_t tokens, double *ret, struct error *err)
{
	const struct backend_ops *ops = w->backend->ops;
	struct activations few = activations_of_starts(&w->block, &w->activations, tokens);
	struct tensor y = tensor_rows(w->y, 0, tokens), none = {0};
	for (int64_t i = 0; i < sequences; i++) {
		struct tensor x, wanted;
		TRY(walk_check_stop(w, err));
		TRY(backend_failed(w, stream_batch(&w->input, i, 1, true, &x), err));
		TRY(backend_failed(w, block_forward(&w->block, &few, 1, tensor_rows(x, 0, tokens), y, NULL), err));
		TRY(backend_failed(w, stream_batch(&w->reference, i, 1, true, &wanted), err));
		TRY(backend_failed(
			w, ops->reconstruction(w->backend, (double *)w->losses + i, none, y, tensor_rows(wanted, 0, tokens), false),
			err));
	}
	return backend_failed(w, ops->download(w->backend, ret, w->losses, (size_t)sequences * sizeof *ret), err);
}

/* The pruned block's outputs become the next block's inputs; *ret is the mean reconstruction loss over the sequences. */
static enum status final_pass(struct walk *w, double *ret, struct error *err)
{
	double sum = 0;
	TRY(walk_losses(w, w->input.sequences, w->dense_stream ? &w->input : &w->reference, w->host_losses, err));
	for (int64_t i = 0; i < w->input.sequences; i++)
		sum += w->host_losses[i];
	if (!isfinite(sum)) return error_set(err, STATUS_NUMERIC, "the outputs of the pruned block are not finite");
	if (!w->dense_stream) {
		struct stream outputs = w->reference;
		w->reference = w->input;
		w->input = outputs;
	}
	*ret = sum / (double)w->input.sequences;
	return STATUS_OK;
}

/* ---- the method and the stages ----------------------------------------------------------------------------------------------- */

/* What a method, or a stage, is given to call. */
struct task_context {
	struct walk *w;
	struct block_result *result;
	const char *stage;     /* its name; NULL for the method */
	double work, credited; /* in forward passes: of all, and what progress knows of */
	double told;           /* when the last step was told; 0 before */
};

/* So much of the work is done. */
static void credit(struct task_context *c, double work)
{
	double tokens = (double)(c->w->input.sequences * c->w->input.tokens);
	if (work <= c->credited) return;
	progress_add(c->w->p->progress, (work - c->credited) * tokens);
	c->credited = work;
}

static enum status report_step(void *context, const struct method_step *step, struct error *err)
{
	struct task_context *c = context;
	struct walk *w = c->w;
	credit(c, c->work * (step->share > 0 ? step->share : 1) * step->step / step->steps);
	TRY(pipeline_poll(&w->pipeline, err));
	/* Here and not where it is kept: steps that wait for the block before would all come at once there. */
	double now = monotonic_seconds();
	if (c->told > 0 && now - c->told < STEP_SECONDS) return STATUS_OK;
	c->told = now;
	const struct event_step reached = {c->stage, step->step, step->steps, step->loss, step->reconstruction, step->sparsity};
	return pipeline_tell(&w->pipeline, event_block_step(c->result->index, &reached, w->p->job->attempt), err);
}

static enum status report_warning(void *context, const char *message, struct error *err)
{
	struct task_context *c = context;
	char whole[600];
	snprintf(whole, sizeof whole, "block %d: %s", c->result->index, message);
	return pipeline_tell(&c->w->pipeline, event_warning(whole), err);
}

static enum status report_finding(void *context, const struct finding *finding, struct error *err)
{
	struct task_context *c = context;
	char whole[600];
	snprintf(whole, sizeof whole, "block %d: %s", c->result->index, finding->message);
	const struct finding placed = {finding->rule, finding->value, whole};
	return pipeline_tell(&c->w->pipeline, event_finding(&placed), err);
}

/* The part of a block's products that a pass computes, about. */
static double part_of_pass(const struct walk *w, const struct observer *observer)
{
	const struct block_layout *layout = &w->block.layout;
	int64_t part = 0, all = 0;
	for (int f = 0; f < layout->n_fused; f++) {
		int64_t params = layout->fused_rows[f] * layout->fused_cols[f];
		all += params;
		if (!observer->until || f < (int)observer->last) part += params;
	}
	return (double)part / (double)all;
}

static enum status observe_pass(void *context, const struct observer *observer, struct error *err)
{
	struct task_context *c = context;
	TRY(pass(c->w, &c->w->input, NULL, observer, NULL, err));
	double work = c->credited + part_of_pass(c->w, observer);
	credit(c, work < c->work ? work : c->work);
	return pipeline_poll(&c->w->pipeline, err);
}

static enum status find_losses(void *context, int64_t sequences, int64_t tokens, double *ret, struct error *err)
{
	struct task_context *c = context;
	const struct stream *input = &c->w->input;
	TRY(tokens == input->tokens ? walk_losses(c->w, sequences, NULL, ret, err)
				    : walk_losses_of_starts(c->w, sequences, tokens, ret, err));
	double work = c->credited + (double)(sequences * tokens) / (double)(input->sequences * input->tokens);
	credit(c, work < c->work ? work : c->work);
	return pipeline_poll(&c->w->pipeline, err);
}

/* Ends a phase: its operations are done, not only issued. */
static enum status end_phase(struct walk *w, struct block_result *result, enum phase phase, struct error *err)
{
	TRY(backend_failed(w, w->backend->ops->sync(w->backend), err));
	double now = monotonic_seconds();
	result->phases[phase] += now - result->mark;
	result->mark = now;
	return STATUS_OK;
}

static enum status end_ranking(void *context, struct error *err)
{
	struct task_context *c = context;
	return end_phase(c->w, c->result, PHASE_RANK, err);
}

/* The mean rates of the kinds of linears. */
static void average_rates(const struct walk *w, struct block_result *result)
{
	for (int i = 0; i < w->block.layout.n_linears; i++) {
		const struct linear *linear = &w->block.layout.linears[i];
		double sum = 0;
		for (int64_t r = 0; r < linear->rows; r++)
			sum += w->rates[linear->row + r];
		struct part_result *kind = &result->kinds[linear->kind];
		kind->rows += linear->rows;
		kind->rate += (sum - kind->rate * (double)linear->rows) / (double)kind->rows;
	}
}

static struct block_task task_of(struct task_context *context)
{
	const struct walk *w = context->w;
	int index = context->result->index;
	bool calibrated = walk_calibrated(w);
	return (struct block_task){.index = index,
				   .target = context->result->target,
				   .next_target = allocate_target(w->spec, w->p->savepoint, index + 1, w->block.layout.params),
				   .input = calibrated ? &context->w->input : NULL,
				   .reference = calibrated ? &context->w->reference : NULL,
				   .ranked = end_ranking,
				   .step = report_step,
				   .warn = report_warning,
				   .find = report_finding,
				   .pass = observe_pass,
				   .losses = find_losses,
				   .context = context};
}

static enum status run_method(struct walk *w, struct block_result *result, struct block_outcome *ret, struct error *err)
{
	struct task_context context = {.w = w, .result = result, .work = w->method->work ? w->method->work(w->spec) : 0};
	const struct block_task task = task_of(&context);
	struct block_outcome outcome = {.rates = w->rates, .start = NAN};
	TRY(w->method->prune(w->state, &task, &outcome, err));
	credit(&context, context.work);
	average_rates(w, result);
	result->start = outcome.start;
	*ret = outcome;
	return STATUS_OK;
}

static enum status run_stage(struct walk *w, struct block_result *result, int i, struct error *err)
{
	const struct stage *stage = w->stages[i];
	struct task_context context = {
		.w = w, .result = result, .stage = stage->name, .work = stage->work ? stage->work(w->spec) : 0};
	const struct block_task task = task_of(&context);
	TRY(backend_failed(w, block_activate(&w->block, w->block.master), err));
	TRY(stage->run(w->stage_states[i], &task, err));
	credit(&context, context.work);
	return STATUS_OK;
}

/* What the global tune begins with (engine/tune/latents.h): the weights before they are rounded. */
static enum status keep_latents(struct walk *w, int index, struct error *err)
{
	char path[4096];
	if (w->backend->dry || !latents_wanted(w->spec)) return STATUS_OK;
	TRY(latents_path(w->p->savepoint, path, err));
	return latents_save(&w->block, &w->quantizer, index, w->p->model->config.layers, path, err);
}

/* From what the method left, in masters or by a mask, to what is stored. */
static enum status run_stages(struct walk *w, struct block_result *result, const struct block_outcome *outcome, struct error *err)
{
	bool vectors = false;
	if (outcome->mask)
		TRY(backend_failed(w, mask_apply(outcome->mask, &w->block, w->block.master), err));
	else if (!w->method->masters && !outcome->masters)
		TRY(backend_failed(w, block_load_masters(&w->block), err));
	for (int i = 0; i < w->n_stages; i++) {
		if (w->stages[i]->rounds) TRY(keep_latents(w, result->index, err));
		TRY(run_stage(w, result, i, err));
		vectors = vectors || w->stages[i]->changes_vectors;
	}
	TRY(backend_failed(w, block_store_masters(&w->block), err));
	if (vectors) TRY(block_store_vectors(&w->block, w->p->model, result->index, &result->vectors, err));
	return end_phase(w, result, PHASE_REFIT, err);
}

/* Tells which experts got no token of the calibration: their weights are ranked by magnitude, and nothing is learned about them. */
static enum status report_unseen(struct walk *w, int index, const int64_t *seen, struct error *err)
{
	int unseen = 0, experts = w->block.layout.experts;
	char message[400];
	size_t used = (size_t)snprintf(message, sizeof message, "block %d: no calibration token reached expert", index);
	bool whole = true;
	for (int i = 0; i < experts; i++) {
		if (seen[i]) continue;
		unseen++;
		whole = used < sizeof message - 80;
		if (whole) used += (size_t)snprintf(message + used, sizeof message - used, unseen > 1 ? ", %d" : " %d", i);
	}
	if (!unseen) return STATUS_OK;
	snprintf(message + used, sizeof message - used, "%s (%d of %d); pruned by magnitude", whole ? "" : ", …", unseen, experts);
	return pipeline_tell(&w->pipeline, event_warning(message), err);
}

/* Tells of a block that has more zeros than it is to get: it does not come out as asked. */
static enum status report_sparse(struct walk *w, const struct block_result *result, struct error *err)
{
	int64_t zeros = w->block.zeros, params = w->block.layout.params;
	const char *then = w->method->changes_weights ? "some of them may get other values, as weights make up for each other"
						      : "they stay zero, and rows that have fewer zeros are pruned besides";
	char message[400];
	if (zeros <= llround(result->target * (double)params)) return STATUS_OK;
	snprintf(message, sizeof message,
		 "block %d: %.2f %% of its weights (%" PRId64 " of %" PRId64
		 ") are zero already, more than the %.2f %% asked for; %s",
		 result->index, 100 * (double)zeros / (double)params, zeros, params, 100 * result->target, then);
	return pipeline_tell(&w->pipeline, event_warning(message), err);
}

/* ---- the walk ---------------------------------------------------------------------------------------------------------------- */

static enum status announce_block(struct walk *w, int index, struct error *err)
{
	w->p->progress->block = index;
	progress_phase(w->p->progress, "pruning");
	return pipeline_tell(&w->pipeline, event_block_started(index, (int)w->p->model->config.layers, w->p->job->attempt), err);
}

/* Whether block `index` can be written while the next one is pruned: not if what goes to disk is changed by then, or the
 * device's room for weights is wanted at once. */
static bool may_wait(const struct walk *w, int index)
{
	bool probed = walk_probes(w) && w->probe.plan->due[index];
	return pipeline_keeps(&w->pipeline, index) && !w->dense_stream && !probed;
}

/* Whether what is behind block `index` stays until the next one is finished: a probe of that one can be stopped when it is on
 * its way, and the dense model's stream moves on in place. */
static bool outputs_last(const struct walk *w, int index)
{
	bool probed = walk_probes(w) && index + 1 < w->p->model->config.layers && w->probe.plan->due[index + 1];
	return !w->dense_stream && !probed;
}

/* From the masked weights to the end of the block. */
static enum status finish(struct walk *w, struct block_result *result, double started, struct error *err)
{
	bool wait = may_wait(w, result->index);
	TRY(pipeline_stop(&w->pipeline, err));
	if (!wait) TRY(pipeline_write_weights(&w->pipeline, result, err)); /* before the probe loads other blocks */
	TRY(end_phase(w, result, PHASE_WRITE, err));
	if (walk_probes(w)) {
		pipeline_forget(&w->pipeline);
		TRY(probe_advance(&w->probe, result->index, &result->perplexity, err));
	}
	if (result->index + 1 == w->p->model->config.layers) TRY(end_loss(w, &w->p->savepoint->end_loss, err));
	TRY(end_phase(w, result, PHASE_PROBE, err));
	result->seconds = monotonic_seconds() - started;
	struct outputs outputs = {.hidden = w->input, .probe = w->probe.behind};
	if (w->dense_stream) outputs.dense = w->reference;
	return pipeline_finish(&w->pipeline, result, &outputs, (struct way){wait, outputs_last(w, result->index)}, err);
}

/* What the method finds are weights on their grids. */
static enum status quantize_first(struct walk *w, struct error *err)
{
	struct block *block = &w->block;
	TRY(backend_failed(w, quantizer_apply(&w->quantizer, block->weight, block->master), err));
	TRY(backend_failed(w, block_store_masters(block), err));
	return backend_failed(w, block_activate_dense(block), err);
}

/* From the reference pass to the masked weights of the block that is loaded. */
static enum status prune_loaded(struct walk *w, struct block_result *result, struct error *err)
{
	bool calibrated = walk_calibrated(w);
	double tokens = calibrated ? (double)(w->input.sequences * w->input.tokens) : 1;
	struct block_outcome outcome;
	if (calibrated) {
		TRY(walk_reference(w, result->seen, err));
		TRY(report_unseen(w, result->index, result->seen, err));
	}
	TRY(end_phase(w, result, PHASE_REFERENCE, err));
	progress_add(w->p->progress, tokens);
	if (w->spec->quantization.bits && w->spec->quantization.order == QUANTIZE_BEFORE) TRY(quantize_first(w, err));
	TRY(run_method(w, result, &outcome, err));
	TRY(end_phase(w, result, PHASE_LEARN, err));
	if (walk_changes(w)) TRY(run_stages(w, result, &outcome, err));
	if (format_packing(w->spec).bits) TRY(grids_take(&w->quantizer, &result->grids, err));
	const struct mask *mask = walk_changes(w) ? NULL : outcome.mask;
	TRY(backend_failed(w, mask ? mask_apply(mask, &w->block, w->block.active) : block_activate_dense(&w->block), err));
	if (calibrated) TRY(final_pass(w, &result->reconstruction, err));
	TRY(end_phase(w, result, PHASE_FINAL, err));
	progress_add(w->p->progress, tokens);
	if (mask) TRY(backend_failed(w, mask_apply(mask, &w->block, w->block.weight), err));
	return backend_failed(w, w->backend->ops->sync(w->backend), err);
}

static enum status prune_steps(struct walk *w, struct block_result *result, struct error *err)
{
	int index = result->index;
	double started = monotonic_seconds();
	result->mark = started;
	TRY(announce_block(w, index, err));
	TRY(block_load(&w->block, w->p->model, index, err));
	pipeline_beside(&w->pipeline, index);
	TRY(report_sparse(w, result, err));
	TRY(end_phase(w, result, PHASE_LOAD, err));
	TRY(prune_loaded(w, result, err));
	return finish(w, result, started, err);
}

static enum status prune_block(struct walk *w, int index, struct error *err)
{
	struct block_result result;
	TRY(block_result_create(&w->block.layout, index, &result, err));
	result.target = allocate_target(w->spec, w->p->savepoint, index, w->block.layout.params);
	enum status status = prune_steps(w, &result, err);
	block_result_release(&result);
	return status;
}

/* Sequences of a pass that learns nothing. */
static int64_t pass_batch(const struct pruning *p)
{
	int64_t samples = p->job->spec->calibration.samples, tokens = p->job->spec->calibration.sequence_length;
	int64_t batch_tokens = p->backend->unified ? BATCH_TOKENS_CPU : BATCH_TOKENS_DEVICE;
	return tokens >= batch_tokens ? 1 : batch_tokens / tokens < samples ? batch_tokens / tokens : samples;
}

static enum status create_probe(struct walk *w, struct error *err)
{
	if (!w->p->plan->sequences) return STATUS_OK;
	w->probe = (struct probe){.model = w->p->model,
				  .block = &w->block,
				  .activations = &w->activations,
				  .batch = w->batch,
				  .y = w->y,
				  .stop = w->p->job->stop,
				  .tokens = w->p->probe,
				  .plan = w->p->plan};
	return probe_create(&w->probe, err);
}

static struct walk walk_of(const struct pruning *p)
{
	const struct spec *spec = p->job->spec;
	const struct method *method = method_find(spec->method);
	struct walk w = {.p = p,
			 .spec = spec,
			 .backend = p->backend,
			 .method = method,
			 .dense_stream = method->dense_stream && method->dense_stream(spec)};
	while ((w.stages[w.n_stages] = stage_of(spec, w.n_stages)))
		w.n_stages++;
	return w;
}

/* The most sequences that the method or a stage asks for at once. */
static int64_t method_batch(const struct walk *w)
{
	int64_t most = w->method->batch ? w->method->batch(w->spec) : 1;
	for (int i = 0; i < w->n_stages; i++) {
		int64_t batch = w->stages[i]->batch ? w->stages[i]->batch(w->spec) : 1;
		if (batch > most) most = batch;
	}
	return most;
}

static enum status create_stages(struct walk *w, const struct method_setup *setup, struct error *err)
{
	for (int i = 0; i < w->n_stages; i++)
		TRY(w->stages[i]->create(setup, &w->stage_states[i], err));
	return STATUS_OK;
}

enum status walk_create(struct walk *w, struct error *err)
{
	const struct model *model = w->p->model;
	const struct block_layout *layout = &w->block.layout;
	int64_t samples = w->spec->calibration.samples, tokens = w->spec->calibration.sequence_length,
		hidden = model->config.hidden;
	w->batch = (int)pass_batch(w->p);
	TRY(block_create(model, w->backend, w->p->compute_type, tokens, &w->block, err));
	TRY(pipeline_create(w->p, &w->block, &w->pipeline, err));
	const struct method_setup setup = {.spec = w->spec,
					   .model = model,
					   .block = &w->block,
					   .quantizer = w->spec->quantization.bits ? &w->quantizer : NULL,
					   .sequences = walk_calibrated(w) ? samples : 0,
					   .tokens = tokens,
					   .orders = w->p->orders,
					   .stop = w->p->job->stop};
	if (walk_changes(w)) TRY(block_add_masters(&w->block, err));
	if (setup.quantizer) TRY(quantizer_create(w->spec, &w->block, quantization_is_joint(w->spec), setup.quantizer, err));
	TRY(w->method->create(&setup, &w->state, err));
	TRY(create_stages(w, &setup, err));
	TRY(activations_create(&w->block, w->batch, tokens, false, &w->activations, err));
	struct tensor y = tensor_make(NULL, w->batch * tokens, hidden, DTYPE_F32);
	TRY(backend_failed(w, w->backend->ops->alloc(w->backend, tensor_bytes(&y), &y.data), err));
	w->y = y;
	TRY(backend_failed(w, w->backend->ops->alloc(w->backend, (size_t)samples * sizeof(double), &w->losses), err));
	int64_t at_once = w->batch > method_batch(w) ? w->batch : method_batch(w);
	struct stream *streams[] = {&w->input, &w->reference};
	for (int i = 0; walk_calibrated(w) && i < 2; i++) {
		bool on_device = i < w->p->device_streams || w->backend->unified;
		TRY((on_device ? stream_create : stream_create_on_host)(w->backend, samples, tokens, hidden, at_once, streams[i],
									err));
	}
	w->rates = malloc((size_t)layout->rows * sizeof *w->rates);
	w->host_losses = malloc(((size_t)samples + 1) * sizeof *w->host_losses);
	if (!w->rates || !w->host_losses) return error_set(err, STATUS_NO_MEMORY, "no memory for the rates of a block");
	return create_probe(w, err);
}

void walk_destroy(struct walk *w)
{
	pipeline_destroy(&w->pipeline);
	probe_release(&w->probe);
	stream_release(&w->input);
	stream_release(&w->reference);
	w->backend->ops->release(w->backend, w->losses);
	w->backend->ops->release(w->backend, w->y.data);
	activations_release(&w->activations, w->backend);
	for (int i = 0; i < w->n_stages; i++)
		w->stages[i]->destroy(w->stage_states[i]);
	w->method->destroy(w->state);
	quantizer_release(&w->quantizer);
	block_release(&w->block);
	free(w->rates);
	free(w->host_losses);
}

/* A job that began on another kind of device may have had a plan without probes: then it goes on without them. */
static enum status start_probe(struct walk *w, struct error *err)
{
	char path[4096];
	bool kept;
	int first = savepoint_blocks(w->p->savepoint);
	if (!walk_probes(w)) return STATUS_OK;
	if (!first) {
		TRY(probe_embed(&w->probe, err));
		return probe_dense(&w->probe, &w->p->savepoint->probe_dense, err);
	}
	savepoint_path(w->p->savepoint, "probe", first, path);
	TRY(path_look(path, &kept, err));
	if (kept) return stream_load(&w->probe.behind, path, err);
	probe_release(&w->probe);
	return STATUS_OK;
}

/* The hidden states that the first block to prune starts from. */
static enum status start(struct walk *w, const struct sequences *calibration, struct error *err)
{
	char path[4096];
	int first = savepoint_blocks(w->p->savepoint);
	TRY(start_probe(w, err));
	if (!walk_calibrated(w)) return STATUS_OK;
	if (!first) return walk_embed(w, calibration, err);
	savepoint_path(w->p->savepoint, "hidden", first, path);
	TRY(stream_load(&w->input, path, err));
	savepoint_path(w->p->savepoint, "dense", first, path);
	return w->dense_stream ? stream_load(&w->reference, path, err) : STATUS_OK;
}

/* Whatever ends the walk, blocks that are done are not lost. */
static void save_blocks(struct walk *w)
{
	struct error failure, ignored;
	int saved = w->pipeline.saved;
	enum status status = pipeline_stop(&w->pipeline, &failure);
	if (status == STATUS_OK) status = pipeline_save(&w->pipeline, &failure);
	if (status == STATUS_OK) return;
	error_prefix(&failure, "the blocks from %d on could not be saved and will be done again", saved);
	struct event event = event_warning(failure.message);
	event_tell(w->p->sink, &event, &ignored);
}

enum status prune_blocks(const struct pruning *p, const struct sequences *calibration, struct error *err)
{
	struct walk w = walk_of(p);
	int first = savepoint_blocks(p->savepoint);
	w.calibration = calibration;
	TRY(pipeline_catch_up(p, err));
	if (first >= p->model->config.layers) return STATUS_OK;
	TRY(allocate_blocks(p, calibration, err));
	enum status status = walk_create(&w, err);
	if (status == STATUS_OK) status = start(&w, calibration, err);
	for (int index = first; status == STATUS_OK && index < p->model->config.layers; index++) {
		status = prune_block(&w, index, err);
		if (status != STATUS_OK && status != STATUS_CANCELLED)
			error_prefix(err, "block %d of %d", index, (int)p->model->config.layers);
	}
	if (status != STATUS_OK) save_blocks(&w);
	walk_destroy(&w);
	return status;
}

/* ---- the rehearsal ----------------------------------------------------------------------------------------------------------- */

int64_t walk_few_sequences(const struct walk *w)
{
	int64_t batch = w->batch, learn = 3 * method_batch(w), all = w->input.sequences;
	int64_t wanted = batch > learn ? batch : learn;
	return wanted < all ? wanted : all;
}

/* What takes memory, in the order in which prune_blocks does it: the probe of the dense model, one block, and the loading of the
 * next. */
static enum status rehearse_block(struct walk *w, struct block_result *result, struct error *err)
{
	double ignored;
	if (walk_probes(w)) TRY(probe_dense(&w->probe, &ignored, err));
	TRY(block_load(&w->block, w->p->model, result->index, err));
	TRY(prune_loaded(w, result, err));
	TRY(end_loss(w, &ignored, err));
	if (walk_probes(w)) TRY(probe_dense(&w->probe, &ignored, err));
	return w->p->model->config.layers > 1 ? block_load(&w->block, w->p->model, 1, err) : STATUS_OK;
}

static enum status rehearse(struct walk *w, int *ret_device_streams, struct error *err)
{
	struct block_result result;
	TRY(walk_create(w, err));
	*ret_device_streams = (w->input.host == NULL) + (w->reference.host == NULL);
	w->input.sequences = w->reference.sequences = walk_few_sequences(w);
	TRY(block_result_create(&w->block.layout, 0, &result, err));
	result.target = w->spec->sparsity;
	enum status status = rehearse_block(w, &result, err);
	block_result_release(&result);
	return status;
}

enum status prune_rehearse(const struct pruning *p, int *ret_device_streams, struct error *err)
{
	TRY(allocate_rehearse(p, err));
	struct walk w = walk_of(p);
	enum status status = rehearse(&w, ret_device_streams, err);
	walk_destroy(&w);
	return status;
}
