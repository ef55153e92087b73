/* Attention of bf16 for processors that multiply bf16 (AVX512_BF16): the tiles of engine/compute/cpu/isa/attention.c, with products
 * of pairs, twice as many a cycle as fp32's. Queries, keys, values and gradients are multiplied as they are; probabilities and the
 * gradients of logits are rounded to bf16 for the products that they go into, as on GPUs. Sums, the softmax and what is accumulated
 * are fp32. */
#include <math.h>
#include <string.h>

#include "engine/compute/cpu/attention_tiles.h"
#include "engine/compute/cpu/bf16.h"
#include "engine/compute/cpu/row_cases.h"

enum {
	PAIRS = TILE / 2,
	CHUNKS = TILE / LANES,
};
#define LOG2_E 1.44269504f
#define LN_2 0.693147181f

/* ---- products ---------------------------------------------------------------------------------------------------------------- */

/* C [rows, BLOCK_COLS] (+)= A · B over `pairs` of the inner range. Of A a word is a pair; strides are in words. B is paired. */
INLINE void product_block(int rows, const word *a, int64_t a_row, int64_t a_pair, const uint32_t *b, int64_t b_pair, int pairs,
			  float *c, int64_t c_row, bool accumulate)
{
	__m512 sum[BLOCK_ROWS][2];
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++) {
		sum[i][0] = accumulate ? _mm512_loadu_ps(c + i * c_row) : _mm512_setzero_ps();
		sum[i][1] = accumulate ? _mm512_loadu_ps(c + i * c_row + LANES) : _mm512_setzero_ps();
	}
	add_products_of_pairs(rows, sum, a, a_row, a_pair, b, b_pair, pairs);
#pragma GCC unroll 12
	for (int i = 0; i < rows; i++) {
		_mm512_storeu_ps(c + i * c_row, sum[i][0]);
		_mm512_storeu_ps(c + i * c_row + LANES, sum[i][1]);
	}
}

/* product_block for any number of columns, which is rounded up to a multiple of BLOCK_COLS. */
static TARGET void product_rows(int rows, int64_t cols, const word *a, int64_t a_row, int64_t a_pair, const uint32_t *b,
				int64_t b_pair, int pairs, float *c, int64_t c_row, bool accumulate)
{
	for (int64_t col = 0; col < cols; col += BLOCK_COLS) {
		switch (rows) {
#define CASE(n)                                                                                                                    \
	case n:                                                                                                                    \
		product_block(n, a, a_row, a_pair, b + col, b_pair, pairs, c + col, c_row, accumulate);                            \
		break;
			CASES_TO_12
#undef CASE
		}
	}
}

/* ---- ranges in pairs and lanes ---------------------------------------------------------------------------------------------- */

/* The pairs that a range touches. */
static struct range pairs_of(struct range range)
{
	return (struct range){range.first / 2, (range.last + 1) / 2};
}

/* The lanes [16·chunk, …) of a row of keys that are in the range. */
INLINE __mmask16 lanes_in(struct range range, int chunk)
{
	int first = range.first - chunk * LANES, last = range.last - chunk * LANES;
	uint32_t below = first <= 0 ? 0 : first >= LANES ? 0xffff : (1u << first) - 1;
	uint32_t within = last <= 0 ? 0 : last >= LANES ? 0xffff : (1u << last) - 1;
	return (__mmask16)(within & ~below);
}

/* ---- bringing operands into shape -------------------------------------------------------------------------------------------- */

/* The head's part of the tile's first row. */
static uint16_t *tile_at(const struct attention_job *job, const struct tensor *t, int batch, int head, int tile)
{
	int64_t row = (int64_t)batch * job->shape.tokens + (int64_t)tile * TILE;
	return (uint16_t *)t->data + row * t->stride + (int64_t)head * job->shape.head_dim;
}

/* to [head_dim / 2][TILE] words: the pairs of neighbours in each row, of the transposed tile; 0 behind the tile's rows. */
static TARGET void pair_columns(const struct attention_job *job, uint32_t *to, const struct tensor *from, int batch, int head,
				int tile)
{
	const uint16_t *rows = tile_at(job, from, batch, head, tile);
	int words = job->shape.head_dim / 2, count = rows_of_tile(job, tile);
	for (int row = 0; row < TILE; row += LANES) {
		for (int col = 0; col < words; col += LANES) {
			__m512i r[LANES];
			__mmask16 there = words_left(words, col);
			for (int i = 0; i < LANES; i++)
				r[i] = row + i < count ? _mm512_maskz_loadu_epi32(there, rows + (row + i) * from->stride + 2 * col)
						       : _mm512_setzero_si512();
			transpose_words(r);
			for (int i = 0; i < LANES && col + i < words; i++)
				_mm512_storeu_si512(to + (int64_t)(col + i) * TILE + row, r[i]);
		}
	}
}

/* to [PAIRS][width] words: the tile's rows, paired; 0 behind its rows and columns. */
static TARGET void pair_rows(const struct attention_job *job, uint32_t *to, const struct tensor *from, int batch, int head,
			     int tile)
{
	const uint16_t *rows = tile_at(job, from, batch, head, tile);
	int dim = job->shape.head_dim, count = rows_of_tile(job, tile);
	for (int row = 0; row < TILE; row += 2) {
		uint32_t *pair = to + (int64_t)(row / 2) * job->width;
		for (int col = 0; col < job->width; col += 2 * LANES) {
			__mmask32 there = halves_left(dim, col);
			__m512i even = _mm512_setzero_si512(), odd = even;
			if (row < count) even = _mm512_maskz_loadu_epi16(there, rows + row * from->stride + col);
			if (row + 1 < count) odd = _mm512_maskz_loadu_epi16(there, rows + (row + 1) * from->stride + col);
			__m512i pairs[2];
			pair_halves(even, odd, pairs);
			_mm512_storeu_si512(pair + col, pairs[0]);
			_mm512_storeu_si512(pair + col + LANES, pairs[1]);
		}
	}
}

static void unpack(const struct attention_job *job, int64_t first, int64_t last)
{
	int64_t tile_size = (int64_t)job->width * TILE;
	for (int64_t unit = first; unit < last; unit++) {
		int tile = (int)(unit % job->tiles), head = (int)(unit / job->tiles % job->shape.kv_heads);
		int batch = (int)(unit / job->tiles / job->shape.kv_heads);
		pair_columns(job, (uint32_t *)(job->k_transposed + unit * tile_size), &job->k, batch, head, tile);
		if (job->v_transposed)
			pair_columns(job, (uint32_t *)(job->v_transposed + unit * tile_size), &job->v, batch, head, tile);
		if (job->k_rows) pair_rows(job, (uint32_t *)(job->k_rows + unit * tile_size), &job->k, batch, head, tile);
		if (job->v_rows) pair_rows(job, (uint32_t *)(job->v_rows + unit * tile_size), &job->v, batch, head, tile);
	}
}

/* ---- exponentials ------------------------------------------------------------------------------------------------------------ */

/* 2^x for x ≤ 127, to 3·10⁻⁶ of it; what is below 2⁻¹²⁶ counts as that. NaN stays NaN. */
INLINE __m512 exp2_lanes(__m512 x)
{
	x = _mm512_max_ps(_mm512_set1_ps(-126), x);
	__m512 n = _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC), f = _mm512_sub_ps(x, n);
	__m512 p = _mm512_set1_ps(9.570101908e-3f);
	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(5.591786032e-2f));
	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(2.402474483e-1f));
	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(6.931218147e-1f));
	p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(9.999992614e-1f));
	return _mm512_scalef_ps(p, n);
}

/* ---- forward ----------------------------------------------------------------------------------------------------------------- */

/* Exponentials are taken against a reference that a logit may exceed by so many powers of 2 before it becomes the new one: rows
 * that rarely change theirs are rarely scaled. */
#define ROOM_ABOVE 8

struct softmax {
	float reference[TILE];    /* of each row, in powers of 2 */
	float limit[TILE];        /* the logit from which on there must be another reference */
	float total[TILE][LANES]; /* the sum of the exponentials, a part in each lane */
};

/* What was summed of a row, if anything, becomes what it is by a reference of its new largest logit. */
static TARGET void move_reference(struct softmax *softmax, int row, float *sum, int64_t width, float top, float power)
{
	float reference = top * power, before = softmax->reference[row];
	softmax->reference[row] = reference;
	softmax->limit[row] = (reference + ROOM_ABOVE) / power;
	if (before == -INFINITY) return;
	__m512 shrink = exp2_lanes(_mm512_set1_ps(before - reference));
	_mm512_storeu_ps(softmax->total[row], _mm512_mul_ps(_mm512_loadu_ps(softmax->total[row]), shrink));
	for (int64_t col = 0; col < width; col += LANES)
		_mm512_storeu_ps(sum + col, _mm512_mul_ps(_mm512_loadu_ps(sum + col), shrink));
}

/* Makes probabilities, but for what the row's sum is to divide them by, of a row of logits, of which 16 · chunks are there: bf16,
 * 0 for keys that the row does not see. */
INLINE void softmax_chunks(int chunks, struct softmax *softmax, int row, float *sum, int64_t width, const float *logits,
			   uint16_t *p, struct range seen, float power)
{
	__m512 x[CHUNKS], none = _mm512_set1_ps(-INFINITY), best = none;
	bool whole = seen.first == 0 && seen.last == chunks * LANES;
#pragma GCC unroll 4
	for (int i = 0; i < chunks; i++) {
		x[i] = _mm512_loadu_ps(logits + i * LANES);
		if (!whole) x[i] = _mm512_mask_blend_ps(lanes_in(seen, i), none, x[i]);
		best = _mm512_max_ps(best, x[i]);
	}
	if (_mm512_cmp_ps_mask(best, _mm512_set1_ps(softmax->limit[row]), _CMP_GT_OQ))
		move_reference(softmax, row, sum, width, _mm512_reduce_max_ps(best), power);
	__m512 reference = _mm512_set1_ps(softmax->reference[row]), by = _mm512_set1_ps(power);
	__m512 total = _mm512_loadu_ps(softmax->total[row]);
#pragma GCC unroll 4
	for (int i = 0; i < chunks; i++) {
		x[i] = exp2_lanes(_mm512_fmsub_ps(x[i], by, reference));
		if (!whole) x[i] = _mm512_maskz_mov_ps(lanes_in(seen, i), x[i]);
		total = _mm512_add_ps(total, x[i]);
	}
	_mm512_storeu_ps(softmax->total[row], total);
#pragma GCC unroll 4
	for (int i = chunks; i < CHUNKS; i++)
		x[i] = _mm512_setzero_ps();
#pragma GCC unroll 2
	for (int i = 0; i < CHUNKS; i += 2)
		_mm512_storeu_si512(p + i * LANES, (__m512i)_mm512_cvtne2ps_pbh(x[i + 1], x[i]));
}

static TARGET void softmax_row(struct softmax *softmax, int row, float *sum, int64_t width, const float *logits, uint16_t *p,
			       struct range seen, float power)
{
	int chunks = seen.first < seen.last ? (seen.last + LANES - 1) / LANES : 0;
	switch (chunks) {
#define CASE(n)                                                                                                                    \
	case n:                                                                                                                    \
		softmax_chunks(n, softmax, row, sum, width, logits, p, seen, power);                                               \
		break;
		CASE(1)
		CASE(2)
		CASE(3)
		CASE(4)
#undef CASE
	default:
		memset(p, 0, TILE * sizeof *p);
	}
}

/* A row of fp32 times a factor, to bf16. */
INLINE void store_row(uint16_t *to, const float *from, float factor, int dim)
{
	for (int col = 0; col < dim; col += LANES) {
		__m512 x = _mm512_mul_ps(_mm512_loadu_ps(from + col), _mm512_set1_ps(factor));
		_mm256_mask_storeu_epi16(to + col, words_left(dim, col), (__m256i)_mm512_cvtneps_pbh(x));
	}
}

static TARGET void forward(const struct attention_job *job, int batch, int head, int tile, float *workspace)
{
	const struct attention *shape = &job->shape;
	int dim = shape->head_dim, rows = rows_of_tile(job, tile), kv_head = head / (shape->heads / shape->kv_heads);
	int64_t width = job->width, tile_size = width * TILE, query = (int64_t)tile * TILE, q_row = job->q.stride;
	int64_t kv = ((int64_t)batch * shape->kv_heads + kv_head) * job->tiles * tile_size;
	const uint16_t *q = tile_at(job, &job->q, batch, head, tile);
	float *sum = workspace, *logits = sum + tile_size, power = shape->scale * LOG2_E;
	uint16_t *p = (uint16_t *)(logits + BLOCK_ROWS * TILE);
	struct softmax softmax = {0};

	memset(sum, 0, (size_t)tile_size * sizeof *sum);
	for (int i = 0; i < TILE; i++)
		softmax.reference[i] = softmax.limit[i] = -INFINITY;
	for (int key_tile = first_tile(shape, query); key_tile <= tile; key_tile++) {
		int64_t key = (int64_t)key_tile * TILE;
		const uint32_t *k = (const uint32_t *)(job->k_transposed + kv + key_tile * tile_size);
		const uint32_t *v = (const uint32_t *)(job->v_rows + kv + key_tile * tile_size);
		for (int row = 0; row < rows; row += BLOCK_ROWS) {
			int count = (int)least(BLOCK_ROWS, rows - row);
			struct range seen = visible_keys(shape, query + row, count, key), pairs = pairs_of(seen);
			if (seen.first >= seen.last) continue;
			int start = seen.first / BLOCK_COLS * BLOCK_COLS;
			product_rows(count, seen.last - start, (const word *)(q + row * q_row), q_row / 2, 1, k + start, TILE,
				     dim / 2, logits + start, TILE, false);
			for (int i = 0; i < count; i++)
				softmax_row(&softmax, row + i, sum + (row + i) * width, width, logits + i * TILE, p + i * TILE,
					    visible_keys(shape, query + row + i, 1, key), power);
			product_rows(count, dim, (const word *)p + pairs.first, TILE / 2, 1, v + pairs.first * width, width,
				     pairs.last - pairs.first, sum + row * width, width, true);
		}
	}
	uint16_t *out = tile_at(job, &job->out, batch, head, tile);
	float *lse = (float *)job->lse.data + ((int64_t)batch * shape->heads + head) * job->lse.stride + query;
	for (int i = 0; i < rows; i++) {
		float total = _mm512_reduce_add_ps(_mm512_loadu_ps(softmax.total[i]));
		store_row(out + i * job->out.stride, sum + i * width, 1 / total, dim);
		lse[i] = softmax.reference[i] * LN_2 + logf(total);
	}
}

/* ---- backward ---------------------------------------------------------------------------------------------------------------- */

/* A tile of queries against one of keys: the probabilities P and the gradients of the logits, but for the scale, rounded to bf16;
 * 0 where a query does not see a key. */
struct pair_of_tiles {
	uint32_t p[PAIRS][TILE], dlogits[PAIRS][TILE]; /* paired */
	uint16_t dlogits_rows[TILE][TILE];
};

struct row_sums {
	float lse[TILE]; /* in powers of 2 */
	float dot[TILE]; /* Σ_d dout·out */
};

/* Words of (even, odd) from two rows of 16. */
INLINE __m512i pair_words(__m512 even, __m512 odd)
{
	const __m512i order = _mm512_set_epi32(0x1f000f, 0x1e000e, 0x1d000d, 0x1c000c, 0x1b000b, 0x1a000a, 0x190009, 0x180008,
					       0x170007, 0x160006, 0x150005, 0x140004, 0x130003, 0x120002, 0x110001, 0x100000);
	return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(odd, even));
}

/* Two chunks of two rows that nobody sees. */
INLINE void clear_chunks(struct pair_of_tiles *to, int row, int chunk)
{
	for (int i = 0; i < 2; i++) {
		_mm512_storeu_si512(&to->dlogits_rows[row + i][chunk * LANES], _mm512_setzero_si512());
		_mm512_storeu_si512(&to->p[row / 2][(chunk + i) * LANES], _mm512_setzero_si512());
		_mm512_storeu_si512(&to->dlogits[row / 2][(chunk + i) * LANES], _mm512_setzero_si512());
	}
}

/* With P = exp(logits − lse) and dP = dout · vᵀ: dlogits = P ∘ (dP − Σ_d dout·out). Two rows of them, the second of which may
 * not be there, as then it sees nothing. */
INLINE void softmax_backward(struct pair_of_tiles *to, const struct row_sums *sums, int row, const float *logits, const float *dp,
			     const struct range seen[2], float power)
{
	int last = seen[0].last > seen[1].last ? seen[0].last : seen[1].last;
	for (int chunk = 0; chunk < CHUNKS; chunk += 2) {
		__m512 p[2][2], d[2][2];
		if (chunk * LANES >= last) {
			clear_chunks(to, row, chunk);
			continue;
		}
#pragma GCC unroll 2
		for (int i = 0; i < 2; i++) {
			__m512 lse = _mm512_set1_ps(sums->lse[row + i]), dot = _mm512_set1_ps(sums->dot[row + i]);
#pragma GCC unroll 2
			for (int j = 0; j < 2; j++) {
				int at = i * TILE + (chunk + j) * LANES;
				__mmask16 there = lanes_in(seen[i], chunk + j);
				__m512 x = _mm512_fmsub_ps(_mm512_loadu_ps(logits + at), _mm512_set1_ps(power), lse);
				p[i][j] = _mm512_maskz_mov_ps(there, exp2_lanes(x));
				d[i][j] = _mm512_maskz_mul_ps(there, p[i][j], _mm512_sub_ps(_mm512_loadu_ps(dp + at), dot));
			}
			_mm512_storeu_si512(&to->dlogits_rows[row + i][chunk * LANES],
					    (__m512i)_mm512_cvtne2ps_pbh(d[i][1], d[i][0]));
		}
#pragma GCC unroll 2
		for (int j = 0; j < 2; j++) {
			_mm512_storeu_si512(&to->p[row / 2][(chunk + j) * LANES], pair_words(p[0][j], p[1][j]));
			_mm512_storeu_si512(&to->dlogits[row / 2][(chunk + j) * LANES], pair_words(d[0][j], d[1][j]));
		}
	}
}

/* dk and dv of a key tile, dq of a query tile, from one pair of tiles; dq and dk without the scale. */
static void add_products(const struct attention_job *job, const struct pair_of_tiles *tiles, const uint32_t *q,
			 const uint32_t *dout, const uint32_t *k, float *dq, float *dk, float *dv, int rows, int64_t query,
			 int64_t key)
{
	const struct attention *shape = &job->shape;
	int64_t width = job->width;
	int dim = shape->head_dim;
	for (int col = 0; col < TILE; col += BLOCK_ROWS) {
		int count = (int)least(BLOCK_ROWS, TILE - col);
		struct range seeing = visible_queries(shape, key + col, count, query);
		if (seeing.last > rows) seeing.last = rows;
		if (seeing.first >= seeing.last) continue;
		struct range pairs = pairs_of(seeing);
		int inner = pairs.last - pairs.first;
		product_rows(count, dim, &tiles->p[pairs.first][col], 1, TILE, dout + pairs.first * width, width, inner,
			     dv + col * width, width, true);
		product_rows(count, dim, &tiles->dlogits[pairs.first][col], 1, TILE, q + pairs.first * width, width, inner,
			     dk + col * width, width, true);
	}
	for (int row = 0; row < rows; row += BLOCK_ROWS) {
		int count = (int)least(BLOCK_ROWS, rows - row);
		struct range seen = visible_keys(shape, query + row, count, key), pairs = pairs_of(seen);
		if (seen.first < seen.last)
			product_rows(count, dim, (const word *)tiles->dlogits_rows[row] + pairs.first, TILE / 2, 1,
				     k + pairs.first * width, width, pairs.last - pairs.first, dq + row * width, width, true);
	}
}

/* ⟨a, b⟩ */
INLINE float dot_row(const uint16_t *a, const uint16_t *b, int dim)
{
	__m512 sum = _mm512_setzero_ps();
	for (int col = 0; col < dim; col += 2 * LANES) {
		__mmask32 there = halves_left(dim, col);
		sum = _mm512_dpbf16_ps(sum, (__m512bh)_mm512_maskz_loadu_epi16(there, a + col),
				       (__m512bh)_mm512_maskz_loadu_epi16(there, b + col));
	}
	return _mm512_reduce_add_ps(sum);
}

static TARGET void backward_tile(const struct attention_job *job, int batch, int head, int tile, float *dk, float *dv,
				 float *workspace)
{
	const struct attention *shape = &job->shape;
	int dim = shape->head_dim, rows = rows_of_tile(job, tile), kv_head = head / (shape->heads / shape->kv_heads);
	int64_t width = job->width, tile_size = width * TILE, query = (int64_t)tile * TILE, q_row = job->q.stride,
		dout_row = job->dout.stride;
	int64_t kv = ((int64_t)batch * shape->kv_heads + kv_head) * job->tiles * tile_size;
	const uint16_t *q = tile_at(job, &job->q, batch, head, tile), *dout = tile_at(job, &job->dout, batch, head, tile);
	const uint16_t *out = tile_at(job, &job->out, batch, head, tile);
	float *dq = workspace, *logits = dq + tile_size, *dp = logits + BLOCK_ROWS * TILE, power = shape->scale * LOG2_E;
	uint32_t *q_pairs = (uint32_t *)(dp + BLOCK_ROWS * TILE), *dout_pairs = q_pairs + PAIRS * width;
	struct pair_of_tiles *tiles = (struct pair_of_tiles *)(dout_pairs + PAIRS * width);
	const float *lse = (const float *)job->lse.data + ((int64_t)batch * shape->heads + head) * job->lse.stride + query;
	struct row_sums sums = {0};

	pair_rows(job, q_pairs, &job->q, batch, head, tile);
	pair_rows(job, dout_pairs, &job->dout, batch, head, tile);
	memset(dq, 0, (size_t)tile_size * sizeof *dq);
	for (int i = 0; i < rows; i++) {
		sums.lse[i] = lse[i] * LOG2_E;
		sums.dot[i] = dot_row(dout + i * dout_row, out + i * job->out.stride, dim);
	}
	for (int key_tile = first_tile(shape, query); key_tile <= tile; key_tile++) {
		int64_t key = (int64_t)key_tile * TILE, offset = kv + key_tile * tile_size;
		const uint32_t *k = (const uint32_t *)(job->k_transposed + offset);
		const uint32_t *v = (const uint32_t *)(job->v_transposed + offset);
		for (int row = 0; row < rows; row += BLOCK_ROWS) {
			int count = (int)least(BLOCK_ROWS, rows - row);
			struct range seen = visible_keys(shape, query + row, count, key);
			int start = seen.first / BLOCK_COLS * BLOCK_COLS;
			product_rows(count, seen.last - start, (const word *)(q + row * q_row), q_row / 2, 1, k + start, TILE,
				     dim / 2, logits + start, TILE, false);
			product_rows(count, seen.last - start, (const word *)(dout + row * dout_row), dout_row / 2, 1, v + start,
				     TILE, dim / 2, dp + start, TILE, false);
			for (int i = 0; i < count; i += 2) {
				struct range seen_by[2] = {visible_keys(shape, query + row + i, 1, key), {0, 0}};
				if (i + 1 < count) seen_by[1] = visible_keys(shape, query + row + i + 1, 1, key);
				softmax_backward(tiles, &sums, row + i, logits + i * TILE, dp + i * TILE, seen_by, power);
			}
		}
		add_products(job, tiles, q_pairs, dout_pairs, (const uint32_t *)(job->k_rows + offset), dq,
			     dk + key_tile * tile_size, dv + key_tile * tile_size, rows, query, key);
	}
	uint16_t *to = tile_at(job, &job->dq, batch, head, tile);
	for (int i = 0; i < rows; i++)
		store_row(to + i * job->dq.stride, dq + i * width, shape->scale, dim);
}

static void backward(const struct attention_job *job, int batch, int kv_head, int part, float *workspace)
{
	const struct attention *shape = &job->shape;
	int group = shape->heads / shape->kv_heads;
	int64_t size = (int64_t)job->tiles * job->width * TILE;
	int64_t offset = (((int64_t)batch * shape->kv_heads + kv_head) * job->parts + part) * size;
	float *dk = job->dk_parts + offset, *dv = job->dv_parts + offset;
	memset(dk, 0, (size_t)size * sizeof *dk);
	memset(dv, 0, (size_t)size * sizeof *dv);
	for (int64_t i = 0; i < (int64_t)group * job->tiles; i++) {
		if (part_of_unit(job, i) != part) continue;
		backward_tile(job, batch, kv_head * group + (int)(i % group), job->tiles - 1 - (int)(i / group), dk, dv, workspace);
	}
}

static TARGET void reduce(const struct attention_job *job, int64_t first, int64_t last)
{
	const struct attention *shape = &job->shape;
	int64_t width = job->width, tile_size = width * TILE, part_size = job->tiles * tile_size;
	for (int64_t unit = first; unit < last; unit++) {
		int tile = (int)(unit % job->tiles), rows = rows_of_tile(job, tile);
		int head = (int)(unit / job->tiles % shape->kv_heads), batch = (int)(unit / job->tiles / shape->kv_heads);
		int64_t offset = ((int64_t)batch * shape->kv_heads + head) * job->parts * part_size + tile * tile_size;
		float *dk = job->dk_parts + offset, *dv = job->dv_parts + offset;
		for (int64_t i = 0; i < rows * width; i += LANES) {
			__m512 k = _mm512_loadu_ps(dk + i), v = _mm512_loadu_ps(dv + i);
			for (int part = 1; part < job->parts; part++) {
				k = _mm512_add_ps(k, _mm512_loadu_ps(dk + part * part_size + i));
				v = _mm512_add_ps(v, _mm512_loadu_ps(dv + part * part_size + i));
			}
			_mm512_storeu_ps(dk + i, k);
			_mm512_storeu_ps(dv + i, v);
		}
		uint16_t *to_k = tile_at(job, &job->dk, batch, head, tile), *to_v = tile_at(job, &job->dv, batch, head, tile);
		for (int i = 0; i < rows; i++) {
			store_row(to_k + i * job->dk.stride, dk + i * width, shape->scale, shape->head_dim);
			store_row(to_v + i * job->dv.stride, dv + i * width, 1, shape->head_dim);
		}
	}
}

const struct attention_kernels attention_kernels_bf16 = {
	.unpack = unpack,
	.forward = forward,
	.backward = backward,
	.reduce = reduce,
};
