#include "engine/archive/huffman.h"

#include <stdlib.h>
#include <string.h>

/* Of an entry of the table whose bits begin no code. */
enum { NO_CODE = 1 << 15 };

/* ---- lengths ------------------------------------------------------------------------------------------------------------- */

struct leaf {
	uint64_t count;
	int symbol;
};

static int by_count(const void *a, const void *b)
{
	const struct leaf *x = a, *y = b;
	if (x->count != y->count) return x->count < y->count ? -1 : 1;
	return x->symbol - y->symbol;
}

static int list_leaves(const uint64_t counts[HUFFMAN_SYMBOLS], struct leaf leaves[HUFFMAN_SYMBOLS])
{
	int n = 0;
	for (int symbol = 0; symbol < HUFFMAN_SYMBOLS; symbol++)
		if (counts[symbol]) leaves[n++] = (struct leaf){counts[symbol], symbol};
	qsort(leaves, (size_t)n, sizeof *leaves, by_count);
	return n;
}

void huffman_lengths(const uint64_t counts[HUFFMAN_SYMBOLS], uint8_t ret[HUFFMAN_SYMBOLS])
{
	/* Of each level a list of leaves and of packages, pairs of the level before, by weight; of a place only which of both it is
	 * must be kept. */
	static const int levels = HUFFMAN_MAX_BITS;
	bool is_leaf[HUFFMAN_MAX_BITS][2 * HUFFMAN_SYMBOLS];
	uint64_t weights[2 * HUFFMAN_SYMBOLS], packages[HUFFMAN_SYMBOLS];
	struct leaf leaves[HUFFMAN_SYMBOLS];
	int n = list_leaves(counts, leaves), listed = 0;
	memset(ret, 0, HUFFMAN_SYMBOLS);
	if (n == 1) ret[leaves[0].symbol] = 1;
	if (n < 2) return;
	for (int level = 0; level < levels; level++) {
		int pairs = listed / 2, leaf = 0, package = 0;
		for (int i = 0; i < pairs; i++)
			packages[i] = weights[2 * i] + weights[2 * i + 1];
		listed = n + pairs;
		for (int i = 0; i < listed; i++) {
			bool takes_leaf = package == pairs || (leaf < n && leaves[leaf].count <= packages[package]);
			is_leaf[level][i] = takes_leaf;
			weights[i] = takes_leaf ? leaves[leaf++].count : packages[package++];
		}
	}
	/* The first 2n - 2 of the last level: a symbol's length is in how many levels its leaf is taken. */
	for (int level = levels - 1, taken = 2 * n - 2; level >= 0 && taken > 0; level--) {
		int leaf = 0;
		for (int i = 0; i < taken; i++)
			if (is_leaf[level][i]) ret[leaves[leaf++].symbol]++;
		taken = 2 * (taken - leaf);
	}
}

/* ---- codes --------------------------------------------------------------------------------------------------------------- */

static uint16_t reversed(unsigned code, int length)
{
	unsigned result = 0;
	for (int i = 0; i < length; i++)
		result |= (code >> i & 1) << (length - 1 - i);
	return (uint16_t)result;
}

void huffman_codes(const uint8_t lengths[HUFFMAN_SYMBOLS], uint16_t ret[HUFFMAN_SYMBOLS])
{
	unsigned code = 0;
	memset(ret, 0, HUFFMAN_SYMBOLS * sizeof *ret);
	for (int length = 1; length <= HUFFMAN_MAX_BITS; length++, code <<= 1)
		for (int symbol = 0; symbol < HUFFMAN_SYMBOLS; symbol++)
			if (lengths[symbol] == length) ret[symbol] = reversed(code++, length);
}

bool huffman_table(const uint8_t lengths[HUFFMAN_SYMBOLS], uint16_t ret[HUFFMAN_TABLE])
{
	uint16_t codes[HUFFMAN_SYMBOLS];
	int symbols = 0, filled = 0;
	for (int symbol = 0; symbol < HUFFMAN_SYMBOLS; symbol++) {
		if (lengths[symbol] > HUFFMAN_MAX_BITS) return false;
		if (!lengths[symbol]) continue;
		filled += HUFFMAN_TABLE >> lengths[symbol];
		symbols++;
	}
	if (filled != HUFFMAN_TABLE && symbols > 1) return false;
	if (symbols == 1 && filled != HUFFMAN_TABLE / 2) return false;
	for (int i = 0; i < HUFFMAN_TABLE; i++)
		ret[i] = NO_CODE | 1 << 8;
	huffman_codes(lengths, codes);
	for (int symbol = 0; symbol < HUFFMAN_SYMBOLS; symbol++)
		for (int i = codes[symbol]; lengths[symbol] && i < HUFFMAN_TABLE; i += 1 << lengths[symbol])
			ret[i] = (uint16_t)(symbol | lengths[symbol] << 8);
	return true;
}

/* ---- streams ------------------------------------------------------------------------------------------------------------- */

size_t huffman_encode(const uint16_t codes[HUFFMAN_SYMBOLS], const uint8_t lengths[HUFFMAN_SYMBOLS], const uint8_t *symbols,
		      size_t count, uint8_t *ret)
{
	uint64_t bits = 0;
	unsigned used = 0;
	uint8_t *to = ret;
	for (size_t i = 0; i < count; i++) {
		bits |= (uint64_t)codes[symbols[i]] << used;
		used += lengths[symbols[i]];
		if (used < 32) continue;
		uint32_t word = (uint32_t)bits;
		memcpy(to, &word, sizeof word);
		to += sizeof word;
		bits >>= 32;
		used -= 32;
	}
	for (unsigned left = used; left > 0; left -= left < 8 ? left : 8, bits >>= 8)
		*to++ = (uint8_t)bits;
	return (size_t)(to - ret);
}

/* Up to 8 bytes from bit `at` of the stream on; zeros behind its end. */
static uint64_t peek(const uint8_t *stream, size_t bytes, size_t at)
{
	uint64_t word = 0;
	size_t byte = at / 8, n = byte < bytes ? bytes - byte : 0;
	memcpy(&word, stream + (n ? byte : 0), n < sizeof word ? n : sizeof word);
	return word >> (at % 8);
}

bool huffman_decode(const uint16_t table[HUFFMAN_TABLE], const uint8_t *stream, size_t bytes, size_t count, uint8_t *ret_symbols,
		    size_t *ret_used)
{
	enum { AT_ONCE = 4 }; /* codes that 57 bits hold */
	size_t at = 0, i = 0;
	unsigned all = 0;
	while (count - i >= AT_ONCE && at / 8 + sizeof(uint64_t) <= bytes) {
		uint64_t word;
		memcpy(&word, stream + at / 8, sizeof word);
		word >>= at % 8;
		for (int j = 0; j < AT_ONCE; j++) {
			unsigned entry = table[word & (HUFFMAN_TABLE - 1)], length = entry >> 8 & 0xf;
			ret_symbols[i++] = (uint8_t)entry;
			word >>= length;
			at += length;
			all |= entry;
		}
	}
	for (; i < count && at <= 8 * bytes; i++) {
		unsigned entry = table[peek(stream, bytes, at) & (HUFFMAN_TABLE - 1)];
		ret_symbols[i] = (uint8_t)entry;
		at += entry >> 8 & 0xf;
		all |= entry;
	}
	if (i < count || at > 8 * bytes || all & NO_CODE) return false;
	if (at % 8 && stream[at / 8] >> (at % 8)) return false;
	*ret_used = (at + 7) / 8;
	return true;
}
