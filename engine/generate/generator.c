#include "engine/generate/generator.h"

#include <inttypes.h>
#include <stdlib.h>

#include "base/clock.h"
#include "engine/generate/stops.h"
#include "engine/model/check.h"
#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

struct generator {
	struct model model;
	bool opened;
	struct backend *backend;
	struct tokenizer *tokenizer;
	struct stops stops;
	struct decoder *decoder;
	int64_t memory; /* that sequences may take; -1: no bound */
};

static enum status bound_memory(struct generator *g, const struct generator_wishes *wishes, struct error *err)
{
	int64_t weights;
	g->memory = -1;
	if (!wishes->memory) return STATUS_OK;
	TRY(decoder_memory(&g->model.config, &wishes->decoder, &weights, err));
	if (weights > wishes->memory)
		return error_set(err, STATUS_UNSUPPORTED, "the model takes %" PRId64 " MiB of memory, and may take %" PRId64,
				 weights >> 20, wishes->memory >> 20);
	g->memory = wishes->memory - weights;
	return STATUS_OK;
}

static enum status open_parts(struct generator *g, const struct place *place, const struct generator_wishes *wishes,
			      const atomic_bool *stop, struct warnings *warnings, struct error *err)
{
	struct detokenizer *trial;
	TRY(model_open(place, warnings, &g->model, err));
	g->opened = true;
	TRY(bound_memory(g, wishes, err));
	TRY(model_check_all(&g->model, warnings, err));
	TRY(tokenizer_load(place, g->model.config.vocab, warnings, &g->tokenizer, err));
	TRY(detokenizer_create(g->tokenizer, &trial, err));
	detokenizer_free(trial);
	TRY(stops_read(place, &g->stops, err));
	TRY(backend_cpu_create(wishes->threads, &g->backend, err));
	return decoder_create(&g->model, g->backend, &wishes->decoder, stop, &g->decoder, err);
}

enum status generator_open(const struct place *model, const struct generator_wishes *wishes, const atomic_bool *stop,
			   struct warnings *warnings, struct generator **ret, struct error *err)
{
	struct generator *g = calloc(1, sizeof *g);
	if (!g) return error_set(err, STATUS_NO_MEMORY, "no memory for a model");
	enum status status = open_parts(g, model, wishes, stop, warnings, err);
	if (status == STATUS_OK)
		*ret = g;
	else
		generator_close(g);
	return status;
}

void generator_close(struct generator *g)
{
	if (!g) return;
	decoder_free(g->decoder);
	backend_destroy(g->backend);
	tokenizer_free(g->tokenizer);
	if (g->opened) model_close(&g->model);
	free(g);
}

struct decoder_size generator_size(const struct generator *g)
{
	return decoder_size(g->decoder);
}

int generator_threads(const struct generator *g)
{
	return g->backend->threads;
}

/* ---- one text --------------------------------------------------------------------------------------------------------------- */

struct run {
	struct generator *g;
	const struct generator_request *request;
	struct sampler sampler;
	struct detokenizer *detokenizer;
	struct generator_outcome outcome;
};

static bool stopped(const struct run *run)
{
	const struct generator_request *request = run->request;
	if (request->stop && atomic_load_explicit(request->stop, memory_order_relaxed)) return true;
	return request->ended && request->ended(request->context);
}

/* The prompt's ids, with what comes before a text. The caller frees *ret. */
static enum status encode(const struct run *run, int32_t **ret, size_t *ret_count, struct error *err)
{
	const struct tokenizer *tokenizer = run->g->tokenizer;
	int32_t bos = run->request->whole ? -1 : tokenizer_bos(tokenizer), *ids;
	size_t count, before = bos >= 0;
	TRY(tokenizer_encode(tokenizer, run->request->prompt, run->request->bytes, &ids, &count, err));
	int32_t *all = malloc((count + 1) * sizeof *all);
	for (size_t i = 0; all && i < count; i++)
		all[before + i] = ids[i];
	free(ids);
	if (!all) return error_set(err, STATUS_NO_MEMORY, "no memory for the prompt's tokens");
	if (before) all[0] = bos;
	*ret = all;
	*ret_count = before + count;
	return STATUS_OK;
}

/* How many tokens may be generated. */
static enum status room_for(const struct run *run, int64_t prompt, int64_t *ret, struct error *err)
{
	int64_t most = decoder_most_tokens(&run->g->model.config, prompt), wanted = run->request->max_tokens;
	if (!prompt) return error_set(err, STATUS_INVALID, "the prompt is empty, and the tokenizer puts no token before a text");
	if (prompt == most && most < run->g->model.config.max_positions)
		return error_set(err, STATUS_INVALID,
				 "the prompt has %" PRId64
				 " tokens, 'original_max_position_embeddings': behind the next all tokens would turn by other "
				 "factors of longrope; a shorter or longer prompt can be continued",
				 prompt);
	if (prompt >= most)
		return error_set(err, STATUS_INVALID,
				 "the prompt has %" PRId64 " tokens, and the model positions for %" PRId64
				 ": none is left for another",
				 prompt, most);
	wanted = wanted < most - prompt ? wanted : most - prompt;
	int64_t bytes = decoder_sequence_memory(&run->g->model.config, prompt + wanted);
	if (run->g->memory >= 0 && bytes > run->g->memory)
		return error_set(err, STATUS_UNSUPPORTED,
				 "the keys and values of %" PRId64 " tokens take %" PRId64
				 " MiB of memory, and beside the model %" PRId64 " are left: ask for fewer tokens",
				 prompt + wanted, bytes >> 20, run->g->memory >> 20);
	*ret = wanted;
	return STATUS_OK;
}

/* *ret_logits is NULL where it was stopped. */
static enum status read_prompt(struct run *run, const int32_t *ids, size_t count, const float **ret_logits, struct error *err)
{
	double start = monotonic_seconds();
	*ret_logits = NULL;
	for (size_t i = 0, n; i < count && !stopped(run); i += n) {
		n = count - i < DECODER_TOKENS ? count - i : DECODER_TOKENS;
		TRY(decoder_step(run->g->decoder, ids + i, (int64_t)n, i + n == count ? ret_logits : NULL, err));
		run->outcome.prompt_tokens += (int64_t)n;
	}
	run->outcome.prompt_seconds = monotonic_seconds() - start;
	return STATUS_OK;
}

static enum status take(struct run *run, int32_t id, struct error *err)
{
	const char *text;
	size_t bytes;
	TRY(detokenizer_add(run->detokenizer, id, &text, &bytes, err));
	run->outcome.tokens++;
	return run->request->take(run->request->context, id, text, bytes, err);
}

/* The tokens behind the prompt, up to `most` of them. */
static enum status continue_text(struct run *run, const float *logits, int64_t most, struct error *err)
{
	int32_t id;
	double start = monotonic_seconds();
	struct generator_outcome *outcome = &run->outcome;
	outcome->end = GENERATOR_LENGTH;
	while (outcome->tokens < most) {
		TRY(sampler_choose(&run->sampler, logits, &id, err));
		if (stops_has(&run->g->stops, id)) {
			outcome->end = GENERATOR_STOP;
			break;
		}
		TRY(take(run, id, err));
		if (stopped(run)) {
			outcome->end = GENERATOR_STOPPED;
			break;
		}
		if (outcome->tokens == most) break;
		double begin = monotonic_seconds();
		TRY(decoder_step(run->g->decoder, &id, 1, &logits, err));
		double took = monotonic_seconds() - begin;
		if (!outcome->steps++ || took < outcome->fastest) outcome->fastest = took;
	}
	outcome->seconds = monotonic_seconds() - start;
	return STATUS_OK;
}

static enum status run_ids(struct run *run, const int32_t *ids, size_t count, struct error *err)
{
	const float *logits;
	const char *text;
	size_t bytes;
	int64_t most = 0;
	TRY(room_for(run, (int64_t)count, &most, err));
	TRY(decoder_begin(run->g->decoder, (int64_t)count + most, err));
	TRY(read_prompt(run, ids, count, &logits, err));
	if (!logits) {
		run->outcome.end = GENERATOR_STOPPED;
		return STATUS_OK;
	}
	TRY(continue_text(run, logits, most, err));
	TRY(detokenizer_end(run->detokenizer, &text, &bytes, err));
	return bytes ? run->request->take(run->request->context, -1, text, bytes, err) : STATUS_OK;
}

enum status generator_run(struct generator *g, const struct generator_request *request, struct generator_outcome *ret,
			  struct error *err)
{
	struct run run = {.g = g, .request = request};
	int32_t *ids = NULL;
	size_t count = 0;
	TRY(sampler_create(request->sampling, g->model.config.vocab, &run.sampler, err));
	enum status status = detokenizer_create(g->tokenizer, &run.detokenizer, err);
	if (status == STATUS_OK) status = encode(&run, &ids, &count, err);
	if (status == STATUS_OK) status = run_ids(&run, ids, count, err);
	free(ids);
	detokenizer_free(run.detokenizer);
	sampler_free(&run.sampler);
	if (status == STATUS_OK) *ret = run.outcome;
	return status;
}
