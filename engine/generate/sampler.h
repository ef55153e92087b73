/* The choice of the next token from the logits. */
#ifndef BESAD_ENGINE_GENERATE_SAMPLER_H
#define BESAD_ENGINE_GENERATE_SAMPLER_H

#include <stdint.h>

#include "base/error.h"

/* With temperature 0 the most likely token is taken, of equals the one with the smaller id. Else one is drawn from
 * softmax(logits / temperature), of the fewest tokens, the most likely first, that have `top_p` of it, one at least; all where
 * that is 1. */
struct sampling {
	double temperature, top_p;
	uint64_t seed;
};

struct sampler {
	struct sampling how;
	int64_t vocab;
	uint64_t drawn;  /* tokens so far */
	double *weights; /* [vocab] */
	int32_t *order;  /* [vocab] */
};

enum status sampler_create(struct sampling, int64_t vocab, struct sampler *ret, struct error *err);
void sampler_free(struct sampler *);

/* STATUS_NUMERIC where a logit is no number. */
enum status sampler_choose(struct sampler *, const float *logits, int32_t *ret, struct error *err);

#endif
