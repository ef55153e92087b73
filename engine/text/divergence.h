/* How unlike two texts are, by how often each token stands in them. */
#ifndef BESAD_ENGINE_DIVERGENCE_H
#define BESAD_ENGINE_DIVERGENCE_H

#include "engine/text/corpus.h"

/* Fewer tokens of a text are of few subjects, and their halves nearer to each other than to anything else of their kind. */
enum { DIVERGENCE_SAMPLE = 1000, DIVERGENCE_TEXT = 32000 };

/* The Jensen–Shannon divergence (Lin 1991), in bits, between the tokens of `sample` and the latter half of `text`, less that
 * between the first half of `text` and the latter: about 0 where the sample could be a part of the text, at most 1. What is
 * compared with the latter half is equally long in both, so that the length, on which a divergence depends, counts for nothing.
 * NaN where one of them is shorter than the above. All ids are from 0 to below `vocab`. STATUS_NO_MEMORY. */
enum status token_divergence(const struct sequences *sample, const struct sequences *text, int64_t vocab, double *ret,
			     struct error *err);

#endif
