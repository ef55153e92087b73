/* Pieces of a file, worked on by all threads, each piece with the buffers of the thread that it falls to. */
#ifndef BESAD_ENGINE_ARCHIVE_PARALLEL_H
#define BESAD_ENGINE_ARCHIVE_PARALLEL_H

#include <stdatomic.h>

#include "engine/archive/block.h"

/* Bytes of a tensor that are worked on at once, or one block of it where that has more. */
enum { PIECE_BYTES = 1 << 20 };

enum piece_buffer { PIECE_DENSE, PIECE_MASK, PIECE_VALUES, PIECE_BUFFERS };

struct piece_room {
	void *buffers[PIECE_BUFFERS];
	size_t bytes[PIECE_BUFFERS];
	struct block_room block;
	struct block_code code;
};

/* A buffer of at least that size, with what it held gone. */
enum status piece_buffer(struct piece_room *, enum piece_buffer, size_t bytes, void *ret, struct error *err);

/* A part of a tensor: blocks of a packed one, bytes of a plain one. */
struct piece {
	size_t tensor;
	int64_t begin, end; /* blocks, or bytes */
	int64_t at, bytes;  /* where the part lies in the tensor, as that is without an archive */
	uint32_t crc32;     /* of these bytes, and how many values were kept: what the work finds */
	int64_t values;
};

struct pieces {
	struct piece *items;
	size_t count, room;
};

/* Adds those of a tensor of `bytes`, by the blocks of a packing, or by bytes where it is NULL. */
enum status pieces_add(struct pieces *, size_t tensor, const struct packing *, int64_t bytes, struct error *err);
void pieces_free(struct pieces *);

/* The checksum of the tensor that the pieces from `first` on make; *ret_next is behind its last one. */
uint32_t pieces_crc32(const struct pieces *, size_t first, size_t *ret_next);

typedef enum status (*piece_work)(void *context, struct piece *, struct piece_room *, struct error *err);

/* Works on all of them. STATUS_CANCELLED once *stop is true (it may be NULL); else the failure of one piece that failed, behind
 * which no other was begun. */
enum status pieces_work(struct pieces *, piece_work, void *context, const atomic_bool *stop, struct error *err);

#endif
