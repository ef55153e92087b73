/* The queue: every change of a job's state, each one transaction together with its event. */
#include "base/clock.h"
#include "base/json.h"
#include "db/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const state_names[JOB_STATES] = {"queued", "running",   "cancelling", "pausing",
						    "paused", "succeeded", "failed",     "cancelled"};

const char *job_state_name(enum job_state state)
{
	return state_names[state];
}

bool job_state_parse(const char *name, enum job_state *ret)
{
	for (int i = 0; i < JOB_STATES; i++)
		if (strcmp(name, state_names[i]) == 0) {
			*ret = (enum job_state)i;
			return true;
		}
	return false;
}

void job_clear(struct job *job)
{
	free(job->name);
	free(job->spec);
	free(job->places);
	free(job->output);
	free(job->result);
	free(job->error_code);
	free(job->error_message);
	free(job->depends_on);
	free(job->waits_for);
	*job = (struct job){0};
}

void job_list_clear(struct job_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		job_clear(&list->jobs[i]);
	free(list->jobs);
	*list = (struct job_list){0};
}

/* ---- rows --------------------------------------------------------------------------------------------------------------- */

#define JOB_COLUMNS                                                                                                                \
	"id, state, name, priority, spec, output, overwrite, attempt, blocks_done, phase, block, blocks, fraction, eta_seconds,"   \
	" result, error_code, error_message, created_at, started_at, finished_at, places, retry_at,"                               \
	" (SELECT json_group_array(needs) FROM dependencies WHERE job_id = jobs.id),"                                              \
	" (SELECT json_group_array(needs) FROM dependencies WHERE job_id = jobs.id AND NOT done)"

void copy_text(sqlite3_stmt *statement, int column, char *to, size_t size)
{
	const unsigned char *text = sqlite3_column_text(statement, column);
	snprintf(to, size, "%s", text ? (const char *)text : "");
}

/* Fills *job from a row of JOB_COLUMNS. What a failure leaves in *job is freed by job_clear. */
static enum status job_from_row(sqlite3_stmt *row, struct job *job, struct error *err)
{
	char state[16];
	*job = (struct job){0};
	copy_text(row, 0, job->id, sizeof job->id);
	copy_text(row, 1, state, sizeof state);
	if (!job_state_parse(state, &job->state))
		return error_set(err, STATUS_INTERNAL, "job %s has the state '%s'", job->id, state);
	TRY(column_copy(row, 2, &job->name, err));
	job->priority = sqlite3_column_int(row, 3);
	TRY(column_copy(row, 4, &job->spec, err));
	TRY(column_copy(row, 5, &job->output, err));
	job->overwrite = sqlite3_column_int(row, 6);
	job->attempt = sqlite3_column_int(row, 7);
	job->blocks_done = sqlite3_column_int(row, 8);
	copy_text(row, 9, job->progress.phase, sizeof job->progress.phase);
	job->progress.block = sqlite3_column_int(row, 10);
	job->progress.blocks = sqlite3_column_int(row, 11);
	job->progress.fraction = sqlite3_column_double(row, 12);
	job->progress.eta_seconds = sqlite3_column_double(row, 13);
	TRY(column_copy(row, 14, &job->result, err));
	TRY(column_copy(row, 15, &job->error_code, err));
	TRY(column_copy(row, 16, &job->error_message, err));
	job->created_at = sqlite3_column_int64(row, 17);
	job->started_at = sqlite3_column_int64(row, 18);
	job->finished_at = sqlite3_column_int64(row, 19);
	TRY(column_copy(row, 20, &job->places, err));
	job->retry_at = sqlite3_column_int64(row, 21);
	TRY(column_copy(row, 22, &job->depends_on, err));
	return column_copy(row, 23, &job->waits_for, err);
}

/* Steps once and fills *ret when there is a row. */
static enum status job_step(struct connection *connection, sqlite3_stmt *statement, bool *ret_found, struct job *ret,
			    struct error *err)
{
	struct job job;
	if (!statement) return err->status;
	TRY(query_step(connection, statement, ret_found, err));
	if (!*ret_found) return STATUS_OK;
	enum status status = job_from_row(statement, &job, err);
	if (status)
		job_clear(&job);
	else
		*ret = job;
	return status;
}

enum status job_read(struct connection *connection, const char *id, struct job *ret, struct error *err)
{
	bool found;
	TRY(job_step(connection, query(connection, err, "SELECT " JOB_COLUMNS " FROM jobs WHERE id = ?1", "s", id), &found, ret,
		     err));
	return found ? STATUS_OK : error_set(err, STATUS_NOT_FOUND, "there is no job %s", id);
}

static enum status queue_length(struct connection *connection, int64_t *ret, struct error *err)
{
	return query_integer(connection, query(connection, err, "SELECT count(*) FROM jobs WHERE state = 'queued'", ""), ret, err);
}

/* ---- in ----------------------------------------------------------------------------------------------------------------- */

/* An earlier besad did not sort its keys. */
enum status same_request(const char *stored, const char *request, bool *ret, struct error *err)
{
	cJSON *json;
	*ret = strcmp(stored, request) == 0;
	if (*ret) return STATUS_OK;
	TRY(json_parse(stored, strlen(stored), "a request", &json, err));
	char *text = json_canonical(json);
	cJSON_Delete(json);
	if (!text) return error_set(err, STATUS_NO_MEMORY, "no memory for a request");
	*ret = strcmp(text, request) == 0;
	free(text);
	return STATUS_OK;
}

static enum status find_key(struct connection *connection, const char *key, const char *request, enum insert_outcome *outcome,
			    struct job *ret, struct error *err)
{
	bool row, same;
	char id[JOB_ID_BYTES], *stored;
	*outcome = INSERT_NEW;
	if (!key) return STATUS_OK;
	sqlite3_stmt *statement = query(connection, err, "SELECT id, request FROM jobs WHERE idempotency_key = ?1", "s", key);
	if (!statement) return err->status;
	TRY(query_step(connection, statement, &row, err));
	if (!row) return STATUS_OK;
	copy_text(statement, 0, id, sizeof id);
	TRY(column_copy(statement, 1, &stored, err));
	sqlite3_reset(statement);
	enum status status = same_request(stored, request, &same, err);
	free(stored);
	TRY(status);
	*outcome = same ? INSERT_REPLAY : INSERT_KEY_REUSED;
	return same ? job_read(connection, id, ret, err) : STATUS_OK;
}

enum status db_job_find_key(struct db *db, const char *key, const char *request, enum insert_outcome *ret_outcome, struct job *ret,
			    struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = find_key(reader, key, request, ret_outcome, ret, err);
	read_end(db, reader);
	return status;
}

enum status job_insert(struct connection *writer, const struct submission *new, int64_t queue_limit, enum insert_outcome *outcome,
		       struct job *ret, struct error *err)
{
	bool claimed, over;
	int64_t queued = 0;
	TRY(find_key(writer, new->idempotency_key, new->request, outcome, ret, err));
	if (*outcome != INSERT_NEW) return STATUS_OK;
	TRY(dependencies_check(writer, new, outcome, ret, err));
	if (*outcome != INSERT_NEW) return STATUS_OK;
	TRY(output_is_claimed(writer, new->output, &claimed, err));
	TRY(queue_length(writer, &queued, err));
	TRY(quota_queued(writer, &over, err));
	if (claimed && !new->overwrite)
		*outcome = INSERT_OUTPUT_CLAIMED;
	else if (queued >= queue_limit)
		*outcome = INSERT_QUEUE_FULL;
	else if (over)
		*outcome = INSERT_QUOTA_QUEUED;
	if (*outcome != INSERT_NEW) return STATUS_OK;
	TRY(quota_bytes(writer, new->expected_bytes, NULL, &over, err));
	if (over) {
		*outcome = INSERT_QUOTA_BYTES;
		return STATUS_OK;
	}
	TRY(execute(writer, err, NULL,
		    "INSERT INTO jobs (id, state, name, priority, spec, output, overwrite, idempotency_key, request, created_at,"
		    " places, queued_by, expected_bytes) VALUES (?1, 'queued', ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
		    "ssissississi", new->id, new->name, (int64_t) new->priority, new->spec, new->output, (int64_t) new->overwrite,
		    new->idempotency_key, new->idempotency_key ? new->request : NULL, unix_milliseconds(), new->places, audit_who(),
		    new->expected_bytes));
	TRY(dependencies_insert(writer, new, err));
	TRY(event_insert(writer, new->id, "job.queued", "{\"reason\":\"submitted\"}", err));
	return job_read(writer, new->id, ret, err);
}

/* A job by itself, not of a study. */
static enum status insert_alone(struct connection *writer, const struct submission *new, int64_t queue_limit,
				enum insert_outcome *outcome, struct job *ret, struct error *err)
{
	bool over;
	TRY(find_key(writer, new->idempotency_key, new->request, outcome, ret, err));
	if (*outcome != INSERT_NEW) return STATUS_OK;
	TRY(quota_day(writer, 1, &over, err));
	if (over) {
		*outcome = INSERT_QUOTA_DAY;
		return STATUS_OK;
	}
	TRY(job_insert(writer, new, queue_limit, outcome, ret, err));
	return *outcome == INSERT_NEW ? audit_change(writer, new->id, 1, err) : STATUS_OK;
}

enum status db_job_insert(struct db *db, const struct submission *new, int64_t queue_limit, enum insert_outcome *ret_outcome,
			  struct job *ret, struct error *err)
{
	struct job job = {0};
	TRY(write_begin(db, err));
	enum status status = insert_alone(&db->writer, new, queue_limit, ret_outcome, &job, err);
	status = write_end(db, status, !status && *ret_outcome == INSERT_NEW ? new->id : NULL, err);
	if (status)
		job_clear(&job);
	else
		*ret = job;
	return status;
}

/* ---- out ---------------------------------------------------------------------------------------------------------------- */

enum status db_job_get(struct db *db, const char *id, struct job *ret, struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = job_read(reader, id, ret, err);
	read_end(db, reader);
	return status;
}

#define LIST_PAGE " AND id < ?1 ORDER BY id DESC LIMIT ?2"
#define HAS_METADATA                                                                                                               \
	"id IN (SELECT m.job_id FROM json_each(?4) wanted JOIN metadata m ON m.key = wanted.key AND m.value = wanted.value"        \
	" GROUP BY m.job_id HAVING count(*) = (SELECT count(*) FROM json_each(?4)))"

static sqlite3_stmt *list_query(struct connection *reader, const struct job_filter *filter, const char *after, int limit,
				struct error *err)
{
	const char *before = after ? after : "~"; /* larger than any id */
	const char *state = filter->state < 0 ? NULL : job_state_name((enum job_state)filter->state);
	if (filter->metadata)
		return query(reader, err,
			     "SELECT " JOB_COLUMNS " FROM jobs WHERE (?3 IS NULL OR state = ?3) AND " HAS_METADATA LIST_PAGE,
			     "siss", before, (int64_t)limit + 1, state, filter->metadata);
	if (state)
		return query(reader, err, "SELECT " JOB_COLUMNS " FROM jobs WHERE state = ?3" LIST_PAGE, "sis", before,
			     (int64_t)limit + 1, state);
	return query(reader, err, "SELECT " JOB_COLUMNS " FROM jobs WHERE true" LIST_PAGE, "si", before, (int64_t)limit + 1);
}

static enum status read_list(struct connection *reader, const struct job_filter *filter, const char *after, int limit,
			     struct job_list *list, struct error *err)
{
	list->jobs = calloc((size_t)limit, sizeof *list->jobs);
	if (!list->jobs) return error_set(err, STATUS_NO_MEMORY, "no memory for %d jobs", limit);
	sqlite3_stmt *statement = list_query(reader, filter, after, limit, err);
	if (!statement) return err->status;
	for (size_t bytes = 0;;) {
		bool row;
		TRY(query_step(reader, statement, &row, err));
		if (!row) return STATUS_OK;
		if (list->count == (size_t)limit || bytes > DB_PAGE_BYTES) {
			list->more = true;
			return STATUS_OK;
		}
		struct job *job = &list->jobs[list->count++];
		TRY(job_from_row(statement, job, err));
		bytes += strlen(job->spec) + (job->result ? strlen(job->result) : 0);
	}
}

enum status db_job_list(struct db *db, const struct job_filter *filter, const char *after, int limit, struct job_list *ret,
			struct error *err)
{
	struct connection *reader;
	struct job_list list = {0};
	TRY(read_begin(db, &reader, err));
	enum status status = read_list(reader, filter, after, limit, &list, err);
	read_end(db, reader);
	if (status)
		job_list_clear(&list);
	else
		*ret = list;
	return status;
}

static enum status read_counts(struct connection *reader, int64_t counts[JOB_STATES], struct error *err)
{
	sqlite3_stmt *statement = query(reader, err, "SELECT state, count(*) FROM jobs GROUP BY state", "");
	if (!statement) return err->status;
	for (;;) {
		bool row;
		char name[16];
		enum job_state state;
		TRY(query_step(reader, statement, &row, err));
		if (!row) return STATUS_OK;
		copy_text(statement, 0, name, sizeof name);
		if (job_state_parse(name, &state)) counts[state] = sqlite3_column_int64(statement, 1);
	}
}

enum status db_job_counts(struct db *db, int64_t ret[JOB_STATES], struct error *err)
{
	struct connection *reader;
	int64_t counts[JOB_STATES] = {0};
	TRY(read_begin(db, &reader, err));
	enum status status = read_counts(reader, counts, err);
	read_end(db, reader);
	if (!status) memcpy(ret, counts, sizeof counts);
	return status;
}

/* ---- changes of state --------------------------------------------------------------------------------------------------- */

static enum status claim(struct connection *writer, bool *ret_found, struct job *job, struct error *err)
{
	char data[64];
	TRY(job_step(writer,
		     query(writer, err,
			   "UPDATE jobs SET state = 'running', attempt = attempt + 1, retry_at = 0,"
			   " started_at = CASE started_at WHEN 0 THEN ?1 ELSE started_at END"
			   " WHERE id = (SELECT id FROM jobs INDEXED BY jobs_to_claim WHERE state = 'queued' AND blockers = 0 AND "
			   "retry_at <= ?1"
			   " ORDER BY priority DESC, id LIMIT 1) AND NOT EXISTS (SELECT 1 FROM drain)"
			   " RETURNING " JOB_COLUMNS,
			   "i", unix_milliseconds()),
		     ret_found, job, err));
	if (!*ret_found) return STATUS_OK;
	snprintf(data, sizeof data, "{\"attempt\":%d,\"blocks_done\":%d}", job->attempt, job->blocks_done);
	return event_insert(writer, job->id, "job.started", data, err);
}

enum status db_job_claim(struct db *db, bool *ret_found, struct job *ret, struct error *err)
{
	struct job job = {0};
	bool found = false;
	TRY(write_begin(db, err));
	enum status status = claim(&db->writer, &found, &job, err);
	status = write_end(db, status, found ? job.id : NULL, err);
	if (status) {
		job_clear(&job);
		return status;
	}
	*ret_found = found;
	if (found) *ret = job;
	return STATUS_OK;
}

enum status db_job_next_retry(struct db *db, int64_t *ret, struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = query_integer(
		reader, query(reader, err, "SELECT min(retry_at) FROM jobs WHERE state = 'queued' AND retry_at > 0", ""), ret, err);
	read_end(db, reader);
	return status;
}

/* A change of one job, run inside a write transaction after its row was read. On CHANGE_DONE it has written what there is to
 * write, and says in *ret_event whether an event was appended. */
typedef enum status change_fn(struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *ret_outcome,
			      bool *ret_event, struct error *err);

static enum status change_once(struct db *db, const char *id, change_fn *fn, int64_t limit, enum change_outcome *ret_outcome,
			       struct job *ret, struct error *err)
{
	struct job job = {0};
	bool event = false;
	TRY(write_begin(db, err));
	int64_t before = sqlite3_total_changes64(db->writer.handle); /* to cancel what is cancelled changes nothing */
	enum status status = job_read(&db->writer, id, &job, err);
	if (!status) status = fn(&db->writer, &job, limit, ret_outcome, &event, err);
	if (!status && *ret_outcome == CHANGE_DONE && sqlite3_total_changes64(db->writer.handle) != before)
		status = audit_change(&db->writer, id, 1, err);
	job_clear(&job);
	if (!status && ret) status = job_read(&db->writer, id, &job, err);
	status = write_end(db, status, event ? id : NULL, err);
	if (status || !ret)
		job_clear(&job);
	else
		*ret = job;
	return status;
}

/* The same, worth the room that is kept (db_set_relief); what asks for work anew is not, and calls change_once. */
static enum status change(struct db *db, const char *id, change_fn *fn, int64_t limit, enum change_outcome *ret_outcome,
			  struct job *ret, struct error *err)
{
	enum status status;
	unsigned reliefs = write_reliefs(db);
	do
		status = change_once(db, id, fn, limit, ret_outcome, ret, err);
	while (write_again(db, status, &reliefs));
	return status;
}

static enum status set_cancelled(struct connection *writer, const char *id, struct error *err)
{
	TRY(execute(writer, err, NULL, "UPDATE jobs SET state = 'cancelled', finished_at = ?2 WHERE id = ?1", "si", id,
		    unix_milliseconds()));
	TRY(event_insert(writer, id, "job.cancelled", "{}", err));
	return dependants_fail(writer, id, JOB_CANCELLED, err);
}

static enum status set_queued(struct connection *writer, const char *id, const char *data, struct error *err)
{
	TRY(execute(writer, err, NULL,
		    "UPDATE jobs SET state = 'queued', finished_at = 0, error_code = NULL, error_message = NULL, retry_at = 0"
		    " WHERE id = ?1",
		    "s", id));
	return event_insert(writer, id, "job.queued", data, err);
}

enum status job_cancel(struct connection *writer, const struct job *job, enum change_outcome *outcome, bool *event,
		       struct error *err)
{
	*outcome = CHANGE_DONE;
	switch (job->state) {
	case JOB_QUEUED:
	case JOB_PAUSED:
		*event = true;
		return set_cancelled(writer, job->id, err);
	case JOB_RUNNING:
	case JOB_PAUSING:
		return execute(writer, err, NULL, "UPDATE jobs SET state = 'cancelling' WHERE id = ?1", "s", job->id);
	case JOB_CANCELLING:
	case JOB_CANCELLED:
		return STATUS_OK;
	default:
		*outcome = CHANGE_WRONG_STATE;
		return STATUS_OK;
	}
}

static enum status cancel(struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *outcome,
			  bool *event, struct error *err)
{
	(void)limit;
	return job_cancel(writer, job, outcome, event, err);
}

enum status db_job_cancel(struct db *db, const char *id, enum change_outcome *ret_outcome, struct job *ret, struct error *err)
{
	return change(db, id, cancel, 0, ret_outcome, ret, err);
}

static enum status set_paused(struct connection *writer, const char *id, struct error *err)
{
	TRY(execute(writer, err, NULL, "UPDATE jobs SET state = 'paused' WHERE id = ?1", "s", id));
	return event_insert(writer, id, "job.paused", "{}", err);
}

static enum status pause_job(struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *outcome,
			     bool *event, struct error *err)
{
	(void)limit;
	*outcome = CHANGE_DONE;
	switch (job->state) {
	case JOB_QUEUED:
		*event = true;
		return set_paused(writer, job->id, err);
	case JOB_RUNNING:
		return execute(writer, err, NULL, "UPDATE jobs SET state = 'pausing' WHERE id = ?1", "s", job->id);
	case JOB_PAUSING:
	case JOB_PAUSED:
		return STATUS_OK;
	default:
		*outcome = CHANGE_WRONG_STATE;
		return STATUS_OK;
	}
}

enum status db_job_pause(struct db *db, const char *id, enum change_outcome *ret_outcome, struct job *ret, struct error *err)
{
	return change(db, id, pause_job, 0, ret_outcome, ret, err);
}

static enum status resume(struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *outcome,
			  bool *event, struct error *err)
{
	int64_t queued = 0;
	*outcome = CHANGE_DONE;
	switch (job->state) {
	case JOB_PAUSED:
		TRY(queue_length(writer, &queued, err));
		if (queued >= limit) {
			*outcome = CHANGE_QUEUE_FULL;
			return STATUS_OK;
		}
		*event = true;
		return set_queued(writer, job->id, "{\"reason\":\"resumed\"}", err);
	case JOB_PAUSING:
		return execute(writer, err, NULL, "UPDATE jobs SET state = 'running' WHERE id = ?1", "s", job->id);
	case JOB_QUEUED:
	case JOB_RUNNING:
		return STATUS_OK;
	default:
		*outcome = CHANGE_WRONG_STATE;
		return STATUS_OK;
	}
}

enum status db_job_resume(struct db *db, const char *id, int64_t queue_limit, enum change_outcome *ret_outcome, struct job *ret,
			  struct error *err)
{
	return change_once(db, id, resume, queue_limit, ret_outcome, ret, err);
}

static enum status retry(struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *outcome, bool *event,
			 struct error *err)
{
	bool claimed, lost, over, large;
	int64_t queued = 0;
	TRY(quota_queued(writer, &over, err));
	TRY(quota_bytes(writer, 0, job->id, &large, err));
	TRY(output_is_claimed(writer, job->output, &claimed, err));
	TRY(queue_length(writer, &queued, err));
	TRY(dependencies_are_lost(writer, job->id, &lost, err));
	*outcome = CHANGE_DONE;
	if (job->state != JOB_FAILED && job->state != JOB_CANCELLED)
		*outcome = CHANGE_WRONG_STATE;
	else if (lost)
		*outcome = CHANGE_DEPENDENCY;
	else if (claimed && !job->overwrite)
		*outcome = CHANGE_OUTPUT_CLAIMED;
	else if (queued >= limit)
		*outcome = CHANGE_QUEUE_FULL;
	else if (over)
		*outcome = CHANGE_QUOTA;
	else if (large)
		*outcome = CHANGE_QUOTA_BYTES;
	if (*outcome != CHANGE_DONE) return STATUS_OK;
	*event = true;
	TRY(execute(writer, err, NULL,
		    "UPDATE jobs SET crashes = 0, retries = 0, queued_by = coalesce(?2, queued_by) WHERE id = ?1", "ss", job->id,
		    audit_who()));
	return set_queued(writer, job->id, "{\"reason\":\"retried\"}", err);
}

enum status db_job_retry(struct db *db, const char *id, int64_t queue_limit, enum change_outcome *ret_outcome, struct job *ret,
			 struct error *err)
{
	return change_once(db, id, retry, queue_limit, ret_outcome, ret, err);
}

static enum status delete (struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *outcome,
			   bool *event, struct error *err) {
	(void)limit; *outcome = job_state_is_final(job->state) ? CHANGE_DONE : CHANGE_WRONG_STATE;
	if (*outcome != CHANGE_DONE) return STATUS_OK;
	*event = true;
	return execute(writer, err, NULL, "DELETE FROM jobs WHERE id = ?1", "s", job->id);
}

enum status db_job_delete(struct db *db, const char *id, enum change_outcome *ret_outcome, struct error *err)
{
	return change(db, id, delete, 0, ret_outcome, NULL, err);
}

static enum status interrupt(struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *outcome,
			     bool *event, struct error *err)
{
	(void)limit;
	*outcome = CHANGE_DONE;
	*event = true;
	if (job->state == JOB_CANCELLING) return set_cancelled(writer, job->id, err);
	if (job->state == JOB_PAUSING) return set_paused(writer, job->id, err);
	if (job->state == JOB_RUNNING) return set_queued(writer, job->id, "{\"reason\":\"interrupted\"}", err);
	return error_set(err, STATUS_INTERNAL, "job %s is %s, not running", job->id, job_state_name(job->state));
}

/* As interrupt, of an attempt that the process has survived: it breaks the row of those that it has not. */
static enum status give_back(struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *outcome,
			     bool *event, struct error *err)
{
	TRY(execute(writer, err, NULL, "UPDATE jobs SET crashes = 0 WHERE id = ?1", "s", job->id));
	return interrupt(writer, job, limit, outcome, event, err);
}

enum status db_job_requeue(struct db *db, const char *id, struct error *err)
{
	enum change_outcome outcome;
	return change(db, id, give_back, 0, &outcome, NULL, err);
}

static enum status finish(struct connection *writer, const char *id, enum job_state state, const char *result, const char *code,
			  const char *message, const char *data, struct error *err)
{
	char type[32];
	int changes;
	TRY(execute(writer, err, &changes,
		    "UPDATE jobs SET state = ?2, result = ?3, error_code = ?4, error_message = ?5, finished_at = ?6"
		    " WHERE id = ?1 AND state IN ('running', 'cancelling', 'pausing')",
		    "sssssi", id, job_state_name(state), result, code, message, unix_milliseconds()));
	if (changes == 0) return error_set(err, STATUS_INTERNAL, "job %s is not running", id);
	if (state == JOB_SUCCEEDED)
		TRY(execute(writer, err, NULL, "UPDATE jobs SET fraction = 1, eta_seconds = 0 WHERE id = ?1", "s", id));
	snprintf(type, sizeof type, "job.%s", job_state_name(state));
	TRY(event_insert(writer, id, type, data, err));
	return state == JOB_SUCCEEDED ? dependencies_met(writer, id, err) : dependants_fail(writer, id, state, err);
}

/* Made by SQLite so that every character is escaped as it must be. */
enum status failure_json(struct connection *writer, const char *code, const char *message, char **ret, struct error *err)
{
	bool row;
	sqlite3_stmt *statement = query(writer, err, "SELECT json_object('code', ?1, 'message', ?2)", "ss", code, message);
	if (!statement) return err->status;
	TRY(query_step(writer, statement, &row, err));
	return column_copy(statement, 0, ret, err);
}

static enum status finish_once(struct db *db, const char *id, enum job_state state, const char *result, const char *code,
			       const char *message, struct error *err)
{
	char *failure = NULL;
	TRY(write_begin(db, err));
	enum status status = state == JOB_FAILED ? failure_json(&db->writer, code, message, &failure, err) : STATUS_OK;
	const char *data = failure ? failure : result ? result : "{}";
	if (!status) status = finish(&db->writer, id, state, result, code, message, data, err);
	free(failure);
	return write_end(db, status, id, err);
}

enum status db_job_finish(struct db *db, const char *id, enum job_state state, const char *result, const char *code,
			  const char *message, struct error *err)
{
	enum status status;
	unsigned reliefs = write_reliefs(db);
	do
		status = finish_once(db, id, state, result, code, message, err);
	while (write_again(db, status, &reliefs));
	return status;
}

/* The failures in a row that this one makes. */
static enum status count_failures(struct connection *writer, const char *id, int64_t *ret, struct error *err)
{
	return query_integer(writer,
			     query(writer, err,
				   "SELECT CASE WHEN EXISTS (SELECT 1 FROM events WHERE job_id = ?1 AND type = 'block.finished'"
				   " AND id > (SELECT max(id) FROM events WHERE job_id = ?1 AND type = 'job.started'))"
				   " THEN 1 ELSE retries + 1 END FROM jobs WHERE id = ?1",
				   "s", id),
			     ret, err);
}

static int64_t retry_delay(int64_t first, int64_t failures)
{
	const int64_t longest = 3600 * 1000;
	int64_t delay = first;
	while (--failures > 0 && delay < longest)
		delay = 2 * delay < longest ? 2 * delay : longest;
	return delay;
}

static enum status try_later(struct connection *writer, const char *id, const char *code, const char *message, int64_t failures,
			     int64_t retry_at, struct error *err)
{
	bool row;
	char *data;
	TRY(execute(writer, err, NULL, "UPDATE jobs SET state = 'queued', crashes = 0, retries = ?2, retry_at = ?3 WHERE id = ?1",
		    "sii", id, failures, retry_at));
	sqlite3_stmt *statement = query(writer, err,
					"SELECT json_object('reason', 'failed', 'code', ?1, 'message', ?2, 'retry_at',"
					" strftime('%Y-%m-%dT%H:%M:%S', ?3 / 1000, 'unixepoch') || printf('.%03dZ', ?3 % 1000))",
					"ssi", code, message, retry_at);
	if (!statement) return err->status;
	TRY(query_step(writer, statement, &row, err));
	TRY(column_copy(statement, 0, &data, err));
	enum status status = event_insert(writer, id, "job.queued", data, err);
	free(data);
	return status;
}

static enum status fail(struct connection *writer, const char *id, const char *code, const char *message,
			const struct retry_rule *rule, int64_t *ret_retry_at, struct error *err)
{
	struct job job;
	int64_t failures = 0;
	char *data;
	*ret_retry_at = 0;
	TRY(job_read(writer, id, &job, err));
	bool running = job.state == JOB_RUNNING;
	job_clear(&job);
	TRY(count_failures(writer, id, &failures, err));
	if (running && failures <= rule->most) {
		*ret_retry_at = unix_milliseconds() + retry_delay(rule->first_delay, failures);
		return try_later(writer, id, code, message, failures, *ret_retry_at, err);
	}
	TRY(failure_json(writer, code, message, &data, err));
	enum status status = finish(writer, id, JOB_FAILED, NULL, code, message, data, err);
	free(data);
	return status;
}

static enum status fail_once(struct db *db, const char *id, const char *code, const char *message, const struct retry_rule *rule,
			     int64_t *ret_retry_at, struct error *err)
{
	TRY(write_begin(db, err));
	return write_end(db, fail(&db->writer, id, code, message, rule, ret_retry_at, err), id, err);
}

enum status db_job_fail(struct db *db, const char *id, const char *code, const char *message, const struct retry_rule *rule,
			int64_t *ret_retry_at, struct error *err)
{
	enum status status;
	unsigned reliefs = write_reliefs(db);
	do
		status = fail_once(db, id, code, message, rule, ret_retry_at, err);
	while (write_again(db, status, &reliefs));
	return status;
}

/* ---- after the process has ended ----------------------------------------------------------------------------------------- */

/* Has the last attempt left more than the one before it: a block, an evaluation, a step of the tune? */
static enum status count_crash(struct connection *writer, const char *id, int64_t *ret_crashes, struct error *err)
{
	return query_integer(writer,
			     query(writer, err,
				   "WITH begun AS (SELECT max(id) AS id FROM events WHERE job_id = ?1 AND type = 'job.started'),"
				   " tune AS (SELECT id, json_extract(data, '$.step') AS step FROM events WHERE job_id = ?1 AND "
				   "type = 'tune.step')"
				   " UPDATE jobs SET crashes = CASE WHEN"
				   "  EXISTS (SELECT 1 FROM events WHERE job_id = ?1 AND id > (SELECT id FROM begun)"
				   "   AND type IN ('block.finished', 'eval.finished', 'task.finished'))"
				   "  OR coalesce((SELECT max(step) FROM tune WHERE id > (SELECT id FROM begun)), 0)"
				   "   > coalesce((SELECT max(step) FROM tune WHERE id < (SELECT id FROM begun)), 0)"
				   " THEN 0 ELSE crashes + 1 END WHERE id = ?1 RETURNING crashes",
				   "s", id),
			     ret_crashes, err);
}

static enum status fail_crashed(struct connection *writer, const char *id, int64_t crashes, struct error *err)
{
	char message[320];
	char *data;
	snprintf(message, sizeof message,
		 "besad died %lld times in a row while it ran this job, and finished no block in between: its log, and the "
		 "kernel's where it "
		 "was killed for its memory, say more. A retry goes on from the last finished block",
		 (long long)crashes);
	TRY(failure_json(writer, "crashed", message, &data, err));
	enum status status = finish(writer, id, JOB_FAILED, NULL, "crashed", message, data, err);
	free(data);
	return status;
}

/* `limit` is how many attempts may die in a row. */
static enum status recover(struct connection *writer, const struct job *job, int64_t limit, enum change_outcome *outcome,
			   bool *event, struct error *err)
{
	int64_t crashes = 0;
	if (job->state != JOB_RUNNING) return interrupt(writer, job, limit, outcome, event, err);
	TRY(count_crash(writer, job->id, &crashes, err));
	if (limit == 0 || crashes < limit) return interrupt(writer, job, limit, outcome, event, err);
	*outcome = CHANGE_DONE;
	*event = true;
	return fail_crashed(writer, job->id, crashes, err);
}

static enum status recover_one(struct db *db, const char *id, bool died, int64_t max_attempts, struct recovery *recovery,
			       struct error *err)
{
	enum change_outcome outcome;
	struct job job;
	TRY(change(db, id, died ? recover : give_back, max_attempts, &outcome, &job, err));
	if (job.state == JOB_FAILED) {
		memcpy(recovery->id, job.id, sizeof recovery->id);
		recovery->failed++;
	} else {
		recovery->requeued++;
	}
	job_clear(&job);
	return STATUS_OK;
}

enum status db_recover(struct db *db, bool died, int64_t max_attempts, struct recovery *ret, struct error *err)
{
	struct recovery recovery = {0};
	for (;;) {
		struct connection *reader;
		struct job job;
		bool found = false;
		TRY(read_begin(db, &reader, err));
		enum status status = job_step(
			reader,
			query(reader, err,
			      "SELECT " JOB_COLUMNS " FROM jobs WHERE state IN ('running', 'cancelling', 'pausing') LIMIT 1", ""),
			&found, &job, err);
		read_end(db, reader);
		TRY(status);
		if (!found) {
			*ret = recovery;
			return STATUS_OK;
		}
		status = recover_one(db, job.id, died, max_attempts, &recovery, err);
		job_clear(&job);
		TRY(status);
	}
}

enum status db_job_set_progress(struct db *db, const char *id, const struct job_progress *progress, struct error *err)
{
	TRY(write_begin(db, err));
	return write_end(db, progress_write(&db->writer, id, progress, err), NULL, err);
}
