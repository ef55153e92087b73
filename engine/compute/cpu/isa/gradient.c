/* Binned gradients: G = dyᵀ·x a block at a time, each multiplied by W and dropped into its rows' bins while it lies in the cache.
 *
 * Both factors have the inner index (the token) down their rows, so packing only gathers: x into panels of BLOCK_COLS columns,
 * which all threads share, dy into panels of BLOCK_ROWS columns for the rows at hand. */
#include "engine/compute/cpu/isa/isa.h"
#include "engine/compute/cpu/isa/product.h"

/* panels[⌊col / width⌋][token][col mod width] = x[token, first + col], 0 where x ends. Several panels at a time, and fetched
 * ahead: rows of x that are a power of 2 apart share few places in the caches and are not foreseen by the processor. */
INLINE void pack_panels(float *panels, const struct tensor *from, int64_t first, int64_t count, int width)
{
	enum { PANELS = 8, AHEAD = 16 };
	const struct tensor x = *from; /* what a store does not change */
	float buffer[PANELS * BLOCK_COLS];
	for (int64_t col = 0; col < count; col += PANELS * width) {
		int64_t wanted = least(PANELS * width, (count - col + width - 1) / width * width);
		int64_t used = least(wanted, x.cols - first - col); /* the last panel may reach beyond x */
		for (int64_t token = 0; token < x.rows; token++) {
			row_fetch(&x, token + AHEAD, first + col, used);
			const float *row = row_read(&x, token, first + col, used, buffer);
			if (used < wanted) {
				memmove(buffer, row, (size_t)used * sizeof *buffer);
				memset(buffer + used, 0, sizeof buffer - (size_t)used * sizeof *buffer);
				row = buffer;
			}
			float *to = panels + col * x.rows + token * width;
			for (int64_t c = 0; c < wanted; c += width, to += x.rows * width)
				memcpy(to, row + c, (size_t)width * sizeof *to);
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

enum { ROWS_AT_ONCE = 4 };

/* Rows of g ∘ W. */
INLINE void weigh(int rows, float weighed[][GRADIENT_COLS], const struct gradient_job *job, const float *g, int64_t g_stride,
		  int64_t row, int64_t col, int64_t cols)
{
	float buffer[GRADIENT_COLS];
	for (int i = 0; i < rows; i++, g += g_stride) {
		const float *w = row_read(&job->weight, row + i, col, cols, buffer);
#pragma omp simd
		for (int64_t j = 0; j < cols; j++)
			weighed[i][j] = g[j] * w[j];
	}
}

/* So many rows in turn, so that an addition seldom waits for the one before it to the same sum. They are weighed to a place of
 * their own, from which all addresses stay in registers. */
INLINE void drop_rows(int rows, const struct gradient_job *job, const float *g, int64_t g_stride, int64_t row, int64_t col,
		      int64_t cols)
{
	float weighed[ROWS_AT_ONCE][GRADIENT_COLS], *sums[ROWS_AT_ONCE];
	const uint8_t *bin[ROWS_AT_ONCE];
	weigh(rows, weighed, job, g, g_stride, row, col, cols);
#pragma GCC unroll 4
	for (int i = 0; i < rows; i++) {
		bin[i] = at(&job->bin, row + i, col);
		sums[i] = gradient_sums(job, row + i);
	}
	for (int64_t j = 0; j < cols; j++) {
#pragma GCC unroll 4
		for (int i = 0; i < rows; i++)
			sums[i][bin[i][j]] += weighed[i][j];
	}
}

/* Not inlined, for the same reason. */
static __attribute__((noinline)) void drop_four_rows(const struct gradient_job *job, const float *g, int64_t g_stride, int64_t row,
						     int64_t col, int64_t cols)
{
	drop_rows(ROWS_AT_ONCE, job, g, g_stride, row, col, cols);
}

static __attribute__((noinline)) void drop_row(const struct gradient_job *job, const float *g, int64_t row, int64_t col,
					       int64_t cols)
{
	drop_rows(1, job, g, 0, row, col, cols);
}

static void drop(const struct gradient_job *job, const float *g, int64_t g_stride, int64_t row, int64_t rows, int64_t col,
		 int64_t cols)
{
	for (int64_t piece = 0; piece < cols; piece += GRADIENT_COLS) {
		int64_t n = least(GRADIENT_COLS, cols - piece), i = 0;
		for (; i + ROWS_AT_ONCE <= rows; i += ROWS_AT_ONCE)
			drop_four_rows(job, g + i * g_stride + piece, g_stride, row + i, col + piece, n);
		for (; i < rows; i++)
			drop_row(job, g + i * g_stride + piece, row + i, col + piece, n);
	}
}

static void gradient(const struct gradient_job *job, int64_t first, int64_t last, float *workspace)
{
	float *g = workspace, *dy_panels = workspace + GRADIENT_ROWS * GRADIENT_COLS;
	int64_t rows = last - first;
	pack_panels(dy_panels, &job->dy, first, rows, BLOCK_ROWS);
	for (int64_t col = 0; col < job->x.cols; col += GRADIENT_COLS) {
		int64_t cols = least(GRADIENT_COLS, job->x.cols - col);
		multiply(job, g, dy_panels, rows, col, cols);
		drop(job, g, GRADIENT_COLS, first, rows, col, cols);
	}
}

const struct gradient_kernels ISA_NAME(gradient_kernels) = {
	.pack = pack,
	.gradient = gradient,
	.drop = drop,
};
