/* The output of a job while it is made: a work directory, in which blocks are written as they are finished, and which publish.h
 * brings to its final name when it is whole. Two makers:
 *
 *   in_place_open (in_place.h)  a copy of the model in which every tensor keeps its type, shape and place
 *   rewrite_open (rewrite.h)    new safetensors files to a plan: other types and shapes, more tensors or fewer, in other shards
 *
 * They differ in how the files are made. What follows is the same for both: the shards are there at their full size with their
 * headers, so tensors are written in any order and in parts, and whoever opens the work directory of an earlier attempt again
 * finds all that was synced.
 *
 * An archive (engine/archive/) is made of either once all is written: what it takes depends on the values, so it cannot be laid
 * out before. */
#ifndef BESAD_ENGINE_WRITER_H
#define BESAD_ENGINE_WRITER_H

#include <cjson/cJSON.h>

#include "engine/model/checkpoint.h"

struct writer;

/* For the makers: opens the shards in a work directory where all files are made. `layout` says where the tensors lie in them,
 * and is borrowed; NULL: what the shards themselves say. Shards of other sizes than it has are STATUS_INVALID. */
enum status writer_open(const struct place *work, const struct checkpoint *layout, struct writer **ret, struct error *err);

/* Where the tensors lie in the shards. */
const struct checkpoint *writer_layout(const struct writer *);

/* A model that can be opened, at any time; what is not written yet is as it was in the input, or zeros where that lacks it. */
const struct place *writer_place(const struct writer *);

/* Writes `bytes` of the output's tensor of that name from its byte `at` on, in the type it has there. Not yet durable. */
enum status writer_write(struct writer *, const char *tensor, int64_t at, const void *data, size_t bytes, struct error *err);

/* Moves what is known of each part that was written since the last call to the array `list`: ["tensor", its first byte, bytes,
 * "CRC-32 in hex"]. Not beside a writer_write. */
enum status writer_take_sums(struct writer *, cJSON *list, struct error *err);

/* All that was written is on disk: a block may be committed. */
enum status writer_sync(struct writer *, struct error *err);

/* The same of the whole, behind which nothing is written and the directory may be published. */
enum status writer_finish(struct writer *, struct error *err);
void writer_close(struct writer *); /* takes NULL, and does not sync */

#endif
