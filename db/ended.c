/* Jobs that have ended: which of them a rule may forget, and what they take in the database. */
#include "db/internal.h"

#include <stdio.h>
#include <stdlib.h>

static enum status read_row(sqlite3_stmt *statement, struct ended_job *ret, struct error *err)
{
	const char *id = (const char *)sqlite3_column_text(statement, 0), *state = (const char *)sqlite3_column_text(statement, 1);
	if (!id || !state) return error_set(err, STATUS_NO_MEMORY, "database: no memory for a job's id");
	snprintf(ret->id, sizeof ret->id, "%s", id);
	ret->finished_at = sqlite3_column_int64(statement, 2);
	return job_state_parse(state, &ret->state) ? STATUS_OK
						   : error_set(err, STATUS_INTERNAL, "job %s has the state '%s'", id, state);
}

static enum status read_ended(struct connection *reader, const struct ended_filter *filter, struct ended_job **jobs, size_t *count,
			      struct error *err)
{
	size_t room = 0;
	sqlite3_stmt *statement =
		query(reader, err,
		      "SELECT id, state, finished_at FROM jobs WHERE ((state = 'succeeded' AND finished_at <= ?1)"
		      " OR (state IN ('failed', 'cancelled') AND finished_at <= ?2))"
		      " AND NOT EXISTS (SELECT 1 FROM notifications n WHERE n.job_id = jobs.id AND (n.url <> '' OR ?3))"
		      " ORDER BY finished_at, id",
		      "iii", filter->succeeded_by, filter->failed_by, (int64_t)filter->program);
	if (!statement) return err->status;
	for (;;) {
		bool row;
		TRY(query_step(reader, statement, &row, err));
		if (!row) return STATUS_OK;
		if (*count == room) {
			room = 2 * room + 16;
			struct ended_job *more = realloc(*jobs, room * sizeof *more);
			if (!more) return error_set(err, STATUS_NO_MEMORY, "no memory for a list of %zu jobs", room);
			*jobs = more;
		}
		TRY(read_row(statement, &(*jobs)[*count], err));
		++*count;
	}
}

enum status db_ended_list(struct db *db, const struct ended_filter *filter, struct ended_job **ret, size_t *ret_count,
			  struct error *err)
{
	struct connection *reader;
	struct ended_job *jobs = NULL;
	size_t count = 0;
	TRY(read_begin(db, &reader, err));
	enum status status = read_ended(reader, filter, &jobs, &count, err);
	read_end(db, reader);
	if (status) {
		free(jobs);
		return status;
	}
	*ret = jobs;
	*ret_count = count;
	return STATUS_OK;
}

static enum status read_bytes(struct connection *reader, sqlite3_stmt *statement, int64_t *ret, struct error *err)
{
	bool row;
	if (!statement) return err->status;
	TRY(query_step(reader, statement, &row, err));
	*ret = row ? sqlite3_column_int64(statement, 0) : 0;
	return STATUS_OK;
}

enum status db_job_bytes(struct db *db, const char *id, int64_t *ret, struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = read_bytes(reader,
					query(reader, err,
					      "SELECT length(spec) + coalesce(length(places), 0) + coalesce(length(result), 0)"
					      " + coalesce(length(request), 0)"
					      " + (SELECT coalesce(sum(length(data)), 0) FROM events WHERE job_id = jobs.id)"
					      " + (SELECT coalesce(sum(length(data)), 0) FROM blocks WHERE job_id = jobs.id)"
					      " + (SELECT coalesce(sum(length(text)), 0) FROM notes WHERE job_id = jobs.id)"
					      " FROM jobs WHERE id = ?1",
					      "s", id),
					ret, err);
	read_end(db, reader);
	return status;
}

enum status db_bytes(struct db *db, int64_t *ret, struct error *err)
{
	struct connection *reader;
	TRY(read_begin(db, &reader, err));
	enum status status = read_bytes(reader,
					query(reader, err,
					      "SELECT (page_count - freelist_count) * page_size"
					      " FROM pragma_page_count, pragma_freelist_count, pragma_page_size",
					      ""),
					ret, err);
	read_end(db, reader);
	return status;
}
