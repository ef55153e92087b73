/* The emulator's threads and its memory; see cuda_runtime.h beside this. */
#include "tests/cuda/emulator/faults.h"

#include <platform.cuh>

#include <atomic>
#include <deque>
#include <mutex>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string>
#include <sys/mman.h>
#include <unistd.h>
#include <unordered_map>

namespace
{

/* Not a power of two: the stacks would meet in the same few lines of a cache. */
constexpr size_t STACK = 128 * 1024 + 5 * 64;
enum { MAX_THREADS = 1024 };

struct barrier {
	int arrived = 0, members = 0;
	unsigned generation = 0;
};

struct fiber {
	emulator_thread self;
	void *stack; /* where it goes on; nullptr: it has not begun, in this block or in one before */
	bool done;
	const barrier *waits; /* blocked until the generation moves past `seen` */
	unsigned seen;
	std::vector<std::vector<emulator_copy>> copies;
};

struct warp_state {
	barrier all;
	emulator_word slots[2][32];
	emulator_matrices matrices;
};

/* The block's threads take turns: in a round each goes on that can. */
struct turns {
	int threads, left; /* in all; not done */
	int step, first;   /* of the round */
	bool moved, reverse, shuffle;
};

fiber fibers[MAX_THREADS];
warp_state warps[MAX_THREADS / 32];
barrier block_barrier;
turns turn;
char *stacks;
void *scheduler; /* where run_block() goes on */
fiber *current;
const std::function<void()> *running;
std::vector<unsigned char> shared_bytes;
std::unordered_map<void *, size_t> allocations; /* of the mapping, guard page included */

[[noreturn]] void die(const char *why)
{
	fprintf(stderr, "emulator: %s\n", why);
	abort();
}

void begin_round()
{
	static unsigned random = 1;
	turn.step = turn.first = 0;
	turn.moved = false;
	if (turn.shuffle) {
		random = random * 1664525 + 1013904223;
		turn.first = (int)(random >> 8) % turn.threads;
	}
}

/* nullptr once all are done. */
fiber *next_ready()
{
	while (turn.left > 0) {
		while (turn.step < turn.threads) {
			int at = turn.step++ + turn.first, n = turn.threads;
			fiber *f = &fibers[turn.reverse ? n - 1 - at : at < n ? at : at - n];
			if (f->done || (f->waits && f->waits->generation == f->seen)) continue;
			turn.moved = true;
			return f;
		}
		if (!turn.moved) die("threads wait at different barriers");
		begin_round();
	}
	return nullptr;
}

} // namespace

/* From one stack to another: what a function must keep lies on it, and the address to go on at below that. A longjmp would do as
 * well, and take most of the time of a kernel, whose threads switch at each warp operation. */
extern "C" void emulator_switch(void **ret_from, void *to);
asm(R"(
	.text
	.type emulator_switch, @function
emulator_switch:
	pushq %rbp
	pushq %rbx
	pushq %r12
	pushq %r13
	pushq %r14
	pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15
	popq %r14
	popq %r13
	popq %r12
	popq %rbx
	popq %rbp
	popq %rdx
	jmp *%rdx
	.size emulator_switch, . - emulator_switch
)");

namespace
{

void enter();

void *fresh_stack(const fiber *f)
{
	enum { KEPT = 6 }; /* registers */
	void **top = (void **)(((uintptr_t)stacks + (size_t)(f - fibers + 1) * STACK) / 16 * 16);
	*--top = nullptr; /* enter() returns to nobody */
	*--top = (void *)enter;
	for (int i = 0; i < KEPT; i++)
		*--top = nullptr;
	return top;
}

/* The current thread, if there is one, waits or is done: another goes on, or run_block(). */
void go_on(void **ret_from)
{
	fiber *to = current = next_ready();
	if (to) {
		emulator_self = &to->self;
		if (!to->stack) to->stack = fresh_stack(to);
	}
	emulator_switch(ret_from, to ? to->stack : scheduler);
}

void leave(barrier *b) /* a thread that ends counts no more */
{
	b->members--;
	if (b->members > 0 && b->arrived == b->members) {
		b->arrived = 0;
		b->generation++;
	}
}

/* The last one to arrive does `work` before all go on. */
template <typename F> void wait(barrier *b, F work)
{
	fiber *self = current;
	if (++b->arrived == b->members) {
		work();
		b->arrived = 0;
		b->generation++;
		return;
	}
	self->waits = b;
	self->seen = b->generation;
	go_on(&self->stack);
	self->waits = nullptr;
}

/* A thread of one block after the other: it keeps its stack. */
void enter()
{
	for (;;) {
		fiber *self = current;
		(*running)();
		self->done = true;
		turn.left--;
		leave(&warps[self->self.warp].all);
		leave(&block_barrier);
		go_on(&self->stack);
	}
}

void run_block(dim3 block, dim3 at, dim3 grid)
{
	static const char *order = getenv("EMULATOR_ORDER");
	int n = (int)(block.x * block.y * block.z);
	turn = {n, n, 0, 0, false, order && !strcmp(order, "reverse"), order && !strcmp(order, "shuffle")};
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
		f->self.slots = warps[i / 32].slots[0];
		f->self.other_slots = warps[i / 32].slots[1];
		f->self.matrices = &warps[i / 32].matrices;
		f->done = false;
		f->waits = nullptr;
		if (f->copies.size() != 1 || !f->copies[0].empty()) f->copies.assign(1, {});
	}
	memset(shared_bytes.data(), 0xff, shared_bytes.size());
	begin_round();
	go_on(&scheduler);
}

} // namespace

emulator_thread *emulator_self;

/* ---- errors ------------------------------------------------------------------------------------------------------------------ */

struct emulator_faults emulator_faults = {0, 0, false, true, false, 0};

static std::atomic<cudaError_t> stays; /* an error after which every call fails */
static thread_local cudaError_t last;
static sigjmp_buf kernel_fault;
static pthread_t kernel_thread;
static volatile sig_atomic_t in_kernel;

cudaError_t emulator_fail(cudaError_t error)
{
	return last = error;
}

static cudaError_t answer()
{
	cudaError_t error = stays;
	return error == cudaSuccess ? cudaSuccess : emulator_fail(error);
}

cudaError_t cudaGetLastError()
{
	cudaError_t error = stays != cudaSuccess ? stays.load() : last;
	last = cudaSuccess;
	return error;
}

void emulator_heal(void)
{
	stays = last = cudaSuccess;
}

void emulator_leave_error(void)
{
	last = cudaErrorInvalidValue;
}

size_t emulator_shared_limit()
{
	static const char *given = getenv("EMULATOR_SHARED");
	return emulator_faults.shared_memory ? emulator_faults.shared_memory : given ? strtoul(given, nullptr, 10) : 227 * 1024;
}

static void on_fault(int number)
{
	if (in_kernel && pthread_equal(pthread_self(), kernel_thread)) siglongjmp(kernel_fault, 1);
	signal(number, SIG_DFL); /* and the access is tried again */
}

/* A file that asks for a fault is there for one launch. */
static bool asked_to_fail()
{
	static const char *file = getenv("EMULATOR_FAULT");
	return file && unlink(file) == 0;
}

bool emulator_asked_to_refuse()
{
	static const char *file = getenv("EMULATOR_REFUSE");
	return file && unlink(file) == 0;
}

cudaError_t cudaGetDeviceCount(int *ret)
{
	static const char *gone = getenv("EMULATOR_GONE");
	*ret = gone && access(gone, F_OK) == 0 ? 0 : 1;
	return answer();
}

static void launch(dim3 grid, dim3 block)
{
	static struct sigaction before;
	struct sigaction handler = {};
	handler.sa_handler = on_fault;
	handler.sa_flags = SA_NODEFER;
	sigaction(SIGSEGV, &handler, &before);
	kernel_thread = pthread_self();
	if (sigsetjmp(kernel_fault, 1) || asked_to_fail()) {
		stays = cudaErrorIllegalAddress;
		for (fiber &f : fibers) /* they are where the fault left them */
			f.stack = nullptr;
	} else {
		in_kernel = 1;
		for (unsigned z = 0; z < grid.z; z++)
			for (unsigned y = 0; y < grid.y; y++)
				for (unsigned x = 0; x < grid.x; x++)
					run_block(block, dim3(x, y, z), grid);
	}
	in_kernel = 0;
	sigaction(SIGSEGV, &before, nullptr);
}

void emulator_launch(dim3 grid, dim3 block, size_t shared, const std::function<void()> &kernel)
{
	if (!stacks) {
		stacks = (char *)mmap(nullptr, STACK * MAX_THREADS, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (stacks == MAP_FAILED) die("no memory for stacks");
	}
	running = &kernel;
	shared_bytes.resize(shared + 128);
	launch(grid, block);
}

void *emulator_shared()
{
	return (void *)(((uintptr_t)shared_bytes.data() + 127) / 128 * 128);
}

void emulator_block_barrier()
{
	wait(&block_barrier, [] {});
}

void emulator_meet()
{
	wait(&warps[current->self.warp].all, [] {});
}

void emulator_meet(void (*work)(emulator_matrices *))
{
	warp_state *warp = &warps[current->self.warp];
	wait(&warp->all, [=] { work(&warp->matrices); });
}

std::vector<std::vector<emulator_copy>> &emulator_copy_groups()
{
	return current->copies;
}

/* ---- streams and graphs ------------------------------------------------------------------------------------------------------ */

struct emulator_stream {
	std::recursive_mutex lock; /* of what follows; held while work is done */
	std::deque<std::function<void()>> work;
	uint64_t issued = 0, done = 0;
	bool first = false; /* of those there are */
};

struct emulator_event {
	cudaStream_t stream = nullptr; /* nullptr: not recorded yet */
	uint64_t mark = 0;
};

struct emulator_graph {
	std::vector<std::function<void()>> work;
};

static cudaStream_t captured; /* by the thread that issues operations; a side stream never is */
static emulator_graph noted;
static bool invalid;
static std::mutex streams_lock;
static std::vector<cudaStream_t> streams;

/* Does what was issued up to `mark`; after an error that stays, nothing. */
static void drain(cudaStream_t s, uint64_t mark)
{
	std::lock_guard<std::recursive_mutex> hold(s->lock);
	while (s->done < mark && !s->work.empty()) {
		std::function<void()> next = std::move(s->work.front());
		s->work.pop_front();
		s->done++;
		if (stays == cudaSuccess) next();
	}
}

static void drain_all()
{
	std::lock_guard<std::mutex> hold(streams_lock);
	for (cudaStream_t s : streams)
		drain(s, UINT64_MAX);
}

cudaError_t emulator_issue(cudaStream_t stream, const std::function<void()> &work)
{
	if (stays != cudaSuccess) return answer();
	if (captured && stream == captured) {
		noted.work.push_back(work);
		return cudaSuccess;
	}
	std::lock_guard<std::recursive_mutex> hold(stream->lock);
	stream->work.push_back(work);
	stream->issued++;
	if (emulator_faults.side_streams_hurry && !stream->first) drain(stream, UINT64_MAX);
	return cudaSuccess;
}

static cudaError_t not_captured()
{
	invalid = true;
	return emulator_fail(cudaErrorStreamCaptureUnsupported);
}

bool emulator_allowed()
{
	if (captured) invalid = true;
	return !captured;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t *ret, unsigned)
{
	std::lock_guard<std::mutex> hold(streams_lock);
	*ret = new emulator_stream();
	(*ret)->first = streams.empty();
	streams.push_back(*ret);
	return answer();
}

cudaError_t cudaStreamDestroy(cudaStream_t stream)
{
	std::lock_guard<std::mutex> hold(streams_lock);
	drain(stream, UINT64_MAX);
	for (size_t i = 0; i < streams.size(); i++)
		if (streams[i] == stream) streams.erase(streams.begin() + (long)i);
	delete stream;
	return answer();
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream)
{
	if (captured && stream == captured) return not_captured();
	drain(stream, UINT64_MAX);
	return answer();
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t *ret, unsigned)
{
	*ret = new emulator_event();
	return answer();
}

cudaError_t cudaEventDestroy(cudaEvent_t event)
{
	delete event;
	return answer();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream)
{
	if (captured && stream == captured) return not_captured();
	std::lock_guard<std::recursive_mutex> hold(stream->lock);
	*event = {stream, stream->issued};
	return answer();
}

cudaError_t cudaEventSynchronize(cudaEvent_t event)
{
	if (event->stream) drain(event->stream, event->mark);
	return answer();
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned)
{
	emulator_event at = *event;
	if (captured && stream == captured) return not_captured();
	if (!at.stream) return answer();
	return emulator_issue(stream, [at] { drain(at.stream, at.mark); });
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode)
{
	if (captured) return emulator_fail(cudaErrorStreamCaptureUnsupported);
	captured = stream;
	noted.work.clear();
	invalid = false;
	return answer();
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t *ret)
{
	if (captured != stream) die("cudaStreamEndCapture of a stream that is not captured");
	captured = nullptr;
	*ret = invalid ? nullptr : new emulator_graph(noted);
	return invalid ? emulator_fail(cudaErrorStreamCaptureInvalidated) : answer();
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t *ret, cudaGraph_t graph, unsigned long long)
{
	*ret = new emulator_graph(*graph);
	return answer();
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream)
{
	for (const auto &work : graph->work)
		(void)emulator_issue(stream, work);
	return answer();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph)
{
	delete graph;
	return answer();
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph)
{
	delete graph;
	return answer();
}

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

static size_t memory_used;
static const size_t MEMORY_TOTAL = (size_t)4 << 30;

cudaError_t cudaMalloc(void **ret, size_t bytes)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (bytes + page - 1) / page * page;
	if (!emulator_allowed()) return emulator_fail(cudaErrorStreamCaptureUnsupported);
	if (stays != cudaSuccess) return answer();
	if (memory_used + bytes > MEMORY_TOTAL) return emulator_fail(cudaErrorMemoryAllocation);
	char *p = (char *)mmap(nullptr, whole + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED) return emulator_fail(cudaErrorMemoryAllocation);
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
	if (!emulator_allowed()) return emulator_fail(cudaErrorStreamCaptureUnsupported);
	drain_all();
	auto found = allocations.find(p);
	if (found == allocations.end()) die("cudaFree of a pointer that was not allocated");
	size_t page = (size_t)sysconf(_SC_PAGESIZE), whole = (found->second + page - 1) / page * page;
	munmap((char *)p - (whole - found->second) / 256 * 256, whole + page);
	memory_used -= found->second;
	allocations.erase(found);
	return answer();
}

cudaError_t cudaMemGetInfo(size_t *ret_free, size_t *ret_total)
{
	*ret_free = MEMORY_TOTAL - memory_used;
	*ret_total = MEMORY_TOTAL;
	return answer();
}

cudaError_t cudaMallocHost(void **ret, size_t bytes)
{
	*ret = malloc(bytes);
	return *ret ? answer() : emulator_fail(cudaErrorMemoryAllocation);
}

cudaError_t cudaFreeHost(void *p)
{
	drain_all();
	free(p);
	return answer();
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp *ret, int)
{
	memset(ret, 0, sizeof *ret);
	snprintf(ret->name, sizeof ret->name, "emulator");
	ret->major = 9;
	ret->multiProcessorCount = 4;
	ret->totalGlobalMem = MEMORY_TOTAL;
	ret->sharedMemPerBlockOptin = emulator_shared_limit();
	return answer();
}

const char *cudaGetErrorString(cudaError_t error)
{
	return error == cudaSuccess                 ? "no error"
	       : error == cudaErrorMemoryAllocation ? "out of memory"
	       : error == cudaErrorIllegalAddress   ? "an illegal memory access was encountered"
						    : "invalid argument";
}

const char *cudaGetErrorName(cudaError_t error)
{
	return error == cudaSuccess                 ? "cudaSuccess"
	       : error == cudaErrorMemoryAllocation ? "cudaErrorMemoryAllocation"
	       : error == cudaErrorIllegalAddress   ? "cudaErrorIllegalAddress"
						    : "cudaErrorInvalidValue";
}
