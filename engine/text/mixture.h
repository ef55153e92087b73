/* Calibration sequences from several files: in which order they stand. */
#ifndef BESAD_ENGINE_MIXTURE_H
#define BESAD_ENGINE_MIXTURE_H

#include "engine/text/corpus.h"

enum { MIXTURE_MAX_SOURCES = 16 };

struct mixture_source {
	struct data_source data;
	int64_t samples; /* at least 1 */
};

/* As corpus_calibration, from each source its samples, spread evenly over the result: every prefix of it has of each source the
 * number that its share asks for, within one. One source is corpus_calibration itself; of several, each has a seed of its own,
 * made from `seed`. */
enum status mixture_calibration(const struct mixture_source *sources, int count, const struct place *model, int64_t vocab,
				int64_t length, int64_t seed, const atomic_bool *stop, struct warnings *, struct sequences *ret,
				struct error *err);

#endif
