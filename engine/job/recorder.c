#include "engine/job/recorder.h"

#include <stdlib.h>

#include "base/json.h"

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for the job's events");
}

enum status recorder_open(struct recorder *ret, const struct event_store *store, int blocks_done, struct error *err)
{
	struct recorder recorder = {.store = *store, .told = cJSON_CreateObject(), .blocks_done = blocks_done};
	enum status status = recorder.told ? STATUS_OK : no_memory(err);
	for (int i = 0; i < EVENT_TYPES && status == STATUS_OK; i++) {
		const struct event_kind *kind = &event_kinds[i];
		if (!kind->once) continue;
		cJSON *list = cJSON_AddArrayToObject(recorder.told, kind->name);
		status = list ? store->find(store->context, kind->name, list, err) : no_memory(err);
	}
	if (status == STATUS_OK)
		*ret = recorder;
	else
		recorder_close(&recorder);
	return status;
}

void recorder_close(struct recorder *recorder)
{
	cJSON_Delete(recorder->told);
	recorder->told = NULL;
}

static bool was_told(const struct recorder *recorder, const char *type, const cJSON *data)
{
	const cJSON *told;
	cJSON_ArrayForEach(told,
			   cJSON_GetObjectItemCaseSensitive(recorder->told, type)) if (cJSON_Compare(told, data, true)) return true;
	return false;
}

static enum status append(struct recorder *recorder, const struct event *event, int block, struct error *err)
{
	const struct event_kind *kind = &event_kinds[event->type];
	char *text = json_ran_out() ? NULL : cJSON_PrintUnformatted(event->data);
	if (!text) return no_memory(err);
	const struct record record = {.type = kind->name,
				      .data = event->data,
				      .text = text,
				      .at = event->at,
				      .optional = kind->optional,
				      .durable = kind->durable,
				      .block = block};
	enum status status = recorder->store.append(recorder->store.context, &record, err);
	free(text);
	return status;
}

enum status recorder_event(void *context, const struct event *event, struct error *err)
{
	struct recorder *recorder = context;
	const struct event_kind *kind = &event_kinds[event->type];
	if (!kind->once) return append(recorder, event, -1, err);
	if (was_told(recorder, kind->name, event->data)) return STATUS_OK;
	cJSON *copy = cJSON_Duplicate(event->data, true);
	if (!copy) return no_memory(err);
	if (!json_add(cJSON_GetObjectItemCaseSensitive(recorder->told, kind->name), NULL, copy)) return no_memory(err);
	return append(recorder, event, -1, err);
}

enum status recorder_block(void *context, int block, const struct event *event, struct error *err)
{
	struct recorder *recorder = context;
	const char *type = event_kinds[EVENT_BLOCK_FINISHED].name;
	const cJSON *told = cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(recorder->told, type), block);
	if (block < recorder->blocks_done && told) return event_check_block(told, event->data, err);
	if (block != recorder->blocks_done)
		return error_set(err, STATUS_INTERNAL, "block %d is finished, but the next one to commit is %d", block,
				 recorder->blocks_done);
	TRY(append(recorder, event, block, err));
	recorder->blocks_done++;
	return STATUS_OK;
}
