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

#endif
