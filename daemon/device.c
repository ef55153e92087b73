#include "daemon/device.h"

#include "daemon/log.h"

enum status device_open(const struct options *options, struct backend **ret, struct error *err)
{
	struct backend *backend;
	struct error reason;
	if (options->backend == BACKEND_CPU) {
		TRY(backend_cpu_create(options->threads, &backend, err));
	} else if (backend_cuda_create(options->device_memory, &backend, &reason)) {
		if (options->backend == BACKEND_CUDA) {
			*err = reason;
			return err->status;
		}
		log_info("computing on the CPU, without CUDA: %s", reason.message);
		TRY(backend_cpu_create(options->threads, &backend, err));
	}
	log_info("backend=%s device=\"%s\" threads=%d", backend->name, backend->device, backend->threads);
	*ret = backend;
	return STATUS_OK;
}
