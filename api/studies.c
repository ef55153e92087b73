/* The study resource: submit, list, show, cancel, delete. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api/grid.h"
#include "api/http.h"
#include "base/json.h"
#include "db/studies.h"

enum { MAX_NAME = 200, MAX_PROBLEMS = 16, NAME_IN_OUTPUT = 60 };

/* ---- answers ------------------------------------------------------------------------------------------------------------- */

/* What a list has of a study. */
static cJSON *summary_json(const struct study *study)
{
	char created[32];
	int64_t total = 0, finished = 0;
	cJSON *json = cJSON_CreateObject();
	time_format(study->created_at, created);
	cJSON_AddStringToObject(json, "id", study->id);
	cJSON_AddStringToObject(json, "name", study->name);
	cJSON_AddStringToObject(json, "created_at", created);
	cJSON *states = cJSON_AddObjectToObject(json, "states");
	for (int i = 0; i < JOB_STATES; i++) {
		cJSON_AddNumberToObject(states, job_state_name((enum job_state)i), (double)study->counts[i]);
		total += study->counts[i];
		if (job_state_is_final((enum job_state)i)) finished += study->counts[i];
	}
	cJSON_AddNumberToObject(json, "jobs", (double)total);
	cJSON_AddBoolToObject(json, "finished", finished == total);
	return json;
}

static enum status study_json(const struct api_config *config, const struct study *study, const struct study_rows *rows,
			      cJSON **ret, struct error *err)
{
	cJSON *array;
	TRY(study_rows_json(config, rows, &array, err));
	cJSON *json = summary_json(study);
	cJSON_AddRawToObject(json, "spec", study->spec);
	cJSON_AddRawToObject(json, "grid", study->grid);
	cJSON_AddItemToObject(json, "rows", array);
	*ret = json;
	return STATUS_OK;
}

static void answer(const struct request *request, unsigned status, const char *id, struct response *response)
{
	struct study study = {0};
	struct study_rows rows = {0};
	struct error err;
	cJSON *json;
	if (db_study_get(request->config->db, id, &study, &rows, &err) || study_json(request->config, &study, &rows, &json, &err))
		problem_failure(response, &err);
	else
		response_json(response, status, json);
	study_clear(&study);
	study_rows_clear(&rows);
}

static void created(const struct request *request, const char *id, struct response *response)
{
	answer(request, 201, id, response);
	if (response->status == 201) response_header(response, "Location", "/v1/studies/%s", id);
}

/* ---- submit: the request -------------------------------------------------------------------------------------------------- */

/* A study that is being submitted, and the jobs that it comes to. */
struct draft {
	const cJSON *spec, *grid; /* the client's */
	const char *name;
	char id[JOB_ID_BYTES];
	char *directory; /* what the jobs write below */
	size_t count;
	struct draft_job {
		char id[JOB_ID_BYTES];
		char *settings;
		struct api_submission prepared;
	} * jobs;
};

static void draft_clear(struct draft *draft)
{
	for (size_t i = 0; draft->jobs && i < draft->count; i++) {
		free(draft->jobs[i].settings);
		api_submission_clear(&draft->jobs[i].prepared);
	}
	free(draft->jobs);
	free(draft->directory);
}

static bool name_is_good(const char *name)
{
	size_t characters = 0;
	for (const unsigned char *s = (const unsigned char *)name; name && *s; s++) {
		if (*s < 0x20 || *s == 0x7f || (*s == 0xc2 && s[1] >= 0x80 && s[1] < 0xa0)) return false;
		characters += (*s & 0xc0) != 0x80;
	}
	return characters >= 1 && characters <= MAX_NAME;
}

/* Fills what the body says; what is wrong with it goes to `errors`. */
static void read_body(const cJSON *body, const struct api_config *config, struct draft *draft, cJSON *errors)
{
	const cJSON *member;
	int64_t limit = *config->queue_limit;
	if (!cJSON_IsObject(body)) {
		problem_add(errors, "pointer", "", "must be an object");
		return;
	}
	cJSON_ArrayForEach(member, body)
	{
		char pointer[64];
		const char *key = member->string;
		if (strcmp(key, "name") == 0 || strcmp(key, "spec") == 0 || strcmp(key, "grid") == 0) continue;
		if (cJSON_GetArraySize(errors) == MAX_PROBLEMS) break;
		snprintf(pointer, sizeof pointer, "/%.60s", key);
		utf8_mask(pointer);
		problem_add(errors, "pointer", pointer, "is not a field of a study, which has name, spec and grid");
	}
	draft->name = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(body, "name"));
	draft->spec = cJSON_GetObjectItemCaseSensitive(body, "spec");
	draft->grid = cJSON_GetObjectItemCaseSensitive(body, "grid");
	if (!name_is_good(draft->name))
		problem_add(errors, "pointer", "/name", "must be a text of 1 to %d characters, none of them a control character",
			    MAX_NAME);
	if (!cJSON_IsObject(draft->spec))
		problem_add(errors, "pointer", "/spec", "must be an object: the spec of a job");
	else if (cJSON_HasObjectItem(draft->spec, "name"))
		problem_add(errors, "pointer", "/spec/name", "must be left out: jobs are named after the study and their settings");
	grid_check(draft->grid, (size_t)(limit < API_MAX_STUDY_JOBS ? limit : API_MAX_STUDY_JOBS), &draft->count, errors);
}

/* The directory that is the study's: as `output` of the spec says, with the study's id in place of {id}, or of its name and id.
 * NULL without memory. */
static char *make_directory(const struct draft *draft)
{
	static const char hole[] = "{id}";
	const char *output = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(draft->spec, "output"));
	struct buffer text = {0};
	for (const char *next; output && (next = strstr(output, hole)); output = next + strlen(hole)) {
		buffer_append(&text, output, (size_t)(next - output));
		buffer_printf(&text, "%s", draft->id);
	}
	if (output) buffer_printf(&text, "%s", output);
	if (!output) {
		grid_append_plain(&text, draft->name, NAME_IN_OUTPUT);
		const char *dash = text.size && text.data[text.size - 1] == '-' ? "" : "-";
		buffer_printf(&text, "%s%s%s", text.size ? "" : "study", dash, draft->id);
	}
	if (!text.failed) return text.data;
	buffer_free(&text);
	return NULL;
}

/* ---- submit: the jobs ----------------------------------------------------------------------------------------------------- */

/* Cut to what a name may have: bytes, so that it fits whatever its characters are. */
static void cut(char *text)
{
	size_t length = strlen(text), end = MAX_NAME;
	if (length <= end) return;
	while (end && ((unsigned char)text[end] & 0xc0) == 0x80)
		end--;
	text[end] = 0;
}

/* Control characters, which settings may have and names may not, become spaces. */
static void flatten(char *text)
{
	for (unsigned char *s = (unsigned char *)text; *s; s++)
		if (*s < 0x20 || *s == 0x7f) *s = ' ';
}

/* Puts name and output of job `index` into its spec. An output that is no text stays, for the check of the spec to say so. */
static enum status name_job(const struct draft *draft, size_t index, const cJSON *settings, const char *told, cJSON *spec,
			    struct error *err)
{
	struct buffer name = {0}, output = {0};
	char *directory = grid_directory(settings, index, draft->count);
	const cJSON *given = cJSON_GetObjectItemCaseSensitive(spec, "output");
	buffer_printf(&name, "%s: %s", draft->name, told);
	buffer_printf(&output, "%s/%s", draft->directory, directory ? directory : "");
	bool whole = directory && !name.failed && !output.failed;
	if (whole) {
		cut(name.data);
		flatten(name.data);
		whole = cJSON_AddStringToObject(spec, "name", name.data);
	}
	if (whole && (!given || cJSON_IsNull(given) || cJSON_IsString(given))) {
		cJSON_DeleteItemFromObjectCaseSensitive(spec, "output");
		whole = cJSON_AddStringToObject(spec, "output", output.data);
	}
	free(directory);
	buffer_free(&name);
	buffer_free(&output);
	return whole ? STATUS_OK : error_set(err, STATUS_NO_MEMORY, "no memory for the spec of a job");
}

static bool is_listed(const cJSON *errors, const char *pointer)
{
	const cJSON *error;
	cJSON_ArrayForEach(error, errors)
	{
		const char *listed = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "pointer"));
		if (listed && strcmp(listed, pointer) == 0) return true;
	}
	return false;
}

/* Adds a problem of job `index`, with its settings; of each place in the study the first one. */
static enum status add_problem(const struct draft *draft, size_t index, const char *told, const char *pointer, const char *detail,
			       cJSON *errors, struct error *err)
{
	char *place = grid_pointer(draft->grid, index, pointer);
	if (!place) return error_set(err, STATUS_NO_MEMORY, "no memory for the problems of a study");
	if (!is_listed(errors, place)) problem_add(errors, "pointer", place, "%s (with %s)", detail, told);
	free(place);
	return STATUS_OK;
}

static enum status prepare(const struct api_config *config, const struct draft *draft, size_t index, const cJSON *settings,
			   const char *told, cJSON *errors, struct error *err)
{
	struct draft_job *job = &draft->jobs[index];
	const cJSON *error;
	cJSON *spec;
	enum status status = grid_spec(draft->spec, settings, &spec, err);
	if (status == STATUS_INVALID) {
		problem_add(errors, "pointer", "/spec", "%s (with %s)", err->message, told);
		return STATUS_OK;
	}
	TRY(status);
	status = name_job(draft, index, settings, told, spec, err);
	if (!status) status = config->hooks.prepare(config->hooks.context, spec, job->id, &job->prepared, err);
	cJSON_Delete(spec);
	if (status != STATUS_INVALID) return status;
	status = STATUS_OK;
	cJSON_ArrayForEach(error, job->prepared.errors)
	{
		const char *pointer = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "pointer"));
		const char *detail = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(error, "detail"));
		if (!status && pointer && detail) status = add_problem(draft, index, told, pointer, detail, errors, err);
	}
	return status;
}

/* Has every job checked. What is wrong goes to `errors`, until there is enough of it. */
static enum status prepare_all(const struct api_config *config, struct draft *draft, cJSON *errors, struct error *err)
{
	enum status status = STATUS_OK;
	for (size_t i = 0; i < draft->count && !status && cJSON_GetArraySize(errors) < MAX_PROBLEMS; i++) {
		struct draft_job *job = &draft->jobs[i];
		cJSON *settings = grid_settings(draft->grid, i);
		char *told = settings ? grid_describe(settings) : NULL;
		db_new_id(config->db, job->id);
		job->settings = settings ? cJSON_PrintUnformatted(settings) : NULL;
		status = told && job->settings ? prepare(config, draft, i, settings, told, errors, err)
					       : error_set(err, STATUS_NO_MEMORY, "no memory for the jobs of a study");
		if (status && status != STATUS_NO_MEMORY && told) error_prefix(err, "with %s", told);
		free(told);
		cJSON_Delete(settings);
	}
	return status;
}

static void insert(const struct request *request, const char *canonical, const struct draft *draft, struct response *response)
{
	const struct api_config *config = request->config;
	char *spec = cJSON_PrintUnformatted(draft->spec), *grid = cJSON_PrintUnformatted(draft->grid), id[JOB_ID_BYTES];
	struct study_submission new = {.id = draft->id,
				       .name = draft->name,
				       .spec = spec,
				       .grid = grid,
				       .idempotency_key = request->idempotency_key,
				       .request = canonical,
				       .jobs = calloc(draft->count, sizeof *new.jobs),
				       .count = draft->count};
	enum insert_outcome outcome;
	size_t claimed;
	struct error err;
	enum status status = spec && grid && new.jobs && !json_ran_out()
				     ? STATUS_OK
				     : error_set(&err, STATUS_NO_MEMORY, "no memory for a study");
	for (size_t i = 0; i < draft->count && !status; i++) {
		const struct api_submission *prepared = &draft->jobs[i].prepared;
		new.jobs[i].settings = draft->jobs[i].settings;
		new.jobs[i].job = (struct submission){.id = draft->jobs[i].id,
						      .name = prepared->name,
						      .priority = prepared->priority,
						      .spec = prepared->spec,
						      .places = prepared->places,
						      .output = prepared->output,
						      .overwrite = prepared->overwrite,
						      .expected_bytes = prepared->bytes};
	}
	if (!status) status = quota_measure(request, NULL, &err);
	if (!status) status = db_study_insert(config->db, &new, *config->queue_limit, &outcome, id, &claimed, &err);
	if (status) {
		problem_failure(response, &err);
	} else if (outcome == INSERT_OUTPUT_CLAIMED) {
		output_claimed(response, new.jobs[claimed].job.output);
	} else if (outcome == INSERT_QUEUE_FULL) {
		queue_full(request, response);
	} else if (outcome == INSERT_QUOTA_QUEUED || outcome == INSERT_QUOTA_DAY || outcome == INSERT_QUOTA_BYTES) {
		quota_spent(request, outcome, response);
	} else if (outcome == INSERT_KEY_REUSED) {
		idempotency_key_reused(response);
	} else {
		created(request, id, response);
		if (outcome == INSERT_NEW) config->hooks.queued(config->hooks.context);
	}
	free(new.jobs);
	free(spec);
	free(grid);
}

static void prepare_and_insert(const struct request *request, const cJSON *body, const char *canonical, struct response *response)
{
	const struct api_config *config = request->config;
	struct draft draft = {0};
	struct error err;
	enum status status = config->hooks.accepts(config->hooks.context, &err);
	cJSON *errors = cJSON_CreateArray();
	if (!status) read_body(body, config, &draft, errors);
	if (!status && cJSON_GetArraySize(errors) == 0) {
		db_new_id(config->db, draft.id);
		draft.directory = make_directory(&draft);
		draft.jobs = calloc(draft.count, sizeof *draft.jobs);
		status = draft.directory && draft.jobs ? prepare_all(config, &draft, errors, &err)
						       : error_set(&err, STATUS_NO_MEMORY, "no memory for the jobs of a study");
	}
	int wrong = cJSON_GetArraySize(errors);
	if (!status && wrong) {
		problem_fields(response, 422, "invalid-study",
			       "the study is wrong; of each place the first job that it concerns is told", errors);
	} else {
		cJSON_Delete(errors);
		if (status == STATUS_EXISTS)
			problem(response, 409, "output-exists", "%s", err.message);
		else if (status)
			problem_failure(response, &err);
		else
			insert(request, canonical, &draft, response);
	}
	draft_clear(&draft);
}

void studies_submit(const struct request *request, struct response *response)
{
	const char *key = request->idempotency_key;
	struct error err;
	cJSON *body;
	char id[JOB_ID_BYTES];
	enum insert_outcome outcome = INSERT_NEW;
	if (!idempotency_key_check(key, response) || !body_parse(request, &body, response)) return;
	char *canonical = json_canonical(body);
	if (!canonical) {
		error_set(&err, STATUS_NO_MEMORY, "no memory for the request");
		problem_failure(response, &err);
	} else if (key && db_study_find_key(request->config->db, key, canonical, &outcome, id, &err)) {
		problem_failure(response, &err);
	} else if (outcome == INSERT_REPLAY) {
		created(request, id, response);
	} else if (outcome == INSERT_KEY_REUSED) {
		idempotency_key_reused(response);
	} else {
		prepare_and_insert(request, body, canonical, response);
	}
	free(canonical);
	cJSON_Delete(body);
}

/* ---- read ----------------------------------------------------------------------------------------------------------------- */

void studies_list(const struct request *request, struct response *response)
{
	const char *after = query_value(request, "after");
	int64_t limit = API_DEFAULT_PAGE;
	struct study_list list;
	struct error err;
	cJSON *errors = cJSON_CreateArray();
	if (after && !job_id_is_valid(after)) problem_add(errors, "parameter", "after", "must be the id of a study");
	query_number(request, "limit", 1, API_MAX_PAGE, &limit, errors);
	if (cJSON_GetArraySize(errors)) {
		problem_fields(response, 400, "invalid-query", "the query is not understood", errors);
		return;
	}
	cJSON_Delete(errors);
	if (db_study_list(request->config->db, after, (int)limit, &list, &err)) {
		problem_failure(response, &err);
		return;
	}
	cJSON *json = cJSON_CreateObject(), *studies = cJSON_AddArrayToObject(json, "studies");
	for (size_t i = 0; i < list.count; i++)
		cJSON_AddItemToArray(studies, summary_json(&list.studies[i]));
	if (list.more)
		cJSON_AddStringToObject(json, "next", list.studies[list.count - 1].id);
	else
		cJSON_AddNullToObject(json, "next");
	study_list_clear(&list);
	response_json(response, 200, json);
}

static enum status table(const struct request *request, struct buffer *ret, struct error *err)
{
	struct study study;
	struct study_rows rows;
	cJSON *grid = NULL, *json = NULL;
	TRY(db_study_get(request->config->db, request->id, &study, &rows, err));
	enum status status = json_parse(study.grid, strlen(study.grid), "a grid", &grid, err);
	if (!status) status = study_rows_json(request->config, &rows, &json, err);
	if (!status) study_rows_csv(grid, json, ret);
	cJSON_Delete(json);
	cJSON_Delete(grid);
	study_clear(&study);
	study_rows_clear(&rows);
	return status;
}

void studies_show(const struct request *request, struct response *response)
{
	struct buffer csv = {0};
	struct error err;
	if (accept_quality(request->accept, "text/csv") <= accept_quality(request->accept, "application/json"))
		answer(request, 200, request->id, response);
	else if (table(request, &csv, &err))
		problem_failure(response, &err);
	else
		response_text(response, "text/csv; charset=utf-8", &csv);
}

/* ---- change --------------------------------------------------------------------------------------------------------------- */

typedef void job_hook(void *context, const char *job_id);

/* Calls the hook for each job of the study that is not forgotten and in one of `states`, bits. */
static void tell(const struct request *request, const struct study_rows *rows, unsigned states, job_hook *hook)
{
	for (size_t i = 0; i < rows->count; i++)
		if (!rows->rows[i].forgotten && states >> rows->rows[i].job.state & 1)
			hook(request->config->hooks.context, rows->rows[i].job.id);
}

void studies_cancel(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	enum change_outcome outcome;
	struct study study;
	struct study_rows rows;
	struct error err;
	if (db_study_cancel(config->db, request->id, &outcome, &err) ||
	    db_study_get(config->db, request->id, &study, &rows, &err)) {
		problem_failure(response, &err);
		return;
	}
	if (outcome == CHANGE_WRONG_STATE) {
		problem(response, 409, "wrong-state", "all jobs of the study have succeeded or failed; there is none to cancel");
	} else {
		tell(request, &rows, 1U << JOB_CANCELLING | 1U << JOB_CANCELLED, config->hooks.cancelled);
		answer(request, 200, request->id, response);
	}
	study_clear(&study);
	study_rows_clear(&rows);
}

/* As for a job: where there is no room to write that its jobs go, their files go first. */
static enum status delete_study(const struct request *request, const struct study_rows *rows, bool finished,
				enum change_outcome *outcome, struct error *err)
{
	const struct api_config *config = request->config;
	enum status status = db_study_delete(config->db, request->id, outcome, err);
	if (status != STATUS_NO_SPACE || !finished) return status;
	tell(request, rows, ~0U, config->hooks.deleted);
	return db_study_delete(config->db, request->id, outcome, err);
}

void studies_delete(const struct request *request, struct response *response)
{
	const struct api_config *config = request->config;
	enum change_outcome outcome;
	struct study study;
	struct study_rows rows;
	struct error err;
	bool finished = true;
	if (db_study_get(config->db, request->id, &study, &rows, &err)) {
		problem_failure(response, &err);
		return;
	}
	for (size_t i = 0; i < rows.count; i++)
		finished = finished && job_state_is_final(rows.rows[i].job.state);
	if (delete_study(request, &rows, finished, &outcome, &err)) {
		problem_failure(response, &err);
	} else if (outcome == CHANGE_WRONG_STATE) {
		problem(response, 409, "wrong-state", "a job of the study is not finished; cancel the study first");
	} else {
		tell(request, &rows, ~0U, config->hooks.deleted);
		response->status = 204;
	}
	study_clear(&study);
	study_rows_clear(&rows);
}
