#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api/http.h"
#include "base/json.h"

void response_clear(struct response *response)
{
	if (!response->fixed) free(response->body);
	if (response->file.open) close(response->file.fd);
	*response = (struct response){0};
}

void response_header(struct response *response, const char *name, const char *format, ...)
{
	size_t at = 0;
	while (at < response->n_headers && strcmp(response->headers[at].name, name) != 0)
		at++;
	if (at == MAX_RESPONSE_HEADERS) return;
	va_list args;
	va_start(args, format);
	vsnprintf(response->headers[at].value, sizeof response->headers[0].value, format, args);
	va_end(args);
	response->headers[at].name = name;
	if (at == response->n_headers) response->n_headers++;
}

void response_static(struct response *response, const char *type, const void *body, size_t size)
{
	response_clear(response);
	response->status = 200;
	response->type = type;
	response->body = (char *)body;
	response->size = size;
	response->fixed = true;
}

void response_file(struct response *response, int fd, int64_t at, int64_t size, const char *type)
{
	response_clear(response);
	response->status = 200;
	response->type = type;
	response->size = (size_t)size;
	response->file.open = true;
	response->file.fd = fd;
	response->file.at = at;
}

void api_file_close(struct api_file *file)
{
	if (file->fd >= 0) close(file->fd);
	file->fd = -1;
}

static void out_of_memory(struct response *response)
{
	static const char body[] = "{\"type\":\"urn:besad:problem:out-of-resources\",\"title\":\"Service Unavailable\","
				   "\"status\":503,\"detail\":\"no memory for the answer\"}\n";
	response_static(response, "application/problem+json", body, sizeof body - 1);
	response->status = 503;
	response_header(response, "Retry-After", "60");
}

void response_text(struct response *response, const char *type, struct buffer *body)
{
	response_clear(response);
	if (body->failed) {
		buffer_free(body);
		out_of_memory(response);
		return;
	}
	response->status = 200;
	response->type = type;
	response->body = body->data;
	response->size = body->size;
	*body = (struct buffer){0};
}

void response_json(struct response *response, unsigned status, cJSON *json)
{
	char *text = json && !json_ran_out() ? cJSON_PrintUnformatted(json) : NULL;
	cJSON_Delete(json);
	size_t size = text ? strlen(text) : 0;
	char *line = text ? realloc(text, size + 2) : NULL;
	if (!line) {
		free(text);
		out_of_memory(response);
		return;
	}
	memcpy(line + size, "\n", 2); /* for people with curl */
	response_clear(response);
	response->status = status;
	response->type = "application/json";
	response->body = line;
	response->size = size + 1;
}
