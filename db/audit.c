#include "db/audit.h"

#include <stdlib.h>

#include "base/clock.h"
#include "db/internal.h"

enum { PRUNE_EVERY = 64 /* entries */ };

static const int64_t day = 24 * 3600 * (int64_t)1000;

static _Thread_local struct actor *acting;

void db_act_for(struct actor *actor)
{
	acting = actor;
}

const char *audit_who(void)
{
	return acting ? acting->who : NULL;
}

void audit_list_clear(struct audit_list *list)
{
	for (size_t i = 0; i < list->count; i++) {
		free(list->entries[i].who);
		free(list->entries[i].peer);
		free(list->entries[i].action);
		free(list->entries[i].target);
		free(list->entries[i].outcome);
	}
	free(list->entries);
	*list = (struct audit_list){0};
}

/* ---- in ------------------------------------------------------------------------------------------------------------------ */

/* Refusals and changes have bounds of their own, so that who is refused cannot have what was changed forgotten; and what a quota
 * counts stays for as long as it does. */
static enum status prune(struct connection *writer, bool refused, struct error *err)
{
	return execute(writer, err, NULL,
		       "DELETE FROM audit WHERE refused = ?1 AND (at < ?2 OR id <= (SELECT id FROM audit WHERE refused = ?1"
		       " ORDER BY id DESC LIMIT 1 OFFSET ?3)) AND NOT (at > ?4 AND action IN ('job.submit', 'study.submit')"
		       " AND outcome = 'done')",
		       "iiii", (int64_t)refused, unix_milliseconds() - AUDIT_DAYS * day,
		       (int64_t)(refused ? AUDIT_REFUSALS : AUDIT_CHANGES), unix_milliseconds() - day);
}

static enum status insert(struct connection *writer, const struct actor *actor, const char *target, const char *outcome,
			  int64_t count, bool refused, struct error *err)
{
	TRY(execute(writer, err, NULL,
		    "INSERT INTO audit (at, who, peer, action, target, outcome, count, refused) VALUES (?1, ?2, ?3, ?4, ?5, ?6, "
		    "?7, ?8)",
		    "isssssii", unix_milliseconds(), actor->who, actor->peer, actor->action, target, outcome, count,
		    (int64_t)refused));
	return sqlite3_last_insert_rowid(writer->handle) % PRUNE_EVERY == 0 ? prune(writer, refused, err) : STATUS_OK;
}

enum status audit_change(struct connection *writer, const char *target, int64_t count, struct error *err)
{
	if (!acting) return STATUS_OK;
	acting->pending = true;
	return insert(writer, acting, target, "done", count, false, err);
}

void audit_end(bool committed)
{
	if (!acting) return;
	acting->noted |= acting->pending && committed;
	acting->pending = false;
}

enum status db_audit_note(struct db *db, const struct actor *actor, const char *target, const char *outcome, int64_t count,
			  bool refused, struct error *err)
{
	TRY(write_begin(db, err));
	return write_end(db, insert(&db->writer, actor, target, outcome, count, refused, err), NULL, err);
}

/* ---- quotas -------------------------------------------------------------------------------------------------------------- */

static enum status read_pair(struct connection *connection, sqlite3_stmt *statement, int64_t ret[2], struct error *err)
{
	bool row;
	if (!statement) return err->status;
	TRY(query_step(connection, statement, &row, err));
	ret[0] = row ? sqlite3_column_int64(statement, 0) : 0;
	ret[1] = row ? sqlite3_column_int64(statement, 1) : 0;
	sqlite3_reset(statement);
	return STATUS_OK;
}

enum status quota_queued(struct connection *writer, bool *ret_over, struct error *err)
{
	int64_t found[2] = {0};
	*ret_over = false;
	if (!acting || !acting->who || !acting->max_queued) return STATUS_OK;
	TRY(read_pair(writer,
		      query(writer, err,
			    "SELECT count(*), 0 FROM jobs WHERE state IN ('queued', 'pausing', 'paused') AND queued_by = ?1", "s",
			    acting->who),
		      found, err));
	*ret_over = found[0] >= acting->max_queued;
	return STATUS_OK;
}

enum status quota_day(struct connection *writer, int64_t jobs, bool *ret_over, struct error *err)
{
	int64_t found[2] = {0}, now = unix_milliseconds();
	*ret_over = false;
	if (!acting || !acting->who || !acting->max_per_day) return STATUS_OK;
	TRY(read_pair(writer,
		      query(writer, err,
			    "SELECT coalesce(sum(count), 0), min(at) FROM audit WHERE who = ?1 AND at > ?2 AND outcome = 'done'"
			    " AND action IN ('job.submit', 'study.submit')",
			    "si", acting->who, now - day),
		      found, err));
	*ret_over = found[0] + jobs > acting->max_per_day;
	acting->wait_seconds = found[0] ? (found[1] + day - now) / 1000 + 1 : day / 1000;
	return STATUS_OK;
}

enum status quota_bytes(struct connection *writer, int64_t wanted, const char *again, bool *ret_over, struct error *err)
{
	int64_t found[2] = {0};
	*ret_over = false;
	if (!acting || !acting->who || !acting->max_bytes) return STATUS_OK;
	TRY(read_pair(writer,
		      query(writer, err,
			    "SELECT (SELECT coalesce(sum(expected_bytes), 0) FROM jobs WHERE queued_by = ?1 AND state NOT IN"
			    " ('succeeded', 'failed', 'cancelled')),"
			    " (SELECT coalesce(sum(expected_bytes), 0) FROM jobs WHERE id = ?2)",
			    "ss", acting->who, again),
		      found, err));
	acting->expected_bytes = found[0];
	acting->wanted_bytes = again ? found[1] : wanted;
	*ret_over = acting->held_bytes + acting->expected_bytes + acting->wanted_bytes > acting->max_bytes;
	return STATUS_OK;
}

/* ---- out ----------------------------------------------------------------------------------------------------------------- */

static enum status entry_from_row(sqlite3_stmt *row, struct audit_entry *entry, struct error *err)
{
	entry->id = sqlite3_column_int64(row, 0);
	entry->at = sqlite3_column_int64(row, 1);
	TRY(column_copy(row, 2, &entry->who, err));
	TRY(column_copy(row, 3, &entry->peer, err));
	TRY(column_copy(row, 4, &entry->action, err));
	TRY(column_copy(row, 5, &entry->target, err));
	TRY(column_copy(row, 6, &entry->outcome, err));
	entry->count = sqlite3_column_int64(row, 7);
	return STATUS_OK;
}

static enum status read_list(struct connection *reader, int64_t before, int limit, struct audit_list *list, struct error *err)
{
	list->entries = calloc((size_t)limit, sizeof *list->entries);
	if (!list->entries) return error_set(err, STATUS_NO_MEMORY, "no memory for %d entries", limit);
	sqlite3_stmt *statement = query(reader, err,
					"SELECT id, at, who, peer, action, target, outcome, count FROM audit WHERE id < ?1"
					" ORDER BY id DESC LIMIT ?2",
					"ii", before, (int64_t)limit + 1);
	if (!statement) return err->status;
	for (;;) {
		bool row;
		TRY(query_step(reader, statement, &row, err));
		if (!row) return STATUS_OK;
		list->more = list->count == (size_t)limit;
		if (list->more) return STATUS_OK;
		TRY(entry_from_row(statement, &list->entries[list->count++], err));
	}
}

enum status db_audit_list(struct db *db, int64_t before, int limit, struct audit_list *ret, struct error *err)
{
	struct connection *reader;
	struct audit_list list = {0};
	TRY(read_begin(db, &reader, err));
	enum status status = read_list(reader, before, limit, &list, err);
	read_end(db, reader);
	if (status)
		audit_list_clear(&list);
	else
		*ret = list;
	return status;
}
