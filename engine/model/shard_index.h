/* model.safetensors.index.json: {"metadata": {…}, "weight_map": {tensor: file}}, read as a stream: what it takes in memory is
 * the list of the files. */
#ifndef BESAD_ENGINE_SHARD_INDEX_H
#define BESAD_ENGINE_SHARD_INDEX_H

#include "base/error.h"
#include "base/file.h"
#include "base/json_stream.h"

enum { SHARD_INDEX_MAX_BYTES = 64 << 20, SHARD_INDEX_MAX_SHARDS = 10000 };

/* Called for each entry of the weight map. Names beyond JSON_STREAM_TEXT bytes are refused before. */
typedef enum status (*shard_index_fn)(void *context, const char *tensor, const char *shard, struct error *err);

/* Reads a whole index from a stream at its start. Checks that it is an object with a weight map of plain file names. */
enum status shard_index_walk(struct json_stream *, shard_index_fn use, void *context, struct error *err);

/* A stream at the start of an index file; STATUS_INVALID for a file that is too large, or a git-lfs pointer. `file` is borrowed. */
enum status shard_index_start(const struct file *file, struct json_stream *ret, struct error *err);

/* The files that an index names, sorted, NULL-terminated; *ret_count of them, at least one. The caller frees the names and the
 * list. */
enum status shard_index_files(struct json_stream *, char ***ret_names, int *ret_count, struct error *err);

#endif
