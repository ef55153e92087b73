#include "cuda/nvml.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* The part of <nvml.h> used here; the interface is stable and the header comes with no driver. */
struct utilisation {
	unsigned gpu, memory; /* percent */
};
struct memory {
	unsigned long long total, free, used;
};
enum { NVML_SUCCESS = 0, NVML_TEMPERATURE_GPU = 0 };

struct nvml {
	void *library, *device;
	int (*shutdown)(void);
	int (*utilisation)(void *device, struct utilisation *);
	int (*memory)(void *device, struct memory *);
	int (*power)(void *device, unsigned *milliwatts);
	int (*temperature)(void *device, int sensor, unsigned *celsius);
};

/* ISO C has no cast from an object pointer to a function's; POSIX promises that the bits are right. */
static bool find(void *library, const char *name, void *function)
{
	void *symbol = dlsym(library, name);
	memcpy(function, &symbol, sizeof symbol);
	return symbol != NULL;
}

enum status nvml_open(const char *library, const char *bus, struct nvml **ret, struct error *err)
{
	struct nvml n = {0};
	int (*init)(void), (*by_bus)(const char *, void **), result;
	const char *(*describe)(int);
	if (!library) library = "libnvidia-ml.so.1";
	n.library = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	if (!n.library) return error_set(err, STATUS_UNSUPPORTED, "cannot load %s: %s", library, dlerror());
	if (!find(n.library, "nvmlInit_v2", &init) || !find(n.library, "nvmlShutdown", &n.shutdown) ||
	    !find(n.library, "nvmlErrorString", &describe) || !find(n.library, "nvmlDeviceGetHandleByPciBusId_v2", &by_bus) ||
	    !find(n.library, "nvmlDeviceGetUtilizationRates", &n.utilisation) ||
	    !find(n.library, "nvmlDeviceGetMemoryInfo", &n.memory) || !find(n.library, "nvmlDeviceGetPowerUsage", &n.power) ||
	    !find(n.library, "nvmlDeviceGetTemperature", &n.temperature)) {
		dlclose(n.library);
		return error_set(err, STATUS_UNSUPPORTED, "%s lacks a function that besad needs", library);
	}
	struct nvml *opened = malloc(sizeof *opened);
	if (!opened) {
		dlclose(n.library);
		return error_set(err, STATUS_NO_MEMORY, "no memory for NVML");
	}
	bool begun = (result = init()) == NVML_SUCCESS;
	if (begun) result = by_bus(bus, &n.device);
	if (result != NVML_SUCCESS) {
		error_set(err, STATUS_UNSUPPORTED, "%s, GPU %s: %s", library, bus, describe(result));
		if (begun) n.shutdown();
		dlclose(n.library);
		free(opened);
		return STATUS_UNSUPPORTED;
	}
	*opened = n;
	*ret = opened;
	return STATUS_OK;
}

void nvml_read(struct nvml *n, struct nvml_reading *ret)
{
	struct utilisation utilisation;
	struct memory memory;
	unsigned value;
	*ret = (struct nvml_reading){-1, -1, -1, -1, -1};
	if (n->utilisation(n->device, &utilisation) == NVML_SUCCESS) ret->utilisation = utilisation.gpu / 100.0;
	if (n->power(n->device, &value) == NVML_SUCCESS) ret->watts = value / 1000.0;
	if (n->temperature(n->device, NVML_TEMPERATURE_GPU, &value) == NVML_SUCCESS) ret->celsius = value;
	if (n->memory(n->device, &memory) == NVML_SUCCESS) {
		ret->memory_used = (double)memory.used;
		ret->memory_total = (double)memory.total;
	}
}

void nvml_close(struct nvml *n)
{
	if (!n) return;
	n->shutdown();
	dlclose(n->library);
	free(n);
}
