/* The events of a job without a database: a file of JSON Lines, {"id", "type", "created_at", "data"} each, that is only appended to.
 *
 * Crash safety. A line counts once its newline is there; what a kill left behind the last newline is cut off when the journal is
 * opened again. A durable line is synced before journal_append returns, together with all lines before it. */
#ifndef BESAD_DAEMON_JOURNAL_H
#define BESAD_DAEMON_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/file.h"

struct journal {
	struct file file;
	int64_t end;     /* where the next line goes */
	int64_t last_id; /* 0 when there is no event */
	int attempts;    /* job.started events */
	int blocks_done; /* block.finished events */
	cJSON *told;     /* array: {type, data} of the events that are told once */
	char *result;    /* data of job.succeeded, or NULL */
};

/* Opens the journal, or makes it. */
enum status journal_open(const char *path, struct journal *ret, struct error *err);
void journal_close(struct journal *);

/* Has an earlier attempt told this event, which is one that is told once? */
bool journal_has(const struct journal *, const char *type, const cJSON *data);

/* Appends an event with the next id; `data` is JSON, `at` in milliseconds since 1970. */
enum status journal_append(struct journal *, const char *type, const char *data, int64_t at, bool durable, struct error *err);

#endif
