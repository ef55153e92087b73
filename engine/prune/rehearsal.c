#include "engine/prune/rehearsal.h"

#include <stdint.h>
#include <stdlib.h>

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

/* A dry run with so much memory and, at most, so many streams on the device. */
static enum status attempt(const struct pruning *pruning, size_t capacity, int device_streams, struct rehearsal *ret,
			   struct error *err)
{
	static const struct engine_sink silent = {.event = tell_nobody, .progress = be_silent};
	struct progress progress = {.sink = &silent};
	struct savepoint nothing = {0};
	struct pruning dry = *pruning;
	enum status status = pruning->backend->ops->dry(pruning->backend, capacity, &dry.backend);
	if (status != STATUS_OK) {
		*err = pruning->backend->error;
		return status;
	}
	dry.sink = &silent;
	dry.progress = &progress;
	dry.savepoint = &nothing;
	dry.device_streams = device_streams;
	status = prune_rehearse(&dry, &ret->device_streams, err);
	ret->peak = dry.backend->memory.most;
	ret->host = dry.backend->host.most;
	backend_destroy(dry.backend);
	return status;
}

enum status rehearse_pruning(const struct pruning *pruning, struct rehearsal *ret, struct error *err)
{
	struct backend *backend = pruning->backend;
	size_t free_bytes, total;
	enum status status = backend->ops->memory(backend, &free_bytes, &total);
	if (status != STATUS_OK) {
		*err = backend->error;
		return status;
	}
	*ret = (struct rehearsal){.available = free_bytes + backend->memory.now};
	/* What was handed out before and is handed out again may be an eighth larger than asked for; not all of it is. */
	size_t capacity = ret->available - ret->available / 32;
	for (int streams = 2; streams >= 0; streams--) {
		status = attempt(pruning, capacity, streams, ret, err);
		ret->fits = status == STATUS_OK;
		if (status != STATUS_NO_MEMORY) return status;
	}
	return attempt(pruning, SIZE_MAX, 0, ret, err);
}

enum status rehearse_largest(const struct pruning *pruning, struct rehearsal *ret, struct error *err)
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
	enum status status = rehearse_pruning(&largest, ret, err);
	free(tokens.ids);
	return status;
}
