#include "engine/job/event.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/json.h"
#include "engine/engine.h"

const struct event_kind event_kinds[EVENT_TYPES] = {
	[EVENT_JOB_STARTED] = {"job.started"},
	[EVENT_JOB_SUCCEEDED] = {"job.succeeded", .durable = true},
	[EVENT_WARNING] = {"warning", .once = true},
	/* Durable, as the savepoint behind them says that they need not be told again. */
	[EVENT_EVAL_FINISHED] = {"eval.finished", .once = true, .durable = true},
	[EVENT_TASK_FINISHED] = {"task.finished", .once = true, .durable = true},
	[EVENT_BLOCK_STARTED] = {"block.started"},
	[EVENT_BLOCK_STEP] = {"block.step", .optional = true},
	[EVENT_BLOCK_FINISHED] = {"block.finished", .once = true, .durable = true},
	[EVENT_TUNE_STEP] = {"tune.step", .optional = true},
};

bool event_is_once(const char *name)
{
	for (int i = 0; i < EVENT_TYPES; i++)
		if (strcmp(event_kinds[i].name, name) == 0) return event_kinds[i].once;
	return false;
}

static struct event event_of(enum event_type type, cJSON *data)
{
	return (struct event){.type = type, .at = unix_milliseconds(), .data = data};
}

struct event event_job_started(int attempt, int blocks_done)
{
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "attempt", attempt);
	cJSON_AddNumberToObject(data, "blocks_done", blocks_done);
	return event_of(EVENT_JOB_STARTED, data);
}

struct event event_job_succeeded(const cJSON *result)
{
	return event_of(EVENT_JOB_SUCCEEDED, cJSON_Duplicate(result, true));
}

struct event event_warning(const char *message)
{
	cJSON *data = cJSON_CreateObject();
	cJSON_AddStringToObject(data, "message", message);
	return event_of(EVENT_WARNING, data);
}

struct event event_finding(const struct finding *finding)
{
	const struct diagnosis_rule *rule = &diagnosis_rules[finding->rule];
	struct event event = event_warning(finding->message);
	cJSON_AddStringToObject(event.data, "rule", rule->name);
	cJSON_AddNumberToObject(event.data, "value", finding->value);
	cJSON_AddNumberToObject(event.data, "threshold", rule->threshold);
	cJSON_AddStringToObject(event.data, "meaning", rule->meaning);
	cJSON_AddStringToObject(event.data, "change", rule->change);
	return event;
}

struct event event_evaluation(const char *dataset, const char *model, double perplexity)
{
	cJSON *data = cJSON_CreateObject();
	cJSON_AddStringToObject(data, "dataset", dataset);
	cJSON_AddStringToObject(data, "model", model);
	cJSON_AddNumberToObject(data, "perplexity", perplexity);
	return event_of(EVENT_EVAL_FINISHED, data);
}

struct event event_task(const char *task, const char *model, const cJSON *score)
{
	cJSON *data = cJSON_Duplicate(score, true);
	cJSON_AddStringToObject(data, "task", task);
	cJSON_AddStringToObject(data, "model", model);
	return event_of(EVENT_TASK_FINISHED, data);
}

struct event event_block_started(int block, int blocks, int attempt)
{
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "block", block);
	cJSON_AddNumberToObject(data, "blocks", blocks);
	cJSON_AddNumberToObject(data, "attempt", attempt);
	return event_of(EVENT_BLOCK_STARTED, data);
}

struct event event_block_step(int block, const struct event_step *step, int attempt)
{
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "block", block);
	if (step->stage) cJSON_AddStringToObject(data, "stage", step->stage);
	cJSON_AddNumberToObject(data, "step", step->step);
	cJSON_AddNumberToObject(data, "steps", step->steps);
	cJSON_AddNumberToObject(data, "loss", step->loss);
	cJSON_AddNumberToObject(data, "reconstruction", step->reconstruction);
	cJSON_AddNumberToObject(data, "sparsity", step->sparsity);
	cJSON_AddNumberToObject(data, "attempt", attempt);
	return event_of(EVENT_BLOCK_STEP, data);
}

struct event event_block_finished(cJSON *data)
{
	return event_of(EVENT_BLOCK_FINISHED, data);
}

struct event event_tune_step(int step, int steps, double loss, int attempt)
{
	cJSON *data = cJSON_CreateObject();
	cJSON_AddNumberToObject(data, "step", step);
	cJSON_AddNumberToObject(data, "steps", steps);
	cJSON_AddNumberToObject(data, "loss", loss);
	cJSON_AddNumberToObject(data, "attempt", attempt);
	return event_of(EVENT_TUNE_STEP, data);
}

static enum status refuse_block(const cJSON *told, const char *field, const cJSON *then, const cJSON *now, struct error *err)
{
	char *before = cJSON_PrintUnformatted(then), *after = now ? cJSON_PrintUnformatted(now) : NULL;
	const cJSON *block = cJSON_GetObjectItemCaseSensitive(told, "block");
	error_set(err, STATUS_INVALID,
		  "block %.0f was finished with %s %s, and comes to %s now that it is done again: something differs from then "
		  "(device, driver, "
		  "libraries, threads), and the job would be of two minds; submit it again",
		  cJSON_GetNumberValue(block), field, before ? before : "?", after ? after : "none");
	free(before);
	free(after);
	return STATUS_INVALID;
}

enum status event_check_block(const cJSON *told, const cJSON *again, struct error *err)
{
	struct json_difference difference;
	const cJSON *then;
	cJSON_ArrayForEach(then, told)
	{
		const cJSON *now = cJSON_GetObjectItemCaseSensitive(again, then->string);
		if (strcmp(then->string, "seconds") == 0 || strcmp(then->string, "phases") == 0) continue;
		/* What only one of two objects has, a version in between has added. */
		if (!now || json_differ(then, now, true, &difference)) return refuse_block(told, then->string, then, now, err);
	}
	return STATUS_OK;
}

enum status event_tell(const struct engine_sink *sink, struct event *event, struct error *err)
{
	enum status status =
		event->data ? sink->event(sink->context, event, err) : error_set(err, STATUS_NO_MEMORY, "no memory for an event");
	cJSON_Delete(event->data);
	event->data = NULL;
	return status;
}
