#include "engine/export/blocks.h"

#include <math.h>
#include <string.h>

#include "engine/compute/half.h"

enum { HALF_BLOCK = BLOCK_WEIGHTS / 2, HALF_INFINITY = 0x7c00, CODES = 16 };

size_t blocks_bytes(enum block_type type, int64_t count)
{
	size_t n = (size_t)count, blocks = n / BLOCK_WEIGHTS;
	switch (type) {
	case BLOCK_F32:
		return n * sizeof(float);
	case BLOCK_F16:
		return n * sizeof(uint16_t);
	case BLOCK_Q4_0:
		return blocks * (sizeof(uint16_t) + HALF_BLOCK);
	case BLOCK_Q4_1:
		return blocks * (2 * sizeof(uint16_t) + HALF_BLOCK);
	case BLOCK_Q8_0:
		return blocks * (sizeof(uint16_t) + BLOCK_WEIGHTS);
	}
	return 0;
}

static bool is_finite_half(uint16_t half)
{
	return (half & HALF_INFINITY) != HALF_INFINITY;
}

static bool store_halves(const float *weights, int64_t count, uint16_t *ret)
{
	bool fits = true;
	for (int64_t i = 0; i < count; i++) {
		ret[i] = f16_from_f32(weights[i]);
		fits &= is_finite_half(ret[i]);
	}
	return fits;
}

/* 0 where there is none: then all of a block is zero as halves. */
static float inverse(float d)
{
	return d == 0 || !isfinite(1 / d) ? 0 : 1 / d;
}

static uint8_t clip_code(float code)
{
	return code <= 0 ? 0 : code >= CODES - 1 ? CODES - 1 : (uint8_t)code;
}

static void pack_codes(const uint8_t codes[BLOCK_WEIGHTS], uint8_t *ret)
{
	for (int i = 0; i < HALF_BLOCK; i++)
		ret[i] = (uint8_t)(codes[i] | codes[i + HALF_BLOCK] << 4);
}

static bool store_q8_0(const float *w, uint8_t *ret)
{
	float largest = 0;
	for (int i = 0; i < BLOCK_WEIGHTS; i++)
		largest = fmaxf(largest, fabsf(w[i]));
	float d = largest / 127, scale = inverse(d);
	uint16_t half = f16_from_f32(d);
	memcpy(ret, &half, sizeof half);
	for (int i = 0; i < BLOCK_WEIGHTS; i++)
		ret[sizeof half + (size_t)i] = (uint8_t)(int8_t)roundf(w[i] * scale);
	return is_finite_half(half);
}

/* The weight of the largest magnitude, the first of equals, becomes code 0. */
static bool store_q4_0(const float *w, uint8_t *ret)
{
	uint8_t codes[BLOCK_WEIGHTS];
	float largest = w[0];
	for (int i = 1; i < BLOCK_WEIGHTS; i++)
		if (fabsf(w[i]) > fabsf(largest)) largest = w[i];
	float d = largest / -8, scale = inverse(d);
	uint16_t half = f16_from_f32(d);
	memcpy(ret, &half, sizeof half);
	for (int i = 0; i < BLOCK_WEIGHTS; i++)
		codes[i] = clip_code(w[i] * scale + 8.5f);
	pack_codes(codes, ret + sizeof half);
	return is_finite_half(half);
}

/* The least half that is at least `d`, for `d` ≥ 0, and of which `steps` times is a half too: 0 where there is none. */
static uint16_t scale_with_zero(float d, int steps)
{
	uint16_t half = f16_from_f32(d);
	if (f16_to_f32(half) < d) half++;
	for (; is_finite_half(half); half++) {
		float product = (float)steps * f16_to_f32(half);
		uint16_t other = f16_from_f32(product);
		if (is_finite_half(other) && f16_to_f32(other) == product) return half;
	}
	return 0;
}

/* The scale and the code of zero, for which [least, most], which has zero in it, is covered by the smallest scale. */
static void choose_zero(float least, float most, float *ret_scale, int *ret_zero)
{
	float best = INFINITY;
	for (int zero = 0; zero < CODES; zero++) {
		if ((zero == 0 && least < 0) || (zero == CODES - 1 && most > 0)) continue;
		float below = zero ? -least / (float)zero : 0;
		float above = zero < CODES - 1 ? most / (float)(CODES - 1 - zero) : 0;
		float scale = fmaxf(below, above);
		if (scale >= best) continue;
		best = scale;
		*ret_zero = zero;
	}
	*ret_scale = best;
}

static bool store_q4_1(const float *w, uint8_t *ret)
{
	uint8_t codes[BLOCK_WEIGHTS];
	bool has_zero = w[0] == 0;
	float least = w[0], most = w[0], scale = 0;
	uint16_t d_half, m_half;
	int zero = 0;
	for (int i = 1; i < BLOCK_WEIGHTS; i++) {
		least = fminf(least, w[i]);
		most = fmaxf(most, w[i]);
		has_zero |= w[i] == 0;
	}
	if (has_zero && least < 0) {
		choose_zero(least, most, &scale, &zero);
		d_half = scale_with_zero(scale, zero);
		float d = f16_to_f32(d_half);
		m_half = f16_from_f32(-(float)zero * d);
		for (int i = 0; i < BLOCK_WEIGHTS; i++)
			codes[i] = clip_code(floorf(w[i] * inverse(d) + (float)zero + 0.5f));
		if (d == 0 && scale > 0) return false;
	} else {
		float d = (most - least) / (CODES - 1), invert = inverse(d);
		d_half = f16_from_f32(d);
		m_half = f16_from_f32(least);
		for (int i = 0; i < BLOCK_WEIGHTS; i++)
			codes[i] = clip_code((w[i] - least) * invert + 0.5f);
	}
	memcpy(ret, &d_half, sizeof d_half);
	memcpy(ret + sizeof d_half, &m_half, sizeof m_half);
	pack_codes(codes, ret + 2 * sizeof d_half);
	return is_finite_half(d_half) && is_finite_half(m_half);
}

static bool all_finite(const float *weights, int64_t count)
{
	for (int64_t i = 0; i < count; i++)
		if (!isfinite(weights[i])) return false;
	return true;
}

bool blocks_store(enum block_type type, const float *weights, int64_t count, void *ret)
{
	uint8_t *out = ret;
	if (!all_finite(weights, count)) return false;
	if (type == BLOCK_F16) return store_halves(weights, count, ret);
	if (type == BLOCK_F32) {
		memcpy(ret, weights, (size_t)count * sizeof *weights);
		return true;
	}
	bool fits = true;
	for (int64_t i = 0; i < count; i += BLOCK_WEIGHTS) {
		uint8_t *at = out + blocks_bytes(type, i);
		fits &= type == BLOCK_Q8_0   ? store_q8_0(weights + i, at)
			: type == BLOCK_Q4_0 ? store_q4_0(weights + i, at)
					     : store_q4_1(weights + i, at);
	}
	return fits;
}
