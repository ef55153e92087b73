/* The walk over a model's blocks: load, reference pass, learn, finish, write, checkpoint. */
#ifndef BESAD_ENGINE_PRUNE_H
#define BESAD_ENGINE_PRUNE_H

#include "engine/engine.h"
#include "engine/eval/probe.h"
#include "engine/job/progress.h"
#include "engine/model/model.h"
#include "engine/output/writer.h"
#include "engine/prune/savepoint.h"
#include "engine/text/corpus.h"

struct pruning {
	const struct engine_job *job;
	const struct model *model;
	struct backend *backend;
	const struct engine_sink *sink;
	struct progress *progress;
	struct savepoint *savepoint; /* its blocks grow */
	const cJSON *spec_json;
	struct writer *writer;
	enum dtype compute_type;
	const struct sequences *probe; /* tokens of the progress perplexity, of the calibration's length */
	const struct probe_plan *plan; /* of them */
	int device_streams;            /* how many of the two streams of hidden states may live on the device: 0, 1 or 2 */
	bool orders;                   /* whether the orders of ranks may be kept beside them: speed alone hangs on it */
};

/* The work of one block, in forward passes of its calibration tokens, as progress counts it. */
double prune_block_work(const struct spec *);

/* Takes, on a dry backend, the memory that prune_blocks takes, with the worst that routed experts can ask for. Nothing is read
 * of the weights, nothing written. *ret_device_streams: how many streams found room. */
enum status prune_rehearse(const struct pruning *, int *ret_device_streams, struct error *err);

/* Prunes the blocks that the savepoint does not have. `calibration` is used where it has none; later blocks go on from its
 * hidden states. */
enum status prune_blocks(const struct pruning *, const struct sequences *calibration, struct error *err);

#endif
