/* What goes by itself: files of jobs that are forgotten, and jobs that ended long ago (--keep-succeeded, --keep-failed) or for
 * which there is no more room (--max-state-bytes). */
#ifndef BESAD_DAEMON_SWEEP_H
#define BESAD_DAEMON_SWEEP_H

#include "api/metrics.h"
#include "daemon/options.h"
#include "db/db.h"

/* Removes a job's unfinished output and, last, because start-up finds forgotten jobs by it, its checkpoint, below `checkpoints`. */
void sweep_files(const struct options *, const char *checkpoints, const char *job_id);

/* The files of jobs that were deleted, or succeeded, just before a crash. */
void sweep_forgotten(const struct options *, struct db *, const char *checkpoints);

/* What the files below a directory take on the disk. */
double bytes_below(const char *path);

/* What a job's checkpoint and its unfinished output take. */
double bytes_of_job(const struct options *, const char *checkpoints, const char *job_id);

/* What besad holds on the disks. */
enum status sweep_measure(const struct options *, struct db *, const char *checkpoints, struct state_reading *ret,
			  struct error *err);

enum sweep_rule { SWEEP_KEEP_SUCCEEDED, SWEEP_KEEP_FAILED, SWEEP_MAX_STATE };
const char *sweep_rule_name(enum sweep_rule);

struct removal {
	struct ended_job job;
	enum sweep_rule rule;
	double bytes; /* that it holds: files and rows */
};

/* What the rules would remove. */
struct sweep_plan {
	struct removal *removals; /* those that were kept long enough, then what is beyond the bound: each in the order in which
				     they ended */
	size_t count;
	double bytes;
	struct state_reading state; /* before anything goes */
};

/* Changes nothing. Freed with sweep_plan_free. */
enum status sweep_plan(const struct options *, struct db *, const char *checkpoints, struct sweep_plan *ret, struct error *err);
void sweep_plan_free(struct sweep_plan *);

/* Forgets these jobs as if each had been deleted; outputs stay. Leaves in the plan those that went by it. Gives back what the
 * database does not need. */
enum status sweep_apply(const struct options *, struct db *, const char *checkpoints, struct sweep_plan *, struct error *err);

/* Plans and applies until nothing is left to do, and has the metrics tell what there is then; logs what cannot be. */
void sweep_jobs(const struct options *, struct db *, const char *checkpoints, struct metrics *);

#endif
