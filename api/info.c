/* What the daemon is and how it is: info, models, data, health, metrics. */
#include <stdlib.h>
#include <string.h>

#include "api/http.h"

static void add_reading(cJSON *to, const char *key, double value)
{
	cJSON_AddItemToObject(to, key, value < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(value));
}

void info_show(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	cJSON *json = config->hooks.info(config->hooks.context);
	struct device_reading device;
	metrics_get_device(config->metrics, &device);
	cJSON *load = json ? cJSON_AddObjectToObject(json, "device_load") : NULL;
	add_reading(load, "utilisation", device.utilisation);
	add_reading(load, "memory_used_bytes", device.memory_used);
	add_reading(load, "memory_total_bytes", device.memory_total);
	add_reading(load, "power_watts", device.watts);
	add_reading(load, "temperature_celsius", device.celsius);
	cJSON *limits = json ? cJSON_AddObjectToObject(json, "limits") : NULL;
	cJSON_AddNumberToObject(limits, "queue", (double)*config->queue_limit);
	cJSON_AddNumberToObject(limits, "study_jobs", API_MAX_STUDY_JOBS);
	cJSON_AddNumberToObject(limits, "body_bytes", API_MAX_BODY);
	cJSON_AddNumberToObject(limits, "header_bytes", API_MAX_HEADERS);
	cJSON_AddNumberToObject(limits, "page", API_MAX_PAGE);
	cJSON_AddNumberToObject(limits, "connections", (double)config->connections);
	cJSON_AddNumberToObject(limits, "streams", (double)api_streams(config));
	response_json(response, 200, json);
}

static void answer_list(struct response *response, const char *key, enum status status, cJSON *list, bool truncated,
			const struct error *err)
{
	if (status) {
		problem_failure(response, err);
		return;
	}
	cJSON *json = cJSON_CreateObject();
	cJSON_AddItemToObject(json, key, list);
	cJSON_AddBoolToObject(json, "truncated", truncated);
	response_json(response, 200, json);
}

void models_list(const struct request *request, struct response *response)
{
	const struct api_hooks *hooks = &request->config->hooks;
	cJSON *list = NULL;
	bool truncated = false;
	struct error err;
	enum status status = hooks->models(hooks->context, &list, &truncated, &err);
	answer_list(response, "models", status, list, truncated, &err);
}

void data_list(const struct request *request, struct response *response)
{
	const struct api_hooks *hooks = &request->config->hooks;
	cJSON *list = NULL;
	bool truncated = false;
	struct error err;
	enum status status = hooks->data(hooks->context, &list, &truncated, &err);
	answer_list(response, "data", status, list, truncated, &err);
}

void health_live(const struct request *request, struct response *response)
{
	(void)request;
	static const char body[] = "{\"status\":\"ok\"}\n";
	response_static(response, "application/json", body, sizeof body - 1);
}

void health_ready(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	static const char body[] = "{\"status\":\"ready\"}\n";
	struct error err;
	if (config->hooks.ready(config->hooks.context, &err)) {
		problem(response, 503, "not-ready", "%s", err.message);
		response_header(response, "Retry-After", "5");
	} else {
		response_static(response, "application/json", body, sizeof body - 1);
	}
}

void metrics_show(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	int64_t jobs[JOB_STATES];
	struct error err;
	struct buffer text = {0};
	if (db_job_counts(config->db, jobs, &err)) {
		problem_failure(response, &err);
		return;
	}
	metrics_write(config->metrics, jobs, &text);
	response_text(response, "text/plain; version=0.0.4; charset=utf-8", &text);
}
