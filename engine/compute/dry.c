#include "engine/compute/dry.h"

#include <stdlib.h>
#include <string.h>

/* x86-64 and arm64 have no such addresses; a sum or two away from one is none either. */
static const uintptr_t FIRST = (uintptr_t)1 << 60;

static void count(struct dry *dry, size_t bytes)
{
	dry->now += bytes;
	if (dry->now > dry->most) dry->most = dry->now;
}

void *dry_take(struct dry *dry, size_t bytes, bool host)
{
	if (dry->n == dry->room) {
		size_t room = 2 * dry->room + 64;
		struct dry_part *grown = realloc(dry->parts, room * sizeof *grown);
		if (!grown) return NULL;
		dry->parts = grown;
		dry->room = room;
	}
	uintptr_t address = FIRST + dry->next;
	dry->next += (bytes + 8191) / 4096 * 4096;
	dry->parts[dry->n++] = (struct dry_part){address, bytes, host};
	if (host) count(dry, bytes);
	return (void *)address;
}

size_t dry_give(struct dry *dry, const void *address)
{
	for (size_t i = dry->n; i-- > 0;) { /* what came last goes first as a rule */
		struct dry_part part = dry->parts[i];
		if (part.address != (uintptr_t)address) continue;
		dry->parts[i] = dry->parts[--dry->n];
		if (part.host) dry->now -= part.bytes;
		return part.bytes;
	}
	return 0;
}

void dry_host(struct backend *backend, int64_t bytes)
{
	if (!backend->dry) return;
	if (bytes >= 0)
		count(backend->dry, (size_t)bytes);
	else
		backend->dry->now -= (size_t)-bytes;
}

void dry_free(struct dry *dry)
{
	if (!dry) return;
	free(dry->parts);
	free(dry);
}

static enum status upload(struct backend *backend, void *device, const void *host, size_t bytes)
{
	(void)backend;
	(void)device;
	(void)host;
	(void)bytes;
	return STATUS_OK;
}

static enum status download(struct backend *backend, void *host, const void *device, size_t bytes)
{
	(void)backend;
	(void)device;
	if (bytes && (uintptr_t)host < FIRST) memset(host, 0, bytes);
	return STATUS_OK;
}

static enum status side_upload(struct backend *backend, void *device, const void *host, size_t bytes, struct error *err)
{
	(void)err;
	return upload(backend, device, host, bytes);
}

static enum status side_download(struct backend *backend, void *host, const void *device, size_t bytes, struct error *err)
{
	(void)err;
	return download(backend, host, device, bytes);
}

static enum status alloc_host(struct backend *backend, size_t bytes, void **ret)
{
	void *memory = dry_take(backend->dry, bytes, true);
	if (!memory) return error_set(&backend->error, STATUS_NO_MEMORY, "alloc_host: no memory to note %zu bytes", bytes);
	memory_add(&backend->host, bytes);
	*ret = memory;
	return STATUS_OK;
}

static void release_host(struct backend *backend, void *memory)
{
	if (memory) backend->host.now -= dry_give(backend->dry, memory);
}

static enum status zero(struct backend *backend, void *device, size_t bytes)
{
	(void)backend;
	(void)device;
	(void)bytes;
	return STATUS_OK;
}

static enum status sync(struct backend *backend)
{
	(void)backend;
	return STATUS_OK;
}

void dry_operations(struct backend_ops *ops)
{
	ops->upload = upload;
	ops->download = download;
	ops->side_upload = side_upload;
	ops->side_download = side_download;
	ops->alloc_host = alloc_host;
	ops->release_host = release_host;
	if (ops->fetch) ops->fetch = upload;
	if (ops->fetched) ops->fetched = sync;
	ops->copy = upload;
	ops->zero = zero;
	ops->sync = sync;
}
