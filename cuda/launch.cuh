/* How an operation starts its kernels. */
#ifndef BESAD_CUDA_LAUNCH_CUH
#define BESAD_CUDA_LAUNCH_CUH

#include "cuda/context.h"
#include "cuda/device.cuh"

template <typename... P, typename... A>
static enum status cuda_launch(struct cuda *c, const char *file, int line, const char *name, void (*kernel)(P...), dim3 grid,
			       dim3 block, size_t shared, A... args)
{
	if (c->base.dry) return STATUS_OK;
	(void)cudaGetLastError(); /* what another call left is not this launch's; what stays comes back */
	cudaError_t error = platform_launch(kernel, grid, block, shared, c->stream, static_cast<P>(args)...);
	return error == cudaSuccess ? STATUS_OK : cuda_fail(c, error, name, file, line);
}

/* LAUNCH(c, kernel, grid, block, shared bytes, arguments…): the status of a launch on the backend's stream. */
#define LAUNCH(c, kernel, ...) cuda_launch(c, __FILE__, __LINE__, #kernel, kernel, __VA_ARGS__)

static inline dim3 elementwise_grid(int64_t rows, int64_t cols, int n)
{
	return dim3((unsigned)index_ceil_div(rows, ELEMENTWISE_ROWS),
		    (unsigned)index_ceil_div(cols, (int64_t)n * 32 * ELEMENTWISE_STEPS));
}

static inline dim3 elementwise_block()
{
	return dim3(32, ELEMENTWISE_ROWS);
}

#endif
