/* How much device memory a job takes, from its sizes alone: what the engine allocates for a block (engine/model/block.c,
 * engine/prune/) and what the CUDA backend's operations take on top. tests/cuda/test_plan.c holds it to what is really allocated.
 * Leave a margin of a few percent: memory that is handed out again may be up to an eighth larger than asked for. */
#ifndef BESAD_CUDA_PLAN_H
#define BESAD_CUDA_PLAN_H

#include <stdbool.h>

#include "engine/compute/tensor.h"

struct plan_sizes {
	int64_t hidden, intermediate, heads, kv_heads, head_dim, vocab;
	int64_t sequences, tokens; /* of the calibration set; tokens per sequence */
	int64_t learn_batch;       /* sequences of a learning step; 0 where nothing is learned */
	int64_t pass_batch;        /* sequences of a pass that learns nothing */
	int64_t probe_sequences;   /* of the progress perplexity; 0 where none is taken */
	int candidates;
	int experts, experts_per_token;     /* 0 where there are none */
	bool qk_norm, output_norms;         /* as in struct model_config */
	bool plain_mlp;                     /* no gate */
	bool layer_norm;                    /* norms have biases */
	bool local_rope;                    /* sliding layers have a rope table of their own */
	bool by_row;                        /* a rate per row, else per linear */
	bool records;                       /* as in struct workload */
	enum dtype file_type, compute_type; /* of the weights: as stored, and as products take them */
	int streams_on_device; /* of the two hidden-state streams: 0, 1 or 2; each of the others takes room for two batches */
	int processors;        /* the device's multiprocessors */
};

/* Bytes. */
struct plan {
	size_t weights; /* of a block: frozen and active */
	size_t spare;   /* the frozen weights of a second block, on its way from or to disk */
	size_t ranks;
	size_t learning;    /* bins, θ and the optimizer's state, outputs and their gradients */
	size_t activations; /* of the passes, and of the learning step */
	size_t streams;     /* hidden states */
	size_t probe;       /* hidden states of the progress perplexity, and the head */
	size_t scratch;     /* the most that operations take for their own length, and cuBLASLt's workspace */
	size_t pruning;     /* all of these */
	size_t evaluation;  /* the peak of evaluating perplexity, hidden states left out */
	size_t peak;        /* the larger of the two */
};

void plan_predict(const struct plan_sizes *, struct plan *ret);

/* The most streams on the device (2, 1, 0) with which `available` bytes suffice, in ret_sizes->streams_on_device; false where even none
 * does. *ret is the plan with that many. */
bool plan_fit(struct plan_sizes *sizes, size_t available, struct plan *ret);

#endif
