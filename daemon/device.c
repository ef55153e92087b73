#include "daemon/device.h"

#include <stdlib.h>

#include "daemon/log.h"
#include "daemon/worker.h"

static bool used; /* a CUDA device, by this process */

enum status device_open(const struct options *options, struct backend **ret, struct error *err)
{
	struct backend *backend;
	struct error reason;
	bool had_device = used || getenv(WORKER_LOST);
	if (options->backend == BACKEND_CPU) {
		TRY(backend_cpu_create(options->threads, &backend, err));
	} else if (backend_cuda_create(options->device_memory, &backend, &reason)) {
		if (options->backend == BACKEND_CUDA || had_device) {
			*err = reason;
			if (had_device) error_prefix(err, "the CPU does not take over from a CUDA device");
			return err->status;
		}
		log_info("computing on the CPU, without CUDA: %s", reason.message);
		TRY(backend_cpu_create(options->threads, &backend, err));
	}
	if (!backend->unified) used = true;
	log_info("backend=%s device=\"%s\" threads=%d", backend->name, backend->device, backend->threads);
	*ret = backend;
	return STATUS_OK;
}
