/* HTTP to one besad. Nothing here prints but reply_check. */
#ifndef BESAD_CTL_CLIENT_H
#define BESAD_CTL_CLIENT_H

#include <curl/curl.h>
#include <stdbool.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "ctl/exit.h"

struct client;

/* `url` is the daemon's, http://…, https://… or unix:/PATH, `token_file` NULL or a file whose first line is the token, `ca_file`
 * NULL or one of certificates that https is checked by, in place of the system's; it lives as long as the client. */
enum status client_open(const char *url, const char *token_file, const char *ca_file, struct client **ret, struct error *err);
void client_close(struct client *); /* takes NULL */

const char *client_url(const struct client *);

struct call {
	const char *method;          /* "GET" … */
	const char *path;            /* "/v1/jobs" */
	const char *body;            /* JSON, or NULL */
	const char *idempotency_key; /* or NULL */
	const char *accept;          /* what is wanted in place of JSON, or NULL */
};

struct reply {
	long status;    /* of HTTP; 0: there was no answer, `failure` says why */
	cJSON *json;    /* NULL: the answer had no body, or one that is not JSON */
	bool malformed; /* the latter */
	char *text;     /* what was wanted in place of JSON */
	char failure[CURL_ERROR_SIZE];
};

void client_call(struct client *, const struct call *, struct reply *ret);
void reply_clear(struct reply *);

/* EXIT_OK for an answer of 2xx whose body, if any, is JSON. Else says on standard error what is wrong, a problem with its fields
 * one a line, and returns the exit code for it. */
enum exit_code reply_check(const struct client *, const struct reply *);

/* client_call and reply_check at once. *ret_json, which may be left NULL, is set on success only. */
enum exit_code client_get(struct client *, const char *path, cJSON **ret_json);
enum exit_code client_do(struct client *, const struct call *, cJSON **ret_json);

/* A handle set up for GET `path` with the client's token, for stream.c. *ret_headers lives as long as the handle. */
CURL *client_handle(struct client *, const char *path, struct curl_slist **ret_headers);

#endif
