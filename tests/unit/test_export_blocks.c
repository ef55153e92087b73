/* ggml's types of weights: against golden blocks of the package `gguf` (tests/data/gguf/make.py), and what besad promises of
 * zeros. */
#include <math.h>

#include "tests/unit/scratch.h"

#include "engine/compute/half.h"
#include "engine/export/blocks.h"

enum { MOST_BYTES = BLOCK_WEIGHTS * 4 };
static const enum block_type types[] = {BLOCK_Q8_0, BLOCK_Q4_0, BLOCK_Q4_1};
static const size_t sizes[] = {34, 18, 20};

struct golden {
	float weights[BLOCK_WEIGHTS];
	uint8_t q8_0[34], q4_0[18], q4_1[20];
};

static float half_at(const uint8_t *at)
{
	uint16_t half;
	memcpy(&half, at, sizeof half);
	return f16_to_f32(half);
}

/* By the formulas of blocks.h. */
static void load(enum block_type type, const uint8_t *block, float ret[BLOCK_WEIGHTS])
{
	float d = half_at(block), m = type == BLOCK_Q4_1 ? half_at(block + 2) : 0;
	const uint8_t *codes = block + (type == BLOCK_Q4_1 ? 4 : 2);
	for (int i = 0; i < BLOCK_WEIGHTS; i++) {
		int four = i < 16 ? codes[i] & 15 : codes[i - 16] >> 4;
		ret[i] = type == BLOCK_Q8_0   ? d * (float)(int8_t)codes[i]
			 : type == BLOCK_Q4_0 ? d * (float)(four - 8)
					      : d * (float)four + m;
	}
}

static bool has_zero(const float *weights)
{
	for (int i = 0; i < BLOCK_WEIGHTS; i++)
		if (weights[i] == 0) return true;
	return false;
}

static float largest(const float *weights)
{
	float most = 0;
	for (int i = 0; i < BLOCK_WEIGHTS; i++)
		most = fmaxf(most, fabsf(weights[i]));
	return most;
}

static struct golden *read_golden(struct scratch *s, size_t *ret_count)
{
	char *bytes;
	size_t size;
	SUCCEEDS(file_slurp("tests/data/gguf/blocks.bin", 1 << 20, &bytes, &size, &s->err));
	assert_int_equal(size % sizeof(struct golden), 0);
	*ret_count = size / sizeof(struct golden);
	assert_true(*ret_count > 50);
	return (struct golden *)bytes;
}

static void test_golden(void **state)
{
	size_t count, with_zeros = 0;
	struct golden *golden = read_golden(*state, &count);
	for (size_t i = 0; i < count; i++) {
		uint8_t made[MOST_BYTES];
		assert_true(blocks_store(BLOCK_Q8_0, golden[i].weights, BLOCK_WEIGHTS, made));
		assert_memory_equal(made, golden[i].q8_0, sizeof golden[i].q8_0);
		assert_true(blocks_store(BLOCK_Q4_0, golden[i].weights, BLOCK_WEIGHTS, made));
		assert_memory_equal(made, golden[i].q4_0, sizeof golden[i].q4_0);
		assert_true(blocks_store(BLOCK_Q4_1, golden[i].weights, BLOCK_WEIGHTS, made));
		with_zeros += has_zero(golden[i].weights);
		if (!has_zero(golden[i].weights)) assert_memory_equal(made, golden[i].q4_1, sizeof golden[i].q4_1);
	}
	assert_true(with_zeros >= 17 && with_zeros < count);
	free(golden);
}

/* The most that a weight moves: half a step of the grid, a whole one at the open end of Q4_0, and what rounding the scale to a
 * half adds. */
static void test_zeros_and_errors(void **state)
{
	size_t count;
	struct golden *golden = read_golden(*state, &count);
	static const float steps[] = {0.6f / 127, 1.02f / 8, 1.2f / 15};
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < sizeof types / sizeof *types; k++) {
			uint8_t made[MOST_BYTES];
			float back[BLOCK_WEIGHTS];
			assert_true(blocks_store(types[k], golden[i].weights, BLOCK_WEIGHTS, made));
			load(types[k], made, back);
			float most = largest(golden[i].weights) * steps[k] + 0x1p-18f;
			for (int w = 0; w < BLOCK_WEIGHTS; w++) {
				if (golden[i].weights[w] == 0) assert_true(back[w] == 0);
				assert_true(fabsf(back[w] - golden[i].weights[w]) <= most);
			}
		}
	free(golden);
}

/* Zeros at every place of the range, from all weights below to all above. */
static void test_zero_in_q4_1(void **state)
{
	(void)state;
	for (int share = 0; share <= 64; share++) {
		uint8_t made[MOST_BYTES];
		float weights[BLOCK_WEIGHTS], back[BLOCK_WEIGHTS];
		for (int i = 0; i < BLOCK_WEIGHTS; i++)
			weights[i] = i % 2 ? 0 : 0.01f * (float)(i - share / 2) * (1 + 0.001f * (float)share);
		assert_true(blocks_store(BLOCK_Q4_1, weights, BLOCK_WEIGHTS, made));
		load(BLOCK_Q4_1, made, back);
		for (int i = 1; i < BLOCK_WEIGHTS; i += 2)
			assert_true(back[i] == 0);
	}
}

/* All halves there and back, and what lies between two. */
static void test_halves(void **state)
{
	(void)state;
	for (uint32_t half = 0; half < 0x7c00; half++) {
		float value = f16_to_f32((uint16_t)half), next = half < 0x7bff ? f16_to_f32((uint16_t)(half + 1)) : 65536;
		float middle = (value + next) / 2;
		assert_int_equal(f16_from_f32(value), half);
		assert_int_equal(f16_from_f32(-value), half | 0x8000);
		assert_int_equal(f16_from_f32(middle), half + (half & 1));
		assert_int_equal(f16_from_f32(nextafterf(middle, 0)), half);
		assert_int_equal(f16_from_f32(nextafterf(middle, INFINITY)), half + 1);
	}
	assert_int_equal(f16_from_f32(1e30f), 0x7c00);
	assert_int_equal(f16_from_f32(1e-30f), 0);
}

static void test_refusals(void **state)
{
	(void)state;
	static const enum block_type all[] = {BLOCK_F32, BLOCK_F16, BLOCK_Q8_0, BLOCK_Q4_0, BLOCK_Q4_1};
	uint8_t made[MOST_BYTES];
	for (size_t k = 0; k < sizeof all / sizeof *all; k++) {
		float weights[BLOCK_WEIGHTS] = {1, -2, 0};
		weights[7] = NAN;
		assert_false(blocks_store(all[k], weights, BLOCK_WEIGHTS, made));
		weights[7] = -INFINITY;
		assert_false(blocks_store(all[k], weights, BLOCK_WEIGHTS, made));
		weights[7] = 3e7f;
		assert_int_equal(blocks_store(all[k], weights, BLOCK_WEIGHTS, made), all[k] == BLOCK_F32);
		weights[7] = 1e-42f;
		assert_true(blocks_store(all[k], weights, BLOCK_WEIGHTS, made));
		for (int i = 0; i < BLOCK_WEIGHTS; i++)
			weights[i] = i % 3 ? 1e-42f : 0;
		assert_true(blocks_store(all[k], weights, BLOCK_WEIGHTS, made));
	}
}

static void test_sizes(void **state)
{
	(void)state;
	for (size_t k = 0; k < sizeof types / sizeof *types; k++)
		assert_int_equal(blocks_bytes(types[k], 3 * BLOCK_WEIGHTS), 3 * sizes[k]);
	assert_int_equal(blocks_bytes(BLOCK_F16, 5), 10);
	assert_int_equal(blocks_bytes(BLOCK_F32, 5), 20);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_golden, scratch_setup, scratch_teardown),
		cmocka_unit_test_setup_teardown(test_zeros_and_errors, scratch_setup, scratch_teardown),
		cmocka_unit_test(test_zero_in_q4_1),
		cmocka_unit_test(test_halves),
		cmocka_unit_test(test_refusals),
		cmocka_unit_test(test_sizes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
