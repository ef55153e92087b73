#include "engine/hardware/vitcod.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SIDE = 64, WORD = 64, MOST_TRIES = 5 };

/* The threshold t in tenths: exact, where the published code adds 0.1 in binary and compares in single precision, which agrees. */
enum { FIRST_THRESHOLD = 5, TENTHS = 10, DENSE_ENOUGH = 6, SPARSE_ENOUGH = 4 };

/* 76.8 GB/s at 500 MHz: 768 bytes in five cycles. */
enum { BUS_BYTES = 768, BUS_CYCLES = 5 };

struct patch {
	const struct nonzeros *matrix;
	int64_t first, cols;   /* its columns */
	const int64_t *filled; /* [cols]: weights of each column that are not zero */
	int64_t nonzeros;      /* of all its columns */
	int width;             /* bytes of a weight */
	bool last;             /* the output is written behind it */
	uint64_t *sparse;      /* room for a row of bits */
};

/* What is dense of a patch, and how many of the PE columns compute it. */
struct split {
	int64_t columns, dense_nonzeros; /* of the dense columns */
	int64_t nonzeros;                /* of the others */
	int64_t dense_pes, sparse_pes;   /* columns of the array */
};

static int64_t ratio(int64_t a, int64_t b) /* ⌈a / b⌉ */
{
	return (a + b - 1) / b;
}

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static bool is_dense(const struct patch *patch, int64_t column, int threshold)
{
	return TENTHS * patch->filled[column] > threshold * patch->matrix->rows;
}

static struct split split_at(const struct patch *patch, int threshold)
{
	struct split split = {0};
	for (int64_t j = 0; j < patch->cols; j++)
		if (is_dense(patch, j, threshold)) {
			split.columns++;
			split.dense_nonzeros += patch->filled[j];
		}
	split.nonzeros = patch->nonzeros - split.dense_nonzeros;
	int64_t work = split.columns * patch->matrix->rows;
	split.dense_pes = work ? SIDE * work / (work + split.nonzeros) : 0;
	split.sparse_pes = SIDE - split.dense_pes;
	return split;
}

static int64_t published_cycles(const struct patch *patch, const struct split *split)
{
	int64_t dense = split->dense_pes ? ratio(patch->cols * split->columns, split->dense_pes * SIDE) : 0;
	int64_t sparse = split->sparse_pes ? ratio(split->nonzeros, split->sparse_pes * SIDE) : 0;
	return larger(dense, sparse);
}

/* Dense columns that no PE was given for are computed with the others. */
static struct split without_idle_columns(const struct split *split)
{
	if (split->dense_pes) return *split;
	return (struct split){.nonzeros = split->nonzeros + split->dense_nonzeros, .sparse_pes = SIDE};
}

static int64_t corrected_cycles(const struct patch *patch, const struct split *split)
{
	int64_t dense = split->dense_pes ? ratio(patch->matrix->rows * split->columns, split->dense_pes * SIDE) : 0;
	int64_t sparse = split->sparse_pes ? ratio(split->nonzeros, split->sparse_pes * SIDE) : 0;
	return larger(dense, sparse);
}

/* Marks the columns of the patch that are computed as sparse ones. */
static void mark_sparse(const struct patch *patch, const struct split *split, int threshold)
{
	memset(patch->sparse, 0, (size_t)patch->matrix->words * sizeof *patch->sparse);
	for (int64_t j = 0; j < patch->cols; j++) {
		int64_t at = patch->first + j;
		if (!split->columns || !is_dense(patch, j, threshold)) patch->sparse[at / WORD] |= UINT64_C(1) << at % WORD;
	}
}

/* The most weights that a row of [first, end) has in the marked columns. */
static int64_t fullest_row(const struct patch *patch, int64_t first, int64_t end)
{
	int64_t from = patch->first / WORD, to = ratio(patch->first + patch->cols, WORD), most = 0;
	for (int64_t i = first; i < end; i++) {
		const uint64_t *row = patch->matrix->bits + i * patch->matrix->words;
		int64_t count = 0;
		for (int64_t word = from; word < to; word++)
			count += __builtin_popcountll(row[word] & patch->sparse[word]);
		most = larger(most, count);
	}
	return most;
}

static int64_t balanced_cycles(const struct patch *patch, const struct split *split, int threshold)
{
	int64_t rows = patch->matrix->rows, sparse = 0;
	int64_t dense = split->dense_pes ? ratio(rows, SIDE) * ratio(split->columns, split->dense_pes) : 0;
	if (!split->nonzeros) return dense;
	mark_sparse(patch, split, threshold);
	for (int64_t first = 0; first < rows; first += SIDE) {
		int64_t end = rows - first < SIDE ? rows : first + SIDE;
		sparse += ratio(fullest_row(patch, first, end), split->sparse_pes);
	}
	return larger(dense, sparse);
}

/* Of `bytes` of weights, and of input and output. */
static int64_t transfer_cycles(const struct patch *patch, int64_t bytes)
{
	int64_t vectors = patch->cols + (patch->last ? patch->matrix->rows : 0);
	return ratio((bytes + vectors * patch->width) * BUS_CYCLES, BUS_BYTES);
}

static struct vitcod_cycles slower(int64_t compute, int64_t transfer)
{
	return (struct vitcod_cycles){larger(compute, transfer), compute, transfer};
}

static struct vitcod_cycles memory_cycles(const struct patch *patch, const struct split *split, int threshold)
{
	int64_t rows = patch->matrix->rows;
	int64_t bits = rows * (patch->cols - split->columns);
	int64_t bytes = (rows * split->columns + split->nonzeros) * patch->width + ratio(bits, 8) + ratio(patch->cols, 8);
	return slower(balanced_cycles(patch, split, threshold), transfer_cycles(patch, bytes));
}

static void try_threshold(const struct patch *patch, const struct split *split, int threshold,
			  struct vitcod_cycles ret[VITCOD_VARIANTS])
{
	struct split whole = without_idle_columns(split);
	ret[VITCOD_PUBLISHED] = (struct vitcod_cycles){.cycles = published_cycles(patch, split)};
	ret[VITCOD_CORRECTED] = (struct vitcod_cycles){.cycles = corrected_cycles(patch, &whole)};
	ret[VITCOD_MEMORY] = memory_cycles(patch, &whole, threshold);
}

/* The least of all tries, variant by variant. */
static void simulate_pruned(const struct patch *patch, struct vitcod_cycles ret[VITCOD_VARIANTS])
{
	int threshold = FIRST_THRESHOLD;
	for (int tries = 0; tries < MOST_TRIES; tries++) {
		struct vitcod_cycles now[VITCOD_VARIANTS];
		struct split split = split_at(patch, threshold);
		try_threshold(patch, &split, threshold, now);
		for (int v = 0; v < VITCOD_VARIANTS; v++)
			if (!tries || now[v].cycles < ret[v].cycles) ret[v] = now[v];
		if (!patch->nonzeros) return;
		if (TENTHS * split.dense_nonzeros >= DENSE_ENOUGH * patch->nonzeros)
			threshold++;
		else if (TENTHS * split.dense_nonzeros <= SPARSE_ENOUGH * patch->nonzeros)
			threshold--;
		else
			return;
	}
}

static void simulate_dense(const struct patch *patch, struct vitcod_cycles ret[VITCOD_VARIANTS])
{
	int64_t rows = patch->matrix->rows, cols = patch->cols;
	ret[VITCOD_PUBLISHED] = (struct vitcod_cycles){.cycles = ratio(cols * cols, SIDE * SIDE)};
	ret[VITCOD_CORRECTED] = (struct vitcod_cycles){.cycles = ratio(rows * cols, SIDE * SIDE)};
	ret[VITCOD_MEMORY] = slower(ratio(rows, SIDE) * ratio(cols, SIDE), transfer_cycles(patch, rows * cols * patch->width));
}

static void count_columns(const struct nonzeros *matrix, int64_t *ret)
{
	for (int64_t i = 0; i < matrix->rows; i++)
		for (int64_t word = 0; word < matrix->words; word++) {
			uint64_t bits = matrix->bits[i * matrix->words + word];
			int64_t *counts = ret + word * WORD;
			for (int64_t j = 0; bits; j++, bits >>= 1)
				counts[j] += bits & 1;
		}
}

static void add_cycles(struct vitcod_cycles *sum, const struct vitcod_cycles *cycles)
{
	for (int v = 0; v < VITCOD_VARIANTS; v++) {
		sum[v].cycles += cycles[v].cycles;
		sum[v].compute += cycles[v].compute;
		sum[v].transfer += cycles[v].transfer;
	}
}

void vitcod_add(struct vitcod_cost *sum, const struct vitcod_cost *cost)
{
	add_cycles(sum->pruned, cost->pruned);
	add_cycles(sum->dense, cost->dense);
}

enum status vitcod_simulate(const struct nonzeros *matrix, int64_t patch_cols, int width, struct vitcod_cost *ret,
			    struct error *err)
{
	struct vitcod_cost sum = {0};
	int64_t *filled = calloc((size_t)matrix->words * WORD + 1, sizeof *filled);
	uint64_t *sparse = calloc((size_t)matrix->words + 1, sizeof *sparse);
	if (!filled || !sparse) {
		free(filled);
		free(sparse);
		return error_set(err, STATUS_NO_MEMORY, "no memory to simulate a matrix of %" PRId64 " columns", matrix->cols);
	}
	count_columns(matrix, filled);
	for (int64_t first = 0; first < matrix->cols; first += patch_cols) {
		struct vitcod_cost cost;
		int64_t rest = matrix->cols - first;
		struct patch patch = {.matrix = matrix,
				      .first = first,
				      .cols = rest < patch_cols ? rest : patch_cols,
				      .filled = filled + first,
				      .width = width,
				      .last = rest <= patch_cols,
				      .sparse = sparse};
		for (int64_t j = 0; j < patch.cols; j++)
			patch.nonzeros += patch.filled[j];
		simulate_pruned(&patch, cost.pruned);
		simulate_dense(&patch, cost.dense);
		vitcod_add(&sum, &cost);
	}
	free(filled);
	free(sparse);
	*ret = sum;
	return STATUS_OK;
}
