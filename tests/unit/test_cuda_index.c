/* The index arithmetic of the CUDA kernels, compiled for the host, against the definitions it stands for and the CPU backend. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "cuda/index.h"
#include "engine/compute/backend.h"

static struct backend *cpu;

static int open_cpu(void **state)
{
	struct error err;
	(void)state;
	return backend_cpu_create(1, &cpu, &err) != STATUS_OK;
}

static int close_cpu(void **state)
{
	(void)state;
	backend_destroy(cpu);
	return 0;
}

static void test_bins_are_the_cpus(void **state)
{
	static const int64_t widths[] = {1, 2, 3, 99, 100, 101, 192, 512, 4095, 4096, 11008, 28672, 65535, 65536};
	static const int candidates[] = {2, 3, 11, 100, 101, 255, 256};
	(void)state;
	for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
		int64_t cols = widths[w];
		uint16_t *rank = malloc((size_t)cols * sizeof *rank);
		uint8_t *bin = malloc((size_t)cols);
		for (int64_t i = 0; i < cols; i++)
			rank[i] = (uint16_t)i;
		for (size_t d = 0; d < sizeof candidates / sizeof *candidates; d++) {
			int below = d % 2 ? 200000 : 0, above = d % 3 ? 123456 : 0;
			assert_int_equal(cpu->ops->bin_ranks(cpu, tensor_make(bin, 1, cols, DTYPE_U8),
							     tensor_make(rank, 1, cols, DTYPE_U16), candidates[d], below, above),
					 STATUS_OK);
			for (int64_t i = 0; i < cols; i++)
				if (index_bin((uint32_t)i, cols, candidates[d], below, above) != bin[i])
					fail_msg("rank %lld of %lld, %d candidates", (long long)i, (long long)cols, candidates[d]);
		}
		free(rank);
		free(bin);
	}
}

static void test_thresholds(void **state)
{
	(void)state;
	assert_int_equal(index_threshold(0, 4096), 0);
	assert_int_equal(index_threshold(1, 65536), 65536);
	assert_int_equal(index_threshold(0.5f, 4095), 2047);
	assert_int_equal(index_threshold(0x1.fffffep-1f, 65536), 65535);
	assert_int_equal(index_limit(-1, 10), 0);
	assert_int_equal(index_limit(65536, 65536), 65536);
	assert_int_equal(index_limit(11, 10), 10);
	assert_true(index_mask_moves(0, 4, 64) && index_mask_moves(64, 60, 64) && index_mask_moves(0, 0, 1));
	assert_false(index_mask_moves(0, 5, 64) || index_mask_moves(64, 59, 64) || index_mask_moves(-1, 0, 64)); /* not known */
}

/* Sorting by the digits of the keys, last first, sorts the floats. */
static void test_radix_keys_order_floats(void **state)
{
	static const float floats[] = {0, 1e-45f, 1e-38f, 1.17549435e-38f, 1e-20f,  0.5f, 0x1.fffffep-1f,
				       1, 1.5f,   65504,  3e38f,           INFINITY};
	(void)state;
	for (size_t i = 1; i < sizeof floats / sizeof *floats; i++) {
		uint32_t before = index_radix_key(floats[i - 1]), after = index_radix_key(floats[i]), sum = 0;
		assert_true(before < after);
		for (int pass = 0; pass < RADIX_PASSES; pass++)
			sum |= index_radix_digit(after, pass) << (RADIX_BITS * pass);
		assert_int_equal(sum, after); /* no bit is left out */
	}
}

static void test_warps_share_a_row(void **state)
{
	(void)state;
	for (int64_t cols = 1; cols < 3000; cols += 7)
		for (int warps = 1; warps <= 32; warps *= 2) {
			int64_t next = 0;
			for (int warp = 0; warp < warps; warp++) {
				int64_t first, count;
				index_warp_span(cols, warp, warps, &first, &count);
				assert_true(first == next && count >= 0 && (first % 32 == 0 || count == 0));
				next = first + count;
			}
			assert_int_equal(next, cols);
		}
}

static void test_rope_pairs_cover_the_rotary_columns(void **state)
{
	enum { HEADS = 3, DIM = 20, ROTARY = 12 };
	int seen[HEADS * DIM] = {0}, next[HEADS * DIM] = {0};
	(void)state;
	for (int64_t pair = 0; pair < HEADS * ROTARY / 2; pair++) {
		seen[index_rope_column(pair, DIM, ROTARY, false)]++;
		seen[index_rope_column(pair, DIM, ROTARY, false) + ROTARY / 2]++;
		next[index_rope_column(pair, DIM, ROTARY, true)]++;
		next[index_rope_column(pair, DIM, ROTARY, true) + 1]++;
	}
	for (int i = 0; i < HEADS * DIM; i++) {
		assert_int_equal(seen[i], i % DIM < ROTARY);
		assert_int_equal(next[i], i % DIM < ROTARY);
	}
}

/* The tile ranges hold every pair that is seen, and a tile called full has no pair that is not. */
static void test_attention_tiles(void **state)
{
	enum { QUERIES = 8, KEYS = 4 };
	(void)state;
	for (int tokens = 1; tokens < 40; tokens += 3)
		for (int window = 0; window <= tokens + 1; window += 1 + window / 4)
			for (int query = 0; query < tokens; query++)
				for (int key = 0; key < tokens; key++) {
					int first, end, query_tile = query / QUERIES * QUERIES, key_tile = key / KEYS * KEYS;
					bool sees = key <= query && (!window || key > query - window);
					assert_int_equal(index_sees(query, key, window), sees);
					index_key_tiles(query_tile, QUERIES, tokens, window, KEYS, &first, &end);
					assert_true(first >= 0 && end <= index_ceil_div(tokens, KEYS));
					if (sees) assert_true(key / KEYS >= first && key / KEYS < end);
					index_query_tiles(key_tile, KEYS, tokens, window, QUERIES, &first, &end);
					assert_true(first >= 0 && end <= index_ceil_div(tokens, QUERIES) && first < end);
					if (sees) assert_true(query / QUERIES >= first && query / QUERIES < end);
					if (!sees)
						assert_false(index_tile_full(query_tile, QUERIES, key_tile, KEYS, tokens, window));
				}
	assert_true(index_tile_full(64, 64, 0, 64, 128, 0));
	assert_true(index_tile_full(64, 64, 0, 64, 128, 128));
	assert_false(index_tile_full(64, 64, 0, 64, 128, 127)); /* query 127 does not see key 0 */
	assert_false(index_tile_full(64, 64, 0, 64, 127, 0));   /* no query 127 */
	assert_false(index_tile_full(64, 64, 64, 64, 128, 0));
}

static void test_panels(void **state)
{
	static const int64_t shapes[][2] = {{4096, 4096},  {11008, 4096}, {4096, 11008}, {28672, 8192},
					    {8192, 28672}, {5, 7},        {300, 70000}};
	(void)state;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		int64_t rows = shapes[i][0], cols = shapes[i][1], limit = (int64_t)96 << 20;
		int64_t panel = index_panel_rows(rows, cols, limit, 132);
		assert_true(panel > 0 && panel <= rows && (panel % 128 == 0 || panel == rows));
		assert_true(panel <= 128 || panel * cols * 4 <= limit);
	}
	/* 8192 columns are 32 tiles of 256; 132 multiprocessors hold 4 rows of tiles of 128 and no more in a wave. */
	assert_int_equal(index_panel_rows(28672, 8192, 6 * 128 * 8192 * 4, 132), 512);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bins_are_the_cpus),
		cmocka_unit_test(test_thresholds),
		cmocka_unit_test(test_radix_keys_order_floats),
		cmocka_unit_test(test_warps_share_a_row),
		cmocka_unit_test(test_rope_pairs_cover_the_rotary_columns),
		cmocka_unit_test(test_attention_tiles),
		cmocka_unit_test(test_panels),
	};
	return cmocka_run_group_tests(tests, open_cpu, close_cpu);
}
