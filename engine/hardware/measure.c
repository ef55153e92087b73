#include "engine/hardware/measure.h"

#include <inttypes.h>
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
	struct sparse_matrix packed;
	double dense_seconds, sparse_seconds;
};

struct measure {
	struct linear_times *linears;
	int64_t count;
	uint16_t *dense; /* of all linears, one behind the other */
	char *packed;
	char *copied; /* room for two times COPIED bytes */
	int64_t dense_used, packed_used;
	uint16_t *x;
	float *y;
	double copy_seconds[PIECES];
};

enum status measure_create(const struct measure_size *size, struct measure **ret, struct error *err)
{
	/* The most that packing takes: bitmaps, values as if none were zero, and for each block of rows an offset and what alignment wastes. */
	int64_t blocks = size->rows / SPARSE_BLOCK_ROWS + 2 * size->linears, dense = size->weights * (int64_t)sizeof(uint16_t);
	int64_t packed = size->words * (int64_t)sizeof(uint64_t) + dense + blocks * (SPARSE_ALIGNMENT + (int64_t)sizeof(int64_t)) +
			 size->linears * (2 * SPARSE_ALIGNMENT + SPARSE_SLACK);
	int64_t inputs = matvec_length(size->most_cols);
	struct measure *measure = calloc(1, sizeof *measure);
	float *ones = calloc((size_t)inputs, sizeof *ones);
	if (measure) {
		*measure = (struct measure){.linears = calloc((size_t)size->linears, sizeof *measure->linears),
					    .dense = matvec_allocate((size_t)dense),
					    .packed = matvec_allocate((size_t)packed),
					    .copied = matvec_allocate(2 * (size_t)COPIED),
					    .x = matvec_allocate((size_t)inputs * sizeof *measure->x),
					    .y = matvec_allocate((size_t)size->most_rows * sizeof *measure->y)};
	}
	if (!ones || !measure || !measure->linears || !measure->dense || !measure->packed || !measure->copied || !measure->x ||
	    !measure->y) {
		free(ones);
		measure_free(measure);
		return error_set(err, STATUS_NO_MEMORY,
				 "no memory to measure a model whose linears take %" PRId64 " MiB dense and up to %" PRId64
				 " MiB packed",
				 dense >> 20, packed >> 20);
	}
	for (int64_t i = 0; i < size->most_cols; i++)
		ones[i] = 1;
	matvec_input(ones, size->most_cols, measure->x);
	free(ones);
	memset(measure->copied, 1, 2 * (size_t)COPIED);
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
	measure->packed_used += sparse_memory(dense, rows, cols);
	measure->dense_used += rows * cols;
	measure->linears[measure->count++] =
		(struct linear_times){.kind = kind, .dense = dense, .packed = sparse_pack(dense, rows, cols, packed)};
}

static void keep_least(double *best, double start, int round)
{
	double seconds = monotonic_seconds() - start;
	if (!round || seconds < *best) *best = seconds;
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

enum status measure_run(struct measure *measure, int threads, const atomic_bool *stop, struct error *err)
{
	for (int round = 0; round < ROUNDS; round++) {
		for (int64_t i = 0; i < measure->count; i++) {
			struct linear_times *linear = &measure->linears[i];
			double start = monotonic_seconds();
			dense_matvec(linear->dense, linear->packed.rows, linear->packed.cols, measure->x, measure->y, threads);
			keep_least(&linear->dense_seconds, start, round);
		}
		for (int64_t i = 0; i < measure->count; i++) {
			struct linear_times *linear = &measure->linears[i];
			double start = monotonic_seconds();
			sparse_matvec(&linear->packed, measure->x, measure->y, threads);
			keep_least(&linear->sparse_seconds, start, round);
		}
		for (int piece = 0; piece < PIECES; piece++) {
			double start = monotonic_seconds();
			copy(measure, piece, threads);
			keep_least(&measure->copy_seconds[piece], start, round);
		}
		if (stop && atomic_load(stop)) return error_set(err, STATUS_CANCELLED, "stopped while products were timed");
	}
	return STATUS_OK;
}

struct measured measure_sum(const struct measure *measure, int kind)
{
	struct measured sum = {0};
	for (int64_t i = 0; i < measure->count; i++) {
		const struct linear_times *linear = &measure->linears[i];
		if (kind >= 0 && linear->kind != kind) continue;
		int64_t weights = linear->packed.rows * linear->packed.cols;
		sum.linears++;
		sum.weights += weights;
		sum.dense_bytes += weights * (int64_t)sizeof *linear->dense;
		sum.sparse_bytes += sparse_bytes(&linear->packed);
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
