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

/* product_block for any number of columns, which is rounded up to a multiple of BLOCK_COLS. */
static void product_rows(int rows, int64_t cols, const float *a, int64_t a_row, int64_t a_inner, const float *b, int64_t b_row,
			 int inner, float *c, int64_t c_row, bool accumulate)
{
	for (int64_t col = 0; col < cols; col += BLOCK_COLS)
		product_some_rows(rows, a, a_row, a_inner, b + col, b_row, inner, accumulate ? c + col : NULL, c_row, c + col,
				  c_row);
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

typedef int32_t mask_vector __attribute__((vector_size(LANES * sizeof(int32_t)), aligned(4), may_alias));

/* So many columns of a row are made at a time. */
enum { HALF = TILE / 2 };

INLINE vector all(float x)
{
	return (vector){0} + x;
}

/* b where one of them is NaN. */
INLINE vector larger(vector a, vector b)
{
#if defined __AVX512F__
	return (vector)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined __AVX__
	return (vector)_mm256_max_ps((__m256)a, (__m256)b);
#else
	return (vector)_mm_max_ps((__m128)a, (__m128)b);
#endif
}

INLINE float largest_lane(vector x)
{
#if defined __AVX512F__
	return _mm512_reduce_max_ps((__m512)x);
#else
	float best = x[0];
	for (int i = 1; i < LANES; i++)
		best = x[i] > best ? x[i] : best;
	return best;
#endif
}

/* exp_fast, for x ≤ 88.3. */
INLINE vector exp_lanes(vector x)
{
	const float lowest = -87.3f, magic = 0x1.8p23f;
	vector y = larger(all(lowest), x), shifted = y * 0x1.715476p0f + magic, n = shifted - magic;
	vector r = (y - n * 0x1.62e4p-1f) + n * -0x1.7f7d1cp-20f, p = all(1.9875691500e-4f);
	p = p * r + 1.3981999507e-3f;
	p = p * r + 8.3334519073e-3f;
	p = p * r + 4.1665795894e-2f;
	p = p * r + 1.6666665459e-1f;
	p = p * r + 5.0000001201e-1f;
	vector power = (vector)(((mask_vector)shifted + 127) << 23);
	return (vector)((mask_vector)((p * (r * r) + r) * power + power) & ~(mask_vector)(x < lowest));
}

/* Of the first n of a row what is not seen. */
INLINE void blank_unseen(float *row, struct range seen, int n, float blank)
{
	for (int j = 0; j < seen.first; j++)
		row[j] = blank;
	for (int j = seen.last; j < n; j++)
		row[j] = blank;
}

/* Logits from a row of q · kᵀ, but for a factor, which is returned; −∞ where a key is not seen. */
INLINE float make_logits(const struct attention *shape, float *row, struct range seen, int n)
{
	float scale = shape->scale, cap = shape->softcap;
	if (cap == 0 && !seen.first && seen.last == n) return scale;
	if (cap != 0) {
#pragma omp simd
		for (int i = 0; i < n; i++)
			row[i] = cap * tanh_fast(row[i] * scale / cap);
	} else {
#pragma omp simd
		for (int i = 0; i < n; i++)
			row[i] *= scale;
	}
	blank_unseen(row, seen, n, -INFINITY);
	return 1;
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

/* Makes probabilities, but for what the row's total is to divide them by, of the first n of a row of q · kᵀ: 0 for keys that it
 * does not see. What was summed up before, sum [dim], shrinks where there is a larger logit. */
INLINE void softmax_part(const struct attention *shape, struct softmax *softmax, int i, float *row, int n, struct range seen,
			 float *sum)
{
	float factor = make_logits(shape, row, seen, n), before = softmax->top[i];
	vector x[TILE / LANES], best = all(before), total = softmax->total[i];
#pragma GCC unroll 16
	for (int j = 0; j < n / LANES; j++) {
		x[j] = *(const vector *)(row + j * LANES) * factor;
		best = larger(x[j], best);
	}
	float top = largest_lane(best);
	if (top > before) {
		float shrink = exp_fast(before - top);
		total *= shrink;
#pragma omp simd
		for (int j = 0; j < shape->head_dim; j++)
			sum[j] *= shrink;
		softmax->top[i] = top;
	}
#pragma GCC unroll 16
	for (int j = 0; j < n / LANES; j++) {
		vector p = exp_lanes(x[j] - top);
		*(vector *)(row + j * LANES) = p;
		total += p;
	}
	softmax->total[i] = total;
}

/* The i-th row of a tile of queries, which is the first of `row`. */
static void softmax_row(const struct attention *shape, struct softmax *softmax, int i, float *row, struct range seen, float *sum)
{
	if (seen.first >= seen.last)
		memset(row, 0, TILE * sizeof *row);
	else if (seen.last > HALF)
		softmax_part(shape, softmax, i, row, TILE, seen, sum);
	else {
		softmax_part(shape, softmax, i, row, HALF, seen, sum);
		memset(row + HALF, 0, HALF * sizeof *row);
	}
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
	for (int i = 0; i < TILE; i++)
		softmax.top[i] = -INFINITY;
	for (int key_tile = first_tile(shape, query); key_tile <= tile; key_tile++) {
		int64_t key = (int64_t)key_tile * TILE;
		struct rows v = rows_of_keys(job, &job->v, batch, kv_head, key_tile, job->v_rows + kv);
		for (int row = 0; row < rows; row += BLOCK_ROWS) {
			int count = (int)least(BLOCK_ROWS, rows - row);
			struct range seen = visible_keys(shape, query + row, count, key);
			if (seen.first >= seen.last) continue;
			logits_of_rows(job, logits, q, job->k_transposed + kv + key_tile * tile_size, row, count, seen);
			for (int i = 0; i < count; i++)
				softmax_row(shape, &softmax, row + i, logits + i * TILE,
					    visible_keys(shape, query + row + i, 1, key), sum + (row + i) * width);
			product_rows(count, dim, logits + seen.first, TILE, 1, v.data + seen.first * v.stride, v.stride,
				     seen.last - seen.first, sum + row * width, width, true);
		}
	}
	int64_t first = (int64_t)batch * shape->tokens + query;
	float *lse = (float *)job->lse.data + ((int64_t)batch * shape->heads + head) * job->lse.stride + query;
	for (int i = 0; i < rows; i++) {
		float total = 0, *row = sum + i * width;
		for (int lane = 0; lane < LANES; lane++)
			total += softmax.total[i][lane];
#pragma omp simd
		for (int j = 0; j < dim; j++)
			row[j] /= total;
		store_floats((void *)(uintptr_t)at(&job->out, first + i, (int64_t)head * dim), job->out.dtype, row, dim);
		lse[i] = softmax.top[i] + logf(total);
	}
}

/* ---- backward ---------------------------------------------------------------------------------------------------------------- */

/* With P = exp(logits − lse) and dP = dout · vᵀ: dlogits = P ∘ (dP − Σ_d dout·out), times 1 − (logits/softcap)² under a cap. The
 * first n of a row of q · kᵀ and of one of dP become P and dlogits, 0 where the query does not see the key. */
INLINE void softmax_backward_part(const struct attention *shape, float *p, float *dp, int n, float lse, float dot,
				  struct range seen)
{
	float factor = make_logits(shape, p, seen, n), cap = shape->softcap;
	blank_unseen(dp, seen, n, 0);
#pragma GCC unroll 16
	for (int j = 0; j < n; j += LANES) {
		vector logit = *(const vector *)(p + j) * factor, probability = exp_lanes(logit - lse);
		*(vector *)(p + j) = probability;
		*(vector *)(dp + j) = probability * (*(const vector *)(dp + j) - dot);
		for (int i = 0; cap != 0 && i < LANES; i++) {
			float ratio = logit[i] / cap;
			if (dp[j + i] != 0) dp[j + i] *= 1 - ratio * ratio;
		}
	}
}

static void softmax_backward(const struct attention *shape, float *p, float *dp, float lse, float dot, struct range seen)
{
	int n = seen.first >= seen.last ? 0 : seen.last > HALF ? TILE : HALF;
	if (n == TILE)
		softmax_backward_part(shape, p, dp, TILE, lse, dot, seen);
	else if (n == HALF)
		softmax_backward_part(shape, p, dp, HALF, lse, dot, seen);
	memset(p + n, 0, (size_t)(TILE - n) * sizeof *p);
	memset(dp + n, 0, (size_t)(TILE - n) * sizeof *dp);
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
						 visible_keys(shape, query + row + i, 1, key));
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
