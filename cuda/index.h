/* The index arithmetic of the kernels, as plain functions: the device and the host compile the same lines, so that a test without a
 * GPU (tests/unit/test_cuda_index.c) checks them. No CUDA header is needed. */
#ifndef BESAD_CUDA_INDEX_H
#define BESAD_CUDA_INDEX_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define CUDA_BOTH static __host__ __device__ __forceinline__
#else
#define CUDA_BOTH static inline
#endif

CUDA_BOTH int64_t index_min(int64_t a, int64_t b)
{
	return a < b ? a : b;
}

CUDA_BOTH int64_t index_max(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

CUDA_BOTH int64_t index_ceil_div(int64_t a, int64_t b)
{
	return (a + b - 1) / b;
}

CUDA_BOTH int64_t index_round_up(int64_t a, int64_t b)
{
	return index_ceil_div(a, b) * b;
}

/* ---- ranks, candidates, thresholds ------------------------------------------------------------------------------------------- */

/* The bin of a rank (struct backend_ops.bin_ranks): #{d : k_d ≤ rank} − 1. With e = D−1−d and n = D−1 (in parts of 10⁶ = one),
 * k_d = ⌊C(below·n + w·e) / (one·n)⌋ ≤ r holds for exactly the e < n((r+1)·one − C·below) / (C·w). */
CUDA_BOTH uint32_t index_bin(uint32_t rank, int64_t cols, int candidates, int below, int above)
{
	int64_t one = 1000000, left = (candidates - 1) * ((rank + 1) * one - cols * below), each = cols * (one - below - above);
	if (left <= 0 || left > (candidates - 1) * each) return 255;
	return (uint32_t)((left - 1) / each);
}

/* The number of weights of a row that rate `s` prunes. */
CUDA_BOTH int32_t index_threshold(float s, int32_t cols)
{
	return (int32_t)((double)s * (double)cols);
}

/* What a row has been masked by, or is to be: a threshold below 0 prunes nothing, one beyond the columns all of them. */
CUDA_BOTH int32_t index_limit(int32_t threshold, int64_t cols)
{
	return threshold < 0 ? 0 : threshold > cols ? (int32_t)cols : threshold;
}

/* Whether a row's mask is better moved, weight by weight, than written whole. A weight that moves takes its 2 bytes of the order
 * and, of the results and, where it comes back, of the weights, a sector of 32 bytes each, read or written: up to 98 bytes,
 * and a weight of a whole row 6 (bf16). */
CUDA_BOTH bool index_mask_moves(int32_t from, int32_t to, int64_t cols)
{
	int64_t moved = from < to ? to - from : from - to;
	return from >= 0 && 16 * moved <= cols;
}

/* ---- radix ranking ----------------------------------------------------------------------------------------------------------- */

enum { RADIX_BITS = 8, RADIX_BINS = 1 << RADIX_BITS, RADIX_PASSES = 4 };

/* A key whose unsigned order is the order of non-negative floats. */
CUDA_BOTH uint32_t index_radix_key(float importance)
{
#ifdef __CUDA_ARCH__
	return __float_as_uint(importance);
#else
	uint32_t bits;
	memcpy(&bits, &importance, sizeof bits);
	return bits;
#endif
}

CUDA_BOTH uint32_t index_radix_digit(uint32_t key, int pass)
{
	return key >> (RADIX_BITS * pass) & (RADIX_BINS - 1);
}

/* The columns that warp `warp` of `warps` sorts: [first, first + count), whole chunks of 32 but for the row's end. */
CUDA_BOTH void index_warp_span(int64_t cols, int warp, int warps, int64_t *ret_first, int64_t *ret_count)
{
	int64_t each = index_round_up(index_ceil_div(cols, warps), 32), first = index_min(cols, each * warp);
	*ret_first = first;
	*ret_count = index_min(each, cols - first);
}

/* Blocks that rank rows of C columns, each with its own scratch of two copies of a row's 8-byte entries: as many as the
 * multiprocessors hold while the scratch stays in the L2 cache, but one per multiprocessor at least. */
CUDA_BOTH int64_t index_rank_blocks(int64_t rows, int64_t cols, int processors)
{
	int64_t cached = ((int64_t)48 << 20) / (2 * cols * 8);
	return index_min(rows, index_min((int64_t)processors * 4, index_max(processors, cached)));
}

/* ---- rope -------------------------------------------------------------------------------------------------------------------- */

/* Pair p of row t of [T, heads · head_dim]: its first column; the second is `rotary / 2` further, or the next where pairs are
 * neighbours. p < heads · rotary/2. */
CUDA_BOTH int64_t index_rope_column(int64_t pair, int head_dim, int rotary, bool neighbours)
{
	int half = rotary / 2;
	return pair / half * head_dim + pair % half * (neighbours ? 2 : 1);
}

/* ---- attention tiles: positions in one sequence; window 0 stands for all ----------------------------------------------------- */

/* Whether query i sees key j: causal, the last `window` keys. */
CUDA_BOTH bool index_sees(int query, int key, int window)
{
	return key <= query && (window == 0 || query - key < window);
}

/* The key tiles [first, end) that some query of [query, query + queries) sees. */
CUDA_BOTH void index_key_tiles(int query, int queries, int tokens, int window, int tile, int *ret_first, int *ret_end)
{
	int last = query + queries < tokens ? query + queries - 1 : tokens - 1;
	*ret_first = window == 0 || query < window ? 0 : (query - window + 1) / tile;
	*ret_end = last / tile + 1;
}

/* The query tiles [first, end) that see some key of [key, key + keys). */
CUDA_BOTH void index_query_tiles(int key, int keys, int tokens, int window, int tile, int *ret_first, int *ret_end)
{
	int last_key = key + keys < tokens ? key + keys - 1 : tokens - 1, last = tokens - 1;
	if (window > 0 && last - last_key >= window) last = last_key + window - 1;
	*ret_first = key / tile;
	*ret_end = last / tile + 1;
}

/* Whether every query of [query, query + queries) sees every key of [key, key + keys): the tile needs no mask. Tokens past the end
 * count as not seen. */
CUDA_BOTH bool index_tile_full(int query, int queries, int key, int keys, int tokens, int window)
{
	return key + keys - 1 <= query && query + queries <= tokens && (window == 0 || query + queries - 1 - key < window);
}

/* ---- sizes ------------------------------------------------------------------------------------------------------------------- */

#define PANEL_BYTES ((int64_t)96 << 20)    /* of a panel of fp32 gradient, at most */
#define WORKSPACE_BYTES ((size_t)64 << 20) /* of cuBLASLt */
#define SHARED_LEAST                                                                                                               \
	((size_t)99 << 10) /* of a block's shared memory: what sm_86, sm_89 and sm_120 give; kernels choose their tiles by it */

/* ---- the dW panels of binned_gradient ---------------------------------------------------------------------------------------- */

/* Rows of a panel of the [R, C] gradient: at most `bytes` of fp32, and, within that, the multiple of 128 whose 128 × 256 tiles fill
 * `processors` multiprocessors best (the largest of equals). */
CUDA_BOTH int64_t index_panel_rows(int64_t rows, int64_t cols, int64_t bytes, int processors)
{
	int64_t most = index_max(bytes / (cols * 4) / 128, 1), tiles_across = index_ceil_div(cols, 256), best = 1;
	double best_fill = 0;
	most = index_min(most, index_ceil_div(rows, 128));
	for (int64_t n = 1; n <= most; n++) {
		int64_t tiles = n * tiles_across, waves = index_ceil_div(tiles, processors);
		double fill = (double)tiles / (double)(waves * processors);
		if (fill >= best_fill) {
			best_fill = fill;
			best = n;
		}
	}
	return index_min(best * 128, rows);
}

#endif
