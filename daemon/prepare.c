#include "daemon/prepare.h"

#include <curl/curl.h>

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>

#include "engine/fields.h"
#include "engine/file.h"
#include "engine/json.h"

enum { MAX_REPORT = 64 << 20 };

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

/* Why the output cannot lie there, or NULL: the part of its path that is there already must be directories inside the root. */
static const char *place_objection(const char *root, const char *output)
{
	char path[PATH_MAX], real[PATH_MAX];
	struct stat info;
	if (snprintf(path, sizeof path, "%s/%s", root, output) >= (int)sizeof path) return "is too long";
	size_t length = strlen(root);
	do {
		*strrchr(path, '/') = 0;
		if (strlen(path) < length) return NULL; /* the root itself is not there: that shows when the job starts */
	} while (!realpath(path, real));
	if (stat(real, &info) != 0 || !S_ISDIR(info.st_mode)) return "has a file where a directory is needed";
	bool inside = strncmp(real, root, length) == 0 && (real[length] == 0 || real[length] == '/' || root[length - 1] == '/');
	return inside ? NULL : "leads out of the output root";
}

enum status prepare_spec(const cJSON *json, const struct roots *roots, const char *id, struct spec **ret,
			 struct spec_problems *problems, struct error *err)
{
	char expanded[PATH_MAX];
	struct spec *spec;
	TRY(spec_parse(json, roots, &spec, problems, err));
	const char *objection = "is too long";
	if (expand(spec->output, id, expanded, sizeof expanded)) objection = place_objection(roots->output, expanded);
	char *output = objection ? NULL : strdup(expanded);
	if (!output) {
		spec_free(spec);
		return objection ? problem(problems, err, objection) : no_memory(err);
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
static bool made_by(const char *output_dir, const char *id)
{
	char path[PATH_MAX];
	struct error ignored;
	cJSON *report;
	if (snprintf(path, sizeof path, "%s/besad.json", output_dir) >= (int)sizeof path) return false;
	if (json_read_file(path, MAX_REPORT, &report, &ignored)) return false;
	const char *job = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(report, "job"));
	bool ours = job && strcmp(job, id) == 0;
	cJSON_Delete(report);
	return ours;
}

enum status prepare_output(const struct roots *roots, const char *output, bool overwrite, const char *id, struct error *err)
{
	char path[PATH_MAX];
	if (snprintf(path, sizeof path, "%s/%s", roots->output, output) >= (int)sizeof path)
		return error_set(err, STATUS_INVALID, "the output's path is too long");
	if (overwrite || !path_exists(path) || made_by(path, id)) return STATUS_OK;
	return error_set(err, STATUS_EXISTS, "the output '%.500s' exists; \"overwrite\": true would replace it", output);
}

enum status prepare_paths(const struct roots *roots, const char *checkpoints, const char *id, const char *output,
			  struct job_paths *ret, struct error *err)
{
	struct job_paths paths = {0};
	if (asprintf(&paths.work_dir, "%s/.besad-%s", roots->output, id) < 0) paths.work_dir = NULL;
	if (asprintf(&paths.checkpoint_dir, "%s/%s", checkpoints, id) < 0) paths.checkpoint_dir = NULL;
	if (output && asprintf(&paths.output_dir, "%s/%s", roots->output, output) < 0) paths.output_dir = NULL;
	if (!paths.work_dir || !paths.checkpoint_dir || (output && !paths.output_dir)) {
		prepare_paths_free(&paths);
		return no_memory(err);
	}
	*ret = paths;
	return STATUS_OK;
}

void prepare_paths_free(struct job_paths *paths)
{
	free(paths->output_dir);
	free(paths->work_dir);
	free(paths->checkpoint_dir);
	*paths = (struct job_paths){0};
}
