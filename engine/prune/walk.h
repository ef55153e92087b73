/* What the files of the walk over a model's blocks share: prune.c prunes a block, finish.c brings it to disk. */
#ifndef BESAD_ENGINE_WALK_H
#define BESAD_ENGINE_WALK_H

#include "engine/eval/probe.h"
#include "engine/methods/method.h"
#include "engine/model/block.h"
#include "engine/prune/background.h"
#include "engine/prune/prune.h"
#include "engine/prune/stream.h"

/* Where the time of a block goes. */
enum phase { PHASE_LOAD, PHASE_REFERENCE, PHASE_RANK, PHASE_LEARN, PHASE_FINAL, PHASE_WRITE, PHASE_PROBE, PHASE_COUNT };

/* Of the linears of one kind, or of one expert. */
struct part_result {
	double rate; /* the mean over the rows */
	int64_t rows, zeros, params;
};

struct block_result {
	int index;
	double reconstruction, perplexity, seconds;
	double phases[PHASE_COUNT], mark; /* seconds; monotonic time when the running phase began */
	int64_t zeros, params;
	struct part_result kinds[LAYOUT_MAX_KINDS];
	struct part_result *experts; /* [layout.experts] */
	int64_t *seen;               /* the calibration tokens of each expert, [layout.experts] */
};

enum status block_result_create(const struct block_layout *, int index, struct block_result *ret, struct error *err);
void block_result_release(struct block_result *);

/* Everything that lives as long as the walk over the blocks. */
struct walk {
	const struct pruning *p;
	const struct spec *spec;
	struct backend *backend;
	bool dense_stream; /* the reference comes from the dense model's own activations */
	struct block block;
	const struct method *method;
	void *state;                    /* the method's */
	struct activations activations; /* of the passes */
	struct probe probe;             /* without a plan where nothing is probed */
	int batch;                      /* sequences of a pass */
	struct tensor y;                /* F32 [batch · tokens, H] */
	void *stats;                    /* F64 [STEP_STATS] */
	struct stream input, reference; /* X of the running block; its Y_ref (dense_stream: the dense model's hidden states) */
	float *rates;                   /* [rows of a block] */
	void *weights;                  /* host room for the largest linear, in the file's type */

	/* The block before the running one, on its way to disk: nothing else is written to its masked weights and to the hidden states behind it
	 * meanwhile. Events of the running block wait until it is committed. */
	struct background
		*background;   /* NULL where the device's memory is the host's: there the processor has its hands full, and copies
					  beside it hold up its threads for longer than the disk does */
	bool pending, writing; /* not committed; the background is on it */
	struct block_result last;
	struct tensor last_weights[FUSED_COUNT]; /* what block.weight was, and block.spare is once the next block is loaded */
	struct stream last_outputs;              /* what `input` was, which owns it */
	struct event *held;                      /* n_held of them, and room for more */
	int n_held, room_held;
	int next; /* the block to fetch */
};

static inline bool walk_probes(const struct walk *w)
{
	return w->probe.plan != NULL;
}

/* Magnitude pruning needs no data; without any there are no passes, and no reconstruction loss to report. */
static inline bool walk_calibrated(const struct walk *w)
{
	return w->spec->calibration.n_sources > 0;
}

/* Writes the masked weights of a block, which are in `weights` on the device, and counts its zeros. Safe beside operations that do not write
 * to them, as the next is. */
enum status finish_weights(struct walk *w, struct block_result *result, const struct tensor weights[FUSED_COUNT],
			   struct error *err);

/* Saves the hidden states behind block `index`: `outputs`, the dense model's, and the probe's. */
enum status finish_streams(struct walk *w, int index, const struct stream *outputs, struct error *err);

/* Commits a block that is written: the savepoint, the caller's commit, and the end of what the block started from. */
enum status finish_commit(struct walk *w, const struct block_result *result, struct error *err);

#endif
