#include "engine/compute/cpu/product_bf16.h"

#include <string.h>

#include "engine/compute/cpu/bf16.h"
#include "engine/compute/cpu/row_cases.h"

static const uint16_t *half_at(const struct tensor *t, int64_t row, int64_t col)
{
	return (const uint16_t *)t->data + row * t->stride + col;
}

/* ---- packing ----------------------------------------------------------------------------------------------------------------- */

/* to [pairs][32] words: the columns [col, col + 32) of t, its rows paired; 0 where it ends. */
static TARGET void pack_columns(uint32_t *to, const struct tensor *t, int64_t col)
{
	__mmask32 there = halves_left(t->cols, col);
	for (int64_t row = 0; row < t->rows; row += 2, to += PRODUCT_BF16_PANEL) {
		__m512i even = _mm512_maskz_loadu_epi16(there, half_at(t, row, col)), odd = _mm512_setzero_si512(), pairs[2];
		if (row + 1 < t->rows) odd = _mm512_maskz_loadu_epi16(there, half_at(t, row + 1, col));
		pair_halves(even, odd, pairs);
		_mm512_storeu_si512(to, pairs[0]);
		_mm512_storeu_si512(to + LANES, pairs[1]);
	}
}

/* The same of tᵀ: the rows [row, row + 32) of t, whose neighbours are pairs; t has an even number of columns. */
static TARGET void pack_rows(uint32_t *to, const struct tensor *t, int64_t row)
{
	int64_t words = t->cols / 2;
	for (int half = 0; half < 2; half++) {
		int64_t first = row + half * LANES, rows = least(LANES, t->rows - first);
		for (int64_t col = 0; col < words; col += LANES) {
			__mmask16 there = words_left(words, col);
			__m512i r[LANES];
			for (int i = 0; i < LANES; i++)
				r[i] = i < rows ? _mm512_maskz_loadu_epi32(there, half_at(t, first + i, 2 * col))
						: _mm512_setzero_si512();
			transpose_words(r);
			for (int i = 0; i < least(LANES, words - col); i++)
				_mm512_storeu_si512(to + (col + i) * PRODUCT_BF16_PANEL + half * LANES, r[i]);
		}
	}
}

void product_bf16_pack(const struct product_bf16_job *job, int64_t first, int64_t last)
{
	for (int64_t col = first; col < last; col += PRODUCT_BF16_PANEL) {
		uint32_t *to = job->panels + col * (job->a.cols / 2);
		if (job->transpose_b)
			pack_rows(to, &job->b, col);
		else
			pack_columns(to, &job->b, col);
	}
}

/* ---- products ---------------------------------------------------------------------------------------------------------------- */

/* Where a block of C goes: `add`, where it is not NULL, is added. Both have the strides and types of their tensors. */
struct block {
	void *to;
	const void *add;
	int64_t stride, add_stride;
	__mmask32 columns; /* those that C has */
	bool bf16;
};

INLINE __m512 block_load(const struct block *block, int row, int half)
{
	__mmask16 there = (__mmask16)(block->columns >> (half * LANES));
	int64_t at = row * block->add_stride + half * LANES;
	if (!block->bf16) return _mm512_maskz_loadu_ps(there, (const float *)block->add + at);
	__m256i halves = _mm256_maskz_loadu_epi16(there, (const uint16_t *)block->add + at);
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
}

INLINE void block_store(const struct block *block, int row, __m512 left, __m512 right)
{
	if (block->bf16) {
		uint16_t *to = (uint16_t *)block->to + row * block->stride;
		__m512i halves = (__m512i)_mm512_cvtne2ps_pbh(right, left);
		if (block->columns == 0xffffffff)
			_mm512_storeu_si512(to, halves);
		else
			_mm512_mask_storeu_epi16(to, block->columns, halves);
		return;
	}
	float *to = (float *)block->to + row * block->stride;
	if (block->columns == 0xffffffff) {
		_mm512_storeu_ps(to, left);
		_mm512_storeu_ps(to + LANES, right);
	} else {
		_mm512_mask_storeu_ps(to, (__mmask16)block->columns, left);
		_mm512_mask_storeu_ps(to + LANES, (__mmask16)(block->columns >> LANES), right);
	}
}

INLINE void multiply_block(int rows, const struct block *block, const word *a, int64_t a_row, int64_t a_pair, const uint32_t *b,
			   int64_t pairs)
{
	__m512 sum[BLOCK_ROWS][2];
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++)
		sum[i][0] = sum[i][1] = _mm512_setzero_ps();
	add_products_of_pairs(rows, sum, a, a_row, a_pair, b, PRODUCT_BF16_PANEL, pairs);
	if (block->add) {
#pragma GCC unroll 12
		for (int i = 0; i < rows; i++) {
			sum[i][0] = _mm512_add_ps(sum[i][0], block_load(block, i, 0));
			sum[i][1] = _mm512_add_ps(sum[i][1], block_load(block, i, 1));
		}
	}
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++)
		block_store(block, i, sum[i][0], sum[i][1]);
}

static TARGET void multiply_rows(int rows, const struct block *block, const word *a, int64_t a_row, int64_t a_pair,
				 const uint32_t *b, int64_t pairs)
{
	switch (rows) {
#define CASE(n)                                                                                                                    \
	case n:                                                                                                                    \
		multiply_block(n, block, a, a_row, a_pair, b, pairs);                                                              \
		break;
		CASES_TO_12
#undef CASE
	}
}

static char *place(const struct tensor *t, int64_t row, int64_t col)
{
	return (char *)t->data + (row * t->stride + col) * (int64_t)dtype_size(t->dtype);
}

TARGET void product_bf16_multiply(const struct product_bf16_job *job, int64_t first, int64_t last)
{
	const struct tensor *c = &job->c, *add = job->addend.data ? &job->addend : NULL;
	int64_t pairs = job->a.cols / 2;
	struct block block = {.stride = c->stride, .add_stride = add ? add->stride : 0, .bf16 = c->dtype == DTYPE_BF16};
	for (int64_t col = 0; col < c->cols; col += PRODUCT_BF16_PANEL) {
		block.columns = halves_left(c->cols, col);
		for (int64_t row = first; row < last; row += BLOCK_ROWS) {
			block.to = place(c, row, col);
			block.add = add ? place(add, row, col) : NULL;
			multiply_rows((int)least(BLOCK_ROWS, last - row), &block, (const word *)half_at(&job->a, row, 0),
				      job->a.stride / 2, 1, job->panels + col * pairs, pairs);
		}
	}
}

/* ---- gradients --------------------------------------------------------------------------------------------------------------- */

static int64_t pairs_of(const struct gradient_job *job)
{
	return (job->x.rows + 1) / 2;
}

static void pack_x(const struct gradient_job *job, int64_t first, int64_t last)
{
	for (int64_t col = first; col < last; col += PRODUCT_BF16_PANEL)
		pack_columns((uint32_t *)job->x_panels + col * pairs_of(job), &job->x, col);
}

/* Words of a panel of dy: [pair][12], and those that the last store writes beyond it. */
static int64_t panel_words(int64_t pairs)
{
	return pairs * BLOCK_ROWS + LANES - BLOCK_ROWS;
}

/* The columns [row, row + rows) of dy, which are rows of G, paired, in panels of 12. A store writes 4 words more, over which the
 * next one goes. */
static TARGET void pack_gradient(const struct gradient_job *job, uint32_t *panels, int64_t row, int64_t rows)
{
	enum { AT_ONCE = 8 }; /* pairs: what was just stored is not read at once */
	uint32_t words[AT_ONCE][GRADIENT_ROWS + LANES];
	const struct tensor *dy = &job->dy;
	int64_t pairs = pairs_of(job);
	for (int64_t first = 0; first < pairs; first += AT_ONCE) {
		int64_t n = least(AT_ONCE, pairs - first);
		for (int64_t i = 0; i < n; i++) {
			int64_t token = 2 * (first + i);
			for (int64_t col = 0; col < rows; col += PRODUCT_BF16_PANEL) {
				__mmask32 there = halves_left(rows, col);
				__m512i even = _mm512_maskz_loadu_epi16(there, half_at(dy, token, row + col));
				__m512i odd = _mm512_setzero_si512(), both[2];
				if (token + 1 < dy->rows) odd = _mm512_maskz_loadu_epi16(there, half_at(dy, token + 1, row + col));
				pair_halves(even, odd, both);
				_mm512_storeu_si512(&words[i][col], both[0]);
				_mm512_storeu_si512(&words[i][col + LANES], both[1]);
			}
		}
		for (int64_t panel = 0; panel * BLOCK_ROWS < rows; panel++)
			for (int64_t i = 0; i < n; i++)
				_mm512_storeu_si512(panels + panel * panel_words(pairs) + (first + i) * BLOCK_ROWS,
						    _mm512_loadu_si512(&words[i][panel * BLOCK_ROWS]));
	}
}

static void gradient(const struct gradient_job *job, int64_t first, int64_t last, float *workspace)
{
	float *g = workspace;
	uint32_t *dy_panels = (uint32_t *)(workspace + GRADIENT_ROWS * GRADIENT_COLS);
	int64_t pairs = pairs_of(job), rows = last - first;
	struct block block = {.stride = GRADIENT_COLS, .columns = 0xffffffff};
	pack_gradient(job, dy_panels, first, rows);
	for (int64_t col = 0; col < job->x.cols; col += GRADIENT_COLS) {
		int64_t cols = least(GRADIENT_COLS, job->x.cols - col);
		for (int64_t j = 0; j < cols; j += PRODUCT_BF16_PANEL) {
			for (int64_t i = 0; i < rows; i += BLOCK_ROWS) {
				block.to = g + i * GRADIENT_COLS + j;
				multiply_rows((int)least(BLOCK_ROWS, rows - i), &block,
					      (const word *)dy_panels + i / BLOCK_ROWS * panel_words(pairs), 1, BLOCK_ROWS,
					      (const uint32_t *)job->x_panels + (col + j) * pairs, pairs);
			}
		}
		gradient_kernels_v4.drop(job, g, GRADIENT_COLS, first, rows, col, cols);
	}
}

const struct gradient_kernels gradient_kernels_bf16 = {.pack = pack_x, .gradient = gradient};
