/* The server over real sockets, with a database and hooks that stand for the daemon: requests and limits, many watchers of one
 * job, and a stop with open streams. */
#include <arpa/inet.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "api/api.h"
#include "base/buffer.h"
#include "base/file.h"
#include "db/audit.h"

static const _Atomic int64_t queue_limit = 3;

struct fixture {
	char directory[64];
	struct db *db;
	struct metrics *metrics;
	struct api *api;
	struct tokens *tokens; /* or NULL */
	atomic_int told;       /* lines that refusals were told in */
	int port;
	struct error err;
	int queued, cancelled, deleted;
};

/* Takes {"output": NAME}: "bad" is invalid, "there" exists already, "broken" fails. */
static enum status prepare(void *context, const cJSON *spec, const char *id, struct api_submission *ret, struct error *err)
{
	(void)context;
	(void)id;
	const cJSON *output = cJSON_GetObjectItemCaseSensitive(spec, "output");
	const char *name = cJSON_IsString(output) ? output->valuestring : "bad";
	if (strcmp(name, "there") == 0) return error_set(err, STATUS_EXISTS, "it is there");
	if (strcmp(name, "broken") == 0) return error_set(err, STATUS_IO, "it is broken");
	if (strcmp(name, "bad") == 0) {
		cJSON *error = cJSON_CreateObject();
		cJSON_AddStringToObject(error, "pointer", "/output");
		cJSON_AddStringToObject(error, "detail", "is bad");
		ret->errors = cJSON_CreateArray();
		cJSON_AddItemToArray(ret->errors, error);
		return error_set(err, STATUS_INVALID, "the spec is bad");
	}
	ret->output = strdup(name);
	ret->spec = cJSON_PrintUnformatted(spec);
	return STATUS_OK;
}

/* Refuses what `prepare` does; "stop" is when besad stops. */
static enum status estimate(void *context, const cJSON *spec, const char *id, cJSON **ret, cJSON **ret_errors, struct error *err)
{
	struct api_submission prepared = {0};
	enum status status = prepare(context, spec, id, &prepared, err);
	*ret_errors = prepared.errors;
	prepared.errors = NULL;
	if (!status && strcmp(prepared.output, "stop") == 0) status = error_set(err, STATUS_CANCELLED, "it stops");
	if (!status) *ret = cJSON_CreateObject();
	api_submission_clear(&prepared);
	return status;
}

static enum status prepare_retry(void *context, const struct job *job, struct error *err)
{
	(void)context;
	return strcmp(job->output, "taken") == 0 ? error_set(err, STATUS_EXISTS, "it is taken") : STATUS_OK;
}

static void queued(void *context)
{
	struct fixture *f = context;
	f->queued++;
}

static void cancelled(void *context, const char *id)
{
	struct fixture *f = context;
	f->cancelled += job_id_is_valid(id);
}

static void deleted(void *context, const char *id)
{
	struct fixture *f = context;
	f->deleted += job_id_is_valid(id);
}

static enum status models(void *context, cJSON **ret, bool *ret_truncated, struct error *err)
{
	(void)context;
	(void)err;
	*ret = cJSON_CreateArray();
	*ret_truncated = false;
	return STATUS_OK;
}

static cJSON *info(void *context)
{
	(void)context;
	return cJSON_CreateObject();
}

static enum status ready(void *context, struct error *err)
{
	(void)context;
	(void)err;
	return STATUS_OK;
}

static void refused(void *context, const char *text)
{
	struct fixture *f = context;
	if (!strstr(text, "0123456789")) f->told++; /* no token is told */
}

static int setup_with(void **state, struct tokens *tokens)
{
	struct fixture *f = calloc(1, sizeof *f);
	f->tokens = tokens;
	char path[96];
	struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof address;
	strcpy(f->directory, "/tmp/besad-test-api-XXXXXX");
	assert_non_null(mkdtemp(f->directory));
	snprintf(path, sizeof path, "%s/besad.db", f->directory);
	assert_int_equal(db_open(path, &f->db, &f->err), STATUS_OK);
	f->metrics = metrics_create("test");
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
	assert_int_equal(listen(fd, 512), 0);
	assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
	f->port = ntohs(address.sin_port);
	struct api_config config = {
		.db = f->db,
		.metrics = f->metrics,
		.tokens = f->tokens,
		.queue_limit = &queue_limit,
		.hooks = {.context = f,
			  .prepare = prepare,
			  .estimate = estimate,
			  .prepare_retry = prepare_retry,
			  .queued = queued,
			  .cancelled = cancelled,
			  .deleted = deleted,
			  .models = models,
			  .data = models,
			  .info = info,
			  .refused = refused,
			  .ready = ready,
			  .accepts = ready},
	};
	assert_int_equal(api_start(&config, &fd, 1, &f->api, &f->err), STATUS_OK);
	*state = f;
	return 0;
}

static int setup(void **state)
{
	return setup_with(state, NULL);
}

static struct tokens *parse_tokens(const char *text)
{
	struct tokens *tokens = NULL;
	struct error err;
	if (tokens_parse(text, "FILE", &tokens, &err)) fail_msg("%s", err.message);
	return tokens;
}

static int setup_guarded(void **state)
{
	return setup_with(state, parse_tokens("bob submit bob-0123456789ab\neve read eve-0123456789ab\n"));
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	api_stop(f->api);
	tokens_free(f->tokens);
	db_close(f->db);
	metrics_free(f->metrics);
	assert_int_equal(directory_remove(f->directory, &f->err), STATUS_OK);
	free(f);
	return 0;
}

/* ---- a client ------------------------------------------------------------------------------------------------------------ */

static int dial(struct fixture *f)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET, .sin_port = htons((uint16_t)f->port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
	return fd;
}

static void put(int fd, const char *text, size_t size)
{
	while (size) {
		ssize_t sent = send(fd, text, size, MSG_NOSIGNAL);
		assert_true(sent > 0);
		text += sent;
		size -= (size_t)sent;
	}
}

/* Everything until the server closes. */
static char *take(int fd)
{
	struct buffer text = {0};
	char piece[65536];
	ssize_t got;
	while ((got = recv(fd, piece, sizeof piece, 0)) > 0)
		buffer_append(&text, piece, (size_t)got);
	assert_int_equal(got, 0);
	buffer_append(&text, "", 0);
	assert_false(text.failed);
	close(fd);
	return text.data;
}

/* One request on a connection of its own; *ret_text, where wanted, is the whole response. */
static int ask(struct fixture *f, const char *method, const char *path, const char *headers, const char *body, char **ret_text)
{
	struct buffer request = {0};
	int status = 0, fd = dial(f);
	buffer_printf(&request, "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n%s", method, path, headers);
	if (body) buffer_printf(&request, "Content-Length: %zu\r\n", strlen(body));
	buffer_printf(&request, "\r\n%s", body ? body : "");
	put(fd, request.data, request.size);
	buffer_free(&request);
	char *text = take(fd);
	if (sscanf(text, "HTTP/1.1 %d", &status) != 1) fail_msg("no answer to %s %s", method, path);
	if (ret_text)
		*ret_text = text;
	else
		free(text);
	return status;
}

/* Submits a job and gives its id. */
static void submit(struct fixture *f, const char *output, char id[JOB_ID_BYTES])
{
	char body[64], *text;
	snprintf(body, sizeof body, "{\"output\":\"%s\"}", output);
	assert_int_equal(ask(f, "POST", "/v1/jobs", "", body, &text), 201);
	const char *location = strstr(text, "Location: /v1/jobs/");
	assert_non_null(location);
	memcpy(id, location + strlen("Location: /v1/jobs/"), JOB_ID_BYTES - 1);
	id[JOB_ID_BYTES - 1] = 0;
	assert_true(job_id_is_valid(id));
	free(text);
}

/* ---- requests ------------------------------------------------------------------------------------------------------------ */

static void test_estimate(void **state)
{
	static const struct {
		const char *body;
		int status;
	} cases[] = {{"{\"output\":\"a\"}", 200},     {"{\"output\":1}", 422},          {"{\"output\":", 400},
		     {"{\"output\":\"there\"}", 409}, {"{\"output\":\"broken\"}", 503}, {"{\"output\":\"stop\"}", 503}};
	struct fixture *f = *state;
	char *text;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int status = ask(f, "POST", "/v1/estimate", "", cases[i].body, &text);
		if (status != cases[i].status) fail_msg("%s: %s", cases[i].body, text);
		assert_true((strstr(text, "Retry-After: ") != NULL) == (status == 503));
		assert_true((strstr(text, "{\"pointer\":\"/output\",\"detail\":\"is bad\"}") != NULL) == (status == 422));
		free(text);
	}
	assert_int_equal(f->queued, 0);
	assert_int_equal(ask(f, "GET", "/v1/jobs", "", NULL, &text), 200);
	assert_non_null(strstr(text, "{\"jobs\":[],"));
	free(text);
}

static void test_job_over_http(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES], path[96], *text;
	submit(f, "a", id);
	assert_int_equal(f->queued, 1);
	snprintf(path, sizeof path, "/v1/jobs/%s", id);
	assert_int_equal(ask(f, "GET", path, "", NULL, &text), 200);
	assert_non_null(strstr(text, "\"state\":\"queued\""));
	assert_non_null(strstr(text, "X-Content-Type-Options: nosniff"));
	free(text);
	assert_int_equal(ask(f, "HEAD", path, "", NULL, &text), 200);
	assert_null(strstr(text, "queued"));
	free(text);
	assert_int_equal(ask(f, "DELETE", path, "", NULL, NULL), 409);
	snprintf(path, sizeof path, "/v1/jobs/%s/cancel", id);
	assert_int_equal(ask(f, "POST", path, "", NULL, &text), 200);
	assert_non_null(strstr(text, "\"state\":\"cancelled\""));
	free(text);
	assert_int_equal(f->cancelled, 1);
	snprintf(path, sizeof path, "/v1/jobs/%s/retry", id);
	assert_int_equal(ask(f, "POST", path, "", "", NULL), 200);
	assert_int_equal(ask(f, "POST", path, "", "", NULL), 409);
	snprintf(path, sizeof path, "/v1/jobs/%s/cancel", id);
	assert_int_equal(ask(f, "POST", path, "", "ignored", NULL), 200);
	snprintf(path, sizeof path, "/v1/jobs/%s", id);
	assert_int_equal(ask(f, "DELETE", path, "", NULL, &text), 204);
	assert_null(strstr(text, "\nContent-Type:"));
	free(text);
	assert_int_equal(f->deleted, 1);
	assert_int_equal(ask(f, "GET", path, "", NULL, NULL), 404);
}

static void test_refusals(void **state)
{
	struct fixture *f = *state;
	char *text, id[JOB_ID_BYTES], path[128];
	assert_int_equal(ask(f, "POST", "/v1/jobs", "", "{\"output\":", &text), 400);
	assert_non_null(strstr(text, "application/problem+json"));
	free(text);
	assert_int_equal(ask(f, "POST", "/v1/jobs", "", "{\"output\":1}", &text), 422);
	assert_non_null(strstr(text, "\"errors\":[{\"pointer\":\"/output\",\"detail\":\"is bad\"}]"));
	free(text);
	assert_int_equal(ask(f, "POST", "/v1/jobs", "", "{\"output\":\"there\"}", NULL), 409);
	assert_int_equal(ask(f, "POST", "/v1/jobs", "", "{\"output\":\"broken\"}", NULL), 503);
	assert_int_equal(ask(f, "GET", "/v1/jobs?limit=0", "", NULL, NULL), 400);
	assert_int_equal(ask(f, "GET", "/v1/jobs?after=%00", "", NULL, NULL), 400);
	assert_int_equal(ask(f, "GET", "/v1/jobs?%6cimit=5", "", NULL, NULL), 200);
	assert_int_equal(ask(f, "GET", "/healthz%00", "", NULL, NULL), 404);
	assert_int_equal(f->queued, 0);
	submit(f, "a", id);
	submit(f, "b", id);
	snprintf(path, sizeof path, "/v1/jobs/%s/events?after=999999999999999", id);
	assert_int_equal(ask(f, "GET", path, "", NULL, NULL), 200);
	snprintf(path, sizeof path, "/v1/jobs/%s/events?after=1000000000000000", id);
	assert_int_equal(ask(f, "GET", path, "", NULL, NULL), 400);
	assert_int_equal(ask(f, "GET", path, "Last-Event-ID: 0\r\n", NULL, NULL), 400);
	submit(f, "c", id);
	assert_int_equal(ask(f, "POST", "/v1/jobs", "", "{\"output\":\"a\"}", NULL), 409);
	assert_int_equal(ask(f, "POST", "/v1/jobs", "", "{\"output\":\"d\"}", &text), 503);
	assert_non_null(strstr(text, "Retry-After: "));
	free(text);
}

static void test_idempotency_key(void **state)
{
	struct fixture *f = *state;
	char *first, *second;
	const char *key = "Idempotency-Key: abc\r\n";
	assert_int_equal(ask(f, "POST", "/v1/jobs", key, "{\"output\":\"a\"}", &first), 201);
	assert_int_equal(ask(f, "POST", "/v1/jobs", key, " { \"output\" : \"a\" } ", &second), 201);
	assert_string_equal(strstr(first, "\r\n\r\n"), strstr(second, "\r\n\r\n"));
	assert_int_equal(f->queued, 1);
	free(first);
	free(second);
	assert_int_equal(ask(f, "POST", "/v1/jobs", key, "{\"output\":\"b\"}", NULL), 422);
	assert_int_equal(ask(f, "POST", "/v1/jobs", "Idempotency-Key: a b\r\n", "{\"output\":\"b\"}", NULL), 400);
}

static void test_limits(void **state)
{
	struct fixture *f = *state;
	size_t size = 3 << 20;
	char *large = malloc(size + 1), *text;
	memset(large, 'x', size);
	large[size] = 0;
	assert_int_equal(ask(f, "POST", "/v1/jobs", "", large, &text), 413);
	assert_non_null(strstr(text, "problem:body-too-large"));
	free(text);
	large[API_MAX_TARGET + 1] = 0;
	large[0] = '/';
	assert_int_equal(ask(f, "GET", large, "", NULL, NULL), 414);
	large[0] = 'x';
	memset(large, 'x', size);
	memcpy(large, "X-Large: ", 9);
	strcpy(large + API_MAX_HEADERS, "\r\n");
	assert_int_equal(ask(f, "GET", "/", large, NULL, NULL), 431);
	free(large);
	assert_int_equal(ask(f, "GET", "/healthz", "", NULL, NULL), 200);
}

static void test_metrics_count(void **state)
{
	struct fixture *f = *state;
	char *text;
	ask(f, "GET", "/v1/info", "", NULL, NULL);
	ask(f, "GET", "/nothing", "", NULL, NULL);
	assert_int_equal(ask(f, "GET", "/metrics", "", NULL, &text), 200);
	assert_non_null(strstr(text, "\nbesad_http_requests_total{route=\"/v1/info\",method=\"GET\",code=\"200\"} 1\n"));
	assert_non_null(strstr(text, "\nbesad_http_requests_total{route=\"none\",method=\"other\",code=\"404\"} 1\n"));
	assert_non_null(strstr(text, "\nbesad_jobs{state=\"queued\"} 0\n"));
	assert_null(strstr(text, "besad_device_"));
	free(text);
	metrics_set_device(
		f->metrics,
		&(struct device_reading){.utilisation = 0.5, .watts = -1, .celsius = 40, .memory_used = 3e9, .memory_total = 8e9});
	assert_int_equal(ask(f, "GET", "/metrics", "", NULL, &text), 200);
	assert_non_null(strstr(text, "\nbesad_device_utilisation_ratio 0.5\n"));
	assert_non_null(strstr(text, "\nbesad_device_memory_used_bytes 3000000000\n"));
	assert_null(strstr(text, "besad_device_power_watts"));
	free(text);
	assert_int_equal(ask(f, "GET", "/v1/info", "", NULL, &text), 200);
	assert_non_null(strstr(text, "\"memory_total_bytes\":8000000000,\"power_watts\":null,\"temperature_celsius\":40}"));
	free(text);
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

static int watch(struct fixture *f, const char *id, const char *headers)
{
	char request[256];
	int fd = dial(f);
	snprintf(request, sizeof request,
		 "GET /v1/jobs/%s/events HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: text/event-stream\r\n%s\r\n",
		 id, headers);
	put(fd, request, strlen(request));
	return fd;
}

/* Undoes the chunks of a response's body, in place; false when the last chunk is missing. */
static bool join_chunks(char *text)
{
	char *to = strstr(text, "\r\n\r\n");
	assert_non_null(to);
	char *from = to += 4;
	for (;;) {
		char *end;
		size_t size = strtoul(from, &end, 16);
		if (end == from) return false;
		if (size == 0) break;
		memmove(to, end + 2, size);
		to += size;
		from = end + 2 + size + 2;
	}
	*to = 0;
	return true;
}

/* Checks that a stream holds the events `first` to `last`, each once and in order, and whether it ends with `end`. */
static void expect_stream(char *text, int first, int last, bool ended)
{
	assert_true(join_chunks(text));
	const char *at = strstr(text, "retry: 2000\n\n");
	assert_non_null(at);
	int expected = first;
	for (at = strstr(at, "\nid: "); at; at = strstr(at + 1, "\nid: "), expected++)
		assert_int_equal(atoi(at + 5), expected);
	assert_int_equal(expected, last + 1);
	assert_int_equal(strstr(text, "\nevent: end\ndata: {\"state\":\"succeeded\"}\n\n") != NULL, ended);
	free(text);
}

static void append(struct fixture *f, const char *id, int count)
{
	for (int i = 0; i < count; i++)
		assert_int_equal(
			db_event_append(
				f->db, id,
				&(struct new_event){"warning", "{\"message\":\"a longer text that fills the buffer\"}", 1, false},
				NULL, &f->err),
			STATUS_OK);
}

static void finish(struct fixture *f)
{
	struct job job;
	bool found;
	assert_int_equal(db_job_claim(f->db, &found, &job, &f->err), STATUS_OK);
	assert_int_equal(db_job_finish(f->db, job.id, JOB_SUCCEEDED, "{}", NULL, NULL, &f->err), STATUS_OK);
	job_clear(&job);
}

enum { WATCHERS = 100, EVENTS = 300 };

static void test_many_watchers(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	int fds[WATCHERS];
	submit(f, "a", id);
	append(f, id, 100);
	for (int i = 0; i < WATCHERS / 2; i++)
		fds[i] = watch(f, id, "");
	append(f, id, 100);
	for (int i = WATCHERS / 2; i < WATCHERS; i++)
		fds[i] = watch(f, id, "Last-Event-ID: 42\r\n");
	append(f, id, EVENTS - 200);
	finish(f);
	for (int i = 0; i < WATCHERS; i++)
		expect_stream(take(fds[i]), i < WATCHERS / 2 ? 1 : 43, EVENTS + 3, true);
	/* After the end: what is left, and the end again. */
	expect_stream(take(watch(f, id, "Last-Event-ID: 300\r\n")), 301, EVENTS + 3, true);
	expect_stream(take(watch(f, id, "Last-Event-ID: 999999999999999\r\n")), 1, 0, true);
}

static void test_stop_with_open_streams(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	int fds[WATCHERS];
	submit(f, "a", id);
	for (int i = 0; i < WATCHERS; i++)
		fds[i] = watch(f, id, i % 2 ? "" : "Last-Event-ID: 999999999999999\r\n");
	append(f, id, 10);
	/* Each has its headers, so each is open when the server stops. */
	for (int i = 0; i < WATCHERS; i++) {
		char byte;
		assert_int_equal(recv(fds[i], &byte, 1, MSG_PEEK), 1);
	}
	api_stop(f->api);
	f->api = NULL;
	for (int i = 0; i < WATCHERS; i++) {
		char *text = take(fds[i]);
		assert_true(join_chunks(text));
		assert_null(strstr(text, "event: end"));
		free(text);
	}
}

static void test_deleted_job_ends_streams(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	enum change_outcome outcome;
	struct job job;
	submit(f, "a", id);
	int fd = watch(f, id, "Last-Event-ID: 1000000\r\n");
	char byte;
	assert_int_equal(recv(fd, &byte, 1, MSG_PEEK), 1);
	assert_int_equal(db_job_cancel(f->db, id, &outcome, &job, &f->err), STATUS_OK);
	job_clear(&job);
	assert_int_equal(db_job_delete(f->db, id, &outcome, &f->err), STATUS_OK);
	char *text = take(fd);
	assert_true(join_chunks(text));
	free(text);
}

/* ---- load ---------------------------------------------------------------------------------------------------------------- */

static void *request_often(void *context)
{
	struct fixture *f = context;
	for (int i = 0; i < 50; i++) {
		ask(f, "GET", "/v1/jobs", "", NULL, NULL);
		ask(f, "GET", "/v1/models", "", NULL, NULL);
		ask(f, "POST", "/v1/jobs", "", "{\"output\":\"bad\"}", NULL);
	}
	return NULL;
}

static void test_parallel_requests_and_writes(void **state)
{
	struct fixture *f = *state;
	char id[JOB_ID_BYTES];
	pthread_t threads[4];
	submit(f, "a", id);
	int fd = watch(f, id, "");
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, request_often, f), 0);
	append(f, id, 200);
	for (int i = 0; i < 4; i++)
		pthread_join(threads[i], NULL);
	finish(f);
	expect_stream(take(fd), 1, 203, true);
}

/* ---- tokens -------------------------------------------------------------------------------------------------------------- */

/* Those who guess wait, and meanwhile others are answered, tokens are taken away, and the server is stopped. */
/* Waits until a connection has something to read with this in it, and leaves it there. */
static void await_text(int fd, const char *text)
{
	char seen[8192];
	for (;;) {
		ssize_t size = recv(fd, seen, sizeof seen - 1, MSG_PEEK);
		assert_true(size > 0);
		seen[size] = 0;
		if (strstr(seen, text)) return;
		usleep(1000);
	}
}

static void test_guessing(void **state)
{
	enum { GUESSERS = 12 };
	static const char guess[] =
		"GET /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer guess-0123456789\r\n\r\n";
	static const char bob[] = "Authorization: Bearer bob-0123456789ab\r\n",
			  eve[] = "Authorization: Bearer eve-0123456789ab\r\n";
	struct fixture *f = *state;
	int fds[GUESSERS];
	char *text;
	struct audit_list list;
	int64_t guesses = 0;
	assert_int_equal(ask(f, "POST", "/v1/jobs", bob, "{\"output\":\"a\"}", NULL), 201);
	assert_int_equal(db_audit_list(f->db, INT64_MAX, 1, &list, &f->err), STATUS_OK);
	char path[96];
	snprintf(path, sizeof path, "/v1/jobs/%s/events", list.entries[0].target);
	audit_list_clear(&list);
	int stream = dial(f);
	char request[256];
	snprintf(request, sizeof request,
		 "GET %s HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nConnection: close\r\n%s\r\n", path, eve);
	put(stream, request, strlen(request));
	await_text(stream, "event: job.queued");
	for (int i = 0; i < GUESSERS; i++) {
		fds[i] = dial(f);
		put(fds[i], guess, strlen(guess));
	}
	for (int i = 0; i < 20; i++)
		assert_int_equal(ask(f, "GET", "/v1/jobs", bob, NULL, NULL), 200);
	assert_int_equal(ask(f, "POST", "/v1/jobs", eve, "{}", NULL), 403);
	tokens_replace(f->tokens, parse_tokens("bob submit bob-0123456789ab\n"));
	text = take(stream); /* it ends */
	assert_non_null(strstr(text, "event: job.queued"));
	assert_null(strstr(text, "event: end"));
	free(text);
	assert_int_equal(ask(f, "GET", "/v1/jobs", bob, NULL, NULL), 200);
	api_stop(f->api);
	f->api = NULL;
	for (int i = 0; i < GUESSERS; i++) {
		text = take(fds[i]);
		assert_non_null(strstr(text, "HTTP/1.1 401"));
		free(text);
	}
	assert_true(f->told > 0);
	assert_int_equal(db_audit_list(f->db, INT64_MAX, 100, &list, &f->err), STATUS_OK);
	for (size_t i = 0; i < list.count; i++)
		guesses += strcmp(list.entries[i].outcome, "unauthorized") == 0 ? list.entries[i].count : 0;
	audit_list_clear(&list);
	assert_int_equal(guesses, GUESSERS);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	const struct CMUnitTest tests[] = {
		TEST(test_job_over_http),
		TEST(test_refusals),
		TEST(test_idempotency_key),
		TEST(test_limits),
		TEST(test_metrics_count),
		TEST(test_estimate),
		TEST(test_many_watchers),
		TEST(test_stop_with_open_streams),
		TEST(test_deleted_job_ends_streams),
		TEST(test_parallel_requests_and_writes),
		cmocka_unit_test_setup_teardown(test_guessing, setup_guarded, teardown),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
