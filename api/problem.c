/* Errors as application/problem+json (RFC 9457). */
#include <microhttpd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/json.h"

/* All of the text, as valid UTF-8: it may quote what a client sent. NULL when memory runs out; the caller frees it. */
static char *format(const char *detail, va_list args)
{
	char *text;
	if (vasprintf(&text, detail, args) < 0) return NULL;
	utf8_mask(text);
	return text;
}

void problem_fields(struct response *response, unsigned status, const char *slug, const char *detail, cJSON *errors)
{
	char type[96];
	snprintf(type, sizeof type, "urn:besad:problem:%s", slug);
	cJSON *json = cJSON_CreateObject();
	cJSON_AddStringToObject(json, "type", type);
	cJSON_AddStringToObject(json, "title", MHD_get_reason_phrase_for(status));
	cJSON_AddNumberToObject(json, "status", status);
	cJSON_AddStringToObject(json, "detail", detail);
	if (errors) cJSON_AddItemToObject(json, "errors", errors);
	response_json(response, status, json);
	if (!response->fixed) utf8_mask(response->body); /* names of parameters, and paths, are whatever was sent */
	response->type = "application/problem+json";
	response->problem = slug;
}

void problem(struct response *response, unsigned status, const char *slug, const char *detail, ...)
{
	va_list args;
	va_start(args, detail);
	char *text = format(detail, args);
	va_end(args);
	problem_fields(response, status, slug, text ? text : "no memory to say why", NULL);
	free(text);
}

void problem_pointer(struct buffer *pointer, const char *key)
{
	buffer_append(pointer, "/", 1);
	for (; *key; key++)
		if (*key == '~' || *key == '/')
			buffer_append(pointer, *key == '~' ? "~0" : "~1", 2);
		else
			buffer_append(pointer, key, 1);
}

void problem_add(cJSON *errors, const char *kind, const char *name, const char *detail, ...)
{
	va_list args;
	va_start(args, detail);
	char *text = format(detail, args);
	va_end(args);
	cJSON *error = cJSON_CreateObject();
	cJSON_AddStringToObject(error, kind, name);
	cJSON_AddStringToObject(error, "detail", text ? text : "no memory to say why");
	cJSON_AddItemToArray(errors, error);
	free(text);
}

void problem_spec(struct response *response, const struct error *err, cJSON *errors)
{
	if (err->status == STATUS_INVALID) {
		problem_fields(response, 422, "invalid-spec", err->message, errors);
		return;
	}
	cJSON_Delete(errors);
	if (err->status == STATUS_EXISTS)
		problem(response, 409, "output-exists", "%s", err->message);
	else
		problem_failure(response, err);
}

void problem_failure(struct response *response, const struct error *err)
{
	switch (err->status) {
	case STATUS_NOT_FOUND:
		problem(response, 404, "not-found", "%s", err->message);
		break;
	case STATUS_NO_SPACE:
		problem(response, 507, "no-space", "%s", err->message);
		response_header(response, "Retry-After", "60");
		break;
	case STATUS_BUSY:
		problem(response, 503, "busy", "%s", err->message);
		response_header(response, "Retry-After", "5");
		break;
	case STATUS_CANCELLED:
		problem(response, 503, "stopping", "besad is stopping");
		response_header(response, "Retry-After", "5");
		break;
	case STATUS_IO:
		problem(response, 503, "io", "%s", err->message);
		response_header(response, "Retry-After", "60");
		break;
	case STATUS_NO_MEMORY:
		problem(response, 503, "out-of-resources", "%s", err->message);
		response_header(response, "Retry-After", "60");
		break;
	default:
		problem(response, 500, "internal", "%s", err->message);
	}
}
