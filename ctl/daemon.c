/* What the daemon is, and what it has: info, models. */
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

static void add_model(struct table *table, const cJSON *model)
{
	char text[TEXT_ROOM];
	double blocks = number_member(model, "blocks");
	bool supported = !cJSON_IsFalse(cJSON_GetObjectItemCaseSensitive(model, "supported"));
	table_add(table, text_member_or(model, "name", "?"));
	table_add(table, text_member_or(model, "family", "-"));
	table_add_format(table, isfinite(blocks) ? "%.0f" : "-", blocks);
	table_add(table, format_bytes(number_member(model, "bytes"), text));
	table_add(table, supported ? "" : text_member_or(model, "reason", "is not supported"));
	table_end_row(table);
}

static void print_models(const cJSON *models)
{
	static const char *const head[] = {"MODEL", "FAMILY", "BLOCKS", "SIZE", ""};
	const cJSON *model;
	struct table table = {.align = "llrrl"};
	for (size_t i = 0; i < sizeof head / sizeof *head; i++)
		table_add(&table, head[i]);
	table_end_row(&table);
	cJSON_ArrayForEach(model, models) add_model(&table, model);
	table_print(&table, stdout);
	table_free(&table);
}

enum exit_code command_models(struct client *client, const struct options *options)
{
	cJSON *answer;
	enum exit_code code = client_get(client, "/v1/models", &answer);
	if (code != EXIT_OK) return code;
	if (options->json)
		print_json(answer);
	else
		print_models(cJSON_GetObjectItemCaseSensitive(answer, "models"));
	cJSON_Delete(answer);
	return EXIT_OK;
}
