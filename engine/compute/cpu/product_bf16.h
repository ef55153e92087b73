/* Products of bf16 for processors with AVX512_BF16. Whoever calls these has seen that product_suits_bf16, or gradient_suits. */
#ifndef BESAD_ENGINE_CPU_PRODUCT_BF16_H
#define BESAD_ENGINE_CPU_PRODUCT_BF16_H

#include "engine/compute/cpu/kernels.h"

static inline bool product_suits_bf16(const struct tensor *c, const struct tensor *a)
{
	return a->cols % 2 == 0 && a->stride % 2 == 0 && c->dtype != DTYPE_F16;
}

extern const struct product_kernels product_kernels_bf16;

/* dyᵀ · x, a block at a time, as the kernels of each instruction set make it of fp32 (engine/compute/cpu/isa/gradient.c). */
static inline bool gradient_suits(const struct tensor *x)
{
	return x->rows >= 2 * PRODUCT_GRAIN && x->rows <= PRODUCT_MOST / x->cols;
}

extern const struct gradient_kernels gradient_kernels_bf16; /* `drop` is v4's */

#endif
