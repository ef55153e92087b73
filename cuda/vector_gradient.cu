/* The gradients of norms' weights and biases, and column sums: sums over CHUNK vectors each, these added in order. */
#include "cuda/columns.cuh"

enum { CHUNK = 256 };

/* A norm's input, and what turns it into x̂; without data for plain sums. */
struct normed {
	view x, stats;
	int groups;
};

/* partial [chunks, 2, cols] double: Σ dy·x̂, where there is an x, and Σ dy over CHUNK vectors; vector v is group v % groups of
 * row v / groups. Block (32, ACROSS): 32·N columns. */
template <int N>
__global__ void __launch_bounds__(32 * ACROSS) vectors_kernel(double *partial, view dy, normed norm, int64_t vectors, int64_t cols)
{
	__shared__ double sums[2][ACROSS][32 * N];
	int64_t col = ((int64_t)blockIdx.y * 32 + threadIdx.x) * N;
	int64_t first = (int64_t)blockIdx.x * CHUNK, end = index_min(vectors, first + CHUNK);
	double found[2][N] = {};
	if (col < cols)
		for (int64_t vector = first + threadIdx.y; vector < end; vector += ACROSS) {
			int64_t row = vector / norm.groups, group = vector % norm.groups;
			float d[N], v[N];
			load<N>(dy, row, group * cols + col, d);
#pragma unroll
			for (int j = 0; j < N; j++)
				found[1][j] += (double)d[j];
			if (!norm.x.data) continue;
			const float *pair = (const float *)norm.stats.data + row * norm.stats.stride + 2 * group;
			load<N>(norm.x, row, group * cols + col, v);
#pragma unroll
			for (int j = 0; j < N; j++)
				found[0][j] += (double)(d[j] * ((v[j] - pair[0]) * pair[1]));
		}
	store_column_sums<2, N>(partial, sums, found, cols);
}

/* Either output may be NULL. */
__global__ void __launch_bounds__(256)
	add_vectors_kernel(float *products, float *sums, const double *partial, int64_t chunks, int64_t cols)
{
	int64_t col = (int64_t)blockIdx.x * 256 + threadIdx.x;
	double product = 0, sum = 0;
	if (col >= cols) return;
	for (int64_t i = 0; i < chunks; i++) {
		product += partial[2 * i * cols + col];
		sum += partial[(2 * i + 1) * cols + col];
	}
	if (products) products[col] = (float)product;
	if (sums) sums[col] = (float)sum;
}

static enum status add_up(struct cuda *c, float *products, float *sums, const struct tensor &dy, const normed &norm, bool chunked)
{
	int64_t cols = dy.cols / norm.groups, vectors = dy.rows * norm.groups, chunks = index_ceil_div(vectors, CHUNK);
	bool wide = chunked && cols % 8 == 0;
	dim3 grid((unsigned)chunks, (unsigned)index_ceil_div(cols, wide ? 256 : 32)), block(32, ACROSS);
	struct scratch partial(c);
	if (cols == 0) return STATUS_OK;
	TRY(partial.allocate((size_t)(2 * chunks * cols) * sizeof(double)));
	if (chunks && wide)
		TRY(LAUNCH(c, vectors_kernel<8>, grid, block, 0, partial.as<double>(), view_of(dy), norm, vectors, cols));
	else if (chunks)
		TRY(LAUNCH(c, vectors_kernel<1>, grid, block, 0, partial.as<double>(), view_of(dy), norm, vectors, cols));
	return LAUNCH(c, add_vectors_kernel, dim3((unsigned)index_ceil_div(cols, 256)), dim3(256), 0, products, sums,
		      partial.as<double>(), chunks, cols);
}

static enum status norm_gradient(struct backend *backend, const struct norm *norm, struct tensor dweight, struct tensor dbias,
				 struct tensor dy, struct tensor x, struct tensor stats)
{
	struct cuda *c = cuda_begin(backend, "norm_gradient", {dweight, dbias, dy, x});
	return add_up(c, (float *)dweight.data, (float *)dbias.data, dy, normed{view_of(x), view_of(stats), norm->groups},
		      cuda_chunked({dy, x}));
}

static enum status column_sums(struct backend *backend, struct tensor sums, struct tensor x)
{
	struct cuda *c = cuda_begin(backend, "column_sums", {sums, x});
	return add_up(c, NULL, (float *)sums.data, x, normed{{}, {}, 1}, cuda_chunked({x}));
}

void cuda_vector_gradient_operations(struct backend_ops *ops)
{
	ops->norm_gradient = norm_gradient;
	ops->column_sums = column_sums;
}
