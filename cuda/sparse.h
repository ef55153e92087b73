/* Products with pruned weights on the device, for decoding: y = x·Wᵀ, W as an archive has it (docs/format.md,
 * engine/sparse/matvec.h): a bitmap and the values that are not zero, in bf16. W is read once, as it lies, and never stands dense
 * in memory, but where there are more vectors than CUDA_SPARSE_VECTORS.
 *
 * Products of bf16 are exact in fp32; sums are fp32, in an order that shapes and the device's shared memory alone decide, so that
 * the same input gives the same bits. A weight that was left out counts as 0: times an infinity it may or may not be NaN. */
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
	CUDA_SPARSE_WORD = 64,    /* SPARSE_WORD */
	CUDA_SPARSE_VECTORS = 32, /* SPARSE_VECTORS */
	CUDA_SPARSE_SEGMENT = 8   /* words of a row that a warp takes at once */
};

/* Of a matrix on the device. Which rows make a block, no product asks: `starts` says where they lie. */
struct cuda_sparse {
	int64_t rows, cols, words;
	int64_t segments;       /* of a row: ⌈words / CUDA_SPARSE_SEGMENT⌉ */
	int64_t longest;        /* values between two neighbouring starts, at most */
	int64_t bytes;          /* that a product reads of it */
	const uint64_t *mask;   /* [rows, words] */
	const uint16_t *values; /* as in struct sparse_matrix */
	const uint32_t *starts; /* [rows · segments + 1]: how many values lie before each segment */
};

/* Copies a matrix of bf16 values to the device, whatever its blocks' rows. STATUS_UNSUPPORTED: it has codes, or no bitmap. */
enum status cuda_sparse_upload(struct backend *, const struct sparse_matrix *, struct cuda_sparse *ret);
void cuda_sparse_release(struct backend *, struct cuda_sparse *);

/* y [n, rows] F32 = x · Wᵀ; x [n, words · CUDA_SPARSE_WORD] BF16, zeros behind the last column, rows aligned to 16 bytes. */
enum status cuda_sparse_product(struct backend *, const struct cuda_sparse *, struct tensor y, struct tensor x);

/* W as a dense matrix [rows, cols] of BF16. */
enum status cuda_sparse_expand(struct backend *, const struct cuda_sparse *, struct tensor dense);

/* y [1, rows] F32 = x · Wᵀ of a dense W [rows, cols] in BF16 and one vector [1, cols], both in rows of whole, aligned chunks of 8:
 * what benches compare with. */
enum status cuda_dense_product(struct backend *, struct tensor y, struct tensor x, struct tensor w);

#ifdef __cplusplus
}
#endif

#endif
