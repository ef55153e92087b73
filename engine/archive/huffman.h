/* Canonical Huffman codes of bytes, none longer than HUFFMAN_MAX_BITS, in streams that are read from the lowest bit of each byte
 * up: the code of a symbol comes highest bit first. docs/format.md has the same in words. */
#ifndef BESAD_ENGINE_HUFFMAN_H
#define BESAD_ENGINE_HUFFMAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HUFFMAN_SYMBOLS = 256, HUFFMAN_MAX_BITS = 12, HUFFMAN_TABLE = 1 << HUFFMAN_MAX_BITS };

/* The lengths that make the whole shortest (package-merge: L. Larmore, D. Hirschberg, "A fast algorithm for optimal
 * length-limited Huffman codes", 1990). 0 for what does not occur; 1 for a symbol that is the only one. */
void huffman_lengths(const uint64_t counts[HUFFMAN_SYMBOLS], uint8_t ret[HUFFMAN_SYMBOLS]);

/* The codes that the lengths stand for, as they lie in a stream: the first bit lowest. */
void huffman_codes(const uint8_t lengths[HUFFMAN_SYMBOLS], uint16_t ret[HUFFMAN_SYMBOLS]);

/* What decodes: the symbol, and its length from bit 8 on, by the next HUFFMAN_MAX_BITS bits. false for lengths that are no code:
 * too long, or not of a whole tree (but for a single symbol, or none). */
bool huffman_table(const uint8_t lengths[HUFFMAN_SYMBOLS], uint16_t ret[HUFFMAN_TABLE]);

/* Writes `count` symbols; returns the bytes, the last one filled up with zero bits. */
size_t huffman_encode(const uint16_t codes[HUFFMAN_SYMBOLS], const uint8_t lengths[HUFFMAN_SYMBOLS], const uint8_t *symbols,
		      size_t count, uint8_t *ret);

/* Reads `count` symbols from a stream of `bytes`. *ret_used is how many it took, where the rest of the last one is zeros. false
 * where the stream is too short or has a code that is none. */
bool huffman_decode(const uint16_t table[HUFFMAN_TABLE], const uint8_t *stream, size_t bytes, size_t count, uint8_t *ret_symbols,
		    size_t *ret_used);

#endif
