/* Products of bf16 for processors with AVX512_BF16. */
#ifndef BESAD_ENGINE_CPU_PRODUCT_BF16_H
#define BESAD_ENGINE_CPU_PRODUCT_BF16_H

#include "engine/compute/cpu/kernels.h"

enum {
	PRODUCT_BF16_PANEL = 32,       /* a multiple of the columns that are packed together */
	PRODUCT_BF16_GRAIN = 12,       /* a multiple of the rows of C that are computed at once */
	PRODUCT_BF16_LEAST_ROWS = 64,  /* below it packing takes too much of the time */
	PRODUCT_BF16_MOST = 384 << 10, /* elements of the right operand: more do not stay in a second-level cache */
};

/* C [M,N] = A · op(B) (+ addend, which has C's type and may be C, or no data). */
struct product_bf16_job {
	struct tensor c, a, b, addend;
	bool transpose_b;
	uint32_t *panels; /* op(B), packed */
};

/* Whether the two functions below can make a product, and it is one for them. */
static inline bool product_bf16_suits(const struct tensor *c, const struct tensor *a)
{
	return a->cols % 2 == 0 && a->stride % 2 == 0 && c->dtype != DTYPE_F16 && c->rows >= PRODUCT_BF16_LEAST_ROWS && a->cols &&
	       c->cols && a->cols <= PRODUCT_BF16_MOST / c->cols;
}

/* Elements of `panels`. */
static inline size_t product_bf16_panels(const struct product_bf16_job *job)
{
	return (size_t)((job->c.cols + PRODUCT_BF16_PANEL - 1) / PRODUCT_BF16_PANEL * PRODUCT_BF16_PANEL) * (size_t)job->a.cols;
}

/* Packs the columns [first, last) of op(B); first is a multiple of PRODUCT_BF16_PANEL. */
void product_bf16_pack(const struct product_bf16_job *, int64_t first, int64_t last);
/* Computes the rows [first, last) of C. */
void product_bf16_multiply(const struct product_bf16_job *, int64_t first, int64_t last);

/* dyᵀ · x, a block at a time, as the kernels of each instruction set make it of fp32 (engine/compute/cpu/isa/gradient.c). */
static inline bool gradient_suits(const struct tensor *x)
{
	return x->rows >= 2 * PRODUCT_BF16_GRAIN && x->rows <= PRODUCT_BF16_MOST / x->cols;
}

extern const struct gradient_kernels gradient_kernels_bf16; /* `drop` is v4's */

#endif
