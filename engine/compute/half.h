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

/* To nearest, halves to even; NaN stays NaN. */
static inline uint16_t bf16_from_f32(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	if ((bits & 0x7fffffff) > 0x7f800000) return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static inline uint16_t f16_from_f32(float f)
{
	uint32_t bits, magnitude;
	memcpy(&bits, &f, sizeof bits);
	uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
	magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000) return sign | 0x7e00;
	if (magnitude >= 0x477ff000) return sign | 0x7c00; /* from 65520 on */
	if (magnitude >= 0x38800000) return (uint16_t)(sign | (magnitude + 0xfff + (magnitude >> 13 & 1) - (112u << 23)) >> 13);
	return (uint16_t)(sign | (uint16_t)rintf(fabsf(f) * 0x1p24f)); /* 2⁻²⁴ is half's smallest */
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

static inline void half_store(float value, void *data, enum dtype dtype, int64_t i)
{
	switch (dtype) {
	case DTYPE_BF16:
		((uint16_t *)data)[i] = bf16_from_f32(value);
		break;
	case DTYPE_F16:
		((uint16_t *)data)[i] = f16_from_f32(value);
		break;
	default:
		((float *)data)[i] = value;
	}
}

#endif
