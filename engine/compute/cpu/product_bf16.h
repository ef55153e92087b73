/* Products of bf16 for processors with AVX512_BF16, whose right operand is small enough to be packed as a whole and to stay in a
 * second-level cache. oneDNN packs both operands, each thread all of the right one; larger products are its own. Whoever calls
 * these has seen that product_suits, or gradient_suits. */
#ifndef BESAD_ENGINE_CPU_PRODUCT_BF16_H
#define BESAD_ENGINE_CPU_PRODUCT_BF16_H

#include "engine/compute/cpu/kernels.h"

enum {
	PRODUCT_PANEL = 32,       /* columns of C that are packed together */
	PRODUCT_GRAIN = 12,       /* rows of C that are computed at once */
	PRODUCT_LEAST_ROWS = 64,  /* below it packing takes too much of the time */
	PRODUCT_MOST = 384 << 10, /* elements of the right operand */
};

/* C [M,N] = A · op(B) (+ addend, or, where that has no data, + C if `accumulate`). The addend has C's type. */
struct product_job {
	struct tensor c, a, b, addend;
	bool transpose_b, accumulate;
	uint32_t *panels; /* product_panels words: op(B), packed */
};

static inline bool product_suits(const struct tensor *c, const struct tensor *a, bool transpose_a)
{
	return !transpose_a && c->rows >= PRODUCT_LEAST_ROWS && a->cols % 2 == 0 && a->stride % 2 == 0 &&
	       a->cols <= PRODUCT_MOST / c->cols && c->dtype != DTYPE_F16;
}

static inline size_t product_panels(const struct tensor *c, const struct tensor *a)
{
	return (size_t)((c->cols + PRODUCT_PANEL - 1) / PRODUCT_PANEL * PRODUCT_PANEL) * (size_t)(a->cols / 2);
}

/* Packs the columns [first, last) of op(B); first is a multiple of PRODUCT_PANEL. */
void product_pack(const struct product_job *, int64_t first, int64_t last);
/* Computes the rows [first, last) of C. */
void product_multiply(const struct product_job *, int64_t first, int64_t last);

/* dyᵀ · x, a block at a time, as the kernels of each instruction set make it of fp32 (engine/compute/cpu/isa/gradient.c). */
static inline bool gradient_suits(const struct tensor *x)
{
	return x->rows >= 2 * PRODUCT_GRAIN && x->rows <= PRODUCT_MOST / x->cols;
}

extern const struct gradient_kernels gradient_kernels_bf16; /* `drop` is v4's */

#endif
