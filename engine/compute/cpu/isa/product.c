/* Products in fp32, after Goto and van de Geijn, "Anatomy of High-Performance Matrix Multiplication" (ACM TOMS 34, 2008): of a
 * stretch of DEPTH of the inner dimension a group of columns of op(B) is packed by panels of PANEL_COLS columns, in which rows
 * of a panel lie behind each other. The group stays in the second-level cache, a block of rows of op(A) in the first while it
 * meets the panels. */
#include "engine/compute/cpu/isa/product.h"
#include "engine/compute/cpu/isa/isa.h"
#if defined __AVX512F__
#include "engine/compute/cpu/transpose.h"
#endif

/* A block's sums fill the registers, but for a row of a panel and one factor of A. */
#if defined __AVX512F__
enum { TALLEST = 8, VECTORS = 3 };
#define CASES_TO_TALLEST CASES_TO_8
#else
enum { TALLEST = 6, VECTORS = 2 };
#define CASES_TO_TALLEST CASES_TO_6
#endif

enum {
	PANEL_COLS = VECTORS * LANES,
	DEPTH = PRODUCT_DEPTH,
	LEFT_STRIDE = DEPTH + 16, /* of rows of A that are copied: no power of two */
};

/* ---- the right operand ------------------------------------------------------------------------------------------------------- */

/* A stretch of columns of op(B): `depth` rows from `inner` on, `cols` columns from `col` on. */
struct group {
	int64_t inner, col, cols;
	int depth;
};

/* Where its panels lie: that of the columns from `col` on, a multiple of PANEL_COLS, at data + col · across, its rows `row`
 * apart. */
struct panels {
	const float *data;
	int64_t across, row;
};

/* Packs them side by side: [depth][PANEL_COLS] each, 0 behind the last column. */
static void pack_columns(float *to, const struct tensor *b, struct group g)
{
	enum { AHEAD = 12 };
	float buffer[PRODUCT_MOST_COLS];
	for (int k = 0; k < g.depth; k++, to += PANEL_COLS) {
		row_fetch(b, g.inner + k + AHEAD, g.col, g.cols);
		const float *from = row_read(b, g.inner + k, g.col, g.cols, buffer);
		int64_t col = 0;
		for (; col + PANEL_COLS <= g.cols; col += PANEL_COLS)
			memcpy(to + col * g.depth, from + col, PANEL_COLS * sizeof *to);
		for (int64_t i = col; i < g.cols || i % LANES; i++)
			to[col * g.depth + i - col] = i < g.cols ? from[i] : 0;
	}
}

#if defined __AVX512F__
/* As fp32, of which no part is beyond the row's end. */
INLINE __m512i sixteen(const struct tensor *t, int64_t row, int64_t col)
{
	if (t->dtype == DTYPE_F32) return _mm512_loadu_si512(at(t, row, col));
	__m256i half = _mm256_loadu_si256((const __m256i *)at(t, row, col));
	if (t->dtype == DTYPE_BF16) return _mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16);
	return _mm512_castps_si512(_mm512_cvtph_ps(half));
}
#endif

/* The same of bᵀ: rows of b are columns. */
static void pack_rows(float *to, const struct tensor *b, struct group g)
{
	int64_t j = 0;
#if defined __AVX512F__
	for (; j + LANES <= g.cols; j += LANES) {
		float *panel = to + j / PANEL_COLS * PANEL_COLS * g.depth + j % PANEL_COLS;
		int k = 0;
		for (; k + LANES <= g.depth; k += LANES) {
			__m512i r[LANES];
			for (int i = 0; i < LANES; i++)
				r[i] = sixteen(b, g.col + j + i, g.inner + k);
			transpose_words(r);
			for (int i = 0; i < LANES; i++)
				_mm512_storeu_si512(panel + (k + i) * PANEL_COLS, r[i]);
		}
		for (int i = 0; i < LANES && k < g.depth; i++) {
			float rest[LANES];
			const float *from = row_read(b, g.col + j + i, g.inner + k, g.depth - k, rest);
			for (int n = k; n < g.depth; n++)
				panel[n * PANEL_COLS + i] = from[n - k];
		}
	}
#endif
	for (; j < g.cols || j % LANES; j++) {
		float *panel = to + j / PANEL_COLS * PANEL_COLS * g.depth + j % PANEL_COLS, buffer[DEPTH];
		const float *from = j < g.cols ? row_read(b, g.col + j, g.inner, g.depth, buffer) : NULL;
		for (int k = 0; k < g.depth; k++)
			panel[k * PANEL_COLS] = from ? from[k] : 0;
	}
}

static struct panels panels_of(const struct product_job *job, struct group g, float *buffer)
{
	const struct tensor *b = &job->b;
	if (product_reads_in_place(job)) return (struct panels){at(b, g.inner, g.col), 1, b->stride};
	if (job->transpose_b)
		pack_rows(buffer, b, g);
	else
		pack_columns(buffer, b, g);
	return (struct panels){buffer, g.depth, PANEL_COLS};
}

/* ---- the left operand -------------------------------------------------------------------------------------------------------- */

/* A block of op(A), whose element (i, k) is data[i · row + k · inner]. */
struct left {
	const float *data;
	int64_t row, inner;
};

/* `rows` rows from `row` on, where they lie or copied to `buffer`: where they are no fp32, where they are columns, and where
 * they lie so far apart that they meet in few places of a cache. */
static struct left left_block(const struct product_job *job, int64_t row, int rows, struct group g, float *buffer)
{
	const struct tensor *a = &job->a;
	if (job->transpose_a) {
		for (int k = 0; k < g.depth; k++) {
			const void *from = at(a, g.inner + k, row);
			if (rows == TALLEST && a->dtype == DTYPE_F32)
				memcpy(buffer + k * TALLEST, from, TALLEST * sizeof *buffer);
			else
				load_floats(buffer + k * TALLEST, from, a->dtype, rows);
		}
		return (struct left){buffer, 1, TALLEST};
	}
	if (a->dtype == DTYPE_F32 && a->stride % 1024) return (struct left){at(a, row, g.inner), a->stride, 1};
	for (int i = 0; i < rows; i++)
		load_floats(buffer + i * LEFT_STRIDE, at(a, row + i, g.inner), a->dtype, g.depth);
	return (struct left){buffer, LEFT_STRIDE, 1};
}

/* ---- products ---------------------------------------------------------------------------------------------------------------- */

INLINE void multiply_vectors(int vectors, struct left left, int rows, const float *panel, int64_t panel_row, int depth,
			     const float *from, int64_t from_row, float *to, int64_t to_row)
{
	switch (rows) {
#define CASE(n)                                                                                                                    \
	case n:                                                                                                                    \
		product_block(FAR, n, vectors, left.data, left.row, left.inner, panel, panel_row, depth, from, from_row, to,       \
			      to_row);                                                                                             \
		break;
		CASES_TO_TALLEST
#undef CASE
	}
}

/* Adds rows times so many columns of a panel, rounded up to whole vectors, to `from`, which may be NULL. By itself: inlined, its
 * addresses would not stay in registers. */
static __attribute__((noinline)) void multiply_panel(struct left left, int rows, int64_t cols, const float *panel,
						     int64_t panel_row, int depth, const float *from, int64_t from_row, float *to,
						     int64_t to_row)
{
	switch ((cols + LANES - 1) / LANES) {
	case 1:
		multiply_vectors(1, left, rows, panel, panel_row, depth, from, from_row, to, to_row);
		break;
	case 2:
		multiply_vectors(2, left, rows, panel, panel_row, depth, from, from_row, to, to_row);
		break;
	default:
		multiply_vectors(VECTORS, left, rows, panel, panel_row, depth, from, from_row, to, to_row);
	}
}

/* Adds a block of rows times a group of columns to `from`, which may be without data, as is `to`. */
static void multiply_block(struct left left, int rows, struct panels panels, struct group g, struct tensor from, struct tensor to)
{
	for (int64_t col = 0; col < g.cols; col += PANEL_COLS) {
		int64_t cols = least(PANEL_COLS, g.cols - col);
		const float *panel = panels.data + col * panels.across;
		struct tensor sums = tensor_cols(to, col, cols), add = from.data ? tensor_cols(from, col, cols) : from;
		if (cols % LANES == 0) {
			multiply_panel(left, rows, cols, panel, panels.row, g.depth, add.data, add.stride, sums.data, sums.stride);
			continue;
		}
		float edge[TALLEST][PANEL_COLS];
		for (int i = 0; add.data && i < rows; i++)
			memcpy(edge[i], at(&add, i, 0), (size_t)cols * sizeof(float));
		multiply_panel(left, rows, cols, panel, panels.row, g.depth, add.data ? edge[0] : NULL, PANEL_COLS, edge[0],
			       PANEL_COLS);
		for (int i = 0; i < rows; i++)
			memcpy((float *)sums.data + i * sums.stride, edge[i], (size_t)cols * sizeof(float));
	}
}

/* The sums of columns of C that is no fp32, which lie in the workspace until they are complete. */
static struct tensor begin_rows(const struct product_job *job, struct tensor sums, int64_t row, int rows, struct group g)
{
	if (!job->addend.data) return (struct tensor){0};
	for (int i = 0; i < rows; i++)
		load_floats((float *)sums.data + i * sums.stride, at(&job->addend, row + i, g.col), job->addend.dtype, g.cols);
	return sums;
}

static void end_rows(const struct product_job *job, struct tensor sums, int64_t row, int rows, struct group g)
{
	for (int i = 0; i < rows; i++)
		store_floats((void *)(uintptr_t)at(&job->c, row + i, g.col), job->c.dtype, (float *)sums.data + i * sums.stride,
			     g.cols);
}

static int64_t inner_of(const struct product_job *job)
{
	return job->transpose_a ? job->a.rows : job->a.cols;
}

/* The rows [first, last) of one group of columns; at most PRODUCT_TILE elements where C is no fp32. */
static void multiply_group(const struct product_job *job, int64_t first, int64_t last, int64_t col, int64_t cols, float *workspace)
{
	float *copy = workspace + PRODUCT_GROUP;
	bool in_place = job->c.dtype == DTYPE_F32;
	struct tensor tile = tensor_make(copy + TALLEST * LEFT_STRIDE, last - first, cols, DTYPE_F32);
	int64_t blocks = (last - first + TALLEST - 1) / TALLEST;
	int64_t height = (last - first + blocks - 1) / blocks; /* no block has much less than the others */
	struct group g = {.col = col, .cols = cols};
	for (g.inner = 0; g.inner < inner_of(job); g.inner += DEPTH) {
		g.depth = (int)least(DEPTH, inner_of(job) - g.inner);
		struct panels panels = panels_of(job, g, workspace);
		for (int64_t row = first; row < last; row += height) {
			int rows = (int)least(height, last - row);
			struct tensor to = in_place ? tensor_cols(tensor_rows(job->c, row, rows), col, cols)
						    : tensor_rows(tile, row - first, rows);
			struct tensor from = to;
			if (!g.inner && in_place)
				from = job->addend.data ? tensor_cols(tensor_rows(job->addend, row, rows), col, cols) : job->addend;
			else if (!g.inner)
				from = begin_rows(job, to, row, rows, g);
			multiply_block(left_block(job, row, rows, g, copy), rows, panels, g, from, to);
			if (!in_place && g.inner + g.depth == inner_of(job)) end_rows(job, to, row, rows, g);
		}
	}
}

static void multiply(const struct product_job *job, int64_t first, int64_t last, int64_t first_col, int64_t last_col,
		     float *workspace)
{
	int64_t cols = last_col - first_col, most_cols = product_group_cols(inner_of(job)),
		groups = (cols + most_cols - 1) / most_cols;
	int64_t panels = (cols + PANEL_COLS - 1) / PANEL_COLS, width = (panels + groups - 1) / groups * PANEL_COLS;
	int64_t most = job->c.dtype == DTYPE_F32 ? last - first : PRODUCT_TILE / width;
	for (int64_t col = first_col; col < last_col; col += width)
		for (int64_t row = first; row < last; row += most)
			multiply_group(job, row, least(row + most, last), col, least(width, last_col - col), workspace);
}

const struct product_kernels ISA_NAME(product_kernels) = {.multiply = multiply};
