/* `besad generate`. */
#ifndef BESAD_DAEMON_GENERATE_H
#define BESAD_DAEMON_GENERATE_H

#include "daemon/options.h"

/* Returns the exit status: EXIT_STOPPED + n where signal n stopped it. */
int generate(const struct options *);

#endif
