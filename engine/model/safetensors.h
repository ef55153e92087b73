/* The safetensors format: u64 little-endian header length, a JSON header {name: {dtype, shape, data_offsets}}, then the data.
 * The header is read as a stream, with limits, so that what it takes in memory is the list of its tensors and no more. */
#ifndef BESAD_ENGINE_SAFETENSORS_H
#define BESAD_ENGINE_SAFETENSORS_H

#include "base/buffer.h"
#include "base/error.h"
#include "base/file.h"
#include "engine/compute/tensor.h"

enum {
	SAFETENSORS_MAX_RANK = 8,
	SAFETENSORS_MAX_HEADER = 100 << 20,
	SAFETENSORS_MAX_TENSORS = 1 << 19,
	SAFETENSORS_LENGTH_BYTES = 8
};

struct packed;

struct tensor_info {
	char *name;
	enum dtype dtype;
	const char
		*opaque; /* the name of a type that enum dtype lacks (dtype is then U8): it is copied with its file, but not read */
	int rank;
	int64_t shape[SAFETENSORS_MAX_RANK];
	int64_t offset, bytes; /* in the file, from its start */
	int shard;
	const struct packed
		*packed; /* how it is stored where it is packed (packed.h): then `offset` counts from its own start; else NULL */
};

/* Parses the head of one file, given as a buffer: the first 8 bytes and the header behind them. Checks that offsets are in order of
 * nothing, in range, without overlap or gap, and match dtype × shape, and that no name comes twice. `path` names the file in
 * errors; `file_size` is its size. *ret_infos is an array of *ret_count, sorted by name, freed with tensor_infos_free. */
enum status safetensors_parse(const void *head, size_t head_bytes, int64_t file_size, const char *path,
			      struct tensor_info **ret_infos, size_t *ret_count, struct error *err);
enum status safetensors_read(const struct file *, struct tensor_info **ret_infos, size_t *ret_count,
			     struct error *err); /* of a file */
/* What the first bytes of a file say of the length of the header behind them; unchecked. */
uint64_t safetensors_header_length(const unsigned char head[SAFETENSORS_LENGTH_BYTES]);

/* The bytes that a tensor of that type and shape takes. */
enum status stored_bytes(const struct tensor_info *, int64_t *ret, struct error *err);

/* The name of its type in a file, and the bytes of one element (1 where it has fewer bits). */
const char *stored_type_name(const struct tensor_info *);
size_t stored_width(const struct tensor_info *);

/* A tensor as a header has it: "name":{...}, with offset and bytes as they are given. */
void safetensors_print_entry(struct buffer *, const struct tensor_info *);

/* Calls `use` with each text of a file's __metadata__, in order. STATUS_INVALID for what is no text there, and for keys and
 * texts beyond JSON_STREAM_TEXT bytes. */
typedef enum status (*safetensors_metadata_fn)(void *context, const char *key, const char *text, struct error *err);
enum status safetensors_metadata(const struct file *, safetensors_metadata_fn use, void *context, struct error *err);

/* Lays a file out as the safetensors library does: the widest types first, in one type by name, without holes. Of each tensor
 * name, type and shape are given, offset and bytes are set, and `infos` is sorted. *ret_head is what the file begins with, its
 * header padded to a multiple of 8 bytes; the caller frees it with buffer_free. `path` names the file in errors: STATUS_INVALID
 * for what safetensors_read would refuse. */
enum status safetensors_lay_out(struct tensor_info **infos, size_t count, const char *path, struct buffer *ret_head,
				int64_t *ret_file_size, struct error *err);
void tensor_infos_free(struct tensor_info *infos, size_t count);

#endif
