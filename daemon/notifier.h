/* Tells of jobs' ends: the web address that a job asked for, with back-off until it answers, and the operator's program. */
#ifndef BESAD_DAEMON_NOTIFIER_H
#define BESAD_DAEMON_NOTIFIER_H

#include "daemon/options.h"
#include "db/db.h"

struct notifier;

/* Starts its thread. `options` and `db` must outlive it. */
enum status notifier_start(const struct options *, struct db *, struct notifier **ret, struct error *err);

/* A job has ended; whom to tell is in the database. */
void notifier_job_ended(struct notifier *);

/* Breaks off what is under way; what is left in the database is sent after the next start. Takes NULL. */
void notifier_stop(struct notifier *);

#endif
