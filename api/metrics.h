/* What is counted since the start of the process, for Prometheus. */
#ifndef BESAD_API_METRICS_H
#define BESAD_API_METRICS_H

#include "base/buffer.h"
#include "db/db.h"

struct metrics;

/* `backend` is the compute backend's name, kept. NULL when memory runs out. */
struct metrics *metrics_create(const char *backend);
void metrics_free(struct metrics *); /* takes NULL */

/* One answered request. `route` and `method` have static storage: the path pattern, and the method or "other". */
void metrics_count_request(struct metrics *, const char *route, const char *method, unsigned status, double seconds);

/* One attempt that ended in `state`. */
void metrics_count_job(struct metrics *, enum job_state state, double seconds);

/* One finished block; `reconstruction` is NaN where the method has none. */
void metrics_count_block(struct metrics *, double reconstruction, double seconds);

void metrics_count_streams(struct metrics *, int change);

/* The compute device right now, for all processes together. A negative value: it does not tell. */
struct device_reading {
	double utilisation; /* 0 to 1 */
	double watts, celsius;
	double memory_used, memory_total; /* bytes */
};
void metrics_set_device(struct metrics *, const struct device_reading *);
void metrics_get_device(struct metrics *, struct device_reading *ret); /* the last one set; at first all is unknown */

/* What besad holds on the disks, in bytes. */
struct state_reading {
	double database, checkpoints;
	double unfinished; /* outputs of jobs that failed or were cancelled */
	double held;       /* by these: their checkpoints, and their unfinished outputs */
	double limit;      /* of the first three together; negative for none */
};
void metrics_set_state(struct metrics *, const struct state_reading *);

/* Whether the queue is drained. */
void metrics_set_drained(struct metrics *, bool drained);

/* Appends everything in Prometheus' text format, with the jobs by state. */
void metrics_write(struct metrics *, const int64_t jobs[JOB_STATES], struct buffer *to);

#endif
