/* Dry backends: they compute nothing and hold no memory, but count what their device would hold. struct backend_ops.dry makes
 * one; the operations of a backend that takes part allocate as ever and return before they would look at a tensor's data. What
 * is downloaded is zero. Addresses are handed out that no memory can have: who reads or writes there is stopped by the
 * processor. */
#ifndef BESAD_ENGINE_DRY_H
#define BESAD_ENGINE_DRY_H

#include "engine/compute/backend.h"

struct dry_part {
	uintptr_t address;
	size_t bytes;
	bool host;
};

/* What a dry backend owns: struct backend.dry points at it. */
struct dry {
	uintptr_t next;
	size_t capacity;  /* bytes of the device */
	size_t now, most; /* bytes of host memory, what dry_host tells of included: at this time, and at most at once */
	struct dry_part *parts;
	size_t n, room;
};

/* An address of `bytes`, aligned to 4096, that nothing may look at; NULL where the host has no memory to note it. `host`: it
 * stands for host memory, as all of a device whose memory is the host's does. */
void *dry_take(struct dry *, size_t bytes, bool host);

/* Takes it back; its bytes. */
size_t dry_give(struct dry *, const void *address);

/* The caller has got `bytes` of memory from the host that are none of the backend's, or, where negative, has given them back:
 * they count towards `now`. Does nothing for a backend that computes. */
void dry_host(struct backend *, int64_t bytes);

void dry_free(struct dry *);

/* Sets the operations that move data and wait: nothing is moved, and host memory is handed out as the device's is. */
void dry_operations(struct backend_ops *);

#endif
