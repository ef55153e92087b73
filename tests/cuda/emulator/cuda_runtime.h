/* A CUDA runtime on the host, enough to run besad's kernels on a machine without a GPU: the part of <cuda_runtime.h> that cuda/
 * uses, with the same names. Only the tests are built with it.
 *
 * A block's threads are coroutines that switch at barriers and warp operations; blocks run one after the other. What it finds:
 * wrong indices, reads of memory nobody wrote (allocations start as NaN), accesses past an allocation's end (a guard page
 * follows each), barriers that not all threads reach, missing barriers (EMULATOR_ORDER=reverse|shuffle runs the threads in
 * another order), and wrong tensor-core fragments. Work on a stream is done as late as a device may do it: when somebody waits
 * for it, so that what may not change meanwhile must not. An access to no memory is an error that stays, as on a device. What it
 * cannot find: weak memory ordering, and anything about speed. faults.h beside this says what tests may make fail. */
#ifndef EMULATOR_CUDA_RUNTIME_H
#define EMULATOR_CUDA_RUNTIME_H

#include <functional>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __host__
#define __device__
#define __forceinline__ inline
#define __restrict__
#define __shared__ static
#define __align__(n) alignas(n)
#define __launch_bounds__(...)

struct uint2 {
	unsigned x, y;
};
struct alignas(16) uint4 {
	unsigned x, y, z, w;
};
struct float2 {
	float x, y;
};
struct alignas(16) float4 {
	float x, y, z, w;
};
struct dim3 {
	unsigned x, y, z;
	dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_)
	{
	}
};

static inline uint2 make_uint2(unsigned x, unsigned y)
{
	return {x, y};
}
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w)
{
	return {x, y, z, w};
}
static inline float2 make_float2(float x, float y)
{
	return {x, y};
}
static inline float4 make_float4(float x, float y, float z, float w)
{
	return {x, y, z, w};
}

/* ---- threads ---------------------------------------------------------------------------------------------------------------- */

/* What a lane gives the others of its warp. */
struct emulator_word {
	alignas(16) unsigned char bytes[16];
};

/* Of a warp's product: a lane puts its fragments there, and takes its part of c. */
struct emulator_matrices {
	alignas(16) float a[16][16], b[16][8], c[16][8];
};

struct emulator_thread {
	dim3 thread, block, block_size, grid;
	int lane, warp;
	emulator_word *slots, *other_slots; /* of the warp's lanes: for the exchange that comes next, and for the one behind it */
	emulator_matrices *matrices;
};
extern emulator_thread *emulator_self;

#define threadIdx (emulator_self->thread)
#define blockIdx (emulator_self->block)
#define blockDim (emulator_self->block_size)
#define gridDim (emulator_self->grid)

void emulator_launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &kernel);
void *emulator_shared();
void emulator_block_barrier();
/* Until all lanes of the warp are here; `work` is done once on its matrices, before they go on. */
void emulator_meet();
void emulator_meet(void (*work)(emulator_matrices *));

/* Every lane gives up to 16 bytes; after the call `all[l]` is lane l's, until the lane's next call. */
static inline const emulator_word *emulator_exchange(const void *mine, size_t bytes)
{
	emulator_thread *self = emulator_self;
	emulator_word *all = self->slots;
	self->slots = self->other_slots;
	self->other_slots = all;
	memcpy(all[self->lane].bytes, mine, bytes);
	emulator_meet();
	return all;
}

static inline void __syncthreads()
{
	emulator_block_barrier();
}

static inline void __syncwarp(unsigned = 0xffffffffu)
{
	emulator_meet();
}

template <typename T> static inline T emulator_take(const emulator_word *all, int lane)
{
	T x;
	memcpy(&x, all[lane & 31].bytes, sizeof x);
	return x;
}

template <typename T> static inline T __shfl_sync(unsigned, T x, int lane)
{
	return emulator_take<T>(emulator_exchange(&x, sizeof x), lane);
}

template <typename T> static inline T __shfl_xor_sync(unsigned mask, T x, int bits)
{
	return __shfl_sync(mask, x, emulator_self->lane ^ bits);
}

template <typename T> static inline T __shfl_up_sync(unsigned mask, T x, unsigned by)
{
	int from = emulator_self->lane - (int)by;
	return __shfl_sync(mask, x, from < 0 ? emulator_self->lane : from);
}

static inline unsigned __ballot_sync(unsigned, int predicate)
{
	const emulator_word *all = emulator_exchange(&predicate, sizeof predicate);
	unsigned bits = 0;
	for (int i = 0; i < 32; i++)
		bits |= (unsigned)(emulator_take<int>(all, i) != 0) << i;
	return bits;
}

static inline unsigned __match_any_sync(unsigned, unsigned x)
{
	const emulator_word *all = emulator_exchange(&x, sizeof x);
	unsigned bits = 0;
	for (int i = 0; i < 32; i++)
		bits |= (unsigned)(emulator_take<unsigned>(all, i) == x) << i;
	return bits;
}

static inline uint32_t atomicAdd(uint32_t *p, uint32_t x)
{
	uint32_t old = *p;
	*p += x;
	return old;
}

static inline uint32_t atomicMin(uint32_t *p, uint32_t x)
{
	uint32_t old = *p;
	*p = x < old ? x : old;
	return old;
}

static inline int __popc(unsigned x)
{
	return __builtin_popcount(x);
}

/* c plus the products of the bytes. */
static inline unsigned __dp4a(unsigned a, unsigned b, unsigned c)
{
	for (int i = 0; i < 32; i += 8)
		c += (a >> i & 255) * (b >> i & 255);
	return c;
}

static inline unsigned __float_as_uint(float x)
{
	unsigned bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}

static inline float __uint_as_float(unsigned bits)
{
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}

/* The tests are compiled with -ffp-contract=off, so that these round once each. */
static inline float __fmul_rn(float a, float b)
{
	return a * b;
}
static inline float __fdiv_rn(float a, float b)
{
	return a / b;
}
static inline float __fsqrt_rn(float a)
{
	return sqrtf(a);
}
static inline float rsqrtf(float x)
{
	return 1 / sqrtf(x);
}

/* ---- host side --------------------------------------------------------------------------------------------------------------- */

#define CUDART_VERSION 13000

enum cudaError_t {
	cudaSuccess = 0,
	cudaErrorInvalidValue = 1,
	cudaErrorMemoryAllocation = 2,
	cudaErrorInsufficientDriver = 35,
	cudaErrorECCUncorrectable = 214,
	cudaErrorNvlinkUncorrectable = 220,
	cudaErrorIllegalAddress = 700,
	cudaErrorLaunchTimeout = 702,
	cudaErrorAssert = 710,
	cudaErrorHardwareStackError = 714,
	cudaErrorIllegalInstruction = 715,
	cudaErrorMisalignedAddress = 716,
	cudaErrorInvalidAddressSpace = 717,
	cudaErrorInvalidPc = 718,
	cudaErrorLaunchFailure = 719,
	cudaErrorStreamCaptureUnsupported = 900,
	cudaErrorStreamCaptureInvalidated = 901,
	cudaErrorUnknown = 999
};
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDeviceToDevice = 3 };
typedef struct emulator_stream *cudaStream_t;
typedef struct emulator_event *cudaEvent_t;

struct cudaDeviceProp {
	char name[256];
	int major, minor, multiProcessorCount;
	size_t totalGlobalMem, sharedMemPerBlockOptin;
};

enum { cudaStreamNonBlocking = 1, cudaEventDisableTiming = 2 };
enum cudaStreamCaptureMode { cudaStreamCaptureModeGlobal, cudaStreamCaptureModeThreadLocal, cudaStreamCaptureModeRelaxed };

/* A graph is the list of what was issued while its stream was captured. What a device does not allow meanwhile makes it invalid. */
typedef struct emulator_graph *cudaGraph_t;
typedef struct emulator_graph *cudaGraphExec_t;

/* Queues `work`, or notes it where the stream is captured. */
cudaError_t emulator_issue(cudaStream_t, const std::function<void()> &work);
/* Records an error as the thread's last one; gives it back. */
cudaError_t emulator_fail(cudaError_t);
size_t emulator_shared_limit();  /* bytes of shared memory that a block may ask for */
bool emulator_asked_to_refuse(); /* whether this launch is to be refused; see faults.h */
/* What is forbidden while a stream is captured calls this first; false where one is. */
bool emulator_allowed();

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *, unsigned);
cudaError_t cudaStreamDestroy(cudaStream_t);
cudaError_t cudaStreamSynchronize(cudaStream_t);
cudaError_t cudaStreamBeginCapture(cudaStream_t, cudaStreamCaptureMode);
cudaError_t cudaStreamEndCapture(cudaStream_t, cudaGraph_t *);
cudaError_t cudaGraphInstantiate(cudaGraphExec_t *, cudaGraph_t, unsigned long long);
cudaError_t cudaGraphLaunch(cudaGraphExec_t, cudaStream_t);
cudaError_t cudaGraphDestroy(cudaGraph_t);
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t);

cudaError_t cudaMalloc(void **, size_t);
cudaError_t cudaFree(void *);
cudaError_t cudaMemGetInfo(size_t *, size_t *);
cudaError_t cudaMallocHost(void **, size_t);
cudaError_t cudaFreeHost(void *);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp *, int);
const char *cudaGetErrorString(cudaError_t);
const char *cudaGetErrorName(cudaError_t);

cudaError_t cudaGetDeviceCount(int *);
static inline cudaError_t cudaSetDevice(int)
{
	return cudaSuccess;
}
cudaError_t cudaGetLastError();
static inline cudaError_t cudaDriverGetVersion(int *ret)
{
	*ret = 13000;
	return cudaSuccess;
}
static inline cudaError_t cudaDeviceGetPCIBusId(char *ret, int size, int)
{
	strncpy(ret, "0000:00:00.0", (size_t)size);
	return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t *, unsigned);
cudaError_t cudaEventDestroy(cudaEvent_t);
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t);
cudaError_t cudaEventSynchronize(cudaEvent_t);
cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t, unsigned);
static inline cudaError_t cudaMemcpyAsync(void *to, const void *from, size_t bytes, cudaMemcpyKind, cudaStream_t stream)
{
	return emulator_issue(stream, [=] { memcpy(to, from, bytes); });
}
static inline cudaError_t cudaMemsetAsync(void *to, int byte, size_t bytes, cudaStream_t stream)
{
	return emulator_issue(stream, [=] { memset(to, byte, bytes); });
}
static inline cudaError_t cudaMemset2DAsync(void *to, size_t pitch, int byte, size_t width, size_t rows, cudaStream_t stream)
{
	return emulator_issue(stream, [=] {
		for (size_t row = 0; row < rows; row++)
			memset((char *)to + row * pitch, byte, width);
	});
}

#endif
