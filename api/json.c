/* Rows as the contract's JSON; query parameters and bodies as values. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "api/http.h"
#include "base/json.h"

void time_format(int64_t milliseconds, char ret[32])
{
	time_t seconds = (time_t)(milliseconds / 1000);
	struct tm utc;
	gmtime_r(&seconds, &utc);
	size_t used = strftime(ret, 32, "%Y-%m-%dT%H:%M:%S", &utc);
	snprintf(ret + used, 32 - used, ".%03dZ", (int)(milliseconds % 1000));
}

static void add_time(cJSON *object, const char *key, int64_t milliseconds)
{
	char text[32];
	if (!milliseconds) {
		cJSON_AddNullToObject(object, key);
		return;
	}
	time_format(milliseconds, text);
	cJSON_AddStringToObject(object, key, text);
}

static void add_raw(cJSON *object, const char *key, const char *json)
{
	if (json)
		cJSON_AddRawToObject(object, key, json);
	else
		cJSON_AddNullToObject(object, key);
}

void job_add_error(cJSON *json, const char *code, const char *message)
{
	cJSON *error = code ? cJSON_AddObjectToObject(json, "error") : cJSON_AddNullToObject(json, "error");
	if (!code) return;
	cJSON_AddStringToObject(error, "code", code);
	cJSON_AddStringToObject(error, "message", message);
}

cJSON *job_json(const struct job *job)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "id", job->id);
	cJSON_AddStringToObject(json, "state", job_state_name(job->state));
	cJSON_AddStringToObject(json, "name", job->name ? job->name : "");
	add_raw(json, "spec", job->spec);

	cJSON *progress = cJSON_AddObjectToObject(json, "progress");
	const char *phase = job->progress.phase[0] ? job->progress.phase : NULL;
	if (phase)
		cJSON_AddStringToObject(progress, "phase", phase);
	else
		cJSON_AddNullToObject(progress, "phase");
	cJSON_AddNumberToObject(progress, "block", job->progress.block);
	cJSON_AddNumberToObject(progress, "blocks", job->progress.blocks);
	cJSON_AddNumberToObject(progress, "fraction", job->progress.fraction);
	if (job->progress.eta_seconds >= 0 && job->state == JOB_RUNNING)
		cJSON_AddNumberToObject(progress, "eta_seconds", job->progress.eta_seconds);
	else
		cJSON_AddNullToObject(progress, "eta_seconds");

	add_raw(json, "result", job->result);
	job_add_error(json, job->error_code, job->error_message);
	add_time(json, "created_at", job->created_at);
	add_time(json, "started_at", job->started_at);
	add_time(json, "finished_at", job->finished_at);
	add_time(json, "retry_at", job->state == JOB_QUEUED ? job->retry_at : 0);
	add_raw(json, "depends_on", job->depends_on);
	add_raw(json, "waits_for", job->state == JOB_QUEUED || job->state == JOB_PAUSED ? job->waits_for : "[]");
	cJSON_AddNumberToObject(json, "attempt", job->attempt);
	return json;
}

cJSON *event_json(const struct stored_event *event)
{
	cJSON *json = cJSON_CreateObject();
	cJSON_AddNumberToObject(json, "id", (double)event->id);
	cJSON_AddStringToObject(json, "type", event->type);
	add_time(json, "created_at", event->created_at);
	add_raw(json, "data", event->data);
	return json;
}

/* ---- query parameters ---------------------------------------------------------------------------------------------------- */

const char *query_value(const struct request *request, const char *key)
{
	for (size_t i = 0; i < request->n_query; i++)
		if (strcmp(request->query[i].key, key) == 0) return request->query[i].value;
	return NULL;
}

bool number_parse(const char *text, int64_t high, int64_t *ret)
{
	size_t digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 18 || text[digits]) return false;
	int64_t value = strtoll(text, NULL, 10);
	if (value > high) return false;
	*ret = value;
	return true;
}

void query_number(const struct request *request, const char *key, int64_t low, int64_t high, int64_t *ret, cJSON *errors)
{
	const char *text = query_value(request, key);
	int64_t value;
	if (!text) return;
	if (number_parse(text, high, &value) && value >= low)
		*ret = value;
	else
		problem_add(errors, "parameter", key, "must be a whole number from %" PRId64 " to %" PRId64, low, high);
}

/* The KEY of name[KEY]; the caller frees it. NULL where `key` is none such, or without memory, which is cJSON's: what is left out
 * of a filter must not be answered, and by json_ran_out is not. */
static char *map_key(const char *key, const char *name)
{
	size_t before = strlen(name), length = strlen(key);
	if (strncmp(key, name, before) != 0 || key[before] != '[' || length < before + 2 || key[length - 1] != ']') return NULL;
	char *copy = cJSON_malloc(length - before - 1);
	if (!copy) return NULL;
	memcpy(copy, key + before + 1, length - before - 2);
	copy[length - before - 2] = 0;
	return copy;
}

void query_map(const struct request *request, const char *name, char **ret, cJSON *errors)
{
	cJSON *map = cJSON_CreateObject();
	int count = 0;
	*ret = NULL;
	for (size_t i = 0; i < request->n_query; i++) {
		char *key = map_key(request->query[i].key, name);
		const char *value = request->query[i].value;
		if (!key) continue;
		if (!utf8_valid(key, strlen(key)) || !utf8_valid(value, strlen(value)))
			problem_add(errors, "parameter", name, "must be valid UTF-8");
		else if (!*key || utf8_characters(key) > MAP_KEY || utf8_has_control(key) || utf8_characters(value) > MAP_VALUE)
			problem_add(
				errors, "parameter", name,
				"must have keys of 1 to %d characters, none of them a control character, and values of %d at most",
				MAP_KEY, MAP_VALUE);
		else
			cJSON_AddStringToObject(map, key, value);
		count++;
		cJSON_free(key);
	}
	if (count > MAP_ENTRIES) problem_add(errors, "parameter", name, "must be %d at most", MAP_ENTRIES);
	if (map && map->child) *ret = cJSON_PrintUnformatted(map);
	cJSON_Delete(map);
}

/* ---- the body ------------------------------------------------------------------------------------------------------------ */

bool body_parse(const struct request *request, cJSON **ret, struct response *response)
{
	struct error err;
	const char *body = request->body.data ? request->body.data : "";
	enum status status = json_parse(body, request->body.size, "the body", ret, &err);
	if (status == STATUS_INVALID)
		problem(response, 400, "malformed-json", "%s", err.message);
	else if (status)
		problem_failure(response, &err);
	return status == STATUS_OK;
}
