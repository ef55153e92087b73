/* Who has changed what. */
#include <stdio.h>

#include "ctl/command.h"
#include "ctl/table.h"
#include "ctl/text.h"

enum { PAGE = 100 };

static void add_row(struct table *table, const cJSON *entry)
{
	char text[TEXT_ROOM];
	double count = number_member(entry, "count");
	table_add(table, format_time(text_member(entry, "at"), text));
	table_add(table, text_member_or(entry, "who", "-"));
	table_add(table, text_member_or(entry, "peer", "-"));
	table_add(table, text_member_or(entry, "action", "?"));
	table_add(table, text_member_or(entry, "target", "-"));
	if (count > 1)
		table_add_format(table, "%s, %.0f times", text_member_or(entry, "outcome", "?"), count);
	else
		table_add(table, text_member_or(entry, "outcome", "?"));
	table_end_row(table);
}

/* A page of entries, moved to `entries`. *next is 0 when it was the last. */
static enum exit_code take_page(struct client *client, int limit, double *next, cJSON *entries)
{
	char path[96];
	cJSON *page, *entry;
	if (*next > 0)
		snprintf(path, sizeof path, "/v1/audit?limit=%d&after=%.0f", limit, *next);
	else
		snprintf(path, sizeof path, "/v1/audit?limit=%d", limit);
	enum exit_code code = client_get(client, path, &page);
	if (code != EXIT_OK) return code;
	cJSON *list = cJSON_GetObjectItemCaseSensitive(page, "entries");
	while ((entry = cJSON_DetachItemFromArray(list, 0)))
		cJSON_AddItemToArray(entries, entry);
	const cJSON *after = cJSON_GetObjectItemCaseSensitive(page, "next");
	*next = cJSON_IsNumber(after) ? after->valuedouble : 0;
	cJSON_Delete(page);
	return EXIT_OK;
}

static void print_entries(const cJSON *entries)
{
	static const char *const head[] = {"WHEN (UTC)", "WHO", "FROM", "ACTION", "OF", "OUTCOME", NULL};
	struct table table = {.align = "l"};
	const cJSON *entry;
	table_head(&table, head);
	cJSON_ArrayForEach(entry, entries) add_row(&table, entry);
	table_print(&table, stdout);
	table_free(&table);
}

enum exit_code command_audit(struct client *client, const struct options *options)
{
	cJSON *entries = cJSON_CreateArray();
	int left = options->limit;
	double next = 0;
	enum exit_code code;
	do {
		code = take_page(client, options->limit && left < PAGE ? left : PAGE, &next, entries);
		left = options->limit - cJSON_GetArraySize(entries);
	} while (code == EXIT_OK && next > 0 && (!options->limit || left > 0));
	if (code == EXIT_OK && options->json)
		print_json(entries);
	else if (code == EXIT_OK)
		print_entries(entries);
	cJSON_Delete(entries);
	return code;
}
