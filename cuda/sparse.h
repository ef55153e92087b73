/* Products with pruned weights on the device, for decoding: y = x·Wᵀ with W [rows, cols] in bf16. W is read once, without most of
 * its zeros, and never stands dense in memory, but where there are too many vectors for that (cuda_sparse_product).
 *
 * On the device W is a list for each row: its values that are not zero, in bf16, and for each how many columns it lies behind the
 * one before, in 4 bits; where that is more than 16, zeros stand between. So it takes 2.5 bytes a value, and finding a value's
 * column takes no counting of bits. The lanes of a warp have a part of a row's list each, and take STEP values of theirs at a time:
 * a step of a row is the values of lane 0, of lane 1, … , and behind them the distances in the same order.
 *
 * x lies in shared memory for that, in windows of columns that overlap: window b is a column of words that all lie in bank b. As
 * lane l's part of a row lies in window l, but for a row whose zeros lie otherwise than those of the others, lanes do not wait for
 * each other.
 *
 * Products of bf16 are exact in fp32; sums are fp32, in an order that W and the device's shared memory alone decide, so that the
 * same input gives the same bits. A product with an infinity of x may be NaN, wherever W has zeros. */
#ifndef BESAD_CUDA_SPARSE_H
#define BESAD_CUDA_SPARSE_H

#ifdef __cplusplus
extern "C" {
#endif

#include "base/error.h"
#include "engine/compute/tensor.h"

struct backend;
struct sparse_matrix;

enum {
	CUDA_SPARSE_WORD = 64,   /* SPARSE_WORD */
	CUDA_SPARSE_VECTORS = 8, /* that are multiplied at once, at most */
	CUDA_SPARSE_COLS = 64000,
	CUDA_SPARSE_LANES = 32,
	CUDA_SPARSE_STEP = 4,
	CUDA_SPARSE_NEAR = 16, /* columns from a value to the next, at most */
	CUDA_SPARSE_STEP_VALUES = CUDA_SPARSE_LANES * CUDA_SPARSE_STEP,
	CUDA_SPARSE_STEP_BYTES = CUDA_SPARSE_STEP_VALUES / 2 * 5,
	CUDA_SPARSE_HEAD = 8 /* steps at most: what a warp reads ahead */
};

/* Of a matrix on the device. Memory has
 *   steps [steps] of CUDA_SPARSE_STEP_BYTES: row r's first `head` ones from step r · head on, the others behind all of these;
 *   places [rows, LANES] uint16_t: where the first value of each lane's part has its x: row of the windows · LANES + window;
 *   tails [rows + 1] uint32_t: which step is the first of each row behind its head.
 * So a warp knows where its first steps are before it has read anything. */
struct cuda_sparse {
	int64_t rows, cols, words; /* words: as in struct sparse_matrix */
	int64_t steps, head;
	int64_t height;                   /* of the windows, with what parts of a row that are filled up run over: columns */
	int32_t bases[CUDA_SPARSE_LANES]; /* the first column of each window, a multiple of 8 */
	int64_t bytes;                    /* of the memory: what a product reads */
	void *memory;
};

/* Copies a matrix of bf16 values to the device, whatever its blocks' rows. STATUS_UNSUPPORTED: it has codes, no bitmap, more than
 * CUDA_SPARSE_COLS columns or 2³² steps. */
enum status cuda_sparse_upload(struct backend *, const struct sparse_matrix *, struct cuda_sparse *ret);
void cuda_sparse_release(struct backend *, struct cuda_sparse *);

/* y [n, rows] F32 = x · Wᵀ; x [n, words · CUDA_SPARSE_WORD] BF16, zeros behind the last column, rows aligned to 16 bytes. More
 * vectors than CUDA_SPARSE_VECTORS, or than two turns of as many as shared memory has room for windows of, are multiplied by a
 * dense W, which is made for that. */
enum status cuda_sparse_product(struct backend *, const struct cuda_sparse *, struct tensor y, struct tensor x);

/* W as a dense matrix [rows, cols] of BF16. */
enum status cuda_sparse_expand(struct backend *, const struct cuda_sparse *, struct tensor dense);

/* y [1, rows] F32 = x · Wᵀ of a dense W [rows, cols] in BF16 and one vector [1, cols], both in rows of whole, aligned chunks of 8:
 * what benches compare with. */
enum status cuda_dense_product(struct backend *, struct tensor y, struct tensor x, struct tensor w);

/* Bytes of shared memory that a block may have. */
int64_t cuda_sparse_room(struct backend *);

#ifdef __cplusplus
}
#endif

#endif
