/* Products with a bitmap and the values that are not zero (cuda/sparse.h).
 *
 * A warp takes a stage at a time: some rows of one segment, 8 words of 64 columns. It copies their values, which lie in a run for
 * each row, into shared memory, asynchronously and a stage ahead, reads the words of the bitmap into registers, two stages ahead,
 * and writes a table of them: for each half of a word its bits and where its first value lies. Then, word by word, lane l has
 * columns 2l and 2l + 1: how many bits are set below them says where their values lie. So neighbouring lanes read neighbouring
 * values, and no two of them the same bank.
 *
 * One vector is multiplied as the values are found. Several are multiplied by the tensor cores: the values of 16 rows and 64
 * columns are put in their places in shared memory, with zeros between them, for that.
 *
 * The warps of a block share the segments of its rows, and what they came to is added in their order.
 *
 * Kernels that are not STAGED copy nothing ahead and read values from where they lie: more warps have room then. Which is faster
 * only a device can tell; cuda_tune_sparse chooses, and both give the same bits where they have as many warps. */
#include "cuda/launch.cuh"
#include "cuda/sparse.h"
#include "cuda/tuning.h"

enum {
	TILE_ROWS = 16, /* of the rows that warps add up together */
	SEGMENT = CUDA_SPARSE_SEGMENT,
	MOST_WARPS = 8,
	CHUNK = 8,                      /* values of an asynchronous copy */
	PLACED = CUDA_SPARSE_WORD + 32, /* from a row of placed values to the next: 8 lanes that read 16 bytes each share no bank */
	PLACED_BYTES = TILE_ROWS * PLACED * 2
};

/* What kernels see of a matrix. */
struct packed {
	int64_t rows, words, segments;
	const uint64_t *mask;
	const uint16_t *values;
	const uint32_t *starts;
	int pitch; /* values from a row's run in shared memory to the next; 0 where nothing is staged */
};

/* Of a half of a word: its bits, and where its first value lies: its address in shared memory, or which it is of all values. */
struct half_word {
	uint32_t bits, first;
};

/* ---- a stage: 4·J rows of a segment ------------------------------------------------------------------------------------------ */

/* What a lane has of it: word l % 8 of the rows l / 8 + 4j, and where those rows' values begin and end. */
template <int J> struct stage {
	uint2 word[J];
	uint32_t start[J], end[J];
};

static __device__ __forceinline__ int lane_of()
{
	return (int)threadIdx.x % 32;
}

template <int J> static __device__ __forceinline__ void read_stage(const packed &m, int64_t row, int64_t segment, stage<J> &ret)
{
	int64_t word = segment * SEGMENT + lane_of() % 8;
#pragma unroll
	for (int j = 0; j < J; j++) {
		int64_t r = row + lane_of() / 8 + 4 * j;
		ret.word[j] = make_uint2(0, 0);
		ret.start[j] = ret.end[j] = 0;
		if (r >= m.rows) continue;
		if (word < m.words) ret.word[j] = *(const uint2 *)(m.mask + r * m.words + word);
		ret.start[j] = m.starts[r * m.segments + segment];
		ret.end[j] = m.starts[r * m.segments + segment + 1];
	}
}

/* Starts copying the stage's values; `runs` [4·J, pitch]. */
template <int J> static __device__ __forceinline__ void copy_values(const packed &m, const stage<J> &s, uint16_t *runs)
{
#pragma unroll
	for (int j = 0; j < J; j++) {
		uint32_t first = s.start[j] / CHUNK * CHUNK, chunks = (s.end[j] - first + CHUNK - 1) / CHUNK;
		const uint16_t *from = m.values + first;
		uint16_t *to = runs + (lane_of() / 8 + 4 * j) * m.pitch;
		for (uint32_t i = (uint32_t)lane_of() % 8; i < chunks; i += 8)
			copy_async(to + i * CHUNK, from + i * CHUNK, true);
	}
}

/* table [4·J rows, SEGMENT words, 2 halves] of a stage whose runs lie at that address of shared memory. */
template <bool STAGED, int J>
static __device__ __forceinline__ void write_table(const packed &m, const stage<J> &s, uint32_t at, half_word *table)
{
#pragma unroll
	for (int j = 0; j < J; j++) {
		uint32_t low = (uint32_t)__popc(s.word[j].x), mine = low + (uint32_t)__popc(s.word[j].y), before = mine;
#pragma unroll
		for (int by = 1; by < 8; by *= 2) {
			uint32_t other = __shfl_up_sync(0xffffffffu, before, (unsigned)by);
			if (lane_of() % 8 >= by) before += other;
		}
		uint32_t first = s.start[j] + before - mine;
		if (STAGED) {
			first = s.start[j] % CHUNK + before - mine + (uint32_t)((lane_of() / 8 + 4 * j) * m.pitch);
			first = at + 2 * first;
			low *= 2;
		}
		*(uint4 *)(table + (lane_of() + 32 * j) * 2) = make_uint4(s.word[j].x, first, s.word[j].y, first + low);
	}
}

/* The bits of a lane's two columns in its half of a word. */
struct pair {
	int half;
	uint32_t first, second, below; /* `below` the second */
};

static __device__ __forceinline__ pair pair_of_lane()
{
	uint32_t bit = 1u << 2 * (lane_of() % 16);
	return {lane_of() / 16, bit, bit << 1, (bit << 1) - 1};
}

/* The two values, which lie one behind the other; 0 for what was left out. `values`: all of them, where nothing is staged. */
template <bool STAGED>
static __device__ __forceinline__ void read_pair(const half_word &h, const pair &p, const uint16_t *values, uint32_t &ret_first,
						 uint32_t &ret_second)
{
	uint32_t before = (uint32_t)__popc(h.bits & p.below);
	if (STAGED) {
		ret_first = take_half<-2>(h.first + 2 * before, h.bits & p.first);
		ret_second = take_half<0>(h.first + 2 * before, h.bits & p.second);
		return;
	}
	const uint16_t *at = values + h.first + before;
	ret_first = ret_second = 0;
	if (h.bits & p.first) ret_first = at[-1];
	if (h.bits & p.second) ret_second = at[0];
}

static __device__ __forceinline__ half_word read_half(const half_word *table, int word, const pair &p)
{
	uint2 entry = *(const uint2 *)(table + word * 2 + p.half);
	return {entry.x, entry.y};
}

/* ---- one vector -------------------------------------------------------------------------------------------------------------- */

enum {
	STAGE_ROWS = 4,
	STAGES_OF_TILE = TILE_ROWS / STAGE_ROWS,
	SUMS_BYTES = TILE_ROWS * (int)sizeof(float),
	VECTOR_BYTES = SUMS_BYTES + STAGE_ROWS * SEGMENT * 2 * (int)sizeof(half_word)
};

/* y [rows]. Block: whole warps; shared memory for each: its sums, a table, and two stages' runs. */
template <bool STAGED>
__global__ void __launch_bounds__(32 * MOST_WARPS) vector_kernel(packed m, const uint16_t *__restrict__ x, float *y)
{
	SHARED_MEMORY(unsigned char, memory);
	int warp = (int)threadIdx.x / 32, warps = (int)blockDim.x / 32, lane = lane_of(), runs_size = STAGE_ROWS * m.pitch;
	size_t warp_bytes = VECTOR_BYTES + 4 * (size_t)runs_size;
	unsigned char *mine = memory + warp * warp_bytes;
	float *sums = (float *)mine;
	half_word *table = (half_word *)(mine + SUMS_BYTES);
	uint16_t *runs = (uint16_t *)(mine + VECTOR_BYTES);
	int64_t row = (int64_t)blockIdx.x * TILE_ROWS;
	int own = warp < m.segments ? (int)((m.segments - warp + warps - 1) / warps) : 0, stages = STAGES_OF_TILE * own;
	const pair p = pair_of_lane();
	float sum[STAGE_ROWS] = {};
	stage<1> now, next, later;

	if (lane < TILE_ROWS) sums[lane] = 0;
	if (stages > 0) {
		read_stage(m, row, warp, now);
		if (STAGED) copy_values(m, now, runs);
		read_stage(m, row + 1 / own * STAGE_ROWS, warp + 1 % own * warps, next);
	}
	copy_async_commit();
	/* Where the stage is: `turn` of the warp's segments, `group` of the tile's rows; and the one that is read ahead. */
	int group = 0, turn = 0, ahead_group = own == 1 ? 2 : own == 2 ? 1 : 0, ahead_turn = own > 2 ? 2 : 0;
	for (int i = 0; i < stages; i++) {
		int64_t word = ((int64_t)turn * warps + warp) * SEGMENT;
		float left[SEGMENT], right[SEGMENT];
		if (STAGED && i + 1 < stages) copy_values(m, next, runs + (i + 1) % 2 * runs_size);
		copy_async_commit();
		if (i + 2 < stages) read_stage(m, row + ahead_group * STAGE_ROWS, warp + (int64_t)ahead_turn * warps, later);
#pragma unroll
		for (int w = 0; w < SEGMENT; w++) {
			const uint16_t *at = x + (word + w) * CUDA_SPARSE_WORD + 2 * lane;
			uint32_t both = word + w < m.words ? *(const uint32_t *)at : 0;
			left[w] = __uint_as_float(both << 16);
			right[w] = __uint_as_float(both & 0xffff0000u);
		}
		write_table<STAGED>(m, now, shared_address(runs + i % 2 * runs_size), table);
		copy_async_wait<1>();
		__syncwarp();
#pragma unroll
		for (int w = 0; w < SEGMENT; w++)
#pragma unroll
			for (int r = 0; r < STAGE_ROWS; r++) {
				uint32_t first, second;
				read_pair<STAGED>(read_half(table, r * SEGMENT + w, p), p, m.values, first, second);
				sum[r] += __uint_as_float(first << 16) * left[w];
				sum[r] += __uint_as_float(second << 16) * right[w];
			}
		__syncwarp();
		if (++turn == own) {
#pragma unroll
			for (int r = 0; r < STAGE_ROWS; r++) {
				float all = warp_reduce(sum[r], plus{});
				if (lane == 0) sums[group * STAGE_ROWS + r] = all;
				sum[r] = 0;
			}
			turn = 0;
			group++;
		}
		if (++ahead_turn == own) {
			ahead_turn = 0;
			ahead_group++;
		}
		now = next;
		next = later;
	}
	__syncthreads();
	if (threadIdx.x >= TILE_ROWS || row + threadIdx.x >= m.rows) return;
	float all = 0;
	for (int w = 0; w < warps; w++)
		all += ((const float *)(memory + (size_t)w * warp_bytes))[threadIdx.x];
	y[row + threadIdx.x] = all;
}

/* ---- several vectors --------------------------------------------------------------------------------------------------------- */

enum { WIDE_TABLE_BYTES = TILE_ROWS * SEGMENT * 2 * (int)sizeof(half_word), WIDE_BYTES = WIDE_TABLE_BYTES + PLACED_BYTES };

/* The vectors 8·t … 8·t + 7 and a word's 64 columns as the tensor cores take them, columns in an order of their own: lane 4g + t
 * has columns 8t … 8t + 7 of vector g, and those 32 further. */
template <int T>
static __device__ __forceinline__ void read_vectors(const uint16_t *x, int64_t stride, int vectors, int64_t word,
						    uint4 (&ret)[T][2])
{
#pragma unroll
	for (int t = 0; t < T; t++) {
		int vector = 8 * t + lane_of() / 4;
		const uint16_t *at = x + vector * stride + word * CUDA_SPARSE_WORD + lane_of() % 4 * 8;
		ret[t][0] = vector < vectors ? *(const uint4 *)at : make_uint4(0, 0, 0, 0);
		ret[t][1] = vector < vectors ? *(const uint4 *)(at + CUDA_SPARSE_WORD / 2) : make_uint4(0, 0, 0, 0);
	}
}

/* sum += 16 rows and 32 columns · T · 8 vectors: `top` and `bottom` are 8 columns of rows g and g + 8. */
template <int T>
static __device__ __forceinline__ void multiply(float (&sum)[T][4], const uint4 &top, const uint4 &bottom,
						const uint4 (&vectors)[T][2], int half)
{
	const uint32_t first[4] = {top.x, bottom.x, top.y, bottom.y}, second[4] = {top.z, bottom.z, top.w, bottom.w};
#pragma unroll
	for (int t = 0; t < T; t++) {
		mma(sum[t], first, vectors[t][half].x, vectors[t][half].y, bf16{});
		mma(sum[t], second, vectors[t][half].z, vectors[t][half].w, bf16{});
	}
}

/* y [vectors, rows]. A block has some tiles of 16 rows, and `splits` warps for each, which share its segments. Shared memory for
 * each warp: a table, placed values, and two stages' runs, of which the first bytes become its sums. */
template <bool STAGED, int T>
__global__ void __launch_bounds__(32 * MOST_WARPS)
	wide_kernel(packed m, const uint16_t *__restrict__ x, int64_t stride, int vectors, float *y, int64_t y_stride, int splits)
{
	SHARED_MEMORY(unsigned char, memory);
	int warp = (int)threadIdx.x / 32, lane = lane_of(), tiles = (int)blockDim.x / 32 / splits, split = warp % splits;
	int runs_size = TILE_ROWS * m.pitch;
	size_t warp_bytes = WIDE_BYTES + 4 * (size_t)runs_size;
	unsigned char *mine = memory + warp * warp_bytes;
	half_word *table = (half_word *)mine;
	uint16_t *placed = (uint16_t *)(mine + WIDE_TABLE_BYTES), *runs = (uint16_t *)(mine + WIDE_BYTES);
	int64_t row = ((int64_t)blockIdx.x * tiles + warp / splits) * TILE_ROWS;
	const pair p = pair_of_lane();
	const uint16_t *top = placed + lane / 4 * PLACED + lane % 4 * 8, *bottom = top + 8 * PLACED;
	float sum[T][4] = {};
	stage<TILE_ROWS / 4> now, next;

	if (split < m.segments) {
		read_stage(m, row, split, now);
		if (STAGED) copy_values(m, now, runs);
	}
	copy_async_commit();
	if (split + splits < m.segments) read_stage(m, row, split + splits, next);
	for (int64_t segment = split, turn = 0; segment < m.segments; segment += splits, turn ^= 1) {
		write_table<STAGED>(m, now, shared_address(runs + turn * runs_size), table);
		now = next;
		if (STAGED && segment + splits < m.segments) copy_values(m, now, runs + (turn ^ 1) * runs_size);
		copy_async_commit();
		if (segment + 2 * splits < m.segments) read_stage(m, row, segment + 2 * splits, next);
		copy_async_wait<1>();
		__syncwarp();
		int words = (int)index_min(SEGMENT, m.words - segment * SEGMENT);
		for (int w = 0; w < words; w++) {
			uint4 columns[T][2];
			read_vectors(x, stride, vectors, segment * SEGMENT + w, columns);
#pragma unroll
			for (int r = 0; r < TILE_ROWS; r++) {
				uint32_t first, second;
				read_pair<STAGED>(read_half(table, r * SEGMENT + w, p), p, m.values, first, second);
				*(uint32_t *)(placed + r * PLACED + 2 * lane) = first | second << 16;
			}
			__syncwarp();
			multiply(sum, *(const uint4 *)top, *(const uint4 *)bottom, columns, 0);
			multiply(sum, *(const uint4 *)(top + CUDA_SPARSE_WORD / 2), *(const uint4 *)(bottom + CUDA_SPARSE_WORD / 2),
				 columns, 1);
			__syncwarp();
		}
	}

	float *sums = (float *)mine; /* [T·8 vectors, 16 rows] */
#pragma unroll
	for (int t = 0; t < T; t++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			sums[(8 * t + lane % 4 * 2 + i % 2) * TILE_ROWS + lane / 4 + i / 2 * 8] = sum[t][i];
	__syncthreads();
	for (int i = (int)threadIdx.x; i < tiles * TILE_ROWS * vectors; i += (int)blockDim.x) {
		int r = i % TILE_ROWS, tile = i / TILE_ROWS % tiles, vector = i / TILE_ROWS / tiles;
		int64_t at = ((int64_t)blockIdx.x * tiles + tile) * TILE_ROWS + r;
		if (at >= m.rows) continue;
		float all = 0;
		for (int s = 0; s < splits; s++)
			all += ((const float *)(memory + (size_t)(tile * splits + s) * warp_bytes))[vector * TILE_ROWS + r];
		y[vector * y_stride + at] = all;
	}
}

/* ---- dense again ------------------------------------------------------------------------------------------------------------- */

/* A warp for each segment of each row. `wide`: pairs of columns are aligned. */
__global__ void __launch_bounds__(32 * MOST_WARPS) expand_kernel(packed m, uint16_t *dense, int64_t stride, int64_t cols, bool wide)
{
	int64_t at = (int64_t)blockIdx.x * MOST_WARPS + threadIdx.x / 32, row = at / m.segments, first = at % m.segments * SEGMENT;
	if (row >= m.rows) return;
	const pair p = pair_of_lane();
	const uint16_t *values = m.values + m.starts[at];
	int words = (int)index_min(SEGMENT, m.words - first);
	for (int w = 0; w < words; w++) {
		uint2 word = *(const uint2 *)(m.mask + row * m.words + first + w);
		uint32_t low = (uint32_t)__popc(word.x), left, right;
		read_pair<false>(p.half ? half_word{word.y, low} : half_word{word.x, 0}, p, values, left, right);
		int64_t col = (first + w) * CUDA_SPARSE_WORD + 2 * lane_of();
		uint16_t *to = dense + row * stride + col;
		if (wide && col + 1 < cols) {
			*(uint32_t *)to = left | right << 16;
		} else {
			if (col < cols) to[0] = (uint16_t)left;
			if (col + 1 < cols) to[1] = (uint16_t)right;
		}
		values += low + __popc(word.y);
	}
}

/* ---- host side --------------------------------------------------------------------------------------------------------------- */

static packed packed_of(const struct cuda_sparse *m, bool staged)
{
	int pitch = staged ? (int)index_round_up(m->longest + CHUNK - 1, CHUNK) : 0;
	return {m->rows, m->words, m->segments, m->mask, m->values, m->starts, pitch};
}

/* How many warps have room in a block, no more than `most` but for the next power of two. */
static int warps_for(size_t room, size_t bytes_each, int64_t most)
{
	int warps = 1;
	while (warps < MOST_WARPS && warps < most && 2 * warps * bytes_each <= room)
		warps *= 2;
	return warps;
}

static enum status multiply_vector(struct cuda *c, const struct cuda_sparse *m, const struct tensor &y, const struct tensor &x)
{
	packed p = packed_of(m, !c->sparse_direct);
	size_t each = VECTOR_BYTES + 4 * (size_t)(STAGE_ROWS * p.pitch);
	int warps = warps_for(c->shared_memory, each, m->segments);
	auto kernel = c->sparse_direct ? vector_kernel<false> : vector_kernel<true>;
	return LAUNCH(c, kernel, dim3((unsigned)index_ceil_div(m->rows, TILE_ROWS)), dim3(32 * (unsigned)warps),
		      (size_t)warps * each, p, (const uint16_t *)x.data, (float *)y.data);
}

/* More than 8 vectors are worth two tiles a block, which find what they read of the vectors in the cache. Two blocks share a
 * multiprocessor where four warps have room in each. */
template <int T>
static enum status multiply_wide(struct cuda *c, const struct cuda_sparse *m, const struct tensor &y, const struct tensor &x)
{
	packed p = packed_of(m, !c->sparse_direct);
	size_t each = WIDE_BYTES + 4 * (size_t)(TILE_ROWS * p.pitch), room = c->shared_memory;
	int most = T > 1 && m->rows > TILE_ROWS ? 2 : 1;
	int warps = warps_for(4 * each <= room / 2 ? room / 2 : room, each, most * m->segments), tiles = warps > 1 ? most : 1;
	auto kernel = c->sparse_direct ? wide_kernel<false, T> : wide_kernel<true, T>;
	return LAUNCH(c, kernel, dim3((unsigned)index_ceil_div(m->rows, (int64_t)tiles * TILE_ROWS)), dim3(32 * (unsigned)warps),
		      (size_t)warps * each, p, (const uint16_t *)x.data, x.stride, (int)x.rows, (float *)y.data, y.stride,
		      warps / tiles);
}

extern "C" enum status cuda_sparse_expand(struct backend *backend, const struct cuda_sparse *m, struct tensor dense)
{
	struct cuda *c = cuda_begin(backend, "sparse_expand", {dense});
	if (dense.rows != m->rows || dense.cols != m->cols || dense.dtype != DTYPE_BF16)
		return cuda_refuse(c, STATUS_INVALID, "the matrix is [%lld, %lld]", (long long)m->rows, (long long)m->cols);
	bool wide = dense.stride % 2 == 0 && (uintptr_t)dense.data % 4 == 0;
	return LAUNCH(c, expand_kernel, dim3((unsigned)index_ceil_div(m->rows * m->segments, MOST_WARPS)), dim3(32 * MOST_WARPS), 0,
		      packed_of(m, false), (uint16_t *)dense.data, dense.stride, m->cols, wide);
}

static enum status multiply_dense(struct cuda *c, const struct cuda_sparse *m, const struct tensor &y, const struct tensor &x)
{
	struct scratch memory(c);
	TRY(memory.allocate((size_t)(m->rows * m->cols) * sizeof(uint16_t)));
	struct tensor dense = tensor_make(memory.data, m->rows, m->cols, DTYPE_BF16);
	TRY(cuda_sparse_expand(&c->base, m, dense));
	return c->base.unchecked.matmul(&c->base, y, tensor_cols(x, 0, m->cols), false, dense, true, false);
}

extern "C" enum status cuda_sparse_product(struct backend *backend, const struct cuda_sparse *m, struct tensor y, struct tensor x)
{
	struct cuda *c = cuda_begin(backend, "sparse_product", {y, x});
	if (x.dtype != DTYPE_BF16 || y.dtype != DTYPE_F32 || x.cols != m->words * CUDA_SPARSE_WORD || y.cols != m->rows ||
	    y.rows != x.rows || !cuda_chunked({x}))
		return cuda_refuse(c, STATUS_INVALID, "the matrix is [%lld, %lld], and rows of vectors are aligned to 16 bytes",
				   (long long)m->rows, (long long)m->cols);
	if (x.rows == 0) return STATUS_OK;
	if (x.rows == 1) return multiply_vector(c, m, y, x);
	if (x.rows <= 8) return multiply_wide<1>(c, m, y, x);
	if (x.rows <= 16) return multiply_wide<2>(c, m, y, x);
	if (x.rows <= CUDA_SPARSE_VECTORS) return multiply_wide<4>(c, m, y, x);
	return multiply_dense(c, m, y, x);
}

void cuda_tune_sparse(struct backend *backend, bool direct)
{
	((struct cuda *)backend)->sparse_direct = direct;
}
