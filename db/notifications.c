#include <stdio.h>
#include <stdlib.h>

#include "db/internal.h"

void notification_clear(struct notification *notification)
{
	free(notification->url);
	*notification = (struct notification){0};
}

static enum status read_next(struct connection *reader, notification_skip *skip, void *context, bool *ret_found,
			     struct notification *ret, struct error *err)
{
	struct notification found = {0};
	sqlite3_stmt *statement = query(reader, err, "SELECT job_id, url, attempts, due_at FROM notifications ORDER BY due_at", "");
	if (!statement) return err->status;
	do {
		TRY(query_step(reader, statement, ret_found, err));
		if (!*ret_found) return STATUS_OK;
	} while (skip(context, (const char *)sqlite3_column_text(statement, 1)));
	snprintf(found.job_id, sizeof found.job_id, "%s", (const char *)sqlite3_column_text(statement, 0));
	found.attempts = sqlite3_column_int(statement, 2);
	found.due_at = sqlite3_column_int64(statement, 3);
	TRY(column_copy(statement, 1, &found.url, err));
	*ret = found;
	return STATUS_OK;
}

enum status db_notification_next(struct db *db, notification_skip *skip, void *context, bool *ret_found, struct notification *ret,
				 struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = read_next(reader, skip, context, ret_found, ret, err);
	read_end(db, reader);
	return status;
}

enum status db_notification_done(struct db *db, const struct notification *notification, struct error *err)
{
	TRY(write_begin(db, err));
	enum status status = execute(&db->writer, err, NULL, "DELETE FROM notifications WHERE job_id = ?1 AND url = ?2", "ss",
				     notification->job_id, notification->url);
	return write_end(db, status, NULL, err);
}

enum status db_notification_delay(struct db *db, const struct notification *notification, int64_t due_at, struct error *err)
{
	TRY(write_begin(db, err));
	enum status status = execute(&db->writer, err, NULL,
				     "UPDATE notifications SET attempts = attempts + 1, due_at = ?3 WHERE job_id = ?1 AND url = ?2",
				     "ssi", notification->job_id, notification->url, due_at);
	return write_end(db, status, NULL, err);
}
