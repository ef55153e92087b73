/* Causal attention by tiles (FlashAttention, arXiv 2205.14135): a tile of queries meets the tiles of keys one after the other, and
 * no [T, T] matrix is ever stored. Tiles above the diagonal, or out of the window, are skipped; inside the tiles at the edge
 * each block of rows computes only the columns it needs. */
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

static void unpack_rows(const struct attention_job *job, float *to, const struct tensor *from, int batch, int head, int tile,
			float scale)
{
	int dim = job->shape.head_dim, rows = rows_of_tile(job, tile);
	int64_t first = (int64_t)batch * job->shape.tokens + (int64_t)tile * TILE;
	for (int i = 0; i < TILE; i++) {
		float *row = to + (int64_t)i * job->width;
		int used = i < rows ? dim : 0;
		if (used) load_floats(row, at(from, first + i, (int64_t)head * dim), from->dtype, dim);
		if (used && scale != 1)
			for (int j = 0; j < dim; j++)
				row[j] *= scale;
		memset(row + used, 0, (size_t)(job->width - used) * sizeof *row);
	}
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

/* The rest of a row of a tile, which nobody sees. */
INLINE void clear_unseen(float *row, struct range seen)
{
	if (seen.first) memset(row, 0, (size_t)seen.first * sizeof *row);
	if (seen.last < TILE) memset(row + seen.last, 0, (size_t)(TILE - seen.last) * sizeof *row);
}

static void unpack(const struct attention_job *job, int64_t first, int64_t last)
{
	int64_t tile_size = (int64_t)job->width * TILE;
	for (int64_t unit = first; unit < last; unit++) {
		int tile = (int)(unit % job->tiles), head = (int)(unit / job->tiles % job->shape.kv_heads);
		int batch = (int)(unit / job->tiles / job->shape.kv_heads);
		unpack_transposed(job, job->k_transposed + unit * tile_size, &job->k, batch, head, tile);
		if (job->v_transposed) unpack_transposed(job, job->v_transposed + unit * tile_size, &job->v, batch, head, tile);
		if (job->k_rows) unpack_rows(job, job->k_rows + unit * tile_size, &job->k, batch, head, tile, 1);
		if (job->v_rows) unpack_rows(job, job->v_rows + unit * tile_size, &job->v, batch, head, tile, 1);
	}
}

/* ---- forward ----------------------------------------------------------------------------------------------------------------- */

/* Rows [first, last) of logits [TILE, TILE] = q · kᵀ, where the row's block sees the keys; the caller blanks what a row itself
 * does not. */
static void logits_of_tile(const struct attention_job *job, float *logits, const float *q, const float *k_transposed, int rows,
			   int64_t query, int64_t key)
{
	const struct attention *shape = &job->shape;
	for (int row = 0; row < rows; row += BLOCK_ROWS) {
		int count = (int)least(BLOCK_ROWS, rows - row);
		struct range seen = visible_keys(shape, query + row, count, key);
		int start = seen.first / BLOCK_COLS * BLOCK_COLS;
		product_rows(count, seen.last - start, q + (int64_t)row * job->width, job->width, 1, k_transposed + start, TILE,
			     shape->head_dim, logits + row * TILE + start, TILE, false);
	}
}

static void cap_logits(float *row, int n, float softcap)
{
#pragma omp simd
	for (int i = 0; i < n; i++)
		row[i] = softcap * tanh_fast(row[i] / softcap);
}

static void forward(const struct attention_job *job, int batch, int head, int tile, float *workspace)
{
	const struct attention *shape = &job->shape;
	int dim = shape->head_dim, rows = rows_of_tile(job, tile), kv_head = head / (shape->heads / shape->kv_heads);
	int64_t width = job->width, tile_size = width * TILE, query = (int64_t)tile * TILE;
	int64_t kv = ((int64_t)batch * shape->kv_heads + kv_head) * job->tiles * tile_size;
	float *q = workspace, *sum = q + tile_size, *logits = sum + tile_size, *top = logits + TILE * TILE, *total = top + TILE;

	unpack_rows(job, q, &job->q, batch, head, tile, shape->scale);
	memset(sum, 0, (size_t)tile_size * sizeof *sum);
	for (int i = 0; i < TILE; i++) {
		top[i] = -INFINITY;
		total[i] = 0;
	}
	for (int key_tile = first_tile(shape, query); key_tile <= tile; key_tile++) {
		int64_t key = (int64_t)key_tile * TILE;
		logits_of_tile(job, logits, q, job->k_transposed + kv + key_tile * tile_size, rows, query, key);
		for (int i = 0; i < rows; i++) {
			float *row = logits + i * TILE, best = top[i], part = 0;
			struct range seen = visible_keys(shape, query + i, 1, key);
			if (seen.first >= seen.last) {
				memset(row, 0, TILE * sizeof *row);
				continue;
			}
			int n = seen.last - seen.first;
			float *live = row + seen.first;
			if (shape->softcap != 0) cap_logits(live, n, shape->softcap);
#pragma omp simd reduction(max : best)
			for (int j = 0; j < n; j++)
				best = live[j] > best ? live[j] : best;
#pragma omp simd reduction(+ : part)
			for (int j = 0; j < n; j++) {
				live[j] = exp_fast(live[j] - best);
				part += live[j];
			}
			clear_unseen(row, seen);
			if (best != top[i]) {
				float shrink = exp_fast(top[i] - best), *row_sum = sum + i * width;
				total[i] *= shrink;
#pragma omp simd
				for (int j = 0; j < dim; j++)
					row_sum[j] *= shrink;
				top[i] = best;
			}
			total[i] += part;
		}
		const float *v = job->v_rows + kv + key_tile * tile_size;
		for (int row = 0; row < rows; row += BLOCK_ROWS) {
			int count = (int)least(BLOCK_ROWS, rows - row);
			struct range seen = visible_keys(shape, query + row, count, key);
			if (seen.first < seen.last)
				product_rows(count, dim, logits + row * TILE + seen.first, TILE, 1, v + seen.first * width, width,
					     seen.last - seen.first, sum + row * width, width, true);
		}
	}
	int64_t first = (int64_t)batch * shape->tokens + query;
	float *lse = (float *)job->lse.data + ((int64_t)batch * shape->heads + head) * job->lse.stride + query;
	for (int i = 0; i < rows; i++) {
		float inverse = 1 / total[i], *row = sum + i * width;
		for (int j = 0; j < dim; j++)
			row[j] *= inverse;
		store_floats((void *)(uintptr_t)at(&job->out, first + i, (int64_t)head * dim), job->out.dtype, row, dim);
		lse[i] = top[i] + logf(total[i]);
	}
}

/* ---- backward ---------------------------------------------------------------------------------------------------------------- */

/* With P = exp(logits − lse) and dP = dout · vᵀ: dlogits = P ∘ (dP − Σ_d dout·out), times 1 − (logits/softcap)² under a cap.
 * On return p holds P and dp holds dlogits, 0 where a query does not see a key. */
static void softmax_backward(const struct attention *shape, float *p, float *dp, const float *lse, const float *dot, int rows,
			     int64_t query, int64_t key)
{
	float cap = shape->softcap, inverse_cap = cap != 0 ? 1 / cap : 0;
	for (int i = 0; i < rows; i++) {
		struct range seen = visible_keys(shape, query + i, 1, key);
		float *p_row = p + i * TILE, *dp_row = dp + i * TILE, row_lse = lse[i], row_dot = dot[i];
		if (seen.first >= seen.last) seen = (struct range){0, 0};
		if (cap != 0) {
			cap_logits(p_row + seen.first, seen.last - seen.first, cap);
#pragma omp simd
			for (int j = seen.first; j < seen.last; j++) {
				float logit = p_row[j], ratio = logit * inverse_cap;
				p_row[j] = exp_fast(logit - row_lse);
				dp_row[j] = p_row[j] * (dp_row[j] - row_dot) * (1 - ratio * ratio);
			}
		} else {
#pragma omp simd
			for (int j = seen.first; j < seen.last; j++) {
				p_row[j] = exp_fast(p_row[j] - row_lse);
				dp_row[j] = p_row[j] * (dp_row[j] - row_dot);
			}
		}
		clear_unseen(p_row, seen);
		clear_unseen(dp_row, seen);
	}
}

/* dk and dv of a key tile, dq of a query tile, from one pair of tiles. */
static void add_products(const struct attention_job *job, const float *p, const float *dlogits, const float *q, const float *dout,
			 const float *k, float *dq, float *dk, float *dv, int rows, int64_t query, int64_t key)
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
		int64_t from = (int64_t)seeing.first * TILE + col, skip = seeing.first * width;
		product_rows(count, dim, p + from, 1, TILE, dout + skip, width, inner, dv + col * width, width, true);
		product_rows(count, dim, dlogits + from, 1, TILE, q + skip, width, inner, dk + col * width, width, true);
	}
	for (int row = 0; row < rows; row += BLOCK_ROWS) {
		int count = (int)least(BLOCK_ROWS, rows - row);
		struct range seen = visible_keys(shape, query + row, count, key);
		if (seen.first < seen.last)
			product_rows(count, dim, dlogits + row * TILE + seen.first, TILE, 1, k + seen.first * width, width,
				     seen.last - seen.first, dq + row * width, width, true);
	}
}

static void backward_tile(const struct attention_job *job, int batch, int head, int tile, float *dk, float *dv, float *workspace)
{
	const struct attention *shape = &job->shape;
	int dim = shape->head_dim, rows = rows_of_tile(job, tile), kv_head = head / (shape->heads / shape->kv_heads);
	int64_t width = job->width, tile_size = width * TILE, query = (int64_t)tile * TILE;
	int64_t kv = ((int64_t)batch * shape->kv_heads + kv_head) * job->tiles * tile_size;
	float *q = workspace, *dout = q + tile_size, *dq = dout + tile_size, *out = dq + tile_size;
	float *p = out + tile_size, *dlogits = p + TILE * TILE, *dot = dlogits + TILE * TILE;
	const float *lse = (const float *)job->lse.data + ((int64_t)batch * shape->heads + head) * job->lse.stride + query;

	unpack_rows(job, q, &job->q, batch, head, tile, shape->scale);
	unpack_rows(job, dout, &job->dout, batch, head, tile, 1);
	unpack_rows(job, out, &job->out, batch, head, tile, 1);
	memset(dq, 0, (size_t)tile_size * sizeof *dq);
	for (int i = 0; i < rows; i++) {
		float sum = 0;
#pragma omp simd reduction(+ : sum)
		for (int j = 0; j < dim; j++)
			sum += dout[i * width + j] * out[i * width + j];
		dot[i] = sum;
	}
	for (int key_tile = first_tile(shape, query); key_tile <= tile; key_tile++) {
		int64_t key = (int64_t)key_tile * TILE, offset = kv + key_tile * tile_size;
		logits_of_tile(job, p, q, job->k_transposed + offset, rows, query, key);
		logits_of_tile(job, dlogits, dout, job->v_transposed + offset, rows, query, key);
		softmax_backward(shape, p, dlogits, lse, dot, rows, query, key);
		add_products(job, p, dlogits, q, dout, job->k_rows + offset, dq, dk + key_tile * tile_size,
			     dv + key_tile * tile_size, rows, query, key);
	}
	int64_t first = (int64_t)batch * shape->tokens + query;
	for (int i = 0; i < rows; i++) {
		float *row = dq + i * width;
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
