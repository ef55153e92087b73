#include "daemon/prepare.h"

#include <curl/curl.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "base/json.h"
#include "daemon/log.h"
#include "engine/output/publish.h"
#include "engine/spec/fields.h"

static enum status no_memory(struct error *err)
{
	return error_set(err, STATUS_NO_MEMORY, "no memory for the job");
}

static enum status problem(struct spec_problems *problems, struct error *err, const char *detail)
{
	fields_problem(&(struct fields){.problems = problems}, "output", "%s", detail);
	return error_set(err, STATUS_INVALID, "/output: %s", detail);
}

/* Appends `length` bytes of `text`; false when they do not fit. */
static bool append(char *to, size_t room, const char *text, size_t length)
{
	size_t used = strlen(to);
	if (length >= room - used) return false;
	memcpy(to + used, text, length);
	to[used + length] = 0;
	return true;
}

/* {date}, in UTC, and {id}. False when the result is too long. */
static bool expand(const char *template, const char *id, char *to, size_t room)
{
	char date[16];
	time_t now = time(NULL);
	struct tm utc;
	gmtime_r(&now, &utc);
	strftime(date, sizeof date, "%Y-%m-%d", &utc);
	to[0] = 0;
	while (*template) {
		size_t plain = strcspn(template, "{");
		if (!append(to, room, template, plain)) return false;
		template += plain;
		if (!*template) break;
		bool is_id = strncmp(template, "{id}", 4) == 0;
		const char *value = is_id ? id : date;
		if (!append(to, room, value, strlen(value))) return false;
		template += is_id ? strlen("{id}") : strlen("{date}");
	}
	for (const char *s = to; *s; s += strcspn(s, "/") + (s[strcspn(s, "/")] == '/'))
		if (strcspn(s, "/") > NAME_MAX) return false;
	return true;
}

/* Whether the output can come to lie there, found out now and not hours later. */
static enum status try_place(const struct roots *roots, const char *output, const char *id, struct spec_problems *problems,
			     struct error *err)
{
	struct place root = {roots->output, "."}, place = {roots->output, (char *)output};
	enum status status = publish_try(&root, &place, id, err);
	if (status) place_hide(&PLACE(roots->output), err);
	if (!status || status == STATUS_NO_MEMORY || status == STATUS_NO_SPACE) return status;
	char *detail = strdup(err->message);
	if (!detail) return no_memory(err);
	status = problem(problems, err, detail);
	free(detail);
	return status;
}

enum status prepare_spec(const cJSON *json, const struct roots *roots, const char *id, struct spec **ret,
			 struct spec_problems *problems, struct error *err)
{
	char expanded[PATH_MAX];
	struct spec *spec;
	TRY(spec_parse(json, roots, &spec, problems, err));
	bool fits = expand(spec->output, id, expanded, sizeof expanded);
	enum status status = fits ? try_place(roots, expanded, id, problems, err) : problem(problems, err, "is too long");
	char *output = status ? NULL : strdup(expanded);
	if (!output) {
		spec_free(spec);
		return status ? status : no_memory(err);
	}
	free(spec->output);
	spec->output = output;
	*ret = spec;
	return STATUS_OK;
}

/* The host of a web address without user and password, or NULL; freed with curl_free. */
static char *host_of(const char *url)
{
	char *host = NULL, *user = NULL;
	CURLU *parts = curl_url();
	if (!parts || curl_url_set(parts, CURLUPART_URL, url, 0) || curl_url_get(parts, CURLUPART_HOST, &host, 0)) host = NULL;
	if (host && curl_url_get(parts, CURLUPART_USER, &user, 0) == CURLUE_OK) {
		curl_free(host);
		host = NULL;
	}
	curl_free(user);
	curl_url_cleanup(parts);
	return host;
}

enum status prepare_notify(const struct spec *spec, const char *const *hosts, size_t n, struct spec_problems *problems,
			   struct error *err)
{
	if (!spec->notify_url) return STATUS_OK;
	bool allowed = false;
	char *host = host_of(spec->notify_url);
	for (size_t i = 0; i < n && host; i++)
		allowed = allowed || strcasecmp(host, hosts[i]) == 0;
	struct fields fields = {.problems = problems, .pointer = "/notify"};
	if (!host)
		fields_problem(&fields, "url", "must be a web address without user and password");
	else if (!allowed)
		fields_problem(&fields, "url",
			       "its host '%s' is not one that this besad may tell: its operator allows hosts by --notify-host",
			       host);
	curl_free(host);
	return host && allowed ? STATUS_OK : error_set(err, STATUS_INVALID, "/notify/url: the host may not be told");
}

/* Does the report in the output say that job `id` made it? */
static bool made_by(const struct place *output, const char *id)
{
	struct error ignored;
	cJSON *report;
	if (publish_report(output, &report, &ignored)) return false;
	const char *job = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(report, "job"));
	bool ours = job && strcmp(job, id) == 0;
	cJSON_Delete(report);
	return ours;
}

enum status prepare_output(const struct roots *roots, const char *output, bool overwrite, const char *id, struct error *err)
{
	struct place place = {roots->output, (char *)output};
	if (!place_has(&place, NULL) || made_by(&place, id)) return STATUS_OK;
	if (overwrite) return publish_check(&place, err);
	return error_set(err, STATUS_EXISTS, "the output '%s' exists; \"overwrite\": true would replace it", output);
}

/* A place below the output root; *ok is cleared without memory. `name` is freed. */
static struct place below_output(const struct roots *roots, char *name, bool *ok)
{
	struct place place = {name ? strdup(roots->output) : NULL, name};
	*ok = *ok && place.root;
	return place;
}

enum status prepare_paths(const struct roots *roots, const char *checkpoints, const char *id, const char *output,
			  struct job_paths *ret, struct error *err)
{
	struct job_paths paths = {0};
	bool ok = true;
	char *work;
	if (asprintf(&work, ".besad-%s", id) < 0) work = NULL;
	if (asprintf(&paths.checkpoint_dir, "%s/%s", checkpoints, id) < 0) paths.checkpoint_dir = NULL;
	paths.work = below_output(roots, work, &ok);
	paths.aside = below_output(roots, publish_aside_name(id), &ok);
	if (output) paths.output = below_output(roots, strdup(output), &ok);
	if (!ok || !paths.checkpoint_dir) {
		prepare_paths_free(&paths);
		return no_memory(err);
	}
	*ret = paths;
	return STATUS_OK;
}

void prepare_paths_free(struct job_paths *paths)
{
	place_free(&paths->output);
	place_free(&paths->work);
	place_free(&paths->aside);
	free(paths->checkpoint_dir);
	*paths = (struct job_paths){0};
}

void prepare_sweep(const struct roots *roots, int64_t seconds)
{
	struct place root = {roots->output, "."};
	struct error err;
	if (publish_sweep(&root, (double)seconds, &err)) log_warning("an output that was replaced stays behind: %s", err.message);
}

void prepare_sweep_tries(const struct roots *roots)
{
	struct place root = {roots->output, "."};
	struct error err;
	if (publish_sweep_tries(&root, 0, &err))
		log_warning("what is left of a try of the output root stays behind: %s", err.message);
}
