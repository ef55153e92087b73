#ifndef BESAD_DAEMON_BENCH_H
#define BESAD_DAEMON_BENCH_H

#include "daemon/options.h"

/* `besad bench`: what the zeros of a model are worth, on standard output. Returns the exit status. */
int bench(const struct options *);

#endif
