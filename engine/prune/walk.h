/* Everything that the walk over a model's blocks works with. */
#ifndef BESAD_ENGINE_WALK_H
#define BESAD_ENGINE_WALK_H

#include "engine/eval/probe.h"
#include "engine/methods/method.h"
#include "engine/model/block.h"
#include "engine/prune/pipeline.h"
#include "engine/prune/prune.h"
#include "engine/prune/stream.h"
#include "engine/stages/stage.h"

/* Everything that lives as long as the walk over the blocks. */
struct walk {
	const struct pruning *p;
	const struct spec *spec;
	const struct sequences *calibration; /* its tokens; NULL in a rehearsal */
	struct backend *backend;
	bool dense_stream; /* the reference comes from the dense model's own activations */
	struct block block;
	const struct method *method;
	void *state;                             /* the method's */
	const struct stage *stages[STAGES_MOST]; /* that follow it: n_stages */
	void *stage_states[STAGES_MOST];
	int n_stages;
	struct quantizer quantizer;     /* unused where weights are not quantized */
	struct activations activations; /* of the passes */
	struct probe probe;             /* without a plan where nothing is probed */
	int batch;                      /* sequences of a pass */
	struct tensor y;                /* F32 [batch · tokens, H] */
	void *losses;                   /* F64 [sequences], of the passes that tell them: STEP_RECONSTRUCTION is the first */
	double *host_losses;            /* the same */
	struct stream input, reference; /* X of the running block; its Y_ref (dense_stream: the dense model's hidden states) */
	float *rates;                   /* [rows of a block] */
	struct pipeline pipeline;
};

static inline bool walk_probes(const struct walk *w)
{
	return w->probe.plan != NULL;
}

/* Are the weights that are kept other ones than in the file? */
static inline bool walk_changes(const struct walk *w)
{
	return w->method->masters || w->n_stages > 0;
}

/* Magnitude pruning needs no data; without any there are no passes, and no reconstruction loss to report. */
static inline bool walk_calibrated(const struct walk *w)
{
	return w->spec->calibration.n_sources > 0;
}

/* ---- what is done with one (prune.c), for each walk over the blocks ---------------------------------------------------------- */

/* Takes its memory; `p`, `spec`, `backend`, `method`, `stages` and `dense_stream` are filled. On failure walk_destroy frees what
 * there is. */
enum status walk_create(struct walk *, struct error *err);
void walk_destroy(struct walk *);

/* STATUS_CANCELLED where the job is to stop. */
enum status walk_check_stop(const struct walk *, struct error *err);

/* What goes into the first block, into `input`. */
enum status walk_embed(struct walk *, const struct sequences *calibration, struct error *err);

/* The dense block's outputs into `reference`; the method sees the inputs of its products. `seen` [experts], where it is not
 * NULL, grows by the tokens that each expert gets. */
enum status walk_reference(struct walk *, int64_t *seen, struct error *err);

/* The reconstruction loss of each of the first `sequences`, with what is in block->active: ret [sequences]. Where `to` is not NULL,
 * the outputs go there; it may be one of the two that are read. */
enum status walk_losses(struct walk *, int64_t sequences, struct stream *to, double *ret, struct error *err);

/* The same of the first `tokens` of each, which attend to nothing behind them. */
enum status walk_losses_of_starts(struct walk *, int64_t sequences, int64_t tokens, double *ret, struct error *err);

/* For a rehearsal: as many sequences as make batches of every size, and a learning step that is recorded, the second one. */
int64_t walk_few_sequences(const struct walk *);

#endif
