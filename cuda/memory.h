/* The backend's device memory and its path to the host. */
#ifndef BESAD_CUDA_MEMORY_H
#define BESAD_CUDA_MEMORY_H

#include "cuda/context.h"

/* `limit`: bytes it may hold at most, the unused ones it keeps included; 0 for no limit but the device's. */
enum status cuda_memory_create(struct cuda *c, size_t limit);
void cuda_memory_destroy(struct cuda *c);

/* cuda_download for an operation under way: an error names that. */
enum status cuda_read(struct cuda *c, void *host, const void *device, size_t bytes);

enum status cuda_alloc(struct backend *, size_t bytes, void **ret);
void cuda_free(struct backend *, void *);
enum status cuda_upload(struct backend *, void *device, const void *host, size_t bytes);
enum status cuda_download(struct backend *, void *host, const void *device, size_t bytes);
enum status cuda_side_upload(struct backend *, void *device, const void *host, size_t bytes, struct error *err);
enum status cuda_side_download(struct backend *, void *host, const void *device, size_t bytes, struct error *err);
/* Between these two no memory is got from the device, and what operations take for themselves is kept for the recording that *ret names; it is
 * theirs until cuda_scratch_release. */
struct cuda_scratch;
void cuda_scratch_begin(struct cuda *c);
enum status cuda_scratch_end(struct cuda *c, struct cuda_scratch **ret);
void cuda_scratch_release(struct cuda *c, struct cuda_scratch *);

enum status cuda_alloc_host(struct backend *, size_t bytes, void **ret);
enum status cuda_fetch(struct backend *, void *device, const void *host, size_t bytes);
enum status cuda_fetched(struct backend *);
void cuda_free_host(struct backend *, void *);
enum status cuda_copy(struct backend *, void *to, const void *from, size_t bytes);
enum status cuda_zero(struct backend *, void *device, size_t bytes);
enum status cuda_sync(struct backend *);
enum status cuda_memory(struct backend *, size_t *ret_free, size_t *ret_total);
enum status cuda_footprint(struct backend *, const struct workload *, struct footprint *ret); /* footprint.cc */

#endif
