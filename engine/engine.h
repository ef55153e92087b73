/* besad's pruning library: no HTTP, no SQL. It gets a job, a backend, a sink for events and a flag that says stop.
 *
 * Durability. `engine_run` keeps what it needs to go on in `checkpoint_dir`, and calls `sink.commit_block` for each finished
 * block, in order. A caller that stores the commits durably and passes their number back as `blocks_done` in a later call gets
 * the same bytes as from an uninterrupted run. That call goes on behind the last block that was saved, which may be before the
 * last one that was committed: then commit_block is called again for those between. The output directory appears under its name
 * only when it is whole. */
#ifndef BESAD_ENGINE_ENGINE_H
#define BESAD_ENGINE_ENGINE_H

#include <stdatomic.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "engine/compute/backend.h"
#include "engine/job/event.h"
#include "engine/spec/spec.h"

/* Where progress goes. Every callback runs on the thread that called engine_run, takes ownership of nothing (the event is the
 * engine's and dies after the call), and may fail: engine_run then stops and returns that status. */
struct engine_sink {
	void *context;

	/* An event of the job contract, other than block.finished. */
	enum status (*event)(void *context, const struct event *event, struct error *err);

	/* Block `block` is finished: commits it and its block.finished event in one transaction. A block that an earlier attempt
	 * has committed is done again: what is told of it now must agree with what was told then (event_check_block), and is not
	 * kept. */
	enum status (*commit_block)(void *context, int block, const struct event *event, struct error *err);

	/* Phase and progress, often; cheap. phase: "loading", "evaluating dense", "allocating", "pruning", "tuning",
	 * "checking", "evaluating", "writing". eta_seconds
	 * < 0 where it is not known yet. */
	void (*progress)(void *context, const char *phase, int block, int blocks, double fraction, double eta_seconds);
};

struct engine_job {
	const struct spec *spec;
	struct place output;        /* what the result is renamed to; this and the next two are borrowed */
	struct place work;          /* the unfinished output, on the same file system */
	struct place aside;         /* where what `output` replaces is kept, likewise */
	const char *checkpoint_dir; /* absolute path of a directory only this job uses; exists */
	const char
		*scores_dir; /* that all jobs share (engine/eval/dense_scores.h); NULL: what the dense model gives is found anew */
	int blocks_done;     /* blocks committed by earlier attempts */
	double save_every;   /* seconds between two saves; 0: each block is saved; < 0: as the backend asks for */
	const char *job_id;  /* for besad.json; "" outside a daemon */
	int attempt;         /* 1, 2, … */
	const atomic_bool *stop; /* read at least once per learning step */
};

/* Runs a whole job. On success *ret_result is the `result` object of the job contract (the caller frees it with cJSON_Delete).
 * STATUS_CANCELLED when the stop flag was raised; the checkpoint stays. Where the output is there already, and may not be
 * replaced, it is that of the same job, of the same spec and inputs, whose result is given again, or STATUS_EXISTS or
 * STATUS_INVALID. */
enum status engine_run(const struct engine_job *, struct backend *, const struct engine_sink *, cJSON **ret_result, struct error *);

/* What a job will take. Bytes. */
struct engine_need {
	const char *precision; /* what it computes in: "f32" or "bf16" */
	size_t device;         /* the backend's memory, the most in use at once */
	bool device_fits;      /* into what was said to be available */
	size_t process;    /* host memory beside what a process has that runs no job; `device` is part of it where the backend is
			   unified */
	int64_t output;    /* files of the output */
	int64_t savepoint; /* files in checkpoint_dir, the most at once */
	int64_t blocks;    /* of the model */
	int64_t params, params_per_token; /* weights of a block's linears, and how many of them a token multiplies */
};

/* Finds out what a job would take, without starting it: by dry runs of its evaluation and pruning, and by reading its evaluation
 * data (whose length says how much memory they take), but neither weights nor calibration. Writes nothing. Of `job` only `spec`,
 * `stop` and `job_id` are used. `backend` is dry, or is used by nobody else meanwhile; `available`: bytes of the device that the
 * job can have, SIZE_MAX where that is not known. */
enum status engine_estimate(const struct engine_job *, struct backend *, size_t available, struct engine_need *ret, struct error *);

/* Token-blocks that pruning one block takes, as progress counts them: how many times one token goes through the block. */
double engine_block_work(const struct spec *);

/* Removes what an abandoned job left: its work directory and the contents of its checkpoint directory. */
enum status engine_discard(const struct engine_job *, struct error *);

#endif
