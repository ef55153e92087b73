/* How busy and how full the compute device is: a GPU as NVML tells it, else the machine's processors and memory as /proc does. */
#ifndef BESAD_DAEMON_GAUGE_H
#define BESAD_DAEMON_GAUGE_H

#include "api/metrics.h"
#include "engine/compute/backend.h"

struct gauge;

/* For the device of `backend`, which need not live on. NULL when memory runs out. A GPU of which nothing can be learned is
 * logged, and its readings say nothing. */
struct gauge *gauge_create(const struct backend *backend);
void gauge_free(struct gauge *); /* takes NULL */

/* Reads the device; its utilisation is that since the last reading. One call at a time. */
void gauge_read(struct gauge *, struct device_reading *ret);

#endif
