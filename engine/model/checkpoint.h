/* The tensors of a model directory: one safetensors file, or a set of shards with model.safetensors.index.json, read with pread:
 * a file that is cut short while a job runs is an error, not a SIGBUS, and a tensor's pages never count as the process's memory.
 *
 * Where a tensor lies is what the headers of the files say. The index gives the list of shards; what it says of tensors and the
 * headers contradict is a warning, as it changes nothing: transformers reads in the same way. */
#ifndef BESAD_ENGINE_CHECKPOINT_H
#define BESAD_ENGINE_CHECKPOINT_H

#include <stdbool.h>

#include "base/error.h"
#include "base/place.h"
#include "base/warnings.h"
#include "engine/model/safetensors.h"

#define CHECKPOINT_SINGLE_NAME "model.safetensors"
#define CHECKPOINT_INDEX_NAME "model.safetensors.index.json"

struct checkpoint {
	struct file *shards;
	char **shard_names; /* file names in the directory */
	int n_shards;
	struct tensor_info *tensors; /* sorted by name */
	size_t n_tensors;
	struct tensor_info *repeated; /* the same tensors in shards before the one that is read, sorted by name */
	size_t n_repeated;
	struct packed *packed; /* what packed_find put into `tensors` (packed.h) */
	size_t n_packed;
};

/* Opens model.safetensors, or else all shards that model.safetensors.index.json names. `warnings` may be NULL. */
enum status checkpoint_open(const struct place *, struct warnings *, struct checkpoint *ret, struct error *err);
enum status checkpoint_open_file(const struct place *, struct checkpoint *ret, struct error *err); /* one safetensors file */
void checkpoint_close(struct checkpoint *);

/* NULL when there is none. */
const struct tensor_info *checkpoint_find(const struct checkpoint *, const char *name);

/* Those of `repeated` that have the name, *ret_count of them. */
const struct tensor_info *checkpoint_repeats(const struct checkpoint *, const char *name, size_t *ret_count);

/* The whole tensor, in the file's dtype, into `buffer` of info->bytes; of a packed one its weights. */
enum status checkpoint_read(const struct checkpoint *, const struct tensor_info *, void *buffer, struct error *err);

/* Whether two tensors have the same type and bytes; a packed one has not. */
enum status checkpoint_same(const struct checkpoint *, const struct tensor_info *a, const struct tensor_info *b, bool *ret,
			    struct error *err);

#endif
