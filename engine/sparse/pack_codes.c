#include <string.h>

#include "engine/sparse/kernels.h"

/* What of a matrix of codes is where in its memory: bitmap and offsets, of a sparse one, and the codes. */
struct places {
	int64_t mask, offsets, codes; /* bytes of each */
};

static int64_t align(int64_t bytes)
{
	return (bytes + SPARSE_ALIGNMENT - 1) / SPARSE_ALIGNMENT * SPARSE_ALIGNMENT;
}

static int64_t bytes_of(int64_t codes, int bits)
{
	return (codes * bits + 7) / 8;
}

/* The code of 0 for each column of row i, one group after the other. */
static int zero_of(const struct sparse_grids *grids, int64_t i, int64_t j)
{
	return grids->zeros ? grids->zeros[i * grids->groups + j / grids->group] : 1 << (grids->bits - 1);
}

static int64_t count_kept(const uint8_t *codes, int64_t cols, const struct sparse_grids *grids, int64_t i)
{
	int64_t count = 0;
	for (int64_t j = 0; j < cols; j++)
		count += codes[i * cols + j] != zero_of(grids, i, j);
	return count;
}

static struct sparse_matrix shape_of(int64_t rows, int64_t cols, const struct sparse_grids *grids)
{
	return (struct sparse_matrix){.rows = rows,
				      .cols = cols,
				      .words = (cols + SPARSE_WORD - 1) / SPARSE_WORD,
				      .block_rows = SPARSE_BLOCK_ROWS,
				      .blocks = (rows + SPARSE_BLOCK_ROWS - 1) / SPARSE_BLOCK_ROWS,
				      .row_bytes = (bytes_of(cols, grids->bits) + 3) / 4 * 4,
				      .grids = *grids};
}

/* Behind the last code of a block of rows, from its first on. */
static int64_t block_bytes(const uint8_t *codes, const struct sparse_matrix *matrix, int64_t block)
{
	int64_t bytes = 0;
	for (int64_t i = block * matrix->block_rows; i < sparse_block_end(matrix, block); i++)
		bytes += bytes_of(count_kept(codes, matrix->cols, &matrix->grids, i), matrix->grids.bits);
	return align(bytes);
}

static struct places find_places(const uint8_t *codes, const struct sparse_matrix *matrix, bool sparse)
{
	if (!sparse) return (struct places){.codes = align(matrix->rows * matrix->row_bytes)};
	struct places places = {.mask = align(matrix->rows * matrix->words * (int64_t)sizeof *matrix->mask),
				.offsets = align((matrix->blocks + 1) * (int64_t)sizeof *matrix->offsets)};
	for (int64_t block = 0; block < matrix->blocks; block++)
		places.codes += block_bytes(codes, matrix, block);
	return places;
}

int64_t sparse_codes_memory(const uint8_t *codes, int64_t rows, int64_t cols, const struct sparse_grids *grids, bool sparse)
{
	const struct sparse_matrix matrix = shape_of(rows, cols, grids);
	const struct places places = find_places(codes, &matrix, sparse);
	return places.mask + places.offsets + places.codes + SPARSE_SLACK;
}

static void put(uint8_t *row, int bits, int64_t at, int code)
{
	if (bits == 8)
		row[at] = (uint8_t)code;
	else
		row[at / 2] |= (uint8_t)(code << 4 * (at % 2));
}

/* One row; returns how many bytes it has. mask: NULL, all columns are kept. */
static int64_t pack_row(const uint8_t *codes, const struct sparse_matrix *matrix, int64_t i, uint64_t *mask, uint8_t *ret)
{
	int64_t at = 0;
	for (int64_t j = 0; j < matrix->cols; j++) {
		int code = codes[i * matrix->cols + j];
		if (mask && code == zero_of(&matrix->grids, i, j)) continue;
		if (mask) mask[i * matrix->words + j / SPARSE_WORD] |= UINT64_C(1) << j % SPARSE_WORD;
		put(ret, matrix->grids.bits, at++, code);
	}
	return mask ? bytes_of(at, matrix->grids.bits) : matrix->row_bytes;
}

struct sparse_matrix sparse_codes_pack(const uint8_t *codes, int64_t rows, int64_t cols, const struct sparse_grids *grids,
				       bool sparse, void *memory)
{
	struct sparse_matrix matrix = shape_of(rows, cols, grids);
	const struct places places = find_places(codes, &matrix, sparse);
	uint64_t *mask = sparse ? memory : NULL;
	int64_t *offsets = (int64_t *)((char *)memory + places.mask);
	uint8_t *to = (uint8_t *)offsets + places.offsets;
	memset(memory, 0, (size_t)(places.mask + places.offsets + places.codes + SPARSE_SLACK));
	matrix.mask = mask;
	matrix.offsets = sparse ? offsets : NULL;
	matrix.codes = to;
	for (int64_t block = 0; block < matrix.blocks; block++) {
		int64_t at = sparse ? offsets[block] : block * matrix.block_rows * matrix.row_bytes;
		for (int64_t i = block * matrix.block_rows; i < sparse_block_end(&matrix, block); i++)
			at += pack_row(codes, &matrix, i, mask, to + at);
		if (sparse) offsets[block + 1] = align(at);
	}
	return matrix;
}

struct sparse_matrix dense_matrix(const uint16_t *weights, int64_t rows, int64_t cols)
{
	return (struct sparse_matrix){.rows = rows,
				      .cols = cols,
				      .words = (cols + SPARSE_WORD - 1) / SPARSE_WORD,
				      .block_rows = SPARSE_BLOCK_ROWS,
				      .blocks = (rows + SPARSE_BLOCK_ROWS - 1) / SPARSE_BLOCK_ROWS,
				      .row_bytes = cols * (int64_t)sizeof *weights,
				      .values = weights};
}
