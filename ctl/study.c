/* study: jobs that are submitted together, a job for each combination of settings, and the table of what they came to. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/json.h"
#include "ctl/command.h"
#include "ctl/input.h"
#include "ctl/table.h"
#include "ctl/text.h"

enum { FILE_LIMIT = 1 << 20, POLL_SECONDS = 1 };

/* ---- the table ------------------------------------------------------------------------------------------------------------ */

static void add_setting(struct table *table, const cJSON *value)
{
	char *json = cJSON_IsString(value) ? NULL : cJSON_PrintUnformatted(value);
	table_add(table, json ? json : cJSON_IsString(value) ? value->valuestring : "");
	free(json);
}

static void add_row(struct table *table, const cJSON *study, const cJSON *datasets, const cJSON *row)
{
	const cJSON *item, *settings = cJSON_GetObjectItemCaseSensitive(row, "settings");
	const cJSON *perplexity = cJSON_GetObjectItemCaseSensitive(row, "perplexity");
	char text[TEXT_ROOM];
	table_add(table, text_member_or(row, "job", "?"));
	table_add(table, text_member_or(row, "state", "?"));
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(study, "grid"))
		add_setting(table, cJSON_GetObjectItemCaseSensitive(settings, item->string));
	table_add(table, format_percent(number_member(row, "sparsity"), text));
	cJSON_ArrayForEach(item, datasets)
	{
		const cJSON *measured = cJSON_GetObjectItemCaseSensitive(perplexity, item->string);
		table_add(table, format_number(number_member(measured, "pruned"), text));
	}
	table_add(table, format_seconds(number_member(row, "seconds"), text));
	table_add(table, format_bytes(number_member(row, "bytes"), text));
	table_add(table, format_bytes(number_member(row, "archive_bytes"), text));
	table_end_row(table);
}

static void print_table(const cJSON *study)
{
	const cJSON *item, *rows = cJSON_GetObjectItemCaseSensitive(study, "rows");
	struct table table = {.align = "llr"};
	cJSON *datasets = json_keys_below(rows, "perplexity");
	table_add(&table, "JOB");
	table_add(&table, "STATE");
	cJSON_ArrayForEach(item, cJSON_GetObjectItemCaseSensitive(study, "grid")) table_add(&table, item->string);
	table_add(&table, "ZEROS");
	cJSON_ArrayForEach(item, datasets) table_add_format(&table, "%s PERPLEXITY", item->string);
	table_add(&table, "TIME");
	table_add(&table, "SIZE");
	table_add(&table, "ARCHIVE");
	table_end_row(&table);
	cJSON_ArrayForEach(item, rows) add_row(&table, study, datasets, item);
	table_print(&table, stdout);
	table_free(&table);
	cJSON_Delete(datasets);
}

/* ---- which study ---------------------------------------------------------------------------------------------------------- */

/* "/v1/studies/ID" for an id, or for the newest study's, which "last" and NULL stand for. */
static enum exit_code study_path(struct client *client, const char *argument, char path[128])
{
	cJSON *page = NULL;
	if (!argument || strcmp(argument, "last") == 0) {
		enum exit_code code = client_get(client, "/v1/studies?limit=1", &page);
		if (code != EXIT_OK) return code;
		argument = text_member(cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(page, "studies"), 0), "id");
	}
	enum exit_code code = EXIT_OK;
	if (!argument) {
		fprintf(stderr, "besactl: there is no study yet\n");
		code = EXIT_REFUSED;
	} else if (!is_id(argument)) {
		fprintf(stderr, "besactl: '%s' cannot be the id of a study\n", argument);
		code = EXIT_USAGE;
	} else {
		snprintf(path, 128, "/v1/studies/%s", argument);
	}
	cJSON_Delete(page);
	return code;
}

/* ---- watch ---------------------------------------------------------------------------------------------------------------- */

/* A line for each job that is in another state than in `before`, which may be NULL. */
static void print_changes(const cJSON *study, const cJSON *before, bool json)
{
	const cJSON *rows = cJSON_GetObjectItemCaseSensitive(study, "rows"), *row;
	const cJSON *known = cJSON_GetObjectItemCaseSensitive(before, "rows");
	int number = 0, count = cJSON_GetArraySize(rows);
	cJSON_ArrayForEach(row, rows)
	{
		const char *state = text_member_or(row, "state", "?");
		const char *last = text_member_or(cJSON_GetArrayItem(known, number++), "state", "queued");
		const cJSON *error = cJSON_GetObjectItemCaseSensitive(row, "error");
		if (strcmp(state, last) == 0) continue;
		char *text = cJSON_PrintUnformatted(json ? row : cJSON_GetObjectItemCaseSensitive(row, "settings"));
		if (!json) {
			printf("%d/%d  ", number, count);
			text_put(stdout, state);
			fputs("  ", stdout);
		}
		text_put(stdout, text ? text : "?");
		if (!json && cJSON_IsObject(error)) {
			fputs("  ", stdout);
			text_put(stdout, text_member_or(error, "message", ""));
		}
		putchar('\n');
		free(text);
	}
}

/* How it ended, as of one job that had ended as the worst of them did. */
static enum exit_code ended_as(const cJSON *study)
{
	const cJSON *states = cJSON_GetObjectItemCaseSensitive(study, "states");
	if (number_member(states, "failed") > 0) return EXIT_FAILED;
	return number_member(states, "cancelled") > 0 ? EXIT_CANCELLED : EXIT_OK;
}

/* Reads the study; a daemon that is silent, for it starts anew, is tried again for a time. */
static enum exit_code read_again(struct client *client, const char *path, double reconnect_seconds, cJSON **ret)
{
	double first = monotonic_seconds();
	bool told = false;
	for (;;) {
		struct reply reply;
		client_call(client, &(struct call){.method = "GET", .path = path}, &reply);
		if (reply.status == 0 && monotonic_seconds() - first < reconnect_seconds) {
			if (!told) fprintf(stderr, "besactl: no answer from %s: trying again\n", client_url(client));
			told = true;
			reply_clear(&reply);
			sleep(POLL_SECONDS);
			continue;
		}
		enum exit_code code = reply_check(client, &reply);
		if (code == EXIT_OK) {
			*ret = reply.json;
			reply.json = NULL;
		}
		reply_clear(&reply);
		return code;
	}
}

static enum exit_code watch(struct client *client, const struct options *options, const char *path)
{
	cJSON *before = NULL, *study = NULL;
	enum exit_code code;
	while ((code = read_again(client, path, options->reconnect_seconds, &study)) == EXIT_OK) {
		print_changes(study, before, options->json);
		cJSON_Delete(before);
		before = study;
		if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(study, "finished"))) {
			if (!options->json) print_table(study);
			code = ended_as(study);
			break;
		}
		sleep(POLL_SECONDS);
	}
	cJSON_Delete(before);
	return code;
}

/* ---- actions: each gets its arguments, of which there are as many as it takes ------------------------------------------------ */

typedef enum exit_code action_fn(struct client *, const struct options *, char **args, int count);

static enum status read_file(const char *file, cJSON **ret, struct error *err)
{
	struct buffer text = {0};
	TRY(input_read(file, FILE_LIMIT, &text, err));
	enum status status = json_parse(text.data, text.size, strcmp(file, "-") == 0 ? "standard input" : file, ret, err);
	buffer_free(&text);
	return status;
}

static enum exit_code submit(struct client *client, const struct options *options, char **args, int count)
{
	struct error err;
	cJSON *body, *study = NULL;
	char path[128];
	(void)count;
	if (read_file(args[0], &body, &err)) {
		fprintf(stderr, "besactl: %s\n", err.message);
		return EXIT_USAGE;
	}
	enum exit_code code = post_new(client, options, "/v1/studies", body, &study);
	cJSON_Delete(body);
	if (code == EXIT_OK) code = study_path(client, text_member_or(study, "id", ""), path);
	if (code == EXIT_OK && options->json && !options->watch)
		print_json(study);
	else if (code == EXIT_OK)
		fprintf(options->watch ? stderr : stdout, "%s%s\n", options->watch ? "study " : "", strrchr(path, '/') + 1);
	cJSON_Delete(study);
	return code == EXIT_OK && options->watch ? watch(client, options, path) : code;
}

static void list_row(struct table *table, const cJSON *study)
{
	const cJSON *state, *states = cJSON_GetObjectItemCaseSensitive(study, "states");
	struct buffer told = {0};
	char text[TEXT_ROOM];
	table_add(table, text_member_or(study, "id", "?"));
	table_add_format(table, "%.0f", number_member(study, "jobs"));
	cJSON_ArrayForEach(state, states)
	{
		if (cJSON_GetNumberValue(state) > 0)
			buffer_printf(&told, "%s%.0f %s", told.size ? ", " : "", cJSON_GetNumberValue(state), state->string);
	}
	table_add(table, told.data ? told.data : "");
	buffer_free(&told);
	table_add(table, format_time(text_member(study, "created_at"), text));
	table_add(table, text_member_or(study, "name", ""));
	table_end_row(table);
}

/* All pages' studies, up to the limit, go to the array. */
static enum exit_code read_list(struct client *client, int limit, cJSON *studies)
{
	char path[128] = "/v1/studies?limit=100";
	for (;;) {
		cJSON *page, *study;
		enum exit_code code = client_get(client, path, &page);
		if (code != EXIT_OK) return code;
		cJSON *list = cJSON_GetObjectItemCaseSensitive(page, "studies");
		while ((!limit || cJSON_GetArraySize(studies) < limit) && (study = cJSON_DetachItemFromArray(list, 0)))
			cJSON_AddItemToArray(studies, study);
		const char *next = text_member(page, "next");
		bool more = next && is_id(next) && (!limit || cJSON_GetArraySize(studies) < limit);
		if (more) snprintf(path, sizeof path, "/v1/studies?limit=100&after=%s", next);
		cJSON_Delete(page);
		if (!more) return EXIT_OK;
	}
}

static enum exit_code list(struct client *client, const struct options *options, char **args, int count)
{
	static const char *const head[] = {"STUDY", "JOBS", "STATES", "CREATED (UTC)", "NAME", NULL};
	struct table table = {.align = "lrl"};
	cJSON *json = cJSON_CreateObject(), *studies = cJSON_AddArrayToObject(json, "studies");
	const cJSON *study;
	(void)args;
	(void)count;
	enum exit_code code = read_list(client, options->limit, studies);
	if (code == EXIT_OK && options->json) {
		print_json(json);
	} else if (code == EXIT_OK) {
		table_head(&table, head);
		cJSON_ArrayForEach(study, studies) list_row(&table, study);
		table_print(&table, stdout);
	}
	table_free(&table);
	cJSON_Delete(json);
	return code;
}

static enum exit_code show_csv(struct client *client, const char *path)
{
	struct reply reply;
	client_call(client, &(struct call){.method = "GET", .path = path, .accept = "text/csv"}, &reply);
	enum exit_code code = reply_check(client, &reply);
	if (code == EXIT_OK && reply.text) fputs(reply.text, stdout);
	reply_clear(&reply);
	return code;
}

static enum exit_code show(struct client *client, const struct options *options, char **args, int count)
{
	char path[128];
	cJSON *study;
	enum exit_code code = study_path(client, count ? args[0] : NULL, path);
	if (code == EXIT_OK && options->csv) return show_csv(client, path);
	if (code == EXIT_OK) code = client_get(client, path, &study);
	if (code != EXIT_OK) return code;
	if (options->json)
		print_json(study);
	else
		print_table(study);
	cJSON_Delete(study);
	return EXIT_OK;
}

static enum exit_code watch_one(struct client *client, const struct options *options, char **args, int count)
{
	char path[128];
	enum exit_code code = study_path(client, count ? args[0] : NULL, path);
	return code == EXIT_OK ? watch(client, options, path) : code;
}

static enum exit_code cancel(struct client *client, const struct options *options, char **args, int count)
{
	enum exit_code result = EXIT_OK;
	for (int i = 0; i < count; i++) {
		char path[128], action[160];
		cJSON *study = NULL;
		enum exit_code code = study_path(client, args[i], path);
		snprintf(action, sizeof action, "%s/cancel", code == EXIT_OK ? path : "");
		if (code == EXIT_OK) code = client_do(client, &(struct call){.method = "POST", .path = action}, &study);
		if (code == EXIT_OK && options->json)
			print_json(study);
		else if (code == EXIT_OK)
			printf("%s cancelled\n", strrchr(path, '/') + 1);
		cJSON_Delete(study);
		if (result == EXIT_OK) result = code;
	}
	return result;
}

static enum exit_code rm(struct client *client, const struct options *options, char **args, int count)
{
	enum exit_code result = EXIT_OK;
	for (int i = 0; i < count; i++) {
		char path[128];
		enum exit_code code = study_path(client, args[i], path);
		if (code == EXIT_OK) code = client_do(client, &(struct call){.method = "DELETE", .path = path}, NULL);
		if (code == EXIT_OK)
			printf(options->json ? "{\"id\":\"%s\",\"removed\":true}\n" : "%s removed\n", strrchr(path, '/') + 1);
		if (result == EXIT_OK) result = code;
	}
	return result;
}

enum exit_code command_study(struct client *client, const struct options *options)
{
	static const struct {
		const char *name;
		action_fn *run;
		int least, most;
	} actions[] = {{"submit", submit, 1, 1},   {"list", list, 0, 0},       {"show", show, 0, 1},
		       {"watch", watch_one, 0, 1}, {"cancel", cancel, 1, 999}, {"rm", rm, 1, 999}};
	int count = options->n_args - 1;
	for (size_t i = 0; i < sizeof actions / sizeof *actions; i++) {
		if (strcmp(actions[i].name, options->args[0]) != 0) continue;
		if (count >= actions[i].least && count <= actions[i].most)
			return actions[i].run(client, options, options->args + 1, count);
		fprintf(stderr, "besactl: study %s takes %s\nTry 'besactl --help'.\n", actions[i].name,
			actions[i].most == 0       ? "no arguments"
			: actions[i].run == submit ? "a file ('-' is standard input)"
			: actions[i].least         ? "the ids of studies"
						   : "the id of one study, or none for the newest");
		return EXIT_USAGE;
	}
	fprintf(stderr, "besactl: there is no 'study %s': it is submit, list, show, watch, cancel or rm\nTry 'besactl --help'.\n",
		options->args[0]);
	return EXIT_USAGE;
}
