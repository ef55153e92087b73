#include "engine/hardware/nonzeros.h"

#include <inttypes.h>
#include <stdlib.h>

enum { WORD = 64 };

/* The bits of `count` ≤ 64 elements. */
static uint64_t word_of_floats(const uint32_t *elements, int64_t count)
{
	uint64_t word = 0;
	for (int64_t i = 0; i < count; i++)
		word |= (uint64_t)((elements[i] & 0x7fffffff) != 0) << i;
	return word;
}

static uint64_t word_of_halves(const uint16_t *elements, int64_t count)
{
	uint64_t word = 0;
	for (int64_t i = 0; i < count; i++)
		word |= (uint64_t)((elements[i] & 0x7fff) != 0) << i;
	return word;
}

enum status nonzeros_find(const void *data, enum dtype dtype, int64_t rows, int64_t cols, struct nonzeros *ret, struct error *err)
{
	struct nonzeros found = {.rows = rows, .cols = cols, .words = (cols + WORD - 1) / WORD};
	if (dtype != DTYPE_F32 && dtype != DTYPE_BF16 && dtype != DTYPE_F16)
		return error_set(err, STATUS_INTERNAL, "the zeros of a matrix of another type than F32, BF16 and F16");
	/* calloc of nothing may give NULL. */
	found.bits = calloc((size_t)(rows * found.words) + 1, sizeof *found.bits);
	if (!found.bits)
		return error_set(err, STATUS_NO_MEMORY, "no memory for the zeros of a matrix [%" PRId64 ", %" PRId64 "]", rows,
				 cols);
	for (int64_t i = 0; i < rows; i++)
		for (int64_t j = 0; j < cols; j += WORD) {
			int64_t count = cols - j < WORD ? cols - j : WORD, at = i * cols + j;
			found.bits[i * found.words + j / WORD] = dtype == DTYPE_F32
									 ? word_of_floats((const uint32_t *)data + at, count)
									 : word_of_halves((const uint16_t *)data + at, count);
		}
	*ret = found;
	return STATUS_OK;
}

void nonzeros_free(struct nonzeros *nonzeros)
{
	free(nonzeros->bits);
	*nonzeros = (struct nonzeros){0};
}
