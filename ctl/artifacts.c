/* The files of a job's output. */
#include <stdio.h>

#include "ctl/command.h"
#include "ctl/table.h"
#include "ctl/text.h"

static void print_artifacts(const cJSON *json)
{
	static const char *const head[] = {"FILE", "SIZE", "SHA-256", NULL};
	struct table table = {.align = "lrl"};
	const cJSON *entry;
	char text[TEXT_ROOM];
	table_head(&table, head);
	cJSON_ArrayForEach(entry, cJSON_GetObjectItemCaseSensitive(json, "artifacts"))
	{
		table_add(&table, text_member_or(entry, "name", "?"));
		table_add(&table, format_bytes(number_member(entry, "bytes"), text));
		table_add(&table, text_member_or(entry, "sha256", "-"));
		table_end_row(&table);
	}
	table_print(&table, stdout);
	table_free(&table);
}

enum exit_code command_artifacts(struct client *client, const struct options *options)
{
	char id[JOB_ID_ROOM], path[128];
	cJSON *json;
	enum exit_code code = resolve_job(client, options->n_args ? options->args[0] : NULL, id);
	if (code != EXIT_OK) return code;
	snprintf(path, sizeof path, "/v1/jobs/%s/artifacts", id);
	code = client_get(client, path, &json);
	if (code != EXIT_OK) return code;
	if (options->json)
		print_json(json);
	else
		print_artifacts(json);
	cJSON_Delete(json);
	return EXIT_OK;
}
