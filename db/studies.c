#include "db/studies.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "db/internal.h"

void study_clear(struct study *study)
{
	free(study->name);
	free(study->spec);
	free(study->grid);
	*study = (struct study){0};
}

void study_list_clear(struct study_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		study_clear(&list->studies[i]);
	free(list->studies);
	*list = (struct study_list){0};
}

void study_rows_clear(struct study_rows *rows)
{
	for (size_t i = 0; i < rows->count; i++) {
		free(rows->rows[i].settings);
		job_clear(&rows->rows[i].job);
	}
	free(rows->rows);
	*rows = (struct study_rows){0};
}

/* ---- in ----------------------------------------------------------------------------------------------------------------- */

static enum status find_key(struct connection *connection, const char *key, const char *request, enum insert_outcome *outcome,
			    char ret_id[JOB_ID_BYTES], struct error *err)
{
	bool row, same;
	char *stored;
	*outcome = INSERT_NEW;
	if (!key) return STATUS_OK;
	sqlite3_stmt *statement = query(connection, err, "SELECT id, request FROM studies WHERE idempotency_key = ?1", "s", key);
	if (!statement) return err->status;
	TRY(query_step(connection, statement, &row, err));
	if (!row) return STATUS_OK;
	copy_text(statement, 0, ret_id, JOB_ID_BYTES);
	TRY(column_copy(statement, 1, &stored, err));
	sqlite3_reset(statement);
	enum status status = same_request(stored, request, &same, err);
	free(stored);
	TRY(status);
	*outcome = same ? INSERT_REPLAY : INSERT_KEY_REUSED;
	return STATUS_OK;
}

enum status db_study_find_key(struct db *db, const char *key, const char *request, enum insert_outcome *ret_outcome,
			      char ret_id[JOB_ID_BYTES], struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = find_key(reader, key, request, ret_outcome, ret_id, err);
	read_end(db, reader);
	return status;
}

static enum status insert_job(struct connection *writer, const struct study_submission *new, size_t index, int64_t queue_limit,
			      enum insert_outcome *outcome, struct error *err)
{
	const struct submission *submission = &new->jobs[index].job;
	struct job job = {0};
	TRY(job_insert(writer, submission, queue_limit, outcome, &job, err));
	job_clear(&job);
	if (*outcome != INSERT_NEW) return STATUS_OK;
	return execute(writer, err, NULL,
		       "INSERT INTO study_jobs (study_id, number, job_id, settings, output) VALUES (?1, ?2, ?3, ?4, ?5)", "sisss",
		       new->id, (int64_t)index + 1, submission->id, new->jobs[index].settings, submission->output);
}

static enum status insert(struct connection *writer, const struct study_submission *new, int64_t queue_limit,
			  enum insert_outcome *outcome, char ret_id[JOB_ID_BYTES], size_t *ret_claimed, struct error *err)
{
	bool over;
	TRY(find_key(writer, new->idempotency_key, new->request, outcome, ret_id, err));
	if (*outcome != INSERT_NEW) return STATUS_OK;
	TRY(quota_day(writer, (int64_t) new->count, &over, err));
	if (over) {
		*outcome = INSERT_QUOTA_DAY;
		return STATUS_OK;
	}
	TRY(execute(writer, err, NULL,
		    "INSERT INTO studies (id, name, spec, grid, idempotency_key, request, created_at) VALUES (?1, ?2, ?3, ?4, ?5,"
		    " ?6, ?7)",
		    "ssssssi", new->id, new->name, new->spec, new->grid, new->idempotency_key,
		    new->idempotency_key ? new->request : NULL, unix_milliseconds()));
	for (size_t i = 0; i < new->count; i++) {
		TRY(insert_job(writer, new, i, queue_limit, outcome, err));
		if (*outcome == INSERT_NEW) continue;
		*ret_claimed = i;
		return STATUS_OK;
	}
	memcpy(ret_id, new->id, JOB_ID_BYTES);
	return audit_change(writer, new->id, (int64_t) new->count, err);
}

enum status db_study_insert(struct db *db, const struct study_submission *new, int64_t queue_limit,
			    enum insert_outcome *ret_outcome, char ret_id[JOB_ID_BYTES], size_t *ret_claimed, struct error *err)
{
	enum insert_outcome outcome = INSERT_NEW;
	struct error undone;
	TRY(write_begin(db, err));
	enum status status = insert(&db->writer, new, queue_limit, &outcome, ret_id, ret_claimed, err);
	if (!status && outcome != INSERT_NEW) /* what it has written of the study goes */
		write_end(db, STATUS_EXISTS, NULL, &undone);
	else
		TRY(write_end(db, status, NULL, err));
	*ret_outcome = outcome;
	for (size_t i = 0; outcome == INSERT_NEW && db->committed && i < new->count; i++)
		db->committed(db->context, new->jobs[i].job.id);
	return STATUS_OK;
}

/* ---- out ---------------------------------------------------------------------------------------------------------------- */

static enum status read_counts(struct connection *connection, struct study *study, struct error *err)
{
	sqlite3_stmt *statement = query(connection, err,
					"SELECT coalesce(j.state, s.state), count(*) FROM study_jobs s LEFT JOIN jobs j"
					" ON j.id = s.job_id WHERE s.study_id = ?1 GROUP BY 1",
					"s", study->id);
	if (!statement) return err->status;
	for (;;) {
		bool row;
		char name[16];
		enum job_state state;
		TRY(query_step(connection, statement, &row, err));
		if (!row) return STATUS_OK;
		copy_text(statement, 0, name, sizeof name);
		if (!job_state_parse(name, &state))
			return error_set(err, STATUS_INTERNAL, "study %s has a job of the state '%s'", study->id, name);
		study->counts[state] = sqlite3_column_int64(statement, 1);
	}
}

static enum status read_study(struct connection *connection, const char *id, struct study *study, struct error *err)
{
	bool row;
	sqlite3_stmt *statement =
		query(connection, err, "SELECT id, name, created_at, spec, grid FROM studies WHERE id = ?1", "s", id);
	if (!statement) return err->status;
	TRY(query_step(connection, statement, &row, err));
	if (!row) return error_set(err, STATUS_NOT_FOUND, "there is no study %s", id);
	copy_text(statement, 0, study->id, sizeof study->id);
	study->created_at = sqlite3_column_int64(statement, 2);
	TRY(column_copy(statement, 1, &study->name, err));
	TRY(column_copy(statement, 3, &study->spec, err));
	TRY(column_copy(statement, 4, &study->grid, err));
	sqlite3_reset(statement);
	return read_counts(connection, study, err);
}

static enum status row_from(sqlite3_stmt *statement, struct study_row *row, struct error *err)
{
	char state[16];
	struct job *job = &row->job;
	copy_text(statement, 0, job->id, sizeof job->id);
	copy_text(statement, 1, state, sizeof state);
	if (!job_state_parse(state, &job->state))
		return error_set(err, STATUS_INTERNAL, "job %s has the state '%s'", job->id, state);
	row->forgotten = sqlite3_column_int(statement, 2);
	job->progress.fraction = sqlite3_column_double(statement, 3);
	TRY(column_copy(statement, 4, &row->settings, err));
	TRY(column_copy(statement, 5, &job->output, err));
	TRY(column_copy(statement, 6, &job->result, err));
	TRY(column_copy(statement, 7, &job->error_code, err));
	return column_copy(statement, 8, &job->error_message, err);
}

static enum status read_rows(struct connection *connection, const struct study *study, struct study_rows *rows, struct error *err)
{
	size_t room = 0;
	for (int i = 0; i < JOB_STATES; i++)
		room += (size_t)study->counts[i];
	rows->rows = calloc(room ? room : 1, sizeof *rows->rows);
	if (!rows->rows) return error_set(err, STATUS_NO_MEMORY, "no memory for the jobs of study %s", study->id);
	sqlite3_stmt *statement =
		query(connection, err,
		      "SELECT s.job_id, coalesce(j.state, s.state), j.id IS NULL, coalesce(j.fraction, s.state = 'succeeded'),"
		      " s.settings, s.output, coalesce(j.result, s.result), coalesce(j.error_code, s.error_code),"
		      " coalesce(j.error_message, s.error_message)"
		      " FROM study_jobs s LEFT JOIN jobs j ON j.id = s.job_id WHERE s.study_id = ?1 ORDER BY s.number",
		      "s", study->id);
	if (!statement) return err->status;
	while (rows->count < room) {
		bool row;
		TRY(query_step(connection, statement, &row, err));
		if (!row) return STATUS_OK;
		TRY(row_from(statement, &rows->rows[rows->count++], err));
	}
	sqlite3_reset(statement);
	return STATUS_OK;
}

enum status db_study_get(struct db *db, const char *id, struct study *ret, struct study_rows *ret_rows, struct error *err)
{
	struct connection *reader;
	struct study study = {0};
	struct study_rows rows = {0};
	TRY(read_begin(db, &reader, err));
	enum status status = read_study(reader, id, &study, err);
	if (!status) status = read_rows(reader, &study, &rows, err);
	read_end(db, reader);
	if (status) {
		study_clear(&study);
		study_rows_clear(&rows);
		return status;
	}
	*ret = study;
	*ret_rows = rows;
	return STATUS_OK;
}

static enum status read_list(struct connection *reader, const char *after, int limit, struct study_list *list, struct error *err)
{
	list->studies = calloc((size_t)limit, sizeof *list->studies);
	if (!list->studies) return error_set(err, STATUS_NO_MEMORY, "no memory for %d studies", limit);
	sqlite3_stmt *statement =
		query(reader, err, "SELECT id, name, created_at FROM studies WHERE id < ?1 ORDER BY id DESC LIMIT ?2", "si",
		      after ? after : "~", (int64_t)limit + 1); /* ~ is larger than any id */
	if (!statement) return err->status;
	for (;;) {
		bool row;
		TRY(query_step(reader, statement, &row, err));
		if (!row) break;
		if (list->count == (size_t)limit) {
			list->more = true;
			break;
		}
		struct study *study = &list->studies[list->count++];
		copy_text(statement, 0, study->id, sizeof study->id);
		study->created_at = sqlite3_column_int64(statement, 2);
		TRY(column_copy(statement, 1, &study->name, err));
	}
	for (size_t i = 0; i < list->count; i++)
		TRY(read_counts(reader, &list->studies[i], err));
	return STATUS_OK;
}

enum status db_study_list(struct db *db, const char *after, int limit, struct study_list *ret, struct error *err)
{
	struct connection *reader;
	struct study_list list = {0};
	TRY(read_begin(db, &reader, err));
	enum status status = read_list(reader, after, limit, &list, err);
	read_end(db, reader);
	if (status)
		study_list_clear(&list);
	else
		*ret = list;
	return status;
}

/* ---- changes of all jobs of a study --------------------------------------------------------------------------------------- */

/* Inside a write transaction. `told`: for each job, whether there is news of it. */
typedef enum status change_fn(struct connection *writer, const struct study *, const struct study_rows *, bool *told,
			      enum change_outcome *ret_outcome, struct error *err);

static enum status change_once(struct db *db, const char *id, change_fn *fn, enum change_outcome *ret_outcome, struct error *err)
{
	struct study study = {0};
	struct study_rows rows = {0};
	bool *told = NULL;
	TRY(write_begin(db, err));
	enum status status = read_study(&db->writer, id, &study, err);
	if (!status) status = read_rows(&db->writer, &study, &rows, err);
	if (!status && !(told = calloc(rows.count + 1, sizeof *told)))
		status = error_set(err, STATUS_NO_MEMORY, "no memory for the jobs of study %s", id);
	if (!status) status = fn(&db->writer, &study, &rows, told, ret_outcome, err);
	if (!status && *ret_outcome == CHANGE_DONE) status = audit_change(&db->writer, id, 1, err);
	status = write_end(db, status, NULL, err);
	for (size_t i = 0; !status && db->committed && i < rows.count; i++)
		if (told[i]) db->committed(db->context, rows.rows[i].job.id);
	free(told);
	study_rows_clear(&rows);
	study_clear(&study);
	return status;
}

/* What ends, cancels or forgets jobs is worth the room that is kept (db_set_relief). */
static enum status change(struct db *db, const char *id, change_fn *fn, enum change_outcome *ret_outcome, struct error *err)
{
	enum status status;
	unsigned reliefs = write_reliefs(db);
	do
		status = change_once(db, id, fn, ret_outcome, err);
	while (write_again(db, status, &reliefs));
	return status;
}

static int64_t unfinished(const struct study *study)
{
	int64_t count = 0;
	for (int i = 0; i < JOB_STATES; i++)
		if (!job_state_is_final((enum job_state)i)) count += study->counts[i];
	return count;
}

static enum status cancel(struct connection *writer, const struct study *study, const struct study_rows *rows, bool *told,
			  enum change_outcome *outcome, struct error *err)
{
	*outcome = unfinished(study) || study->counts[JOB_CANCELLED] ? CHANGE_DONE : CHANGE_WRONG_STATE;
	for (size_t i = 0; i < rows->count; i++) {
		enum change_outcome finished; /* there are such among them */
		if (!rows->rows[i].forgotten) TRY(job_cancel(writer, &rows->rows[i].job, &finished, &told[i], err));
	}
	return STATUS_OK;
}

enum status db_study_cancel(struct db *db, const char *id, enum change_outcome *ret_outcome, struct error *err)
{
	return change(db, id, cancel, ret_outcome, err);
}

static enum status forget(struct connection *writer, const struct study *study, const struct study_rows *rows, bool *told,
			  enum change_outcome *outcome, struct error *err)
{
	*outcome = unfinished(study) ? CHANGE_WRONG_STATE : CHANGE_DONE;
	if (*outcome != CHANGE_DONE) return STATUS_OK;
	for (size_t i = 0; i < rows->count; i++)
		told[i] = !rows->rows[i].forgotten;
	TRY(execute(writer, err, NULL, "DELETE FROM jobs WHERE id IN (SELECT job_id FROM study_jobs WHERE study_id = ?1)", "s",
		    study->id));
	return execute(writer, err, NULL, "DELETE FROM studies WHERE id = ?1", "s", study->id);
}

enum status db_study_delete(struct db *db, const char *id, enum change_outcome *ret_outcome, struct error *err)
{
	return change(db, id, forget, ret_outcome, err);
}
