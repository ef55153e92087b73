/* Which handler answers, and every check that all handlers share. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "api/assets.h"
#include "api/http.h"
#include "base/json.h"
#include "base/text.h"

#define JSON "application/json"
#define DASHBOARD_ROUTE(name, path, file, type) {"GET", path, asset_##name, .open = true, .types = {type}},

static const struct route routes[] = {
	{"GET", "/openapi.yaml", asset_openapi, .open = true, .types = {"application/yaml"}},
	{"GET", "/healthz", health_live, .open = true, .types = {JSON}},
	{"GET", "/readyz", health_ready, .open = true, .types = {JSON}},
	{"GET", "/metrics", metrics_show, .reads = true, .types = {"text/plain"}},
	{"GET", "/v1/info", info_show, .types = {JSON}},
	{"GET", "/v1/models", models_list, .scans = true, .types = {JSON}},
	{"GET", "/v1/data", data_list, .scans = true, .types = {JSON}},
	{"GET", "/v1/gc", gc_show, .works = true, .types = {JSON}},
	{"POST", "/v1/gc", gc_run, .action = "gc", .role = ROLE_ADMIN, .works = true, .types = {JSON}},
	{"GET", "/v1/audit", audit_list, .role = ROLE_ADMIN, .reads = true, .types = {JSON}, .params = {"limit", "after"}},
	{"GET", "/v1/drain", drain_show, .reads = true, .types = {JSON}},
	{"POST", "/v1/drain", drain_begin, .action = "drain", .role = ROLE_ADMIN, .slow = true, .types = {JSON}, .params = {"now"}},
	{"POST", "/v1/undrain", drain_end, .action = "undrain", .role = ROLE_ADMIN, .slow = true, .types = {JSON}},
	{"GET", "/v1/jobs", jobs_list, .reads = true, .types = {JSON}, .params = {"state", "limit", "after", "metadata[]"}},
	{"POST", "/v1/jobs", jobs_submit, .action = "job.submit", .slow = true, .body = true, .types = {JSON}},
	{"POST", "/v1/estimate", estimate_make, .works = true, .body = true, .types = {JSON}},
	{"POST", "/v1/completions", completions_text, .completes = true, .body = true, .types = {JSON, "text/event-stream"}},
	{"POST", "/v1/chat/completions", completions_chat, .completes = true, .body = true, .types = {JSON, "text/event-stream"}},
	{"GET", "/v1/jobs/{id}", jobs_show, .reads = true, .types = {JSON}},
	{"DELETE", "/v1/jobs/{id}", jobs_delete, .action = "job.delete", .slow = true, .types = {JSON}},
	{"POST", "/v1/jobs/{id}/cancel", jobs_cancel, .action = "job.cancel", .slow = true, .types = {JSON}},
	{"POST", "/v1/jobs/{id}/pause", jobs_pause, .action = "job.pause", .slow = true, .types = {JSON}},
	{"POST", "/v1/jobs/{id}/resume", jobs_resume, .action = "job.resume", .slow = true, .types = {JSON}},
	{"POST", "/v1/jobs/{id}/retry", jobs_retry, .action = "job.retry", .slow = true, .types = {JSON}},
	{"GET", "/v1/jobs/{id}/events", events_list, .reads = true, .types = {JSON, "text/event-stream"},
	 .params = {"after", "limit"}},
	{"GET", "/v1/jobs/{id}/log", log_show, .reads = true, .types = {"text/plain"}},
	{"GET", "/v1/jobs/{id}/report", report_show, .reads = true, .types = {JSON}},
	{"GET", "/v1/jobs/{id}/artifacts", artifacts_index, .works = true, .types = {JSON}},
	{"GET", "/v1/jobs/{id}/artifacts/{name}", artifacts_send, .works = true,
	 .types = {"application/octet-stream", JSON, "text/plain"}},
	{"GET", "/v1/studies", studies_list, .reads = true, .types = {JSON}, .params = {"limit", "after"}},
	{"POST", "/v1/studies", studies_submit, .action = "study.submit", .works = true, .body = true, .types = {JSON}},
	{"GET", "/v1/studies/{id}", studies_show, .works = true, .types = {JSON, "text/csv"}},
	{"DELETE", "/v1/studies/{id}", studies_delete, .action = "study.delete", .slow = true, .types = {JSON}},
	{"POST", "/v1/studies/{id}/cancel", studies_cancel, .action = "study.cancel", .works = true, .types = {JSON}},
	DASHBOARD_FILES(DASHBOARD_ROUTE)};
enum { ROUTES = sizeof routes / sizeof *routes };

/* Does `path` fit `pattern`? What stands for {id} goes to `id`, "" where it cannot be an id, and for {name} to *ret_name. */
static bool path_fits(const char *pattern, const char *path, char id[JOB_ID_BYTES], const char **ret_name)
{
	const char *hole = strchr(pattern, '{');
	id[0] = 0;
	*ret_name = NULL;
	if (!hole) return strcmp(pattern, path) == 0;
	size_t before = (size_t)(hole - pattern);
	if (strncmp(pattern, path, before) != 0) return false;
	size_t length = strcspn(path + before, "/");
	const char *rest = path + before + length, *tail = hole + strlen("{id}"), *name = strstr(tail, "{name}");
	size_t until = name ? (size_t)(name - tail) : 0;
	if (length == 0 || (name ? strncmp(rest, tail, until) != 0 || !rest[until] : strcmp(rest, tail) != 0)) return false;
	if (name) *ret_name = rest + until;
	if (length == JOB_ID_BYTES - 1) {
		memcpy(id, path + before, length);
		id[length] = 0;
		if (!job_id_is_valid(id)) id[0] = 0;
	}
	return true;
}

/* HEAD is answered as GET; the server leaves the body out. */
static bool method_fits(const char *wanted, const char *method)
{
	return strcmp(wanted, method) == 0 || (strcmp(wanted, "GET") == 0 && strcmp(method, "HEAD") == 0);
}

static bool find(struct request *request, struct response *response)
{
	struct buffer allow = {0};
	for (size_t i = 0; i < ROUTES; i++) {
		char id[JOB_ID_BYTES];
		const char *name;
		if (!path_fits(routes[i].path, request->path, id, &name)) continue;
		if (method_fits(routes[i].method, request->method)) {
			buffer_free(&allow);
			request->route = &routes[i];
			memcpy(request->id, id, sizeof id);
			request->name = name;
			return true;
		}
		buffer_printf(&allow, "%s%s", allow.size ? ", " : "", routes[i].method);
		if (strcmp(routes[i].method, "GET") == 0) buffer_printf(&allow, ", HEAD");
	}
	if (allow.size) {
		problem(response, 405, "method-not-allowed", "%s is not a method of %s; it takes %s", request->method,
			request->path, allow.data);
		response_header(response, "Allow", "%s", allow.data);
	} else {
		problem(response, 404, "not-found", "there is nothing at %s", request->path);
	}
	buffer_free(&allow);
	return false;
}

/* Without a token, the only protection from web pages that the user visits is that they cannot speak to besad: a page whose name
 * was made to resolve to this machine (DNS rebinding) sends its own name as Host. */
static bool check_host(const struct request *request, struct response *response)
{
	if (request->config->tokens || request->user || !request->host || host_is_loopback(request->host)) return true;
	problem(response, 403, "forbidden-host", "without a token besad answers to localhost, 127.0.0.0/8 and [::1], not to %s",
		request->host);
	return false;
}

/* Of a Unix socket the kernel says who is there. */
static bool check_user(struct request *request, struct response *response)
{
	struct tokens *tokens = request->config->tokens;
	const struct user *user = request->user;
	if (user_is_operator(user)) {
		request->holder.serial = TOKEN_OPERATOR;
		snprintf(request->holder.name, sizeof request->holder.name, "uid:%u", (unsigned)user->uid);
		return true;
	}
	if (tokens && tokens_find_user(tokens, user, &request->holder)) return true;
	request->holder = (struct holder){0};
	if (user->uid == USER_NOBODY)
		problem(response, 403, "forbidden-user",
			"besad cannot tell which user this is: either nobody, or one that its user namespace does not know "
			"(PrivateUsers=)");
	else
		problem(response, 403, "forbidden-user",
			"the user with the id %u is neither root nor whom besad runs as, and no line of its token file names them",
			(unsigned)user->uid);
	return false;
}

static bool check_token(struct request *request, struct response *response)
{
	struct tokens *tokens = request->config->tokens;
	const char *given = request->authorization;
	request->holder = (struct holder){.role = ROLE_ADMIN};
	if (request->route && request->route->open) return true;
	bool bearer = given && strncasecmp(given, "Bearer ", 7) == 0;
	if (request->user && !(tokens && bearer)) return check_user(request, response);
	if (!tokens) return true;
	if (bearer && tokens_find(tokens, given + 7 + strspn(given + 7, " "), &request->holder)) return true;
	request->holder = (struct holder){0};
	problem(response, 401, "unauthorized", bearer ? "this is no token of besad's" : "send the token: Authorization: Bearer …");
	response_header(response, "WWW-Authenticate",
			bearer ? "Bearer realm=\"besad\", error=\"invalid_token\"" : "Bearer realm=\"besad\"");
	return false;
}

static bool check_role(const struct request *request, struct response *response)
{
	const struct route *route = request->route;
	enum role wanted = route->role ? route->role : strcmp(route->method, "GET") == 0 ? ROLE_READ : ROLE_SUBMIT;
	if (route->open || request->holder.role >= wanted) return true;
	problem(response, 403, "forbidden-role", "this takes a token of the role %s; that of '%s' has the role %s",
		role_name(wanted), request->holder.name, role_name(request->holder.role));
	return false;
}

/* A browser says by Origin, or at least by Sec-Fetch-Site, which page a request comes from; only besad's own may change
 * anything. */
static bool check_origin(const struct request *request, struct response *response)
{
	bool foreign = request->origin && !origin_is_host(request->origin, request->host);
	bool cross = request->fetch_site && strcasecmp(request->fetch_site, "cross-site") == 0;
	if (method_fits("GET", request->method) || (!foreign && !cross)) return true;
	problem(response, 403, "forbidden-origin", "a page of %s may not change anything here",
		request->origin ? request->origin : "another site");
	return false;
}

static bool check_accept(const struct request *request, struct response *response)
{
	struct buffer types = {0};
	for (int i = 0; request->route->types[i]; i++) {
		if (accept_quality(request->accept, request->route->types[i]) > 0) {
			buffer_free(&types);
			return true;
		}
		buffer_printf(&types, "%s%s", i ? ", " : "", request->route->types[i]);
	}
	problem(response, 406, "not-acceptable", "this can be had as %s", types.data ? types.data : "");
	buffer_free(&types);
	return false;
}

static bool is_known(const struct route *route, const char *key)
{
	for (int i = 0; route->params[i]; i++) {
		const char *name = route->params[i], *brackets = strstr(name, "[]");
		size_t before = brackets ? (size_t)(brackets - name) : 0, length = strlen(key);
		if (brackets ? length > before + 1 && strncmp(name, key, before + 1) == 0 && key[length - 1] == ']'
			     : strcmp(name, key) == 0)
			return true;
	}
	return false;
}

/* Each parameter known, given once and with a value. The pages and probes, which take none, do not mind. */
static bool check_query(const struct request *request, struct response *response)
{
	if (request->route->open) return true;
	cJSON *errors = cJSON_CreateArray();
	size_t n = request->n_query > MAX_QUERY ? MAX_QUERY : request->n_query;
	if (n < request->n_query) problem_add(errors, "parameter", "", "more than %d parameters", MAX_QUERY);
	for (size_t i = 0; i < n; i++) {
		const char *key = request->query[i].key;
		size_t first = 0;
		while (strcmp(request->query[first].key, key) != 0)
			first++;
		if (!is_known(request->route, key))
			problem_add(errors, "parameter", key, "is not a parameter of %s", request->route->path);
		else if (first < i)
			problem_add(errors, "parameter", key, "is given twice");
		else if (!request->query[i].value)
			problem_add(errors, "parameter", key, "has no value");
	}
	if (cJSON_GetArraySize(errors) == 0) {
		cJSON_Delete(errors);
		return true;
	}
	problem_fields(response, 400, "invalid-query", "the query is not understood", errors);
	return false;
}

bool router_check(struct request *request, struct response *response)
{
	json_begin();
	struct response missed = {0};
	bool found = find(request, &missed);
	bool passed = check_host(request, response) && check_token(request, response);
	if (passed && !found) {
		*response = missed;
		return false;
	}
	response_clear(&missed);
	return passed && check_role(request, response) && check_origin(request, response) && check_accept(request, response) &&
	       check_query(request, response);
}

static bool check_body(const struct request *request, struct response *response)
{
	const char *type = request->content_type;
	if (request->content_encoding && strcasecmp(request->content_encoding, "identity") != 0) {
		problem(response, 415, "unsupported-encoding", "a body with Content-Encoding is not understood");
		return false;
	}
	if (type && media_type_is(type, JSON)) return true;
	/* What `curl -d` sends, or no type at all. A web page may send these anywhere without asking first, but then with an
	 * Origin. */
	if (!request->origin && (!type || media_type_is(type, "application/x-www-form-urlencoded"))) return true;
	problem(response, 415, "unsupported-media-type", "the body must be " JSON);
	return false;
}

void router_run(struct request *request, struct response *response)
{
	json_begin();
	if (request->route->body && !check_body(request, response)) return;
	if (strchr(request->route->path, '{') && !request->id[0]) {
		bool study = text_starts_with(request->path, "/v1/studies/");
		problem(response, 404, "not-found", "there is no such %s", study ? "study" : "job");
		return;
	}
	request->route->handler(request, response);
}
