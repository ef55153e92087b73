/* `besad pack`, `unpack` and `verify`. */
#ifndef BESAD_DAEMON_ARCHIVE_H
#define BESAD_DAEMON_ARCHIVE_H

#include "daemon/options.h"

/* Returns the exit status. */
int archive(const struct options *);

#endif
