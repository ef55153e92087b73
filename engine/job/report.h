/* What a finished job says of itself: the `result` of the job contract and besad.json in the output directory. */
#ifndef BESAD_ENGINE_REPORT_H
#define BESAD_ENGINE_REPORT_H

#include "engine/engine.h"
#include "engine/prune/savepoint.h"
#include "engine/text/corpus.h"

struct report {
	const struct engine_job *job;
	const struct savepoint *savepoint;
	const cJSON *spec;
	const cJSON *pruned;           /* {dataset: perplexity} */
	const cJSON *pruned_tasks;     /* {task: score} */
	const cJSON *hardware;         /* of hardware_report; NULL for nothing */
	double checked_loss;           /* that the output's files give (engine/job/self_check.h); NaN for none */
	const struct sequences *probe; /* of the progress perplexity; count 0 where there was none */
	const char *probe_source;      /* the name of its data set, or "calibration" */
	const char *output;            /* its name, as in the result; NULL when the job made none */
	const char *device;
	const char *replaced; /* where what stood in the output's place is kept, below the output root; NULL for nothing */
	double seconds;       /* of this attempt */
};

/* {"output", "sparsity", "zeros", "params", "perplexity": {name: {"dense", "pruned", "sequence_length"}}, "seconds", …}; the
 * caller frees it. */
cJSON *report_result(const struct report *);

/* Writes besad.json into the directory `work`: the spec, the result, the blocks and what they were computed with, and `artifacts`
 * (engine/output/artifacts.h). */
enum status report_write(const struct report *, const cJSON *result, const cJSON *artifacts, const struct place *work,
			 struct error *err);

#endif
