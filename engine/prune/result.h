/* What comes out of pruning one block, and how block.finished tells it. */
#ifndef BESAD_ENGINE_RESULT_H
#define BESAD_ENGINE_RESULT_H

#include <stdint.h>

#include <cjson/cJSON.h>

#include "base/error.h"
#include "engine/model/masters.h"
#include "engine/quantize/grids.h"
#include "engine/spec/spec.h"

/* Where the time of a block goes. */
enum phase {
	PHASE_LOAD,
	PHASE_REFERENCE,
	PHASE_RANK,
	PHASE_LEARN,
	PHASE_REFIT,
	PHASE_FINAL,
	PHASE_WRITE,
	PHASE_PROBE,
	PHASE_COUNT
};

/* Of the linears of one kind, or of one expert. */
struct part_result {
	double rate; /* the mean over the rows */
	int64_t rows, zeros, params;
};

struct block_result {
	int index;
	double target; /* as in struct block_task */
	double reconstruction, perplexity, seconds;
	double start;                     /* the reconstruction loss that its method began with; NaN for none */
	double phases[PHASE_COUNT], mark; /* seconds; monotonic time when the running phase began */
	int64_t zeros, params;
	struct part_result kinds[LAYOUT_MAX_KINDS];
	struct part_result *experts;   /* [layout.experts] */
	int64_t *seen;                 /* the calibration tokens of each expert, [layout.experts] */
	struct stored_vectors vectors; /* those that are to be written too; none where they stay as they were */
	struct grids grids;            /* of weights that are written packed; none where they are not */
};

enum status block_result_create(const struct block_layout *, int index, struct block_result *ret, struct error *err);
void block_result_release(struct block_result *);

/* The data of block.finished. `blocks`: how many the model has; `probe_dense`: what the perplexity is to be compared with, or
 * NaN. */
cJSON *block_result_json(const struct block_result *, const struct block_layout *, const struct spec *, int blocks,
			 double probe_dense);

/* Writes the zeros that `result` has counted, and what follows from them, over those in such data. STATUS_NO_MEMORY is the only
 * failure. */
enum status block_result_recount(const struct block_result *, const struct block_layout *, cJSON *data, struct error *err);

#endif
