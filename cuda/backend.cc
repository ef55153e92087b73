/* The CUDA backend: creation, errors and the table of its operations. */
#include "cuda/memory.h"

#include <atomic>
#include <new>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* The operation and its sizes: "matmul [2048,4096] bf16, …". */
static void describe(const struct cuda *c, char *text, size_t size)
{
	static const char *const types[] = {"f32", "bf16", "f16", "f64", "i64", "i32", "u16", "u8"};
	size_t length = (size_t)snprintf(text, size, "%s", c->call.name);
	for (int i = 0; i < c->call.tensors && length < size; i++) {
		const struct tensor *t = &c->call.tensor[i];
		length += (size_t)snprintf(text + length, size - length, "%s[%lld,%lld] %s", i ? ", " : " ", (long long)t->rows,
					   (long long)t->cols, types[t->dtype]);
	}
}

enum status cuda_refuse(struct cuda *c, enum status status, const char *format, ...)
{
	char call[400], reason[512];
	va_list args;
	describe(c, call, sizeof call);
	va_start(args, format);
	vsnprintf(reason, sizeof reason, format, args);
	va_end(args);
	return error_set(&c->base.error, status, "cuda %s: %s", call, reason);
}

static std::atomic<bool> lost;

bool backend_cuda_lost(void)
{
	return lost;
}

/* The driver's documentation says of these that the process must end before the device can be used again. */
static bool error_stays(cudaError_t error)
{
	switch (error) {
	case cudaErrorECCUncorrectable:
	case cudaErrorNvlinkUncorrectable:
	case cudaErrorIllegalAddress:
	case cudaErrorLaunchTimeout:
	case cudaErrorAssert:
	case cudaErrorHardwareStackError:
	case cudaErrorIllegalInstruction:
	case cudaErrorMisalignedAddress:
	case cudaErrorInvalidAddressSpace:
	case cudaErrorInvalidPc:
	case cudaErrorLaunchFailure:
	case cudaErrorUnknown:
		return true;
	default:
		return false;
	}
}

void cuda_note_error(cudaError_t error)
{
	if (error_stays(error) || error_stays(cudaGetLastError())) lost = true;
}

enum status cuda_fail(struct cuda *c, cudaError_t error, const char *what, const char *file, int line)
{
	enum status status = error == cudaErrorMemoryAllocation ? STATUS_NO_MEMORY : STATUS_BACKEND;
	cuda_note_error(error);
	return cuda_refuse(c, status, "%.200s failed at %s:%d: %s (%s); an operation before it may be the cause", what, file, line,
			   cudaGetErrorString(error), cudaGetErrorName(error));
}

static void destroy(struct backend *backend)
{
	struct cuda *c = (struct cuda *)backend;
	if (c->stream) (void)cudaStreamSynchronize(c->stream);
	cuda_matmuls_destroy(c);
	cuda_memory_destroy(c);
	if (c->stream) (void)cudaStreamDestroy(c->stream);
	if (!backend->dry) (void)cudaGetLastError();
	dry_free(backend->dry);
	delete c;
}

static enum status create_dry(struct backend *backend, size_t capacity, struct backend **ret)
{
	const struct cuda *of = cuda_begin(backend, "dry", {});
	struct cuda *c = new (std::nothrow) cuda();
	if (c) c->base.dry = (struct dry *)calloc(1, sizeof *c->base.dry);
	if (!c || !c->base.dry) {
		delete c;
		return cuda_refuse((struct cuda *)backend, STATUS_NO_MEMORY, "no host memory");
	}
	struct dry *dry = c->base.dry;
	c->base = of->base;
	c->base.memory = c->base.host = {};
	c->base.dry = dry;
	dry->capacity = capacity;
	c->processors = of->processors;
	c->shared_memory = of->shared_memory;
	c->panel_bytes = of->panel_bytes;
	dry_operations(&c->base.unchecked);
	backend_check_operations(&c->base);
	enum status status = cuda_memory_create(c, capacity);
	if (status == STATUS_OK) status = cuda_matmuls_create(c);
	if (status != STATUS_OK) {
		backend->error = c->base.error;
		destroy(&c->base);
		return status;
	}
	*ret = &c->base;
	return STATUS_OK;
}

static void set_operations(struct backend_ops *ops)
{
	ops->destroy = destroy;
	ops->dry = create_dry;
	cuda_activation_operations(ops);
	cuda_attention_backward_operations(ops);
	cuda_attention_forward_operations(ops);
	cuda_binned_gradient_operations(ops);
	cuda_compensate_operations(ops);
	cuda_elementwise_operations(ops);
	cuda_importance_operations(ops);
	cuda_logprobs_operations(ops);
	cuda_matmul_operations(ops);
	cuda_memory_operations(ops);
	cuda_norm_operations(ops);
	cuda_optimizer_operations(ops);
	cuda_quantize_operations(ops);
	cuda_rank_operations(ops);
	cuda_rates_operations(ops);
	cuda_reconstruction_operations(ops);
	cuda_recording_operations(ops);
	cuda_rope_operations(ops);
	cuda_route_operations(ops);
	cuda_sinks_operations(ops);
	cuda_solve_operations(ops);
	cuda_vector_gradient_operations(ops);
}

static enum status open_device(struct cuda *c, size_t memory_limit)
{
	cudaDeviceProp properties;
	cuda_begin(&c->base, "create", {});
	CUDA_TRY(c, cudaSetDevice(0));
	CUDA_TRY(c, cudaGetDeviceProperties(&properties, 0));
	if (properties.major < 8)
		return cuda_refuse(c, STATUS_UNSUPPORTED, "%s has compute capability %d.%d; 8.0 is the least", properties.name,
				   properties.major, properties.minor);
	if (properties.sharedMemPerBlockOptin < SHARED_LEAST)
		return cuda_refuse(c, STATUS_UNSUPPORTED, "%s gives a block %zu bytes of shared memory; %zu is the least",
				   properties.name, properties.sharedMemPerBlockOptin, SHARED_LEAST);
	CUDA_TRY(c, cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking));
	CUDA_TRY(c, cudaDeviceGetPCIBusId(c->base.bus, (int)sizeof c->base.bus, 0));
	c->processors = properties.multiProcessorCount;
	c->shared_memory = properties.sharedMemPerBlockOptin;
	c->panel_bytes = PANEL_BYTES;
	snprintf(c->base.device, sizeof c->base.device, "%.80s, %zu MiB", properties.name, properties.totalGlobalMem >> 20);
	TRY(cuda_memory_create(c, memory_limit));
	return cuda_matmuls_create(c);
}

extern "C" enum status backend_cuda_create(size_t memory_limit, struct backend **ret, struct error *err)
{
	int devices = 0, driver = 0;
	if (lost)
		return error_set(err, STATUS_BACKEND,
				 "an error has lost the CUDA device to this process; another process can use it");
	if (cudaDriverGetVersion(&driver) != cudaSuccess || driver == 0)
		return error_set(err, STATUS_UNSUPPORTED, "no CUDA driver is installed");
	cudaError_t error = cudaGetDeviceCount(&devices);
	(void)cudaGetLastError();
	if (error == cudaErrorInsufficientDriver)
		return error_set(err, STATUS_UNSUPPORTED, "the driver is for CUDA %d.%d, this build needs %d.%d", driver / 1000,
				 driver % 1000 / 10, CUDART_VERSION / 1000, CUDART_VERSION % 1000 / 10);
	if (error != cudaSuccess || devices == 0)
		return error_set(err, STATUS_UNSUPPORTED, "no CUDA device: %s",
				 error == cudaSuccess ? "the driver reports none" : cudaGetErrorString(error));
	struct cuda *c = new (std::nothrow) cuda();
	if (!c) return error_set(err, STATUS_NO_MEMORY, "no memory for the CUDA backend");
	set_operations(&c->base.unchecked);
	backend_check_operations(&c->base);
	c->base.name = "cuda";
	c->base.native_bf16 = true;
	c->base.threads = 1;
	enum status status = open_device(c, memory_limit);
	if (status != STATUS_OK) {
		error_set(err, status, "%s", c->base.error.message);
		destroy(&c->base);
		return status;
	}
	*ret = &c->base;
	return STATUS_OK;
}
