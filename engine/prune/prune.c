#include "engine/prune/prune.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/eval/probe.h"
#include "engine/file.h"
#include "engine/model/block.h"
#include "engine/model/half.h"
#include "engine/prune/besa.h"
#include "engine/prune/exact.h"
#include "engine/prune/ranking.h"
#include "engine/prune/stream.h"

/* Tokens that go through a block at once in the passes that learn nothing. */
enum { BATCH_TOKENS_CPU = 1024, BATCH_TOKENS_DEVICE = 8192 };

/* Of the linears of one kind, or of one expert. */
struct part_result {
	double rate; /* the mean over the rows */
	int64_t rows, zeros, params;
};

/* Everything that lives as long as the walk over the blocks. */
struct walk {
	const struct pruning *p;
	const struct spec *spec;
	struct backend *backend;
	bool dense_stream; /* the reference comes from the dense model's own activations */
	struct block block;
	struct ranking ranking;
	struct besa besa;
	struct activations activations; /* of the passes */
	struct probe probe;             /* without a plan where nothing is probed */
	int batch;                      /* sequences of a pass */
	struct tensor y;                /* F32 [batch · tokens, H] */
	void *stats;                    /* F64 [STEP_STATS] */
	struct stream input, reference; /* X of the running block; its Y_ref (dense_stream: the dense model's hidden states) */
	float *rates;                   /* [rows of a block] */
	int32_t *thresholds;
	struct part_result *experts; /* of the running block, [layout.experts] */
	void *weights;               /* host room for the largest linear, in the file's type */
};

/* Where the time of a block goes. */
enum phase { PHASE_LOAD, PHASE_REFERENCE, PHASE_RANK, PHASE_LEARN, PHASE_FINAL, PHASE_WRITE, PHASE_PROBE, PHASE_COUNT };
static const char *const PHASE_NAMES[PHASE_COUNT] = {"load", "reference", "rank", "learn", "final", "write", "probe"};

struct block_result {
	double loss, reconstruction, perplexity, seconds;
	double phases[PHASE_COUNT], mark; /* seconds; monotonic time when the running phase began */
	int64_t zeros, params;
	struct part_result kinds[LAYOUT_MAX_KINDS];
};

double prune_block_work(const struct spec *spec)
{
	return spec->method == METHOD_BESA ? 2 + 3 * spec->besa.epochs : 2;
}

static enum status backend_failed(const struct walk *w, enum status status, struct error *err)
{
	if (status != STATUS_OK) *err = w->backend->error;
	return status;
}

static enum status check_stop(const struct walk *w, struct error *err)
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

/* Magnitude pruning needs no data; without any there are no passes, and no reconstruction loss to report. */
static bool calibrated(const struct walk *w)
{
	return w->spec->calibration.n_sources > 0;
}

static bool learns(const struct walk *w)
{
	return w->spec->method == METHOD_BESA && w->spec->sparsity > 0;
}

static bool probes(const struct walk *w)
{
	return w->probe.plan != NULL;
}

/* ---- passes ---------------------------------------------------------------------------------------------------------------------- */

static enum status embed_all(struct walk *w, const struct sequences *calibration, struct error *err)
{
	for (int64_t i = 0; i < calibration->count; i += w->batch) {
		int64_t n = batch_at(w, i);
		struct tensor x;
		TRY(check_stop(w, err));
		TRY(backend_failed(w, stream_batch(&w->input, i, n, false, &x), err));
		TRY(model_embed(w->p->model, w->backend, calibration->ids + i * calibration->length, n * calibration->length,
				calibration->length, x, err));
		TRY(backend_failed(w, stream_store(&w->input, i, n, x), err));
		if (!w->dense_stream) continue;
		TRY(backend_failed(w, stream_store(&w->reference, i, n, x), err));
	}
	return STATUS_OK;
}

/* to = block(from), batch by batch; from and to may be one stream. `norms` as in block_forward. */
static enum status pass(struct walk *w, struct stream *from, struct stream *to, const struct input_norms *norms, struct error *err)
{
	for (int64_t i = 0; i < from->sequences; i += w->batch) {
		int64_t n = batch_at(w, i);
		struct tensor x, y = tensor_rows(w->y, 0, n * from->tokens);
		TRY(check_stop(w, err));
		TRY(backend_failed(w, stream_batch(from, i, n, true, &x), err));
		if (to && to != from) TRY(backend_failed(w, stream_batch(to, i, n, false, &y), err));
		TRY(backend_failed(w, block_forward(&w->block, &w->activations, (int)n, x, y, norms), err));
		if (to) TRY(backend_failed(w, stream_store(to, i, n, y), err));
	}
	return STATUS_OK;
}

/* The dense block's outputs into `reference`, and the column norms of its linears' inputs (besa.md 1.1). */
static enum status reference_pass(struct walk *w, struct error *err)
{
	TRY(backend_failed(w, ranking_reset_sums(&w->ranking, &w->block), err));
	TRY(backend_failed(w, block_activate_dense(&w->block), err));
	if (!w->dense_stream) return pass(w, &w->input, &w->reference, &w->ranking.norms, err);
	TRY(pass(w, &w->input, NULL, &w->ranking.norms, err));
	return pass(w, &w->reference, &w->reference, NULL, err);
}

/* The pruned block's outputs become the next block's inputs; *ret is the mean reconstruction loss over the sequences. */
static enum status final_pass(struct walk *w, double *ret, struct error *err)
{
	const struct backend_ops *ops = w->backend->ops;
	struct stream *to = w->dense_stream ? &w->input : &w->reference;
	double stats[STEP_STATS];
	TRY(backend_failed(w, ops->zero(w->backend, w->stats, sizeof stats), err));
	for (int64_t i = 0; i < w->input.sequences; i += w->batch) {
		int64_t n = batch_at(w, i), tokens = w->input.tokens;
		struct tensor x, wanted, y = tensor_rows(w->y, 0, n * tokens), none = {0};
		TRY(check_stop(w, err));
		TRY(backend_failed(w, stream_batch(&w->input, i, n, true, &x), err));
		TRY(backend_failed(w, block_forward(&w->block, &w->activations, (int)n, x, y, NULL), err));
		TRY(backend_failed(w, stream_batch(&w->reference, i, n, true, &wanted), err));
		for (int64_t s = 0; s < n; s++)
			TRY(backend_failed(w,
					   ops->reconstruction(w->backend, w->stats, none, tensor_rows(y, s * tokens, tokens),
							       tensor_rows(wanted, s * tokens, tokens), true),
					   err));
		TRY(backend_failed(w, stream_store(to, i, n, y), err));
	}
	TRY(backend_failed(w, ops->download(w->backend, stats, w->stats, sizeof stats), err));
	if (!isfinite(stats[STEP_RECONSTRUCTION]))
		return error_set(err, STATUS_NUMERIC, "the outputs of the pruned block are not finite");
	if (!w->dense_stream) {
		struct stream outputs = w->reference;
		w->reference = w->input;
		w->input = outputs;
	}
	*ret = stats[STEP_RECONSTRUCTION] / (double)w->input.sequences;
	return STATUS_OK;
}

/* ---- rates ----------------------------------------------------------------------------------------------------------------------- */

struct step_context {
	struct walk *w;
	int block, done;
};

static enum status report_step(void *context, const struct besa_step *step, struct error *err)
{
	struct step_context *c = context;
	struct walk *w = c->w;
	double per_step = 3.0 * w->spec->besa.epochs / step->steps;
	double tokens = (double)(w->input.sequences * w->input.tokens);
	progress_add(w->p->progress, (step->step - c->done) * per_step * tokens);
	c->done = step->step;
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "block", c->block);
	cJSON_AddNumberToObject(data, "step", step->step);
	cJSON_AddNumberToObject(data, "steps", step->steps);
	cJSON_AddNumberToObject(data, "loss", step->loss);
	cJSON_AddNumberToObject(data, "reconstruction", step->reconstruction);
	cJSON_AddNumberToObject(data, "sparsity", step->sparsity);
	enum status status = w->p->sink->event(w->p->sink->context, "block.step", data, err);
	cJSON_Delete(data);
	return status;
}

/* How many weights each row loses: learned and brought to the exact count, or ⌊C·s⌋ for the one-shot methods. */
static enum status choose_thresholds(struct walk *w, int index, struct block_result *result, struct error *err)
{
	const struct block_layout *layout = &w->block.layout;
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		for (int64_t r = 0; r < linear->rows; r++) {
			w->rates[linear->row + r] = (float)w->spec->sparsity;
			w->thresholds[linear->row + r] = (int32_t)((double)linear->cols * w->spec->sparsity);
		}
	}
	if (learns(w)) {
		struct step_context context = {.w = w, .block = index};
		struct besa_step last;
		TRY(besa_learn(&w->besa, &w->input, &w->reference, w->p->job->stop, report_step, &context, w->rates, &last, err));
		int64_t zeros = llround(w->spec->sparsity * (double)layout->params);
		TRY(exact_thresholds(layout, w->rates, zeros, w->thresholds, err));
	}
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		double sum = 0;
		for (int64_t r = 0; r < linear->rows; r++)
			sum += w->rates[linear->row + r];
		struct part_result *kind = &result->kinds[linear->kind];
		kind->rows += linear->rows;
		kind->rate += (sum - kind->rate * (double)linear->rows) / (double)kind->rows;
	}
	return STATUS_OK;
}

/* Tells which experts got no token of the calibration: their weights are ranked by magnitude, and nothing is learned about them. */
static enum status report_unseen(const struct walk *w, int index, struct error *err)
{
	const struct engine_sink *sink = w->p->sink;
	int unseen = 0, experts = w->block.layout.experts;
	char message[400];
	size_t used = (size_t)snprintf(message, sizeof message, "block %d: no calibration token reached expert", index);
	for (int i = 0; i < experts; i++) {
		if (w->ranking.norms.seen[i]) continue;
		unseen++;
		if (used < sizeof message - 80)
			used += (size_t)snprintf(message + used, sizeof message - used, unseen > 1 ? ", %d" : " %d", i);
	}
	if (!unseen) return STATUS_OK;
	snprintf(message + used, sizeof message - used, " (%d of %d); pruned by magnitude", unseen, experts);
	cJSON *data = cJSON_CreateObject();
	cJSON_AddStringToObject(data, "message", message);
	enum status status = sink->event(sink->context, "warning", data, err);
	cJSON_Delete(data);
	return status;
}

/* ---- output ---------------------------------------------------------------------------------------------------------------------- */

static int64_t count_zeros(const void *weights, enum dtype type, int64_t count)
{
	int64_t zeros = 0;
	if (type == DTYPE_F32)
		for (int64_t i = 0; i < count; i++)
			zeros += ((const float *)weights)[i] == 0;
	else
		for (int64_t i = 0; i < count; i++)
			zeros += (((const uint16_t *)weights)[i] & 0x7fff) == 0;
	return zeros;
}

/* Masks the weights of the block in the file's type and writes them into the output. */
static enum status write_weights(struct walk *w, int index, struct block_result *result, struct error *err)
{
	const struct block_layout *layout = &w->block.layout;
	const struct backend_ops *ops = w->backend->ops;
	for (int f = 0; f < FUSED_COUNT; f++)
		TRY(backend_failed(w,
				   ops->mask_weights(w->backend, w->block.weight[f], w->block.weight[f], w->ranking.rank[f],
						     (int32_t *)w->ranking.thresholds + layout->fused_row[f], false),
				   err));
	for (int i = 0; i < layout->n_linears; i++) {
		const struct linear *linear = &layout->linears[i];
		struct tensor_info info;
		struct tensor rows = tensor_rows(w->block.weight[linear->fused], linear->first, linear->rows);
		TRY(block_linear_tensor(w->p->model, linear, index, &info, err));
		TRY(backend_failed(w, ops->download(w->backend, w->weights, rows.data, (size_t)info.bytes), err));
		TRY(output_write(w->p->output, &info, w->weights, err));
		int64_t params = linear->rows * linear->cols, zeros = count_zeros(w->weights, info.dtype, params);
		int expert = layout->products[linear->product].expert;
		struct part_result *kind = &result->kinds[linear->kind];
		kind->zeros += zeros;
		kind->params += params;
		result->zeros += zeros;
		if (expert < 0) continue;
		w->experts[expert].zeros += zeros;
		w->experts[expert].params += params;
	}
	result->params = layout->params;
	return output_sync(w->p->output, err);
}

/* Of each expert the calibration tokens that it got (null without a calibration), and its sparsity. */
static cJSON *experts_json(const struct walk *w)
{
	cJSON *experts = cJSON_CreateArray();
	for (int i = 0; i < w->block.layout.experts; i++) {
		const struct part_result *part = &w->experts[i];
		cJSON *expert = cJSON_CreateObject();
		cJSON_AddItemToObject(expert, "tokens",
				      calibrated(w) ? cJSON_CreateNumber((double)w->ranking.norms.seen[i]) : cJSON_CreateNull());
		cJSON_AddNumberToObject(expert, "sparsity", (double)part->zeros / (double)part->params);
		cJSON_AddItemToArray(experts, expert);
	}
	return experts;
}

static cJSON *block_json(const struct walk *w, int index, const struct block_result *result)
{
	const struct block_layout *layout = &w->block.layout;
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "block", index);
	cJSON_AddNumberToObject(data, "blocks", (double)w->p->model->config.layers);
	cJSON_AddItemToObject(data, "loss", calibrated(w) ? cJSON_CreateNumber(result->loss) : cJSON_CreateNull());
	cJSON_AddItemToObject(data, "reconstruction",
			      calibrated(w) ? cJSON_CreateNumber(result->reconstruction) : cJSON_CreateNull());
	cJSON_AddNumberToObject(data, "sparsity", (double)result->zeros / (double)result->params);
	cJSON *layers = cJSON_AddObjectToObject(data, "layers");
	for (int i = 0; i < layout->n_kinds; i++) {
		cJSON *layer = cJSON_AddObjectToObject(layers, layout->kinds[i]);
		cJSON_AddNumberToObject(layer, "rate", result->kinds[i].rate);
		cJSON_AddNumberToObject(layer, "zeros", (double)result->kinds[i].zeros);
		cJSON_AddNumberToObject(layer, "params", (double)result->kinds[i].params);
	}
	if (layout->experts) cJSON_AddItemToObject(data, "experts", experts_json(w));
	cJSON_AddItemToObject(data, "perplexity",
			      isnan(result->perplexity) ? cJSON_CreateNull() : cJSON_CreateNumber(result->perplexity));
	double dense = isnan(result->perplexity) ? NAN : w->p->savepoint->probe_dense;
	cJSON_AddItemToObject(data, "perplexity_dense", isnan(dense) ? cJSON_CreateNull() : cJSON_CreateNumber(dense));
	cJSON_AddNumberToObject(data, "seconds", result->seconds);
	cJSON *phases = cJSON_AddObjectToObject(data, "phases");
	for (int i = 0; i < PHASE_COUNT; i++)
		cJSON_AddNumberToObject(phases, PHASE_NAMES[i], result->phases[i]);
	return data;
}

/* The order that makes a crash at any point safe: the tensors are on disk, then the hidden states behind the block, then the savepoint,
 * then the caller's commit; only then goes what the block started from. */
static enum status checkpoint_block(struct walk *w, int index, cJSON *data, struct error *err)
{
	struct savepoint *savepoint = w->p->savepoint;
	char path[4096];
	if (calibrated(w) && index + 1 < w->p->model->config.layers) {
		savepoint_path(savepoint, "hidden", index + 1, path);
		TRY(stream_save(&w->input, path, err));
		savepoint_path(savepoint, "dense", index + 1, path);
		if (w->dense_stream) TRY(stream_save(&w->reference, path, err));
	}
	if (probes(w) && index + 1 < w->p->model->config.layers) {
		savepoint_path(savepoint, "probe", index + 1, path);
		TRY(stream_save(&w->probe.behind, path, err));
	}
	cJSON_AddItemToArray(savepoint->blocks, cJSON_Duplicate(data, true));
	TRY(savepoint_save(savepoint, w->p->spec_json, err));
	TRY(w->p->sink->commit_block(w->p->sink->context, index, data, err));
	savepoint_path(savepoint, "hidden", index, path);
	unlink(path);
	savepoint_path(savepoint, "dense", index, path);
	unlink(path);
	savepoint_path(savepoint, "probe", index, path);
	unlink(path);
	return STATUS_OK;
}

/* ---- the walk -------------------------------------------------------------------------------------------------------------------- */

static enum status announce_block(const struct walk *w, int index, struct error *err)
{
	const struct engine_sink *sink = w->p->sink;
	w->p->progress->block = index;
	progress_phase(w->p->progress, "pruning");
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "block", index);
	cJSON_AddNumberToObject(data, "blocks", (double)w->p->model->config.layers);
	enum status status = sink->event(sink->context, "block.started", data, err);
	cJSON_Delete(data);
	return status;
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

static enum status prune_block(struct walk *w, int index, struct error *err)
{
	struct block_result result = {.perplexity = NAN, .mark = monotonic_seconds()};
	memset(w->experts, 0, (size_t)w->block.layout.experts * sizeof *w->experts);
	double started = result.mark, tokens = calibrated(w) ? (double)(w->input.sequences * w->input.tokens) : 1;
	TRY(announce_block(w, index, err));
	TRY(block_load(&w->block, w->p->model, index, err));
	TRY(end_phase(w, &result, PHASE_LOAD, err));
	if (calibrated(w)) {
		TRY(reference_pass(w, err));
		TRY(report_unseen(w, index, err));
	}
	TRY(end_phase(w, &result, PHASE_REFERENCE, err));
	progress_add(w->p->progress, tokens);
	enum importance importance = w->spec->method == METHOD_BESA        ? w->spec->besa.importance
				     : w->spec->method == METHOD_MAGNITUDE ? IMPORTANCE_MAGNITUDE
									   : IMPORTANCE_WANDA;
	TRY(backend_failed(w, ranking_rank(&w->ranking, &w->block, importance, w->input.sequences), err));
	TRY(end_phase(w, &result, PHASE_RANK, err));
	TRY(choose_thresholds(w, index, &result, err));
	TRY(end_phase(w, &result, PHASE_LEARN, err));
	TRY(backend_failed(w, ranking_activate(&w->ranking, &w->block, w->thresholds), err));
	if (calibrated(w)) TRY(final_pass(w, &result.reconstruction, err));
	TRY(end_phase(w, &result, PHASE_FINAL, err));
	progress_add(w->p->progress, tokens);
	TRY(write_weights(w, index, &result, err));
	TRY(end_phase(w, &result, PHASE_WRITE, err));
	if (probes(w)) TRY(probe_advance(&w->probe, index, &result.perplexity, err));
	TRY(end_phase(w, &result, PHASE_PROBE, err));

	double miss = learns(w) ? ((double)result.zeros / (double)result.params - w->spec->sparsity) / w->spec->sparsity : 0;
	result.loss = result.reconstruction + w->spec->besa.lambda * miss * miss;
	result.seconds = monotonic_seconds() - started;
	cJSON *data = block_json(w, index, &result);
	enum status status = checkpoint_block(w, index, data, err);
	cJSON_Delete(data);
	return status;
}

/* Sequences of a pass that learns nothing. */
static int64_t pass_batch(const struct pruning *p)
{
	int64_t samples = p->job->spec->calibration.samples, tokens = p->job->spec->calibration.sequence_length;
	int64_t batch_tokens = p->backend->unified ? BATCH_TOKENS_CPU : BATCH_TOKENS_DEVICE;
	return tokens >= batch_tokens ? 1 : batch_tokens / tokens < samples ? batch_tokens / tokens : samples;
}

enum status prune_workload(const struct pruning *p, struct workload *ret, struct error *err)
{
	const struct spec *spec = p->job->spec;
	struct block_layout layout;
	enum dtype file_type;
	TRY(block_layout_create(&p->model->config, &layout, err));
	enum status status = block_file_type(p->model, &layout, &file_type, err);
	block_layout_release(&layout);
	TRY(status);
	*ret = (struct workload){.config = &p->model->config,
				 .file_type = file_type,
				 .compute_type = p->compute_type,
				 .sequences = spec->calibration.n_sources ? spec->calibration.samples : 0,
				 .tokens = spec->calibration.sequence_length,
				 .learn_batch = spec->method == METHOD_BESA && spec->sparsity > 0 ? spec->besa.batch_size : 0,
				 .pass_batch = pass_batch(p),
				 .probe_sequences =
					 spec->calibration.n_sources && spec->probe_every != PROBE_NEVER ? PROBE_MOST_SEQUENCES : 0,
				 .candidates = spec->besa.candidates,
				 .by_row = spec->besa.granularity == GRANULARITY_ROW};
	return STATUS_OK;
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

static enum status create(struct walk *w, struct error *err)
{
	const struct model *model = w->p->model;
	const struct block_layout *layout = &w->block.layout;
	int64_t samples = w->spec->calibration.samples, tokens = w->spec->calibration.sequence_length,
		hidden = model->config.hidden;
	int64_t largest = 0;
	w->batch = (int)pass_batch(w->p);
	TRY(block_create(model, w->backend, w->p->compute_type, tokens, &w->block, err));
	TRY(ranking_create(&w->block, &w->ranking, err));
	if (learns(w)) TRY(besa_create(w->spec, &w->block, &w->ranking, tokens, &w->besa, err));
	TRY(activations_create(&w->block, w->batch, tokens, false, &w->activations, err));
	struct tensor y = tensor_make(NULL, w->batch * tokens, hidden, DTYPE_F32);
	TRY(backend_failed(w, w->backend->ops->alloc(w->backend, tensor_bytes(&y), &y.data), err));
	w->y = y;
	TRY(backend_failed(w, w->backend->ops->alloc(w->backend, STEP_STATS * sizeof(double), &w->stats), err));
	int64_t at_once = w->batch > w->spec->besa.batch_size ? w->batch : w->spec->besa.batch_size;
	if (calibrated(w)) {
		TRY(stream_create(w->backend, samples, tokens, hidden, at_once, &w->input, err));
		TRY(stream_create(w->backend, samples, tokens, hidden, at_once, &w->reference, err));
	}
	for (int i = 0; i < layout->n_linears; i++)
		if (layout->linears[i].rows * layout->linears[i].cols > largest)
			largest = layout->linears[i].rows * layout->linears[i].cols;
	w->rates = malloc((size_t)layout->rows * sizeof *w->rates);
	w->thresholds = malloc((size_t)layout->rows * sizeof *w->thresholds);
	w->weights = malloc((size_t)largest * dtype_size(w->block.file_type));
	w->experts = calloc((size_t)layout->experts + 1, sizeof *w->experts);
	if (!w->rates || !w->thresholds || !w->weights || !w->experts)
		return error_set(err, STATUS_NO_MEMORY, "no memory for the weights of a linear");
	return create_probe(w, err);
}

static void destroy(struct walk *w)
{
	probe_release(&w->probe);
	stream_release(&w->input);
	stream_release(&w->reference);
	w->backend->ops->release(w->backend, w->stats);
	w->backend->ops->release(w->backend, w->y.data);
	activations_release(&w->activations, w->backend);
	besa_release(&w->besa);
	ranking_release(&w->ranking);
	block_release(&w->block);
	free(w->rates);
	free(w->thresholds);
	free(w->experts);
	free(w->weights);
}

/* A job that began on another kind of device may have had a plan without probes: then it goes on without them. */
static enum status start_probe(struct walk *w, struct error *err)
{
	char path[4096];
	int first = w->p->job->blocks_done;
	if (!probes(w)) return STATUS_OK;
	if (!first) {
		TRY(probe_embed(&w->probe, err));
		return probe_dense(&w->probe, &w->p->savepoint->probe_dense, err);
	}
	savepoint_path(w->p->savepoint, "probe", first, path);
	if (path_exists(path)) return stream_load(&w->probe.behind, path, err);
	probe_release(&w->probe);
	return STATUS_OK;
}

/* The hidden states that the first block to prune starts from. */
static enum status start(struct walk *w, const struct sequences *calibration, struct error *err)
{
	char path[4096];
	int first = w->p->job->blocks_done;
	TRY(start_probe(w, err));
	if (!calibrated(w)) return STATUS_OK;
	if (!first) return embed_all(w, calibration, err);
	savepoint_path(w->p->savepoint, "hidden", first, path);
	TRY(stream_load(&w->input, path, err));
	savepoint_path(w->p->savepoint, "dense", first, path);
	return w->dense_stream ? stream_load(&w->reference, path, err) : STATUS_OK;
}

enum status prune_blocks(const struct pruning *p, const struct sequences *calibration, struct error *err)
{
	const struct spec *spec = p->job->spec;
	struct walk w = {.p = p, .spec = spec, .backend = p->backend};
	if (p->job->blocks_done >= p->model->config.layers) return STATUS_OK;
	w.dense_stream = spec->method == METHOD_BESA && spec->besa.target == TARGET_DENSE_STREAM;
	enum status status = create(&w, err);
	if (status == STATUS_OK) status = start(&w, calibration, err);
	for (int index = p->job->blocks_done; status == STATUS_OK && index < p->model->config.layers; index++) {
		status = prune_block(&w, index, err);
		if (status != STATUS_OK && status != STATUS_CANCELLED)
			error_prefix(err, "block %d of %d", index, (int)p->model->config.layers);
	}
	destroy(&w);
	return status;
}
