/* Finding jobs: list, show, watch. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/table.h"
#include "ctl/text.h"
#include "ctl/watch.h"

enum { PAGE = 100 };

static bool is_id(const char *text)
{
	size_t length = strspn(text, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_-");
	return length > 0 && length < JOB_ID_ROOM && !text[length];
}

/* One page of jobs. *ret_next is empty when it was the last. */
static enum exit_code get_page(struct client *client, const char *state, int limit, char next[JOB_ID_ROOM], cJSON **ret)
{
	char path[256];
	snprintf(path, sizeof path, "/v1/jobs?limit=%d%s%s%s%s", limit, state ? "&state=" : "", state ? state : "",
		 *next ? "&after=" : "", next);
	enum exit_code code = client_get(client, path, ret);
	if (code != EXIT_OK) return code;
	const char *after = text_member_or(*ret, "next", "");
	if (*after && !is_id(after)) after = "";
	snprintf(next, JOB_ID_ROOM, "%s", after);
	return EXIT_OK;
}

enum exit_code each_job(struct client *client, const char *state, int limit, bool (*take)(void *context, cJSON *job), void *context)
{
	char next[JOB_ID_ROOM] = "";
	int left = limit;
	do {
		cJSON *page, *job;
		bool more = true;
		enum exit_code code = get_page(client, state, limit && left < PAGE ? left : PAGE, next, &page);
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
	enum exit_code code = get_page(client, NULL, 1, next, &page);
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

static bool list_row(void *context, cJSON *job)
{
	struct table *table = context;
	const cJSON *spec = cJSON_GetObjectItemCaseSensitive(job, "spec");
	const char *state = text_member_or(job, "state", "?");
	bool done = strcmp(state, "succeeded") == 0;
	char text[TEXT_ROOM];
	table_add(table, text_member_or(job, "id", "?"));
	table_add(table, state);
	table_add(table,
		  done ? "" : format_percent(number_member(cJSON_GetObjectItemCaseSensitive(job, "progress"), "fraction"), text));
	table_add(table, text_member_or(spec, "model", "?"));
	table_add(table, text_member_or(spec, "method", "?"));
	table_add(table, format_percent(number_member(spec, "sparsity"), text));
	table_add(table, format_time(text_member(job, "created_at"), text));
	table_add(table, text_member_or(job, "name", ""));
	table_end_row(table);
	return true;
}

enum exit_code command_list(struct client *client, const struct options *options)
{
	static const char *const head[] = {"JOB", "STATE", "DONE", "MODEL", "METHOD", "SPARSITY", "CREATED (UTC)", "NAME"};
	if (options->state && !is_id(options->state)) {
		fprintf(stderr, "besactl: '%s' is not a state\n", options->state);
		return EXIT_USAGE;
	}
	if (options->json) {
		cJSON *json = cJSON_CreateObject(), *jobs = cJSON_AddArrayToObject(json, "jobs");
		enum exit_code code = each_job(client, options->state, options->limit, list_json, jobs);
		if (code == EXIT_OK) print_json(json);
		cJSON_Delete(json);
		return code;
	}
	struct table table = {.align = "llrllrl"};
	for (size_t i = 0; i < sizeof head / sizeof *head; i++)
		table_add(&table, head[i]);
	table_end_row(&table);
	enum exit_code code = each_job(client, options->state, options->limit, list_row, &table);
	if (code == EXIT_OK) table_print(&table, stdout);
	table_free(&table);
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
