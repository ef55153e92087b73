/* Who has changed what, for admins. */
#include "api/http.h"

static void add_text(cJSON *to, const char *key, const char *text)
{
	cJSON_AddItemToObject(to, key, text ? cJSON_CreateString(text) : cJSON_CreateNull());
}

static cJSON *entry_json(const struct audit_entry *entry)
{
	char at[32];
	cJSON *json = cJSON_CreateObject();
	time_format(entry->at, at);
	cJSON_AddNumberToObject(json, "id", (double)entry->id);
	cJSON_AddStringToObject(json, "at", at);
	add_text(json, "who", entry->who);
	add_text(json, "peer", entry->peer);
	add_text(json, "action", entry->action);
	add_text(json, "target", entry->target);
	add_text(json, "outcome", entry->outcome);
	cJSON_AddNumberToObject(json, "count", (double)entry->count);
	return json;
}

void audit_list(const struct request *request, struct response *response)
{
	int64_t after = INT64_MAX, limit = API_DEFAULT_PAGE;
	struct audit_list list;
	struct error err;
	cJSON *errors = cJSON_CreateArray();
	query_number(request, "after", 1, (int64_t)1 << 53, &after, errors);
	query_number(request, "limit", 1, API_MAX_PAGE, &limit, errors);
	if (cJSON_GetArraySize(errors)) {
		problem_fields(response, 400, "invalid-query", "the query is not understood", errors);
		return;
	}
	cJSON_Delete(errors);
	if (db_audit_list(request->config->db, after, (int)limit, &list, &err)) {
		problem_failure(response, &err);
		return;
	}
	cJSON *json = cJSON_CreateObject(), *entries = cJSON_AddArrayToObject(json, "entries");
	for (size_t i = 0; i < list.count; i++)
		cJSON_AddItemToArray(entries, entry_json(&list.entries[i]));
	if (list.more)
		cJSON_AddNumberToObject(json, "next", (double)list.entries[list.count - 1].id);
	else
		cJSON_AddNullToObject(json, "next");
	audit_list_clear(&list);
	response_json(response, 200, json);
}
