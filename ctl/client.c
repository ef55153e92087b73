#include "ctl/client.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buffer.h"
#include "base/json.h"
#include "ctl/input.h"
#include "ctl/text.h"

enum {
	ANSWER_LIMIT = 64 << 20,
	TOKEN_LIMIT = 4 << 10,
	CONNECT_SECONDS = 10,
	CALL_SECONDS = 120, /* submitting reads headers of the model's files */
};

struct client {
	const char *ca_file; /* or NULL */
	char *url;           /* without a slash at its end */
	const char *socket;  /* of a Unix socket the path, which is part of the URL; or NULL */
	char *authorization; /* a whole header, or NULL */
	bool loopback;
	CURL *curl; /* reused from call to call, so that its connection is */
};

/* ---- opening ------------------------------------------------------------------------------------------------------------ */

/* unix:/PATH; false for another URL. */
static bool check_socket(struct client *client, enum status *ret, struct error *err)
{
	static const char prefix[] = "unix:";
	if (strncmp(client->url, prefix, strlen(prefix)) != 0) return false;
	client->socket = client->url + strlen(prefix);
	client->loopback = true;
	*ret = client->socket[0] == '/' ? STATUS_OK : error_set(err, STATUS_INVALID, "'%s' must be unix:/PATH", client->url);
	return true;
}

/* Splits `text` with curl's own parser, so that what is checked is what is used. */
static enum status check_url(struct client *client, const char *text, struct error *err)
{
	enum status status = STATUS_OK;
	CURLU *url = curl_url();
	char *scheme = NULL, *host = NULL, *query = NULL;
	if (!url) return error_set(err, STATUS_NO_MEMORY, "no memory");
	if (curl_url_set(url, CURLUPART_URL, text, CURLU_GUESS_SCHEME) || curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) ||
	    curl_url_get(url, CURLUPART_HOST, &host, 0) || (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0))
		status = error_set(err, STATUS_INVALID, "'%s' is not an http or https URL", text);
	else if (curl_url_get(url, CURLUPART_QUERY, &query, 0) == CURLUE_OK)
		status = error_set(err, STATUS_INVALID, "the URL '%s' has a query", text);
	else
		client->loopback = strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 || strcmp(host, "[::1]") == 0;
	curl_free(scheme);
	curl_free(host);
	curl_free(query);
	curl_url_cleanup(url);
	return status;
}

static enum status read_token(struct client *client, const char *path, struct error *err)
{
	struct buffer file = {0};
	TRY(input_read(path, TOKEN_LIMIT, &file, err));
	char *text = file.data;
	size_t length = strcspn(text, "\r\n");
	text[length] = 0;
	enum status status = STATUS_OK;
	for (size_t i = 0; i < length && !status; i++)
		if (text[i] <= 0x20 || text[i] >= 0x7f)
			status = error_set(err, STATUS_INVALID, "the token in %s has a space, or a byte that is not ASCII", path);
	if (!status && length == 0) status = error_set(err, STATUS_INVALID, "%s has no token in its first line", path);
	if (!status && asprintf(&client->authorization, "Authorization: Bearer %s", text) < 0) {
		client->authorization = NULL;
		status = error_set(err, STATUS_NO_MEMORY, "no memory");
	}
	explicit_bzero(file.data, file.size);
	buffer_free(&file);
	return status;
}

enum status client_open(const char *url, const char *token_file, const char *ca_file, struct client **ret, struct error *err)
{
	struct client *client = calloc(1, sizeof *client);
	enum status status;
	if (!client) return error_set(err, STATUS_NO_MEMORY, "no memory");
	client->ca_file = ca_file;
	client->url = strdup(url);
	client->curl = curl_easy_init();
	if (!client->url || !client->curl)
		status = error_set(err, STATUS_NO_MEMORY, "no memory");
	else if (!check_socket(client, &status, err))
		status = check_url(client, url, err);
	if (!status && token_file) status = read_token(client, token_file, err);
	if (status) {
		client_close(client);
		return status;
	}
	for (size_t length = strlen(client->url); !client->socket && length && client->url[length - 1] == '/'; length--)
		client->url[length - 1] = 0;
	*ret = client;
	return STATUS_OK;
}

void client_close(struct client *client)
{
	if (!client) return;
	curl_easy_cleanup(client->curl);
	if (client->authorization) explicit_bzero(client->authorization, strlen(client->authorization));
	free(client->authorization);
	free(client->url);
	free(client);
}

const char *client_url(const struct client *client)
{
	return client->url;
}

/* ---- calls -------------------------------------------------------------------------------------------------------------- */

static void add_header(struct curl_slist **headers, const char *line)
{
	struct curl_slist *more = curl_slist_append(*headers, line);
	if (more) *headers = more;
}

/* What every request has: the address, the token, no redirect, and no proxy to this very machine. */
static void set_up(const struct client *client, CURL *curl, const char *path, struct curl_slist **headers)
{
	char url[2048];
	snprintf(url, sizeof url, "%s%s", client->socket ? "http://localhost" : client->url, path);
	if (client->socket) curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, client->socket);
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_USERAGENT, "besactl/" BESAD_VERSION);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
	if (client->loopback) curl_easy_setopt(curl, CURLOPT_PROXY, "");
	if (client->ca_file) {
		curl_easy_setopt(curl, CURLOPT_CAINFO, client->ca_file);
		curl_easy_setopt(curl, CURLOPT_CAPATH, NULL); /* the system's, which would count beside it */
	}
	if (client->authorization) add_header(headers, client->authorization);
}

CURL *client_handle(struct client *client, const char *path, struct curl_slist **ret_headers)
{
	CURL *curl = curl_easy_init();
	*ret_headers = NULL;
	if (curl) set_up(client, curl, path, ret_headers);
	return curl;
}

static size_t receive(char *bytes, size_t one, size_t size, void *context)
{
	struct buffer *body = context;
	(void)one;
	if (size > ANSWER_LIMIT - body->size) return 0;
	buffer_append(body, bytes, size);
	return body->failed ? 0 : size;
}

void client_call(struct client *client, const struct call *call, struct reply *ret)
{
	CURL *curl = client->curl;
	struct curl_slist *headers = NULL;
	struct buffer body = {0};
	struct error err;
	char key[320], accept[96];
	*ret = (struct reply){0};
	curl_easy_reset(curl);
	set_up(client, curl, call->path, &headers);
	snprintf(accept, sizeof accept, "Accept: %s", call->accept ? call->accept : "application/json");
	add_header(&headers, accept);
	if (call->idempotency_key) {
		snprintf(key, sizeof key, "Idempotency-Key: %s", call->idempotency_key);
		add_header(&headers, key);
	}
	if (strcmp(call->method, "GET") != 0) {
		add_header(&headers, "Content-Type: application/json");
		curl_easy_setopt(curl, CURLOPT_POSTFIELDS, call->body ? call->body : "");
		curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, call->method);
	}
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_TIMEOUT, (long)CALL_SECONDS);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, &body);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, ret->failure);

	CURLcode code = curl_easy_perform(curl);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, NULL); /* the handle outlives *ret */
	if (code == CURLE_OK)
		curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &ret->status);
	else if (!ret->failure[0])
		snprintf(ret->failure, sizeof ret->failure, "%s", curl_easy_strerror(code));
	if (call->accept && ret->status == 200) {
		ret->text = body.data;
		body = (struct buffer){0};
	}
	if (code == CURLE_OK && body.size)
		ret->malformed = json_parse(body.data, body.size, "the answer", &ret->json, &err) != STATUS_OK;
	curl_slist_free_all(headers);
	buffer_free(&body);
}

void reply_clear(struct reply *reply)
{
	cJSON_Delete(reply->json);
	reply->json = NULL;
	free(reply->text);
	reply->text = NULL;
}

/* ---- what went wrong ---------------------------------------------------------------------------------------------------- */

static void print_field(const cJSON *error)
{
	static const char *const kinds[] = {"pointer", "parameter", "header"};
	const char *where = NULL;
	for (size_t i = 0; i < sizeof kinds / sizeof *kinds && !where; i++)
		where = text_member(error, kinds[i]);
	fputs("  ", stderr);
	if (where) {
		text_put(stderr, *where ? where : "(the whole)");
		fputs(": ", stderr);
	}
	text_put(stderr, text_member_or(error, "detail", "is not accepted"));
	fputc('\n', stderr);
}

static void print_problem(const struct reply *reply)
{
	const char *title = text_member(reply->json, "title"), *detail = text_member(reply->json, "detail");
	const cJSON *error;
	fprintf(stderr, "besactl: %ld ", reply->status);
	text_put(stderr, title ? title : "refused");
	if (detail) {
		fputs(": ", stderr);
		text_put(stderr, detail);
	}
	fputc('\n', stderr);
	cJSON_ArrayForEach(error, cJSON_GetObjectItemCaseSensitive(reply->json, "errors")) print_field(error);
	if (reply->status == 401) fprintf(stderr, "  Give the token with --token-file, or name its file in $BESAD_TOKEN_FILE.\n");
}

enum exit_code reply_check(const struct client *client, const struct reply *reply)
{
	if (reply->status == 0) {
		fprintf(stderr, "besactl: no answer from %s: %s\n", client->url, reply->failure);
		return EXIT_UNREACHABLE;
	}
	bool success = reply->status >= 200 && reply->status < 300;
	if (reply->malformed || (!success && !text_member(reply->json, "type") && !text_member(reply->json, "detail"))) {
		fprintf(stderr, "besactl: %s answered %ld, but not as besad does: is that its address?\n", client->url,
			reply->status);
		return EXIT_PROTOCOL;
	}
	if (success) return EXIT_OK;
	print_problem(reply);
	return EXIT_REFUSED;
}

enum exit_code client_do(struct client *client, const struct call *call, cJSON **ret_json)
{
	struct reply reply;
	client_call(client, call, &reply);
	enum exit_code code = reply_check(client, &reply);
	if (code == EXIT_OK && ret_json && !reply.json) {
		fprintf(stderr, "besactl: %s answered %ld without a body\n", client->url, reply.status);
		code = EXIT_PROTOCOL;
	}
	if (code == EXIT_OK && ret_json) {
		*ret_json = reply.json;
		reply.json = NULL;
	}
	reply_clear(&reply);
	return code;
}

enum exit_code client_get(struct client *client, const char *path, cJSON **ret_json)
{
	return client_do(client, &(struct call){.method = "GET", .path = path}, ret_json);
}
