/* What is known of a job's inputs, so that a job that goes on, or ends, with others than it began with is noticed: two models in
 * one output would look right.
 *
 *   {"model": [{"file", "device", "inode", "size", "mtime", "sha256"}], "data": [{"file", "device", "inode", "size", "mtime"}]}
 *
 * Numbers are strings (64 bits); mtime is in nanoseconds. `sha256` is that of a shard's header, and of the whole of the config
 * and the tokenizer's files, which have no identity beside it: they may be written anew with the same content. */
#ifndef BESAD_ENGINE_INPUTS_H
#define BESAD_ENGINE_INPUTS_H

#include <cjson/cJSON.h>

#include "engine/model/model.h"
#include "engine/spec/spec.h"

/* *ret is freed with cJSON_Delete. A shard whose name is gone is described by what is open in `model`. */
enum status inputs_describe(const struct spec *, const struct model *model, cJSON **ret, struct error *err);

/* STATUS_INVALID, naming the first file that is not what it was. */
enum status inputs_compare(const cJSON *then, const cJSON *now, struct error *err);

#endif
