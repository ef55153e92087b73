/* The safetensors format: u64 little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data. A
 * `checkpoint` is one file, or a set of shards with model.safetensors.index.json, read with pread: a file that is cut short while
 * a job runs is an error, not a SIGBUS, and a tensor's pages never count as the process's memory. */
#ifndef BESAD_ENGINE_SAFETENSORS_H
#define BESAD_ENGINE_SAFETENSORS_H

#include "engine/error.h"
#include "engine/place.h"
#include "engine/tensor.h"
#include "engine/warnings.h"

enum { SAFETENSORS_MAX_RANK = 8, SAFETENSORS_MAX_HEADER = 100 << 20 };

struct tensor_info {
	char *name;
	enum dtype dtype;
	const char
		*opaque; /* the name of a type that enum dtype lacks (dtype is then U8): it is copied with its file, but not read */
	int rank;
	int64_t shape[SAFETENSORS_MAX_RANK];
	int64_t offset, bytes; /* in the file, from its start */
	int shard;
};

/* Parses the head of one file, given as a buffer: the first 8 bytes and the header behind them. Checks that offsets are in order of
 * nothing, in range, without overlap or gap, and match dtype × shape. `path` names the file in errors; `file_size` is its size.
 * *ret_infos is an array of *ret_count, freed with tensor_infos_free. */
enum status safetensors_parse(const void *head, size_t head_bytes, int64_t file_size, const char *path,
			      struct tensor_info **ret_infos, size_t *ret_count, struct error *err);
void tensor_infos_free(struct tensor_info *infos, size_t count);

struct checkpoint {
	struct file *shards;
	char **shard_names; /* file names in the directory */
	int n_shards;
	struct tensor_info *tensors; /* sorted by name */
	size_t n_tensors;
};

/* Opens model.safetensors, or all shards that model.safetensors.index.json names (and checks that the index and the shards
 * agree). */
enum status checkpoint_open(const struct place *, struct warnings *, struct checkpoint *ret, struct error *err);
enum status checkpoint_open_file(const struct place *, struct checkpoint *ret, struct error *err); /* one safetensors file */
void checkpoint_close(struct checkpoint *);

/* NULL when there is none. */
const struct tensor_info *checkpoint_find(const struct checkpoint *, const char *name);

/* The whole tensor, in the file's dtype, into `buffer` of info->bytes. */
enum status checkpoint_read(const struct checkpoint *, const struct tensor_info *, void *buffer, struct error *err);

#endif
