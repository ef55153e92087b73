/* The events of a job's run: one table of how each is kept, and one builder for each. */
#ifndef BESAD_ENGINE_EVENT_H
#define BESAD_ENGINE_EVENT_H

#include <stdbool.h>
#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "engine/job/diagnosis.h"

struct engine_sink;

enum event_type {
	EVENT_JOB_STARTED,
	EVENT_JOB_SUCCEEDED,
	EVENT_WARNING,
	EVENT_EVAL_FINISHED,
	EVENT_TASK_FINISHED,
	EVENT_BLOCK_STARTED,
	EVENT_BLOCK_STEP,
	EVENT_BLOCK_FINISHED,
	EVENT_TUNE_STEP,
	EVENT_TYPES,
};

struct event_kind {
	const char *name;
	bool once;     /* told once in a job: a later attempt that comes to it again with the same data is not heard */
	bool durable;  /* on disk before the job goes on */
	bool optional; /* where it cannot be kept, the job goes on without */
};
extern const struct event_kind event_kinds[EVENT_TYPES];

/* Is the event of that name one that is told once? */
bool event_is_once(const char *name);

struct event {
	enum event_type type;
	int64_t at;  /* when it happened, in milliseconds since 1970: it may be told later */
	cJSON *data; /* owned */
};

/* The builders take the time. Events that a later attempt may tell again (block.started, block.step, tune.step) say which
 * attempt they are of. */
struct event event_job_started(int attempt, int blocks_done);
struct event event_job_succeeded(const cJSON *result); /* copies `result` */
struct event event_warning(const char *message);
struct event event_finding(const struct finding *); /* a warning too */
struct event event_evaluation(const char *dataset, const char *model, double perplexity);
struct event event_task(const char *task, const char *model, const cJSON *score); /* copies `score` */
struct event event_block_started(int block, int blocks, int attempt);

/* What a learning step reached. */
struct event_step {
	const char *stage; /* that takes it; NULL: the method */
	int step, steps;
	double loss, reconstruction, sparsity;
};
struct event event_block_step(int block, const struct event_step *, int attempt);
struct event event_block_finished(cJSON *data); /* takes `data` */
struct event event_tune_step(int step, int steps, double loss, int attempt);

/* A block that is done again, after a crash, must come to what was told of it, but for times: else the events and the output
 * would be of two runs, and it is STATUS_INVALID. Both are data of block.finished. */
enum status event_check_block(const cJSON *told, const cJSON *again, struct error *err);

/* Hands the event to the sink, and frees it. */
enum status event_tell(const struct engine_sink *, struct event *, struct error *err);

#endif
