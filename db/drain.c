/* A queue that is drained: it takes jobs, and gives none out. */
#include "base/clock.h"
#include "db/internal.h"

static enum status read_since(struct connection *connection, int64_t *ret_since, struct error *err)
{
	bool row;
	sqlite3_stmt *statement = query(connection, err, "SELECT since FROM drain", "");
	if (!statement) return err->status;
	TRY(query_step(connection, statement, &row, err));
	*ret_since = row ? sqlite3_column_int64(statement, 0) : 0;
	sqlite3_reset(statement);
	return STATUS_OK;
}

enum status db_drain_get(struct db *db, int64_t *ret_since, struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = read_since(reader, ret_since, err);
	read_end(db, reader);
	return status;
}

static enum status write_drain(struct connection *writer, bool drained, int64_t *ret_since, struct error *err)
{
	if (drained)
		TRY(execute(writer, err, NULL, "INSERT OR IGNORE INTO drain (only, since) VALUES (1, ?1)", "i",
			    unix_milliseconds()));
	else
		TRY(execute(writer, err, NULL, "DELETE FROM drain", ""));
	TRY(audit_change(writer, NULL, 1, err));
	return read_since(writer, ret_since, err);
}

enum status db_drain_set(struct db *db, bool drained, int64_t *ret_since, struct error *err)
{
	int64_t since;
	TRY(write_begin(db, err));
	enum status status = write_drain(&db->writer, drained, &since, err);
	TRY(write_end(db, status, NULL, err));
	*ret_since = since;
	return STATUS_OK;
}
