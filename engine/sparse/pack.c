#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "engine/sparse/matvec.h"

static int64_t align(int64_t bytes)
{
	return (bytes + SPARSE_ALIGNMENT - 1) / SPARSE_ALIGNMENT * SPARSE_ALIGNMENT;
}

static int64_t count_values(const uint16_t *dense, int64_t elements)
{
	int64_t count = 0;
	for (int64_t i = 0; i < elements; i++)
		count += (dense[i] & 0x7fff) != 0;
	return count;
}

/* One row; returns behind its last value. */
static uint16_t *pack_row(const uint16_t *dense, int64_t cols, uint64_t *mask, uint16_t *values)
{
	for (int64_t j = 0; j < cols; j++) {
		if (!(dense[j] & 0x7fff)) continue;
		mask[j / SPARSE_WORD] |= UINT64_C(1) << j % SPARSE_WORD;
		*values++ = dense[j];
	}
	return values;
}

static struct sparse_matrix shape_of(int64_t rows, int64_t cols)
{
	return (struct sparse_matrix){.rows = rows,
				      .cols = cols,
				      .words = (cols + SPARSE_WORD - 1) / SPARSE_WORD,
				      .block_rows = SPARSE_BLOCK_ROWS,
				      .blocks = (rows + SPARSE_BLOCK_ROWS - 1) / SPARSE_BLOCK_ROWS};
}

static int64_t mask_bytes(const struct sparse_matrix *matrix)
{
	return align(matrix->rows * matrix->words * (int64_t)sizeof *matrix->mask);
}

static int64_t offsets_bytes(const struct sparse_matrix *matrix)
{
	return align((matrix->blocks + 1) * (int64_t)sizeof *matrix->offsets);
}

int64_t sparse_memory(const uint16_t *dense, int64_t rows, int64_t cols)
{
	const struct sparse_matrix matrix = shape_of(rows, cols);
	int64_t bytes = mask_bytes(&matrix) + offsets_bytes(&matrix) + SPARSE_SLACK;
	for (int64_t first = 0; first < rows; first += SPARSE_BLOCK_ROWS) {
		int64_t height = rows - first < SPARSE_BLOCK_ROWS ? rows - first : SPARSE_BLOCK_ROWS;
		bytes += align(count_values(dense + first * cols, height * cols) * (int64_t)sizeof *matrix.values);
	}
	return bytes;
}

struct sparse_matrix sparse_pack(const uint16_t *dense, int64_t rows, int64_t cols, void *memory)
{
	struct sparse_matrix matrix = shape_of(rows, cols);
	uint64_t *mask = memory;
	int64_t *offsets = (int64_t *)((char *)memory + mask_bytes(&matrix));
	uint16_t *values = (uint16_t *)((char *)offsets + offsets_bytes(&matrix));
	memset(mask, 0, (size_t)mask_bytes(&matrix));
	offsets[0] = 0;
	for (int64_t block = 0; block < matrix.blocks; block++) {
		uint16_t *first = values + offsets[block] / (int64_t)sizeof *values, *end = first;
		int64_t last = (block + 1) * SPARSE_BLOCK_ROWS < rows ? (block + 1) * SPARSE_BLOCK_ROWS : rows;
		for (int64_t i = block * SPARSE_BLOCK_ROWS; i < last; i++)
			end = pack_row(dense + i * cols, cols, mask + i * matrix.words, end);
		offsets[block + 1] = offsets[block] + align((end - first) * (int64_t)sizeof *values);
		memset(end, 0, (size_t)(offsets[block + 1] - offsets[block]) - (size_t)(end - first) * sizeof *values);
	}
	memset((char *)values + offsets[matrix.blocks], 0, SPARSE_SLACK);
	matrix.mask = mask;
	matrix.offsets = offsets;
	matrix.values = values;
	return matrix;
}

int64_t sparse_bytes(const struct sparse_matrix *matrix)
{
	const struct sparse_grids *grids = &matrix->grids;
	int64_t bytes = matrix->rows * matrix->row_bytes;
	if (matrix->mask) bytes = matrix->rows * matrix->words * (int64_t)sizeof *matrix->mask + matrix->offsets[matrix->blocks];
	if (!grids->bits) return bytes;
	return bytes + matrix->rows * grids->groups * (int64_t)(sizeof *grids->steps + (grids->zeros ? sizeof *grids->zeros : 0));
}

void *matvec_allocate(size_t bytes)
{
	size_t page = 2 << 20, whole = (bytes / page + 1) * page;
	void *memory = aligned_alloc(page, whole);
	if (memory) (void)madvise(memory, whole, MADV_HUGEPAGE); /* where the system has none, small ones do */
	return memory;
}
