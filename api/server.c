/* Carries requests from libmicrohttpd to the handlers and answers back.
 *
 * One thread per listening socket serves every connection, so it must never wait: handlers that write, or read files, run on the
 * executor's threads while their connection is suspended. The library aborts the process when it is stopped with a suspended
 * connection, hence the order in api_stop: no new connections, the executors run dry, answers that wait are released, the
 * streams end, then the library stops. */
#include <arpa/inet.h>
#include <limits.h>
#include <microhttpd.h>
#include <pthread.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "api/executor.h"
#include "api/gate.h"
#include "api/http.h"
#include "api/live.h"
#include "api/peers.h"
#include "api/refusals.h"
#include "api/stream.h"
#include "api/tls.h"
#include "base/clock.h"

enum {
	MAX_SOCKETS = 8,
	EXECUTOR_THREADS = 2,
	CONNECTION_MEMORY = 64 << 10,
	DRAIN_LIMIT = 16 << 20, /* of a body that is too large, this much is read and dropped so that the client sees the answer */
	INACTIVE_SECONDS = 60,
	MOST_FILES = 24, /* downloads at once: each takes a descriptor, besides its connection's, of those that are kept for jobs */
	MOST_ROOM = 128 << 20, /* memory of bodies, while they come and while nobody reads them ... */
	SMALL_BODY = 64 << 10, /* ... beyond so much of each, which there is room for on every connection */
	FINISH_SECONDS = 2,    /* for answers under way when the server stops */
};

struct api {
	struct api_config config;
	struct hub *hub;
	struct peers *peers;
	struct refusals *refusals;
	/* Of requests that write or read a file, of those that read the database, of those that look through directories, of
	 * those that take their time, and of those that have a model make a text: NULL where none is served. */
	struct executor *executor, *reader, *scanner, *plodder, *completer;
	struct MHD_Daemon *daemons[MAX_SOCKETS];
	struct gate *gates[MAX_SOCKETS]; /* of Unix sockets */
	int sockets[MAX_SOCKETS];
	size_t n;
	pthread_mutex_t lock;
	pthread_cond_t idle;
	int exchanges; /* requests under way */
	int files;     /* of them, those that send one, ... */
	int texts;     /* ... and those of a text that a model makes */
	size_t room;   /* that their bodies take of MOST_ROOM */
};

/* One request and its response. */
struct exchange {
	struct task task;
	struct held held; /* while its answer waits */
	char peer[INET6_ADDRSTRLEN];
	struct user user; /* of a Unix socket */
	struct api *api;
	struct MHD_Connection *connection;
	struct request request;
	struct response response;
	enum { RECEIVING, RUNNING, ANSWERED } phase;
	struct live *live; /* a body that is made while it is sent; or NULL */
	bool sends_file, has_text;
	size_t room;         /* as in struct api */
	bool refused;        /* the response is known before the body has come */
	uint64_t body_bytes; /* as sent, also of what is dropped */
	double begun;        /* monotonic seconds */
};

/* ---- headers ------------------------------------------------------------------------------------------------------------- */

static enum MHD_Result count_bytes(void *context, enum MHD_ValueKind kind, const char *key, const char *value)
{
	size_t *bytes = context;
	(void)kind;
	*bytes += strlen(key) + (value ? strlen(value) : 0) + 4;
	return MHD_YES;
}

static enum MHD_Result add_parameter(void *context, enum MHD_ValueKind kind, const char *key, const char *value)
{
	struct request *request = context;
	(void)kind;
	if (request->n_query < MAX_QUERY) {
		request->query[request->n_query].key = key;
		request->query[request->n_query].value = value;
	}
	if (request->n_query <= MAX_QUERY) request->n_query++;
	return MHD_YES;
}

static void read_headers(struct exchange *exchange, const char *url, const char *method)
{
	struct request *request = &exchange->request;
	struct MHD_Connection *connection = exchange->connection;
	const struct {
		const char *name, **value;
	} wanted[] = {
		{"Accept", &request->accept},
		{"Authorization", &request->authorization},
		{"Content-Type", &request->content_type},
		{"Content-Encoding", &request->content_encoding},
		{"Host", &request->host},
		{"Origin", &request->origin},
		{"Sec-Fetch-Site", &request->fetch_site},
		{"Idempotency-Key", &request->idempotency_key},
		{"Last-Event-ID", &request->last_event_id},
		{"Range", &request->range},
		{"If-Range", &request->if_range},
		{"If-None-Match", &request->if_none_match},
	};
	for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++)
		*wanted[i].value = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, wanted[i].name);
	request->config = &exchange->api->config;
	request->path = url;
	request->method = method;
	MHD_get_connection_values(connection, MHD_GET_ARGUMENT_KIND, add_parameter, request);
}

/* What two readers of a request may read differently, so that one of them is led by the nose (RFC 9112, 11.2): the library lets
 * some of it pass. */
struct framing {
	int hosts, lengths, encodings;
	bool crooked;    /* a name that is no token, or a value that ends early */
	const char *end; /* of what was looked at last; NULL: where it lies says nothing */
};

/* The library before 0.9.76 ends a value at a NUL in it and says nothing of the rest. It has the head of a request where it was
 * received, a line behind the other, its ends overwritten: so what lies behind a value and before the next name is one end of a
 * line, or the value was cut short, or moved elsewhere because it went on in the next line, which is to be refused too (RFC
 * 9112, 5.2). */
static bool leaves_unread(const char *end, const char *next, ptrdiff_t line_ends)
{
	return end && (next <= end || next - end > 2 * line_ends);
}

static enum MHD_Result look_at_header(void *context, enum MHD_ValueKind kind, const char *key, size_t key_size, const char *value,
				      size_t value_size)
{
	static const char token[] = "!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
	struct framing *framing = context;
	(void)kind;
	framing->hosts += strcasecmp(key, "Host") == 0;
	framing->lengths += strcasecmp(key, "Content-Length") == 0;
	framing->encodings += strcasecmp(key, "Transfer-Encoding") == 0;
	framing->crooked |= !key_size || strspn(key, token) != key_size || (value && strlen(value) != value_size);
	framing->crooked |= leaves_unread(framing->end, key, 1);
	if (framing->end) framing->end = value ? value + strlen(value) : key + key_size;
	return MHD_YES;
}

static bool check_framing(struct exchange *exchange, const char *version)
{
	struct framing framing = {0};
	const union MHD_ConnectionInfo *head =
		MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_REQUEST_HEADER_SIZE);
	if (head && strcmp(MHD_get_version(), "0.9.76") < 0) framing.end = version + strlen(version);
	MHD_get_connection_values_n(exchange->connection, MHD_HEADER_KIND, look_at_header, &framing);
	if (framing.end) framing.crooked |= leaves_unread(framing.end, exchange->request.method + head->header_size, 2);
	const char *wrong = framing.crooked                                                    ? "a header is malformed"
			    : framing.hosts > 1                                                ? "there is more than one Host"
			    : framing.hosts == 0 && strcmp(version, MHD_HTTP_VERSION_1_0) != 0 ? "there is no Host"
			    : framing.lengths > 1                  ? "there is more than one Content-Length"
			    : framing.encodings > 1                ? "there is more than one Transfer-Encoding"
			    : framing.lengths && framing.encodings ? "there are both Content-Length and Transfer-Encoding"
								   : NULL;
	if (!wrong) return true;
	problem(&exchange->response, 400, "invalid-header", "%s", wrong);
	response_header(&exchange->response, "Connection", "close");
	return false;
}

static bool check_sizes(struct exchange *exchange)
{
	size_t headers = 0, target = strlen(exchange->request.path);
	MHD_get_connection_values(exchange->connection, MHD_HEADER_KIND, count_bytes, &headers);
	MHD_get_connection_values(exchange->connection, MHD_GET_ARGUMENT_KIND, count_bytes, &target);
	if (headers > API_MAX_HEADERS)
		problem(&exchange->response, 431, "headers-too-large", "the headers are larger than %d bytes", API_MAX_HEADERS);
	else if (target > API_MAX_TARGET)
		problem(&exchange->response, 414, "target-too-long", "the path and query are longer than %d bytes", API_MAX_TARGET);
	else
		return true;
	return false;
}

/* Undoes percent-encoding in place, as the library would, but leaves what would become a NUL: it would cut the string short. */
static size_t unescape(void *context, struct MHD_Connection *connection, char *text)
{
	(void)context;
	(void)connection;
	char *to = text;
	for (const char *from = text; *from; from++) {
		char hex[3] = {0}, *end = hex;
		if (*from == '%' && from[1] && from[2]) {
			memcpy(hex, from + 1, 2);
			long value = strspn(hex, "0123456789abcdefABCDEF") == 2 ? strtol(hex, &end, 16) : 0;
			if (value > 0) {
				*to++ = (char)value;
				from += 2;
				continue;
			}
		}
		*to++ = *from;
	}
	*to = 0;
	return (size_t)(to - text);
}

/* ---- one exchange -------------------------------------------------------------------------------------------------------- */

static struct peer *peer_of(struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
	return info ? info->socket_context : NULL;
}

/* "" where it is not known. An IPv4 address that came through an IPv6 socket is one. */
static void read_address(struct MHD_Connection *connection, char ret[INET6_ADDRSTRLEN])
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr *address = info ? info->client_addr : NULL;
	const char *made = NULL;
	if (address && address->sa_family == AF_INET)
		made = inet_ntop(AF_INET, &((const struct sockaddr_in *)address)->sin_addr, ret, INET6_ADDRSTRLEN);
	else if (address && address->sa_family == AF_INET6) {
		const struct in6_addr *wide = &((const struct sockaddr_in6 *)address)->sin6_addr;
		made = IN6_IS_ADDR_V4MAPPED(wide) ? inet_ntop(AF_INET, wide->s6_addr + 12, ret, INET6_ADDRSTRLEN)
						  : inet_ntop(AF_INET6, wide, ret, INET6_ADDRSTRLEN);
	}
	if (!made) ret[0] = 0;
}

static void read_peer(struct exchange *exchange)
{
	const union MHD_ConnectionInfo *info = MHD_get_connection_info(exchange->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	if (info && user_read(info->connect_fd, &exchange->user)) {
		exchange->request.user = &exchange->user;
		snprintf(exchange->peer, sizeof exchange->peer, "uid:%u", (unsigned)exchange->user.uid);
	} else {
		read_address(exchange->connection, exchange->peer);
	}
	if (exchange->peer[0]) exchange->request.peer = exchange->peer;
}

static struct exchange *exchange_begin(struct api *api, struct MHD_Connection *connection, const char *url, const char *method,
				       const char *version)
{
	struct exchange *exchange = calloc(1, sizeof *exchange);
	if (!exchange) return NULL;
	exchange->api = api;
	exchange->connection = connection;
	exchange->begun = monotonic_seconds();
	pthread_mutex_lock(&api->lock);
	api->exchanges++;
	pthread_mutex_unlock(&api->lock);
	read_headers(exchange, url, method);
	read_peer(exchange);
	exchange->refused = !check_framing(exchange, version) || !check_sizes(exchange) ||
			    !router_check(&exchange->request, &exchange->response);
	return exchange;
}

/* So much of a body, unless there is no more; `must`: in any case. Given back by give_room. */
static bool take_room(struct exchange *exchange, size_t bytes, bool must)
{
	struct api *api = exchange->api;
	pthread_mutex_lock(&api->lock);
	bool taken = must || api->room + bytes <= MOST_ROOM;
	if (taken) {
		api->room += bytes;
		exchange->room += bytes;
	}
	pthread_mutex_unlock(&api->lock);
	return taken;
}

static void give_room(struct exchange *exchange)
{
	struct api *api = exchange->api;
	if (!exchange->room) return;
	pthread_mutex_lock(&api->lock);
	api->room -= exchange->room;
	pthread_mutex_unlock(&api->lock);
	exchange->room = 0;
}

static void no_room(struct exchange *exchange)
{
	response_clear(&exchange->response);
	problem(&exchange->response, 503, "too-many-bytes",
		"other large requests and answers take the memory that there is for them");
	response_header(&exchange->response, "Retry-After", "30");
}

static void refuse_body(struct exchange *exchange)
{
	buffer_free(&exchange->request.body);
	give_room(exchange);
	exchange->refused = true;
}

static void body_too_large(struct exchange *exchange)
{
	response_clear(&exchange->response);
	problem(&exchange->response, 413, "body-too-large", "the body is larger than %d bytes", API_MAX_BODY);
	refuse_body(exchange);
}

static void keep_body(struct exchange *exchange, const char *data, size_t size)
{
	struct buffer *body = &exchange->request.body;
	if (body->size + size <= SMALL_BODY || take_room(exchange, size, false)) {
		buffer_append(body, data, size);
	} else {
		no_room(exchange);
		refuse_body(exchange);
	}
}

/* False when the connection must be closed: a client that goes on sending what nobody wants. */
static bool receive(struct exchange *exchange, const char *data, size_t size)
{
	exchange->body_bytes += size;
	if (exchange->body_bytes > DRAIN_LIMIT) return false;
	if (exchange->body_bytes > API_MAX_BODY && exchange->body_bytes - size <= API_MAX_BODY) body_too_large(exchange);
	if (!exchange->refused && exchange->request.route->body) keep_body(exchange, data, size);
	return true;
}

static const char *security_policy(bool page)
{
	return page ? "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:;"
		      " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
		    : "default-src 'none'; frame-ancestors 'none'";
}

static struct MHD_Response *make_response(struct exchange *exchange)
{
	struct response *response = &exchange->response;
	bool head = strcmp(exchange->request.method, "HEAD") == 0;
	if (response->stream && !head) {
		struct MHD_Response *stream = hub_open(exchange->api->hub, exchange->connection, exchange->request.holder.serial,
						       exchange->request.id, response->stream_after, response->stream_last);
		if (stream) return stream;
		response_clear(response);
		problem(response, 503, "too-many-streams", "%zu event streams are open already",
			api_streams(&exchange->api->config));
		response_header(response, "Retry-After", "30");
	}
	if (response->live) return live_response(exchange->live);
	if (response->file.open) {
		struct MHD_Response *file =
			MHD_create_response_from_fd_at_offset64(response->size, response->file.fd, (uint64_t)response->file.at);
		if (file) response->file.open = false; /* the library closes it */
		return file;
	}
	struct MHD_Response *made = MHD_create_response_from_buffer(
		response->size, response->body, response->fixed ? MHD_RESPMEM_PERSISTENT : MHD_RESPMEM_MUST_FREE);
	if (made && !response->fixed) response->body = NULL;
	return made;
}

/* False where as many as may be are sent already; given back by `completed`. */
static bool take_file(struct exchange *exchange)
{
	struct api *api = exchange->api;
	pthread_mutex_lock(&api->lock);
	exchange->sends_file = api->files < MOST_FILES;
	api->files += exchange->sends_file;
	pthread_mutex_unlock(&api->lock);
	return exchange->sends_file;
}

/* The same of texts that models make. */
static bool take_text(struct exchange *exchange)
{
	struct api *api = exchange->api;
	pthread_mutex_lock(&api->lock);
	exchange->has_text = api->texts < API_MAX_COMPLETIONS;
	api->texts += exchange->has_text;
	pthread_mutex_unlock(&api->lock);
	if (exchange->has_text) return true;
	problem(&exchange->response, 503, "too-many-completions", "%d completions are made, or wait, already", API_MAX_COMPLETIONS);
	response_header(&exchange->response, "Retry-After", "5");
	return false;
}

/* The answer of a request that has changed something is told in any case. */
static bool answer_has_room(struct exchange *exchange)
{
	const struct response *response = &exchange->response;
	const struct route *route = exchange->request.route;
	if (response->fixed || response->file.open || response->stream || response->size <= SMALL_BODY) return true;
	return take_room(exchange, response->size, route && route->action);
}

static const char *method_label(const struct exchange *exchange)
{
	const struct route *route = exchange->request.route;
	if (!route) return "other";
	return strcmp(exchange->request.method, "HEAD") == 0 ? "HEAD" : route->method;
}

static void count_request(const struct exchange *exchange)
{
	const struct route *route = exchange->request.route;
	metrics_count_request(exchange->api->config.metrics, route ? route->path : "none", method_label(exchange),
			      exchange->response.status, monotonic_seconds() - exchange->begun);
}

static enum MHD_Result answer(struct exchange *exchange)
{
	struct response *response = &exchange->response;
	if (response->file.open && !take_file(exchange)) {
		response_clear(response);
		problem(response, 503, "too-many-downloads", "%d files are sent already", MOST_FILES);
		response_header(response, "Retry-After", "30");
	}
	if (!answer_has_room(exchange)) no_room(exchange);
	bool file = response->file.open;
	int64_t seconds = API_SEND_SECONDS + (file ? (int64_t)response->size / API_SEND_BYTES : 0);
	struct MHD_Response *made = make_response(exchange);
	if (!made) return MHD_NO;
	if (response->type) MHD_add_response_header(made, "Content-Type", response->type);
	MHD_add_response_header(made, "Cache-Control", response->page || file ? "no-cache" : "no-store");
	MHD_add_response_header(made, "X-Content-Type-Options", "nosniff");
	MHD_add_response_header(made, "Referrer-Policy", "no-referrer");
	MHD_add_response_header(made, "Content-Security-Policy", security_policy(response->page));
	if (response->stream || response->live) MHD_add_response_header(made, "X-Accel-Buffering", "no");
	for (size_t i = 0; i < response->n_headers; i++)
		MHD_add_response_header(made, response->headers[i].name, response->headers[i].value);
	if (!response->live) /* whose deadline is the request's */
		peer_set_deadline(exchange->api->peers, peer_of(exchange->connection),
				  response->stream ? 0 : (int)(seconds < INT_MAX ? seconds : INT_MAX));
	exchange->phase = ANSWERED;
	count_request(exchange);
	enum MHD_Result result = MHD_queue_response(exchange->connection, response->status, made);
	MHD_destroy_response(made);
	return result;
}

/* What a request came to that has changed no rows. What besad could not do is no deed of who asked. */
static void note_outcome(const struct exchange *exchange, const struct actor *actor)
{
	const struct request *request = &exchange->request;
	const struct response *response = &exchange->response;
	const char *outcome = response->problem ? response->problem : request->idempotency_key ? "replayed" : "done";
	struct error ignored; /* the answer says how it is */
	/* Anybody may ask for what changes nothing, as often as he likes: among the changes only what an admin did has a place. */
	bool light = response->problem || request->holder.role != ROLE_ADMIN;
	if (response->status < 500)
		db_audit_note(exchange->api->config.db, actor, request->id[0] ? request->id : NULL, outcome, 1, light, &ignored);
}

static void run_as_actor(struct exchange *exchange)
{
	struct request *request = &exchange->request;
	const struct holder *holder = &request->holder;
	struct actor actor = {.who = holder->name[0] ? holder->name : NULL,
			      .peer = request->peer,
			      .action = request->route->action,
			      .max_queued = holder->max_queued,
			      .max_per_day = holder->max_per_day,
			      .max_bytes = holder->max_bytes};
	request->actor = &actor;
	db_act_for(&actor);
	router_run(request, &exchange->response);
	db_act_for(NULL);
	request->actor = NULL;
	if (!actor.noted) note_outcome(exchange, &actor);
}

/* On a thread of the executor. Once the connection is resumed, the exchange is the server's again: also where the handler has
 * begun a body that it goes on writing. */
static void run_slowly(struct task *task)
{
	struct exchange *exchange = (struct exchange *)task;
	struct MHD_Connection *connection = exchange->connection;
	struct live *live = exchange->has_text ? live_create(connection, exchange->api->peers, peer_of(connection)) : NULL;
	exchange->live = exchange->request.live = live;
	if (exchange->request.route->action)
		run_as_actor(exchange);
	else
		router_run(&exchange->request, &exchange->response);
	if (!live || !live_begun(live)) MHD_resume_connection(connection);
	live_release(live);
}

static void release(struct held *held)
{
	struct exchange *exchange = (struct exchange *)((char *)held - offsetof(struct exchange, held));
	MHD_resume_connection(exchange->connection);
}

/* What was refused before its handler. Of those that wanted a right that they had not, note is taken, and who guesses waits. */
static enum MHD_Result refuse(struct exchange *exchange)
{
	const struct request *request = &exchange->request;
	const char *problem = exchange->response.problem;
	bool token = request->authorization && *request->authorization;
	bool tried = problem && (((token || request->user) && strcmp(problem, "forbidden-role") == 0) ||
				 (token && strcmp(problem, "unauthorized") == 0) || strcmp(problem, "forbidden-user") == 0);
	double seconds = tried ? refusals_note(exchange->api->refusals, request, problem) : 0;
	if (seconds <= 0 || !token) return answer(exchange);
	exchange->phase = RUNNING;
	exchange->held.release = release;
	peer_set_deadline(exchange->api->peers, peer_of(exchange->connection), 0);
	MHD_suspend_connection(exchange->connection);
	refusals_hold(exchange->api->refusals, &exchange->held, seconds);
	return MHD_YES;
}

/* NULL: it needs none. */
static struct executor *executor_of(const struct api *api, const struct route *route)
{
	return route->scans       ? api->scanner
	       : route->works     ? api->plodder
	       : route->reads     ? api->reader
	       : route->slow      ? api->executor
	       : route->completes ? api->completer
				  : NULL;
}

static enum MHD_Result run(struct exchange *exchange)
{
	if (exchange->refused) return refuse(exchange);
	exchange->phase = RUNNING;
	struct executor *executor = executor_of(exchange->api, exchange->request.route);
	if (!executor) {
		router_run(&exchange->request, &exchange->response);
		return answer(exchange);
	}
	bool completes = exchange->request.route->completes;
	if (completes && !take_text(exchange)) return answer(exchange);
	peer_set_deadline(exchange->api->peers, peer_of(exchange->connection), completes ? API_COMPLETION_SECONDS : 0);
	exchange->task.run = run_slowly;
	MHD_suspend_connection(exchange->connection);
	if (executor_push(executor, &exchange->task)) return MHD_YES;
	problem(&exchange->response, 503, "stopping", "besad is stopping");
	response_header(&exchange->response, "Retry-After", "5");
	MHD_resume_connection(exchange->connection);
	return MHD_YES;
}

/* The library's calls for one request: once with its headers, then with each piece of the body, once at its end, and once more
 * after a suspension. */
static enum MHD_Result handle(void *context, struct MHD_Connection *connection, const char *url, const char *method,
			      const char *version, const char *data, size_t *size, void **state)
{
	struct exchange *exchange = *state;
	if (!exchange) {
		*state = exchange_begin(context, connection, url, method, version);
		return *state ? MHD_YES : MHD_NO;
	}
	if (*size) {
		bool wanted = receive(exchange, data, *size);
		*size = 0;
		return wanted ? MHD_YES : MHD_NO;
	}
	return exchange->phase == RECEIVING ? run(exchange) : answer(exchange);
}

static void completed(void *context, struct MHD_Connection *connection, void **state, enum MHD_RequestTerminationCode why)
{
	struct api *api = context;
	struct exchange *exchange = *state;
	(void)why;
	if (!exchange) return;
	peer_wait(api->peers, peer_of(connection), API_RECEIVE_SECONDS);
	bool sent_file = exchange->sends_file, had_text = exchange->has_text;
	if (exchange->live) live_close(exchange->live);
	live_release(exchange->live);
	response_clear(&exchange->response);
	buffer_free(&exchange->request.body);
	user_clear(&exchange->user);
	give_room(exchange);
	free(exchange);
	*state = NULL;
	pthread_mutex_lock(&api->lock);
	api->files -= sent_file;
	api->texts -= had_text;
	if (--api->exchanges == 0) pthread_cond_signal(&api->idle);
	pthread_mutex_unlock(&api->lock);
}

static void connected(void *context, struct MHD_Connection *connection, void **state, enum MHD_ConnectionNotificationCode code)
{
	struct api *api = context;
	if (code == MHD_CONNECTION_NOTIFY_STARTED) {
		const union MHD_ConnectionInfo *info = MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
		*state = info ? peer_add(api->peers, info->connect_fd, API_RECEIVE_SECONDS) : NULL;
	} else {
		peer_remove(api->peers, *state);
		*state = NULL;
	}
}

/* ---- start and stop ------------------------------------------------------------------------------------------------------ */

/* What comes through a Unix socket stays on this machine: without TLS. */
static struct MHD_Daemon *listen_on(struct api *api, int fd, unsigned share, bool local)
{
	static const struct MHD_OptionItem none[] = {{MHD_OPTION_END, 0, NULL}};
	const struct MHD_OptionItem listening[] = {{MHD_OPTION_LISTEN_SOCKET, fd, NULL}, {MHD_OPTION_END, 0, NULL}};
	size_t connections = api->config.connections;
	bool tls = api->config.tls && !local;
	unsigned flags = (tls ? MHD_USE_TLS : 0) | (local ? MHD_USE_NO_LISTEN_SOCKET : 0);
	return MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_ALLOW_SUSPEND_RESUME | flags, 0, NULL, NULL, handle, api,
				MHD_OPTION_ARRAY, local ? none : listening, MHD_OPTION_NOTIFY_COMPLETED, completed, api,
				MHD_OPTION_NOTIFY_CONNECTION, connected, api, MHD_OPTION_STRICT_FOR_CLIENT, 1,
				MHD_OPTION_UNESCAPE_CALLBACK, unescape, NULL, MHD_OPTION_CONNECTION_LIMIT,
				(unsigned)connections / share, MHD_OPTION_PER_IP_CONNECTION_LIMIT,
				(unsigned)api_connections_per_address(connections) / share, MHD_OPTION_CONNECTION_TIMEOUT,
				(unsigned)INACTIVE_SECONDS, MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
				MHD_OPTION_ARRAY, tls ? tls_options() : none, MHD_OPTION_END);
}

enum status api_start(const struct api_config *config, const int *sockets, size_t n, struct api **ret, struct error *err)
{
	struct api *api = calloc(1, sizeof *api);
	enum status status = api ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for the server");
	if (!status && n > MAX_SOCKETS) status = error_set(err, STATUS_INVALID, "more than %d addresses to listen on", MAX_SOCKETS);
	if (status) {
		for (size_t i = 0; i < n; i++)
			close(sockets[i]);
		free(api);
		return status;
	}
	api->config = *config;
	if (!config->connections) api->config.connections = API_MAX_CONNECTIONS;
	api->config.sockets = n ? n : 1;
	api->n = n;
	memcpy(api->sockets, sockets, n * sizeof *sockets);
	pthread_mutex_init(&api->lock, NULL);
	pthread_cond_init(&api->idle, NULL);
	status = hub_create(config->db, config->metrics, config->tokens, api_streams(&api->config), &api->hub, err);
	if (!status) status = peers_create(api_crowd(&api->config), API_CROWDED_SECONDS, &api->peers, err);
	if (!status) status = refusals_create(config->db, &config->hooks, &api->refusals, err);
	if (!status) status = executor_create(EXECUTOR_THREADS, &api->executor, err);
	if (!status) status = executor_create(EXECUTOR_THREADS, &api->reader, err);
	if (!status) status = executor_create(1, &api->scanner, err);
	if (!status) status = executor_create(1, &api->plodder, err);
	if (!status && config->hooks.complete) status = executor_create(1, &api->completer, err);
	if (!status) db_set_listener(config->db, hub_notify, api->hub);
	for (size_t i = 0; i < n && !status; i++) {
		bool local = user_socket(sockets[i]);
		api->daemons[i] = listen_on(api, sockets[i], (unsigned)n, local);
		if (!api->daemons[i]) status = error_errno(err, "cannot start the server");
		if (local && !status) status = gate_open(sockets[i], api->daemons[i], &api->gates[i], err);
	}
	if (status) {
		api_stop(api);
		return status;
	}
	*ret = api;
	return STATUS_OK;
}

static void wait_until_idle(struct api *api)
{
	struct timespec until;
	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += FINISH_SECONDS;
	pthread_mutex_lock(&api->lock);
	while (api->exchanges > 0 && pthread_cond_timedwait(&api->idle, &api->lock, &until) == 0)
		;
	pthread_mutex_unlock(&api->lock);
}

void api_stop(struct api *api)
{
	if (!api) return;
	for (size_t i = 0; i < api->n; i++) {
		gate_close(api->gates[i]);
		if (api->daemons[i]) MHD_quiesce_daemon(api->daemons[i]);
	}
	if (api->executor) executor_stop(api->executor);
	if (api->reader) executor_stop(api->reader);
	if (api->scanner) executor_stop(api->scanner);
	if (api->plodder) executor_stop(api->plodder);
	if (api->completer) executor_stop(api->completer);
	if (api->refusals) refusals_stop(api->refusals);
	db_set_listener(api->config.db, NULL, NULL); /* only now does none of these write any more */
	if (api->hub) hub_stop(api->hub);
	wait_until_idle(api);
	for (size_t i = 0; i < api->n; i++) {
		MHD_stop_daemon(api->daemons[i]);
		close(api->sockets[i]); /* a quiesced server leaves it to us */
	}
	executor_free(api->executor);
	executor_free(api->reader);
	executor_free(api->scanner);
	executor_free(api->plodder);
	executor_free(api->completer);
	refusals_free(api->refusals);
	peers_free(api->peers);
	hub_free(api->hub);
	pthread_cond_destroy(&api->idle);
	pthread_mutex_destroy(&api->lock);
	free(api);
}
