#include "daemon/gc.h"

#include <stdlib.h>

#include "api/http.h"
#include "base/place.h"
#include "engine/output/publish.h"

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

/* Outputs that were replaced, and have been kept for as long as they are to be. */
struct asides {
	cJSON *list;
	double bytes;
	bool dry;
};

static enum status take_aside(void *context, const struct place *root, const char *name, int64_t since, struct error *err)
{
	struct asides *asides = context;
	char *path = place_text(root, name), replaced[32];
	double bytes = path ? bytes_below(path) : 0;
	free(path);
	if (!asides->dry) TRY(place_remove(root, name, err));
	cJSON *json = cJSON_CreateObject();
	time_format(1000 * since, replaced);
	cJSON_AddStringToObject(json, "output", name);
	cJSON_AddStringToObject(json, "replaced_at", replaced);
	cJSON_AddNumberToObject(json, "bytes", bytes);
	cJSON_AddItemToArray(asides->list, json);
	asides->bytes += bytes;
	return STATUS_OK;
}

static enum status sweep_replaced(const struct options *options, struct asides *asides, struct error *err)
{
	const struct place root = {options->roots.output, "."};
	asides->list = cJSON_CreateArray();
	return publish_asides(&root, (double)options->keep_replaced, take_aside, asides, err);
}

static cJSON *plan_json(const struct sweep_plan *plan, const struct asides *asides)
{
	cJSON *json = cJSON_CreateObject(), *removals = cJSON_AddArrayToObject(json, "removals");
	for (size_t i = 0; i < plan->count; i++)
		cJSON_AddItemToArray(removals, removal_json(&plan->removals[i]));
	cJSON_AddItemToObject(json, "replaced", asides->list);
	cJSON_AddNumberToObject(json, "bytes", plan->bytes + asides->bytes);
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
	struct error ignored;
	struct asides asides = {.dry = dry};
	TRY(sweep_plan(options, db, checkpoints, &plan, err));
	enum status status = dry ? STATUS_OK : sweep_apply(options, db, checkpoints, &plan, err);
	if (!dry && sweep_measure(options, db, checkpoints, &left, &ignored) == STATUS_OK) metrics_set_state(metrics, &left);
	if (!status) status = sweep_replaced(options, &asides, err);
	if (!status)
		*ret = plan_json(&plan, &asides);
	else
		cJSON_Delete(asides.list);
	sweep_plan_free(&plan);
	return status;
}
