/* The GGUF container, version 3: a header of typed pairs of keys and values, the list of tensors, then their data, each at a
 * multiple of GGUF_ALIGNMENT bytes. All numbers are little-endian; dimensions are listed from the innermost on. Specified in
 * ggml's docs/gguf.md. */
#ifndef BESAD_ENGINE_EXPORT_GGUF_H
#define BESAD_ENGINE_EXPORT_GGUF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/buffer.h"
#include "base/error.h"
#include "engine/export/blocks.h"

enum { GGUF_ALIGNMENT = 32, GGUF_MAX_NAME = 64, GGUF_MAX_RANK = 2 };

struct gguf_tensor {
	char name[GGUF_MAX_NAME];
	enum block_type type;
	int rank;
	int64_t rows, cols;    /* a vector is one row */
	int64_t offset, bytes; /* in the file, set by gguf_lay_out */
};

/* What a file begins with, while it is put together. Zeroed to begin with; freed with gguf_free. Pairs and tensors keep their
 * order. */
struct gguf {
	struct buffer pairs;
	uint64_t n_pairs;
	struct gguf_tensor *tensors;
	size_t count, room;
	bool no_memory;
};

void gguf_u32(struct gguf *, const char *key, uint32_t value);
void gguf_f32(struct gguf *, const char *key, double value);
void gguf_bool(struct gguf *, const char *key, bool value);
void gguf_text(struct gguf *, const char *key, const char *text);

/* Begins an array of `count` elements, which the caller adds. */
enum gguf_element { GGUF_I32 = 5, GGUF_F32 = 6, GGUF_TEXT = 8 };
void gguf_array(struct gguf *, const char *key, enum gguf_element, uint64_t count);
void gguf_add_i32(struct gguf *, int32_t);
void gguf_add_f32(struct gguf *, float);
void gguf_add_text(struct gguf *, const char *text, size_t bytes);

/* Adds a tensor, of which `offset` and `bytes` are not set yet. */
void gguf_tensor(struct gguf *, const struct gguf_tensor *);

/* Gives each tensor its place, and *ret_head, what stands before the first, padded to its offset; the caller frees it with
 * buffer_free. STATUS_NO_MEMORY also where that was missing before. */
enum status gguf_lay_out(struct gguf *, struct buffer *ret_head, int64_t *ret_file_size, struct error *err);
void gguf_free(struct gguf *);

/* `bytes` up to the next multiple of GGUF_ALIGNMENT. */
static inline int64_t gguf_pad(int64_t bytes)
{
	return (bytes + GGUF_ALIGNMENT - 1) / GGUF_ALIGNMENT * GGUF_ALIGNMENT;
}

#endif
