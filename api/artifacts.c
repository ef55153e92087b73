/* The files of a job's output: a list, and each of them, whole or in part (RFC 9110, 13 and 14). */
#include <inttypes.h>
#include <string.h>

#include "api/http.h"

static void gone(struct response *response, const struct error *err)
{
	if (err->status == STATUS_EXISTS)
		problem(response, 410, "output-gone", "%s", err->message);
	else
		problem_failure(response, err);
}

void artifacts_index(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	struct job job;
	struct error err;
	cJSON *list;
	if (db_job_get(config->db, request->id, &job, &err)) {
		problem_failure(response, &err);
		return;
	}
	if (config->hooks.artifacts(config->hooks.context, &job, &list, &err)) {
		gone(response, &err);
	} else {
		cJSON *json = cJSON_CreateObject();
		cJSON_AddItemToObject(json, "artifacts", list);
		response_json(response, 200, json);
	}
	job_clear(&job);
}

/* Does the client have it already? */
static bool is_known(const struct request *request, const char *etag)
{
	const char *known = request->if_none_match;
	return known && (strcmp(known, "*") == 0 || strstr(known, etag));
}

static void answer(const struct request *request, const struct api_file *file, struct response *response)
{
	int64_t first = 0, bytes = file->bytes;
	bool same = strcmp(request->method, "GET") == 0 && (!request->if_range || strcmp(request->if_range, file->etag) == 0);
	enum range range = same ? range_find(request->range, file->bytes, &first, &bytes) : RANGE_WHOLE;
	if (range == RANGE_OUTSIDE) {
		problem(response, 416, "range-not-satisfiable", "the file has %" PRId64 " bytes", file->bytes);
		response_header(response, "Content-Range", "bytes */%" PRId64, file->bytes);
		return;
	}
	response_file(response, file->fd, first, bytes, file->type);
	response_header(response, "ETag", "%s", file->etag);
	response_header(response, "Accept-Ranges", "bytes");
	if (range == RANGE_WHOLE) return;
	response->status = 206;
	response_header(response, "Content-Range", "bytes %" PRId64 "-%" PRId64 "/%" PRId64, first, first + bytes - 1, file->bytes);
}

void artifacts_send(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	struct api_file file = {.fd = -1};
	struct job job;
	struct error err;
	if (db_job_get(config->db, request->id, &job, &err)) {
		problem_failure(response, &err);
		return;
	}
	enum status status = config->hooks.artifact(config->hooks.context, &job, request->name, &file, &err);
	job_clear(&job);
	if (status) {
		gone(response, &err);
		return;
	}
	if (is_known(request, file.etag)) {
		response->status = 304;
		response_header(response, "ETag", "%s", file.etag);
	} else {
		answer(request, &file, response);
	}
	if (!response->file.open) api_file_close(&file);
}
