/* Products with lists of values and distances (cuda/sparse.h).
 *
 * A block fills the windows with x, and its warps then take its rows in turn, each from its list's first step to the last, some
 * steps ahead in registers, a row's first ones while the row before is multiplied. So all that is waited for is that bytes come. */
#include "cuda/launch.cuh"
#include "cuda/sparse.h"

enum {
	LANES = CUDA_SPARSE_LANES,
	STEP = CUDA_SPARSE_STEP,
	VALUES_BYTES = 2 * CUDA_SPARSE_STEP_VALUES, /* of a step, where the distances begin */
	DOWN = 128,                                 /* in windows, of one vector or two, from a column to the next */
	AHEAD = CUDA_SPARSE_HEAD,
	THREADS = 1024, /* of the one block of a multiprocessor */
	TURNS = 2       /* of vectors; more are multiplied by a dense matrix */
};

/* What kernels see of a matrix. */
struct packed {
	const unsigned char *steps;
	const uint16_t *places;
	const uint32_t *tails;
	int rows, head, height;
	int64_t length; /* of a vector */
	int bases[LANES];
};

static __device__ __forceinline__ int lane_of()
{
	return (int)threadIdx.x % 32;
}

/* ---- windows ----------------------------------------------------------------------------------------------------------------- */

/* Bytes of a column: bf16 of V vectors, but one alone is F32. */
template <int V> constexpr int COLUMN = V == 1 ? 4 : 2 * V;

/* Writes column j of eight, of which there are two in each word of `in`, of G vectors. */
template <int V, int G> static __device__ __forceinline__ void write_column(const uint4 (&in)[G], int j, unsigned char *to)
{
	uint32_t bits[G];
#pragma unroll
	for (int v = 0; v < G; v++) {
		uint32_t both = j < 2 ? in[v].x : j < 4 ? in[v].y : j < 6 ? in[v].z : in[v].w;
		bits[v] = j % 2 ? both >> 16 : both & 0xffffu;
	}
	if constexpr (V == 1)
		*(uint32_t *)to = bits[0] << 16;
	else if constexpr (V == 2)
		*(uint32_t *)to = bits[0] | bits[1] << 16;
	else
		*(uint2 *)to = make_uint2(bits[0] | bits[1] << 16, bits[2] | bits[3] << 16);
}

/* Eight columns of a window, for a lane. */
struct piece {
	int window, first; /* row of the windows */
};

/* As many windows as have all banks make a tile, and as many rows of them as a warp fills at once: so hardly two lanes write to the
 * same bank, and the more lanes read from the same line. */
template <int V> static __device__ __forceinline__ piece piece_of(int tile)
{
	constexpr int WINDOWS = DOWN / COLUMN<V>, DEEP = LANES / WINDOWS;
	return {tile % DEEP * WINDOWS + lane_of() % WINDOWS, (tile / DEEP * DEEP + lane_of() / WINDOWS) * 8};
}

/* Of how many vectors a lane reads a piece, and in how many tiles, before it writes them. */
template <int V> constexpr int GROUP = V < 4 ? V : 4;
template <int V> constexpr int AT_ONCE = 4 / GROUP<V>;

static __device__ __forceinline__ int tiles_per_turn()
{
	return (int)blockDim.x / 32;
}

/* Of the vectors from `group` on, the columns of the warp's tiles from `tile` on. */
template <int V>
static __device__ __forceinline__ void read_pieces(const packed &m, const uint16_t *__restrict__ x, int64_t stride, int vectors,
						   int tile, int group, uint4 (&ret)[AT_ONCE<V>][GROUP<V>])
{
#pragma unroll
	for (int i = 0; i < AT_ONCE<V>; i++) {
		piece p = piece_of<V>(tile + i * tiles_per_turn());
		int column = m.bases[p.window] + p.first;
#pragma unroll
		for (int v = 0; v < GROUP<V>; v++) {
			bool there = group + v < vectors && column < m.length && p.first < m.height;
			ret[i][v] = make_uint4(0, 0, 0, 0);
			load_chunk(ret[i][v], x + (group + v) * stride + column, there);
		}
	}
}

template <int V>
static __device__ __forceinline__ void write_pieces(const packed &m, const uint4 (&in)[AT_ONCE<V>][GROUP<V>], int tile, int group,
						    unsigned char *windows)
{
#pragma unroll
	for (int i = 0; i < AT_ONCE<V>; i++) {
		piece p = piece_of<V>(tile + i * tiles_per_turn());
		unsigned char *to = windows + (p.first * LANES + p.window) * COLUMN<V> + 2 * group;
		if (p.first >= m.height) continue;
#pragma unroll
		for (int j = 0; j < 8; j++)
			write_column<V>(in[i], j, to + j * LANES * COLUMN<V>);
	}
}

/* windows [height, LANES] of columns; `in` is what read_pieces found for the warp's first tiles and group. */
template <int V>
static __device__ __forceinline__ void fill_windows(const packed &m, const uint16_t *__restrict__ x, int64_t stride, int vectors,
						    uint4 (&in)[AT_ONCE<V>][GROUP<V>], unsigned char *windows)
{
	constexpr int DEEP = LANES * COLUMN<V> / DOWN;
	int tiles = (m.height + 8 * DEEP - 1) / (8 * DEEP) * DEEP, tile = (int)threadIdx.x / 32, group = 0;
	write_pieces<V>(m, in, tile, group, windows);
	for (;;) {
		group += GROUP<V>;
		if (group == V) {
			group = 0;
			tile += AT_ONCE<V> * tiles_per_turn();
		}
		if (tile >= tiles) break;
		read_pieces<V>(m, x, stride, vectors, tile, group, in);
		write_pieces<V>(m, in, tile, group, windows);
	}
}

/* sum += weight · the column of each vector, OFFSET bytes behind an address. */
template <int V, int OFFSET> static __device__ __forceinline__ void add_column(float (&sum)[V], float weight, uint32_t address)
{
	uint32_t words[COLUMN<V> / 4];
	load_shared<OFFSET>(words, address);
	if constexpr (V == 1) {
		sum[0] += weight * __uint_as_float(words[0]);
	} else {
#pragma unroll
		for (int i = 0; i < V / 2; i++) {
			sum[2 * i] += weight * __uint_as_float(words[i] << 16);
			sum[2 * i + 1] += weight * __uint_as_float(words[i] & 0xffff0000u);
		}
	}
}

/* ---- steps ------------------------------------------------------------------------------------------------------------------- */

/* A lane's part of a step. */
struct part {
	uint2 values;
	uint32_t distances; /* 16 bits */
};

/* Where a lane finds its parts of a step and those behind it. */
struct parts {
	const unsigned char *values, *distances;
};

static __device__ __forceinline__ parts parts_from(const packed &m, int64_t step)
{
	const unsigned char *at = m.steps + step * CUDA_SPARSE_STEP_BYTES;
	return {at + lane_of() * 8, at + VALUES_BYTES + lane_of() * 2};
}

template <int STEPS_ON> static __device__ __forceinline__ void read_part(part &ret, const parts &from, bool valid)
{
	load_streamed<STEPS_ON * CUDA_SPARSE_STEP_BYTES>(ret.values, from.values, valid);
	load_streamed<STEPS_ON * CUDA_SPARSE_STEP_BYTES>(ret.distances, from.distances, valid);
}

/* The first n parts. */
template <int S = 0> static __device__ __forceinline__ void read_parts(part (&ret)[AHEAD], const parts &from, int n)
{
	if constexpr (S < AHEAD) {
		read_part<S>(ret[S], from, S < n);
		read_parts<S + 1>(ret, from, n);
	}
}

/* `at` is the address where the part's first value would have its column if its distance were 1 and this were the first of the
 * parts that are unrolled; then the same of the part behind it. Distances are bytes of a word: four of them times 0 or DOWN, added
 * up, are one instruction. */
template <int V, int S> static __device__ __forceinline__ void add_part(float (&sum)[V], const part &p, uint32_t &at)
{
	constexpr int SHIFT = V == 8 ? 2 : V == 4 ? 1 : 0, NEXT = LANES * COLUMN<V>, HERE = S * STEP * NEXT;
	constexpr uint32_t MASK = 0x0f0fu << SHIFT, ONE = DOWN, BOTH = DOWN | DOWN << 8;
	uint32_t low = p.distances << SHIFT & MASK, high = p.distances >> (4 - SHIFT) & MASK;
	uint32_t second = __dp4a(low, BOTH, at), last = __dp4a(high, BOTH, second);
	add_column<V, HERE>(sum, __uint_as_float(p.values.x << 16), __dp4a(low, ONE, at));
	add_column<V, HERE + NEXT>(sum, __uint_as_float(p.values.x & 0xffff0000u), second);
	add_column<V, HERE + 2 * NEXT>(sum, __uint_as_float(p.values.y << 16), __dp4a(high, ONE, second));
	add_column<V, HERE + 3 * NEXT>(sum, __uint_as_float(p.values.y & 0xffff0000u), last);
	at = last;
}

/* Adds the first `steps` parts, all of them where ALL, and reads the first `then` ones of those that come next in their place. */
template <bool ALL, int V, int S = 0>
static __device__ __forceinline__ void add_parts(float (&sum)[V], part (&ahead)[AHEAD], uint32_t &at, int steps, const parts &next,
						 int then)
{
	if constexpr (S < AHEAD) {
		if (ALL || S < steps) add_part<V, S>(sum, ahead[S], at);
		read_part<S>(ahead[S], next, S < then);
		add_parts<ALL, V, S + 1>(sum, ahead, at, steps, next, then);
	}
}

/* y [vectors, rows], vectors of V at most. A block has `rows_each` rows, and the first `rows_left` blocks have one more. */
template <int V>
__global__ void __launch_bounds__(THREADS, 1) product_kernel(packed m, const uint16_t *__restrict__ x, int64_t stride, int vectors,
							     float *y, int64_t y_stride, int rows_each, int rows_left)
{
	SHARED_MEMORY(unsigned char, windows);
	int block = (int)blockIdx.x, lane = lane_of();
	int row = block * rows_each + (block < rows_left ? block : rows_left), end = row + rows_each + (block < rows_left);
	uint32_t place = 0, tail = 0, tail_end = 0;
	part ahead[AHEAD] = {};
	uint4 columns[AT_ONCE<V>][GROUP<V>];

	row += (int)threadIdx.x / 32;
	if (row < end) {
		read_parts(ahead, parts_from(m, (int64_t)row * m.head), m.head);
		place = m.places[row * (int64_t)LANES + lane];
		tail = m.tails[row];
		tail_end = m.tails[row + 1];
	}
	read_pieces<V>(m, x, stride, vectors, (int)threadIdx.x / 32, 0, columns);
	fill_windows<V>(m, x, stride, vectors, columns, windows);
	__syncthreads();
	while (row < end) {
		int next_row = row + THREADS / 32, steps = m.head;
		uint32_t at = shared_address(windows) + place * COLUMN<V>, next_tail = 0, next_tail_end = 0;
		float sum[V] = {};
		if (next_row < end) {
			place = m.places[next_row * (int64_t)LANES + lane];
			next_tail = m.tails[next_row];
			next_tail_end = m.tails[next_row + 1];
		}
		for (;;) {
			bool more = tail < tail_end;
			int then = more ? (int)index_min(tail_end - tail, AHEAD) : next_row < end ? m.head : 0;
			parts next = parts_from(m, more ? (int64_t)tail : (int64_t)next_row * m.head);
			if (steps == AHEAD)
				add_parts<true>(sum, ahead, at, steps, next, then);
			else
				add_parts<false>(sum, ahead, at, steps, next, then);
			if (!more) break;
			at += (uint32_t)(steps * STEP * LANES * COLUMN<V>);
			steps = then;
			tail += (uint32_t)then;
		}
#pragma unroll
		for (int v = 0; v < V; v++) {
			float all = warp_reduce(sum[v], plus{});
			if (lane == v && v < vectors) y[v * y_stride + row] = all;
		}
		row = next_row;
		tail = next_tail;
		tail_end = next_tail_end;
	}
}

/* ---- dense again ------------------------------------------------------------------------------------------------------------- */

enum { EXPAND_WARPS = 4, EXPAND_STEPS = 4, SPAN = 4096 };

/* A warp for each row, which is put together in shared memory, SPAN columns at a time. `wide`: chunks of 8 columns are aligned. */
__global__ void __launch_bounds__(32 * EXPAND_WARPS) expand_kernel(packed m, uint16_t *dense, int64_t stride, int cols, bool wide)
{
	SHARED_MEMORY(uint16_t, memory);
	int64_t row = (int64_t)blockIdx.x * EXPAND_WARPS + threadIdx.x / 32;
	uint16_t *span = memory + threadIdx.x / 32 * SPAN;
	if (row >= m.rows) return;
	uint32_t place = m.places[row * LANES + lane_of()], head = (uint32_t)m.head, tail = m.tails[row];
	uint32_t steps = head + m.tails[row + 1] - tail;
	for (int first = 0; first < cols; first += SPAN) {
		int width = (int)index_min(cols - first, SPAN), column = m.bases[place % LANES] + (int)(place / LANES) - first;
		for (int i = lane_of(); i < SPAN / 8; i += 32)
			((uint4 *)span)[i] = make_uint4(0, 0, 0, 0);
		__syncwarp();
		for (uint32_t s = 0; s < steps; s += EXPAND_STEPS) {
			part parts[EXPAND_STEPS] = {};
#pragma unroll
			for (uint32_t i = 0; i < EXPAND_STEPS; i++) {
				int64_t step = s + i < head ? row * head + s + i : (int64_t)tail + s + i - head;
				read_part<0>(parts[i], parts_from(m, step), s + i < steps);
			}
#pragma unroll
			for (int i = 0; i < EXPAND_STEPS * STEP; i++) {
				const part &p = parts[i / STEP];
				uint16_t value = (uint16_t)((i % STEP < 2 ? p.values.x : p.values.y) >> i % 2 * 16);
				column += (int)(p.distances >> (i % 2 * 8 + i % STEP / 2 * 4) & 15);
				if (value && column >= 0 && column < width) span[column] = value;
				column++;
			}
		}
		__syncwarp();
		uint16_t *to = dense + row * stride + first;
		if (wide)
			for (int i = lane_of(); i < width / 8; i += 32)
				((uint4 *)to)[i] = ((const uint4 *)span)[i];
		for (int i = (wide ? width / 8 * 8 : 0) + lane_of(); i < width; i += 32)
			to[i] = span[i];
		__syncwarp();
	}
}

/* ---- host side --------------------------------------------------------------------------------------------------------------- */

static packed packed_of(const struct cuda_sparse *m)
{
	packed ret;
	ret.steps = (const unsigned char *)m->memory;
	ret.places = (const uint16_t *)(ret.steps + m->steps * CUDA_SPARSE_STEP_BYTES);
	ret.tails = (const uint32_t *)(ret.places + m->rows * LANES);
	ret.rows = (int)m->rows;
	ret.head = (int)m->head;
	ret.height = (int)m->height;
	ret.length = m->words * CUDA_SPARSE_WORD;
	memcpy(ret.bases, m->bases, sizeof ret.bases);
	return ret;
}

static size_t windows_bytes(const struct cuda_sparse *m, int vectors)
{
	return (size_t)(m->height * LANES) * (size_t)(vectors <= 2 ? COLUMN<2> : vectors <= 4 ? COLUMN<4> : COLUMN<8>);
}

template <int V>
static enum status launch(struct cuda *c, const struct cuda_sparse *m, const struct tensor &y, const struct tensor &x)
{
	int64_t blocks = index_min(c->processors, m->rows);
	return LAUNCH(c, product_kernel<V>, dim3((unsigned)blocks), dim3(THREADS), windows_bytes(m, V), packed_of(m),
		      (const uint16_t *)x.data, x.stride, (int)x.rows, (float *)y.data, y.stride, (int)(m->rows / blocks),
		      (int)(m->rows % blocks));
}

extern "C" enum status cuda_sparse_expand(struct backend *backend, const struct cuda_sparse *m, struct tensor dense)
{
	struct cuda *c = cuda_begin(backend, "sparse_expand", {dense});
	if (dense.rows != m->rows || dense.cols != m->cols || dense.dtype != DTYPE_BF16)
		return cuda_refuse(c, STATUS_INVALID, "the matrix is [%lld, %lld]", (long long)m->rows, (long long)m->cols);
	bool wide = dense.stride % 8 == 0 && (uintptr_t)dense.data % 16 == 0;
	return LAUNCH(c, expand_kernel, dim3((unsigned)index_ceil_div(m->rows, EXPAND_WARPS)), dim3(32 * EXPAND_WARPS),
		      EXPAND_WARPS * SPAN * sizeof(uint16_t), packed_of(m), (uint16_t *)dense.data, dense.stride, (int)m->cols,
		      wide);
}

static enum status multiply_dense(struct cuda *c, const struct cuda_sparse *m, const struct tensor &y, const struct tensor &x)
{
	struct scratch memory(c);
	TRY(memory.allocate((size_t)(m->rows * m->cols) * sizeof(uint16_t)));
	struct tensor dense = tensor_make(memory.data, m->rows, m->cols, DTYPE_BF16);
	TRY(cuda_sparse_expand(&c->base, m, dense));
	return c->base.unchecked.matmul(&c->base, y, tensor_cols(x, 0, m->cols), false, dense, true, false);
}

static enum status multiply(struct cuda *c, const struct cuda_sparse *m, const struct tensor &y, const struct tensor &x)
{
	if (x.rows > 4) return launch<8>(c, m, y, x);
	if (x.rows > 2) return launch<4>(c, m, y, x);
	if (x.rows > 1) return launch<2>(c, m, y, x);
	return launch<1>(c, m, y, x);
}

extern "C" enum status cuda_sparse_product(struct backend *backend, const struct cuda_sparse *m, struct tensor y, struct tensor x)
{
	struct cuda *c = cuda_begin(backend, "sparse_product", {y, x});
	if (x.dtype != DTYPE_BF16 || y.dtype != DTYPE_F32 || x.cols != m->words * CUDA_SPARSE_WORD || y.cols != m->rows ||
	    y.rows != x.rows || !cuda_chunked({x}))
		return cuda_refuse(c, STATUS_INVALID, "the matrix is [%lld, %lld], and rows of vectors are aligned to 16 bytes",
				   (long long)m->rows, (long long)m->cols);
	int64_t most = CUDA_SPARSE_VECTORS;
	while (most > 1 && windows_bytes(m, (int)most) > c->shared_memory)
		most /= 2;
	if (x.rows > index_min(CUDA_SPARSE_VECTORS, TURNS * most) || windows_bytes(m, 1) > c->shared_memory)
		return multiply_dense(c, m, y, x);
	for (int64_t first = 0; first < x.rows; first += most) {
		int64_t rows = index_min(most, x.rows - first);
		TRY(multiply(c, m, tensor_rows(y, first, rows), tensor_rows(x, first, rows)));
	}
	return STATUS_OK;
}

extern "C" int64_t cuda_sparse_room(struct backend *backend)
{
	return (int64_t)((struct cuda *)backend)->shared_memory;
}
