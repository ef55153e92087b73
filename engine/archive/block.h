/* One block of rows of a packed tensor: counted, packed and restored. Nothing here knows of files; blocks are independent of
 * each other. */
#ifndef BESAD_ENGINE_ARCHIVE_BLOCK_H
#define BESAD_ENGINE_ARCHIVE_BLOCK_H

#include "engine/archive/packing.h"

enum { BLOCK_NIBBLES = 16 };

/* Of floats of `bits` bits, those that are not zero: whose bits are not all zero, so -0.0 counts. With `symbols`, which is zeroed,
 * how often each exponent is among these; `bits` is 16 then. */
int64_t block_count(const void *dense, int64_t elements, int bits, uint32_t symbols[HUFFMAN_SYMBOLS]);

/* Of codes, how often each byte is there, and each half of a byte. */
void block_count_codes(const uint8_t *dense, int64_t bytes, uint32_t ret_bytes[HUFFMAN_SYMBOLS],
		       uint32_t ret_nibbles[BLOCK_NIBBLES]);

/* What lies beside each other while a block is packed or restored. Freed with block_room_free. */
struct block_room {
	void *values; /* of a block, and one more */
	uint8_t *symbols;
	size_t elements, value_bytes; /* of the largest block there is room for */
};

enum status block_room_make(const struct packing *, struct block_room *, struct error *err); /* grows what is there */
void block_room_free(struct block_room *);

/* The code of a tensor's exponents, or of its codes, for both ways. */
struct block_code {
	uint8_t lengths[HUFFMAN_SYMBOLS];
	uint16_t codes[HUFFMAN_SYMBOLS], table[HUFFMAN_TABLE];
};

/* The bytes of a block's values, in a file: `values` of them, whose symbols take `bits` where they are coded. A multiple of
 * ARCHIVE_ALIGNMENT. */
int64_t block_bytes(const struct packing *, int64_t values, uint64_t bits);

/* Beyond what any block takes, whatever its code. */
int64_t block_most_bytes(const struct packing *);

/* Packs block `block`, whose rows begin at `dense`, into `mask` (block_rows * stride bytes; unused without a bitmap) and
 * `values` (the bytes of block_bytes, which are at most block_most_bytes). `code` is used where the symbols are coded. Returns
 * the bytes of values. */
int64_t block_pack(const struct packing *, int64_t block, const struct block_code *code, const void *dense, struct block_room *,
		   uint8_t *mask, uint8_t *values);

/* Restores what block_pack has packed; `bytes` of values are there. NULL, or what is wrong with them: nothing but what
 * block_pack writes for some rows is taken. *ret_values is how many values were there. */
const char *block_restore(const struct packing *, int64_t block, const struct block_code *code, const uint8_t *mask,
			  const uint8_t *values, size_t bytes, struct block_room *, void *ret_dense, int64_t *ret_values);

#endif
