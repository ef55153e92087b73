/* How a tensor lies in an archive (docs/format.md): its shape as rows and columns, cut into blocks of rows, and what the blocks
 * are made of. */
#ifndef BESAD_ENGINE_PACKING_H
#define BESAD_ENGINE_PACKING_H

#include <stdbool.h>

#include "base/buffer.h"
#include "engine/archive/huffman.h"
#include "engine/model/safetensors.h"

enum {
	ARCHIVE_VERSION = 1,
	ARCHIVE_ALIGNMENT = 64,
	ARCHIVE_BLOCK_ROWS = 16,      /* of the blocks that besad writes */
	ARCHIVE_MIN_COLUMNS = 64,     /* a tensor with fewer stays as it is */
	ARCHIVE_MAX_COLUMNS = 1 << 20 /* and one with more */
};

/* Whether what is not zero is told by a bitmap, and whether the exponents (of codes: they themselves) have Huffman codes. */
enum archive_encoding { ARCHIVE_PLAIN, ARCHIVE_MASK, ARCHIVE_MASK_CODED, ARCHIVE_CODED, ARCHIVE_ENCODINGS };

static inline bool encoding_has_mask(enum archive_encoding encoding)
{
	return encoding == ARCHIVE_MASK || encoding == ARCHIVE_MASK_CODED;
}

static inline bool encoding_is_coded(enum archive_encoding encoding)
{
	return encoding == ARCHIVE_MASK_CODED || encoding == ARCHIVE_CODED;
}

struct packing {
	enum archive_encoding encoding;
	int64_t rows, cols; /* all dimensions but the last are rows */
	int64_t block_rows; /* of every block but the last, which may have fewer */
	int64_t blocks;
	int64_t stride; /* bytes of a row of the bitmap */
	int bits;       /* of a value: 16 or 32 of floats; 4 or 8 of codes, as an I32 holds 8 or 4 of them */
	uint8_t zero; /* of codes: the one that the bitmap leaves out. What is packed is each code XOR this one, so 0 is left out */
};

/* Whether a tensor of that type and shape can be packed as values of so many bits, and whether as those of any. */
bool packing_fits(const struct tensor_info *, int bits);
bool packing_fits_any(const struct tensor_info *);

/* For a tensor that packing_fits, in blocks of `block_rows`. `zero` is 0 for floats. */
struct packing packing_of(const struct tensor_info *, enum archive_encoding, int bits, uint8_t zero, int64_t block_rows);

static inline bool packing_has_codes(const struct packing *p)
{
	return p->bits < 16;
}

static inline int64_t packing_rows(const struct packing *p, int64_t block)
{
	int64_t left = p->rows - block * p->block_rows;
	return left < p->block_rows ? left : p->block_rows;
}

/* Bytes of a block: of the tensor, and of the bitmap. The tensor's may end before its last block does. */
static inline int64_t packing_block_bytes(const struct packing *p)
{
	return p->block_rows * p->cols * p->bits / 8;
}

static inline int64_t packing_block_mask_bytes(const struct packing *p)
{
	return encoding_has_mask(p->encoding) ? p->block_rows * p->stride : 0;
}

static inline int64_t archive_align(int64_t bytes)
{
	return (bytes + ARCHIVE_ALIGNMENT - 1) / ARCHIVE_ALIGNMENT * ARCHIVE_ALIGNMENT;
}

/* Bytes of the tensors beside a packed one's values: the bitmap of all blocks, the blocks' offsets, the lengths of the codes. */
int64_t packing_mask_bytes(const struct packing *);
int64_t packing_offsets_bytes(const struct packing *);
int64_t packing_lengths_bytes(const struct packing *);

/* Whether the values lie in a tensor of bytes, and not in one of the packed tensor's type. */
static inline bool packing_values_are_bytes(const struct packing *p)
{
	return encoding_is_coded(p->encoding) || packing_has_codes(p);
}

/* ---- what an archive's header says of a tensor ----------------------------------------------------------------------------- */

#define ARCHIVE_HEAD ":head"
#define ARCHIVE_MASK_SUFFIX ":mask"
#define ARCHIVE_OFFSETS_SUFFIX ":offsets"
#define ARCHIVE_VALUES_SUFFIX ":values"
#define ARCHIVE_LENGTHS_SUFFIX ":lengths"
#define ARCHIVE_TENSOR_PREFIX "tensor:"

struct packing_entry {
	enum archive_encoding encoding;
	int bits; /* these three are 0 where it is plain */
	uint8_t zero;
	int64_t block_rows;
	int64_t nonzeros; /* values kept, where there is a bitmap */
	uint32_t crc32;   /* of the tensor's bytes */
};

/* The text of an entry, JSON. `info` is of the tensor as it was. */
void packing_print(const struct packing_entry *, const struct tensor_info *info, struct buffer *ret);

/* The 8 digits of a checksum; false for other text. `text` may be NULL. */
bool packing_parse_crc32(const char *text, uint32_t *ret);

/* Reads one back, and compares it with the tensor that it is to be. `path` names the archive in errors. */
enum status packing_parse(const char *text, const struct tensor_info *info, const char *path, struct packing_entry *ret,
			  struct error *err);

#endif
