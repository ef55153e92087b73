/* Log-probabilities of tokens from the hidden states behind the last block: final norm, head, log-softmax. */
#ifndef BESAD_ENGINE_SCORER_H
#define BESAD_ENGINE_SCORER_H

#include "engine/model/model.h"

/* The head, and room for the logits of some rows at once. */
struct scorer {
	const struct model *model;
	struct backend *backend;
	struct model_head head;
	int64_t rows;
	struct tensor normed, logits, stats;
	void *targets, *logprobs; /* I32 [rows], F64 [rows] */
};

/* `rows` is how many are asked for at once, mostly; fewer are computed together where the vocabulary is large. Products are in
 * `type`. */
enum status scorer_create(const struct model *, struct backend *, enum dtype type, int64_t rows, struct scorer *ret,
			  struct error *err);
void scorer_release(struct scorer *);

/* ret[t] = log p(targets[t] | hidden row t) for hidden F32 [T,H] on the device and T targets on the host. */
enum status scorer_logprobs(const struct scorer *, struct tensor hidden, const int32_t *targets, double *ret, struct error *err);

/* *sum += the log-probabilities of ids[1 … length − 1] given hidden states [length, H] of ids[0 … length − 1]. `room` has length
 * doubles. */
enum status scorer_next_tokens(const struct scorer *, struct tensor hidden, const int32_t *ids, double *room, double *sum,
			       struct error *err);

#endif
