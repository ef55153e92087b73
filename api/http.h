/* A request and its response, apart from the library that carries them: handlers are plain functions from one to the other. */
#ifndef BESAD_API_HTTP_H
#define BESAD_API_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "api/api.h"
#include "api/assets.h"
#include "api/user.h"
#include "base/buffer.h"
#include "db/audit.h"

enum { MAX_QUERY = 24, MAX_RESPONSE_HEADERS = 6 };

struct context; /* server.c */
struct live;    /* live.h */
struct route;

struct request {
	const struct api_config *config;
	const char *method, *path;
	struct {
		const char *key, *value; /* value is NULL where there is no '=' */
	} query[MAX_QUERY];
	size_t n_query; /* may be MAX_QUERY + 1: there were more */
	const char *accept, *authorization, *content_type, *content_encoding, *host, *origin, *fetch_site, *idempotency_key,
		*last_event_id, *range, *if_range, *if_none_match; /* or NULL */
	struct buffer body;

	/* Filled by router_check. */
	const struct route *route;
	char id[JOB_ID_BYTES];   /* of paths with {id}; "" when it is not of an id's form */
	const char *name;        /* of paths with {name}: all that follows, slashes included */
	const char *peer;        /* its address, or "uid:N"; static until the connection ends, or NULL */
	const struct user *user; /* who sent it through a Unix socket; NULL: it came another way */
	struct holder holder;    /* whose token it bears; where none is asked for, nobody's, who may do everything */
	struct actor *actor;     /* whom its handler's thread acts for; NULL for nobody */
	struct live *live;       /* of a route that makes a text: the body that its handler may write while it is sent */
};

struct response {
	unsigned status;
	const char *type; /* Content-Type, static storage */
	char *body;       /* freed with free() unless `fixed` */
	size_t size;
	bool fixed;          /* the body has static storage */
	bool page;           /* the dashboard: gets its content security policy */
	const char *problem; /* of an error its name, static storage */
	struct {
		bool open; /* instead of a body: `size` bytes of this file, which the response closes */
		int fd;
		int64_t at;
	} file;
	struct {
		const char *name; /* static storage */
		char value[160];
	} headers[MAX_RESPONSE_HEADERS];
	size_t n_headers;
	bool live;                         /* instead of a body: what the handler goes on writing to request->live */
	bool stream;                       /* instead of a body: the events of request->id after `stream_after` */
	int64_t stream_after, stream_last; /* stream_last: the newest event there was */
};

void response_clear(struct response *);
void response_header(struct response *, const char *name, const char *format, ...) __attribute__((format(printf, 3, 4)));
void response_static(struct response *, const char *type, const void *body, size_t size);
void response_file(struct response *, int fd, int64_t at, int64_t size, const char *type); /* takes the descriptor */
void response_text(struct response *, const char *type, struct buffer *body);              /* takes the buffer */
void response_json(struct response *, unsigned status, cJSON *json); /* takes `json`; NULL is a failed allocation */

/* ---- problem.c: RFC 9457 ------------------------------------------------------------------------------------------------- */

/* An error as application/problem+json: type urn:besad:problem:<slug>, which has static storage, with the status's title. */
void problem(struct response *, unsigned status, const char *slug, const char *detail, ...) __attribute__((format(printf, 4, 5)));

/* The same with `errors`, an array that it takes. */
void problem_fields(struct response *, unsigned status, const char *slug, const char *detail, cJSON *errors);

/* One entry of such an array about a query parameter or header. */
void problem_pointer(struct buffer *pointer, const char *key); /* appends a key to a JSON pointer (RFC 6901) */
void problem_add(cJSON *errors, const char *kind, const char *name, const char *detail, ...) __attribute__((format(printf, 4, 5)));

/* A failure that is not the client's: 507 for a full disk, 503 for what may be better later, 404 for STATUS_NOT_FOUND, else 500. */
void problem_failure(struct response *, const struct error *err);

/* A spec that is not accepted: 422 with `errors`, which it takes, for STATUS_INVALID; 409 for STATUS_EXISTS; else a failure. */
void problem_spec(struct response *, const struct error *err, cJSON *errors);

/* ---- headers.c ---------------------------------------------------------------------------------------------------------- */

/* How much a client that sent `accept` (or NULL) wants `type`: 0 (not at all) to 1000 (RFC 9110, 12.5.1). */
int accept_quality(const char *accept, const char *type);

/* Is `header` the media type `type`, whatever its parameters? */
bool media_type_is(const char *header, const char *type);

/* Is `host`, a Host header or an origin's authority, one of localhost, 127.0.0.0/8 or [::1], with or without a port? */
bool host_is_loopback(const char *host);

/* Which part of a file of `size` bytes a Range header (or NULL) asks for: *ret_bytes bytes from *ret_first on. What is not
 * understood, or asks for several parts, asks for the whole. */
enum range { RANGE_WHOLE, RANGE_PART, RANGE_OUTSIDE };
enum range range_find(const char *range, int64_t size, int64_t *ret_first, int64_t *ret_bytes);

/* Does `origin` name the site that `host` names? Never for "null". */
bool origin_is_host(const char *origin, const char *host);

/* ---- router.c ------------------------------------------------------------------------------------------------------------ */

typedef void handler_fn(const struct request *, struct response *);

struct route {
	const char *method, *path; /* the path may hold {id}, and behind that end with {name} */
	handler_fn *handler;
	bool open;             /* needs no token */
	enum role role;        /* that its token must have; 0: read for GET, else submit */
	const char *action;    /* what it changes, as the audit has it; NULL: nothing. Such a route has an executor */
	bool slow;             /* writes or reads files: not on the thread that serves every connection */
	bool reads;            /* the database: likewise, on threads that do not wait for those that write */
	bool scans;            /* looks through directories: on a thread of its own, so that nothing else waits for it */
	bool works;            /* reads or computes for a while: likewise, on another one */
	bool completes;        /* has a model make a text: likewise, and no more wait than API_MAX_COMPLETIONS */
	bool body;             /* takes a JSON body */
	const char *types[4];  /* what it can answer with, NULL-terminated */
	const char *params[5]; /* query parameters, NULL-terminated; "name[]" stands for name[KEY] with any key */
};

/* Finds the route and makes every check that needs no body: token, host, origin, Accept, query. False when it failed: the response
 * says how. */
bool router_check(struct request *, struct response *);

/* Checks that need the body, then the handler. */
void router_run(struct request *, struct response *);

/* ---- handlers ------------------------------------------------------------------------------------------------------------ */

handler_fn jobs_list, jobs_submit, jobs_show, jobs_cancel, jobs_pause, jobs_resume, jobs_retry, jobs_delete; /* jobs.c */
handler_fn studies_list, studies_submit, studies_show, studies_cancel, studies_delete;                       /* studies.c */
handler_fn artifacts_index, artifacts_send;                                                                  /* artifacts.c */
handler_fn gc_show, gc_run;                                                                                  /* gc.c */
handler_fn audit_list;                                                                                       /* audit.c */
handler_fn drain_show, drain_begin, drain_end;                                                               /* drain.c */
handler_fn estimate_make;                                                                                    /* estimate.c */
handler_fn completions_text, completions_chat;                                                               /* completions.c */
handler_fn log_show;                                                                                         /* log.c */
handler_fn events_list;                                                                                      /* events.c */
handler_fn report_show, models_list, data_list, info_show, metrics_show, health_live, health_ready;

#define ASSET_HANDLER(name, path, file, type) asset_##name,
handler_fn DASHBOARD_FILES(ASSET_HANDLER) asset_openapi; /* assets.c */
#undef ASSET_HANDLER

/* ---- jobs.c: what studies answer likewise ---------------------------------------------------------------------------------- */

/* False where the Idempotency-Key, which may be NULL, cannot be one: the response says so. */
bool idempotency_key_check(const char *key, struct response *);
void idempotency_key_reused(struct response *);
void output_claimed(struct response *, const char *output);
void queue_full(const struct request *, struct response *);
void quota_spent(const struct request *, enum insert_outcome, struct response *);
/* Where there is a bound of what whom the request is from may hold, looks what that is, but for job `but`, or NULL. */
enum status quota_measure(const struct request *, const char *but, struct error *err);

/* ---- study_table.c: the jobs of a study as a table ------------------------------------------------------------------------ */

struct study;
struct study_rows;

/* An array of the contract. Reads what lies of the outputs: takes a while. STATUS_CANCELLED when besad stops. */
enum status study_rows_json(const struct api_config *, const struct study_rows *, cJSON **ret, struct error *err);

/* Such an array as CSV (RFC 4180), a line for each job, behind a line of names. */
void study_rows_csv(const cJSON *grid, const cJSON *rows, struct buffer *ret);

/* ---- json.c ------------------------------------------------------------------------------------------------------------- */

/* "2024-05-06T07:08:09.012Z" of milliseconds since 1970. */
void time_format(int64_t milliseconds, char ret[32]);

cJSON *job_json(const struct job *);
/* "error": why it failed; null where `code` is NULL. */
void job_add_error(cJSON *json, const char *code, const char *message);
cJSON *event_json(const struct stored_event *);

/* The body as JSON, freed with cJSON_Delete. False where it is none: the response says so. */
bool body_parse(const struct request *, cJSON **ret, struct response *);

/* Query parameters, after router_check has refused unknown and doubled ones. */
const char *query_value(const struct request *, const char *key);
/* The parameters name[KEY]=VALUE as an object, as JSON text that the caller frees; *ret is NULL where there are none, or no
 * memory. What is wrong with them is in `errors`: they are bounded as a spec's metadata is (engine/spec/top.c). */
enum { MAP_ENTRIES = 16, MAP_KEY = 64, MAP_VALUE = 512 }; /* the latter in characters */
void query_map(const struct request *, const char *name, char **ret, cJSON *errors);
/* A decimal number from `low` to `high`; *ret keeps its value where the parameter is missing or wrong; if wrong, `errors` has
 * one more. */
void query_number(const struct request *, const char *key, int64_t low, int64_t high, int64_t *ret, cJSON *errors);

/* All of `text` as a decimal number from 0 to `high`. */
bool number_parse(const char *text, int64_t high, int64_t *ret);

#endif
