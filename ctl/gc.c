/* What the daemon's rules forget of the jobs that have ended, and of outputs that were replaced. */
#include <stdio.h>

#include "ctl/command.h"
#include "ctl/table.h"
#include "ctl/text.h"

static void print_removals(const cJSON *json, bool dry_run)
{
	static const char *const head[] = {"JOB", "STATE", "ENDED (UTC)", "SIZE", "REASON", NULL};
	struct table table = {.align = "lllrl"};
	const cJSON *removals = cJSON_GetObjectItemCaseSensitive(json, "removals"), *removal;
	char text[TEXT_ROOM];
	table_head(&table, head);
	cJSON_ArrayForEach(removal, removals)
	{
		table_add(&table, text_member_or(removal, "job", "?"));
		table_add(&table, text_member_or(removal, "state", "?"));
		table_add(&table, format_time(text_member(removal, "finished_at"), text));
		table_add(&table, format_bytes(number_member(removal, "bytes"), text));
		table_add(&table, text_member_or(removal, "reason", "?"));
		table_end_row(&table);
	}
	const cJSON *replaced = cJSON_GetObjectItemCaseSensitive(json, "replaced"), *output;
	cJSON_ArrayForEach(output, replaced)
	{
		table_add(&table, text_member_or(output, "output", "?"));
		table_add(&table, "replaced");
		table_add(&table, format_time(text_member(output, "replaced_at"), text));
		table_add(&table, format_bytes(number_member(output, "bytes"), text));
		table_add(&table, "keep_replaced");
		table_end_row(&table);
	}
	int count = cJSON_GetArraySize(removals), outputs = cJSON_GetArraySize(replaced);
	if (count || outputs) table_print(&table, stdout);
	table_free(&table);
	printf("%d job%s %sforgotten, ", count, count == 1 ? "" : "s", dry_run ? "would be " : "");
	if (outputs) printf("%d replaced output%s removed, ", outputs, outputs == 1 ? "" : "s");
	printf("%s\n", format_bytes(number_member(json, "bytes"), text));
}

enum exit_code command_gc(struct client *client, const struct options *options)
{
	cJSON *json;
	const struct call call = {.method = options->dry_run ? "GET" : "POST", .path = "/v1/gc"};
	enum exit_code code = client_do(client, &call, &json);
	if (code != EXIT_OK) return code;
	if (options->json)
		print_json(json);
	else
		print_removals(json, options->dry_run);
	cJSON_Delete(json);
	return EXIT_OK;
}
