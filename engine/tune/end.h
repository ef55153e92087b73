/* What follows the last block in a tune of the whole model: final norm and head, for how far the model is from the dense one.
 *
 *   n = norm(x)   l = n·Wᵀ   L = Σ_t KL(softmax(l_dense,t) ‖ softmax(l_t)) / T
 *
 * Logits are made for some tokens at a time. The head is the dense model's, in the compute type, and stays as it is; the final
 * norm is tuned. */
#ifndef BESAD_ENGINE_TUNE_END_H
#define BESAD_ENGINE_TUNE_END_H

#include "engine/model/model.h"

enum { END_VECTORS = 2 }; /* the final norm's weight, and its bias where it has one */

/* A vector that is tuned: F32 [1,H], without data where there is none. */
struct tuned_vector {
	struct tensor values, m, v, gradient;
};

struct end {
	const struct model_config *config;
	struct backend *backend;
	struct model_head dense;
	struct tuned_vector norm[END_VECTORS];
	int64_t rows;                 /* tokens whose logits are made at once */
	struct tensor normed;         /* compute type [rows, H] */
	struct tensor logits, wanted; /* F32 [rows, V] */
	struct tensor dlogits;        /* compute type; without data where that is F32: then it lies over the logits */
	struct tensor dnormed;        /* F32 [T, H] */
	struct tensor stats;          /* F32 [T, 2] */
	void *loss;                   /* F64 [STEP_STATS] */
	void *targets, *logprobs;     /* I32 [rows], F64 [rows] */
};

/* For batches of up to `tokens` tokens. The head is the model's, and the norm that of `stored`. */
enum status end_create(const struct model *, const struct model *stored, struct backend *, enum dtype compute_type, int64_t tokens,
		       struct end *ret, struct error *err);
void end_release(struct end *);

/* The loss of hidden states x F32 [T,H] behind the last block, those of the dense model being `wanted`: into end->loss, on the
 * device; dx F32 [T,H], and the norm's gradients. Fills the backend's error. */
enum status end_backward(struct end *, struct tensor dx, struct tensor x, struct tensor wanted);

/* ret[t] = log p(targets[t] | hidden row t), T targets on the host, with the norm as it is tuned. Fills the backend's error. */
enum status end_logprobs(struct end *, struct tensor x, const int32_t *targets, double *ret);

#endif
