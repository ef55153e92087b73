/* What the tests of the products share: random numbers that do not depend on who asked before, and how many of a row's weights
 * there are. */
#ifndef BESAD_TESTS_PRODUCTS_H
#define BESAD_TESTS_PRODUCTS_H

#include <stdint.h>

#include "base/random.h"

struct sequence {
	uint64_t seed, index;
};

static inline double uniform(struct sequence *sequence) /* [0, 1) */
{
	return (double)random_below(random_at(sequence->seed, sequence->index++), 1 << 30) * 0x1p-30;
}

/* Share of a row's weights that are not zero. */
static inline double density_of(int64_t row)
{
	static const double densities[] = {0.5, 0, 1, 0.02, 0.98};
	return densities[row % (int64_t)(sizeof densities / sizeof *densities)];
}

#endif
