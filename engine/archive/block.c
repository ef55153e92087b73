#include "engine/archive/block.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

/* A 16-bit float is cut in two bytes: a symbol, its bits 7 to 14 (the exponent of a bf16, that of an f16 and the three bits
 * behind it), and the rest: the sign and the seven lowest bits. */
static inline uint8_t symbol_of(uint16_t value)
{
	return (uint8_t)(value >> 7);
}

static inline uint8_t rest_of(uint16_t value)
{
	return (uint8_t)((value >> 8 & 0x80) | (value & 0x7f));
}

static inline uint16_t joined(uint8_t symbol, uint8_t rest)
{
	return (uint16_t)((rest & 0x80) << 8 | symbol << 7 | (rest & 0x7f));
}

int64_t block_count(const void *dense, int64_t elements, size_t width, uint32_t symbols[HUFFMAN_SYMBOLS])
{
	const uint16_t *halves = dense;
	const uint32_t *words = dense;
	int64_t nonzeros = 0;
	if (width == 4)
		for (int64_t i = 0; i < elements; i++)
			nonzeros += words[i] != 0;
	else if (!symbols)
		for (int64_t i = 0; i < elements; i++)
			nonzeros += halves[i] != 0;
	else {
		for (int64_t i = 0; i < elements; i++) {
			symbols[symbol_of(halves[i])]++;
			nonzeros += halves[i] != 0;
		}
		symbols[0] -= (uint32_t)(elements - nonzeros);
	}
	return nonzeros;
}

enum status block_room_make(const struct packing *p, struct block_room *room, struct error *err)
{
	size_t elements = (size_t)(p->block_rows * p->cols), slack = ARCHIVE_ALIGNMENT;
	if (elements <= room->elements) return STATUS_OK;
	block_room_free(room);
	room->values = malloc((elements + slack) * sizeof(uint32_t));
	room->symbols = malloc(elements + slack);
	room->rest = malloc(elements + slack);
	if (!room->values || !room->symbols || !room->rest)
		return error_set(err, STATUS_NO_MEMORY, "no memory for a block of %zu values", elements);
	room->elements = elements;
	return STATUS_OK;
}

void block_room_free(struct block_room *room)
{
	free(room->values);
	free(room->symbols);
	free(room->rest);
	*room = (struct block_room){0};
}

/* The bytes before the codes: a byte of each value, filled up to whole words. */
static size_t rest_bytes(int64_t values)
{
	return ((size_t)values + 7) / 8 * 8;
}

int64_t block_bytes(const struct packing *p, int64_t values, uint64_t bits)
{
	if (!encoding_is_coded(p->encoding)) return archive_align(values * (int64_t)p->width);
	return archive_align((int64_t)(rest_bytes(values) + (bits + 7) / 8));
}

int64_t block_most_bytes(const struct packing *p)
{
	/* A byte and a code of at most HUFFMAN_MAX_BITS, or the value. */
	return p->block_rows * p->cols * 4 + ARCHIVE_ALIGNMENT;
}

/* ---- bitmaps ------------------------------------------------------------------------------------------------------------- */

/* The compilers make moves of these loops' conditions, so that they take the same time whatever is zero. */
#define DEFINE_WIDTH(type)                                                                                                         \
	/* Writes one value behind the last. Returns their number. */                                                              \
	static size_t squeeze_##type(const type *dense, int64_t rows, int64_t cols, int64_t stride, uint8_t *mask, type *values)   \
	{                                                                                                                          \
		size_t n = 0;                                                                                                      \
		for (int64_t row = 0; row < rows; row++, dense += cols, mask += stride)                                            \
			for (int64_t col = 0; col < cols; col += 64) {                                                             \
				int64_t end = cols - col < 64 ? cols - col : 64;                                                   \
				uint64_t bits = 0;                                                                                 \
				for (int64_t j = 0; j < end; j++) {                                                                \
					type value = dense[col + j];                                                               \
					values[n] = value;                                                                         \
					n += value != 0;                                                                           \
					bits |= (uint64_t)(value != 0) << j;                                                       \
				}                                                                                                  \
				memcpy(mask + col / 8, &bits, sizeof bits);                                                        \
			}                                                                                                          \
		return n;                                                                                                          \
	}                                                                                                                          \
                                                                                                                                   \
	/* Reads one value behind the last. Returns whether none of those that the bitmap tells of is zero. */                     \
	static bool spread_##type(const uint8_t *mask, int64_t rows, int64_t cols, int64_t stride, const type *values,             \
				  type *dense)                                                                                     \
	{                                                                                                                          \
		size_t n = 0;                                                                                                      \
		for (int64_t row = 0; row < rows; row++, dense += cols, mask += stride)                                            \
			for (int64_t col = 0; col < cols; col += 64) {                                                             \
				int64_t end = cols - col < 64 ? cols - col : 64;                                                   \
				uint64_t bits;                                                                                     \
				memcpy(&bits, mask + col / 8, sizeof bits);                                                        \
				for (int64_t j = 0; j < end; j++) {                                                                \
					type there = (type)(bits >> j & 1);                                                        \
					dense[col + j] = (type)(values[n] & (type)-there);                                         \
					n += there;                                                                                \
				}                                                                                                  \
			}                                                                                                          \
		bool none = false;                                                                                                 \
		for (size_t i = 0; i < n; i++)                                                                                     \
			none |= values[i] == 0;                                                                                    \
		return !none;                                                                                                      \
	}

DEFINE_WIDTH(uint16_t)
DEFINE_WIDTH(uint32_t)

/* The values that a bitmap tells of; -1 where it has bits beyond its rows and columns. */
static int64_t count_bits(const struct packing *p, int64_t rows, const uint8_t *mask)
{
	int64_t count = 0, words = p->stride / 8;
	uint64_t outside = 0, last = p->cols % 64 ? ~UINT64_C(0) << (p->cols % 64) : 0;
	for (int64_t row = 0; row < p->block_rows; row++)
		for (int64_t i = 0; i < words; i++) {
			uint64_t bits;
			memcpy(&bits, mask + row * p->stride + 8 * i, sizeof bits);
			if (row >= rows)
				outside |= bits;
			else if (i == words - 1)
				outside |= bits & last;
			count += __builtin_popcountll(bits);
		}
	return outside ? -1 : count;
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

/* `count` values in the room, whose bytes in the file are at `to`. Returns the bytes, without what fills them up. */
static size_t store(const struct packing *p, const struct block_code *code, const void *values, size_t count,
		    struct block_room *room, uint8_t *to)
{
	const uint16_t *halves = values;
	if (!encoding_is_coded(p->encoding)) {
		memcpy(to, values, count * p->width);
		return count * p->width;
	}
	for (size_t i = 0; i < count; i++) {
		to[i] = rest_of(halves[i]);
		room->symbols[i] = symbol_of(halves[i]);
	}
	size_t before = rest_bytes((int64_t)count);
	memset(to + count, 0, before - count);
	return before + huffman_encode(code->codes, code->lengths, room->symbols, count, to + before);
}

int64_t block_pack(const struct packing *p, int64_t block, const struct block_code *code, const void *dense,
		   struct block_room *room, uint8_t *mask, uint8_t *values)
{
	int64_t rows = packing_rows(p, block);
	size_t count = (size_t)(rows * p->cols);
	const void *kept = dense;
	if (encoding_has_mask(p->encoding)) {
		count = p->width == 2 ? squeeze_uint16_t(dense, rows, p->cols, p->stride, mask, room->values)
				      : squeeze_uint32_t(dense, rows, p->cols, p->stride, mask, room->values);
		kept = room->values;
		memset(mask + rows * p->stride, 0, (size_t)((p->block_rows - rows) * p->stride));
	}
	size_t bytes = store(p, code, kept, count, room, values);
	memset(values + bytes, 0, (size_t)archive_align((int64_t)bytes) - bytes);
	return archive_align((int64_t)bytes);
}

static bool is_zero(const uint8_t *bytes, size_t count)
{
	uint8_t any = 0;
	for (size_t i = 0; i < count; i++)
		any |= bytes[i];
	return any == 0;
}

/* The values of a block at `ret`; what is wrong with them, or NULL. */
static const char *load(const struct packing *p, const struct block_code *code, size_t count, const uint8_t *from, size_t bytes,
			struct block_room *room, uint16_t *ret)
{
	static const char too_few[] = "has too few values";
	size_t used, before = rest_bytes((int64_t)count);
	if (!encoding_is_coded(p->encoding)) {
		used = count * p->width;
		if (used > bytes) return too_few;
		memcpy(ret, from, used);
	} else {
		size_t coded;
		if (before > bytes) return too_few;
		if (!is_zero(from + count, before - count)) return "has something between its values";
		if (!huffman_decode(code->table, from + before, bytes - before, count, room->symbols, &coded))
			return "has codes that are none, or too few";
		for (size_t i = 0; i < count; i++)
			ret[i] = joined(room->symbols[i], from[i]);
		used = before + coded;
	}
	if ((size_t)archive_align((int64_t)used) != bytes || !is_zero(from + used, bytes - used))
		return "has something behind its values";
	return NULL;
}

const char *block_restore(const struct packing *p, int64_t block, const struct block_code *code, const uint8_t *mask,
			  const uint8_t *values, size_t bytes, struct block_room *room, void *ret_dense, int64_t *ret_values)
{
	int64_t rows = packing_rows(p, block), count = rows * p->cols;
	bool has_mask = encoding_has_mask(p->encoding);
	if (has_mask) count = count_bits(p, rows, mask);
	if (count < 0) return "has bits beyond its rows and columns";
	*ret_values = count;
	const char *wrong = load(p, code, (size_t)count, values, bytes, room, has_mask ? room->values : ret_dense);
	if (wrong || !has_mask) return wrong;
	/* What lies behind the last value is read, and comes to nothing. */
	memset((char *)room->values + (size_t)count * p->width, 0, p->width);
	bool proper = p->width == 2 ? spread_uint16_t(mask, rows, p->cols, p->stride, room->values, ret_dense)
				    : spread_uint32_t(mask, rows, p->cols, p->stride, room->values, ret_dense);
	return proper ? NULL : "has a zero among the values that are none";
}
