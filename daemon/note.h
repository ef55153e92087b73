/* What a job's log (GET /v1/jobs/{id}/log) has beside its events; it is for clients, who know nothing of the operator's paths. */
#ifndef BESAD_DAEMON_NOTE_H
#define BESAD_DAEMON_NOTE_H

#include "daemon/log.h"
#include "db/db.h"

/* A line more in the log of the job, where there is such a job and it can be written: no job waits for that. */
void note_of_job(struct db *, const char *id, enum log_level, const char *format, ...) __attribute__((format(printf, 4, 5)));

#endif
