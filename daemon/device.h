/* The choice of the compute backend. */
#ifndef BESAD_DAEMON_DEVICE_H
#define BESAD_DAEMON_DEVICE_H

#include "daemon/options.h"
#include "engine/compute/backend.h"

/* Makes the backend that the options ask for; auto takes CUDA if it can, else the CPU, and logs which and why; but not the
 * CPU once a device has been used: a job would go on a hundred times slower, and nobody be told. */
enum status device_open(const struct options *, struct backend **ret, struct error *err);

#endif
