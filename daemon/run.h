#ifndef BESAD_DAEMON_RUN_H
#define BESAD_DAEMON_RUN_H

#include "daemon/options.h"

/* `besad run`. Signals that end it are blocked when this is called. Returns the exit status. */
int run(const struct options *);

#endif
