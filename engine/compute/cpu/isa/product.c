/* Products of fp32 by a matrix that is packed as a whole: for each stretch of DEPTH of the inner dimension, panels of BLOCK_COLS
 * columns of it, in which rows of a panel lie behind each other. */
#include "engine/compute/cpu/isa/product.h"
#include "engine/compute/cpu/isa/isa.h"
#if defined __AVX512F__
#include "engine/compute/cpu/transpose.h"
#endif

enum { DEPTH = PRODUCT_DEPTH }; /* a panel of this depth comes from a second-level cache, a row of it in time */

static int64_t inner_of(const struct product_job *job)
{
	return job->a.cols;
}

/* The panel of the columns [col, …) over the inner range [inner, inner + depth): packed, its rows are BLOCK_COLS apart, and where
 * nothing is packed it lies in B. */
static float *panel_of(const struct product_job *job, int64_t inner, int64_t depth, int64_t col)
{
	int64_t cols = (job->c.cols + BLOCK_COLS - 1) / BLOCK_COLS * BLOCK_COLS;
	if (!job->panels) return (float *)job->b.data + inner * job->b.stride + col;
	return (float *)job->panels + inner * cols + col * depth;
}

/* ---- packing ----------------------------------------------------------------------------------------------------------------- */

/* to [depth][BLOCK_COLS]: the rows [row, row + depth) and `cols` columns of b, 0 behind them. */
static void pack_columns(float *to, const struct tensor *b, int64_t row, int64_t depth, int64_t col, int64_t cols)
{
	for (int64_t k = 0; k < depth; k++, to += BLOCK_COLS) {
		const float *from = at(b, row + k, col);
		if (cols == BLOCK_COLS) {
			memcpy(to, from, BLOCK_COLS * sizeof *to);
			continue;
		}
		memcpy(to, from, (size_t)cols * sizeof *to);
		memset(to + cols, 0, (size_t)(BLOCK_COLS - cols) * sizeof *to);
	}
}

/* The same of bᵀ: `cols` rows of b from `row` on, and of each the columns [col, col + depth). */
static void pack_rows(float *to, const struct tensor *b, int64_t row, int64_t cols, int64_t col, int64_t depth)
{
	int64_t j = 0;
#if defined __AVX512F__
	for (; j + LANES <= cols; j += LANES) {
		int64_t k = 0;
		for (; k + LANES <= depth; k += LANES) {
			__m512i r[LANES];
			for (int i = 0; i < LANES; i++)
				r[i] = _mm512_loadu_si512(at(b, row + j + i, col + k));
			transpose_words(r);
			for (int i = 0; i < LANES; i++)
				_mm512_storeu_si512(to + (k + i) * BLOCK_COLS + j, r[i]);
		}
		for (; k < depth; k++)
			for (int i = 0; i < LANES; i++)
				to[k * BLOCK_COLS + j + i] = *(const float *)at(b, row + j + i, col + k);
	}
#endif
	for (; j < BLOCK_COLS; j++) {
		const float *from = j < cols ? at(b, row + j, col) : NULL;
		for (int64_t k = 0; k < depth; k++)
			to[k * BLOCK_COLS + j] = from ? from[k] : 0;
	}
}

static void pack(const struct product_job *job, int64_t first, int64_t last)
{
	for (int64_t inner = 0; inner < inner_of(job); inner += DEPTH) {
		int64_t depth = least(DEPTH, inner_of(job) - inner);
		for (int64_t col = first; col < last; col += BLOCK_COLS) {
			float *to = panel_of(job, inner, depth, col);
			int64_t cols = least(BLOCK_COLS, job->c.cols - col);
			if (job->transpose_b)
				pack_rows(to, &job->b, col, cols, inner, depth);
			else
				pack_columns(to, &job->b, inner, depth, col, cols);
		}
	}
}

/* ---- products ---------------------------------------------------------------------------------------------------------------- */

/* The last columns of C are fewer than a block has: they are made beside it. */
static void multiply_edge(const struct product_job *job, int rows, int64_t row, int64_t col, int64_t inner, int depth,
			  const struct tensor *from)
{
	float block[BLOCK_ROWS][BLOCK_COLS];
	int64_t cols = job->c.cols - col;
	for (int i = 0; from && i < rows; i++)
		memcpy(block[i], at(from, row + i, col), (size_t)cols * sizeof **block);
	product_some_rows(FAR, rows, at(&job->a, row, inner), job->a.stride, 1, panel_of(job, inner, depth, col), BLOCK_COLS, depth,
			  from ? block[0] : NULL, BLOCK_COLS, block[0], BLOCK_COLS);
	for (int i = 0; i < rows; i++)
		memcpy((float *)job->c.data + (row + i) * job->c.stride + col, block[i], (size_t)cols * sizeof **block);
}

INLINE void multiply_panels(const struct product_job *job, int64_t panel_row, int64_t first, int64_t last, int64_t first_col,
			    int64_t last_col)
{
	const struct tensor *c = &job->c, *add = job->addend.data ? &job->addend : NULL;
	int64_t blocks = (last - first + BLOCK_ROWS - 1) / BLOCK_ROWS;
	int64_t height = blocks ? (last - first + blocks - 1) / blocks : 1; /* no block has much less than the others */
	for (int64_t inner = 0; inner < inner_of(job); inner += DEPTH) {
		int depth = (int)least(DEPTH, inner_of(job) - inner);
		const struct tensor *from = inner ? c : add;
		for (int64_t col = first_col; col < last_col; col += BLOCK_COLS) {
			const float *panel = panel_of(job, inner, depth, col);
			for (int64_t row = first; row < last; row += height) {
				int rows = (int)least(height, last - row);
				if (col + BLOCK_COLS > c->cols) {
					multiply_edge(job, rows, row, col, inner, depth, from);
					continue;
				}
				product_some_rows(FAR, rows, at(&job->a, row, inner), job->a.stride, 1, panel, panel_row, depth,
						  from ? at(from, row, col) : NULL, from ? from->stride : 0,
						  (float *)c->data + row * c->stride + col, c->stride);
			}
		}
	}
}

static void multiply(const struct product_job *job, int64_t first, int64_t last, int64_t first_col, int64_t last_col)
{
	if (job->panels)
		multiply_panels(job, BLOCK_COLS, first, last, first_col, last_col);
	else
		multiply_panels(job, job->b.stride, first, last, first_col, last_col);
}

const struct product_kernels ISA_NAME(product_kernels) = {
	.large = LANES == 16,
	.pack = pack,
	.multiply = multiply,
};
