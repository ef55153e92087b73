/* Jobs that wait for others: whether they may, when they no longer wait, and that they fail with what they wait for. */
#include "base/clock.h"
#include "db/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char code[] = "dependency";

enum status dependencies_check(struct connection *connection, const struct submission *new, enum insert_outcome *outcome,
			       struct job *ret, struct error *err)
{
	for (size_t i = 0; i < new->n_depends_on; i++) {
		bool row;
		char state[16];
		struct job needed = {0};
		snprintf(needed.id, sizeof needed.id, "%s", new->depends_on[i]);
		sqlite3_stmt *statement = query(connection, err, "SELECT state FROM jobs WHERE id = ?1", "s", needed.id);
		if (!statement) return err->status;
		TRY(query_step(connection, statement, &row, err));
		copy_text(statement, 0, state, sizeof state);
		sqlite3_reset(statement);
		if (!row)
			*outcome = INSERT_DEPENDENCY_UNKNOWN;
		else if (!job_state_parse(state, &needed.state))
			return error_set(err, STATUS_INTERNAL, "job %s has the state '%s'", needed.id, state);
		else if (needed.state == JOB_FAILED || needed.state == JOB_CANCELLED)
			*outcome = INSERT_DEPENDENCY_FAILED;
		if (*outcome == INSERT_NEW) continue;
		*ret = needed;
		return STATUS_OK;
	}
	return STATUS_OK;
}

enum status dependencies_insert(struct connection *writer, const struct submission *new, struct error *err)
{
	for (size_t i = 0; i < new->n_depends_on; i++)
		TRY(execute(
			writer, err, NULL,
			"INSERT INTO dependencies (job_id, needs, done) SELECT ?1, id, state = 'succeeded' FROM jobs WHERE id = ?2",
			"ss", new->id, new->depends_on[i]));
	if (!new->n_depends_on) return STATUS_OK;
	return execute(
		writer, err, NULL,
		"UPDATE jobs SET blockers = (SELECT count(*) FROM dependencies WHERE job_id = ?1 AND NOT done) WHERE id = ?1", "s",
		new->id);
}

enum status dependencies_met(struct connection *writer, const char *id, struct error *err)
{
	TRY(execute(writer, err, NULL,
		    "UPDATE jobs SET blockers = blockers - 1 WHERE id IN (SELECT job_id FROM dependencies WHERE needs = ?1 AND NOT "
		    "done)",
		    "s", id));
	return execute(writer, err, NULL, "UPDATE dependencies SET done = 1 WHERE needs = ?1", "s", id);
}

/* The listener is to hear of that job too. */
static enum status tell(struct connection *writer, const char *id, struct error *err)
{
	char(*more)[JOB_ID_BYTES] = realloc(writer->told, (writer->n_told + 1) * sizeof *more);
	if (!more) return error_set(err, STATUS_NO_MEMORY, "no memory for the jobs that depend on one");
	writer->told = more;
	snprintf(more[writer->n_told++], JOB_ID_BYTES, "%s", id);
	return STATUS_OK;
}

/* Those that wait for `id` itself have failed; the writer's `told` has them behind what it had. */
static enum status fail_next(struct connection *writer, const char *id, const char *message, struct error *err)
{
	sqlite3_stmt *statement =
		query(writer, err,
		      "UPDATE jobs SET state = 'failed', error_code = ?2, error_message = ?3, finished_at = ?4"
		      " WHERE id IN (SELECT job_id FROM dependencies WHERE needs = ?1) AND state IN ('queued', 'paused')"
		      " RETURNING id",
		      "sssi", id, code, message, unix_milliseconds());
	if (!statement) return err->status;
	for (;;) {
		bool row;
		char failed[JOB_ID_BYTES];
		TRY(query_step(writer, statement, &row, err));
		if (!row) return STATUS_OK;
		copy_text(statement, 0, failed, sizeof failed);
		TRY(tell(writer, failed, err));
	}
}

static enum status fail_dependants_of(struct connection *writer, const char *id, enum job_state state, struct error *err)
{
	char message[96], *data;
	size_t first = writer->n_told;
	snprintf(message, sizeof message, "it depends on job %s, which %s", id,
		 state == JOB_CANCELLED ? "was cancelled" : "has failed");
	TRY(fail_next(writer, id, message, err));
	if (writer->n_told == first) return STATUS_OK;
	TRY(failure_json(writer, code, message, &data, err));
	enum status status = STATUS_OK;
	for (size_t i = first; !status && i < writer->n_told; i++)
		status = event_insert(writer, writer->told[i], "job.failed", data, err);
	free(data);
	return status;
}

enum status dependants_fail(struct connection *writer, const char *id, enum job_state state, struct error *err)
{
	char failed[JOB_ID_BYTES];
	size_t next = writer->n_told;
	TRY(fail_dependants_of(writer, id, state, err));
	while (next < writer->n_told) { /* which grows */
		memcpy(failed, writer->told[next++], sizeof failed);
		TRY(fail_dependants_of(writer, failed, JOB_FAILED, err));
	}
	return STATUS_OK;
}

enum status dependencies_are_lost(struct connection *connection, const char *id, bool *ret, struct error *err)
{
	sqlite3_stmt *statement =
		query(connection, err,
		      "SELECT 1 FROM dependencies d LEFT JOIN jobs n ON n.id = d.needs WHERE d.job_id = ?1 AND NOT d.done"
		      " AND (n.id IS NULL OR n.state IN ('failed', 'cancelled')) LIMIT 1",
		      "s", id);
	if (!statement) return err->status;
	TRY(query_step(connection, statement, ret, err));
	sqlite3_reset(statement);
	return STATUS_OK;
}
