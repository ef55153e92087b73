#include "db/outputs.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "db/internal.h"

void holdings_free(struct holding *holdings, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(holdings[i].output);
	free(holdings);
}

static enum status read_all(struct connection *reader, const char *who, struct holding **list, size_t *count, struct error *err)
{
	size_t room = 0;
	sqlite3_stmt *statement = query(reader, err,
					"SELECT job_id, output FROM outputs WHERE who = ?1 UNION ALL SELECT id, NULL FROM jobs"
					" WHERE queued_by = ?1 AND state IN ('failed', 'cancelled')",
					"s", who);
	if (!statement) return err->status;
	for (;;) {
		bool row;
		TRY(query_step(reader, statement, &row, err));
		if (!row) return STATUS_OK;
		if (*count == room) {
			room = 2 * room + 16;
			struct holding *more = realloc(*list, room * sizeof *more);
			if (!more) return error_set(err, STATUS_NO_MEMORY, "no memory for a list of %zu outputs", room);
			*list = more;
		}
		struct holding *holding = &(*list)[(*count)++];
		*holding = (struct holding){0};
		copy_text(statement, 0, holding->job_id, sizeof holding->job_id);
		TRY(column_copy(statement, 1, &holding->output, err));
	}
}

enum status db_holdings(struct db *db, const char *who, struct holding **ret, size_t *ret_count, struct error *err)
{
	struct connection *reader;
	struct holding *list = NULL;
	size_t count = 0;
	TRY(read_begin(db, &reader, err));
	enum status status = read_all(reader, who, &list, &count, err);
	read_end(db, reader);
	if (status) {
		holdings_free(list, count);
		return status;
	}
	*ret = list;
	*ret_count = count;
	return STATUS_OK;
}

enum status db_output_gone(struct db *db, const struct holding *holding, struct error *err)
{
	TRY(write_begin(db, err));
	return write_end(db,
			 execute(&db->writer, err, NULL, "DELETE FROM outputs WHERE output = ?1 AND job_id = ?2", "ss",
				 holding->output, holding->job_id),
			 NULL, err);
}

/* ---- of jobs to come --------------------------------------------------------------------------------------------------------- */

#define BY_OUTPUT                                                                                                                  \
	"SELECT EXISTS (SELECT 1 FROM jobs WHERE state IN ('queued', 'running', 'cancelling', 'pausing', 'paused') AND output "

static enum status output_is_of_a_job(struct connection *connection, const char *output, bool *ret, struct error *err)
{
	int64_t found;
	TRY(query_integer(connection, query(connection, err, BY_OUTPUT "= ?1)", "s", output), &found, err));
	*ret = found > 0;
	return STATUS_OK;
}

/* Does an unfinished job write to a directory that holds `output`? Cuts it. */
static enum status holder_is_claimed(struct connection *connection, char *output, bool *ret, struct error *err)
{
	*ret = false;
	for (char *slash; !*ret && (slash = strrchr(output, '/')) != NULL;) {
		*slash = 0;
		TRY(output_is_of_a_job(connection, output, ret, err));
	}
	return STATUS_OK;
}

/* By the index on outputs: a queue may be long. */
enum status output_is_claimed(struct connection *connection, const char *output, bool *ret, struct error *err)
{
	int64_t inside;
	TRY(output_is_of_a_job(connection, output, ret, err));
	if (*ret) return STATUS_OK;
	/* '0' follows '/'. */
	TRY(query_integer(connection, query(connection, err, BY_OUTPUT "> ?1 || '/' AND output < ?1 || '0')", "s", output), &inside,
			  err));
	*ret = inside > 0;
	if (*ret) return STATUS_OK;
	char *copy = strdup(output);
	if (!copy) return error_set(err, STATUS_NO_MEMORY, "no memory for the name of an output");
	enum status status = holder_is_claimed(connection, copy, ret, err);
	free(copy);
	return status;
}
