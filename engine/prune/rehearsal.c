#include "engine/prune/rehearsal.h"

#include <stdint.h>
#include <stdlib.h>

#include "engine/compute/dry.h"
#include "engine/tune/tune.h"

static void be_silent(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds)
{
	(void)context;
	(void)phase;
	(void)block;
	(void)blocks;
	(void)fraction;
	(void)eta_seconds;
}

static enum status tell_nobody(void *context, const struct event *event, struct error *err)
{
	(void)context;
	(void)event;
	(void)err;
	return STATUS_OK;
}

const struct engine_sink rehearsal_sink = {.event = tell_nobody, .progress = be_silent};

/* What is rehearsed. */
struct piece {
	const struct pruning *pruning;
	enum status (*evaluate)(void *context, struct backend *, struct error *err); /* NULL: the pruning alone */
	void *context;
};

/* What one phase takes at most, apart from what others took. */
static enum status rehearse_tune(const struct pruning *dry, struct rehearsal *ret, struct error *err)
{
	struct memory_count *memory = &dry->backend->memory;
	size_t before = memory->most;
	memory->most = memory->now;
	enum status status = tune_rehearse(dry, err);
	ret->tune = memory->most;
	if (memory->most < before) memory->most = before;
	return status;
}

static enum status play(const struct piece *piece, const struct pruning *dry, struct rehearsal *ret, struct error *err)
{
	bool prunes = spec_makes_output(dry->job->spec);
	ret->walk = ret->tune = 0;
	if (piece->evaluate) TRY(piece->evaluate(piece->context, dry->backend, err));
	if (!prunes) return STATUS_OK;
	TRY(prune_rehearse(dry, &ret->device_streams, err));
	ret->walk = dry->backend->memory.most;
	if (tune_wanted(dry->job->spec)) TRY(rehearse_tune(dry, ret, err));
	return piece->evaluate ? piece->evaluate(piece->context, dry->backend, err) : STATUS_OK;
}

/* A dry run with so much memory and, at most, so many streams on the device. */
static enum status attempt(const struct piece *piece, size_t capacity, int device_streams, bool orders, struct rehearsal *ret,
			   struct error *err)
{
	struct progress progress = {.sink = &rehearsal_sink};
	struct savepoint nothing = {0};
	struct pruning dry = *piece->pruning;
	struct backend *backend = dry.backend;
	enum status status = backend->ops->dry(backend, capacity, &dry.backend);
	if (status != STATUS_OK) {
		*err = backend->error;
		return status;
	}
	dry.sink = &rehearsal_sink;
	dry.progress = &progress;
	dry.savepoint = &nothing;
	dry.device_streams = device_streams;
	dry.orders = ret->orders = orders;
	status = play(piece, &dry, ret, err);
	ret->peak = dry.backend->memory.most;
	ret->host = dry.backend->host.most;
	ret->process = dry.backend->dry->most;
	backend_destroy(dry.backend);
	return status;
}

static enum status rehearse(const struct piece *piece, size_t available, struct rehearsal *ret, struct error *err)
{
	*ret = (struct rehearsal){0};
	/* What was handed out before and is handed out again may be an eighth larger than asked for; not all of it is. */
	size_t capacity = available - available / 32;
	for (int streams = piece->pruning->device_streams; streams >= 0; streams--)
		for (int orders = piece->pruning->orders; orders >= 0; orders--) {
			enum status status = attempt(piece, capacity, streams, orders, ret, err);
			ret->fits = status == STATUS_OK;
			if (status == STATUS_OK && orders && ret->device_streams < streams)
				continue; /* they took a stream's room */
			if (status != STATUS_NO_MEMORY) return status;
		}
	return attempt(piece, SIZE_MAX, 0, false, ret, err);
}

enum status rehearsal_available(struct backend *backend, size_t *ret, struct error *err)
{
	size_t free_bytes, total;
	enum status status = backend->ops->memory(backend, &free_bytes, &total);
	if (status != STATUS_OK) {
		*err = backend->error;
		return status;
	}
	*ret = free_bytes + backend->memory.now;
	return STATUS_OK;
}

enum status rehearse_pruning(const struct pruning *pruning, size_t available, struct rehearsal *ret, struct error *err)
{
	return rehearse(&(struct piece){.pruning = pruning}, available, ret, err);
}

enum status rehearse_job(const struct pruning *pruning, size_t available,
			 enum status (*evaluate)(void *context, struct backend *, struct error *err), void *context,
			 struct rehearsal *ret, struct error *err)
{
	return rehearse(&(struct piece){pruning, evaluate, context}, available, ret, err);
}

enum status rehearse_largest(const struct pruning *pruning, size_t available, struct rehearsal *ret, struct error *err)
{
	const struct spec *spec = pruning->job->spec;
	bool probed = spec->calibration.n_sources && spec->probe_every != PROBE_NEVER;
	struct sequences tokens = {.count = PROBE_MOST_SEQUENCES, .length = spec->calibration.sequence_length};
	struct probe_plan plan = {.sequences = probed ? tokens.count : 0};
	struct pruning largest = *pruning;
	tokens.ids = calloc((size_t)(tokens.count * tokens.length), sizeof *tokens.ids);
	if (!tokens.ids) return error_set(err, STATUS_NO_MEMORY, "no memory for the tokens of a probe");
	largest.probe = &tokens;
	largest.plan = &plan;
	enum status status = rehearse_pruning(&largest, available, ret, err);
	free(tokens.ids);
	return status;
}
