/* submit: queues a job, and follows it or waits for it if asked; or asks what it would take. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "ctl/command.h"
#include "ctl/jobspec.h"
#include "ctl/text.h"
#include "ctl/watch.h"

/* The key with {date} replaced by today's in UTC, as the daemon does it in outputs. NULL for want of memory. */
static char *expand_key(const char *key)
{
	static const char hole[] = "{date}";
	struct buffer text = {0};
	char date[16];
	struct tm utc;
	time_t now = time(NULL);
	gmtime_r(&now, &utc);
	strftime(date, sizeof date, "%Y-%m-%d", &utc);
	buffer_append(&text, "", 0);
	for (const char *next; (next = strstr(key, hole)); key = next + strlen(hole)) {
		buffer_append(&text, key, (size_t)(next - key));
		buffer_printf(&text, "%s", date);
	}
	buffer_printf(&text, "%s", key);
	if (!text.failed) return text.data;
	buffer_free(&text);
	return NULL;
}

/* A header's value would end at a line break: what comes behind it would be a header of its own. */
static bool key_is_printable(const char *key)
{
	for (; *key; key++)
		if (*key <= 0x20 || *key >= 0x7f) return false;
	return true;
}

enum exit_code post_new(struct client *client, const struct options *options, const char *path, const cJSON *spec, cJSON **ret)
{
	char *body = cJSON_PrintUnformatted(spec), *key = options->idempotency_key ? expand_key(options->idempotency_key) : NULL;
	enum exit_code code = EXIT_USAGE;
	if (!body || (options->idempotency_key && !key))
		fprintf(stderr, "besactl: no memory\n");
	else if (key && (!*key || strlen(key) > 255 || !key_is_printable(key)))
		fprintf(stderr, "besactl: an idempotency key is 1 to 255 printable ASCII characters without spaces\n");
	else
		code = client_do(client, &(struct call){.method = "POST", .path = path, .body = body, .idempotency_key = key}, ret);
	free(body);
	free(key);
	return code;
}

/* ---- the command -------------------------------------------------------------------------------------------------------- */

static enum exit_code follow(struct client *client, const struct options *options, const char *id)
{
	enum watch_style style = options->wait ? WATCH_QUIET : options->json ? WATCH_EVENTS : watch_style_for_output();
	cJSON *job = NULL;
	enum exit_code code = watch_job(client, id, style, options->reconnect_seconds, &job);
	if (job && options->json && options->wait)
		print_json(job);
	else if (job && !options->json)
		print_result(job);
	cJSON_Delete(job);
	return code;
}

static enum exit_code submit(struct client *client, const struct options *options, const cJSON *spec)
{
	cJSON *job;
	char id[JOB_ID_ROOM];
	enum exit_code code = post_new(client, options, "/v1/jobs", spec, &job);
	if (code != EXIT_OK) return code;
	code = resolve_job(client, text_member_or(job, "id", ""), id);
	if (code == EXIT_OK && !options->watch && !options->wait) {
		if (options->json)
			print_json(job);
		else
			puts(id);
	} else if (code == EXIT_OK) {
		fprintf(stderr, "job %s\n", id);
	}
	cJSON_Delete(job);
	return code == EXIT_OK && (options->watch || options->wait) ? follow(client, options, id) : code;
}

static enum exit_code estimate(struct client *client, const struct options *options, const cJSON *spec)
{
	cJSON *json;
	char *body = cJSON_PrintUnformatted(spec);
	if (!body) {
		fprintf(stderr, "besactl: no memory\n");
		return EXIT_USAGE;
	}
	enum exit_code code = client_do(client, &(struct call){.method = "POST", .path = "/v1/estimate", .body = body}, &json);
	free(body);
	if (code != EXIT_OK) return code;
	if (options->json)
		print_json(json);
	else
		print_estimate(json);
	cJSON_Delete(json);
	return EXIT_OK;
}

/* `--after last` is the newest job, by its id. */
static enum exit_code resolve_dependencies(struct client *client, cJSON *spec)
{
	cJSON *list = cJSON_GetObjectItemCaseSensitive(spec, "depends_on");
	for (int i = 0; i < cJSON_GetArraySize(list); i++) {
		const char *given = cJSON_GetStringValue(cJSON_GetArrayItem(list, i));
		char id[JOB_ID_ROOM];
		if (!given || strcmp(given, "last") != 0) continue;
		enum exit_code code = resolve_job(client, given, id);
		if (code != EXIT_OK) return code;
		cJSON_ReplaceItemInArray(list, i, cJSON_CreateString(id));
	}
	return EXIT_OK;
}

enum exit_code command_submit(struct client *client, const struct options *options)
{
	struct error err;
	cJSON *spec;
	const char *file = options->n_args ? options->args[0] : NULL;
	if (!file && !options->n_settings) {
		fprintf(stderr, "besactl: submit what? Give a job file or --model. Try 'besactl --help'.\n");
		return EXIT_USAGE;
	}
	if (jobspec_build(file, options->settings, options->n_settings, &spec, &err)) {
		fprintf(stderr, "besactl: %s\n", err.message);
		return EXIT_USAGE;
	}
	enum exit_code code = resolve_dependencies(client, spec);
	if (code == EXIT_OK && options->dry_run)
		print_json(spec);
	else if (code == EXIT_OK && options->estimate)
		code = estimate(client, options, spec);
	else if (code == EXIT_OK)
		code = submit(client, options, spec);
	cJSON_Delete(spec);
	return code;
}
