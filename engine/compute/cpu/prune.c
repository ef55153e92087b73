#include <math.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "engine/compute/cpu/cpu.h"

struct column_norms_work {
	const struct cpu_backend *cpu;
	void *sums;
	struct tensor x;
};

static void column_norms_part(const void *context, struct share cols)
{
	const struct column_norms_work *w = context;
	w->cpu->kernels->prune->column_norms(w->sums, &w->x, cols.first, cols.last);
}

static enum status column_norms(struct backend *backend, void *sums, struct tensor x)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct column_norms_work work = {cpu, sums, x};
	cpu_share_out(cpu, x.cols, 16, x.rows * x.cols, column_norms_part, &work);
	return STATUS_OK;
}

struct add_saliency_work {
	const struct cpu_backend *cpu;
	struct tensor scores, gradient, weight;
};

static void add_saliency_part(const void *context, struct share rows)
{
	const struct add_saliency_work *w = context;
	w->cpu->kernels->prune->add_saliency(&w->scores, &w->gradient, &w->weight, rows.first, rows.last);
}

static enum status add_saliency(struct backend *backend, struct tensor scores, struct tensor gradient, struct tensor weight)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct add_saliency_work work = {cpu, scores, gradient, weight};
	cpu_share_out(cpu, scores.rows, 1, scores.rows * scores.cols, add_saliency_part, &work);
	return STATUS_OK;
}

/* ---- ranks ------------------------------------------------------------------------------------------------------------------- */

/* A row whose weights are to be ranked. */
struct rank_row {
	const uint32_t *key;
	struct key_range range;
	int64_t cols;
	uint64_t *pairs; /* [2][cols] of workspace */
	int of;          /* the size of groups that are ranked by themselves */
};

typedef void (*rank_row_fn)(uint16_t *rank, const struct rank_row *);

/* By a stable radix sort of what keys are above the lowest, in three digits no longer than they need be. Bit 31 of keys is 0. */
static void rank_whole(uint16_t *rank, const struct rank_row *row)
{
	enum { PASSES = 3, MOST_BITS = 11, COLUMN_BITS = 16 };
	uint32_t place[PASSES][1 << MOST_BITS], above = row->range.highest - row->range.lowest;
	int bits = 1;
	while (bits < MOST_BITS && above >> (PASSES * bits))
		bits++;
	uint32_t last = (1U << bits) - 1;
	for (int pass = 0; pass < PASSES; pass++)
		memset(place[pass], 0, (last + 1) * sizeof **place);
	uint64_t *from = row->pairs, *to = from + row->cols; /* a key and its column */
	for (int64_t i = 0; i < row->cols; i++) {
		uint32_t key = row->key[i] - row->range.lowest;
		from[i] = (uint64_t)key << COLUMN_BITS | (uint64_t)i;
#pragma GCC unroll 3
		for (int pass = 0; pass < PASSES; pass++)
			place[pass][key >> (pass * bits) & last]++;
	}
	uint32_t before[PASSES] = {0};
	for (uint32_t digit = 0; digit <= last; digit++) {
#pragma GCC unroll 3
		for (int pass = 0; pass < PASSES; pass++) {
			uint32_t count = place[pass][digit];
			place[pass][digit] = before[pass];
			before[pass] += count;
		}
	}
	for (int64_t i = 0; i < row->cols; i++)
		to[place[0][from[i] >> COLUMN_BITS & last]++] = from[i];
	for (int64_t i = 0; i < row->cols; i++)
		from[place[1][to[i] >> (COLUMN_BITS + bits) & last]++] = to[i];
	for (int64_t i = 0; i < row->cols; i++)
		rank[(uint16_t)from[i]] = (uint16_t)place[2][from[i] >> (COLUMN_BITS + 2 * bits)]++;
}

static void rank_within(uint16_t *rank, const struct rank_row *row)
{
	int of = row->of;
	for (int64_t first = 0; first < row->cols; first += of) {
		const uint32_t *k = row->key + first;
		for (int i = 0; i < of; i++) {
			int before = 0;
			for (int j = 0; j < of; j++)
				before += k[j] < k[i] || (k[j] == k[i] && j < i);
			rank[first + i] = (uint16_t)before;
		}
	}
}

struct rank_work {
	const struct prune_kernels *kernels;
	rank_row_fn rank_row;
	struct tensor rank, weight;
	const float *scale;
	uint64_t *memory; /* a thread's is `per_thread` apart */
	size_t per_thread;
	int of;
	_Atomic int64_t *bad_row; /* the first with a NaN, or as many as there are */
};

static void rank_part(const void *context, struct share rows)
{
	const struct rank_work *w = context;
	int64_t cols = w->weight.cols;
	uint64_t *pairs = w->memory + (size_t)rows.thread * w->per_thread;
	uint32_t *key = (uint32_t *)(pairs + 2 * cols);
	for (int64_t row = rows.first; row < rows.last; row++) {
		struct key_range range = w->kernels->importance(key, &w->weight, w->scale, row);
		if (range.highest <= KEY_OF_INFINITY) {
			w->rank_row((uint16_t *)w->rank.data + row * w->rank.stride,
				    &(struct rank_row){key, range, cols, pairs, w->of});
			continue;
		}
		int64_t before = atomic_load(w->bad_row);
		while (row < before && !atomic_compare_exchange_weak(w->bad_row, &before, row))
			;
		break;
	}
}

static enum status rank_by(struct backend *backend, const char *operation, rank_row_fn rank_row, enum importance importance,
			   struct tensor rank, struct tensor weight, const void *sums, double sequences, int of)
{
	struct cpu_backend *cpu = cpu_of(backend);
	size_t cols = (size_t)weight.cols, per_thread = 2 * cols + (cols + 1) / 2, memory = (size_t)backend->threads * per_thread;
	void *scratch;
	TRY(cpu_scratch(cpu, operation, memory * sizeof(uint64_t) + cols * sizeof(float), &scratch));
	if (backend->dry) return STATUS_OK;
	float *scale = importance == IMPORTANCE_WANDA ? (float *)((uint64_t *)scratch + memory) : NULL;
	for (int64_t j = 0; scale && j < weight.cols; j++)
		scale[j] = sqrtf((float)(((const double *)sums)[j] / sequences));
	_Atomic int64_t first_bad = weight.rows;
	const struct rank_work work = {cpu->kernels->prune, rank_row, rank, weight, scale, scratch, per_thread, of, &first_bad};
	cpu_share_out(cpu, weight.rows, 1, weight.rows * weight.cols, rank_part, &work);
	int64_t bad_row = first_bad;
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

struct bin_ranks_work {
	struct tensor rank, bin;
	const uint8_t *bin_of;
};

static void bin_ranks_part(const void *context, struct share rows)
{
	const struct bin_ranks_work *w = context;
	for (int64_t row = rows.first; row < rows.last; row++) {
		const uint16_t *ranks = (const uint16_t *)w->rank.data + row * w->rank.stride;
		uint8_t *bins = (uint8_t *)w->bin.data + row * w->bin.stride;
		for (int64_t col = 0; col < w->rank.cols; col++)
			bins[col] = w->bin_of[ranks[col]];
	}
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
	const struct bin_ranks_work work = {rank, bin, bin_of};
	cpu_share_out(cpu, rank.rows, 1, rank.rows * rank.cols, bin_ranks_part, &work);
	return STATUS_OK;
}

/* ---- masks ------------------------------------------------------------------------------------------------------------------- */

struct mask_weights_work {
	const struct cpu_backend *cpu;
	struct tensor out, weight, rank;
	const void *threshold;
	bool shared;
};

static void mask_weights_part(const void *context, struct share rows)
{
	const struct mask_weights_work *w = context;
	w->cpu->kernels->prune->mask_weights(&w->out, &w->weight, &w->rank, w->threshold, w->shared, rows.first, rows.last);
}

static enum status mask_weights(struct backend *backend, struct tensor out, struct tensor weight, struct tensor rank,
				const void *threshold, bool shared)
{
	struct cpu_backend *cpu = cpu_of(backend);
	if (backend->dry) return STATUS_OK;
	const struct mask_weights_work work = {cpu, out, weight, rank, threshold, shared};
	cpu_share_out(cpu, out.rows, 1, out.rows * out.cols, mask_weights_part, &work);
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
