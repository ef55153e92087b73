/* Weights as ggml stores them: element types of two bytes, and blocks of 32 neighbours of a row that share a scale.
 *
 *   F16    IEEE half
 *   Q8_0   half d, 32 × int8 q:                 w = d·q
 *   Q4_0   half d, 32 × 4 bits q:               w = d·(q − 8)
 *   Q4_1   half d, half m, 32 × 4 bits q:       w = d·q + m
 *
 * Of the four bits of element i, those of i < 16 are the low half of byte i, the others the high half of byte i − 16.
 *
 * Zeros stay zero: in F16, Q8_0 and Q4_0 by the formats themselves. In Q4_1 a block that holds a zero gets an m that is a whole
 * multiple of −d, both as halves: then zero is one of its sixteen values. A block without one is what ggml's quantizer makes of
 * it, as are all blocks of the other types, bit for bit (gguf.quants of the Python package `gguf`; quantize_row_q4_0_ref … of
 * ggml-quants.c). */
#ifndef BESAD_ENGINE_EXPORT_BLOCKS_H
#define BESAD_ENGINE_EXPORT_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BLOCK_WEIGHTS = 32 };

/* By the numbers that GGUF has for them. */
enum block_type { BLOCK_F32 = 0, BLOCK_F16 = 1, BLOCK_Q4_0 = 2, BLOCK_Q4_1 = 3, BLOCK_Q8_0 = 8 };

/* The bytes of `count` weights; those of a type with blocks are a multiple of BLOCK_WEIGHTS. */
size_t blocks_bytes(enum block_type, int64_t count);

/* Writes `count` weights (as for blocks_bytes) to `ret`. False where one is not finite, or it or its block's scale is beyond a
 * half. */
bool blocks_store(enum block_type, const float *weights, int64_t count, void *ret);

#endif
