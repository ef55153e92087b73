/* Causal attention by tiles (FlashAttention, arXiv 2205.14135): a tile of queries meets the tiles of keys one after the other, and
 * no [T, T] matrix is ever stored. Tiles above the diagonal, or out of the window, are skipped; inside the tiles at the edge
 * each block of rows computes only the columns it needs. */
#include <immintrin.h>

#include "engine/compute/cpu/attention_tiles.h"
#include "engine/compute/cpu/isa/isa.h"
#include "engine/compute/cpu/isa/product.h"
#if defined __AVX512F__
#include "engine/compute/cpu/transpose.h"
#endif

/* Products of any number of rows, up to BLOCK_ROWS, and of columns, which is rounded up to a multiple of BLOCK_COLS. */
static void product_some_rows(int rows, const float *a, int64_t a_row, int64_t a_inner, const float *b, int64_t b_row, int inner,
			      const float *from, float *c, int64_t c_row)
{
	switch (rows) {
#define CASE(n)                                                                                                                    \
	case n:                                                                                                                    \
		product_block(NEAR, n, 2, a, a_row, a_inner, b, b_row, inner, from, c_row, c, c_row);                              \
		break;
#if defined __AVX512F__
		CASES_TO_12
#else
		CASES_TO_6
#endif
#undef CASE
	}
}

static void product_rows(int rows, int64_t cols, const float *a, int64_t a_row, int64_t a_inner, const float *b, int64_t b_row,
			 int inner, float *c, int64_t c_row, bool accumulate)
{
	for (int64_t col = 0; col < cols; col += BLOCK_COLS)
		product_some_rows(rows, a, a_row, a_inner, b + col, b_row, inner, accumulate ? c + col : NULL, c + col, c_row);
}

/* ---- unpacking into fp32 tiles ----------------------------------------------------------------------------------------------- */

static void unpack_rows(const struct attention_job *job, float *to, const struct tensor *from, int batch, int head, int tile)
{
	int dim = job->shape.head_dim, rows = rows_of_tile(job, tile);
	int64_t first = (int64_t)batch * job->shape.tokens + (int64_t)tile * TILE;
	for (int i = 0; i < TILE; i++) {
		float *row = to + (int64_t)i * job->width;
		int used = i < rows ? dim : 0;
		if (used) load_floats(row, at(from, first + i, (int64_t)head * dim), from->dtype, dim);
		memset(row + used, 0, (size_t)(job->width - used) * sizeof *row);
	}
}

/* A tile by rows, which are `stride` apart. */
struct rows {
	const float *data;
	int64_t stride;
};

/* A head's rows of a tile of `from`: where they lie, or, if they are not fp32, or as wide as a product's right operand has to be,
 * unpacked into `room`, a tile. */
static struct rows rows_of(const struct attention_job *job, const struct tensor *from, int batch, int head, int tile, float *room)
{
	int dim = job->shape.head_dim;
	if (job->in_place)
		return (struct rows){at(from, (int64_t)batch * job->shape.tokens + (int64_t)tile * TILE, (int64_t)head * dim),
				     from->stride};
	unpack_rows(job, room, from, batch, head, tile);
	return (struct rows){room, job->width};
}

/* Those of K or V, which were unpacked for all tiles of queries: `unpacked` are the head's. */
static struct rows rows_of_keys(const struct attention_job *job, const struct tensor *from, int batch, int head, int tile,
				const float *unpacked)
{
	if (job->in_place) return rows_of(job, from, batch, head, tile, NULL);
	return (struct rows){unpacked + (int64_t)tile * job->width * TILE, job->width};
}

/* to[column][TILE]: n ≤ 64 columns of `count` ≤ 16 rows that are `stride` apart. */
static void transpose_rows(float *to, const float *from, int64_t stride, int count, int n)
{
#if defined __AVX512F__
	for (; count == 16 && n >= 16; from += 16, to += 16 * TILE, n -= 16) {
		__m512i rows[16];
		for (int i = 0; i < 16; i++)
			rows[i] = _mm512_loadu_si512(from + i * stride);
		transpose_words(rows);
		for (int i = 0; i < 16; i++)
			_mm512_storeu_si512(to + i * TILE, rows[i]);
	}
#endif
	for (int i = 0; i < count; i++)
		for (int col = 0; col < n; col++)
			to[col * TILE + i] = from[i * stride + col];
}

static void unpack_transposed(const struct attention_job *job, float *to, const struct tensor *from, int batch, int head, int tile)
{
	enum { COLS = 64, ROWS = 16 };
	int dim = job->shape.head_dim, rows = rows_of_tile(job, tile);
	int64_t first = (int64_t)batch * job->shape.tokens + (int64_t)tile * TILE;
	float buffer[ROWS * COLS];
	if (rows < TILE) memset(to, 0, (size_t)job->width * TILE * sizeof *to);
	for (int row = 0; row < rows; row += ROWS) {
		int count = (int)least(ROWS, rows - row);
		for (int col = 0; col < dim; col += COLS) {
			int n = (int)least(COLS, dim - col);
			const float *there = at(from, first + row, (int64_t)head * dim + col);
			for (int i = 0; from->dtype != DTYPE_F32 && i < count; i++)
				load_floats(buffer + i * COLS, at(from, first + row + i, (int64_t)head * dim + col), from->dtype,
					    n);
			if (from->dtype == DTYPE_F32)
				transpose_rows(to + (int64_t)col * TILE + row, there, from->stride, count, n);
			else
				transpose_rows(to + (int64_t)col * TILE + row, buffer, COLS, count, n);
		}
	}
}

static void unpack(const struct attention_job *job, int64_t first, int64_t last)
{
	int64_t tile_size = (int64_t)job->width * TILE;
	for (int64_t unit = first; unit < last; unit++) {
		int tile = (int)(unit % job->tiles), head = (int)(unit / job->tiles % job->shape.kv_heads);
		int batch = (int)(unit / job->tiles / job->shape.kv_heads);
		unpack_transposed(job, job->k_transposed + unit * tile_size, &job->k, batch, head, tile);
		if (job->v_transposed) unpack_transposed(job, job->v_transposed + unit * tile_size, &job->v, batch, head, tile);
		if (job->in_place) continue;
		if (job->k_rows) unpack_rows(job, job->k_rows + unit * tile_size, &job->k, batch, head, tile);
		if (job->v_rows) unpack_rows(job, job->v_rows + unit * tile_size, &job->v, batch, head, tile);
	}
}

/* ---- the softmax ------------------------------------------------------------------------------------------------------------- */

/* What whole vectors take of a tile's columns to cover those that are seen. */
static struct range whole_vectors(struct range seen)
{
	return (struct range){seen.first / LANES * LANES, (seen.last + LANES - 1) / LANES * LANES};
}

/* Of the columns `all` of a row, which are whole vectors, what is not seen. */
INLINE void blank_unseen(float *row, struct range all, struct range seen, float blank)
{
	mask_vector column = lane_numbers();
	for (int j = all.first; j < all.last; j += LANES) {
		if (j >= seen.first && j + LANES <= seen.last) continue;
		mask_vector unseen = (column + j < seen.first) | (column + j >= seen.last);
		vector x = *(const vector *)(row + j), blanks = every_lane(blank);
		*(vector *)(row + j) = (vector)(((mask_vector)x & ~unseen) | ((mask_vector)blanks & unseen));
	}
}

/* By what the columns `all` of a row of q · kᵀ are to be multiplied to be logits; where that is not all, the rest is done. They are
 * −∞ where a key is not seen. */
INLINE float make_logits(const struct attention *shape, float *row, struct range all, struct range seen)
{
	float factor = shape->scale, cap = shape->softcap;
	if (cap != 0 || factor <= 0) {
#pragma omp simd
		for (int j = all.first; j < all.last; j++)
			row[j] = cap != 0 ? cap * tanh_fast(row[j] * factor / cap) : row[j] * factor;
		factor = 1;
	}
	blank_unseen(row, all, seen, -INFINITY);
	return factor;
}

/* ---- forward ----------------------------------------------------------------------------------------------------------------- */

/* q · kᵀ of `count` rows from `row` on, 12 at most, into logits [count][TILE]: the columns that the rows see together, `seen`,
 * and those of the product's blocks around them. */
static void logits_of_rows(const struct attention_job *job, float *logits, struct rows q, const float *k_transposed, int row,
			   int count, struct range seen)
{
	int start = seen.first / BLOCK_COLS * BLOCK_COLS;
	product_rows(count, seen.last - start, q.data + row * q.stride, q.stride, 1, k_transposed + start, TILE,
		     job->shape.head_dim, logits + start, TILE, false);
}

/* What the softmax of a tile's rows has met so far. */
struct softmax {
	float top[TILE];
	vector total[TILE]; /* of each lane */
};

/* Makes probabilities, but for what a row's total is to divide them by, of the columns `all` of q · kᵀ of `count` rows, the first
 * of them the query `query`: 0 for keys, from `key` on, that a row does not see; where `whole` is set each row sees all. What was
 * summed up before, sum [count][width], shrinks where there is a larger logit. Step by step for all rows, as to find a row's largest
 * logit is a long chain of operations. */
INLINE void softmax_block(const struct attention *shape, float *top, vector *total, int count, float *logits, struct range all,
			  bool whole, int64_t query, int64_t key, float *sum, int64_t width)
{
	float factor = 1, best[BLOCK_ROWS], shrink[BLOCK_ROWS];
	for (int row = 0; row < count; row++) {
		float *x = logits + row * TILE;
		vector largest = every_lane(-INFINITY);
		factor = make_logits(shape, x, all, whole ? all : visible_keys(shape, query + row, 1, key));
#pragma GCC unroll 16
		for (int j = all.first; j < all.last; j += LANES)
			largest = larger(*(const vector *)(x + j), largest);
		best[row] = largest_lane(largest);
	}
#pragma omp simd
	for (int row = 0; row < count; row++) {
		float before = top[row], logit = best[row] * factor;
		top[row] = logit > before ? logit : before;
		best[row] = top[row] == -INFINITY ? 0 : top[row]; /* of a row that has seen nothing yet */
		shrink[row] = exp_fast(before - best[row]);
	}
	for (int row = 0; row < count; row++) {
		float *x = logits + row * TILE;
		vector sums = total[row] * shrink[row];
#pragma GCC unroll 16
		for (int j = all.first; j < all.last; j += LANES) {
			vector p = exp_lanes(*(const vector *)(x + j) * factor - best[row]);
			*(vector *)(x + j) = p;
			sums += p;
		}
		total[row] = sums;
	}
	for (int row = 0; row < count; row++) {
		if (shrink[row] == 1) continue;
		for (int64_t j = 0; j < width; j += LANES)
			*(vector *)(sum + row * width + j) *= shrink[row];
	}
}

static void softmax_rows(const struct attention *shape, struct softmax *softmax, int i, int count, float *logits, struct range seen,
			 int64_t query, int64_t key, float *sum, int64_t width)
{
	const struct range tile = {0, TILE};
	float *top = softmax->top + i;
	vector *total = softmax->total + i;
	struct range last = visible_keys(shape, query + count - 1, 1, key), first = visible_keys(shape, query, 1, key);
	if (first.last == TILE && last.first == 0)
		softmax_block(shape, top, total, count, logits, tile, true, query, key, sum, width);
	else
		softmax_block(shape, top, total, count, logits, whole_vectors(seen), false, query, key, sum, width);
}

static void forward(const struct attention_job *job, int batch, int head, int tile, float *workspace)
{
	const struct attention *shape = &job->shape;
	int dim = shape->head_dim, rows = rows_of_tile(job, tile), kv_head = head / (shape->heads / shape->kv_heads);
	int64_t width = job->width, tile_size = width * TILE, query = (int64_t)tile * TILE;
	int64_t kv = ((int64_t)batch * shape->kv_heads + kv_head) * job->tiles * tile_size;
	float *sum = workspace, *logits = sum + tile_size, *room = logits + BLOCK_ROWS * TILE;
	struct rows q = rows_of(job, &job->q, batch, head, tile, room);
	struct softmax softmax = {0};

	memset(sum, 0, (size_t)tile_size * sizeof *sum);
	for (int i = 0; i < rows; i++)
		softmax.top[i] = -INFINITY;
	for (int key_tile = first_tile(shape, query); key_tile <= tile; key_tile++) {
		int64_t key = (int64_t)key_tile * TILE;
		struct rows v = rows_of_keys(job, &job->v, batch, kv_head, key_tile, job->v_rows + kv);
		for (int row = 0; row < rows; row += BLOCK_ROWS) {
			int count = (int)least(BLOCK_ROWS, rows - row);
			struct range seen = visible_keys(shape, query + row, count, key);
			if (seen.first >= seen.last) continue;
			logits_of_rows(job, logits, q, job->k_transposed + kv + key_tile * tile_size, row, count, seen);
			softmax_rows(shape, &softmax, row, count, logits, seen, query + row, key, sum + row * width, width);
			product_rows(count, dim, logits + seen.first, TILE, 1, v.data + seen.first * v.stride, v.stride,
				     seen.last - seen.first, sum + row * width, width, true);
		}
	}
	int64_t first = (int64_t)batch * shape->tokens + query;
	float *lse = (float *)job->lse.data + ((int64_t)batch * shape->heads + head) * job->lse.stride + query;
	for (int i = 0; i < rows; i++) {
		float total = sum_of_lanes(softmax.total[i]), inverse = 1 / total, *row = sum + i * width;
#pragma omp simd
		for (int j = 0; j < dim; j++)
			row[j] *= inverse;
		store_floats((void *)(uintptr_t)at(&job->out, first + i, (int64_t)head * dim), job->out.dtype, row, dim);
		lse[i] = softmax.top[i] + logf(total);
	}
}

/* ---- backward ---------------------------------------------------------------------------------------------------------------- */

/* With P = exp(logits − lse) and dP = dout · vᵀ: dlogits = P ∘ (dP − Σ_d dout·out), times 1 − (logits/softcap)² under a cap. The
 * columns `all` of a row of q · kᵀ and of one of dP become P and dlogits, which are 0 where the query does not see the key, and in
 * the tile's other columns. */
INLINE void softmax_backward(const struct attention *shape, float *p, float *dp, float lse, float dot, struct range all,
			     struct range seen)
{
	float factor = make_logits(shape, p, all, seen), cap = shape->softcap;
	blank_unseen(dp, all, seen, 0);
	for (int j = all.first; j < all.last; j += LANES) {
		vector logit = *(const vector *)(p + j) * factor, probability = exp_lanes(logit - lse);
		*(vector *)(p + j) = probability;
		*(vector *)(dp + j) = probability * (*(const vector *)(dp + j) - dot);
		for (int i = 0; cap != 0 && i < LANES; i++) {
			float ratio = logit[i] / cap;
			if (dp[j + i] != 0) dp[j + i] *= 1 - ratio * ratio;
		}
	}
	for (int j = 0; j < all.first; j += LANES)
		*(vector *)(p + j) = *(vector *)(dp + j) = (vector){0};
	for (int j = all.last; j < TILE; j += LANES)
		*(vector *)(p + j) = *(vector *)(dp + j) = (vector){0};
}

/* dk and dv of a key tile, dq of a query tile, from one pair of tiles. */
static void add_products(const struct attention_job *job, const float *p, const float *dlogits, struct rows q, struct rows dout,
			 struct rows k, float *dq, float *dk, float *dv, int rows, int64_t query, int64_t key)
{
	const struct attention *shape = &job->shape;
	int64_t width = job->width;
	int dim = shape->head_dim;
	for (int col = 0; col < TILE; col += BLOCK_ROWS) {
		int count = (int)least(BLOCK_ROWS, TILE - col);
		struct range seeing = visible_queries(shape, key + col, count, query);
		if (seeing.last > rows) seeing.last = rows;
		int inner = seeing.last - seeing.first;
		if (inner <= 0) continue;
		int64_t from = (int64_t)seeing.first * TILE + col;
		product_rows(count, dim, p + from, 1, TILE, dout.data + seeing.first * dout.stride, dout.stride, inner,
			     dv + col * width, width, true);
		product_rows(count, dim, dlogits + from, 1, TILE, q.data + seeing.first * q.stride, q.stride, inner,
			     dk + col * width, width, true);
	}
	for (int row = 0; row < rows; row += BLOCK_ROWS) {
		int count = (int)least(BLOCK_ROWS, rows - row);
		struct range seen = visible_keys(shape, query + row, count, key);
		if (seen.first < seen.last)
			product_rows(count, dim, dlogits + row * TILE + seen.first, TILE, 1, k.data + seen.first * k.stride,
				     k.stride, seen.last - seen.first, dq + row * width, width, true);
	}
}

static void backward_tile(const struct attention_job *job, int batch, int head, int tile, float *dk, float *dv, float *workspace)
{
	const struct attention *shape = &job->shape;
	int dim = shape->head_dim, rows = rows_of_tile(job, tile), kv_head = head / (shape->heads / shape->kv_heads);
	int64_t width = job->width, tile_size = width * TILE, query = (int64_t)tile * TILE;
	int64_t kv = ((int64_t)batch * shape->kv_heads + kv_head) * job->tiles * tile_size;
	float *dq = workspace, *p = dq + tile_size, *dlogits = p + TILE * TILE, *dot = dlogits + TILE * TILE, *room = dot + TILE;
	const float *lse = (const float *)job->lse.data + ((int64_t)batch * shape->heads + head) * job->lse.stride + query;
	struct rows q = rows_of(job, &job->q, batch, head, tile, room),
		    dout = rows_of(job, &job->dout, batch, head, tile, room + tile_size),
		    out = rows_of(job, &job->out, batch, head, tile, room + 2 * tile_size);

	memset(dq, 0, (size_t)tile_size * sizeof *dq);
	for (int i = 0; i < rows; i++) {
		float sum = 0;
#pragma omp simd reduction(+ : sum)
		for (int j = 0; j < dim; j++)
			sum += dout.data[i * dout.stride + j] * out.data[i * out.stride + j];
		dot[i] = sum;
	}
	for (int key_tile = first_tile(shape, query); key_tile <= tile; key_tile++) {
		int64_t key = (int64_t)key_tile * TILE, offset = kv + key_tile * tile_size;
		for (int row = 0; row < rows; row += BLOCK_ROWS) {
			int count = (int)least(BLOCK_ROWS, rows - row);
			struct range seen = visible_keys(shape, query + row, count, key);
			float *p_rows = p + row * TILE, *d_rows = dlogits + row * TILE;
			if (seen.first < seen.last) {
				logits_of_rows(job, p_rows, q, job->k_transposed + offset, row, count, seen);
				logits_of_rows(job, d_rows, dout, job->v_transposed + offset, row, count, seen);
			}
			for (int i = 0; i < count; i++)
				softmax_backward(shape, p_rows + i * TILE, d_rows + i * TILE, lse[row + i], dot[row + i],
						 whole_vectors(seen), visible_keys(shape, query + row + i, 1, key));
		}
		add_products(job, p, dlogits, q, dout, rows_of_keys(job, &job->k, batch, kv_head, key_tile, job->k_rows + kv), dq,
			     dk + key_tile * tile_size, dv + key_tile * tile_size, rows, query, key);
	}
	int64_t first = (int64_t)batch * shape->tokens + query;
	for (int i = 0; i < rows; i++) {
		float *row = dq + i * width;
#pragma omp simd
		for (int j = 0; j < dim; j++)
			row[j] *= shape->scale;
		store_floats((void *)(uintptr_t)at(&job->dq, first + i, (int64_t)head * dim), job->dq.dtype, row, dim);
	}
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

static void reduce(const struct attention_job *job, int64_t first, int64_t last)
{
	const struct attention *shape = &job->shape;
	int dim = shape->head_dim;
	int64_t width = job->width, tile_size = width * TILE, part_size = job->tiles * tile_size;
	for (int64_t unit = first; unit < last; unit++) {
		int tile = (int)(unit % job->tiles), rows = rows_of_tile(job, tile);
		int head = (int)(unit / job->tiles % shape->kv_heads), batch = (int)(unit / job->tiles / shape->kv_heads);
		int64_t offset = ((int64_t)batch * shape->kv_heads + head) * job->parts * part_size + tile * tile_size;
		int64_t row = (int64_t)batch * shape->tokens + (int64_t)tile * TILE, col = (int64_t)head * dim;
		for (int i = 0; i < rows; i++) {
			float *dk = job->dk_parts + offset + i * width, *dv = job->dv_parts + offset + i * width;
			for (int part = 1; part < job->parts; part++) {
#pragma omp simd
				for (int j = 0; j < dim; j++) {
					dk[j] += dk[part * part_size + j];
					dv[j] += dv[part * part_size + j];
				}
			}
#pragma omp simd
			for (int j = 0; j < dim; j++)
				dk[j] *= shape->scale;
			store_floats((void *)(uintptr_t)at(&job->dk, row + i, col), job->dk.dtype, dk, dim);
			store_floats((void *)(uintptr_t)at(&job->dv, row + i, col), job->dv.dtype, dv, dim);
		}
	}
}

const struct attention_kernels ISA_NAME(attention_kernels) = {
	.unpack = unpack,
	.forward = forward,
	.backward = backward,
	.reduce = reduce,
};
