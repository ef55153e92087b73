/* What zeros are worth in decoding, on this processor: matvec [ROWS COLS [MATRICES [THREADS]]]. Products of MATRICES matrices and
 * one vector each, one after the other, so that together they do not fit into any cache: dense, by besad's own kernel and by the
 * CPU backend's matmul (oneDNN), and sparse, at three sparsities; the same of codes of 8 and of 4 bits, in groups of 128 or,
 * where that does not divide the columns, of 64, 32 or 16, and with some vectors at once. All ways take turns, and of each matrix
 * the best of many rounds counts. By default 16 matrices of 4096 × 4096 (512 MiB of bf16, 2.4 GiB of all forms), and one thread;
 * THREADS 0 is all.
 *
 * Prints {"read_gbps", "dense": {"own": {"us", "gbps"}, "onednn": {…}}, "sparse": {"0.5": {"us", "gbps", "speedup", "bound"}, …},
 * "int8": {"dense": {"us", "gbps", "of_bf16"}, "0.5": {…, "speedup", "bound", "of_bf16", "bound_of_bf16"}, …}, "int4": {…},
 * "vectors": {"2": {"own", "onednn", "0.5", …}, …}}: per matrix; "read_gbps" is what reading memory and adding it up reaches in
 * the same run, "bound" the bytes of a dense matrix by those of the packed one, and "speedup" is against the faster dense one of
 * the same kind, "of_bf16" against the faster dense one in bf16. Bytes are those of the matrix alone. */
#include <math.h>
#include <omp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/random.h"
#include "engine/compute/backend.h"
#include "engine/sparse/matvec.h"

enum { ROUNDS = 15, SPARSITIES = 3, ARENA = 64 << 20, WIDTHS = 4 };
static const double sparsities[SPARSITIES] = {0.5, 0.6, 0.7};
static const int widths[WIDTHS] = {2, 4, 8, SPARSE_VECTORS};

/* What matrices there are of everything: dense, and at each sparsity. */
enum form { BF16, INT8, INT4, FORMS };
static const char *const form_names[FORMS] = {"bf16", "int8", "int4"};
static const int form_bits[FORMS] = {0, 8, 4};
enum { DENSE, FIRST_SPARSE, KINDS = FIRST_SPARSE + SPARSITIES };

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
	struct sparse_matrix *all[FORMS][KINDS]; /* [matrices] each */
	uint16_t *x;                             /* [SPARSE_VECTORS, cols] */
	uint16_t *inputs[FORMS];                 /* one, as products want it */
	uint16_t *wide_inputs[WIDTHS];           /* of bf16: so many */
	float *y;
	struct backend *backend;
};

/* Where matrices lie, those of one kind behind each other. */
struct arena {
	char *memory;
	size_t room;
};

static void *take(struct arena *arena, int64_t bytes)
{
	size_t whole = ((size_t)bytes + SPARSE_ALIGNMENT - 1) / SPARSE_ALIGNMENT * SPARSE_ALIGNMENT;
	if (whole > arena->room) {
		arena->room = whole > ARENA ? whole : ARENA;
		arena->memory = allocate(arena->room);
	}
	void *memory = arena->memory;
	arena->memory += whole;
	arena->room -= whole;
	return memory;
}

/* The number of weight i, and whether it is zero. */
static uint64_t draw(double sparsity, uint64_t seed, int64_t i, bool *ret_zero)
{
	uint64_t number = random_at(seed, (uint64_t)i);
	*ret_zero = (double)(number >> 40) < sparsity * 0x1p24;
	return number;
}

/* Weights of magnitudes about 1, of which `sparsity` are zero. */
static void fill(const struct work *work, double sparsity, uint64_t seed, uint16_t *ret)
{
#pragma omp parallel for
	for (int64_t i = 0; i < work->rows * work->cols; i++) {
		bool zero;
		uint64_t number = draw(sparsity, seed, i, &zero);
		ret[i] = zero ? 0 : (uint16_t)(0x3f00 | (number & 0x80ff));
	}
}

/* Codes of any value but that of 0, of which `sparsity` are that. */
static void fill_codes(const struct work *work, int bits, double sparsity, uint64_t seed, uint8_t *ret)
{
	unsigned middle = 1u << (bits - 1), most = 2 * middle - 1;
#pragma omp parallel for
	for (int64_t i = 0; i < work->rows * work->cols; i++) {
		bool zero;
		unsigned code = (unsigned)draw(sparsity, seed, i, &zero) % most;
		ret[i] = (uint8_t)(zero ? middle : code + (code >= middle));
	}
}

static struct sparse_matrix make_halves(const struct work *work, int kind, uint64_t seed, uint16_t *room, struct arena *arena)
{
	int64_t bytes = work->rows * work->cols * (int64_t)sizeof *room;
	if (kind == DENSE) {
		uint16_t *weights = take(arena, bytes + SPARSE_SLACK);
		fill(work, 0, seed, weights);
		return dense_matrix(weights, work->rows, work->cols);
	}
	fill(work, sparsities[kind - FIRST_SPARSE], seed, room);
	return sparse_pack(room, work->rows, work->cols, take(arena, sparse_memory(room, work->rows, work->cols)));
}

static struct sparse_matrix make_codes(const struct work *work, int bits, int kind, uint64_t seed, uint8_t *room,
				       struct arena *arena)
{
	struct sparse_grids grids = {.bits = bits, .group = 128};
	while (grids.group > 16 && work->cols % grids.group)
		grids.group /= 2;
	if (work->cols % grids.group) grids.group = work->cols;
	grids.groups = work->cols / grids.group;
	float *steps = take(arena, work->rows * grids.groups * (int64_t)sizeof *steps);
	for (int64_t i = 0; i < work->rows * grids.groups; i++)
		steps[i] = 0x1p-7f;
	grids.steps = steps;
	fill_codes(work, bits, kind == DENSE ? 0 : sparsities[kind - FIRST_SPARSE], seed, room);
	void *memory = take(arena, sparse_codes_memory(room, work->rows, work->cols, &grids, kind != DENSE));
	return sparse_codes_pack(room, work->rows, work->cols, &grids, kind != DENSE, memory);
}

static void make_matrices(struct work *work)
{
	uint16_t *room = allocate((size_t)(work->rows * work->cols) * sizeof *room);
	for (int form = 0; form < FORMS; form++)
		for (int kind = 0; kind < KINDS; kind++) {
			struct arena arena = {0};
			struct sparse_matrix *matrices = malloc((size_t)work->matrices * sizeof *matrices);
			if (!matrices) exit(1);
			for (int m = 0; m < work->matrices; m++)
				matrices[m] = form_bits[form] ? make_codes(work, form_bits[form], kind, (uint64_t)m,
									   (uint8_t *)room, &arena)
							      : make_halves(work, kind, (uint64_t)m, room, &arena);
			work->all[form][kind] = matrices;
		}
	free(room);
}

static uint16_t *make_inputs(const struct work *work, enum form form, int n, const float *x)
{
	uint16_t *inputs = allocate((size_t)n * (size_t)matvec_length(work->cols) * sizeof *inputs);
	matvec_inputs(matvec_kernels(0), work->all[form][DENSE], x, n, inputs);
	return inputs;
}

static void make(struct work *work)
{
	struct error err;
	size_t elements = SPARSE_VECTORS * (size_t)work->cols;
	float *x = allocate(elements * sizeof *x);
	work->x = allocate((elements + SPARSE_WORD) * sizeof *work->x);
	work->y = allocate(SPARSE_VECTORS * (size_t)work->rows * sizeof *work->y);
	for (size_t j = 0; j < elements; j++)
		x[j] = (float)(j % 13) / 8 - 0.75f;
	make_matrices(work);
	matvec_input(x, (int64_t)elements, work->x);
	for (int form = 0; form < FORMS; form++)
		work->inputs[form] = make_inputs(work, (enum form)form, 1, x);
	for (int i = 0; i < WIDTHS; i++)
		work->wide_inputs[i] = make_inputs(work, BF16, widths[i], x);
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

struct way {
	void (*run)(const struct work *, const struct way *, int matrix);
	enum form form;
	int kind, vectors;
	const uint16_t *inputs;
	double *best; /* seconds of each matrix */
	double bytes; /* of all of them */
};

static void read_matrix(const struct work *work, const struct way *way, int matrix)
{
	uint64_t sum = 0;
	const uint16_t *weights = work->all[way->form][way->kind][matrix].values;
#pragma omp parallel num_threads(work->threads) reduction(+ : sum) if (work->threads > 1)
	{
		int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
		int64_t first = work->rows * part / parts, last = work->rows * (part + 1) / parts;
		sum += add_up(weights + first * work->cols, (last - first) * work->cols);
	}
	sum_of_all = sum;
}

static void multiply(const struct work *work, const struct way *way, int matrix)
{
	const struct sparse_matrix *weights = &work->all[way->form][way->kind][matrix];
	if (way->vectors > 1 || way->form != BF16)
		sparse_matmul(weights, way->inputs, way->vectors, work->y, work->threads);
	else if (way->kind == DENSE)
		dense_matvec(weights->values, work->rows, work->cols, way->inputs, work->y, work->threads);
	else
		sparse_matvec(weights, way->inputs, work->y, work->threads);
}

static void multiply_by_backend(const struct work *work, const struct way *way, int matrix)
{
	void *weights = (void *)(uintptr_t)work->all[way->form][way->kind][matrix].values;
	struct tensor w = tensor_make(weights, work->rows, work->cols, DTYPE_BF16);
	struct tensor x = tensor_make(work->x, way->vectors, work->cols, DTYPE_BF16),
		      y = tensor_make(work->y, way->vectors, work->rows, DTYPE_F32);
	check(work->backend->ops->matmul(work->backend, y, x, false, w, true, false), &work->backend->error);
}

/* All ways: reading, then of one vector all forms and oneDNN, then of several vectors bf16 and oneDNN. */
struct ways {
	struct way read, own[FORMS][KINDS], onednn, wide[WIDTHS][KINDS], wide_onednn[WIDTHS];
};

static struct way new_way(const struct work *work, void (*run)(const struct work *, const struct way *, int), enum form form,
			  int kind, int vectors)
{
	struct way way = {.run = run, .form = form, .kind = kind, .vectors = vectors};
	way.best = allocate((size_t)work->matrices * sizeof *way.best);
	for (int m = 0; m < work->matrices; m++) {
		way.best[m] = INFINITY;
		way.bytes += (double)sparse_bytes(&work->all[form][kind][m]);
	}
	return way;
}

static void make_ways(const struct work *work, struct ways *ret)
{
	ret->read = new_way(work, read_matrix, BF16, DENSE, 1);
	ret->onednn = new_way(work, multiply_by_backend, BF16, DENSE, 1);
	for (int form = 0; form < FORMS; form++)
		for (int kind = 0; kind < KINDS; kind++) {
			ret->own[form][kind] = new_way(work, multiply, (enum form)form, kind, 1);
			ret->own[form][kind].inputs = work->inputs[form];
		}
	for (int i = 0; i < WIDTHS; i++) {
		ret->wide_onednn[i] = new_way(work, multiply_by_backend, BF16, DENSE, widths[i]);
		for (int kind = 0; kind < KINDS; kind++) {
			ret->wide[i][kind] = new_way(work, multiply, BF16, kind, widths[i]);
			ret->wide[i][kind].inputs = work->wide_inputs[i];
		}
	}
}

/* struct ways has nothing but ways. */
static void measure(const struct work *work, struct ways *ways)
{
	struct way *first = (struct way *)ways;
	for (int round = 0; round < ROUNDS; round++)
		for (struct way *way = first; way < first + sizeof *ways / sizeof *way; way++)
			for (int m = 0; m < work->matrices; m++) {
				double start = monotonic_seconds();
				way->run(work, way, m);
				way->best[m] = fmin(way->best[m], monotonic_seconds() - start);
			}
}

static double total(const struct work *work, const struct way *way)
{
	double seconds = 0;
	for (int m = 0; m < work->matrices; m++)
		seconds += way->best[m];
	return seconds;
}

/* ---- what is printed -------------------------------------------------------------------------------------------------------- */

static void print_way(const char *name, const struct work *work, const struct way *way)
{
	printf("\"%s\": {\"us\": %.1f, \"gbps\": %.2f", name, total(work, way) / work->matrices * 1e6,
	       way->bytes / total(work, way) * 1e-9);
}

/* Those at each sparsity. dense: seconds of the best dense one, and its bytes. */
static void print_sparse(const struct work *work, const struct way kinds[KINDS], double dense, double dense_bytes,
			 const struct way *bf16, double bf16_seconds)
{
	for (int s = 0; s < SPARSITIES; s++) {
		const struct way *way = &kinds[FIRST_SPARSE + s];
		char name[16];
		snprintf(name, sizeof name, "%.1f", sparsities[s]);
		print_way(name, work, way);
		printf(", \"speedup\": %.3f, \"bound\": %.3f", dense / total(work, way), dense_bytes / way->bytes);
		if (bf16)
			printf(", \"of_bf16\": %.3f, \"bound_of_bf16\": %.3f", bf16_seconds / total(work, way),
			       bf16->bytes / way->bytes);
		printf("}%s", s + 1 < SPARSITIES ? ",\n  " : "");
	}
}

static void print_codes(const struct work *work, enum form form, const struct ways *ways, double bf16_seconds)
{
	const struct way *kinds = ways->own[form];
	printf(",\n \"%s\": {", form_names[form]);
	print_way("dense", work, &kinds[DENSE]);
	printf(", \"of_bf16\": %.3f},\n  ", bf16_seconds / total(work, &kinds[DENSE]));
	print_sparse(work, kinds, total(work, &kinds[DENSE]), kinds[DENSE].bytes, &ways->own[BF16][DENSE], bf16_seconds);
	printf("}");
}

static void print_wide(const struct work *work, int i, const struct ways *ways)
{
	const struct way *kinds = ways->wide[i];
	char name[16];
	snprintf(name, sizeof name, "%d", widths[i]);
	printf("%s\n  \"%s\": {", i ? "," : "", name);
	print_way("own", work, &kinds[DENSE]);
	printf("}, ");
	print_way("onednn", work, &ways->wide_onednn[i]);
	printf("},\n  ");
	print_sparse(work, kinds, fmin(total(work, &kinds[DENSE]), total(work, &ways->wide_onednn[i])), kinds[DENSE].bytes, NULL,
		     0);
	printf("}");
}

static void print(const struct work *work, const struct ways *ways)
{
	double dense = fmin(total(work, &ways->own[BF16][DENSE]), total(work, &ways->onednn));
	printf("{\"rows\": %lld, \"cols\": %lld, \"matrices\": %d, \"threads\": %d, \"kernels\": \"%s\", \"native_bf16\": %s,\n",
	       (long long)work->rows, (long long)work->cols, work->matrices, work->threads, matvec_kernels(0)->name,
	       work->backend->native_bf16 ? "true" : "false");
	printf(" \"group\": %lld, \"read_gbps\": %.2f,\n \"dense\": {", (long long)work->all[INT8][DENSE][0].grids.group,
	       ways->read.bytes / total(work, &ways->read) * 1e-9);
	print_way("own", work, &ways->own[BF16][DENSE]);
	printf("}, ");
	print_way("onednn", work, &ways->onednn);
	printf("}},\n \"sparse\": {");
	print_sparse(work, ways->own[BF16], dense, ways->own[BF16][DENSE].bytes, NULL, 0);
	printf("}");
	print_codes(work, INT8, ways, dense);
	print_codes(work, INT4, ways, dense);
	printf(",\n \"vectors\": {");
	for (int i = 0; i < WIDTHS; i++)
		print_wide(work, i, ways);
	printf("}}\n");
}

static int64_t argument(int argc, char **argv, int i, int64_t standard)
{
	int64_t value = argc > i ? atoll(argv[i]) : standard;
	if (value > 0 && value <= 1 << 20) return value;
	if (i == 4 && value == 0) return omp_get_max_threads();
	fprintf(stderr, "usage: matvec [ROWS COLS [MATRICES [THREADS]]]\n");
	exit(2);
}

int main(int argc, char **argv)
{
	static struct ways ways;
	struct work work = {.rows = argument(argc, argv, 1, 4096),
			    .cols = argument(argc, argv, 2, 4096),
			    .matrices = (int)argument(argc, argv, 3, 16),
			    .threads = (int)argument(argc, argv, 4, 1)};
	make(&work);
	make_ways(&work, &ways);
	measure(&work, &ways);
	print(&work, &ways);
	return 0;
}
