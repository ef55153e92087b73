/* The two clocks. */
#ifndef BESAD_BASE_CLOCK_H
#define BESAD_BASE_CLOCK_H

#include <stdint.h>

/* Seconds since some moment; no one sets this clock. */
double monotonic_seconds(void);

/* Milliseconds since 1970, as events and rows keep times. */
int64_t unix_milliseconds(void);

#endif
