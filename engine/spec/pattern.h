/* The pattern of a spec's zeros, and the sparsity that goes with it. */
#ifndef BESAD_ENGINE_SPEC_PATTERN_H
#define BESAD_ENGINE_SPEC_PATTERN_H

#include "engine/spec/descriptor.h"

/* As spec_row.parse: "unstructured" or "N:M" into spec->pattern and its name; the method must take patterns, and the columns of
 * the model's linears be multiples of M. */
void pattern_parse(struct spec_parser *, const struct fields *, const struct spec_row *, void *at);

/* As spec_row.parse, of the sparsity: with a pattern it may be left out. */
void pattern_parse_sparsity(struct spec_parser *, const struct fields *, const struct spec_row *, void *at);

#endif
