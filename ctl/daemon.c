/* What the daemon is, and what it has: info, models, data. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/table.h"
#include "ctl/text.h"

static bool is_byte_count(const char *key)
{
	size_t length = strlen(key);
	return length >= 5 && strcmp(key + length - 5, "bytes") == 0;
}

static void add_value(struct table *table, const char *path, const cJSON *item)
{
	char text[TEXT_ROOM];
	table_add(table, path);
	if (cJSON_IsString(item)) {
		table_add(table, item->valuestring);
	} else if (cJSON_IsNumber(item) && is_byte_count(path)) {
		table_add(table, format_bytes(item->valuedouble, text));
	} else {
		char *json = cJSON_PrintUnformatted(item);
		table_add(table, json ? json : "?");
		free(json);
	}
	table_end_row(table);
}

/* Whatever the daemon tells, so that a newer one's fields are shown too. */
static void add_rows(struct table *table, const cJSON *object, const char *prefix)
{
	const cJSON *item;
	int index = 0;
	cJSON_ArrayForEach(item, object)
	{
		char path[160];
		if (item->string)
			snprintf(path, sizeof path, "%s%s%s", prefix, *prefix ? "." : "", item->string);
		else
			snprintf(path, sizeof path, "%s.%d", prefix, index++);
		if (cJSON_IsObject(item) || cJSON_IsArray(item))
			add_rows(table, item, path);
		else if (!cJSON_IsNull(item))
			add_value(table, path, item);
	}
}

enum exit_code command_info(struct client *client, const struct options *options)
{
	cJSON *info;
	enum exit_code code = client_get(client, "/v1/info", &info);
	if (code != EXIT_OK) return code;
	if (options->json) {
		print_json(info);
	} else {
		struct table table = {.align = "l"};
		table_add(&table, "address");
		table_add(&table, client_url(client));
		table_end_row(&table);
		add_rows(&table, info, "");
		table_print(&table, stdout);
		table_free(&table);
	}
	cJSON_Delete(info);
	return EXIT_OK;
}

/* Why an entry of a list cannot be used, "" where it can. */
static const char *objection(const cJSON *entry)
{
	bool supported = !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(entry, "supported"));
	return supported ? "" : text_member_or(entry, "reason", "is not supported");
}

static void add_model(struct table *table, const cJSON *model)
{
	char text[TEXT_ROOM];
	double blocks = number_member(model, "blocks");
	table_add(table, text_member_or(model, "name", "?"));
	table_add(table, text_member_or(model, "family", "-"));
	table_add_format(table, isfinite(blocks) ? "%.0f" : "-", blocks);
	table_add(table, format_bytes(number_member(model, "bytes"), text));
	const cJSON *lineage = cJSON_GetObjectItemCaseSensitive(model, "lineage");
	const char *base = text_member(lineage, "model");
	if (base && !*objection(model))
		table_add_format(table, "from %s by %s, %s", base, text_member_or(lineage, "method", "?"),
				 format_percent(number_member(lineage, "sparsity"), text));
	else
		table_add(table, objection(model));
	table_end_row(table);
}

static void add_file(struct table *table, const cJSON *file)
{
	char text[TEXT_ROOM];
	table_add(table, text_member_or(file, "name", "?"));
	table_add(table, text_member_or(file, "kind", "-"));
	table_add(table, text_member_or(file, "compression", "-"));
	table_add(table, format_bytes(number_member(file, "size"), text));
	table_add(table, objection(file));
	table_end_row(table);
}

/* Names of what can be used, for scripts and completions; one with a line break in it would be two. */
static void print_names(const cJSON *list)
{
	const cJSON *entry;
	cJSON_ArrayForEach(entry, list)
	{
		const char *name = text_member(entry, "name");
		if (name && !*objection(entry) && !strpbrk(name, "\r\n")) puts(name);
	}
}

/* A list that the daemon has at `path`, under `key`; `head` is NULL-terminated. */
static enum exit_code show_list(struct client *client, const struct options *options, const char *path, const char *key,
				const char *const *head, const char *align, void (*add)(struct table *, const cJSON *))
{
	cJSON *answer;
	const cJSON *entry;
	enum exit_code code = client_get(client, path, &answer);
	if (code != EXIT_OK) return code;
	if (options->json) {
		print_json(answer);
	} else if (options->names) {
		print_names(cJSON_GetObjectItemCaseSensitive(answer, key));
	} else {
		struct table table = {.align = align};
		table_head(&table, head);
		cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(answer, key)) add(&table, entry);
		table_print(&table, stdout);
		table_free(&table);
		if (cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(answer, "truncated")))
			fputs("besactl: there is more than the daemon lists\n", stderr);
	}
	cJSON_Delete(answer);
	return EXIT_OK;
}

enum exit_code command_models(struct client *client, const struct options *options)
{
	static const char *const head[] = {"MODEL", "FAMILY", "BLOCKS", "SIZE", "", NULL};
	return show_list(client, options, "/v1/models", "models", head, "llrrl", add_model);
}

enum exit_code command_data(struct client *client, const struct options *options)
{
	static const char *const head[] = {"FILE", "KIND", "PACKED", "SIZE", "", NULL};
	return show_list(client, options, "/v1/data", "data", head, "lllrl", add_file);
}
