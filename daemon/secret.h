#ifndef BESAD_DAEMON_SECRET_H
#define BESAD_DAEMON_SECRET_H

#include "base/error.h"

/* STATUS_INVALID where others than who runs besad can read or write the file. */
enum status secret_check(const char *path, struct error *err);

#endif
