/* The events of a job without a database: a file of JSON Lines, {"id", "type", "created_at", "data"} each, that is only appended
 * to.
 *
 * Crash safety. A line counts once its newline is there; what a kill left behind the last newline is cut off when the journal is
 * opened again, and so is all from a line on that has zeros in it: a power cut may leave those of lines that were not synced. A
 * durable line is synced before journal_append returns, together with all lines before it. */
#ifndef BESAD_ENGINE_JOURNAL_H
#define BESAD_ENGINE_JOURNAL_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "base/file.h"
#include "engine/job/recorder.h"

struct journal {
	struct file file;
	int64_t end;     /* where the next line goes */
	int64_t last_id; /* 0 when there is no event */
	int attempts;    /* job.started events */
	int blocks_done; /* block.finished events */
	cJSON *told;     /* {type: [data]} of the events that are told once */
	char *result;    /* data of job.succeeded, or NULL */
};

/* Opens the journal, or makes it. */
enum status journal_open(const char *path, struct journal *ret, struct error *err);
void journal_close(struct journal *);

/* The journal as an event_store (engine/job/recorder.h): `find` knows the types that are told once, as the journal was when it
 * was opened. */
enum status journal_find(void *journal, const char *type, cJSON *list, struct error *err);
enum status journal_append(void *journal, const struct record *, struct error *err);

#endif
