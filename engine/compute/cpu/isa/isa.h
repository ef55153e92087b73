/* What the kernels share: names per instruction set, float conversions, elementary functions, rows in any float type.
 *
 * Everything here is static: these files are compiled with instructions that the machine may lack, and the linker must not pick one
 * of their copies of a function for others. The elementary functions are written so that loops over them vectorise. */
#ifndef BESAD_ENGINE_CPU_ISA_H
#define BESAD_ENGINE_CPU_ISA_H

#include <math.h>
#include <string.h>

#include "engine/compute/cpu/kernels.h"

#define ISA_JOIN_(name, isa) name##_##isa
#define ISA_JOIN(name, isa) ISA_JOIN_(name, isa)
#define ISA_NAME(name) ISA_JOIN(name, ISA)

#define INLINE static inline __attribute__((always_inline))

/* ---- conversions ------------------------------------------------------------------------------------------------------------- */

INLINE float float_of(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

INLINE uint32_t bits_of(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}

INLINE float bf16_load(uint16_t h)
{
	return float_of((uint32_t)h << 16);
}

INLINE uint16_t bf16_round(float f)
{
	uint32_t bits = bits_of(f), rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16, quiet = bits >> 16 | 0x40;
	return (uint16_t)((bits & 0x7fffffff) > 0x7f800000 ? quiet : rounded);
}

INLINE float f16_load(uint16_t h)
{
	uint32_t shifted = (uint32_t)(h & 0x7fff) << 13, sign = (uint32_t)(h & 0x8000) << 16;
	uint32_t finite = bits_of(float_of(shifted) * 0x1p112f);
	return float_of((shifted >= 0x0f800000 ? shifted | 0x7f800000 : finite) | sign);
}

INLINE uint16_t f16_round(float f)
{
	uint32_t bits = bits_of(f) & 0x7fffffff, sign = bits_of(f) >> 16 & 0x8000;
	uint32_t normal = (bits + 0xfff + (bits >> 13 & 1) - (112u << 23)) >> 13;
	uint32_t subnormal = bits_of(float_of(bits) + 0.5f) - 0x3f000000; /* 2⁻²⁴, half's smallest, is the last place of 0.5 */
	uint32_t finite = bits < 0x38800000 ? subnormal : normal;
	uint32_t special = bits > 0x7f800000 ? 0x7e00 : 0x7c00;
	return (uint16_t)((bits >= 0x477ff000 ? special : finite) | sign); /* from 65520 on half rounds to infinity */
}

INLINE const void *at(const struct tensor *t, int64_t row, int64_t col)
{
	return (const char *)t->data + (size_t)(row * t->stride + col) * dtype_size(t->dtype);
}

static inline void load_floats(float *to, const void *from, enum dtype type, int64_t n)
{
	const uint16_t *half = from;
	switch (type) {
	case DTYPE_BF16:
#pragma omp simd
		for (int64_t i = 0; i < n; i++)
			to[i] = bf16_load(half[i]);
		break;
	case DTYPE_F16:
#pragma omp simd
		for (int64_t i = 0; i < n; i++)
			to[i] = f16_load(half[i]);
		break;
	default:
		memcpy(to, from, (size_t)n * sizeof(float));
	}
}

static inline void store_floats(void *to, enum dtype type, const float *from, int64_t n)
{
	uint16_t *half = to;
	switch (type) {
	case DTYPE_BF16:
#pragma omp simd
		for (int64_t i = 0; i < n; i++)
			half[i] = bf16_round(from[i]);
		break;
	case DTYPE_F16:
#pragma omp simd
		for (int64_t i = 0; i < n; i++)
			half[i] = f16_round(from[i]);
		break;
	default:
		memcpy(to, from, (size_t)n * sizeof(float));
	}
}

/* ---- rows, in pieces that fit the stack -------------------------------------------------------------------------------------- */

enum { PIECE = 1024 };

/* The elements [col, col + n) of a row as fp32, n ≤ PIECE: in place where the tensor is F32, else in `buffer`. */
INLINE const float *row_read(const struct tensor *t, int64_t row, int64_t col, int64_t n, float *buffer)
{
	if (t->dtype == DTYPE_F32) return at(t, row, col);
	load_floats(buffer, at(t, row, col), t->dtype, n);
	return buffer;
}

/* Has what row_read reads of a row, or of the last one, fetched ahead of it: for who reads parts of many rows, which the processor
 * does not foresee. */
INLINE void row_fetch(const struct tensor *t, int64_t row, int64_t col, int64_t n)
{
	const char *from = at(t, least(row, t->rows - 1), col);
	for (int64_t byte = 0; byte < n * (int64_t)dtype_size(t->dtype); byte += 64)
		__builtin_prefetch(from + byte);
}

/* Where to compute the elements [col, …) of a row; row_finish then brings them into the tensor. */
INLINE float *row_target(const struct tensor *t, int64_t row, int64_t col, float *buffer)
{
	return t->dtype == DTYPE_F32 ? (float *)(uintptr_t)at(t, row, col) : buffer;
}

INLINE void row_finish(const struct tensor *t, int64_t row, int64_t col, int64_t n, const float *buffer)
{
	if (t->dtype != DTYPE_F32) store_floats((void *)(uintptr_t)at(t, row, col), t->dtype, buffer, n);
}

/* ---- elementary functions: about 1 ulp, NaN in gives NaN out ----------------------------------------------------------------- */

/* Splits x = n·ln 2 + r with |r| ≤ ln 2 / 2 and returns e^r − 1; *ret_power = 2ⁿ. −87.3 ≤ x ≤ 88.3. */
INLINE float exp_parts(float x, float *ret_power)
{
	const float magic = 0x1.8p23f; /* adding it rounds to an integer, which stands in the low bits */
	float shifted = x * 0x1.715476p0f + magic, n = shifted - magic;
	float r = (x - n * 0x1.62e4p-1f) + n * -0x1.7f7d1cp-20f; /* ln 2 in two parts: n times the first is exact */
	float p = 1.9875691500e-4f;
	p = p * r + 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	*ret_power = float_of((bits_of(shifted) + 127) << 23);
	return p * (r * r) + r;
}

INLINE float clamp_exponent(float x)
{
	x = x > 88.3f ? 88.3f : x;
	return x < -87.3f ? -87.3f : x;
}

/* e^x for −87.3 ≤ x ≤ 88.3. */
INLINE float exp_within(float x)
{
	float power, minus_one = exp_parts(x, &power);
	return minus_one * power + power;
}

/* e^x; 0 below −87.3, no more than e^88.3. */
INLINE float exp_fast(float x)
{
	float power, minus_one = exp_parts(clamp_exponent(x), &power);
	return x < -87.3f ? 0 : minus_one * power + power;
}

INLINE float sigmoid_fast(float x)
{
	return 1 / (1 + exp_fast(-x));
}

INLINE float tanh_fast(float x)
{
	float doubled = 2 * x, power;
	doubled = doubled > 20 ? 20 : doubled;
	doubled = doubled < -20 ? -20 : doubled;
	float minus_one = exp_parts(doubled, &power);
	float expm1 = minus_one * power + (power - 1);
	return expm1 / (expm1 + 2);
}

#endif
