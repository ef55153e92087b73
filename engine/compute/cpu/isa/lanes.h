/* Whole vectors of floats, for kernels that say themselves what a register holds: as wide as the instruction set's. */
#ifndef BESAD_ENGINE_CPU_ISA_LANES_H
#define BESAD_ENGINE_CPU_ISA_LANES_H

#include <immintrin.h>

#include "engine/compute/cpu/isa/isa.h"

#if defined __AVX512F__
enum { LANES = 16 };
#elif defined __AVX2__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif

typedef float vector __attribute__((vector_size(LANES * sizeof(float)), aligned(4), may_alias));
/* As a variable: of those that may lie anywhere GCC 12 makes copies in a loop. */
typedef float register_vector __attribute__((vector_size(LANES * sizeof(float))));
typedef int32_t mask_vector __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4), may_alias));

INLINE vector every_lane(float x)
{
	return (vector){0} + x;
}

/* 0, 1, 2, … */
INLINE mask_vector lane_numbers(void)
{
	mask_vector numbers;
#pragma GCC unroll 16
	for (int lane = 0; lane < LANES; lane++)
		numbers[lane] = lane;
	return numbers;
}

/* b where one of them is NaN. */
INLINE vector larger(vector a, vector b)
{
#if defined __AVX512F__
	return (vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined __AVX__
	return (vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
	return (vector)_mm_max_ps((__m128)a, (__m128)b);
#endif
}

INLINE float largest_lane(vector x)
{
#if defined __AVX512F__
	return _mm512_reduce_max_ps((__m512)x);
#else
	float best = x[0];
	for (int i = 1; i < LANES; i++)
		best = x[i] > best ? x[i] : best;
	return best;
#endif
}

INLINE float sum_of_lanes(vector x)
{
#if defined __AVX512F__
	return _mm512_reduce_add_ps((__m512)x);
#else
	float sum = x[0];
	for (int i = 1; i < LANES; i++)
		sum += x[i];
	return sum;
#endif
}

/* x in the first n lanes, and `rest` in the others. */
INLINE vector first_lanes(vector x, int64_t n, float rest)
{
	mask_vector kept = lane_numbers() < (int32_t)n;
	return (vector)(((mask_vector)x & kept) | ((mask_vector)every_lane(rest) & ~kept));
}

/* The first n of a vector's floats, if it has as many, 0 behind them: no more of the memory is read. */
INLINE vector load_lanes(const float *from, int64_t n)
{
	if (n >= LANES) return *(const vector *)from;
#if defined __AVX512F__
	return (vector)_mm512_maskz_loadu_ps((__mmask16)((1 << n) - 1), from);
#else
	vector x = {0};
	for (int i = 0; i < LANES; i++)
		if (i < n) x[i] = from[i];
	return x;
#endif
}

INLINE void store_lanes(float *to, int64_t n, vector x)
{
	if (n >= LANES) {
		*(vector *)to = x;
		return;
	}
#if defined __AVX512F__
	_mm512_mask_storeu_ps(to, (__mmask16)((1 << n) - 1), (__m512)x);
#else
	for (int i = 0; i < LANES; i++)
		if (i < n) to[i] = x[i];
#endif
}

/* exp_fast, for x ≤ 88.3. */
INLINE vector exp_lanes(vector x)
{
	const float lowest = -87.3f, magic = 0x1.8p23f;
	vector y = larger(every_lane(lowest), x), shifted = y * 0x1.715476p0f + magic, n = shifted - magic;
	vector r = (y - n * 0x1.62e4p-1f) + n * -0x1.7f7d1cp-20f, p = every_lane(1.9875691500e-4f);
	p = p * r + 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	vector power = (vector)(((mask_vector)shifted + 127) << 23);
	return (vector)((mask_vector)((p * (r * r) + r) * power + power) & ~(mask_vector)(x < lowest));
}

/* 1/x for 1 ≤ x ≤ e^88.3. */
INLINE vector inverse_lanes(vector x)
{
#if defined __AVX512F__
	vector guess = (vector)_mm512_rcp14_ps((__m512)x); /* and a step of Newton's: a division keeps a multiplier for longer */
	return guess + guess * (1 - guess * x);
#else
	return 1 / x;
#endif
}

INLINE vector sigmoid_lanes(vector x)
{
	return inverse_lanes(1 + exp_lanes(-larger(every_lane(-88.3f), x)));
}

#endif
