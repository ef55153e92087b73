#include "engine/sparse/matvec.h"

#include <omp.h>
#include <pthread.h>
#include <stdbool.h>

#include "engine/compute/cpu_isa.h"
#include "engine/compute/half.h"
#include "engine/sparse/kernels.h"

enum { MOST_KERNELS = 3 };
static const struct matvec_kernels *known[MOST_KERNELS]; /* the first of them that are not NULL */
static pthread_once_t known_once = PTHREAD_ONCE_INIT;

static bool has_avx512(void)
{
	return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
	       __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
	       __builtin_cpu_supports("avx512bf16");
}

static bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static void find_kernels(void)
{
	int most = cpu_isa_most(), count = 0;
	if (most >= 4 && has_avx512()) known[count++] = &matvec_avx512;
	if (most >= 3 && has_avx2()) known[count++] = &matvec_avx2;
	known[count] = &matvec_scalar;
}

const struct matvec_kernels *matvec_kernels(int i)
{
	pthread_once(&known_once, find_kernels);
	return i < MOST_KERNELS ? known[i] : NULL;
}

void matvec_input(const float *x, int64_t cols, uint16_t *ret)
{
	for (int64_t i = 0; i < matvec_length(cols); i++)
		ret[i] = i < cols ? bf16_from_f32(x[i]) : 0;
}

void matvec_inputs(const struct matvec_kernels *kernels, const struct sparse_matrix *matrix, const float *x, int n, uint16_t *ret)
{
	for (int64_t j = 0; j < matvec_length(matrix->cols); j++) {
		int column = (int)(j % SPARSE_WORD), place = kernels->input ? kernels->input(matrix, column) : column;
		for (int k = 0; k < n; k++)
			ret[(j / SPARSE_WORD * n + k) * SPARSE_WORD + place] =
				j < matrix->cols ? bf16_from_f32(x[k * matrix->cols + j]) : 0;
	}
}

/* What of the work lies before the block: bytes of values, and of the bitmap. */
static int64_t work_before(const struct sparse_matrix *matrix, int64_t block)
{
	if (!matrix->mask) return block * matrix->block_rows * matrix->row_bytes;
	return matrix->offsets[block] + block * matrix->block_rows * matrix->words * (int64_t)sizeof *matrix->mask;
}

/* The first block of part `part` of `parts`. */
static int64_t part_begin(const struct sparse_matrix *matrix, int part, int parts)
{
	int64_t low = 0, high = matrix->blocks;
	double wanted = (double)work_before(matrix, matrix->blocks) * part / parts;
	while (low < high) {
		int64_t middle = (low + high) / 2;
		if ((double)work_before(matrix, middle) < wanted)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

void sparse_matvec(const struct sparse_matrix *matrix, const uint16_t *x, float *y, int threads)
{
	const struct matvec_kernels *kernels = matvec_kernels(0);
	if (threads == 1) {
		kernels->sparse(matrix, x, y, 0, matrix->blocks);
		return;
	}
#pragma omp parallel num_threads(threads)
	{
		int part = omp_get_thread_num(), parts = omp_get_num_threads();
		kernels->sparse(matrix, x, y, part_begin(matrix, part, parts), part_begin(matrix, part + 1, parts));
	}
}

void sparse_matmul(const struct sparse_matrix *matrix, const uint16_t *x, int n, float *y, int threads)
{
	const struct matvec_kernels *kernels = matvec_kernels(0);
	if (threads == 1) {
		kernels->product(matrix, x, n, y, 0, matrix->blocks);
		return;
	}
#pragma omp parallel num_threads(threads)
	{
		int part = omp_get_thread_num(), parts = omp_get_num_threads();
		kernels->product(matrix, x, n, y, part_begin(matrix, part, parts), part_begin(matrix, part + 1, parts));
	}
}

void dense_matvec(const uint16_t *weights, int64_t rows, int64_t cols, const uint16_t *x, float *y, int threads)
{
	const struct matvec_kernels *kernels = matvec_kernels(0);
	if (threads == 1) {
		kernels->dense(weights, cols, x, y, 0, rows);
		return;
	}
#pragma omp parallel num_threads(threads)
	{
		int64_t part = omp_get_thread_num(), parts = omp_get_num_threads();
		kernels->dense(weights, cols, x, y, rows * part / parts, rows * (part + 1) / parts);
	}
}
