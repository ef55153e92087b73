/* The HTTP server: besad's API and dashboard. It reads and writes rows of the database; what only the rest of the daemon knows
 * (models, the engine's checks of a spec, the running job) it asks through hooks. openapi.yaml is its contract. */
#ifndef BESAD_API_API_H
#define BESAD_API_API_H

#include <cjson/cJSON.h>

#include "api/metrics.h"
#include "api/token.h"
#include "base/error.h"
#include "db/db.h"

struct api;

/* What every server keeps to; /v1/info shows them. */
enum {
	API_MAX_CONNECTIONS = 1024,
	API_MAX_BODY = 1 << 20,
	API_MAX_HEADERS = 16 << 10,
	API_MAX_TARGET = 8 << 10,
	API_MAX_PAGE = 1000,
	API_DEFAULT_PAGE = 100,
	API_MAX_STUDY_JOBS = 256,
	API_MAX_DEPENDENCIES = 16, /* of a job */
	API_MAX_LOG = 1 << 20,     /* of a job: the newest bytes */
	API_HEARTBEAT_SECONDS = 15,
	API_RECEIVE_SECONDS = 60, /* for a request, from its first byte or the end of the last one; idle connections end so too */
	API_CROWDED_SECONDS = 10, /* the same, once api_crowd connections are open */
	API_SEND_SECONDS = 120,   /* for a response that is not a stream; and for a file, as long as these bytes a second take */
	API_SEND_BYTES = 64 << 10,
	API_MAX_COMPLETIONS = 8, /* that are made, wait, or are sent; one is made at a time */
	API_MAX_COMPLETION_TOKENS = 8192,
	API_MAX_STOPS = 4,
	API_MAX_STOP = 64,             /* characters of one */
	API_COMPLETION_SECONDS = 3600, /* for a completion, from its request to its end */
};

/* What a client's spec came to. The strings are the caller's to free, with api_submission_clear. */
struct api_submission {
	char *name; /* or NULL */
	int priority;
	char *spec;   /* resolved, as JSON text */
	char *places; /* where its names lead, as JSON text; or NULL */
	char *output; /* relative to the output root, expanded */
	bool overwrite;
	int64_t bytes; /* that the output will take, about */
	cJSON *errors; /* [{"pointer", "detail"}] of a spec that is STATUS_INVALID */
};
void api_submission_clear(struct api_submission *);

/* A file for a client. */
struct api_file {
	int fd; /* the receiver's to close */
	int64_t bytes;
	const char *type; /* static storage */
	char etag[72];    /* in quotes: another content has another one */
};

void api_file_close(struct api_file *);

/* A text that a client wants of a model. What it points to is the API's. */
struct api_message {
	const char *role, *content;
};
struct api_completion {
	const char *model;
	const char *prompt;                 /* the text that is continued; or NULL: ... */
	const struct api_message *messages; /* ... a conversation, whose next message is wanted */
	size_t n_messages;
	int64_t max_tokens;
	double temperature, top_p;
	uint64_t seed;
	const char *stops[API_MAX_STOPS]; /* strings that end the text, and are no part of it */
	int n_stops;

	/* Takes text, maybe none, as it is made: UTF-8 without zero bytes. From its first call on the request is known to be
	 * right. */
	enum status (*take)(void *to, const char *text, size_t bytes, struct error *err);
	bool (*gone)(void *to); /* does nobody want it any more? Asked before each step */
	void *to;
};
struct api_completed {
	const char *finish_reason; /* "stop", "length" */
	int64_t prompt_tokens, tokens;
	const char *pointer; /* of a failure: the field that is to blame, as a JSON pointer; or NULL */
};

/* Called on threads of the API; each may block. */
struct api_hooks {
	void *context;

	/* Checks a spec for the job `id`. STATUS_INVALID with `errors`, STATUS_EXISTS when the output is there already, or another
	 * failure, which is not the client's. */
	enum status (*prepare)(void *context, const cJSON *spec, const char *id, struct api_submission *ret, struct error *err);

	/* What a job of such a spec would take, an object of the contract. `id` is no job's. Fails as `prepare`, and with
	 * STATUS_CANCELLED when besad stops. */
	enum status (*estimate)(void *context, const cJSON *spec, const char *id, cJSON **ret, cJSON **ret_errors,
				struct error *err);

	/* STATUS_EXISTS when a job that is to be queued again can no longer have its output. */
	enum status (*prepare_retry)(void *context, const struct job *job, struct error *err);

	/* What the jobs of `who` that have ended hold on the disks, in bytes: outputs, and what failed and cancelled ones left; but
	 * not the job `but`, which may be NULL. Needed for a token with max-bytes. */
	enum status (*held)(void *context, const char *who, const char *but, int64_t *ret, struct error *err);

	void (*queued)(void *context);                        /* there is a job to claim */
	void (*cancelled)(void *context, const char *job_id); /* that job is cancelling or pausing, or was cancelled */
	void (*deleted)(void *context, const char *job_id);   /* its files may go */

	/* Since when the queue is drained now, 0: it is not (db_drain_set). `now`: the running job is to stop, and be queued
	 * again. */
	void (*drained)(void *context, int64_t since, bool now);

	/* The files of a job's output: an array of the contract; and one of them, by its name there. STATUS_NOT_FOUND for no
	 * such name, STATUS_EXISTS where the output, or the file, is not the job's any more. */
	enum status (*artifacts)(void *context, const struct job *job, cJSON **ret, struct error *err);
	enum status (*artifact)(void *context, const struct job *job, const char *name, struct api_file *ret, struct error *err);

	/* What lies below the roots for models and for data: an array, and whether it is not the whole list. */
	enum status (*models)(void *context, cJSON **ret, bool *ret_truncated, struct error *err);
	enum status (*data)(void *context, cJSON **ret, bool *ret_truncated, struct error *err);

	/* What the rules by which ended jobs are forgotten would remove, an object of the contract; and, unless `dry`, removes
	 * it. */
	enum status (*gc)(void *context, bool dry, cJSON **ret, struct error *err);

	/* Makes a text, one at a time; NULL where no models are served. STATUS_NOT_FOUND for no such model; STATUS_INVALID and
	 * STATUS_UNSUPPORTED with the field that is to blame; STATUS_CANCELLED when besad stops, or nobody wants it any more. */
	enum status (*complete)(void *context, const struct api_completion *, struct api_completed *ret, struct error *err);

	cJSON *(*info)(void *context); /* what the daemon adds to /v1/info; NULL: no memory */

	void (*refused)(void *context, const char *text); /* requests were, and are to be logged; or NULL */

	/* Neither waits for anything. The one: STATUS_OK, or why besad is not ready; the other: STATUS_OK, or why no job can be
	 * queued. */
	enum status (*ready)(void *context, struct error *err);
	enum status (*accepts)(void *context, struct error *err);
};

struct api_config {
	struct db *db; /* its listener is set by api_start */
	struct metrics *metrics;
	struct api_hooks hooks;
	struct tokens *tokens; /* the caller's; NULL: no authentication; then only loopback names are answered as Host */
	bool tls;              /* clients must speak TLS, and are shown what tls_load (api/tls.h) has read */
	size_t connections;    /* at most; 0: API_MAX_CONNECTIONS, which it may not exceed */
	size_t sockets;        /* that they are shared out to, in equal parts: api_start fills it */
	const _Atomic int64_t *queue_limit; /* jobs that may wait; the caller's, who may change it at any time */
};

/* Of the connections, so many may come from one address, … */
static inline size_t api_connections_per_address(size_t connections)
{
	return connections * 15 / 16;
}

/* … and so many be streams: of one socket's part, as who fills that one keeps everybody out of it. */
static inline size_t api_streams(const struct api_config *config)
{
	return config->connections / config->sockets * 7 / 8;
}

/* From so many on, those that wait for a request make way sooner. */
static inline size_t api_crowd(const struct api_config *config)
{
	return config->connections / config->sockets * 3 / 4;
}

/* Serves on `n` listening sockets, which are the API's from then on, also when this fails. */
enum status api_start(const struct api_config *, const int *sockets, size_t n, struct api **ret, struct error *err);

/* Ends every stream, answers what is under way, and stops. No hook is called after it. Takes NULL. */
void api_stop(struct api *);

#endif
