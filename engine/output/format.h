/* In which form a job's output holds its tensors, and the writer that makes it:
 *
 *   a copy in which every tensor keeps its type and place (in_place.h): of a model that is not packed, unless the job packs
 *   packed linears (pack.h), where the spec's quantization is to be packed
 *   plain weights in new files: of a packed model, where it is not */
#ifndef BESAD_ENGINE_OUTPUT_FORMAT_H
#define BESAD_ENGINE_OUTPUT_FORMAT_H

#include "engine/model/model.h"
#include "engine/output/writer.h"
#include "engine/spec/spec.h"

/* How linears are packed in the output; 0 bits where they are not. */
struct packed_form format_packing(const struct spec *);

/* As in_place_open and rewrite_open. */
enum status format_open(const struct spec *, const struct model *, const struct place *work, struct writer **ret,
			struct error *err);

/* The bytes of the files that format_open makes. */
enum status format_bytes(const struct spec *, const struct model *, int64_t *ret, struct error *err);

#endif
