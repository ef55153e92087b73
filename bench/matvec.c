/* What zeros are worth in decoding, on this processor: matvec [ROWS COLS [MATRICES [THREADS]]]. Products of MATRICES matrices and one vector
 * each, one after the other, so that together they do not fit into any cache: dense, by besad's own kernel and by the CPU backend's matmul
 * (oneDNN), and sparse, at three sparsities. All ways take turns, and of each matrix the best of many rounds counts. By default 16 matrices of
 * 4096 × 4096 (512 MiB of bf16), and one thread.
 *
 * Prints {"read_gbps", "dense": {"own": {"us", "gbps"}, "onednn": {…}}, "sparse": {"0.5": {"us", "gbps", "speedup", "bound"}, …}}: per matrix;
 * "read_gbps" is what reading memory and adding it up reaches in the same run, "bound" the bytes of a dense matrix by those of the packed one,
 * and "speedup" is against the faster dense one. */
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/random.h"
#include "engine/compute/backend.h"
#include "engine/sparse/matvec.h"

enum { ROUNDS = 15, SPARSITIES = 3, ARENA = 64 << 20 };
static const double sparsities[SPARSITIES] = {0.5, 0.6, 0.7};

static void check(enum status status, const struct error *err)
{
	if (status == STATUS_OK) return;
	fprintf(stderr, "%s\n", err->message);
	exit(1);
}

static void *allocate(size_t bytes)
{
	void *memory = matvec_allocate(bytes);
	if (memory) return memory;
	fprintf(stderr, "no memory for %zu bytes\n", bytes);
	exit(1);
}

struct work {
	int64_t rows, cols;
	int matrices, threads;
	uint16_t **dense, *x;
	struct sparse_matrix *sparse[SPARSITIES];
	float *y;
	struct backend *backend;
};

/* Weights of magnitudes about 1, of which `sparsity` are zero. */
static void fill(const struct work *work, double sparsity, uint64_t seed, uint16_t *ret)
{
#pragma omp parallel for num_threads(work->threads)
	for (int64_t i = 0; i < work->rows; i++)
		for (int64_t j = 0; j < work->cols; j++) {
			uint64_t number = random_at(seed, (uint64_t)(i * work->cols + j));
			bool zero = (double)(number >> 40) < sparsity * 0x1p24;
			ret[i * work->cols + j] = zero ? 0 : (uint16_t)(0x3f00 | (number & 0x80ff));
		}
}

/* Packs all matrices with zeros, those of one sparsity behind each other. */
static void pack(struct work *work, int s, uint16_t *masked)
{
	char *memory = NULL;
	size_t room = 0;
	work->sparse[s] = allocate((size_t)work->matrices * sizeof **work->sparse);
	for (int m = 0; m < work->matrices; m++) {
		fill(work, sparsities[s], (uint64_t)m, masked);
		size_t bytes = (size_t)sparse_memory(masked, work->rows, work->cols);
		if (bytes > room) {
			room = bytes > ARENA ? bytes : ARENA;
			memory = allocate(room);
		}
		work->sparse[s][m] = sparse_pack(masked, work->rows, work->cols, memory);
		memory += bytes;
		room -= bytes;
	}
}

static void make(struct work *work)
{
	size_t elements = (size_t)(work->rows * work->cols);
	uint16_t *masked = allocate(elements * sizeof *masked), *all = allocate(elements * (size_t)work->matrices * sizeof *all);
	float *x = allocate((size_t)work->cols * sizeof *x);
	struct error err;
	for (int64_t j = 0; j < work->cols; j++)
		x[j] = (float)(j % 13) / 8 - 0.75f;
	work->x = allocate((size_t)matvec_length(work->cols) * sizeof *work->x);
	work->y = allocate((size_t)work->rows * sizeof *work->y);
	matvec_input(x, work->cols, work->x);
	work->dense = allocate((size_t)work->matrices * sizeof *work->dense);
	for (int m = 0; m < work->matrices; m++) {
		work->dense[m] = all + (size_t)m * elements;
		fill(work, 0, (uint64_t)m, work->dense[m]);
	}
	for (int s = 0; s < SPARSITIES; s++)
		pack(work, s, masked);
	free(masked);
	free(x);
	check(backend_cpu_create(work->threads, &work->backend, &err), &err);
}

/* ---- the ways: each goes over one matrix ------------------------------------------------------------------------------------ */

static volatile uint64_t sum_of_all; /* what was read, so that it must be */

typedef uint64_t words __attribute__((vector_size(64), aligned(8)));

static __attribute__((target_clones("avx512f", "avx2", "default"))) uint64_t add_up(const uint16_t *data, int64_t elements)
{
	const words *at = (const words *)data;
	words sums[4] = {0};
	uint64_t sum = 0;
	for (int64_t i = 0; i + 4 <= elements / 32; i += 4)
		for (int k = 0; k < 4; k++)
			sums[k] += at[i + k];
	for (int k = 0; k < 32; k++)
		sum += sums[k / 8][k % 8];
	return sum;
}

static void read_matrix(const struct work *work, int matrix, int unused)
{
	uint64_t sum = 0;
	(void)unused;
#pragma omp parallel num_threads(work->threads) reduction(+ : sum) if (work->threads > 1)
	{
		int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
		int64_t first = work->rows * part / parts, last = work->rows * (part + 1) / parts;
		sum += add_up(work->dense[matrix] + first * work->cols, (last - first) * work->cols);
	}
	sum_of_all = sum;
}

static void multiply_dense(const struct work *work, int matrix, int unused)
{
	(void)unused;
	dense_matvec(work->dense[matrix], work->rows, work->cols, work->x, work->y, work->threads);
}

static void multiply_by_backend(const struct work *work, int matrix, int unused)
{
	struct tensor w = tensor_make(work->dense[matrix], work->rows, work->cols, DTYPE_BF16);
	struct tensor x = tensor_make(work->x, 1, work->cols, DTYPE_BF16), y = tensor_make(work->y, 1, work->rows, DTYPE_F32);
	(void)unused;
	check(work->backend->ops->matmul(work->backend, y, x, false, w, true, false), &work->backend->error);
}

static void multiply_sparse(const struct work *work, int matrix, int sparsity)
{
	sparse_matvec(&work->sparse[sparsity][matrix], work->x, work->y, work->threads);
}

struct way {
	void (*run)(const struct work *, int matrix, int argument);
	int argument;
	double *best; /* seconds of each matrix */
};

enum { READ, OWN, ONEDNN, FIRST_SPARSE, WAYS = FIRST_SPARSE + SPARSITIES };

static void measure(const struct work *work, struct way ways[WAYS])
{
	for (int round = 0; round < ROUNDS; round++)
		for (int i = 0; i < WAYS; i++)
			for (int m = 0; m < work->matrices; m++) {
				double start = monotonic_seconds();
				ways[i].run(work, m, ways[i].argument);
				double seconds = monotonic_seconds() - start;
				if (!round || seconds < ways[i].best[m]) ways[i].best[m] = seconds;
			}
}

static double total(const struct work *work, const struct way *way)
{
	double seconds = 0;
	for (int m = 0; m < work->matrices; m++)
		seconds += way->best[m];
	return seconds;
}

static void print_way(const char *name, const struct work *work, const struct way *way, double bytes)
{
	printf("\"%s\": {\"us\": %.1f, \"gbps\": %.2f", name, total(work, way) / work->matrices * 1e6,
	       bytes / total(work, way) * 1e-9);
}

static void print(const struct work *work, const struct way ways[WAYS])
{
	double bytes = 2.0 * (double)(work->rows * work->cols) * work->matrices,
	       dense = fmin(total(work, &ways[OWN]), total(work, &ways[ONEDNN]));
	printf("{\"rows\": %lld, \"cols\": %lld, \"matrices\": %d, \"threads\": %d, \"kernels\": \"%s\", \"native_bf16\": %s,\n",
	       (long long)work->rows, (long long)work->cols, work->matrices, work->threads, matvec_kernels(0)->name,
	       work->backend->native_bf16 ? "true" : "false");
	printf(" \"read_gbps\": %.2f,\n \"dense\": {", bytes / total(work, &ways[READ]) * 1e-9);
	print_way("own", work, &ways[OWN], bytes);
	printf("}, ");
	print_way("onednn", work, &ways[ONEDNN], bytes);
	printf("}},\n \"sparse\": {");
	for (int s = 0; s < SPARSITIES; s++) {
		const struct way *way = &ways[FIRST_SPARSE + s];
		double packed = 0;
		char name[16];
		for (int m = 0; m < work->matrices; m++)
			packed += (double)sparse_bytes(&work->sparse[s][m]);
		snprintf(name, sizeof name, "%.1f", sparsities[s]);
		print_way(name, work, way, packed);
		printf(", \"speedup\": %.3f, \"bound\": %.3f}%s", dense / total(work, way), bytes / packed,
		       s + 1 < SPARSITIES ? ",\n  " : "");
	}
	printf("}}\n");
}

static int64_t argument(int argc, char **argv, int i, int64_t standard)
{
	int64_t value = argc > i ? atoll(argv[i]) : standard;
	if (value > 0 && value <= 1 << 20) return value;
	fprintf(stderr, "usage: matvec [ROWS COLS [MATRICES [THREADS]]]\n");
	exit(2);
}

int main(int argc, char **argv)
{
	struct work work = {.rows = argument(argc, argv, 1, 4096),
			    .cols = argument(argc, argv, 2, 4096),
			    .matrices = (int)argument(argc, argv, 3, 16),
			    .threads = (int)argument(argc, argv, 4, 1)};
	struct way ways[WAYS] = {
		[READ] = {.run = read_matrix}, [OWN] = {.run = multiply_dense}, [ONEDNN] = {.run = multiply_by_backend}};
	for (int s = 0; s < SPARSITIES; s++)
		ways[FIRST_SPARSE + s] = (struct way){.run = multiply_sparse, .argument = s};
	for (int i = 0; i < WAYS; i++)
		ways[i].best = allocate((size_t)work.matrices * sizeof *ways[i].best);
	make(&work);
	measure(&work, ways);
	print(&work, ways);
	return 0;
}
