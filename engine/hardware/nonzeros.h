/* Which weights of a linear are not zero: a bit each. */
#ifndef BESAD_ENGINE_HARDWARE_NONZEROS_H
#define BESAD_ENGINE_HARDWARE_NONZEROS_H

#include <stdint.h>

#include "base/error.h"
#include "engine/compute/tensor.h"

struct nonzeros {
	int64_t rows, cols;
	int64_t words;  /* of a row, which begins with a new one */
	uint64_t *bits; /* [rows, words]: bit j % 64 of word j / 64 is column j's; those behind the last column are 0 */
};

/* Of a matrix [rows, cols] of type F32, BF16 or F16, row by row; zeros of either sign are zeros. Freed with nonzeros_free. */
enum status nonzeros_find(const void *data, enum dtype dtype, int64_t rows, int64_t cols, struct nonzeros *ret, struct error *err);
void nonzeros_free(struct nonzeros *);

#endif
