#include "daemon/gauge.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/nvml.h"
#include "daemon/log.h"

struct gauge {
	bool gpu;
	struct nvml *nvml;    /* NULL: it tells nothing */
	uint64_t busy, ticks; /* of all processors, at the last reading */
};

static const struct device_reading unknown = {-1, -1, -1, -1, -1};

/* proc(5), /proc/stat: user nice system idle iowait irq softirq steal, in clock ticks. What the hypervisor steals counts as
 * time. */
static bool read_processors(uint64_t *ret_busy, uint64_t *ret_ticks)
{
	uint64_t t[8];
	FILE *file = fopen("/proc/stat", "re");
	if (!file) return false;
	int n = fscanf(file, "cpu %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64,
		       &t[0], &t[1], &t[2], &t[3], &t[4], &t[5], &t[6], &t[7]);
	fclose(file);
	if (n != 8) return false;
	*ret_busy = t[0] + t[1] + t[2] + t[5] + t[6];
	*ret_ticks = *ret_busy + t[3] + t[4] + t[7];
	return true;
}

static void read_memory(struct device_reading *ret)
{
	char line[128];
	double kilobytes, total = -1, available = -1;
	FILE *file = fopen("/proc/meminfo", "re");
	while (file && fgets(line, sizeof line, file)) {
		if (sscanf(line, "MemTotal: %lf kB", &kilobytes) == 1) total = kilobytes * 1024;
		if (sscanf(line, "MemAvailable: %lf kB", &kilobytes) == 1) available = kilobytes * 1024;
	}
	if (file) fclose(file);
	if (total < 0 || available < 0) return;
	ret->memory_total = total;
	ret->memory_used = total - available;
}

static void read_machine(struct gauge *gauge, struct device_reading *ret)
{
	uint64_t busy, ticks;
	read_memory(ret);
	if (!read_processors(&busy, &ticks)) return;
	if (gauge->ticks && ticks > gauge->ticks && busy >= gauge->busy)
		ret->utilisation = (double)(busy - gauge->busy) / (double)(ticks - gauge->ticks);
	gauge->busy = busy;
	gauge->ticks = ticks;
}

struct gauge *gauge_create(const struct backend *backend)
{
	struct error err;
	struct gauge *gauge = calloc(1, sizeof *gauge);
	if (!gauge) return NULL;
	gauge->gpu = backend->bus[0] != 0;
	if (gauge->gpu && nvml_open(NULL, backend->bus, &gauge->nvml, &err))
		log_warning("the GPU's utilisation, memory and power are not shown: %s", err.message);
	return gauge;
}

void gauge_free(struct gauge *gauge)
{
	if (!gauge) return;
	nvml_close(gauge->nvml);
	free(gauge);
}

void gauge_read(struct gauge *gauge, struct device_reading *ret)
{
	struct nvml_reading reading;
	*ret = unknown;
	if (!gauge->gpu) {
		read_machine(gauge, ret);
	} else if (gauge->nvml) {
		nvml_read(gauge->nvml, &reading);
		*ret = (struct device_reading){.utilisation = reading.utilisation,
					       .watts = reading.watts,
					       .celsius = reading.celsius,
					       .memory_used = reading.memory_used,
					       .memory_total = reading.memory_total};
	}
}
