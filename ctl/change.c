/* Commands that change jobs: cancel, pause, resume, retry, rm. Each takes several jobs, goes on after a refusal, and ends with
 * the first failure. */
#include <stdio.h>
#include <string.h>

#include "ctl/command.h"
#include "ctl/text.h"

/* POST to an action of a job; the job as it is then goes to *ret. */
static enum exit_code post_action(struct client *client, const char *id, const char *action, cJSON **ret)
{
	char path[128];
	snprintf(path, sizeof path, "/v1/jobs/%s/%s", id, action);
	return client_do(client, &(struct call){.method = "POST", .path = path}, ret);
}

static enum exit_code act_on_all(struct client *client, const struct options *options, const char *action)
{
	enum exit_code result = EXIT_OK;
	for (int i = 0; i < options->n_args; i++) {
		char id[JOB_ID_ROOM];
		cJSON *job = NULL;
		enum exit_code code = resolve_job(client, options->args[i], id);
		if (code == EXIT_OK) code = post_action(client, id, action, &job);
		if (code == EXIT_OK && options->json) {
			print_json(job);
		} else if (code == EXIT_OK) {
			printf("%s ", id);
			text_put(stdout, text_member_or(job, "state", "?"));
			putchar('\n');
		}
		cJSON_Delete(job);
		if (result == EXIT_OK) result = code;
	}
	return result;
}

enum exit_code command_cancel(struct client *client, const struct options *options)
{
	return act_on_all(client, options, "cancel");
}

enum exit_code command_pause(struct client *client, const struct options *options)
{
	return act_on_all(client, options, "pause");
}

enum exit_code command_resume(struct client *client, const struct options *options)
{
	return act_on_all(client, options, "resume");
}

enum exit_code command_retry(struct client *client, const struct options *options)
{
	return act_on_all(client, options, "retry");
}

static enum exit_code delete_job(struct client *client, const char *id)
{
	char path[128];
	snprintf(path, sizeof path, "/v1/jobs/%s", id);
	return client_do(client, &(struct call){.method = "DELETE", .path = path}, NULL);
}

enum exit_code command_rm(struct client *client, const struct options *options)
{
	enum exit_code result = EXIT_OK;
	for (int i = 0; i < options->n_args; i++) {
		char id[JOB_ID_ROOM];
		enum exit_code code = resolve_job(client, options->args[i], id);
		if (code == EXIT_OK) code = delete_job(client, id);
		if (code == EXIT_OK && options->json)
			printf("{\"id\":\"%s\",\"removed\":true}\n", id);
		else if (code == EXIT_OK)
			printf("%s removed\n", id);
		if (result == EXIT_OK) result = code;
	}
	return result;
}
