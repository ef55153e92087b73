/* bfloat16 and IEEE half on the host, element by element. */
#ifndef BESAD_ENGINE_HALF_H
#define BESAD_ENGINE_HALF_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "engine/compute/tensor.h"

static inline float bf16_to_f32(uint16_t h)
{
	uint32_t bits = (uint32_t)h << 16;
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static inline float f16_to_f32(uint16_t h)
{
	uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = (h >> 10) & 31, fraction = h & 1023;
	float f;
	if (exponent == 0) {
		f = ldexpf((float)fraction, -24);
		return sign ? -f : f;
	}
	uint32_t bits = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
	memcpy(&f, &bits, sizeof f);
	return f;
}

/* Element i of an array of a float type. */
static inline float half_load(const void *data, enum dtype dtype, int64_t i)
{
	switch (dtype) {
	case DTYPE_BF16:
		return bf16_to_f32(((const uint16_t *)data)[i]);
	case DTYPE_F16:
		return f16_to_f32(((const uint16_t *)data)[i]);
	default:
		return ((const float *)data)[i];
	}
}

#endif
