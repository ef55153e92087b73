/* What zeros are worth in decoding on a GPU: products of pruned weights and 1 to 32 vectors by cuda/sparse.cu, beside the best of
 * what is there for the same weights dense, cuBLAS, any of cuBLASLt's first eight choices and, of one vector, an own kernel; at
 * the shapes of LLaMA-7B's and Llama-3-8B's linears. Every kind of product is compared with double precision before anything is
 * timed: a wrong one ends the program with status 4. Products are replayed as one graph, each of another copy of the weights, which
 * together have more bytes than an L2 cache; seconds are the median over batches. "gbs" is of the bytes of the weights alone,
 * "bound" how many times more of them are dense, and "copy" what a large copy on the device reaches in the same
 * run, read and written.
 *
 * Prints one JSON object. Usage: cuda_matvec [SCALE]; SCALE divides the sizes, for a machine without a GPU. */
#include <dlfcn.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/random.h"
#include "bench/cuda_bench.h"
#include "cuda/sparse.h"
#include "cuda/tuning.h"
#include "engine/compute/backend.h"
#include "engine/compute/half.h"
#include "engine/sparse/matvec.h"

enum { SPARSITIES = 3, WIDTHS = 6, CHOICES = 8, BATCHES = 5, MOST_SETS = 64, WRONG = 4 };
static const double sparsities[SPARSITIES] = {0.5, 0.6, 0.7};
static const int widths[WIDTHS] = {1, 2, 4, 8, 16, SPARSE_VECTORS};
static const size_t cache_bytes = (size_t)256 << 20; /* that the weights of one kind have at least: some times an L2 cache */

enum peer { CUBLAS, CUBLASLT, OWN, PEERS };
static const char *const peer_names[PEERS] = {"cublas", "cublaslt", "own"};

static int64_t scale = 1;
static double copy_rate; /* bytes/s */
static int checked;

static void *host_memory(size_t bytes)
{
	void *memory = calloc(bytes, 1);
	if (memory) return memory;
	fprintf(stderr, "no memory for %zu bytes\n", bytes);
	exit(1);
}

/* ---- cuBLAS, where it is there ----------------------------------------------------------------------------------------------- */

/* As in cublas_v2.h, whose enumerations are ints: besad is not built with it. */
enum { OP_N = 0, OP_T = 1, R_32F = 0, R_16BF = 14, COMPUTE_32F = 68, ANY_ALGORITHM = -1, CUBLAS_ROOM = 32 << 20 };
static int (*gemm)(void *handle, int, int, int m, int n, int k, const void *alpha, const void *a, int, int lda, const void *b, int,
		   int ldb, const void *beta, void *c, int, int ldc, int, int);
static void *cublas;

/* With room of its own: else each product that is recorded allots some and gives it back, in the graph, and that would be timed. */
static void open_cublas(const char *name)
{
	int (*create)(void **) = NULL, (*set_stream)(void *, void *) = NULL, (*set_workspace)(void *, void *, size_t) = NULL;
	void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL), *room;
	if (!library) return;
	*(void **)&create = dlsym(library, "cublasCreate_v2");
	*(void **)&set_stream = dlsym(library, "cublasSetStream_v2");
	*(void **)&set_workspace = dlsym(library, "cublasSetWorkspace_v2");
	*(void **)&gemm = dlsym(library, "cublasGemmEx");
	if (!create || !set_stream || !set_workspace || !gemm || create(&cublas)) {
		cublas = NULL;
		return;
	}
	check(backend->ops->alloc(backend, CUBLAS_ROOM, &room));
	if (set_stream(cublas, cuda_tune_stream(backend)) || set_workspace(cublas, room, CUBLAS_ROOM)) cublas = NULL;
}

static void find_cublas(void)
{
	static const char *const names[] = {"libcublas.so.13", "libcublas.so.12", "libcublas.so"};
	if (!strncmp(backend->device, "emulator", 8)) return;
	for (int i = 0; i < 3 && !cublas; i++)
		open_cublas(names[i]);
}

/* ---- the weights of a shape -------------------------------------------------------------------------------------------------- */

struct work {
	int64_t rows, cols, length; /* of a vector with zeros behind it */
	int sets;                   /* copies of the weights */
	uint16_t *dense, *x;        /* x [SPARSE_VECTORS, length] */
	double *exact, *size;       /* [SPARSE_VECTORS, rows]: products, and the sums of the magnitudes that they add */
	float *y;
	struct cuda_sparse sparse[MOST_SETS];
	struct tensor device_dense[MOST_SETS], device_x, device_y;
};

static struct tensor new_tensor(int64_t rows, int64_t cols, enum dtype type)
{
	struct tensor t = tensor_make(NULL, rows, cols, type);
	check(backend->ops->alloc(backend, tensor_bytes(&t), &t.data));
	return t;
}

static void begin(struct work *work, int64_t rows, int64_t cols, int sets)
{
	*work = (struct work){.rows = rows, .cols = cols, .length = matvec_length(cols), .sets = sets};
	work->dense = host_memory((size_t)(rows * cols) * sizeof *work->dense);
	work->x = host_memory((size_t)(SPARSE_VECTORS * work->length) * sizeof *work->x);
	work->exact = host_memory((size_t)(SPARSE_VECTORS * rows) * sizeof *work->exact);
	work->size = host_memory((size_t)(SPARSE_VECTORS * rows) * sizeof *work->size);
	work->y = host_memory((size_t)(SPARSE_VECTORS * rows) * sizeof *work->y);
	for (int64_t v = 0; v < SPARSE_VECTORS; v++)
		for (int64_t j = 0; j < cols; j++)
			work->x[v * work->length + j] =
				(uint16_t)(0x3f00 | (random_at((uint64_t)v + 1, (uint64_t)j) & 0x80ff)); /* ±0.5 … 2 */
	work->device_x = new_tensor(SPARSE_VECTORS, work->length, DTYPE_BF16);
	work->device_y = new_tensor(SPARSE_VECTORS, rows, DTYPE_F32);
	check(backend->ops->upload(backend, work->device_x.data, work->x, tensor_bytes(&work->device_x)));
}

static void end(struct work *work)
{
	for (int i = 0; i < work->sets; i++)
		backend->ops->release(backend, work->device_dense[i].data);
	backend->ops->release(backend, work->device_x.data);
	backend->ops->release(backend, work->device_y.data);
	free(work->dense);
	free(work->x);
	free(work->exact);
	free(work->size);
	free(work->y);
}

static void draw_weights(struct work *work, double sparsity)
{
	uint64_t seed = (uint64_t)(work->rows * 1000003 + work->cols) + (uint64_t)(sparsity * 10);
	for (int64_t i = 0; i < work->rows * work->cols; i++) {
		uint64_t number = random_at(seed, (uint64_t)i);
		bool zero = (double)(number >> 40) < sparsity * 0x1p24;
		work->dense[i] = zero ? 0 : (uint16_t)(0x3d00 | (number & 0x80ff));
	}
}

static void find_exact(struct work *work)
{
	double *x = host_memory((size_t)(work->cols * SPARSE_VECTORS) * sizeof *x); /* column by column */
	for (int64_t j = 0; j < work->cols; j++)
		for (int v = 0; v < SPARSE_VECTORS; v++)
			x[j * SPARSE_VECTORS + v] = (double)bf16_to_f32(work->x[v * work->length + j]);
	for (int64_t i = 0; i < work->rows; i++) {
		double sum[SPARSE_VECTORS] = {0}, size[SPARSE_VECTORS] = {0};
		for (int64_t j = 0; j < work->cols; j++) {
			double weight = (double)bf16_to_f32(work->dense[i * work->cols + j]);
			if (weight == 0) continue;
			for (int v = 0; v < SPARSE_VECTORS; v++) {
				sum[v] += weight * x[j * SPARSE_VECTORS + v];
				size[v] += fabs(weight * x[j * SPARSE_VECTORS + v]);
			}
		}
		for (int v = 0; v < SPARSE_VECTORS; v++) {
			work->exact[v * work->rows + i] = sum[v];
			work->size[v * work->rows + i] = size[v];
		}
	}
	free(x);
}

/* One is uploaded, the others are copies of it. */
static void upload_sparse(struct work *work)
{
	void *memory = matvec_allocate((size_t)sparse_memory(work->dense, work->rows, work->cols));
	if (!memory) exit(1);
	struct sparse_matrix packed = sparse_pack(work->dense, work->rows, work->cols, memory);
	check(cuda_sparse_upload(backend, &packed, &work->sparse[0]));
	for (int i = 1; i < work->sets; i++) {
		struct cuda_sparse *copy = &work->sparse[i];
		*copy = work->sparse[0];
		check(backend->ops->alloc(backend, (size_t)copy->bytes, &copy->memory));
		check(backend->ops->copy(backend, copy->memory, work->sparse[0].memory, (size_t)copy->bytes));
	}
	check(backend->ops->sync(backend));
	free(memory);
}

static void release_sparse(struct work *work)
{
	for (int i = 0; i < work->sets; i++)
		cuda_sparse_release(backend, &work->sparse[i]);
}

/* ---- ways to multiply -------------------------------------------------------------------------------------------------------- */

struct way {
	const char *name;
	enum status (*run)(const struct work *, int set, int vectors);
};

static struct tensor inputs(const struct work *work, int vectors)
{
	return tensor_cols(tensor_rows(work->device_x, 0, vectors), 0, work->cols);
}

static enum status run_sparse(const struct work *work, int set, int vectors)
{
	return cuda_sparse_product(backend, &work->sparse[set], tensor_rows(work->device_y, 0, vectors),
				   tensor_rows(work->device_x, 0, vectors));
}

static enum status run_cublas(const struct work *work, int set, int vectors)
{
	float one = 1, none = 0;
	int rows = (int)work->rows, cols = (int)work->cols;
	int status =
		gemm(cublas, OP_T, OP_N, rows, vectors, cols, &one, work->device_dense[set].data, R_16BF, cols, work->device_x.data,
		     R_16BF, (int)work->length, &none, work->device_y.data, R_32F, rows, COMPUTE_32F, ANY_ALGORITHM);
	return status ? error_set(&backend->error, STATUS_BACKEND, "cublasGemmEx: status %d", status) : STATUS_OK;
}

static enum status run_cublaslt(const struct work *work, int set, int vectors)
{
	return backend->ops->matmul(backend, tensor_rows(work->device_y, 0, vectors), inputs(work, vectors), false,
				    work->device_dense[set], true, false);
}

static enum status run_own(const struct work *work, int set, int vectors)
{
	return cuda_dense_product(backend, tensor_rows(work->device_y, 0, vectors), inputs(work, vectors), work->device_dense[set]);
}

static const struct way sparse_way = {"sparse", run_sparse};
static const struct way peers[PEERS] = {{"cublas", run_cublas}, {"cublaslt", run_cublaslt}, {"own", run_own}};

/* Products of set `set` against double precision; sums of so many terms in fp32, in any order, are off by no more. */
static void check_way(struct work *work, const struct way *way, int set, int vectors)
{
	size_t bytes = (size_t)(vectors * work->rows) * sizeof *work->y;
	memset(work->y, 0xff, bytes); /* NaN */
	check(backend->ops->upload(backend, work->device_y.data, work->y, bytes));
	check(way->run(work, set, vectors));
	check(backend->ops->download(backend, work->y, work->device_y.data, bytes));
	for (int64_t i = 0; i < vectors * work->rows; i++) {
		double error = fabs((double)work->y[i] - work->exact[i]);
		if (error <= (double)(work->cols + 8) * 0x1p-24 * work->size[i]) continue;
		fprintf(stderr, "%s, [%lld, %lld], %d vectors: element %lld is %.9g, not %.9g\n", way->name, (long long)work->rows,
			(long long)work->cols, vectors, (long long)i, (double)work->y[i], work->exact[i]);
		exit(WRONG);
	}
	checked++;
}

static bool record(const struct work *work, const struct way *way, int vectors, int products, struct recording **ret)
{
	enum status status = backend->ops->record_begin(backend);
	if (status != STATUS_OK) return false;
	for (int i = 0; i < products && status == STATUS_OK; i++)
		status = way->run(work, i % work->sets, vectors);
	enum status ended = backend->ops->record_end(backend, ret);
	if (status == STATUS_OK && ended == STATUS_OK) return true;
	if (ended == STATUS_OK) backend->ops->release_recording(backend, *ret);
	fprintf(stderr, "%s cannot be recorded: %s\n", way->name, backend->error.message);
	return false;
}

/* Seconds of a product, or NaN where it cannot be recorded. */
static double time_way(const struct work *work, const struct way *way, int vectors)
{
	struct recording *recording;
	double batch[BATCHES];
	int products = work->sets * (scale > 1 ? 1 : 2), replays = 1, batches = scale > 1 ? 1 : BATCHES;
	check(way->run(work, 0, vectors)); /* so that memory lies ready, of which none can be asked for meanwhile */
	if (!record(work, way, vectors, products, &recording)) return NAN;
	for (int b = -1; b < batches; b++) {
		check(backend->ops->sync(backend));
		double start = now();
		for (int r = 0; r < replays; r++)
			check(backend->ops->replay(backend, recording));
		check(backend->ops->sync(backend));
		double each = (now() - start) / replays;
		if (b >= 0)
			batch[b] = each / products;
		else
			replays = each > 0.01 || scale > 1 ? 1 : (int)(0.01 / each) + 1;
	}
	backend->ops->release_recording(backend, recording);
	qsort(batch, (size_t)batches, sizeof *batch, ascending);
	return batch[batches / 2];
}

/* ---- a shape ----------------------------------------------------------------------------------------------------------------- */

struct times {
	double dense[WIDTHS][PEERS], sparse[SPARSITIES][WIDTHS]; /* seconds */
	int choice[WIDTHS];                                      /* of cuBLASLt's, from 1 on */
	double bytes[SPARSITIES];
};

/* The best of cuBLASLt's choices that are there and right. */
static void time_choices(struct work *work, int w, struct times *ret)
{
	for (int choice = 0; choice < CHOICES; choice++) {
		cuda_tune_choice(backend, choice);
		check(run_cublaslt(work, 0, widths[w]));
		if (!cuda_tune_found(backend)) continue; /* there are fewer, or the library refuses this one when it is called */
		check_way(work, &peers[CUBLASLT], 0, widths[w]);
		double seconds = time_way(work, &peers[CUBLASLT], widths[w]);
		if (seconds < ret->dense[w][CUBLASLT] || isnan(ret->dense[w][CUBLASLT])) {
			ret->dense[w][CUBLASLT] = seconds;
			ret->choice[w] = choice + 1;
		}
	}
	cuda_tune_choice(backend, 0);
}

/* Dense products of the same weights as at the first sparsity. */
static void time_dense(struct work *work, struct times *ret)
{
	for (int i = 0; i < work->sets; i++) {
		work->device_dense[i] = new_tensor(work->rows, work->cols, DTYPE_BF16);
		check(cuda_sparse_expand(backend, &work->sparse[i], work->device_dense[i]));
	}
	for (int w = 0; w < WIDTHS; w++) {
		for (int peer = 0; peer < PEERS; peer++)
			ret->dense[w][peer] = NAN;
		time_choices(work, w, ret);
		if (cublas) {
			check_way(work, &peers[CUBLAS], work->sets - 1, widths[w]);
			ret->dense[w][CUBLAS] = time_way(work, &peers[CUBLAS], widths[w]);
		}
		if (widths[w] > 1) continue;
		check_way(work, &peers[OWN], work->sets - 1, 1);
		ret->dense[w][OWN] = time_way(work, &peers[OWN], 1);
	}
}

static void print_width(const struct work *work, const struct times *times, int w)
{
	static const char *separator = "";
	double dense_bytes = (double)(work->rows * work->cols) * 2, best = INFINITY;
	int which = -1;
	printf("%s\n  {\"rows\": %lld, \"cols\": %lld, \"vectors\": %d, \"sets\": %d, \"dense\": {", separator,
	       (long long)work->rows, (long long)work->cols, widths[w], work->sets);
	separator = ",";
	for (int peer = 0; peer < PEERS; peer++) {
		double seconds = times->dense[w][peer];
		if (isnan(seconds)) continue;
		printf("\"%s\": {\"us\": %.3f, \"gbs\": %.1f}, ", peer_names[peer], 1e6 * seconds, dense_bytes / seconds * 1e-9);
		if (seconds < best) {
			best = seconds;
			which = peer;
		}
	}
	printf("\"choice\": %d, \"best\": \"%s\"}, \"sparse\": {", times->choice[w], which < 0 ? "" : peer_names[which]);
	for (int s = 0; s < SPARSITIES; s++) {
		double seconds = times->sparse[s][w];
		printf("%s\"%.1f\": {\"us\": %.3f, \"gbs\": %.1f, \"of_copy\": %.3f, \"bound\": %.3f", s ? ", " : "", sparsities[s],
		       1e6 * seconds, times->bytes[s] / seconds * 1e-9, times->bytes[s] / seconds / copy_rate,
		       dense_bytes / times->bytes[s]);
		if (which >= 0) printf(", \"speedup\": %.3f", best / seconds);
		printf("}");
	}
	printf("}}");
	fflush(stdout);
}

static double time_sparse(const struct work *work, int vectors)
{
	double seconds = time_way(work, &sparse_way, vectors);
	if (!isnan(seconds)) return seconds;
	fprintf(stderr, "products cannot be recorded\n");
	exit(1);
}

static int sets_of(int64_t rows, int64_t cols)
{
	double least = (double)(rows * cols) * 2 * 0.38; /* bytes at 70 % */
	int sets = scale > 1 ? 2 : (int)((double)cache_bytes / least) + 1;
	return sets < 2 ? 2 : sets > MOST_SETS ? MOST_SETS : sets;
}

static void shape(int64_t rows, int64_t cols)
{
	static struct work work;
	struct times times = {0};
	begin(&work, rows, cols, sets_of(rows, cols));
	for (int s = 0; s < SPARSITIES; s++) {
		draw_weights(&work, sparsities[s]);
		find_exact(&work);
		upload_sparse(&work);
		times.bytes[s] = (double)work.sparse[0].bytes;
		for (int w = 0; w < WIDTHS; w++)
			check_way(&work, &sparse_way, w % work.sets, widths[w]);
		if (s == 0) time_dense(&work, &times);
		for (int w = 0; w < WIDTHS; w++)
			times.sparse[s][w] = time_sparse(&work, widths[w]);
		release_sparse(&work);
	}
	for (int w = 0; w < WIDTHS; w++)
		print_width(&work, &times, w);
	end(&work);
}

/* Shapes that fill no step or word, and numbers of vectors between those that are timed. */
static void check_odd_shapes(void)
{
	static const int64_t shapes[][2] = {{1, 1}, {17, 511}, {33, 513}, {70, 1100}, {5, 8264}};
	static const int vectors[] = {1, 2, 3, 9, 17, 31};
	static struct work work;
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		begin(&work, shapes[i][0], shapes[i][1], 1);
		for (int s = 0; s < SPARSITIES; s++) {
			draw_weights(&work, s == 0 ? 0 : s == 1 ? 0.98 : 0.5); /* whole rows, and empty ones */
			find_exact(&work);
			upload_sparse(&work);
			for (size_t v = 0; v < sizeof vectors / sizeof *vectors; v++)
				check_way(&work, &sparse_way, 0, vectors[v]);
			release_sparse(&work);
		}
		end(&work);
	}
}

static void measure_copy(void)
{
	size_t bytes = ((size_t)1 << 30) / (size_t)(scale * scale) / 256 * 256;
	struct tensor from = new_tensor(1, (int64_t)bytes, DTYPE_U8), to = new_tensor(1, (int64_t)bytes, DTYPE_U8);
	double batch[BATCHES];
	check(backend->ops->zero(backend, from.data, bytes));
	for (int b = -1; b < BATCHES; b++) {
		check(backend->ops->sync(backend));
		double start = now();
		for (int i = 0; i < 8; i++)
			check(backend->ops->copy(backend, to.data, from.data, bytes));
		check(backend->ops->sync(backend));
		if (b >= 0) batch[b] = (now() - start) / 8;
	}
	qsort(batch, BATCHES, sizeof *batch, ascending);
	copy_rate = 2 * (double)bytes / batch[BATCHES / 2];
	backend->ops->release(backend, from.data);
	backend->ops->release(backend, to.data);
}

int main(int argc, char **argv)
{
	struct error err;
	scale = argc > 1 && atoi(argv[1]) > 1 ? atoi(argv[1]) : 1;
	if (backend_cuda_create(0, &backend, &err)) {
		fprintf(stderr, "%s\n", err.message);
		return 1;
	}
	find_cublas();
	check_odd_shapes();
	measure_copy();
	int64_t hidden = 4096 / scale, inner = 11008 / scale / 8 * 8, wide = 14336 / scale;
	printf("{\"device\": \"%s\", \"copy\": {\"gbs\": %.1f}, \"cublas\": %s, \"products\": [", backend->device, copy_rate * 1e-9,
	       cublas ? "true" : "false");
	shape(hidden, hidden);
	shape(hidden, inner);
	shape(inner, hidden);
	shape(wide, hidden);
	printf("\n ],\n \"checked\": %d}\n", checked);
	backend_destroy(backend);
	return 0;
}
