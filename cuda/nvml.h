/* What the driver's management library (NVML) says about the GPU right now. It is loaded at run time: without it nvml_open fails
 * and all else works. For any thread, one call at a time. */
#ifndef BESAD_CUDA_NVML_H
#define BESAD_CUDA_NVML_H

#include <stdint.h>

#include "base/error.h"

struct nvml;

/* A negative value: the GPU does not tell. */
struct nvml_reading {
	double utilisation; /* of the last sampling period, 0 to 1 */
	double watts, celsius;
	double memory_used, memory_total; /* bytes, of all processes */
};

/* `bus` is the GPU's PCI bus id (struct backend.bus). `library` is NVML's file name; NULL for the driver's own.
 * STATUS_UNSUPPORTED, with the reason, where there is none or it does not know the GPU. */
enum status nvml_open(const char *library, const char *bus, struct nvml **ret, struct error *err);
void nvml_read(struct nvml *, struct nvml_reading *ret);
void nvml_close(struct nvml *); /* takes NULL */

#endif
