/* The two clocks. */
#ifndef BESAD_BASE_CLOCK_H
#define BESAD_BASE_CLOCK_H

#include <pthread.h>
#include <stdint.h>
#include <time.h>

/* Seconds since some moment; no one sets this clock. */
double monotonic_seconds(void);

/* The moment so many seconds from now, on that clock, and a condition whose pthread_cond_timedwait goes by it. */
struct timespec monotonic_after(int seconds);
void monotonic_condition(pthread_cond_t *ret);

/* Milliseconds since 1970, as events and rows keep times. */
int64_t unix_milliseconds(void);

#endif
