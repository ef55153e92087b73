/* The job resource: submit, list, show, cancel, retry, delete. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/http.h"
#include "base/json.h"

enum { RETRY_AFTER_SECONDS = 30 };

void api_submission_clear(struct api_submission *submission)
{
	free(submission->name);
	free(submission->spec);
	free(submission->places);
	free(submission->output);
	cJSON_Delete(submission->errors);
	*submission = (struct api_submission){0};
}

void queue_full(const struct request *request, struct response *response)
{
	problem(response, 503, "queue-full", "%lld jobs wait already", (long long)*request->config->queue_limit);
	response_header(response, "Retry-After", "%d", RETRY_AFTER_SECONDS);
}

void quota_spent(const struct request *request, enum insert_outcome outcome, struct response *response)
{
	const struct holder *holder = &request->holder;
	if (outcome == INSERT_QUOTA_DAY) {
		problem(response, 429, "quota-day", "'%s' may submit %lld jobs in 24 hours (max-per-day)", holder->name,
			(long long)holder->max_per_day);
		response_header(response, "Retry-After", "%lld", (long long)request->actor->wait_seconds);
	} else if (outcome == INSERT_QUOTA_BYTES) {
		const struct actor *actor = request->actor;
		problem(response, 429, "quota-bytes",
			"'%s' may hold %lld bytes (max-bytes): outputs, and what failed and cancelled jobs left, take %lld, jobs "
			"that have not "
			"ended are expected to take %lld, and this one %lld; outputs that are removed, and failed or cancelled "
			"jobs that are deleted, make room",
			holder->name, (long long)actor->max_bytes, (long long)actor->held_bytes, (long long)actor->expected_bytes,
			(long long)actor->wanted_bytes);
		response_header(response, "Retry-After", "%d", RETRY_AFTER_SECONDS);
	} else {
		problem(response, 429, "quota-queued", "'%s' may have %lld jobs that are queued or paused (max-queued)",
			holder->name, (long long)holder->max_queued);
		response_header(response, "Retry-After", "%d", RETRY_AFTER_SECONDS);
	}
}

enum status quota_measure(const struct request *request, const char *but, struct error *err)
{
	struct actor *actor = request->actor;
	const struct api_hooks *hooks = &request->config->hooks;
	if (!actor || !actor->max_bytes) return STATUS_OK;
	return hooks->held(hooks->context, actor->who, but, &actor->held_bytes, err);
}

void output_claimed(struct response *response, const char *output)
{
	problem(response, 409, "output-claimed", "an unfinished job writes to '%s', above it or below it", output);
}

static void answer_job(struct response *response, unsigned status, struct job *job)
{
	response_json(response, status, job_json(job));
	job_clear(job);
}

/* ---- which jobs one waits for --------------------------------------------------------------------------------------------- */

/* Points into the request. */
struct depends_on {
	const char *ids[API_MAX_DEPENDENCIES];
	size_t count;
};

static void dependency_add(struct depends_on *jobs, const cJSON *item, cJSON *errors)
{
	char pointer[32];
	const char *id = cJSON_GetStringValue(item);
	snprintf(pointer, sizeof pointer, "/depends_on/%zu", jobs->count);
	if (!id || !job_id_is_valid(id)) {
		problem_add(errors, "pointer", pointer, "must be the id of a job");
		id = "";
	}
	for (size_t i = 0; *id && i < jobs->count; i++)
		if (strcmp(jobs->ids[i], id) == 0) problem_add(errors, "pointer", pointer, "is there twice");
	jobs->ids[jobs->count++] = id;
}

static void dependencies_wrong(struct response *response, cJSON *errors)
{
	problem_fields(response, 422, "invalid-spec", "a job cannot depend on that", errors);
}

/* The member `depends_on` of a request, NULL where it has none, is of no concern to the spec. False where it cannot be one: the
 * response says so. */
static bool depends_on_read(const cJSON *list, struct depends_on *ret, struct response *response)
{
	struct depends_on jobs = {0};
	cJSON *errors = cJSON_CreateArray();
	const cJSON *item;
	if (list && !cJSON_IsNull(list) && (!cJSON_IsArray(list) || cJSON_GetArraySize(list) > API_MAX_DEPENDENCIES))
		problem_add(errors, "pointer", "/depends_on", "must be a list of at most %d ids of jobs", API_MAX_DEPENDENCIES);
	else
		cJSON_ArrayForEach(item, list) dependency_add(&jobs, item, errors);
	if (cJSON_GetArraySize(errors)) {
		dependencies_wrong(response, errors);
		return false;
	}
	cJSON_Delete(errors);
	*ret = jobs;
	return true;
}

/* `job` is the one that cannot be depended on. */
static void dependency_refused(const struct submission *submission, enum insert_outcome outcome, const struct job *job,
			       struct response *response)
{
	char pointer[32];
	cJSON *errors = cJSON_CreateArray();
	size_t i = 0;
	while (i < submission->n_depends_on && strcmp(submission->depends_on[i], job->id) != 0)
		i++;
	snprintf(pointer, sizeof pointer, "/depends_on/%zu", i);
	if (outcome == INSERT_DEPENDENCY_UNKNOWN)
		problem_add(errors, "pointer", pointer, "there is no job %s", job->id);
	else
		problem_add(errors, "pointer", pointer, "job %s %s, so that this one would never run", job->id,
			    job->state == JOB_CANCELLED ? "was cancelled" : "has failed");
	dependencies_wrong(response, errors);
}

/* ---- submit ------------------------------------------------------------------------------------------------------------- */

static void created(struct response *response, struct job *job)
{
	char id[JOB_ID_BYTES];
	memcpy(id, job->id, sizeof id);
	answer_job(response, 201, job);
	response_header(response, "Location", "/v1/jobs/%s", id);
}

bool idempotency_key_check(const char *key, struct response *response)
{
	if (!key) return true;
	size_t length = strlen(key);
	bool fits = length >= 1 && length <= 255;
	for (size_t i = 0; fits && i < length; i++)
		fits = key[i] > 0x20 && key[i] < 0x7f;
	if (fits) return true;
	cJSON *errors = cJSON_CreateArray();
	problem_add(errors, "header", "Idempotency-Key", "must be 1 to 255 printable ASCII characters without spaces");
	problem_fields(response, 400, "invalid-header", "the Idempotency-Key is not usable", errors);
	return false;
}

void idempotency_key_reused(struct response *response)
{
	problem(response, 422, "idempotency-key-reused", "the Idempotency-Key was used with another body");
}

/* Answers by what is known of the key; false when it is new. */
static bool answer_known_key(enum insert_outcome outcome, struct job *job, struct response *response)
{
	if (outcome == INSERT_REPLAY)
		created(response, job);
	else if (outcome == INSERT_KEY_REUSED)
		idempotency_key_reused(response);
	else
		return false;
	return true;
}

static void insert(const struct request *request, const char *canonical, const char *id, const struct depends_on *depends_on,
		   const struct api_submission *prepared, struct response *response)
{
	const struct api_config *config = request->config;
	struct submission submission = {.id = id,
					.name = prepared->name,
					.priority = prepared->priority,
					.spec = prepared->spec,
					.places = prepared->places,
					.output = prepared->output,
					.overwrite = prepared->overwrite,
					.expected_bytes = prepared->bytes,
					.idempotency_key = request->idempotency_key,
					.request = canonical,
					.depends_on = depends_on->ids,
					.n_depends_on = depends_on->count};
	struct job job = {0};
	struct error err;
	enum insert_outcome outcome;
	if (db_job_insert(config->db, &submission, *config->queue_limit, &outcome, &job, &err)) {
		problem_failure(response, &err);
	} else if (outcome == INSERT_OUTPUT_CLAIMED) {
		output_claimed(response, prepared->output);
	} else if (outcome == INSERT_QUEUE_FULL) {
		queue_full(request, response);
	} else if (outcome == INSERT_QUOTA_QUEUED || outcome == INSERT_QUOTA_DAY || outcome == INSERT_QUOTA_BYTES) {
		quota_spent(request, outcome, response);
	} else if (outcome == INSERT_DEPENDENCY_UNKNOWN || outcome == INSERT_DEPENDENCY_FAILED) {
		dependency_refused(&submission, outcome, &job, response);
	} else if (!answer_known_key(outcome, &job, response)) {
		created(response, &job);
		config->hooks.queued(config->hooks.context);
	}
}

static void prepare_and_insert(const struct request *request, const cJSON *spec, const struct depends_on *depends_on,
			       const char *canonical, struct response *response)
{
	const struct api_config *config = request->config;
	struct api_submission prepared = {0};
	struct error err;
	char id[JOB_ID_BYTES];
	db_new_id(config->db, id);
	if (config->hooks.accepts(config->hooks.context, &err)) {
		problem_failure(response, &err);
		return;
	}
	if (config->hooks.prepare(config->hooks.context, spec, id, &prepared, &err)) {
		problem_spec(response, &err, prepared.errors);
		prepared.errors = NULL;
	} else if (quota_measure(request, NULL, &err)) {
		problem_failure(response, &err);
	} else {
		insert(request, canonical, id, depends_on, &prepared, response);
	}
	api_submission_clear(&prepared);
}

void jobs_submit(const struct request *request, struct response *response)
{
	struct error err;
	struct depends_on depends_on;
	cJSON *spec;
	struct job job = {0};
	enum insert_outcome outcome = INSERT_NEW;
	if (!idempotency_key_check(request->idempotency_key, response)) return;
	if (!body_parse(request, &spec, response)) return;
	char *canonical = json_canonical(spec); /* what an Idempotency-Key stands for */
	cJSON *list = cJSON_DetachItemFromObjectCaseSensitive(spec, "depends_on");
	if (!canonical) {
		error_set(&err, STATUS_NO_MEMORY, "no memory for the request");
		problem_failure(response, &err);
	} else if (request->idempotency_key &&
		   db_job_find_key(request->config->db, request->idempotency_key, canonical, &outcome, &job, &err)) {
		problem_failure(response, &err);
	} else if (!answer_known_key(outcome, &job, response) && depends_on_read(list, &depends_on, response)) {
		prepare_and_insert(request, spec, &depends_on, canonical, response);
	}
	free(canonical);
	cJSON_Delete(list);
	cJSON_Delete(spec);
}

/* ---- read --------------------------------------------------------------------------------------------------------------- */

struct list_query {
	int state;
	const char *after;
	int64_t limit;
	char *metadata; /* freed by the caller */
};

static bool list_query(const struct request *request, struct list_query *ret, struct response *response)
{
	struct list_query query = {.state = -1, .limit = API_DEFAULT_PAGE};
	cJSON *errors = cJSON_CreateArray();
	const char *name = query_value(request, "state");
	enum job_state wanted;
	if (name && job_state_parse(name, &wanted))
		query.state = (int)wanted;
	else if (name)
		problem_add(errors, "parameter", "state",
			    "must be queued, running, cancelling, pausing, paused, succeeded, failed or cancelled");
	query.after = query_value(request, "after");
	if (query.after && !job_id_is_valid(query.after)) problem_add(errors, "parameter", "after", "must be the id of a job");
	query_number(request, "limit", 1, API_MAX_PAGE, &query.limit, errors);
	query_map(request, "metadata", &query.metadata, errors);
	if (cJSON_GetArraySize(errors) == 0) {
		cJSON_Delete(errors);
		*ret = query;
		return true;
	}
	free(query.metadata);
	problem_fields(response, 400, "invalid-query", "the query is not understood", errors);
	return false;
}

void jobs_list(const struct request *request, struct response *response)
{
	struct list_query query;
	struct job_list list;
	struct error err;
	if (!list_query(request, &query, response)) return;
	const struct job_filter filter = {query.state, query.metadata};
	enum status status = db_job_list(request->config->db, &filter, query.after, (int)query.limit, &list, &err);
	free(query.metadata);
	if (status) {
		problem_failure(response, &err);
		return;
	}
	cJSON *json = cJSON_CreateObject();
	cJSON *jobs = cJSON_AddArrayToObject(json, "jobs");
	for (size_t i = 0; i < list.count; i++)
		cJSON_AddItemToArray(jobs, job_json(&list.jobs[i]));
	if (list.more)
		cJSON_AddStringToObject(json, "next", list.jobs[list.count - 1].id);
	else
		cJSON_AddNullToObject(json, "next");
	job_list_clear(&list);
	response_json(response, 200, json);
}

void jobs_show(const struct request *request, struct response *response)
{
	struct job job;
	struct error err;
	if (db_job_get(request->config->db, request->id, &job, &err))
		problem_failure(response, &err);
	else
		answer_job(response, 200, &job);
}

/* ---- change ------------------------------------------------------------------------------------------------------------- */

void jobs_cancel(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	enum change_outcome outcome;
	struct job job;
	struct error err;
	if (db_job_cancel(config->db, request->id, &outcome, &job, &err)) {
		problem_failure(response, &err);
	} else if (outcome == CHANGE_WRONG_STATE) {
		problem(response, 409, "wrong-state", "the job has %s; only an unfinished one can be cancelled",
			job_state_name(job.state));
		job_clear(&job);
	} else {
		config->hooks.cancelled(config->hooks.context, request->id);
		answer_job(response, 200, &job);
	}
}

void jobs_pause(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	enum change_outcome outcome;
	struct job job;
	struct error err;
	if (db_job_pause(config->db, request->id, &outcome, &job, &err)) {
		problem_failure(response, &err);
	} else if (outcome == CHANGE_WRONG_STATE) {
		problem(response, 409, "wrong-state", "the job is %s; only a queued or running one can be paused",
			job_state_name(job.state));
		job_clear(&job);
	} else {
		if (job.state == JOB_PAUSING) config->hooks.cancelled(config->hooks.context, request->id);
		answer_job(response, 200, &job);
	}
}

void jobs_resume(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	enum change_outcome outcome;
	struct job job;
	struct error err;
	if (db_job_resume(config->db, request->id, *config->queue_limit, &outcome, &job, &err)) {
		problem_failure(response, &err);
		return;
	}
	if (outcome == CHANGE_DONE) {
		config->hooks.queued(config->hooks.context);
		answer_job(response, 200, &job);
		return;
	}
	if (outcome == CHANGE_QUEUE_FULL)
		queue_full(request, response);
	else
		problem(response, 409, "wrong-state", "the job is %s; only a paused one can be resumed%s",
			job_state_name(job.state),
			job.state == JOB_FAILED || job.state == JOB_CANCELLED ? ", and this one retried" : "");
	job_clear(&job);
}

static void answer_retry(const struct request *request, enum change_outcome outcome, struct job *job, struct response *response)
{
	switch (outcome) {
	case CHANGE_DONE:
		request->config->hooks.queued(request->config->hooks.context);
		answer_job(response, 200, job);
		return;
	case CHANGE_WRONG_STATE:
		problem(response, 409, "wrong-state", "the job is %s; only a failed or cancelled one can be retried",
			job_state_name(job->state));
		break;
	case CHANGE_OUTPUT_CLAIMED:
		output_claimed(response, job->output);
		break;
	case CHANGE_QUEUE_FULL:
		queue_full(request, response);
		break;
	case CHANGE_QUOTA:
		quota_spent(request, INSERT_QUOTA_QUEUED, response);
		break;
	case CHANGE_QUOTA_BYTES:
		quota_spent(request, INSERT_QUOTA_BYTES, response);
		break;
	case CHANGE_DEPENDENCY:
		problem(response, 409, "wrong-state",
			"the job depends on %s, and one of these has failed, was cancelled or is forgotten; retry that one first",
			job->waits_for);
	}
	job_clear(job);
}

void jobs_retry(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	enum change_outcome outcome;
	struct job job;
	struct error err;
	if (config->hooks.accepts(config->hooks.context, &err) || db_job_get(config->db, request->id, &job, &err)) {
		problem_failure(response, &err);
		return;
	}
	bool retryable = job.state == JOB_FAILED || job.state == JOB_CANCELLED;
	enum status status = retryable ? config->hooks.prepare_retry(config->hooks.context, &job, &err) : STATUS_OK;
	job_clear(&job);
	if (status == STATUS_EXISTS)
		problem(response, 409, "output-exists", "%s", err.message);
	else if (status || quota_measure(request, request->id, &err) ||
		 db_job_retry(config->db, request->id, *config->queue_limit, &outcome, &job, &err))
		problem_failure(response, &err);
	else
		answer_retry(request, outcome, &job, response);
}

/* Where there is no room to write that a finished job goes, its files go first. */
static enum status delete_job(const struct request *request, enum change_outcome *outcome, struct error *err)
{
	const struct api_config *config = request->config;
	struct job job;
	enum status status = db_job_delete(config->db, request->id, outcome, err);
	if (status != STATUS_NO_SPACE) return status;
	TRY(db_job_get(config->db, request->id, &job, err));
	bool ended = job_state_is_final(job.state);
	job_clear(&job);
	if (ended) config->hooks.deleted(config->hooks.context, request->id);
	return db_job_delete(config->db, request->id, outcome, err);
}

void jobs_delete(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	enum change_outcome outcome;
	struct error err;
	if (delete_job(request, &outcome, &err)) {
		problem_failure(response, &err);
	} else if (outcome == CHANGE_WRONG_STATE) {
		problem(response, 409, "wrong-state", "the job is not finished; cancel it first");
	} else {
		config->hooks.deleted(config->hooks.context, request->id);
		response->status = 204;
	}
}
