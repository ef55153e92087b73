/* What goes by itself: files of jobs that are forgotten, and jobs that ended long ago (--keep-succeeded, --keep-failed). */
#ifndef BESAD_DAEMON_SWEEP_H
#define BESAD_DAEMON_SWEEP_H

#include "daemon/options.h"
#include "db/db.h"

/* Removes a job's unfinished output and, last, because start-up finds forgotten jobs by it, its checkpoint, below `checkpoints`. */
void sweep_files(const struct options *, const char *checkpoints, const char *job_id);

/* The files of jobs that were deleted, or succeeded, just before a crash. */
void sweep_forgotten(const struct options *, struct db *, const char *checkpoints);

/* The bytes of checkpoints and unfinished outputs of jobs that have ended. */
double sweep_held(const struct options *, struct db *, const char *checkpoints);

/* Forgets jobs that ended longer ago than they are kept, as if each had been deleted; outputs stay. Gives back what the database does not need. */
void sweep_jobs(const struct options *, struct db *, const char *checkpoints);

#endif
