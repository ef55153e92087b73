/* Whether jobs are begun: a drained besad takes them, and they wait. */
#include <string.h>

#include "api/http.h"

static void answer(struct response *response, int64_t since)
{
	char text[32];
	cJSON *json = cJSON_CreateObject();
	if (since) time_format(since, text);
	cJSON_AddBoolToObject(json, "drained", since != 0);
	cJSON_AddItemToObject(json, "since", since ? cJSON_CreateString(text) : cJSON_CreateNull());
	response_json(response, 200, json);
}

void drain_show(const struct request *request, struct response *response)
{
	int64_t since;
	struct error err;
	if (db_drain_get(request->config->db, &since, &err))
		problem_failure(response, &err);
	else
		answer(response, since);
}

static void set(const struct request *request, bool drained, bool now, struct response *response)
{
	const struct api_hooks *hooks = &request->config->hooks;
	int64_t since;
	struct error err;
	if (db_drain_set(request->config->db, drained, &since, &err)) {
		problem_failure(response, &err);
		return;
	}
	hooks->drained(hooks->context, since, now);
	answer(response, since);
}

void drain_begin(const struct request *request, struct response *response)
{
	const char *now = query_value(request, "now");
	bool at_once = now && strcmp(now, "true") == 0;
	if (now && !at_once && strcmp(now, "false") != 0) {
		cJSON *errors = cJSON_CreateArray();
		problem_add(errors, "parameter", "now", "must be true or false");
		problem_fields(response, 400, "invalid-query", "the query is not understood", errors);
		return;
	}
	set(request, true, at_once, response);
}

void drain_end(const struct request *request, struct response *response)
{
	set(request, false, false, response);
}
