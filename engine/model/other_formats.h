/* Weights in formats that besad does not read: what is there, and how to make safetensors of it. */
#ifndef BESAD_ENGINE_OTHER_FORMATS_H
#define BESAD_ENGINE_OTHER_FORMATS_H

#include "base/place.h"

/* Fills `err` for a model directory that has neither model.safetensors nor its index; STATUS_NOT_FOUND, or STATUS_UNSUPPORTED
 * where other weights are there. */
enum status other_formats_error(const struct place *, struct error *err);

#endif
