/* A packed safetensors file (pack_file.h), opened: checked, restored, read. Everything in it is checked before it is used, so a
 * damaged file is STATUS_INVALID, whatever the damage. */
#ifndef BESAD_ENGINE_ARCHIVE_FILE_H
#define BESAD_ENGINE_ARCHIVE_FILE_H

#include <stdatomic.h>

#include "engine/archive/packing.h"

struct archived_tensor {
	struct tensor_info info; /* in the file that was packed; the name is the archive's */
	struct packing_entry entry;
	struct packing packing; /* unless it is plain */
	int64_t *offsets;       /* of the blocks in the values, and their end, which lies within them */
	uint8_t lengths[HUFFMAN_SYMBOLS];
	int64_t mask_at, values_at; /* in the archive */
};

struct archive_file {
	const struct file *file;
	char *head;                      /* what the packed file begins with */
	int64_t head_bytes, file_bytes;  /* of the packed file */
	int64_t own_head_bytes;          /* of the archive */
	struct archived_tensor *tensors; /* sorted by name */
	size_t count;
	struct tensor_info *infos; /* theirs */
};

/* Borrows `file`. *ret is freed with archive_file_close. */
enum status archive_file_open(const struct file *file, struct archive_file *ret, struct error *err);
void archive_file_close(struct archive_file *);

/* Reads all tensors and compares their checksums; with `to`, a new file of file_bytes, also writes what was packed. Not yet
 * durable. `stop` may be NULL. */
enum status archive_file_restore(const struct archive_file *, const struct file *to, const atomic_bool *stop, struct error *err);

#endif
