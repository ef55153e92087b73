/* Binned gradients: G = dyᵀ·x a block at a time, each multiplied by W and dropped into its rows' bins while it lies in the cache.
 *
 * Both factors have the inner index (the token) down their rows, so packing only gathers: x into panels of BLOCK_COLS columns,
 * which all threads share, dy into panels of BLOCK_ROWS columns for the rows at hand. */
#include "engine/compute/cpu/isa/isa.h"
#include "engine/compute/cpu/isa/product.h"

/* panels[⌊col / width⌋][token][col mod width] = x[token, first + col], 0 where x ends. Several panels at a time, and fetched
 * ahead: rows of x that are a power of 2 apart share few places in the caches and are not foreseen by the processor. */
INLINE void pack_panels(float *panels, const struct tensor *x, int64_t first, int64_t count, int width)
{
	enum { PANELS = 8, AHEAD = 16 };
	float buffer[PANELS * BLOCK_COLS];
	for (int64_t col = 0; col < count; col += PANELS * width) {
		int64_t wanted = least(PANELS * width, (count - col + width - 1) / width * width);
		int64_t used = least(wanted, x->cols - first - col); /* the last panel may reach beyond x */
		for (int64_t token = 0; token < x->rows; token++) {
			const char *ahead = at(x, least(token + AHEAD, x->rows - 1), first + col);
			for (size_t byte = 0; byte < (size_t)used * dtype_size(x->dtype); byte += 64)
				__builtin_prefetch(ahead + byte);
			const float *from = row_read(x, token, first + col, used, buffer);
			if (used < wanted) {
				memmove(buffer, from, (size_t)used * sizeof *buffer);
				memset(buffer + used, 0, sizeof buffer - (size_t)used * sizeof *buffer);
				from = buffer;
			}
			for (int64_t c = col; c < col + wanted; c += width, from += width)
				memcpy(panels + c * x->rows + token * width, from, (size_t)width * sizeof *from);
		}
	}
}

static void pack(const struct gradient_job *job, int64_t first, int64_t last)
{
	pack_panels(job->x_panels + first * job->x.rows, &job->x, first, last - first, BLOCK_COLS);
}

/* g [rows, GRADIENT_COLS] = dyᵀ·x for the rows packed in dy_panels and the columns [col, col + cols). */
static void multiply(const struct gradient_job *job, float *g, const float *dy_panels, int64_t rows, int64_t col, int64_t cols)
{
	enum { DEPTH = 256 }; /* a panel of x of this depth stays in the first-level cache */
	int64_t tokens = job->x.rows;
	for (int64_t token = 0; token < tokens; token += DEPTH) {
		int depth = (int)least(DEPTH, tokens - token);
		for (int64_t j = 0; j < cols; j += BLOCK_COLS) {
			const float *b = job->x_panels + (col + j) * tokens + token * BLOCK_COLS;
			for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
				float *to = g + i * GRADIENT_COLS + j;
				product_block(FAR, BLOCK_ROWS, 2, dy_panels + i * tokens + token * BLOCK_ROWS, 1, BLOCK_ROWS, b,
					      BLOCK_COLS, depth, token ? to : NULL, GRADIENT_COLS, to, GRADIENT_COLS);
			}
		}
	}
}

/* g ∘= W */
static void weigh(const struct gradient_job *job, float *g, int64_t g_stride, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
	float buffer[PIECE];
	for (int64_t i = 0; i < rows; i++) {
		for (int64_t piece = 0; piece < cols; piece += PIECE) {
			int64_t n = least(PIECE, cols - piece);
			const float *w = row_read(&job->weight, row + i, col + piece, n, buffer);
			float *g_row = g + i * g_stride + piece;
#pragma omp simd
			for (int64_t j = 0; j < n; j++)
				g_row[j] *= w[j];
		}
	}
}

/* So many rows in turn, so that an addition seldom waits for the one before it to the same sum; they are weighed while they lie in
 * the first-level cache. */
INLINE void drop_rows(int rows, const struct gradient_job *job, float *g, int64_t g_stride, int64_t row, int64_t col, int64_t cols)
{
	int64_t stride = job->sums_stride, bin_stride = job->bin.stride;
	const uint8_t *bin = at(&job->bin, row, col);
	float *sums = job->sums + row * stride;
	weigh(job, g, g_stride, row, rows, col, cols);
	for (int64_t j = 0; j < cols; j++) {
#pragma GCC unroll 8
		for (int i = 0; i < rows; i++)
			sums[i * stride + bin[i * bin_stride + j]] += g[i * g_stride + j];
	}
}

static void drop(const struct gradient_job *job, float *g, int64_t g_stride, int64_t row, int64_t rows, int64_t col, int64_t cols)
{
	enum { ROWS_AT_ONCE = 4 };
	int64_t i = 0;
	for (; i + ROWS_AT_ONCE <= rows; i += ROWS_AT_ONCE)
		drop_rows(ROWS_AT_ONCE, job, g + i * g_stride, g_stride, row + i, col, cols);
	for (; i < rows; i++)
		drop_rows(1, job, g + i * g_stride, g_stride, row + i, col, cols);
}

static void gradient(const struct gradient_job *job, int64_t first, int64_t last, float *workspace)
{
	float *g = workspace, *dy_panels = workspace + GRADIENT_ROWS * GRADIENT_COLS;
	for (int64_t row = first; row < last; row += GRADIENT_ROWS) {
		int64_t rows = least(GRADIENT_ROWS, last - row);
		pack_panels(dy_panels, &job->dy, row, rows, BLOCK_ROWS);
		for (int64_t col = 0; col < job->x.cols; col += GRADIENT_COLS) {
			int64_t cols = least(GRADIENT_COLS, job->x.cols - col);
			multiply(job, g, dy_panels, rows, col, cols);
			drop(job, g, GRADIENT_COLS, row, rows, col, cols);
		}
	}
}

const struct gradient_kernels ISA_NAME(gradient_kernels) = {
	.pack = pack,
	.gradient = gradient,
	.drop = drop,
};
