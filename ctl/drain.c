/* Whether the daemon begins jobs. */
#include <stdio.h>

#include "ctl/command.h"
#include "ctl/text.h"

/* The job that goes on, or stops, for those who wait until there is none. */
static enum exit_code print_running(struct client *client)
{
	cJSON *answer;
	const cJSON *job;
	int running = 0;
	static const char *const paths[] = {"/v1/jobs?state=running", "/v1/jobs?state=pausing", "/v1/jobs?state=cancelling"};
	for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
		enum exit_code code = client_get(client, paths[i], &answer);
		if (code != EXIT_OK) return code;
		cJSON_ArrayForEach(job, cJSON_GetObjectItemCaseSensitive(answer, "jobs"))
		{
			printf("still at work: job %s\n", text_member_or(job, "id", "?"));
			running++;
		}
		cJSON_Delete(answer);
	}
	if (!running) puts("no job is at work");
	return EXIT_OK;
}

static enum exit_code set_drain(struct client *client, const struct options *options, const char *path)
{
	cJSON *json;
	char since[TEXT_ROOM];
	enum exit_code code = client_do(client, &(struct call){.method = "POST", .path = path}, &json);
	if (code != EXIT_OK) return code;
	bool drained = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(json, "drained"));
	if (options->json)
		print_json(json);
	else if (drained)
		printf("drained since %s UTC: no job is begun\n", format_time(text_member(json, "since"), since));
	else
		puts("not drained: jobs are begun");
	cJSON_Delete(json);
	return drained && !options->json ? print_running(client) : EXIT_OK;
}

enum exit_code command_drain(struct client *client, const struct options *options)
{
	return set_drain(client, options, options->now ? "/v1/drain?now=true" : "/v1/drain");
}

enum exit_code command_undrain(struct client *client, const struct options *options)
{
	return set_drain(client, options, "/v1/undrain");
}
