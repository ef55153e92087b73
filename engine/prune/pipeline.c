#include "engine/prune/pipeline.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/json.h"
#include "engine/compute/dry.h"
#include "engine/methods/method.h"
#include "engine/prune/store.h"

enum {
	DEVICE_SECONDS = 60, /* between two saves, where a device computes: by default */
	SAVE_THREADS = 4,    /* that write hidden states */
};

/* ---- on disk ------------------------------------------------------------------------------------------------------------- */

/* Safe beside operations that do not write to the weights (6). Synced by the save that covers the block. */
static enum status write_weights(struct pipeline *pl, struct block_result *result, const struct tensor weights[FUSED_COUNT],
				 struct error *err)
{
	const struct store store = {.model = pl->p->model,
				    .writer = pl->p->writer,
				    .backend = pl->p->backend,
				    .layout = &pl->block->layout,
				    .room = pl->room};
	return store_weights(&store, result, weights, err);
}

static enum status save_stream(const struct pipeline *pl, const char *kind, int index, const struct stream *stream,
			       struct error *err)
{
	char path[4096];
	if (!stream->backend) return STATUS_OK;
	savepoint_path(pl->p->savepoint, kind, index, path);
	return stream_save(stream, path, SAVE_THREADS, err);
}

/* The first steps of (1), for a savepoint whose last block is `index`: the tensors, and the hidden states that the next one
 * starts from. */
static enum status sync_blocks(const struct pipeline *pl, int index, const struct outputs *outputs, struct error *err)
{
	int next = index + 1;
	TRY(writer_sync(pl->p->writer, err));
	if (next == pl->p->model->config.layers) return STATUS_OK;
	TRY(save_stream(pl, "hidden", next, &outputs->hidden, err));
	TRY(save_stream(pl, "dense", next, &outputs->dense, err));
	return save_stream(pl, "probe", next, &outputs->probe, err);
}

/* A savepoint of all that is committed is there: what it replaces went on from goes (2). */
static void note_save(struct pipeline *pl)
{
	struct error ignored; /* the next save tries again, and the job's directory goes in the end */
	savepoint_sweep(pl->p->savepoint, pl->done, &ignored);
	pl->saved = pl->done;
	pl->last_save = monotonic_seconds();
}

/* The last step of (1) for `last`, which is written, where it is to be saved, and the caller's commit. One that is committed
 * again is compared first: what differs is not saved (5). */
static enum status commit(struct pipeline *pl, struct error *err)
{
	const struct pruning *p = pl->p;
	const struct block_result *result = &pl->last;
	cJSON *data = block_result_json(result, &pl->block->layout, p->job->spec, (int)p->model->config.layers,
					p->savepoint->probe_dense);
	cJSON *copy = data ? cJSON_Duplicate(data, true) : NULL;
	if (!copy || json_ran_out() || !cJSON_AddItemToArray(p->savepoint->blocks, copy)) {
		cJSON_Delete(copy);
		cJSON_Delete(data);
		return error_set(err, STATUS_NO_MEMORY, "no memory for the result of a block");
	}
	if (p->savepoint->written) {
		enum status taken = writer_take_sums(p->writer, p->savepoint->written, err);
		if (taken != STATUS_OK) cJSON_Delete(data);
		TRY(taken);
	}
	struct event event = event_block_finished(data);
	bool again = result->index < p->job->blocks_done;
	enum status status = again ? p->sink->commit_block(p->sink->context, result->index, &event, err) : STATUS_OK;
	if (status == STATUS_OK && pl->save) status = savepoint_save(p->savepoint, p->spec_json, err);
	if (status == STATUS_OK && !again) status = p->sink->commit_block(p->sink->context, result->index, &event, err);
	cJSON_Delete(event.data);
	if (status != STATUS_OK) return status;
	pl->done = result->index + 1;
	pl->intact = true;
	if (pl->save) note_save(pl);
	return STATUS_OK;
}

/* ---- events -------------------------------------------------------------------------------------------------------------- */

enum status pipeline_tell(struct pipeline *pl, struct event event, struct error *err)
{
	if (pl->state == PIPELINE_CLEAR) return event_tell(pl->p->sink, &event, err);
	if (pl->n_held == pl->room_held) {
		int room = 2 * pl->room_held + 16;
		struct event *grown = realloc(pl->held, (size_t)room * sizeof *grown);
		if (!grown) {
			cJSON_Delete(event.data);
			return error_set(err, STATUS_NO_MEMORY, "no memory for an event");
		}
		pl->held = grown;
		pl->room_held = room;
	}
	pl->held[pl->n_held++] = event;
	return STATUS_OK;
}

static enum status tell_held(struct pipeline *pl, struct error *err)
{
	enum status status = STATUS_OK;
	for (int i = 0; i < pl->n_held; i++)
		if (status == STATUS_OK)
			status = event_tell(pl->p->sink, &pl->held[i], err);
		else
			cJSON_Delete(pl->held[i].data);
	pl->n_held = 0;
	return status;
}

/* ---- the steps ----------------------------------------------------------------------------------------------------------- */

static enum status write_last(void *context, struct error *err)
{
	struct pipeline *pl = context;
	TRY(write_weights(pl, &pl->last, pl->last_weights, err));
	return pl->save ? sync_blocks(pl, pl->last.index, &pl->last_outputs, err) : STATUS_OK;
}

static enum status fetch_next(void *context, struct error *err)
{
	struct pipeline *pl = context;
	return block_fetch(pl->block, pl->p->model, pl->next, err);
}

bool pipeline_keeps(const struct pipeline *pl, int index)
{
	return pl->background && index + 1 < pl->p->model->config.layers;
}

void pipeline_beside(struct pipeline *pl, int index)
{
	if (!pl->background) return;
	bool kept = pl->state == PIPELINE_KEPT;
	pl->next = index + 1;
	if (kept) pl->state = PIPELINE_WRITING;
	background_start(pl->background, kept ? write_last : NULL, pl->next < pl->p->model->config.layers ? fetch_next : NULL, pl);
}

enum status pipeline_settle(struct pipeline *pl, struct error *err)
{
	if (pl->state == PIPELINE_CLEAR) return STATUS_OK;
	enum status status = pl->state == PIPELINE_WRITING ? background_wait_first(pl->background, err) : write_last(pl, err);
	pl->state = PIPELINE_CLEAR;
	if (status == STATUS_OK) status = commit(pl, err);
	if (status != STATUS_OK) error_prefix(err, "writing block %d", pl->last.index);
	block_result_release(&pl->last);
	return status == STATUS_OK ? tell_held(pl, err) : status;
}

enum status pipeline_poll(struct pipeline *pl, struct error *err)
{
	bool written = pl->state == PIPELINE_WRITING && background_first_over(pl->background);
	return written ? pipeline_settle(pl, err) : STATUS_OK;
}

/* A fetch that failed is tried again, in line, by block_load. */
enum status pipeline_stop(struct pipeline *pl, struct error *err)
{
	struct error ignored;
	TRY(pipeline_settle(pl, err));
	if (pl->background) background_wait_second(pl->background, &ignored);
	return STATUS_OK;
}

enum status pipeline_write_weights(struct pipeline *pl, struct block_result *result, struct error *err)
{
	return write_weights(pl, result, pl->block->weight, err);
}

void pipeline_forget(struct pipeline *pl)
{
	pl->intact = false;
}

/* Is block `index`, which is done now, to be saved? The last one is: what follows reads the output. */
static bool due(const struct pipeline *pl, int index, bool lasting)
{
	bool last = index + 1 == pl->p->model->config.layers;
	return last || !lasting || pl->every <= 0 || monotonic_seconds() - pl->last_save >= pl->every;
}

enum status pipeline_finish(struct pipeline *pl, struct block_result *result, const struct outputs *outputs, struct way way,
			    struct error *err)
{
	pl->intact = false;
	pl->save = due(pl, result->index, way.lasting);
	pl->last = *result;
	*result = (struct block_result){0};
	pl->last_outputs = *outputs;
	if (way.keep) {
		memcpy(pl->last_weights, pl->block->weight, sizeof pl->last_weights);
		pl->state = PIPELINE_KEPT;
		return STATUS_OK;
	}
	enum status status = pl->save ? sync_blocks(pl, pl->last.index, outputs, err) : STATUS_OK;
	if (status == STATUS_OK) status = commit(pl, err);
	block_result_release(&pl->last);
	return status;
}

enum status pipeline_save(struct pipeline *pl, struct error *err)
{
	if (pl->done == pl->saved || !pl->intact) return STATUS_OK;
	TRY(sync_blocks(pl, pl->done - 1, &pl->last_outputs, err));
	TRY(savepoint_save(pl->p->savepoint, pl->p->spec_json, err));
	note_save(pl);
	return STATUS_OK;
}

enum status pipeline_catch_up(const struct pruning *p, struct error *err)
{
	int saved = savepoint_blocks(p->savepoint);
	for (int i = p->job->blocks_done; i < saved; i++) {
		struct event event = event_block_finished(cJSON_Duplicate(cJSON_GetArrayItem(p->savepoint->blocks, i), true));
		enum status status = p->sink->commit_block(p->sink->context, i, &event, err);
		cJSON_Delete(event.data);
		if (status != STATUS_OK) return status;
	}
	return savepoint_sweep(p->savepoint, saved, err);
}

int64_t pipeline_disk_bytes(const struct model *model, const struct spec *spec, int64_t probed)
{
	const struct method *method = method_find(spec->method);
	int64_t length = spec->calibration.sequence_length, hidden = model->config.hidden, layers = model->config.layers, bytes = 0;
	int streams = !spec->calibration.n_sources ? 0 : method->dense_stream && method->dense_stream(spec) ? 2 : 1;
	if (streams) bytes += streams * stream_file_bytes(spec->calibration.samples, length, hidden);
	if (probed) bytes += stream_file_bytes(probed, length, hidden);
	return bytes * (layers > 2 ? 2 : layers - 1); /* none behind the last block */
}

enum status pipeline_create(const struct pruning *p, struct block *block, struct pipeline *ret, struct error *err)
{
	int saved = savepoint_blocks(p->savepoint);
	double every = p->job->save_every >= 0 ? p->job->save_every : p->backend->unified ? 0 : DEVICE_SECONDS;
	*ret = (struct pipeline){
		.p = p, .block = block, .every = every, .last_save = monotonic_seconds(), .done = saved, .saved = saved};
	ret->room_bytes = layout_room(&block->layout, block->file_type);
	ret->room = malloc((size_t)ret->room_bytes);
	if (!ret->room) return error_set(err, STATUS_NO_MEMORY, "no memory for the weights of a linear");
	dry_host(p->backend, ret->room_bytes);
	if (p->backend->unified) return STATUS_OK;
	TRY(background_create(&ret->background, err));
	return block_add_spare(block, err);
}

void pipeline_destroy(struct pipeline *pl)
{
	background_destroy(pl->background);
	block_result_release(&pl->last);
	for (int i = 0; i < pl->n_held; i++)
		cJSON_Delete(pl->held[i].data);
	free(pl->held);
	if (pl->room) dry_host(pl->p->backend, -pl->room_bytes);
	free(pl->room);
}
