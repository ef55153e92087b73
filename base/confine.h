/* Takes from this process what it never needs of the kernel, so that a hole in it is worth less (seccomp(2)). What is forbidden
 * fails with EPERM; nothing is killed. It is a list of what is forbidden, not of what may be: a GPU's driver asks for much that
 * changes from one version to the next. */
#ifndef BESAD_BASE_CONFINE_H
#define BESAD_BASE_CONFINE_H

#include <stdbool.h>

#include "base/error.h"

/* For all threads, those that there are and those to come, and for programs that this process runs, which gain no rights by
 * being setuid from then on. There is no way back. `programs`: it may run programs at all. STATUS_UNSUPPORTED where it was built
 * without libseccomp. */
enum status confine_process(bool programs, struct error *err);

#endif
