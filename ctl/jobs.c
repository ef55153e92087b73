/* Finding jobs: list, show, watch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <curl/curl.h>

#include "base/buffer.h"
#include "ctl/command.h"
#include "ctl/jobspec.h"
#include "ctl/table.h"
#include "ctl/text.h"
#include "ctl/watch.h"

enum { PAGE = 100 };

bool is_id(const char *text)
{
	size_t length = strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-");
	return length > 0 && length < JOB_ID_ROOM && !text[length];
}

static enum exit_code no_memory(void)
{
	fprintf(stderr, "besactl: no memory\n");
	return EXIT_USAGE;
}

/* One page of jobs. *ret_next is empty when it was the last. */
static enum exit_code get_page(struct client *client, const char *filter, int limit, char next[JOB_ID_ROOM], cJSON **ret)
{
	struct buffer path = {0};
	buffer_printf(&path, "/v1/jobs?limit=%d%s%s%s", limit, filter, *next ? "&after=" : "", next);
	enum exit_code code = path.failed ? no_memory() : client_get(client, path.data, ret);
	buffer_free(&path);
	if (code != EXIT_OK) return code;
	const char *after = text_member_or(*ret, "next", "");
	if (*after && !is_id(after)) after = "";
	snprintf(next, JOB_ID_ROOM, "%s", after);
	return EXIT_OK;
}

enum exit_code each_job(struct client *client, const char *filter, int limit, bool (*take)(void *context, cJSON *job),
			void *context)
{
	char next[JOB_ID_ROOM] = "";
	int left = limit;
	do {
		cJSON *page, *job;
		bool more = true;
		enum exit_code code = get_page(client, filter, limit && left < PAGE ? left : PAGE, next, &page);
		if (code != EXIT_OK) return code;
		cJSON_ArrayForEach(job, cJSON_GetObjectItemCaseSensitive(page, "jobs"))
		{
			left--;
			if (!(more = take(context, job))) break;
		}
		cJSON_Delete(page);
		if (!more) break;
	} while (*next && (!limit || left > 0));
	return EXIT_OK;
}

enum exit_code resolve_job(struct client *client, const char *argument, char ret[JOB_ID_ROOM])
{
	char next[JOB_ID_ROOM] = "";
	cJSON *page;
	if (argument && strcmp(argument, "last") != 0) {
		if (!is_id(argument)) {
			fprintf(stderr, "besactl: '%s' cannot be the id of a job\n", argument);
			return EXIT_USAGE;
		}
		strcpy(ret, argument);
		return EXIT_OK;
	}
	enum exit_code code = get_page(client, "", 1, next, &page);
	if (code != EXIT_OK) return code;
	const char *id = text_member(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(page, "jobs"), 0), "id");
	if (id && is_id(id)) {
		strcpy(ret, id);
	} else {
		fprintf(stderr, "besactl: there is no job yet\n");
		code = EXIT_REFUSED;
	}
	cJSON_Delete(page);
	return code;
}

enum exit_code get_job(struct client *client, const char *argument, cJSON **ret)
{
	char id[JOB_ID_ROOM], path[128];
	enum exit_code code = resolve_job(client, argument, id);
	if (code != EXIT_OK) return code;
	snprintf(path, sizeof path, "/v1/jobs/%s", id);
	return client_get(client, path, ret);
}

/* ---- list --------------------------------------------------------------------------------------------------------------- */

static bool list_json(void *context, cJSON *job)
{
	cJSON_AddItemToArray(context, cJSON_Duplicate(job, true));
	return true;
}

/* What stands where a share of the work would: "after …7k2q" of a job that waits for another, by the end of its id. */
static const char *waiting(const cJSON *job, char text[TEXT_ROOM])
{
	const cJSON *ids = cJSON_GetObjectItemCaseSensitive(job, "waits_for");
	const char *id = cJSON_GetStringValue(cJSON_GetArrayItem(ids, 0));
	int more = cJSON_GetArraySize(ids) - 1;
	if (!id || !is_id(id)) return NULL;
	size_t length = strlen(id);
	int used = snprintf(text, TEXT_ROOM, "after …%s", length > 4 ? id + length - 4 : id);
	if (more) snprintf(text + used, TEXT_ROOM - (size_t)used, " +%d", more);
	return text;
}

static bool list_row(void *context, cJSON *job)
{
	struct table *table = context;
	const cJSON *spec = cJSON_GetObjectItemCaseSensitive(job, "spec");
	const char *state = text_member_or(job, "state", "?");
	bool done = strcmp(state, "succeeded") == 0;
	char text[TEXT_ROOM];
	const char *part = done ? "" : waiting(job, text);
	if (!part) part = format_percent(number_member(cJSON_GetObjectItemCaseSensitive(job, "progress"), "fraction"), text);
	table_add(table, text_member_or(job, "id", "?"));
	table_add(table, state);
	table_add(table, part);
	table_add(table, text_member_or(spec, "model", "?"));
	table_add(table, text_member_or(spec, "method", "?"));
	table_add(table, format_percent(number_member(spec, "sparsity"), text));
	table_add(table, format_time(text_member(job, "created_at"), text));
	table_add(table, text_member_or(job, "name", ""));
	table_end_row(table);
	return true;
}

/* "&metadata%5BKEY%5D=VALUE" of KEY=VALUE. */
static enum status append_metadata(struct buffer *filter, const char *text, struct error *err)
{
	const char *value;
	char *key;
	TRY(jobspec_split("metadata", text, &key, &value, err));
	char *name = curl_easy_escape(NULL, key, 0), *wanted = curl_easy_escape(NULL, value, 0);
	if (name && wanted) buffer_printf(filter, "&metadata%%5B%s%%5D=%s", name, wanted);
	bool whole = name && wanted && !filter->failed;
	curl_free(name);
	curl_free(wanted);
	free(key);
	return whole ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory");
}

/* The query of `list`, freed by the caller, whatever this returns. */
static enum exit_code list_filter(const struct options *options, struct buffer *filter)
{
	struct error err;
	if (options->state && !is_id(options->state)) {
		fprintf(stderr, "besactl: '%s' is not a state\n", options->state);
		return EXIT_USAGE;
	}
	buffer_printf(filter, "%s%s", options->state ? "&state=" : "", options->state ? options->state : "");
	for (int i = 0; i < options->n_settings; i++) { /* of list, all of them are --metadata */
		if (append_metadata(filter, options->settings[i].value, &err) == STATUS_OK) continue;
		fprintf(stderr, "besactl: %s\n", err.message);
		return EXIT_USAGE;
	}
	return filter->failed ? no_memory() : EXIT_OK;
}

static enum exit_code list_jobs(struct client *client, const struct options *options, const char *filter)
{
	static const char *const head[] = {"JOB", "STATE", "DONE", "MODEL", "METHOD", "SPARSITY", "CREATED (UTC)", "NAME", NULL};
	if (options->json) {
		cJSON *json = cJSON_CreateObject(), *jobs = cJSON_AddArrayToObject(json, "jobs");
		enum exit_code code = each_job(client, filter, options->limit, list_json, jobs);
		if (code == EXIT_OK) print_json(json);
		cJSON_Delete(json);
		return code;
	}
	struct table table = {.align = "llrllrl"};
	table_head(&table, head);
	enum exit_code code = each_job(client, filter, options->limit, list_row, &table);
	if (code == EXIT_OK) table_print(&table, stdout);
	table_free(&table);
	return code;
}

enum exit_code command_list(struct client *client, const struct options *options)
{
	struct buffer filter = {0};
	enum exit_code code = list_filter(options, &filter);
	if (code == EXIT_OK) code = list_jobs(client, options, filter.data ? filter.data : "");
	buffer_free(&filter);
	return code;
}

/* ---- one job ------------------------------------------------------------------------------------------------------------ */

enum exit_code command_show(struct client *client, const struct options *options)
{
	cJSON *job;
	enum exit_code code = get_job(client, options->n_args ? options->args[0] : NULL, &job);
	if (code != EXIT_OK) return code;
	if (options->json)
		print_json(job);
	else
		print_job(job);
	cJSON_Delete(job);
	return EXIT_OK;
}

enum exit_code command_log(struct client *client, const struct options *options)
{
	char id[JOB_ID_ROOM], path[128];
	struct reply reply;
	enum exit_code code = resolve_job(client, options->n_args ? options->args[0] : NULL, id);
	if (code != EXIT_OK) return code;
	snprintf(path, sizeof path, "/v1/jobs/%s/log", id);
	client_call(client, &(struct call){.method = "GET", .path = path, .accept = "text/plain"}, &reply);
	code = reply_check(client, &reply);
	if (code == EXIT_OK && reply.text) fputs(reply.text, stdout);
	reply_clear(&reply);
	return code;
}

enum exit_code command_watch(struct client *client, const struct options *options)
{
	char id[JOB_ID_ROOM];
	cJSON *job = NULL;
	enum exit_code code = resolve_job(client, options->n_args ? options->args[0] : NULL, id);
	if (code != EXIT_OK) return code;
	code = watch_job(client, id, options->json ? WATCH_EVENTS : watch_style_for_output(), options->reconnect_seconds, &job);
	if (job && !options->json) print_result(job);
	cJSON_Delete(job);
	return code;
}
