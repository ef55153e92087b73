#include "engine/hardware/measure.h"

#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "engine/compute/half.h"
#include "engine/sparse/matvec.h"

/* Memory is copied in pieces that are timed each by itself, as linears are: the best of each counts. */
enum { ROUNDS = 10, PIECES = 16, PIECE = 4 << 20, COPIED = PIECES * PIECE };

struct linear_times {
	int kind;
	const uint16_t *dense;
	struct sparse_matrix packed; /* as long as it is to be timed */
	int64_t rows, cols, packed_bytes;
	double dense_seconds, sparse_seconds;
};

struct measure {
	struct linear_times *linears;
	int64_t count, timed; /* how many there are, and how many of them were timed */
	uint16_t *dense;      /* of those that were not timed yet, one behind the other */
	char *packed;
	char *copied; /* room for two times COPIED bytes */
	int64_t dense_used, packed_used;
	uint16_t *x;
	float *y;
	double copy_seconds[PIECES];
};

static int64_t dense_bytes(const struct measure_size *size)
{
	return size->weights * (int64_t)sizeof(uint16_t);
}

/* The most that packing takes: bitmaps, values as if none were zero, and for each block of rows an offset and what alignment
 * wastes. */
static int64_t packed_bytes(const struct measure_size *size)
{
	int64_t blocks = size->rows / SPARSE_BLOCK_ROWS + 2 * size->at_once;
	return size->words * (int64_t)sizeof(uint64_t) + dense_bytes(size) +
	       blocks * (SPARSE_ALIGNMENT + (int64_t)sizeof(int64_t)) + size->at_once * (2 * SPARSE_ALIGNMENT + SPARSE_SLACK);
}

int64_t measure_bytes(const struct measure_size *size)
{
	return dense_bytes(size) + packed_bytes(size) + 2 * (int64_t)COPIED;
}

enum status measure_create(const struct measure_size *size, struct measure **ret, struct error *err)
{
	int64_t inputs = matvec_length(size->most_cols);
	struct measure *measure = calloc(1, sizeof *measure);
	float *ones = calloc((size_t)inputs, sizeof *ones);
	if (measure) {
		*measure = (struct measure){.linears = calloc((size_t)size->linears, sizeof *measure->linears),
					    .dense = matvec_allocate((size_t)dense_bytes(size)),
					    .packed = matvec_allocate((size_t)packed_bytes(size)),
					    .copied = matvec_allocate(2 * (size_t)COPIED),
					    .x = matvec_allocate((size_t)inputs * sizeof *measure->x),
					    .y = matvec_allocate((size_t)size->most_rows * sizeof *measure->y)};
	}
	if (!ones || !measure || !measure->linears || !measure->dense || !measure->packed || !measure->copied || !measure->x ||
	    !measure->y) {
		free(ones);
		measure_free(measure);
		return error_set(err, STATUS_NO_MEMORY, "no memory to time products: up to %" PRId64 " MiB",
				 measure_bytes(size) >> 20);
	}
	for (int64_t i = 0; i < size->most_cols; i++)
		ones[i] = 1;
	matvec_input(ones, size->most_cols, measure->x);
	free(ones);
	memset(measure->copied, 1, 2 * (size_t)COPIED);
	for (int piece = 0; piece < PIECES; piece++)
		measure->copy_seconds[piece] = INFINITY;
	*ret = measure;
	return STATUS_OK;
}

void measure_free(struct measure *measure)
{
	if (!measure) return;
	free(measure->linears);
	free(measure->dense);
	free(measure->packed);
	free(measure->copied);
	free(measure->x);
	free(measure->y);
	free(measure);
}

/* To bf16, by rows. */
static void convert(const void *data, enum dtype dtype, int64_t elements, uint16_t *ret)
{
	if (dtype == DTYPE_BF16) {
		memcpy(ret, data, (size_t)elements * sizeof *ret);
		return;
	}
	for (int64_t i = 0; i < elements; i++)
		ret[i] = bf16_from_f32(half_load(data, dtype, i));
}

void measure_add(struct measure *measure, const void *data, enum dtype dtype, int64_t rows, int64_t cols, int kind)
{
	uint16_t *dense = measure->dense + measure->dense_used;
	convert(data, dtype, rows * cols, dense);
	char *packed = measure->packed + measure->packed_used;
	const struct sparse_matrix matrix = sparse_pack(dense, rows, cols, packed);
	measure->packed_used += sparse_memory(dense, rows, cols);
	measure->dense_used += rows * cols;
	measure->linears[measure->count++] = (struct linear_times){.kind = kind,
								   .dense = dense,
								   .packed = matrix,
								   .rows = rows,
								   .cols = cols,
								   .packed_bytes = sparse_bytes(&matrix),
								   .dense_seconds = INFINITY,
								   .sparse_seconds = INFINITY};
}

static void keep_least(double *best, double start)
{
	double seconds = monotonic_seconds() - start;
	if (seconds < *best) *best = seconds;
}

static void copy(struct measure *measure, int piece, int threads)
{
	char *from = measure->copied + (size_t)piece * PIECE, *to = from + COPIED;
#pragma omp parallel for num_threads(threads)
	for (int part = 0; part < threads; part++) {
		size_t first = (size_t)PIECE * (size_t)part / (size_t)threads,
		       last = (size_t)PIECE * (size_t)(part + 1) / (size_t)threads;
		memcpy(to + first, from + first, last - first);
	}
}

static void time_dense(struct measure *measure, struct linear_times *linear, int threads)
{
	double start = monotonic_seconds();
	dense_matvec(linear->dense, linear->rows, linear->cols, measure->x, measure->y, threads);
	keep_least(&linear->dense_seconds, start);
}

static void time_sparse(struct measure *measure, struct linear_times *linear, int threads)
{
	double start = monotonic_seconds();
	sparse_matvec(&linear->packed, measure->x, measure->y, threads);
	keep_least(&linear->sparse_seconds, start);
}

/* One way, of all linears that are to be timed. */
static enum status time_linears(struct measure *measure, void (*way)(struct measure *, struct linear_times *, int), int threads,
				const atomic_bool *stop, struct progress *progress, struct error *err)
{
	for (int64_t i = measure->timed; i < measure->count; i++) {
		way(measure, &measure->linears[i], threads);
		if (progress) progress_add(progress, 0);
		if (stop && atomic_load(stop)) return error_set(err, STATUS_CANCELLED, "stopped while products were timed");
	}
	return STATUS_OK;
}

enum status measure_run(struct measure *measure, int threads, const atomic_bool *stop, struct progress *progress, struct error *err)
{
	for (int round = 0; round < ROUNDS; round++) {
		TRY(time_linears(measure, time_dense, threads, stop, progress, err));
		TRY(time_linears(measure, time_sparse, threads, stop, progress, err));
		for (int piece = 0; piece < PIECES; piece++) {
			double start = monotonic_seconds();
			copy(measure, piece, threads);
			keep_least(&measure->copy_seconds[piece], start);
		}
	}
	measure->timed = measure->count;
	measure->dense_used = measure->packed_used = 0;
	return STATUS_OK;
}

struct measured measure_sum(const struct measure *measure, int kind)
{
	struct measured sum = {0};
	for (int64_t i = 0; i < measure->count; i++) {
		const struct linear_times *linear = &measure->linears[i];
		if (kind >= 0 && linear->kind != kind) continue;
		int64_t weights = linear->rows * linear->cols;
		sum.linears++;
		sum.weights += weights;
		sum.dense_bytes += weights * (int64_t)sizeof *linear->dense;
		sum.sparse_bytes += linear->packed_bytes;
		sum.dense += linear->dense_seconds;
		sum.sparse += linear->sparse_seconds;
	}
	return sum;
}

double measure_copy_rate(const struct measure *measure)
{
	double seconds = 0;
	for (int piece = 0; piece < PIECES; piece++)
		seconds += measure->copy_seconds[piece];
	return 2.0 * COPIED / seconds;
}
