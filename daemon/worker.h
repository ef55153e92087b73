/* The worker: one thread that claims jobs from the queue and runs the engine on them. */
#ifndef BESAD_DAEMON_WORKER_H
#define BESAD_DAEMON_WORKER_H

#include <stdbool.h>

#include "api/metrics.h"
#include "daemon/health.h"
#include "daemon/notifier.h"
#include "daemon/options.h"
#include "db/db.h"
#include "engine/compute/backend.h"

struct worker;

struct worker_config {
	struct db *db;
	struct metrics *metrics;
	struct notifier *notifier;
	struct health *health;
	const struct options *options;
	const char *checkpoints; /* the directory with a directory per job */
	bool unsound, died;      /* the queue is to be recovered before a job is claimed; of a process that died (db_recover) */
};

/* Takes the backend when it succeeds. The thread starts with worker_start. */
enum status worker_create(const struct worker_config *, struct backend *, struct worker **ret, struct error *err);
enum status worker_start(struct worker *, struct error *err);

void worker_wake(struct worker *);                       /* there is a job to claim */
void worker_interrupt(struct worker *);                  /* stops the running job, which is queued again and goes on where it was */
void worker_cancel(struct worker *, const char *job_id); /* stops that job if it is the running one; its row says why */
void worker_tick(struct worker *);                       /* about once a second: deadlines */
bool worker_is_ready(struct worker *);

/* The bytes of the device's memory that a job can have when none runs. False where that is not known, and where the device has
 * no memory of its own. */
bool worker_device_room(struct worker *, size_t *ret);

/* A number that changes as long as all is well: always while the worker is idle, else whenever the engine has got on. */
unsigned long worker_pulse(struct worker *);

/* NULL, or, once the process has lost the CUDA device and the worker has stopped for it, the job and where it stood: a worker
 * that is told this (WORKER_LOST in the environment) by the process before it does not take the same step a third time. */
const char *worker_device_lost(struct worker *);
#define WORKER_LOST "BESAD_DEVICE_LOST"

/* Stops the running job at its next step, leaves it queued with its checkpoint, and ends the thread. */
void worker_stop(struct worker *);
void worker_free(struct worker *); /* stopped; takes NULL */

#endif
