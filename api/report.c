/* The report of a job: what each finished block came to, and what the zeros are worth on hardware. */
#include "api/http.h"
#include "base/json.h"

#include <string.h>

static const char *const keys[] = {"block", "reconstruction", "seconds", "perplexity", "perplexity_dense", "layers", "experts"};

/* Moves the report's part of a block.finished event's data to a new object. */
static cJSON *block_entry(cJSON *data)
{
	cJSON *entry = cJSON_CreateObject();
	for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
		cJSON *value = cJSON_DetachItemFromObjectCaseSensitive(data, keys[i]);
		cJSON_AddItemToObject(entry, keys[i], value ? value : cJSON_CreateNull());
	}
	return entry;
}

/* Adds what the job's result says of hardware, where it says something. */
static enum status add_hardware(const struct request *request, cJSON *report, struct error *err)
{
	struct job job;
	cJSON *result = NULL;
	TRY(db_job_get(request->config->db, request->id, &job, err));
	enum status status = job.result ? json_parse(job.result, strlen(job.result), "a result", &result, err) : STATUS_OK;
	cJSON *hardware = cJSON_DetachItemFromObjectCaseSensitive(result, "hardware");
	if (hardware) cJSON_AddItemToObject(report, "hardware", hardware);
	cJSON_Delete(result);
	job_clear(&job);
	return status;
}

/* Adds the warnings that are of a rule (engine/job/diagnosis.h). */
static enum status add_diagnosis(const struct request *request, cJSON *report, struct error *err)
{
	char **texts;
	size_t count;
	TRY(db_event_data(request->config->db, request->id, "warning", &texts, &count, err));
	cJSON *diagnosis = cJSON_AddArrayToObject(report, "diagnosis");
	enum status status = STATUS_OK;
	for (size_t i = 0; i < count && !status; i++) {
		cJSON *data = NULL;
		status = json_parse(texts[i], strlen(texts[i]), "a warning", &data, err);
		if (!status && cJSON_HasObjectItem(data, "rule"))
			cJSON_AddItemToArray(diagnosis, data);
		else
			cJSON_Delete(data);
	}
	text_list_free(texts, count);
	return status;
}

void report_show(const struct request *request, struct response *response)
{
	char **blocks;
	size_t count;
	struct error err;
	enum status status = db_block_list(request->config->db, request->id, &blocks, &count, &err);
	if (status) {
		problem_failure(response, &err);
		return;
	}
	cJSON *json = cJSON_CreateObject();
	cJSON *array = cJSON_AddArrayToObject(json, "blocks");
	for (size_t i = 0; i < count && !status; i++) {
		cJSON *data;
		status = json_parse(blocks[i], strlen(blocks[i]), "a block", &data, &err);
		if (status) break;
		cJSON_AddItemToArray(array, block_entry(data));
		cJSON_Delete(data);
	}
	text_list_free(blocks, count);
	if (!status) status = add_diagnosis(request, json, &err);
	if (!status) status = add_hardware(request, json, &err);
	if (!status) {
		response_json(response, 200, json);
		return;
	}
	cJSON_Delete(json);
	problem_failure(response, &err);
}
