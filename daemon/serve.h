#ifndef BESAD_DAEMON_SERVE_H
#define BESAD_DAEMON_SERVE_H

#include "daemon/options.h"

/* The daemon. Signals that end it are blocked when this is called, and in every thread. Returns the exit status. */
int serve(const struct options *);

#endif
