/* Products of a matrix and one vector, or some, as decoding makes them: y = W·x, with W [rows, cols] in bf16 or codes of a
 * quantizer, dense, or as a bitmap and what is not zero. All read W once, so that what counts is how many bytes it has.
 *
 * x is bf16 too, products are exact in fp32, and sums are fp32, in an order that depends on the kernel: sparse and dense products
 * of the same numbers differ by the rounding of sums alone. Subnormal numbers may count as zeros. */
#ifndef BESAD_ENGINE_SPARSE_MATVEC_H
#define BESAD_ENGINE_SPARSE_MATVEC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
	SPARSE_WORD = 64,       /* columns that a word of the bitmap tells of */
	SPARSE_BLOCK_ROWS = 16, /* of what sparse_pack makes */
	SPARSE_ALIGNMENT = 64,
	SPARSE_SLACK = 64,  /* bytes behind the last value that can be read, whatever they hold */
	SPARSE_VECTORS = 32 /* the most at once */
};

/* Codes in the place of bf16 values (engine/model/packed.h): a weight is (code − zero)·step, with a step and a zero point for
 * each `group` neighbours of a row. What is left out has the code that stands for 0. Kernels that multiply by the step first
 * round once more, each weight. */
struct sparse_grids {
	int bits;              /* 4 or 8; 0: there are no codes */
	int64_t group, groups; /* columns of each, and how many a row has; the first divides the columns */
	const float *steps;    /* [rows, groups] */
	const uint8_t *zeros;  /* [rows, groups], below 2^bits; NULL: all are 2^(bits − 1) */
};

/* Rows in blocks of block_rows, the last of which may have fewer. The values of a block begin at a multiple of SPARSE_ALIGNMENT
 * bytes. */
struct sparse_matrix {
	int64_t rows, cols;
	int64_t words; /* of a row of the bitmap: ⌈cols / 64⌉ */
	int64_t block_rows, blocks;
	const uint64_t *mask;   /* [rows, words]: bit j of word w is column 64·w + j's; bits beyond the last column are 0 */
	const uint16_t *values; /* bf16: those of each row's set bits, in their order, row behind row */
	const int64_t *offsets; /* [blocks + 1]: where the values of each block begin, and the last ones end, in bytes */
	const uint8_t *codes;   /* in the place of values: the first of a row in the lowest bits of a byte */
	struct sparse_grids grids;
	int64_t row_bytes; /* of a dense matrix, which has no mask and no offsets: all columns are kept, and each row takes so
			    * much */
};

/* Memory for matrices, aligned to SPARSE_ALIGNMENT and in large pages where there are some: a product waits for fewer
 * translations of addresses then, and reads at nearly twice the rate. Many small matrices should share it. NULL without memory;
 * freed with free. */
void *matvec_allocate(size_t bytes);

/* Packs a dense matrix, row by row, into `memory`, which is aligned to SPARSE_ALIGNMENT, has sparse_memory bytes (a multiple of
 * it, with slack), and must stay while *ret is used. What is zero, of either sign, is left out. */
int64_t sparse_memory(const uint16_t *dense, int64_t rows, int64_t cols);
struct sparse_matrix sparse_pack(const uint16_t *dense, int64_t rows, int64_t cols, void *memory);

/* The same of codes, one a byte, dense or sparse. What `grids` points to must stay as well. */
int64_t sparse_codes_memory(const uint8_t *codes, int64_t rows, int64_t cols, const struct sparse_grids *grids, bool sparse);
struct sparse_matrix sparse_codes_pack(const uint8_t *codes, int64_t rows, int64_t cols, const struct sparse_grids *grids,
				       bool sparse, void *memory);

/* A dense matrix as it lies, with slack behind it. */
struct sparse_matrix dense_matrix(const uint16_t *weights, int64_t rows, int64_t cols);

/* Bytes that a product reads of the matrix. */
int64_t sparse_bytes(const struct sparse_matrix *);

/* Elements that x must have for `cols` columns: up to the next multiple of SPARSE_WORD. */
static inline int64_t matvec_length(int64_t cols)
{
	return (cols + SPARSE_WORD - 1) / SPARSE_WORD * SPARSE_WORD;
}

/* Rounds a vector to bf16, and adds zeros behind it: ret [matvec_length(cols)]. */
void matvec_input(const float *x, int64_t cols, uint16_t *ret);

/* The kernels of an instruction set, on one thread. x is as matvec_input makes it. */
struct matvec_kernels {
	const char *name;
	/* The rows of the blocks [first, last). */
	void (*sparse)(const struct sparse_matrix *, const uint16_t *x, float *y, int64_t first, int64_t last);
	/* The rows [first, last) of a dense matrix with `cols` columns. */
	void (*dense)(const uint16_t *weights, int64_t cols, const uint16_t *x, float *y, int64_t first, int64_t last);
	/* Of any matrix, and n vectors, from 1 to SPARSE_VECTORS, as matvec_inputs makes them for it: y [n, rows], of the rows
	 * that `sparse` has. */
	void (*product)(const struct sparse_matrix *, const uint16_t *x, int n, float *y, int64_t first, int64_t last);
	/* Where `product` wants column j of a word, of 64. NULL: there. */
	int (*input)(const struct sparse_matrix *, int column);
};

/* The i-th kernels that this processor runs, the fastest first; NULL behind the last. "avx512" wants VBMI, VBMI2 and bf16, "avx2"
 * also FMA. */
const struct matvec_kernels *matvec_kernels(int i);

/* The same as matvec_input of n vectors, x [n, cols], for products with `matrix` by `kernels`: word by word, ret [words, n,
 * SPARSE_WORD]. */
void matvec_inputs(const struct matvec_kernels *kernels, const struct sparse_matrix *matrix, const float *x, int n, uint16_t *ret);

/* y [rows] by the fastest kernels and `threads` threads, to which blocks are dealt by the bytes that they have. */
void sparse_matvec(const struct sparse_matrix *, const uint16_t *x, float *y, int threads);
void dense_matvec(const uint16_t *weights, int64_t rows, int64_t cols, const uint16_t *x, float *y, int threads);

/* `product`, of inputs for the fastest kernels. sparse_matvec is of bf16 alone. */
void sparse_matmul(const struct sparse_matrix *, const uint16_t *x, int n, float *y, int threads);

#endif
