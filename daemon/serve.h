#ifndef BESAD_DAEMON_SERVE_H
#define BESAD_DAEMON_SERVE_H

#include "daemon/options.h"

/* The daemon. Signals that end it are blocked when this is called, and in every thread. Returns the exit status, which is
 * SERVE_DAMAGED where the database is damaged, so that another start would not help, or SERVE_AGAIN where this process can
 * compute no more and is to be replaced: the listening sockets and the environment are ready for the next. */
enum { SERVE_AGAIN = -1, SERVE_DAMAGED = 3 };
int serve(const struct options *);

#endif
