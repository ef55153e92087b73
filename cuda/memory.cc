/* What callers and operations have is counted by what they asked for, in grains: a part that is handed out again may be up to an
 * eighth larger, and how much larger depends on what was there before.
 *
 * Device memory is kept when released and handed out again: cudaMalloc and cudaFree wait for the device, and a learning step
 * asks for the same sizes over and over. Operations are issued on one stream, so an operation's own memory may be reused as soon
 * as it is released: what still uses it comes earlier on the stream. What the caller releases is waited for: other streams
 * transfer too.
 *
 * Uploads and downloads go through two pinned buffers: one is filled or emptied by the processor while the other is on the bus.
 * Memory of alloc_host is pinned itself, and needs none. */
#include "cuda/memory.h"

#include <algorithm>
#include <atomic>
#include <map>
#include <new>
#include <stdlib.h>
#include <string.h>
#include <unordered_map>
#include <vector>

namespace
{

constexpr size_t GRAIN = 512, PAGE = (size_t)2 << 20; /* the device gives what is larger than half a page in whole ones */
constexpr size_t SLOT = (size_t)16 << 20;
constexpr size_t LARGE = (size_t)1 << 20; /* smaller allocations do not ask the device what is free */
enum { SLOTS = 2 };

} // namespace

/* What is handed out: how large it is, and what was asked for. */
struct cuda_part {
	size_t size, asked;
	void *data;
};

struct cuda_allocator {
	size_t limit, used = 0;       /* bytes: what it may hold, and what is handed out */
	std::atomic<size_t> held = 0; /* of the device; other threads may read it */
	std::unordered_map<void *, cuda_part> live;
	std::multimap<size_t, void *> idle;
	bool recording = false;
	std::map<void *, size_t> recorded; /* handed out since the recording began, and the most that was asked for of it */
};

struct cuda_scratch {
	std::vector<cuda_part> parts;
};

/* What alloc_host gave out, by address. */
struct cuda_host_memory {
	struct part {
		size_t bytes;
		bool pinned;
	};
	std::map<char *, part> parts;
};

/* Pinned buffers and the stream that their copies are issued on. */
struct cuda_staging {
	cudaStream_t stream;
	char *slot[SLOTS];
	cudaEvent_t done[SLOTS]; /* the slot's last copy */
	int next;
};

/* ---- transfers --------------------------------------------------------------------------------------------------------------- */

#define CALL(call)                                                                                                                 \
	do {                                                                                                                       \
		cudaError_t call_error_ = (call);                                                                                  \
		if (call_error_ != cudaSuccess) return call_error_;                                                                \
	} while (0)

static cudaError_t staging_create(cuda_staging *s, cudaStream_t stream)
{
	s->stream = stream;
	for (int i = 0; i < SLOTS; i++) {
		CALL(cudaMallocHost((void **)&s->slot[i], SLOT));
		CALL(cudaEventCreateWithFlags(&s->done[i], cudaEventDisableTiming));
	}
	return cudaSuccess;
}

static void staging_destroy(cuda_staging *s)
{
	for (int i = 0; s && i < SLOTS; i++) {
		if (s->done[i]) (void)cudaEventDestroy(s->done[i]);
		if (s->slot[i]) (void)cudaFreeHost(s->slot[i]);
	}
	delete s;
}

/* Waits for the next slot's last copy; *ret is its index. */
static cudaError_t take_slot(cuda_staging *s, int *ret)
{
	*ret = s->next;
	s->next = (s->next + 1) % SLOTS;
	return cudaEventSynchronize(s->done[*ret]);
}

static cudaError_t send(cuda_staging *s, void *device, const void *host, size_t bytes)
{
	for (size_t at = 0; at < bytes; at += SLOT) {
		size_t part = std::min(SLOT, bytes - at);
		int i;
		CALL(take_slot(s, &i));
		memcpy(s->slot[i], (const char *)host + at, part);
		CALL(cudaMemcpyAsync((char *)device + at, s->slot[i], part, cudaMemcpyHostToDevice, s->stream));
		CALL(cudaEventRecord(s->done[i], s->stream));
	}
	return cudaSuccess;
}

/* Done when it returns. */
static cudaError_t receive(cuda_staging *s, void *host, const void *device, size_t bytes)
{
	int previous = -1;
	size_t previous_at = 0;
	for (size_t at = 0; at < bytes; at += SLOT) {
		size_t part = std::min(SLOT, bytes - at);
		int i;
		CALL(take_slot(s, &i));
		CALL(cudaMemcpyAsync(s->slot[i], (const char *)device + at, part, cudaMemcpyDeviceToHost, s->stream));
		CALL(cudaEventRecord(s->done[i], s->stream));
		if (previous >= 0) {
			CALL(cudaEventSynchronize(s->done[previous]));
			memcpy((char *)host + previous_at, s->slot[previous], SLOT);
		}
		previous = i;
		previous_at = at;
	}
	CALL(cudaStreamSynchronize(s->stream));
	if (previous >= 0) memcpy((char *)host + previous_at, s->slot[previous], bytes - previous_at);
	return cudaSuccess;
}

static bool is_pinned(const struct cuda *c, const void *host, size_t bytes)
{
	const auto &parts = c->host_memory->parts;
	auto after = parts.upper_bound((char *)(uintptr_t)host);
	if (after == parts.begin()) return false;
	const auto &part = *--after;
	return part.second.pinned && (size_t)((const char *)host - part.first) + bytes <= part.second.bytes;
}

static enum status upload(struct backend *backend, void *device, const void *host, size_t bytes)
{
	struct cuda *c = cuda_begin(backend, "upload", {});
	if (is_pinned(c, host, bytes))
		CUDA_TRY(c, cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, c->stream));
	else
		CUDA_TRY(c, send(c->staging, device, host, bytes));
	return STATUS_OK;
}

enum status cuda_read(struct cuda *c, void *host, const void *device, size_t bytes)
{
	if (!is_pinned(c, host, bytes)) {
		CUDA_TRY(c, receive(c->staging, host, device, bytes));
		return STATUS_OK;
	}
	CUDA_TRY(c, cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, c->stream));
	CUDA_TRY(c, cudaStreamSynchronize(c->stream));
	return STATUS_OK;
}

/* Where the system does not let so much be pinned, it is memory like any other. */
static enum status alloc_host(struct backend *backend, size_t bytes, void **ret)
{
	struct cuda *c = cuda_begin(backend, "alloc_host", {});
	void *p = nullptr;
	bool pinned = cudaMallocHost(&p, std::max(bytes, (size_t)1)) == cudaSuccess;
	if (!pinned) {
		(void)cudaGetLastError();
		p = malloc(std::max(bytes, (size_t)1));
		if (!p) return cuda_refuse(c, STATUS_NO_MEMORY, "%zu bytes of host memory", bytes);
	}
	c->host_memory->parts[(char *)p] = {bytes, pinned};
	*ret = p;
	return STATUS_OK;
}

static void release_host(struct backend *backend, void *p)
{
	struct cuda *c = (struct cuda *)backend;
	auto found = c->host_memory->parts.find((char *)p);
	if (!p || found == c->host_memory->parts.end()) return;
	(void)cudaStreamSynchronize(c->stream);
	(void)cudaStreamSynchronize(c->copy_stream);
	if (found->second.pinned)
		(void)cudaFreeHost(p);
	else
		free(p);
	c->host_memory->parts.erase(found);
}

/* The copy waits for the operations so far, the operations after `fetched` for the copy. */
static enum status fetch(struct backend *backend, void *device, const void *host, size_t bytes)
{
	struct cuda *c = cuda_begin(backend, "fetch", {});
	if (!is_pinned(c, host, bytes)) return upload(backend, device, host, bytes);
	CUDA_TRY(c, cudaEventRecord(c->before_fetch, c->stream));
	CUDA_TRY(c, cudaStreamWaitEvent(c->copy_stream, c->before_fetch, 0));
	CUDA_TRY(c, cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, c->copy_stream));
	CUDA_TRY(c, cudaEventRecord(c->after_fetch, c->copy_stream));
	return STATUS_OK;
}

static enum status fetched(struct backend *backend)
{
	struct cuda *c = cuda_begin(backend, "fetched", {});
	CUDA_TRY(c, cudaStreamWaitEvent(c->stream, c->after_fetch, 0));
	return STATUS_OK;
}

static enum status download(struct backend *backend, void *host, const void *device, size_t bytes)
{
	return cuda_read(cuda_begin(backend, "download", {}), host, device, bytes);
}

/* Of another thread: nothing of `struct cuda` but its own staging may be touched. */
static enum status side_failed(struct error *err, const char *name, cudaError_t error, size_t bytes)
{
	cuda_note_error(error);
	return error_set(err, STATUS_BACKEND, "cuda %s of %zu bytes: %s (%s)", name, bytes, cudaGetErrorString(error),
			 cudaGetErrorName(error));
}

static enum status side_upload(struct backend *backend, void *device, const void *host, size_t bytes, struct error *err)
{
	cuda_staging *s = ((struct cuda *)backend)->side;
	cudaError_t error = send(s, device, host, bytes);
	if (error == cudaSuccess) error = cudaStreamSynchronize(s->stream);
	return error == cudaSuccess ? STATUS_OK : side_failed(err, "side_upload", error, bytes);
}

static enum status side_download(struct backend *backend, void *host, const void *device, size_t bytes, struct error *err)
{
	cudaError_t error = receive(((struct cuda *)backend)->side, host, device, bytes);
	return error == cudaSuccess ? STATUS_OK : side_failed(err, "side_download", error, bytes);
}

/* ---- allocation -------------------------------------------------------------------------------------------------------------- */

static cudaError_t device_malloc(struct cuda *c, void **ret, size_t bytes)
{
	if (!c->base.dry) return cudaMalloc(ret, bytes);
	*ret = dry_take(c->base.dry, bytes, false);
	return *ret ? cudaSuccess : cudaErrorMemoryAllocation;
}

static cudaError_t device_free(struct cuda *c, void *p)
{
	if (!c->base.dry) return cudaFree(p);
	(void)dry_give(c->base.dry, p);
	return cudaSuccess;
}

static cudaError_t device_memory(const struct cuda *c, size_t *ret_free, size_t *ret_total)
{
	if (!c->base.dry) return cudaMemGetInfo(ret_free, ret_total);
	*ret_total = c->base.dry->capacity;
	*ret_free = *ret_total - std::min(*ret_total, c->allocator->held.load());
	return cudaSuccess;
}

enum status cuda_memory_create(struct cuda *c, size_t limit)
{
	c->allocator = new (std::nothrow) cuda_allocator;
	c->host_memory = new (std::nothrow) cuda_host_memory;
	c->staging = new (std::nothrow) cuda_staging();
	c->side = new (std::nothrow) cuda_staging();
	if (!c->allocator || !c->host_memory || !c->staging || !c->side) return cuda_refuse(c, STATUS_NO_MEMORY, "no host memory");
	c->allocator->limit = limit;
	if (c->base.dry) return STATUS_OK;
	CUDA_TRY(c, cudaStreamCreateWithFlags(&c->side_stream, cudaStreamNonBlocking));
	CUDA_TRY(c, cudaStreamCreateWithFlags(&c->copy_stream, cudaStreamNonBlocking));
	CUDA_TRY(c, cudaEventCreateWithFlags(&c->before_fetch, cudaEventDisableTiming));
	CUDA_TRY(c, cudaEventCreateWithFlags(&c->after_fetch, cudaEventDisableTiming));
	CUDA_TRY(c, staging_create(c->staging, c->stream));
	CUDA_TRY(c, staging_create(c->side, c->side_stream));
	return STATUS_OK;
}

void cuda_memory_destroy(struct cuda *c)
{
	while (c->host_memory && !c->base.dry && !c->host_memory->parts.empty())
		release_host(&c->base, c->host_memory->parts.begin()->first);
	delete c->host_memory;
	staging_destroy(c->staging);
	staging_destroy(c->side);
	if (c->before_fetch) (void)cudaEventDestroy(c->before_fetch);
	if (c->after_fetch) (void)cudaEventDestroy(c->after_fetch);
	if (c->copy_stream) (void)cudaStreamDestroy(c->copy_stream);
	if (c->side_stream) (void)cudaStreamDestroy(c->side_stream);
	if (c->allocator) {
		for (auto &block : c->allocator->live)
			(void)device_free(c, block.first);
		for (auto &block : c->allocator->idle)
			(void)device_free(c, block.second);
	}
	delete c->allocator;
}

static enum status drop_idle(struct cuda *c)
{
	cuda_allocator *a = c->allocator;
	for (auto &block : a->idle) {
		a->held -= block.first;
		CUDA_TRY(c, device_free(c, block.second));
	}
	a->idle.clear();
	return STATUS_OK;
}

/* In front of those of its size: what came back last goes out first, so a recording holds on to as few as it can. */
static void put_idle(cuda_allocator *a, size_t size, void *p)
{
	a->idle.emplace_hint(a->idle.lower_bound(size), size, p);
}

static size_t rounded(size_t bytes)
{
	size_t grain = bytes > PAGE / 2 ? PAGE : GRAIN;
	return std::max((bytes + grain - 1) / grain * grain, grain);
}

/* Notes that a part is handed out. */
static void hand_out(struct cuda *c, const cuda_part &part)
{
	cuda_allocator *a = c->allocator;
	a->live[part.data] = part;
	a->used += part.size;
	memory_add(&c->base.memory, part.asked);
	if (!a->recording) return;
	size_t &most = a->recorded[part.data];
	most = std::max(most, part.asked);
}

/* A new part of the device's memory, or NULL. */
static enum status get_part(struct cuda *c, size_t size, void **ret)
{
	cuda_allocator *a = c->allocator;
	*ret = nullptr;
	cudaError_t error = device_malloc(c, ret, size);
	if (error == cudaErrorMemoryAllocation && !a->idle.empty()) {
		(void)cudaGetLastError();
		TRY(drop_idle(c));
		error = device_malloc(c, ret, size);
	}
	if (error == cudaErrorMemoryAllocation) {
		size_t free_bytes = 0, total = 0;
		(void)cudaGetLastError();
		(void)device_memory(c, &free_bytes, &total);
		return cuda_refuse(c, STATUS_NO_MEMORY, "%zu bytes of device memory: %zu in use by besad, %zu of %zu free", size,
				   a->used, free_bytes, total);
	}
	CUDA_TRY(c, error);
	a->held += size;
	return STATUS_OK;
}

enum status cuda_allocate(struct cuda *c, size_t bytes, void **ret)
{
	cuda_allocator *a = c->allocator;
	if (bytes > SIZE_MAX - PAGE) return cuda_refuse(c, STATUS_NO_MEMORY, "%zu bytes of device memory", bytes);
	size_t size = rounded(bytes);
	cuda_part part = {size, size, nullptr};
	auto found = a->idle.lower_bound(size);
	if (found != a->idle.end() && found->first <= size + size / 8) {
		part.size = found->first;
		part.data = found->second;
		a->idle.erase(found);
	} else if (a->recording) {
		return cuda_refuse(c, STATUS_UNSUPPORTED, "%zu bytes of device memory while operations are recorded", bytes);
	} else {
		if (a->limit && a->held + size > a->limit) TRY(drop_idle(c));
		if (a->limit && a->held + size > a->limit)
			return cuda_refuse(c, STATUS_NO_MEMORY, "%zu bytes of device memory: %zu of the limit of %zu are in use",
					   bytes, a->used, a->limit);
		TRY(get_part(c, size, &part.data));
	}
	hand_out(c, part);
	*ret = part.data;
	return STATUS_OK;
}

void cuda_release(struct cuda *c, void *p)
{
	cuda_allocator *a = c->allocator;
	if (!p) return;
	auto found = a->live.find(p);
	if (found == a->live.end()) return;
	a->used -= found->second.size;
	c->base.memory.now -= found->second.asked;
	put_idle(a, found->second.size, p);
	a->live.erase(found);
}

/* What callers may not have: room for the operations' own scratch, and for the code that the driver
 * brings to the device when it is first run, so that what was allocated can also be used. A caller that
 * takes memory until there is no more, as the engine does for hidden states, is refused in time. */
static size_t reserve(const struct cuda *c, size_t total)
{
	if (c->base.dry) return 0; /* who makes one leaves a margin, and operations' scratch is counted */
	return std::min((size_t)192 << 20, total / 32);
}

void cuda_scratch_begin(struct cuda *c)
{
	c->allocator->recording = true;
	c->allocator->recorded.clear();
}

enum status cuda_scratch_end(struct cuda *c, struct cuda_scratch **ret)
{
	cuda_allocator *a = c->allocator;
	a->recording = false;
	*ret = new (std::nothrow) cuda_scratch;
	if (!*ret) return cuda_refuse(c, STATUS_NO_MEMORY, "no host memory");
	for (auto block = a->idle.begin(); block != a->idle.end();) {
		auto here = block++;
		auto recorded = a->recorded.find(here->second);
		if (recorded == a->recorded.end()) continue;
		(*ret)->parts.push_back({here->first, recorded->second, here->second});
		a->used += here->first;
		memory_add(&c->base.memory, recorded->second);
		a->idle.erase(here);
	}
	a->recorded.clear();
	return STATUS_OK;
}

void cuda_scratch_release(struct cuda *c, struct cuda_scratch *scratch)
{
	if (!scratch) return;
	for (auto &part : scratch->parts) {
		c->allocator->used -= part.size;
		c->base.memory.now -= part.asked;
		put_idle(c->allocator, part.size, part.data);
	}
	delete scratch;
}

static enum status alloc(struct backend *backend, size_t bytes, void **ret)
{
	struct cuda *c = cuda_begin(backend, "alloc", {});
	size_t free_bytes, total;
	if (bytes >= LARGE) {
		TRY(backend->unchecked.memory(backend, &free_bytes, &total));
		c = cuda_begin(backend, "alloc", {});
		if (bytes > free_bytes || free_bytes - bytes < reserve(c, total))
			return cuda_refuse(c, STATUS_NO_MEMORY,
					   "%zu bytes of device memory: %zu of %zu free, %zu of them kept for operations", bytes,
					   free_bytes, total, std::min(free_bytes, reserve(c, total)));
	}
	return cuda_allocate(c, bytes, ret);
}

static void release(struct backend *backend, void *p)
{
	struct cuda *c = (struct cuda *)backend;
	/* A recording has run nothing that could be waited for, and a wait would end it. */
	if (p && !c->allocator->recording && !backend->dry) {
		(void)cudaStreamSynchronize(c->stream);
		(void)cudaStreamSynchronize(c->copy_stream);
	}
	cuda_release(c, p);
}

static enum status copy(struct backend *backend, void *to, const void *from, size_t bytes)
{
	struct cuda *c = cuda_begin(backend, "copy", {});
	if (bytes) CUDA_TRY(c, cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, c->stream));
	return STATUS_OK;
}

static enum status zero(struct backend *backend, void *device, size_t bytes)
{
	struct cuda *c = cuda_begin(backend, "zero", {});
	if (bytes) CUDA_TRY(c, cudaMemsetAsync(device, 0, bytes, c->stream));
	return STATUS_OK;
}

static enum status sync(struct backend *backend)
{
	struct cuda *c = cuda_begin(backend, "sync", {});
	CUDA_TRY(c, cudaStreamSynchronize(c->stream));
	return STATUS_OK;
}

static enum status memory(struct backend *backend, size_t *ret_free, size_t *ret_total)
{
	struct cuda *c = cuda_begin(backend, "memory", {});
	cuda_allocator *a = c->allocator;
	size_t free_bytes, total;
	CUDA_TRY(c, device_memory(c, &free_bytes, &total));
	free_bytes += a->held - a->used;
	if (a->limit) {
		total = std::min(total, a->limit);
		free_bytes = std::min(free_bytes, a->limit - a->used);
	}
	*ret_free = free_bytes;
	*ret_total = total;
	return STATUS_OK;
}

/* Of another thread: see side_failed. */
static enum status room(struct backend *backend, size_t *ret, struct error *err)
{
	const struct cuda *c = (const struct cuda *)backend;
	size_t free_bytes, total;
	cudaError_t error = device_memory(c, &free_bytes, &total);
	if (error != cudaSuccess) {
		cuda_note_error(error);
		return error_set(err, STATUS_BACKEND, "cuda room: %s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
	}
	*ret = free_bytes + c->allocator->held;
	if (c->allocator->limit) *ret = std::min(*ret, c->allocator->limit);
	return STATUS_OK;
}

void cuda_memory_operations(struct backend_ops *ops)
{
	ops->alloc = alloc;
	ops->release = release;
	ops->upload = upload;
	ops->download = download;
	ops->side_upload = side_upload;
	ops->side_download = side_download;
	ops->alloc_host = alloc_host;
	ops->fetch = fetch;
	ops->fetched = fetched;
	ops->release_host = release_host;
	ops->copy = copy;
	ops->zero = zero;
	ops->sync = sync;
	ops->memory = memory;
	ops->room = room;
}
