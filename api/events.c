/* The events of a job: as a JSON list, or as a stream (stream.c) for who asks for text/event-stream. */
#include <string.h>

#include "api/http.h"

static const int64_t max_event_id = 999999999999999; /* 15 digits: exact in a client's double */

/* Where the reader is: Last-Event-ID, which a reconnecting EventSource sends, stands over ?after=. */
static bool read_position(const struct request *request, int64_t *after, int64_t *limit, struct response *response)
{
	cJSON *errors = cJSON_CreateArray();
	*after = 0;
	*limit = API_DEFAULT_PAGE;
	query_number(request, "after", 0, max_event_id, after, errors);
	query_number(request, "limit", 1, API_MAX_PAGE, limit, errors);
	if (request->last_event_id && !number_parse(request->last_event_id, max_event_id, after))
		problem_add(errors, "header", "Last-Event-ID", "must be the id of an event");
	if (cJSON_GetArraySize(errors) == 0) {
		cJSON_Delete(errors);
		return true;
	}
	problem_fields(response, 400, "invalid-query", "the query is not understood", errors);
	return false;
}

static void answer_list(const struct event_list *list, struct response *response)
{
	cJSON *json = cJSON_CreateObject();
	cJSON *events = cJSON_AddArrayToObject(json, "events");
	for (size_t i = 0; i < list->count; i++)
		cJSON_AddItemToArray(events, event_json(&list->events[i]));
	if (list->more)
		cJSON_AddNumberToObject(json, "next", (double)list->events[list->count - 1].id);
	else
		cJSON_AddNullToObject(json, "next");
	response_json(response, 200, json);
}

void events_list(const struct request *request, struct response *response)
{
	int stream = accept_quality(request->accept, "text/event-stream"),
	    json = accept_quality(request->accept, "application/json");
	bool streams = request->accept && (stream > json || (stream == json && strstr(request->accept, "event-stream")));
	int64_t after, limit;
	struct event_list list;
	struct error err;
	if (!read_position(request, &after, &limit, response)) return;
	if (db_event_list(request->config->db, request->id, after, streams ? 1 : (int)limit, &list, &err)) {
		problem_failure(response, &err);
		return;
	}
	if (streams) {
		response->status = 200;
		response->type = "text/event-stream";
		response->stream = true;
		response->stream_after = after;
		response->stream_last = list.last;
	} else {
		answer_list(&list, response);
	}
	event_list_clear(&list);
}
