/* The emulator's threads and its memory; see cuda_runtime.h beside this. */
#include <platform.cuh>

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <unordered_map>

namespace
{

constexpr size_t STACK = 128 * 1024;
enum { MAX_THREADS = 1024 };

struct barrier {
	int arrived = 0, members = 0;
	unsigned generation = 0;
};

struct fiber {
	emulator_thread self;
	ucontext_t start;
	jmp_buf at;
	bool started, done;
	const barrier *waits; /* blocked until the generation moves past `seen` */
	unsigned seen;
	int parity; /* of the warp's exchange slots */
	std::vector<std::vector<emulator_copy>> copies;
};

struct warp_state {
	barrier all;
	emulator_word slots[2][32];
};

fiber fibers[MAX_THREADS];
warp_state warps[MAX_THREADS / 32];
barrier block_barrier;
char *stacks;
ucontext_t scheduler_start;
jmp_buf scheduler;
fiber *current;
const std::function<void()> *running;
std::vector<unsigned char> shared_bytes;
std::unordered_map<void *, size_t> allocations; /* of the mapping, guard page included */

[[noreturn]] void die(const char *why)
{
	fprintf(stderr, "emulator: %s\n", why);
	abort();
}

void yield()
{
	if (!_setjmp(current->at)) _longjmp(scheduler, 1);
}

void leave(barrier *b) /* a thread that ends counts no more */
{
	b->members--;
	if (b->members > 0 && b->arrived == b->members) {
		b->arrived = 0;
		b->generation++;
	}
}

void wait(barrier *b)
{
	if (++b->arrived == b->members) {
		b->arrived = 0;
		b->generation++;
		return;
	}
	current->waits = b;
	current->seen = b->generation;
	yield();
	current->waits = nullptr;
}

void enter()
{
	(*running)();
	current->done = true;
	leave(&warps[current->self.warp].all);
	leave(&block_barrier);
	_longjmp(scheduler, 1);
}

void run(fiber *f)
{
	current = f;
	emulator_self = &f->self;
	if (_setjmp(scheduler)) return;
	if (f->started) _longjmp(f->at, 1);
	f->started = true;
	getcontext(&f->start);
	f->start.uc_stack.ss_sp = stacks + (size_t)(f - fibers) * STACK;
	f->start.uc_stack.ss_size = STACK;
	f->start.uc_link = nullptr;
	makecontext(&f->start, enter, 0);
	swapcontext(&scheduler_start, &f->start);
}

void run_block(dim3 block, dim3 at, dim3 grid)
{
	static const char *order = getenv("EMULATOR_ORDER");
	static unsigned random = 1;
	int n = (int)(block.x * block.y * block.z), left = n;
	block_barrier = {0, n, 0};
	for (int w = 0; w < (n + 31) / 32; w++)
		warps[w].all = {0, n - 32 * w < 32 ? n - 32 * w : 32, 0};
	for (int i = 0; i < n; i++) {
		fiber *f = &fibers[i];
		f->self.thread = dim3((unsigned)i % block.x, (unsigned)i / block.x % block.y, (unsigned)i / block.x / block.y);
		f->self.block = at;
		f->self.block_size = block;
		f->self.grid = grid;
		f->self.lane = i % 32;
		f->self.warp = i / 32;
		f->started = f->done = false;
		f->waits = nullptr;
		f->parity = 0;
		f->copies.assign(1, {});
	}
	memset(shared_bytes.data(), 0xff, shared_bytes.size());
	while (left > 0) {
		bool moved = false;
		int first = 0;
		if (order && !strcmp(order, "shuffle")) {
			random = random * 1664525 + 1013904223;
			first = (int)(random >> 8) % n;
		}
		for (int step = 0; step < n; step++) {
			int i = order && !strcmp(order, "reverse") ? n - 1 - step : (step + first) % n;
			fiber *f = &fibers[i];
			if (f->done || (f->waits && f->waits->generation == f->seen)) continue;
			run(f);
			moved = true;
			left -= f->done;
		}
		if (!moved) die("threads wait at different barriers");
	}
}

} // namespace

emulator_thread *emulator_self;

void emulator_launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &kernel)
{
	if (!stacks) {
		stacks = (char *)mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (stacks == MAP_FAILED) die("no memory for stacks");
	}
	running = &kernel;
	shared_bytes.resize(shared + 128);
	for (unsigned z = 0; z < grid.z; z++)
		for (unsigned y = 0; y < grid.y; y++)
			for (unsigned x = 0; x < grid.x; x++)
				run_block(block, dim3(x, y, z), grid);
}

void *emulator_shared()
{
	return (void *)(((uintptr_t)shared_bytes.data() + 127) / 128 * 128);
}

void emulator_block_barrier()
{
	wait(&block_barrier);
}

const emulator_word *emulator_exchange(const void *mine, size_t bytes)
{
	warp_state *w = &warps[current->self.warp];
	emulator_word *slots = w->slots[current->parity];
	current->parity ^= 1;
	memcpy(slots[current->self.lane].bytes, mine, bytes);
	wait(&w->all);
	return slots;
}

std::vector<std::vector<emulator_copy>> &emulator_copy_groups()
{
	return current->copies;
}

/* ---- streams and graphs ---------------------------------------------------------------------------------------------------------- */

struct emulator_stream {
	int unused;
};

struct emulator_graph {
	std::vector<std::function<void()>> work;
};

static cudaStream_t captured; /* by the thread that issues operations; a side stream never is */
static emulator_graph noted;
static bool invalid;

void emulator_issue(cudaStream_t stream, const std::function<void()> &work)
{
	if (captured && stream == captured)
		noted.work.push_back(work);
	else
		work();
}

bool emulator_allowed()
{
	if (captured) invalid = true;
	return !captured;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret, unsigned)
{
	*ret = new emulator_stream();
	return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	delete stream;
	return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	if (!captured || stream != captured) return cudaSuccess;
	invalid = true;
	return cudaErrorStreamCaptureUnsupported;
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
	if (captured) return cudaErrorStreamCaptureUnsupported;
	captured = stream;
	noted.work.clear();
	invalid = false;
	return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret)
{
	if (captured != stream) die("cudaStreamEndCapture of a stream that is not captured");
	captured = nullptr;
	*ret = invalid ? nullptr : new emulator_graph(noted);
	return invalid ? cudaErrorStreamCaptureInvalidated : cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ret, cudaGraph_t graph, unsigned long long)
{
	*ret = new emulator_graph(*graph);
	return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
	for (const auto &work : graph->work)
		emulator_issue(stream, work);
	return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
	delete graph;
	return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
	delete graph;
	return cudaSuccess;
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------- */

static size_t memory_used;
static const size_t MEMORY_TOTAL = (size_t)4 << 30;

cudaError_t cudaMalloc(void **ret, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
	if (!emulator_allowed()) return cudaErrorStreamCaptureUnsupported;
	if (memory_used + bytes > MEMORY_TOTAL) return cudaErrorMemoryAllocation;
	char *p = (char *)mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) return cudaErrorMemoryAllocation;
	memset(p, 0xff, whole);
	mprotect(p + whole, page, PROT_NONE);
	*ret = p + (whole - bytes) / 256 * 256; /* ends at the guard page, but for alignment */
	allocations[*ret] = bytes;
	memory_used += bytes;
	return cudaSuccess;
}

cudaError_t cudaFree(void *p)
{
	if (!p) return cudaSuccess;
	if (!emulator_allowed()) return cudaErrorStreamCaptureUnsupported;
	auto found = allocations.find(p);
	if (found == allocations.end()) die("cudaFree of a pointer that was not allocated");
	size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (found->second + page - 1) / page * page;
	munmap((char *)p - (whole - found->second) / 256 * 256, whole + page);
	memory_used -= found->second;
	allocations.erase(found);
	return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
	*ret_free = MEMORY_TOTAL - memory_used;
	*ret_total = MEMORY_TOTAL;
	return cudaSuccess;
}

cudaError_t cudaMallocHost(void **ret, size_t bytes)
{
	*ret = malloc(bytes);
	return *ret ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFreeHost(void *p)
{
	free(p);
	return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *ret, int)
{
	memset(ret, 0, sizeof *ret);
	snprintf(ret->name, sizeof ret->name, "emulator");
	ret->major = 9;
	ret->multiProcessorCount = 4;
	ret->totalGlobalMem = MEMORY_TOTAL;
	return cudaSuccess;
}

const char *cudaGetErrorString(cudaError_t error)
{
	return error == cudaSuccess ? "no error" : error == cudaErrorMemoryAllocation ? "out of memory" : "invalid argument";
}

const char *cudaGetErrorName(cudaError_t error)
{
	return error == cudaSuccess                 ? "cudaSuccess"
	       : error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
						    : "cudaErrorInvalidValue";
}
