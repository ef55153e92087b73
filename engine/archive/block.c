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

int64_t block_count(const void *dense, int64_t elements, int bits, uint32_t symbols[HUFFMAN_SYMBOLS])
{
	const uint16_t *halves = dense;
	const uint32_t *words = dense;
	int64_t nonzeros = 0;
	if (bits == 32)
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

void block_count_codes(const uint8_t *dense, int64_t bytes, uint32_t ret_bytes[HUFFMAN_SYMBOLS],
		       uint32_t ret_nibbles[BLOCK_NIBBLES])
{
	/* Several counts of each, so that a code that comes again at once does not wait for its count to be written. */
	enum { COUNTS = 4 };
	uint32_t counts[COUNTS][HUFFMAN_SYMBOLS] = {{0}};
	int64_t i = 0;
	for (; i + COUNTS <= bytes; i += COUNTS)
		for (int j = 0; j < COUNTS; j++)
			counts[j][dense[i + j]]++;
	for (; i < bytes; i++)
		counts[0][dense[i]]++;
	memset(ret_nibbles, 0, BLOCK_NIBBLES * sizeof *ret_nibbles);
	for (int byte = 0; byte < HUFFMAN_SYMBOLS; byte++) {
		uint32_t count = counts[0][byte] + counts[1][byte] + counts[2][byte] + counts[3][byte];
		ret_bytes[byte] = count;
		ret_nibbles[byte & 0xf] += count;
		ret_nibbles[byte >> 4] += count;
	}
}

/* Bytes of a value in the room, where a code of 4 bits has one of its own. */
static size_t value_width(const struct packing *p)
{
	return p->bits > 8 ? (size_t)p->bits / 8 : 1;
}

enum status block_room_make(const struct packing *p, struct block_room *room, struct error *err)
{
	size_t elements = (size_t)(p->block_rows * p->cols), slack = ARCHIVE_ALIGNMENT;
	size_t value_bytes = elements * value_width(p);
	if (elements <= room->elements && value_bytes <= room->value_bytes) return STATUS_OK;
	if (elements < room->elements) elements = room->elements;
	if (value_bytes < room->value_bytes) value_bytes = room->value_bytes;
	block_room_free(room);
	room->values = malloc(value_bytes + slack);
	room->symbols = malloc(elements + slack);
	if (!room->values || !room->symbols)
		return error_set(err, STATUS_NO_MEMORY, "no memory for a block of %zu values", elements);
	room->elements = elements;
	room->value_bytes = value_bytes;
	return STATUS_OK;
}

void block_room_free(struct block_room *room)
{
	free(room->values);
	free(room->symbols);
	*room = (struct block_room){0};
}

/* The bytes before the codes: a byte of each value, filled up to whole words. */
static size_t rest_bytes(int64_t values)
{
	return ((size_t)values + 7) / 8 * 8;
}

int64_t block_bytes(const struct packing *p, int64_t values, uint64_t bits)
{
	if (!encoding_is_coded(p->encoding)) return archive_align((values * p->bits + 7) / 8);
	size_t before = packing_has_codes(p) ? 0 : rest_bytes(values);
	return archive_align((int64_t)(before + (bits + 7) / 8));
}

int64_t block_most_bytes(const struct packing *p)
{
	/* A byte, of floats alone, and a code of at most HUFFMAN_MAX_BITS; or the value. */
	return p->block_rows * p->cols * (packing_has_codes(p) ? 2 : 4) + ARCHIVE_ALIGNMENT;
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

DEFINE_WIDTH(uint8_t)
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

/* ---- codes --------------------------------------------------------------------------------------------------------------- */

/* 8 half bytes, the low one first, as bytes; and back. */
static uint64_t split_word(uint64_t halves)
{
	halves = (halves | halves << 16) & UINT64_C(0x0000ffff0000ffff);
	halves = (halves | halves << 8) & UINT64_C(0x00ff00ff00ff00ff);
	return (halves | halves << 4) & UINT64_C(0x0f0f0f0f0f0f0f0f);
}

static uint32_t join_word(uint64_t bytes)
{
	bytes = (bytes | bytes >> 4) & UINT64_C(0x00ff00ff00ff00ff);
	bytes = (bytes | bytes >> 8) & UINT64_C(0x0000ffff0000ffff);
	return (uint32_t)(bytes | bytes >> 16);
}

static const uint64_t each_byte = UINT64_C(0x0101010101010101);

/* Half bytes, the low one first, into bytes of their own, and XOR `zero`. */
static void split(const uint8_t *from, size_t count, uint8_t zero, uint8_t *to)
{
	size_t words = count / 8;
	for (size_t i = 0; i < words; i++) {
		uint32_t halves;
		memcpy(&halves, from + 4 * i, sizeof halves);
		uint64_t bytes = split_word(halves) ^ zero * each_byte;
		memcpy(to + 8 * i, &bytes, sizeof bytes);
	}
	for (size_t i = 4 * words; i < count / 2; i++) {
		to[2 * i] = (from[i] & 0xf) ^ zero;
		to[2 * i + 1] = from[i] >> 4 ^ zero;
	}
	if (count % 2) to[count - 1] = (from[count / 2] & 0xf) ^ zero;
}

/* And back; half of the last byte is 0 where they are an odd number. */
static void join(const uint8_t *from, size_t count, uint8_t zero, uint8_t *to)
{
	size_t words = count / 8;
	for (size_t i = 0; i < words; i++) {
		uint64_t bytes;
		memcpy(&bytes, from + 8 * i, sizeof bytes);
		uint32_t halves = join_word(bytes ^ zero * each_byte);
		memcpy(to + 4 * i, &halves, sizeof halves);
	}
	for (size_t i = 4 * words; i < count / 2; i++)
		to[i] = (uint8_t)((from[2 * i] ^ zero) | (from[2 * i + 1] ^ zero) << 4);
	if (count % 2) to[count / 2] = from[count - 1] ^ zero;
}

static void exclusive_or(const uint8_t *from, size_t count, uint8_t zero, uint8_t *to)
{
	for (size_t i = 0; i < count; i++)
		to[i] = from[i] ^ zero;
}

/* The codes of a tensor's rows as values, and back. */
static void values_of_codes(const struct packing *p, const uint8_t *codes, size_t count, uint8_t *ret)
{
	(p->bits == 4 ? split : exclusive_or)(codes, count, p->zero, ret);
}

static void codes_of_values(const struct packing *p, const uint8_t *values, size_t count, uint8_t *ret)
{
	(p->bits == 4 ? join : exclusive_or)(values, count, p->zero, ret);
}

/* ---- values -------------------------------------------------------------------------------------------------------------- */

/* `count` values in the room, whose bytes in the file are at `to`. Return the bytes, without what fills them up. */
static size_t store_codes(const struct packing *p, const struct block_code *code, const uint8_t *values, size_t count, uint8_t *to)
{
	if (encoding_is_coded(p->encoding)) return huffman_encode(code->codes, code->lengths, values, count, to);
	(p->bits == 4 ? join : exclusive_or)(values, count, 0, to);
	return (count * (size_t)p->bits + 7) / 8;
}

static size_t store(const struct packing *p, const struct block_code *code, const void *values, size_t count,
		    struct block_room *room, uint8_t *to)
{
	const uint16_t *halves = values;
	if (packing_has_codes(p)) return store_codes(p, code, values, count, to);
	if (!encoding_is_coded(p->encoding)) {
		memcpy(to, values, count * value_width(p));
		return count * value_width(p);
	}
	for (size_t i = 0; i < count; i++) {
		to[i] = rest_of(halves[i]);
		room->symbols[i] = symbol_of(halves[i]);
	}
	size_t before = rest_bytes((int64_t)count);
	memset(to + count, 0, before - count);
	return before + huffman_encode(code->codes, code->lengths, room->symbols, count, to + before);
}

static size_t squeeze(const struct packing *p, int64_t rows, const void *dense, uint8_t *mask, void *values)
{
	if (packing_has_codes(p)) return squeeze_uint8_t(dense, rows, p->cols, p->stride, mask, values);
	if (p->bits == 16) return squeeze_uint16_t(dense, rows, p->cols, p->stride, mask, values);
	return squeeze_uint32_t(dense, rows, p->cols, p->stride, mask, values);
}

static bool spread(const struct packing *p, int64_t rows, const uint8_t *mask, const void *values, void *dense)
{
	if (packing_has_codes(p)) return spread_uint8_t(mask, rows, p->cols, p->stride, values, dense);
	if (p->bits == 16) return spread_uint16_t(mask, rows, p->cols, p->stride, values, dense);
	return spread_uint32_t(mask, rows, p->cols, p->stride, values, dense);
}

int64_t block_pack(const struct packing *p, int64_t block, const struct block_code *code, const void *dense,
		   struct block_room *room, uint8_t *mask, uint8_t *values)
{
	int64_t rows = packing_rows(p, block);
	size_t count = (size_t)(rows * p->cols);
	const void *kept = dense;
	if (packing_has_codes(p)) {
		values_of_codes(p, dense, count, room->symbols);
		kept = room->symbols;
	}
	if (encoding_has_mask(p->encoding)) {
		count = squeeze(p, rows, kept, mask, room->values);
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

static const char too_few[] = "has too few values", no_codes[] = "has codes that are none, or too few";

/* The values of a block at `ret`, and the bytes that they take; what is wrong with them, or NULL. */
static const char *load_codes(const struct packing *p, const struct block_code *code, size_t count, const uint8_t *from,
			      size_t bytes, uint8_t *ret, size_t *ret_used)
{
	if (encoding_is_coded(p->encoding)) return huffman_decode(code->table, from, bytes, count, ret, ret_used) ? NULL : no_codes;
	*ret_used = (count * (size_t)p->bits + 7) / 8;
	if (*ret_used > bytes) return too_few;
	(p->bits == 4 ? split : exclusive_or)(from, count, 0, ret);
	return p->bits == 4 && count % 2 && from[count / 2] >> 4 ? "has something behind its values" : NULL;
}

static const char *load_floats(const struct packing *p, const struct block_code *code, size_t count, const uint8_t *from,
			       size_t bytes, struct block_room *room, uint16_t *ret, size_t *ret_used)
{
	size_t before = rest_bytes((int64_t)count), coded;
	if (!encoding_is_coded(p->encoding)) {
		*ret_used = count * value_width(p);
		if (*ret_used > bytes) return too_few;
		memcpy(ret, from, *ret_used);
		return NULL;
	}
	if (before > bytes) return too_few;
	if (!is_zero(from + count, before - count)) return "has something between its values";
	if (!huffman_decode(code->table, from + before, bytes - before, count, room->symbols, &coded)) return no_codes;
	for (size_t i = 0; i < count; i++)
		ret[i] = joined(room->symbols[i], from[i]);
	*ret_used = before + coded;
	return NULL;
}

static const char *load(const struct packing *p, const struct block_code *code, size_t count, const uint8_t *from, size_t bytes,
			struct block_room *room, void *ret)
{
	size_t used;
	const char *wrong = packing_has_codes(p) ? load_codes(p, code, count, from, bytes, ret, &used)
						 : load_floats(p, code, count, from, bytes, room, ret, &used);
	if (wrong) return wrong;
	if ((size_t)archive_align((int64_t)used) != bytes || !is_zero(from + used, bytes - used))
		return "has something behind its values";
	return NULL;
}

const char *block_restore(const struct packing *p, int64_t block, const struct block_code *code, const uint8_t *mask,
			  const uint8_t *values, size_t bytes, struct block_room *room, void *ret_dense, int64_t *ret_values)
{
	int64_t rows = packing_rows(p, block), all = rows * p->cols, count = all;
	bool has_mask = encoding_has_mask(p->encoding), has_codes = packing_has_codes(p);
	void *dense = has_codes ? room->symbols : ret_dense;
	if (has_mask) count = count_bits(p, rows, mask);
	if (count < 0) return "has bits beyond its rows and columns";
	*ret_values = count;
	const char *wrong = load(p, code, (size_t)count, values, bytes, room, has_mask ? room->values : dense);
	if (wrong) return wrong;
	if (has_mask) {
		/* What lies behind the last value is read, and comes to nothing. */
		memset((char *)room->values + (size_t)count * value_width(p), 0, value_width(p));
		if (!spread(p, rows, mask, room->values, dense)) return "has a zero among the values that are none";
	}
	if (has_codes) codes_of_values(p, dense, (size_t)all, ret_dense);
	return NULL;
}
