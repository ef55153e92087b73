#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/compute/cpu/cpu.h"

static enum status column_norms(struct backend *backend, void *sums, struct tensor x)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, x.rows *x.cols))
	{
		struct share cols = cpu_share(x.cols, 16);
		cpu->kernels->prune->column_norms(sums, &x, cols.first, cols.last);
	}
	return STATUS_OK;
}

static enum status add_saliency(struct backend *backend, struct tensor scores, struct tensor gradient, struct tensor weight)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, scores.rows *scores.cols))
	{
		struct share rows = cpu_share(scores.rows, 1);
		cpu->kernels->prune->add_saliency(&scores, &gradient, &weight, rows.first, rows.last);
	}
	return STATUS_OK;
}

/* ---- ranks ------------------------------------------------------------------------------------------------------------------- */

/* Orders n keys, ascending and stable, by a radix sort of 11-bit digits; the result is a permutation, smallest key first.
 * key and index are [2][n]: the passes go to and fro between the halves and end in the second. Bit 31 of the keys is 0. */
static const uint16_t *sort_keys(uint32_t *key, uint16_t *index, int64_t n)
{
	enum { PASSES = 3, BITS = 11, DIGITS = 1 << BITS };
	uint32_t start[PASSES][DIGITS] = {{0}};
	for (int64_t i = 0; i < n; i++)
		for (int pass = 0; pass < PASSES; pass++)
			start[pass][key[i] >> (BITS * pass) & (DIGITS - 1)]++;
	for (int pass = 0; pass < PASSES; pass++) {
		uint32_t before = 0;
		for (int digit = 0; digit < DIGITS; digit++) {
			uint32_t count = start[pass][digit];
			start[pass][digit] = before;
			before += count;
		}
	}
	for (int64_t i = 0; i < n; i++)
		index[i] = (uint16_t)i;
	for (int pass = 0; pass < PASSES; pass++) {
		int64_t from = pass % 2 ? n : 0, to = n - from;
		for (int64_t i = 0; i < n; i++) {
			uint32_t place = start[pass][key[from + i] >> (BITS * pass) & (DIGITS - 1)]++;
			key[to + place] = key[from + i];
			index[to + place] = index[from + i];
		}
	}
	return index + n;
}

/* The ranks of one row from the bits of its importances. */
typedef void (*rank_row_fn)(uint16_t *rank, uint32_t *key, uint16_t *index, int64_t cols, int of);

static void rank_whole(uint16_t *rank, uint32_t *key, uint16_t *index, int64_t cols, int of)
{
	(void)of;
	const uint16_t *order = sort_keys(key, index, cols);
	for (int64_t i = 0; i < cols; i++)
		rank[order[i]] = (uint16_t)i;
}

static void rank_within(uint16_t *rank, uint32_t *key, uint16_t *index, int64_t cols, int of)
{
	(void)index;
	for (int64_t first = 0; first < cols; first += of) {
		const uint32_t *k = key + first;
		for (int i = 0; i < of; i++) {
			int before = 0;
			for (int j = 0; j < of; j++)
				before += k[j] < k[i] || (k[j] == k[i] && j < i);
			rank[first + i] = (uint16_t)before;
		}
	}
}

static enum status rank_by(struct backend *backend, const char *operation, rank_row_fn rank_row, enum importance importance,
			   struct tensor rank, struct tensor weight, const void *sums, double sequences, int of)
{
	struct cpu_backend *cpu = cpu_of(backend);
	size_t cols = (size_t)weight.cols, per_thread = 2 * cols * (sizeof(uint32_t) + sizeof(uint16_t));
	void *scratch;
	TRY(cpu_scratch(cpu, operation, cols * sizeof(float) + (size_t)backend->threads * per_thread, &scratch));
	if (backend->dry) return STATUS_OK;
	float *scale = importance == IMPORTANCE_WANDA ? scratch : NULL;
	for (int64_t j = 0; scale && j < weight.cols; j++)
		scale[j] = sqrtf((float)(((const double *)sums)[j] / sequences));
	int64_t bad_row = weight.rows;
#pragma omp parallel num_threads(cpu_threads(cpu, weight.rows *weight.cols)) reduction(min : bad_row)
	{
		struct share rows = cpu_share(weight.rows, 1);
		char *memory = (char *)scratch + cols * sizeof(float) + (size_t)omp_get_thread_num() * per_thread;
		uint32_t *key = (uint32_t *)memory;
		uint16_t *index = (uint16_t *)(key + 2 * cols);
		for (int64_t row = rows.first; row < rows.last; row++) {
			if (!cpu->kernels->prune->importance(key, &weight, scale, row)) {
				bad_row = row;
				break;
			}
			rank_row((uint16_t *)rank.data + row * rank.stride, key, index, weight.cols, of);
		}
	}
	if (bad_row == weight.rows) return STATUS_OK;
	return error_set(&backend->error, STATUS_NUMERIC, "%s: a NaN among the importances of row %lld of [%lld, %lld]", operation,
			 (long long)bad_row, (long long)weight.rows, (long long)weight.cols);
}

static enum status rank_rows(struct backend *backend, enum importance importance, struct tensor rank, struct tensor weight,
			     const void *sums, double sequences)
{
	return rank_by(backend, "rank_rows", rank_whole, importance, rank, weight, sums, sequences, 0);
}

static enum status rank_groups(struct backend *backend, enum importance importance, struct tensor rank, struct tensor weight,
			       const void *sums, double sequences, int of)
{
	return rank_by(backend, "rank_groups", rank_within, importance, rank, weight, sums, sequences, of);
}

static enum status bin_ranks(struct backend *backend, struct tensor bin, struct tensor rank, int candidates, int below, int above)
{
	struct cpu_backend *cpu = cpu_of(backend);
	void *scratch;
	TRY(cpu_scratch(cpu, "bin_ranks", (size_t)rank.cols, &scratch));
	if (backend->dry) return STATUS_OK;
	uint8_t *bin_of = scratch;
	memset(bin_of, BIN_NONE, (size_t)rank.cols);
	for (int64_t b = 0; b < candidates - 1; b++) { /* bin b: from the threshold of one candidate up to that of the next */
		int64_t steps = candidates - 1, width = CANDIDATES_WHOLE - below - above, whole = CANDIDATES_WHOLE * steps;
		int64_t first = rank.cols * (below * steps + width * b) / whole,
			last = rank.cols * (below * steps + width * (b + 1)) / whole;
		memset(bin_of + first, (int)b, (size_t)(last - first));
	}
#pragma omp parallel num_threads(cpu_threads(cpu, rank.rows *rank.cols))
	{
		struct share rows = cpu_share(rank.rows, 1);
		for (int64_t row = rows.first; row < rows.last; row++) {
			const uint16_t *ranks = (const uint16_t *)rank.data + row * rank.stride;
			uint8_t *bins = (uint8_t *)bin.data + row * bin.stride;
			for (int64_t col = 0; col < rank.cols; col++)
				bins[col] = bin_of[ranks[col]];
		}
	}
	return STATUS_OK;
}

/* ---- masks ------------------------------------------------------------------------------------------------------------------- */

static enum status mask_weights(struct backend *backend, struct tensor out, struct tensor weight, struct tensor rank,
				const void *threshold, bool shared)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
#pragma omp parallel num_threads(cpu_threads(cpu, out.rows *out.cols))
	{
		struct share rows = cpu_share(out.rows, 1);
		cpu->kernels->prune->mask_weights(&out, &weight, &rank, threshold, shared, rows.first, rows.last);
	}
	return STATUS_OK;
}

void cpu_prune_operations(struct backend_ops *ops)
{
	ops->column_norms = column_norms;
	ops->add_saliency = add_saliency;
	ops->rank_rows = rank_rows;
	ops->rank_groups = rank_groups;
	ops->bin_ranks = bin_ranks;
	ops->mask_weights = mask_weights;
}
