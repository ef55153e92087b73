/* Opening the file, connections, transactions and statements. */
#include "db/internal.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum status sqlite_error(struct connection *connection, const char *what, struct error *err)
{
	const char *message = sqlite3_errmsg(connection->handle);
	int code = sqlite3_extended_errcode(connection->handle);
	if (code == SQLITE_IOERR_SHMSIZE) code = SQLITE_FULL; /* the index of the journal could not grow */
	switch (code & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
		return error_set(err, STATUS_BUSY, "database: %s: %s", what, message);
	case SQLITE_FULL:
		return error_set(err, STATUS_NO_SPACE, "database: %s: %s", what, message);
	case SQLITE_NOMEM:
		return error_set(err, STATUS_NO_MEMORY, "database: %s: %s", what, message);
	case SQLITE_CONSTRAINT:
	case SQLITE_MISUSE:
	case SQLITE_ERROR:
		return error_set(err, STATUS_INTERNAL, "database: %s: %s", what, message);
	case SQLITE_NOTADB:
		return error_set(err, STATUS_INVALID, "database: %s: %s", what, message);
	default:
		return error_set(err, STATUS_IO, "database: %s: %s (%d)", what, message, code);
	}
}

/* ---- statements --------------------------------------------------------------------------------------------------------- */

static sqlite3_stmt *prepare(struct connection *connection, const char *sql, struct error *err)
{
	int slot = 0;
	while (slot < CACHED_STATEMENTS && connection->cache[slot].sql && connection->cache[slot].sql != sql)
		slot++;
	if (slot == CACHED_STATEMENTS) {
		error_set(err, STATUS_INTERNAL, "database: more than %d statements", CACHED_STATEMENTS);
		return NULL;
	}
	if (connection->cache[slot].sql) {
		sqlite3_reset(connection->cache[slot].statement);
		return connection->cache[slot].statement;
	}
	sqlite3_stmt *statement;
	if (sqlite3_prepare_v3(connection->handle, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement, NULL) != SQLITE_OK) {
		sqlite_error(connection, sql, err);
		return NULL;
	}
	connection->cache[slot].sql = sql;
	connection->cache[slot].statement = statement;
	return statement;
}

static sqlite3_stmt *query_va(struct connection *connection, struct error *err, const char *sql, const char *types, va_list args)
{
	sqlite3_stmt *statement = prepare(connection, sql, err);
	if (!statement) return NULL;
	for (int i = 1; *types; i++, types++) {
		int result;
		switch (*types) {
		case 's':
			result = sqlite3_bind_text(statement, i, va_arg(args, const char *), -1, SQLITE_TRANSIENT);
			break;
		case 'i':
			result = sqlite3_bind_int64(statement, i, va_arg(args, int64_t));
			break;
		default:
			result = sqlite3_bind_double(statement, i, va_arg(args, double));
		}
		if (result != SQLITE_OK) {
			sqlite_error(connection, "bind", err);
			return NULL;
		}
	}
	return statement;
}

sqlite3_stmt *query(struct connection *connection, struct error *err, const char *sql, const char *types, ...)
{
	va_list args;
	va_start(args, types);
	sqlite3_stmt *statement = query_va(connection, err, sql, types, args);
	va_end(args);
	return statement;
}

enum status query_step(struct connection *connection, sqlite3_stmt *statement, bool *ret_row, struct error *err)
{
	int result = sqlite3_step(statement);
	if (result == SQLITE_ROW || result == SQLITE_DONE) {
		*ret_row = result == SQLITE_ROW;
		if (result == SQLITE_DONE) sqlite3_reset(statement);
		return STATUS_OK;
	}
	enum status status = sqlite_error(connection, sqlite3_sql(statement), err);
	sqlite3_reset(statement);
	return status;
}

enum status query_integer(struct connection *connection, sqlite3_stmt *statement, int64_t *ret, struct error *err)
{
	bool row;
	if (!statement) return err->status;
	TRY(query_step(connection, statement, &row, err));
	*ret = row ? sqlite3_column_int64(statement, 0) : 0;
	sqlite3_reset(statement);
	return STATUS_OK;
}

enum status execute(struct connection *connection, struct error *err, int *ret_changes, const char *sql, const char *types, ...)
{
	va_list args;
	va_start(args, types);
	sqlite3_stmt *statement = query_va(connection, err, sql, types, args);
	va_end(args);
	if (!statement) return err->status;
	bool row;
	TRY(query_step(connection, statement, &row, err));
	sqlite3_reset(statement);
	if (ret_changes) *ret_changes = sqlite3_changes(connection->handle);
	return STATUS_OK;
}

enum status column_copy(sqlite3_stmt *statement, int column, char **ret, struct error *err)
{
	if (sqlite3_column_type(statement, column) == SQLITE_NULL) {
		*ret = NULL;
		return STATUS_OK;
	}
	const unsigned char *text = sqlite3_column_text(statement, column);
	char *copy = text ? strdup((const char *)text) : NULL;
	if (!copy) return error_set(err, STATUS_NO_MEMORY, "database: no memory for %s", sqlite3_column_name(statement, column));
	*ret = copy;
	return STATUS_OK;
}

/* A statement that was not stepped to its end would keep its transaction open. */
static void reset_statements(struct connection *connection)
{
	for (int i = 0; i < CACHED_STATEMENTS && connection->cache[i].statement; i++)
		sqlite3_reset(connection->cache[i].statement);
}

/* ---- connections -------------------------------------------------------------------------------------------------------- */

void connection_close(struct connection *connection)
{
	for (int i = 0; i < CACHED_STATEMENTS; i++)
		sqlite3_finalize(connection->cache[i].statement);
	sqlite3_close(connection->handle);
	memset(connection, 0, sizeof *connection);
}

enum status connection_open(struct connection *connection, const char *path, int flags, const char *pragmas, struct error *err)
{
	memset(connection, 0, sizeof *connection);
	enum status status = STATUS_OK;
	if (sqlite3_open_v2(path, &connection->handle, flags | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK ||
	    sqlite3_exec(connection->handle, pragmas, NULL, NULL, NULL) != SQLITE_OK)
		status = sqlite_error(connection, path, err);
	if (status) connection_close(connection);
	return status;
}

/* What is refused is left as it is: no mode is set, and its journal not worked into it. */
static enum status start_writing(struct connection *writer, const char *path, struct error *err)
{
	sqlite3_db_config(writer->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	TRY(schema_check(writer, path, err));
	sqlite3_db_config(writer->handle, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	bool made;
	sqlite3_stmt *statement = query(writer, err, "SELECT 1 FROM sqlite_schema", "");
	if (!statement) return err->status;
	TRY(query_step(writer, statement, &made, err));
	sqlite3_reset(statement);
	/* It is a write, for which an old file may have to wait, and means nothing for that. */
	const char *vacuum = made ? "" : "PRAGMA auto_vacuum = INCREMENTAL";
	if (sqlite3_exec(writer->handle, vacuum, NULL, NULL, NULL) != SQLITE_OK ||
	    sqlite3_exec(writer->handle,
			 "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;"
			 "PRAGMA journal_size_limit = 16777216;",
			 NULL, NULL, NULL) != SQLITE_OK)
		return sqlite_error(writer, path, err);
	return STATUS_OK;
}

/* With `alone`, one connection does all, with the journal's index in its memory: the index's file, which others would share,
 * needs room. */
static enum status open_as(const char *path, bool alone, struct db *db, struct error *err)
{
	struct connection *writer = &db->writer;
	char *largest = NULL;
	db->alone = alone;
	TRY(connection_open(writer, path, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE,
			    alone ? "PRAGMA locking_mode = EXCLUSIVE; " BUSY_TIMEOUT : BUSY_TIMEOUT, err));
	TRY(start_writing(writer, path, err));
	TRY(schema_migrate(writer, path, err));
	bool row;
	sqlite3_stmt *statement =
		query(writer, err,
		      "SELECT max(id) FROM (SELECT max(id) AS id FROM jobs UNION ALL SELECT max(job_id) FROM study_jobs)", "");
	if (!statement) return err->status;
	TRY(query_step(writer, statement, &row, err));
	TRY(column_copy(statement, 0, &largest, err));
	sqlite3_reset(statement);
	id_init(db, largest);
	free(largest);
	return STATUS_OK;
}

enum status db_open(const char *path, struct db **ret, struct error *err)
{
	struct db *db = calloc(1, sizeof *db);
	if (!db) return error_set(err, STATUS_NO_MEMORY, "no memory for the database");
	pthread_mutex_init(&db->write_lock, NULL);
	pthread_mutex_init(&db->pool_lock, NULL);
	pthread_mutex_init(&db->id_lock, NULL);
	pthread_mutex_init(&db->relief_lock, NULL);
	db->path = strdup(path);
	enum status status =
		db->path ? open_as(path, false, db, err) : error_set(err, STATUS_NO_MEMORY, "no memory for the database");
	if (status == STATUS_NO_SPACE) {
		connection_close(&db->writer);
		status = open_as(path, true, db, err);
	}
	if (status)
		db_close(db);
	else
		*ret = db;
	return status;
}

void db_close(struct db *db)
{
	if (!db) return;
	/* Readers first: the last connection to close checkpoints, and only the writer may. */
	while (db->pool) {
		struct connection *reader = db->pool;
		db->pool = reader->next;
		connection_close(reader);
		free(reader);
	}
	connection_close(&db->writer);
	pthread_mutex_destroy(&db->write_lock);
	pthread_mutex_destroy(&db->pool_lock);
	pthread_mutex_destroy(&db->id_lock);
	pthread_mutex_destroy(&db->relief_lock);
	free(db->path);
	free(db);
}

void db_set_listener(struct db *db, void (*committed)(void *context, const char *job_id), void *context)
{
	pthread_mutex_lock(&db->write_lock);
	db->committed = committed;
	db->context = context;
	pthread_mutex_unlock(&db->write_lock);
}

void db_set_relief(struct db *db, bool (*relieve)(void *context), void *context)
{
	pthread_mutex_lock(&db->relief_lock);
	db->relieve = relieve;
	db->relief = context;
	pthread_mutex_unlock(&db->relief_lock);
}

/* ---- transactions ------------------------------------------------------------------------------------------------------- */

/* Trouble is what another transaction may meet too. */
static void note_trouble(struct db *db, enum status status)
{
	bool lasts = status == STATUS_NO_SPACE || status == STATUS_BUSY || status == STATUS_IO;
	if (lasts || status == STATUS_OK) atomic_store(&db->trouble, (int)status);
}

/* Ends what a COMMIT or a ROLLBACK that failed has left: nothing could begin behind it. */
static void end_transaction(struct connection *connection)
{
	reset_statements(connection);
	if (!sqlite3_get_autocommit(connection->handle)) sqlite3_exec(connection->handle, "ROLLBACK", NULL, NULL, NULL);
}

enum status write_begin(struct db *db, struct error *err)
{
	pthread_mutex_lock(&db->write_lock);
	end_transaction(&db->writer);
	enum status status = execute(&db->writer, err, NULL, "BEGIN IMMEDIATE", "");
	if (status) note_trouble(db, status);
	if (status) pthread_mutex_unlock(&db->write_lock);
	return status;
}

enum status write_end(struct db *db, enum status status, const char *job_id, struct error *err)
{
	reset_statements(&db->writer);
	if (!status) status = execute(&db->writer, err, NULL, "COMMIT", "");
	/* After some errors (a full disk) SQLite has rolled back by itself. */
	if (status && !sqlite3_get_autocommit(db->writer.handle)) sqlite3_exec(db->writer.handle, "ROLLBACK", NULL, NULL, NULL);
	note_trouble(db, status);
	audit_end(!status);
	char(*told)[JOB_ID_BYTES] = db->writer.told;
	size_t n_told = db->writer.n_told;
	db->writer.told = NULL;
	db->writer.n_told = 0;
	void (*committed)(void *context, const char *job_id) = db->committed;
	void *context = db->context;
	pthread_mutex_unlock(&db->write_lock);
	if (!status && job_id && committed) committed(context, job_id);
	for (size_t i = 0; !status && committed && i < n_told; i++)
		committed(context, told[i]);
	free(told);
	return status;
}

unsigned write_reliefs(struct db *db)
{
	pthread_mutex_lock(&db->relief_lock);
	unsigned reliefs = db->reliefs;
	pthread_mutex_unlock(&db->relief_lock);
	return reliefs;
}

bool write_again(struct db *db, enum status status, unsigned *reliefs)
{
	if (status != STATUS_NO_SPACE) return false;
	pthread_mutex_lock(&db->relief_lock);
	if (db->reliefs == *reliefs && db->relieve && db->relieve(db->relief)) db->reliefs++;
	bool more = db->reliefs != *reliefs;
	*reliefs = db->reliefs;
	pthread_mutex_unlock(&db->relief_lock);
	return more;
}

static enum status read_alone(struct db *db, struct connection **ret, struct error *err)
{
	pthread_mutex_lock(&db->write_lock);
	end_transaction(&db->writer);
	enum status status = execute(&db->writer, err, NULL, "BEGIN", "");
	if (status)
		pthread_mutex_unlock(&db->write_lock);
	else
		*ret = &db->writer;
	return status;
}

enum status read_begin(struct db *db, struct connection **ret, struct error *err)
{
	if (db->alone) return read_alone(db, ret, err);
	pthread_mutex_lock(&db->pool_lock);
	struct connection *reader = db->pool;
	if (reader) db->pool = reader->next;
	pthread_mutex_unlock(&db->pool_lock);

	enum status status = STATUS_OK;
	if (!reader) {
		reader = calloc(1, sizeof *reader);
		if (!reader) return error_set(err, STATUS_NO_MEMORY, "no memory for a database connection");
		status = connection_open(reader, db->path, SQLITE_OPEN_READONLY, BUSY_TIMEOUT "; PRAGMA query_only = ON;", err);
		if (status) {
			free(reader);
			return status;
		}
	}
	status = execute(reader, err, NULL, "BEGIN", "");
	if (status) {
		read_end(db, reader);
		return status;
	}
	*ret = reader;
	return STATUS_OK;
}

void read_end(struct db *db, struct connection *reader)
{
	end_transaction(reader);
	if (db->alone) {
		pthread_mutex_unlock(&db->write_lock);
		return;
	}
	if (!sqlite3_get_autocommit(reader->handle)) { /* there was no memory to end it */
		connection_close(reader);
		free(reader);
		return;
	}
	pthread_mutex_lock(&db->pool_lock);
	reader->next = db->pool;
	db->pool = reader;
	pthread_mutex_unlock(&db->pool_lock);
}

enum status db_check(struct db *db, struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	bool row;
	sqlite3_stmt *statement = query(reader, err, "SELECT count(*) FROM sqlite_schema", "");
	enum status status = statement ? query_step(reader, statement, &row, err) : err->status;
	read_end(db, reader);
	return status;
}

enum status db_trouble(struct db *db)
{
	return (enum status)atomic_load(&db->trouble);
}

enum status db_probe(struct db *db, struct error *err)
{
	TRY(write_begin(db, err));
	return write_end(db, schema_touch(&db->writer, err), NULL, err);
}

enum status db_shrink(struct db *db, struct error *err)
{
	bool row = true;
	TRY(write_begin(db, err));
	sqlite3_stmt *statement = query(&db->writer, err, "PRAGMA incremental_vacuum", "");
	enum status status = statement ? STATUS_OK : err->status;
	bool any = false;
	while (!status && row) { /* a step for each page */
		status = query_step(&db->writer, statement, &row, err);
		any |= row;
	}
	TRY(write_end(db, status, NULL, err));
	/* The file itself is cut by the checkpoint. What reads meanwhile is not waited for: the next call cuts what this one
	 * could not. */
	pthread_mutex_lock(&db->write_lock);
	db->uncut |= any;
	if (db->uncut) {
		int pages = -1, done = -1;
		int rc = sqlite3_wal_checkpoint_v2(db->writer.handle, NULL, SQLITE_CHECKPOINT_PASSIVE, &pages, &done);
		db->uncut = rc != SQLITE_OK || done < pages;
	}
	pthread_mutex_unlock(&db->write_lock);
	return STATUS_OK;
}
