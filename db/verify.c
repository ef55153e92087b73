/* Whether a file of the database is whole, without a change of it; and a copy of one that may be in use. */
#include "db/internal.h"

#include <stdio.h>
#include <string.h>

#include "base/file.h"

/* Of SQLite's own check: more would only say the same. */
#define MOST_PROBLEMS "20"

/* Alone, with the journal's index in memory, so that it needs no room; and what is damaged stays as it is. */
static enum status open_alone(const char *path, struct connection *ret, struct error *err)
{
	TRY(connection_open(ret, path, SQLITE_OPEN_READWRITE, "PRAGMA locking_mode = EXCLUSIVE", err));
	sqlite3_db_config(ret->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	return STATUS_OK;
}

static enum status open_reader(const char *path, struct connection *ret, struct error *err)
{
	return connection_open(ret, path, SQLITE_OPEN_READONLY, BUSY_TIMEOUT "; PRAGMA query_only = ON", err);
}

/* Does the failure mean that the file is damaged? */
static bool is_damage(const struct connection *connection)
{
	int code = sqlite3_errcode(connection->handle) & 0xff;
	return code == SQLITE_CORRUPT || code == SQLITE_NOTADB;
}

/* Tells each row of a statement as a problem, but those that say "ok". */
static enum status tell_rows(struct connection *connection, const char *sql, db_problem *tell, void *context, struct error *err)
{
	sqlite3_stmt *statement = query(connection, err, sql, "");
	for (bool row = statement != NULL; row;) {
		char text[400];
		TRY(query_step(connection, statement, &row, err));
		if (!row) break;
		copy_text(statement, 0, text, sizeof text);
		if (strcmp(text, "ok") != 0) tell(context, text);
	}
	return statement ? STATUS_OK : err->status;
}

/* Runs a check, of which a failure that means damage is a problem, too; *ret_whole: it was none. */
static enum status check_rows(struct connection *connection, const char *sql, db_problem *tell, void *context, bool *ret_whole,
			      struct error *err)
{
	*ret_whole = true;
	enum status status = tell_rows(connection, sql, tell, context, err);
	if (!status || !is_damage(connection)) return status;
	*ret_whole = false;
	tell(context, err->message);
	return STATUS_OK;
}

/* ---- after an unclean end ------------------------------------------------------------------------------------------------ */

struct first_problem {
	char text[sizeof((struct error *)0)->message];
	int count;
};

static void keep_first(void *context, const char *problem)
{
	struct first_problem *first = context;
	if (!first->count++) snprintf(first->text, sizeof first->text, "%s", problem);
}

enum status db_quick_check(const char *path, struct error *err)
{
	struct connection connection;
	struct first_problem first = {0};
	bool whole;
	if (!path_exists(path)) return STATUS_OK;
	TRY(open_alone(path, &connection, err));
	enum status status = check_rows(&connection, "PRAGMA quick_check(" MOST_PROBLEMS ")", keep_first, &first, &whole, err);
	connection_close(&connection);
	if (status || !first.count) return status;
	return error_set(err, STATUS_INVALID, "%s is damaged: %s", path, first.text);
}

/* ---- all of it ----------------------------------------------------------------------------------------------------------- */

/* What holds between rows at any moment, and no constraint says. */
static const char *const rules[] = {
	"SELECT 'a row of ' || \"table\" || ' belongs to no ' || parent FROM pragma_foreign_key_check LIMIT " MOST_PROBLEMS,
	"SELECT 'job ' || id || ': its events are not those up to ' || last_event FROM jobs WHERE last_event <>"
	" (SELECT coalesce(max(id), 0) FROM events WHERE job_id = jobs.id) OR last_event <>"
	" (SELECT count(*) FROM events WHERE job_id = jobs.id) LIMIT " MOST_PROBLEMS,
	"SELECT 'job ' || id || ': ' || blocks_done || ' blocks are done, and other ones are stored' FROM jobs WHERE blocks_done <>"
	" (SELECT count(*) FROM blocks WHERE job_id = jobs.id) LIMIT " MOST_PROBLEMS,
	"SELECT 'jobs ' || a.id || ' and ' || b.id || ' run at once' FROM jobs a JOIN jobs b ON b.id > a.id WHERE"
	" a.state IN ('running', 'cancelling', 'pausing') AND b.state IN ('running', 'cancelling', 'pausing') LIMIT " MOST_PROBLEMS,
};

static enum status each_job(struct connection *connection, db_stored_job *take, void *context, struct error *err)
{
	sqlite3_stmt *statement = query(connection, err, "SELECT id, state, blocks_done, blocks FROM jobs ORDER BY id", "");
	if (!statement) return err->status;
	for (;;) {
		bool row;
		char state[16];
		struct stored_job job;
		TRY(query_step(connection, statement, &row, err));
		if (!row) return STATUS_OK;
		copy_text(statement, 0, job.id, sizeof job.id);
		copy_text(statement, 1, state, sizeof state);
		job.blocks_done = sqlite3_column_int(statement, 2);
		job.blocks = sqlite3_column_int(statement, 3);
		if (!job_state_parse(state, &job.state))
			return error_set(err, STATUS_INVALID, "job %s has the state '%s'", job.id, state);
		TRY(take(context, &job, err));
	}
}

static enum status verify(struct connection *connection, const char *path, const struct db_verifier *v, int64_t *ret_version,
			  struct error *err)
{
	bool whole;
	TRY(schema_version(connection, path, ret_version, err));
	TRY(check_rows(connection, "PRAGMA integrity_check(" MOST_PROBLEMS ")", v->problem, v->context, &whole, err));
	for (size_t i = 0; whole && i < sizeof rules / sizeof *rules; i++)
		TRY(check_rows(connection, rules[i], v->problem, v->context, &whole, err));
	return whole && v->job ? each_job(connection, v->job, v->context, err) : STATUS_OK;
}

enum status db_verify(const char *path, const struct db_verifier *verifier, int64_t *ret_version, struct error *err)
{
	struct connection connection;
	TRY(open_reader(path, &connection, err));
	enum status status = execute(&connection, err, NULL, "BEGIN", "");
	if (!status) status = verify(&connection, path, verifier, ret_version, err);
	if (status && is_damage(&connection)) {
		verifier->problem(verifier->context, err->message);
		status = STATUS_OK;
	}
	connection_close(&connection);
	return status;
}

/* ---- a copy -------------------------------------------------------------------------------------------------------------- */

/* All pages in one step, which is one read transaction: writers go on meanwhile. */
static enum status copy_pages(struct connection *from, struct connection *to, struct error *err)
{
	sqlite3_backup *backup = sqlite3_backup_init(to->handle, "main", from->handle, "main");
	if (!backup) return sqlite_error(to, "backup", err);
	int code = sqlite3_backup_step(backup, -1);
	int end = sqlite3_backup_finish(backup);
	if (code == SQLITE_DONE && end == SQLITE_OK) return STATUS_OK;
	if (code == SQLITE_BUSY || code == SQLITE_LOCKED)
		return error_set(err, STATUS_BUSY, "database: the copy waits for a writer: try again");
	return sqlite_error(to, "backup", err);
}

enum status db_copy(const char *from, const char *to, struct error *err)
{
	struct connection source, copy;
	int64_t version;
	TRY(open_reader(from, &source, err));
	enum status status = schema_version(&source, from, &version, err);
	if (!status) {
		status = connection_open(&copy, to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "PRAGMA synchronous = FULL", err);
		if (!status) {
			status = copy_pages(&source, &copy, err);
			/* One file, without a journal beside it. */
			if (!status && sqlite3_exec(copy.handle, "PRAGMA journal_mode = DELETE", NULL, NULL, NULL) != SQLITE_OK)
				status = sqlite_error(&copy, to, err);
			connection_close(&copy);
		}
	}
	if (status && is_damage(&source)) status = error_set(err, STATUS_INVALID, "%s is damaged, and not copied", from);
	connection_close(&source);
	return status;
}
