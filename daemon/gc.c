#include "daemon/gc.h"

#include "api/http.h"

static cJSON *removal_json(const struct removal *removal)
{
	char ended[32];
	cJSON *json = cJSON_CreateObject();
	time_format(removal->job.finished_at, ended);
	cJSON_AddStringToObject(json, "job", removal->job.id);
	cJSON_AddStringToObject(json, "state", job_state_name(removal->job.state));
	cJSON_AddStringToObject(json, "finished_at", ended);
	cJSON_AddNumberToObject(json, "bytes", removal->bytes);
	cJSON_AddStringToObject(json, "reason", sweep_rule_name(removal->rule));
	return json;
}

static cJSON *plan_json(const struct sweep_plan *plan)
{
	cJSON *json = cJSON_CreateObject(), *removals = cJSON_AddArrayToObject(json, "removals");
	for (size_t i = 0; i < plan->count; i++)
		cJSON_AddItemToArray(removals, removal_json(&plan->removals[i]));
	cJSON_AddNumberToObject(json, "bytes", plan->bytes);
	const struct state_reading *before = &plan->state;
	cJSON *state = cJSON_AddObjectToObject(json, "state");
	cJSON_AddNumberToObject(state, "database_bytes", before->database);
	cJSON_AddNumberToObject(state, "checkpoint_bytes", before->checkpoints);
	cJSON_AddNumberToObject(state, "unfinished_output_bytes", before->unfinished);
	cJSON_AddItemToObject(state, "limit_bytes", before->limit < 0 ? cJSON_CreateNull() : cJSON_CreateNumber(before->limit));
	return json;
}

enum status gc_run_rules(const struct options *options, struct db *db, const char *checkpoints, struct metrics *metrics, bool dry,
			 cJSON **ret, struct error *err)
{
	struct sweep_plan plan;
	struct state_reading left;
	TRY(sweep_plan(options, db, checkpoints, &plan, err));
	enum status status = dry ? STATUS_OK : sweep_apply(options, db, checkpoints, &plan, err);
	if (!dry) {
		sweep_measure(options, db, checkpoints, &left);
		metrics_set_state(metrics, &left);
	}
	if (!status) *ret = plan_json(&plan);
	sweep_plan_free(&plan);
	return status;
}
