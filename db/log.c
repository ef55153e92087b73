/* The log of a job: its events, and between them what is noted of it beside. */
#include "base/clock.h"
#include "db/internal.h"

enum { NOTES = 1000 }; /* that are kept of a job, the newest */

static enum status note(struct connection *writer, const char *id, const char *level, const char *text, struct error *err)
{
	TRY(execute(writer, err, NULL,
		    "INSERT INTO notes (job_id, id, event, created_at, level, text)"
		    " SELECT id, (SELECT coalesce(max(id), 0) + 1 FROM notes WHERE job_id = ?1), last_event, ?2, ?3, ?4 FROM jobs "
		    "WHERE id = ?1",
		    "siss", id, unix_milliseconds(), level, text));
	return execute(writer, err, NULL,
		       "DELETE FROM notes WHERE job_id = ?1 AND id <= (SELECT max(id) FROM notes WHERE job_id = ?1) - ?2", "si", id,
		       (int64_t)NOTES);
}

enum status db_job_note(struct db *db, const char *id, const char *level, const char *text, struct error *err)
{
	TRY(write_begin(db, err));
	return write_end(db, note(&db->writer, id, level, text, err), NULL, err);
}

static enum status read_log(struct connection *reader, const char *id, db_log_line *take, void *context, struct error *err)
{
	bool row;
	sqlite3_stmt *statement = query(reader, err, "SELECT 1 FROM jobs WHERE id = ?1", "s", id);
	if (!statement) return err->status;
	TRY(query_step(reader, statement, &row, err));
	if (!row) return error_set(err, STATUS_NOT_FOUND, "there is no job %s", id);
	sqlite3_reset(statement);
	statement = query(reader, err,
			  "SELECT id AS event, 0 AS number, created_at, type, data FROM events WHERE job_id = ?1"
			  " AND type NOT IN ('block.started', 'block.step', 'tune.step')"
			  " UNION ALL SELECT event, id, created_at, level, text FROM notes WHERE job_id = ?1 ORDER BY 1, 2",
			  "s", id);
	if (!statement) return err->status;
	for (;;) {
		TRY(query_step(reader, statement, &row, err));
		if (!row) return STATUS_OK;
		const char *kind = (const char *)sqlite3_column_text(statement, 3);
		const char *text = (const char *)sqlite3_column_text(statement, 4);
		if (!kind || !text) return error_set(err, STATUS_NO_MEMORY, "no memory for the log of job %s", id);
		TRY(take(context, sqlite3_column_int64(statement, 2), sqlite3_column_int64(statement, 1) > 0, kind, text, err));
	}
}

enum status db_job_log(struct db *db, const char *id, db_log_line *take, void *context, struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = read_log(reader, id, take, context, err);
	read_end(db, reader);
	return status;
}
