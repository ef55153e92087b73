/* Whole parts of a whole, by weight. */
#ifndef BESAD_ENGINE_APPORTION_H
#define BESAD_ENGINE_APPORTION_H

#include <stdint.h>

/* Divides `whole` into `count` shares by weight (above 0; largest remainder method): each gets the whole part of what it is due,
 * and those with the largest fractions one more, the earlier where they tie. shares [count] add up to `whole`; a share may be 0. */
void apportion(const double *weights, int count, int64_t whole, int64_t *shares);

#endif
