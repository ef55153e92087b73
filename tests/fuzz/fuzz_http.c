/* libFuzzer over what a client sends on a connection: through a pair of sockets, by the library and the real router and handlers,
 * to a database that holds a job that has succeeded, one that has failed and one that waits. Hooks stand for the daemon. The first
 * byte says how much is sent ahead of the rest, and whether that is read first. What is answered must be HTTP, its JSON and texts
 * whole, and never 500; and the connection must end.
 *
 * The server is included, not linked: nothing else gives a connection to it that no socket of its own has accepted. */
#include "api/server.c"

#include <linux/sockios.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/file.h"
#include "base/json.h"
#include "db/studies.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum {
	PATIENCE_MS = 20000, /* for the end of a connection */
	SILENCE_MS = 30,     /* behind which a stream has said what it had to say */
	FIRST = 10,          /* the priority of the job that is to be claimed next */
};

static const char succeeded_id[] = "01hzzzzzzz0123456789abcdef", failed_id[] = "01hzzzzzzz0123456789abcdeg",
		  waiting_id[] = "01hzzzzzzz0123456789abcdeh", study_id[] = "01hzzzzzzz0123456789abcdej",
		  row_id[] = "01hzzzzzzz0123456789abcdek";
static const _Atomic int64_t queue_limit = 6;

static struct {
	char directory[64];
	struct db *db;
	struct metrics *metrics;
	struct api *api;
} lab;

/* What cannot go wrong here. */
#define OK(call)                                                                                                                   \
	do {                                                                                                                       \
		struct error err;                                                                                                  \
		if ((call) != STATUS_OK) {                                                                                         \
			fprintf(stderr, "%s: %s\n", #call, err.message);                                                           \
			abort();                                                                                                   \
		}                                                                                                                  \
	} while (0)

/* ---- hooks --------------------------------------------------------------------------------------------------------------- */

static bool is_text(const cJSON *object, const char *key)
{
	const char *text = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(object, key));
	return text && *text;
}

static int depth(const cJSON *json)
{
	int most = 0;
	const cJSON *item;
	cJSON_ArrayForEach(item, json)
	{
		int below = depth(item);
		if (below > most) most = below;
	}
	return most + 1;
}

/* A spec is accepted that has an output; the rules for metadata are the engine's, which accepts no deep values either. */
static enum status prepare(void *context, const cJSON *spec, const char *id, struct api_submission *ret, struct error *err)
{
	(void)context;
	(void)id;
	const cJSON *output = cJSON_GetObjectItemCaseSensitive(spec, "output"), *item;
	const cJSON *metadata = cJSON_GetObjectItemCaseSensitive(spec, "metadata");
	bool good = cJSON_IsObject(spec) && depth(spec) < 16 && is_text(spec, "output") && (!metadata || cJSON_IsObject(metadata));
	cJSON_ArrayForEach(item, metadata) good &= cJSON_IsString(item);
	if (!good) {
		ret->errors = cJSON_CreateArray();
		problem_add(ret->errors, "pointer", "/output", "is not what it should be");
		return error_set(err, STATUS_INVALID, "the spec is wrong");
	}
	if (strcmp(output->valuestring, "there") == 0) return error_set(err, STATUS_EXISTS, "it is there");
	cJSON *shown = cJSON_CreateObject();
	cJSON_AddItemToObject(shown, "output", cJSON_Duplicate(output, true));
	if (metadata) cJSON_AddItemToObject(shown, "metadata", cJSON_Duplicate(metadata, true));
	ret->output = strdup(output->valuestring);
	ret->spec = cJSON_PrintUnformatted(shown);
	cJSON_Delete(shown);
	return STATUS_OK;
}

static enum status estimate(void *context, const cJSON *spec, const char *id, cJSON **ret, cJSON **ret_errors, struct error *err)
{
	struct api_submission prepared = {0};
	enum status status = prepare(context, spec, id, &prepared, err);
	*ret_errors = prepared.errors;
	prepared.errors = NULL;
	if (!status) *ret = cJSON_CreateObject();
	api_submission_clear(&prepared);
	return status;
}

static enum status prepare_retry(void *context, const struct job *job, struct error *err)
{
	(void)context, (void)job, (void)err;
	return STATUS_OK;
}

static void queued(void *context)
{
	(void)context;
}

static void changed(void *context, const char *id)
{
	(void)context;
	if (!job_id_is_valid(id)) abort();
}

static void drained(void *context, int64_t since, bool now)
{
	(void)context, (void)since, (void)now;
}

static enum status artifacts(void *context, const struct job *job, cJSON **ret, struct error *err)
{
	(void)context;
	if (job->state != JOB_SUCCEEDED) return error_set(err, STATUS_NOT_FOUND, "there is no output");
	*ret = cJSON_CreateArray();
	cJSON *file = cJSON_CreateObject();
	cJSON_AddStringToObject(file, "name", "config.json");
	cJSON_AddNumberToObject(file, "bytes", 1000);
	cJSON_AddItemToArray(*ret, file);
	return STATUS_OK;
}

static enum status artifact(void *context, const struct job *job, const char *name, struct api_file *ret, struct error *err)
{
	(void)context;
	if (job->state != JOB_SUCCEEDED || strcmp(name, "config.json") != 0)
		return error_set(err, STATUS_NOT_FOUND, "there is no such file");
	*ret = (struct api_file){.fd = memfd_create("artifact", MFD_CLOEXEC), .bytes = 1000, .type = "application/json"};
	strcpy(ret->etag, "\"abc\"");
	if (ret->fd < 0 || ftruncate(ret->fd, 1000)) abort();
	return STATUS_OK;
}

static enum status catalog(void *context, cJSON **ret, bool *ret_truncated, struct error *err)
{
	(void)context, (void)err;
	*ret = cJSON_CreateArray();
	*ret_truncated = false;
	return STATUS_OK;
}

static enum status gc(void *context, bool dry, cJSON **ret, struct error *err)
{
	(void)context, (void)dry, (void)err;
	*ret = cJSON_CreateObject();
	return STATUS_OK;
}

static cJSON *info(void *context)
{
	(void)context;
	return cJSON_CreateObject();
}

static enum status ready(void *context, struct error *err)
{
	(void)context, (void)err;
	return STATUS_OK;
}

/* ---- the queue ----------------------------------------------------------------------------------------------------------- */

static void add_job(const char *id, int priority)
{
	struct job job = {0};
	enum insert_outcome outcome;
	const struct submission submission = {.id = id,
					      .name = "a job",
					      .priority = priority,
					      .spec = "{\"metadata\":{\"team\":\"a\"}}",
					      .output = id,
					      .idempotency_key = id,
					      .request = "{\"output\":\"known\"}"};
	OK(db_job_insert(lab.db, &submission, 100, &outcome, &job, &err));
	if (outcome != INSERT_NEW) abort();
	job_clear(&job);
}

static void add_events(const char *id)
{
	for (int i = 0; i < 3; i++) {
		const struct new_event event = {"warning", "{\"message\":\"it is warm\"}", 1, false};
		OK(db_event_append(lab.db, id, &event, NULL, &err));
	}
	OK(db_block_commit(lab.db, id, 0, "{\"block\":0,\"seconds\":1,\"sparsity\":0.5}", 1, NULL, &err));
	OK(db_job_note(lab.db, id, "info", "a note", &err));
}

static void add_ended(const char *id, enum job_state state)
{
	struct job job = {0};
	bool found, good = state == JOB_SUCCEEDED;
	add_job(id, FIRST);
	OK(db_job_claim(lab.db, &found, &job, &err));
	if (!found || strcmp(job.id, id) != 0) abort();
	job_clear(&job);
	add_events(id);
	OK(db_job_finish(lab.db, id, state, good ? "{\"sparsity\":0.5,\"perplexity\":{\"a\":{\"pruned\":2,\"dense\":1}}}" : NULL,
			 good ? NULL : "io", good ? NULL : "it broke", &err));
}

static void add_study(void)
{
	struct study_submission study = {
		.id = study_id, .name = "a study", .spec = "{}", .grid = "{\"sparsity\":[0.5]}", .count = 1};
	char id[JOB_ID_BYTES];
	enum insert_outcome outcome;
	size_t claimed;
	study.jobs = calloc(1, sizeof *study.jobs);
	study.jobs[0].job = (struct submission){.id = row_id, .name = "a row", .spec = "{}", .output = "study/a"};
	study.jobs[0].settings = "{\"sparsity\":0.5}";
	OK(db_study_insert(lab.db, &study, 100, &outcome, id, &claimed, &err));
	if (outcome != INSERT_NEW) abort();
	free(study.jobs);
}

static void remove_job(const struct job *job)
{
	enum change_outcome outcome;
	struct job ignored = {0};
	struct error err;
	if (!job_state_is_final(job->state) && db_job_cancel(lab.db, job->id, &outcome, &ignored, &err) == STATUS_OK)
		job_clear(&ignored);
	db_job_delete(lab.db, job->id, &outcome, &err);
}

/* Streams end by it, and what was sent behind them is answered meanwhile, so that some may be gone already. */
static void remove_all(void)
{
	const struct job_filter all = {.state = -1};
	struct study_list studies;
	struct job_list jobs;
	struct error ignored;
	enum change_outcome outcome;
	int64_t since;
	OK(db_drain_set(lab.db, false, &since, &err));
	OK(db_study_list(lab.db, NULL, 1000, &studies, &err));
	for (size_t i = 0; i < studies.count; i++) {
		db_study_cancel(lab.db, studies.studies[i].id, &outcome, &ignored);
		db_study_delete(lab.db, studies.studies[i].id, &outcome, &ignored);
	}
	study_list_clear(&studies);
	OK(db_job_list(lab.db, &all, NULL, 1000, &jobs, &err));
	for (size_t i = 0; i < jobs.count; i++)
		remove_job(&jobs.jobs[i]);
	job_list_clear(&jobs);
}

/* As it was before the first input; between two of them. */
static void reset(void)
{
	remove_all();
	add_ended(succeeded_id, JOB_SUCCEEDED);
	add_ended(failed_id, JOB_FAILED);
	add_job(waiting_id, 0);
	add_study();
}

/* ---- the server ---------------------------------------------------------------------------------------------------------- */

static void stop(void)
{
	struct error ignored;
	api_stop(lab.api);
	db_close(lab.db);
	metrics_free(lab.metrics);
	directory_remove(lab.directory, &ignored);
}

/* On a socket that nobody knows: connections are given to the server. */
static void start(void)
{
	char path[96];
	struct sockaddr_un nameless = {.sun_family = AF_UNIX};
	strcpy(lab.directory, access("/dev/shm", W_OK) == 0 ? "/dev/shm/besad-fuzz-XXXXXX" : "/tmp/besad-fuzz-XXXXXX");
	if (!mkdtemp(lab.directory)) abort();
	snprintf(path, sizeof path, "%s/besad.db", lab.directory);
	OK(db_open(path, &lab.db, &err));
	lab.metrics = metrics_create("fuzz");
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (bind(fd, (struct sockaddr *)&nameless, sizeof nameless.sun_family) || listen(fd, 8)) abort();
	const struct api_config config = {.db = lab.db,
					  .metrics = lab.metrics,
					  .queue_limit = &queue_limit,
					  .hooks = {.prepare = prepare,
						    .estimate = estimate,
						    .prepare_retry = prepare_retry,
						    .queued = queued,
						    .cancelled = changed,
						    .deleted = changed,
						    .drained = drained,
						    .artifacts = artifacts,
						    .artifact = artifact,
						    .models = catalog,
						    .data = catalog,
						    .gc = gc,
						    .info = info,
						    .ready = ready,
						    .accepts = ready}};
	OK(api_start(&config, &fd, 1, &lab.api, &err));
	reset();
	atexit(stop);
}

static int dial(void)
{
	struct sockaddr_in client = {.sin_family = AF_INET, .sin_port = htons(4000), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair)) abort();
	if (MHD_add_connection(lab.api->daemons[0], pair[1], (struct sockaddr *)&client, sizeof client) != MHD_YES) abort();
	return pair[0];
}

static void put(int fd, const uint8_t *data, size_t size)
{
	while (size) {
		ssize_t sent = send(fd, data, size, MSG_NOSIGNAL);
		if (sent <= 0) return; /* besad has closed it, which it may */
		data += sent;
		size -= (size_t)sent;
	}
}

/* Until the server has read all: an end that comes together with what it reads, it sees only later (api/peers.c). */
static void wait_until_read(int fd)
{
	for (int left = 1, waited = 0; waited < SILENCE_MS * 1000 && ioctl(fd, SIOCOUTQ, &left) == 0 && left; waited += 20)
		usleep(20);
}

static bool holds(const void *text, size_t size, const char *part)
{
	return size && memmem(text, size, part, strlen(part));
}

/* All that is answered. */
static void take(int fd, struct buffer *answer)
{
	static char piece[65536];
	for (int waited = 0;;) {
		struct pollfd event = {.fd = fd, .events = POLLIN};
		int ready_fds = poll(&event, 1, SILENCE_MS);
		if (ready_fds < 0) continue;
		if (ready_fds == 0) {
			waited += SILENCE_MS;
			if (holds(answer->data, answer->size, "Content-Type: text/event-stream")) remove_all();
			if (waited > PATIENCE_MS) abort();
			continue;
		}
		ssize_t got = recv(fd, piece, sizeof piece, 0);
		if (got <= 0) break;
		buffer_append(answer, piece, (size_t)got);
	}
	buffer_append(answer, "", 0);
	if (answer->failed) abort();
}

/* ---- what is answered ---------------------------------------------------------------------------------------------------- */

/* The value of a header in the head of a response, or NULL. */
static const char *header(const char *head, const char *name)
{
	static char line[512];
	char wanted[64];
	snprintf(wanted, sizeof wanted, "\r\n%s: ", name);
	const char *at = strstr(head, wanted);
	if (!at) return NULL;
	at += strlen(wanted);
	snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\r"), at);
	return line;
}

static void check_body(const char *type, const char *body, size_t size)
{
	cJSON *json;
	if (!utf8_valid(body, size)) abort();
	if (!strstr(type, "json")) return;
	OK(json_parse(body, size, "an answer", &json, &err));
	cJSON_Delete(json);
}

/* One response and its body, `text` with a 0 byte behind it; returns how long they are, 0 where that does not say. */
static size_t check_response(const char *text, size_t size)
{
	int status = 0;
	const char *end = strstr(text, "\r\n\r\n");
	if (sscanf(text, "HTTP/1.%*1[01] %3d ", &status) != 1 || status < 100 || status > 599 || status == 500 || !end) {
		fprintf(stderr, "this was answered: %s\n", text);
		abort();
	}
	char *head = strndup(text, (size_t)(end - text));
	size_t taken = (size_t)(end - text) + 4;
	if (!header(head, "X-Content-Type-Options")) { /* the library's own: "go on", or a refusal, whose head 0.9.75 sends twice */
		free(head);
		return status == 100 ? taken : 0;
	}
	const char *length = header(head, "Content-Length");
	size_t bytes = length ? strtoul(length, NULL, 10) : 0;
	const char *type = header(head, "Content-Type");
	bool streams = strstr(head, "Transfer-Encoding: chunked") != NULL;
	if (!streams && bytes <= size - taken && type &&
	    (strstr(type, "json") || strstr(type, "text/plain") || strstr(type, "csv")) && status != 206 && !strstr(head, "ETag: "))
		check_body(type, end + 4, bytes);
	free(head);
	return streams || bytes > size - taken ? 0 : taken + bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buffer answer = {0};
	if (!lab.api) start();
	if (size < 1) return 0;
	size_t ahead = (size - 1) * data[0] / 255;
	int fd = dial();
	put(fd, data + 1, ahead);
	if (data[0] % 2) wait_until_read(fd);
	put(fd, data + 1 + ahead, size - 1 - ahead);
	wait_until_read(fd);
	shutdown(fd, SHUT_WR);
	take(fd, &answer);
	close(fd);
	for (size_t at = 0, taken = 1; taken && at < answer.size && !holds(data, size, "HEAD"); at += taken)
		taken = check_response(answer.data + at, answer.size - at);
	buffer_free(&answer);
	if (holds(data, size, "POST") || holds(data, size, "DELETE") || holds(data, size, "event-stream")) reset();
	return 0;
}
