/* The backend's device memory and its path to the host. */
#ifndef BESAD_CUDA_MEMORY_H
#define BESAD_CUDA_MEMORY_H

#include "cuda/context.h"

/* `limit`: bytes it may hold at most, the unused ones it keeps included; 0 for no limit but the device's. */
enum status cuda_memory_create(struct cuda *c, size_t limit);
void cuda_memory_destroy(struct cuda *c);

/* The operation `download` for one under way: an error names that. */
enum status cuda_read(struct cuda *c, void *host, const void *device, size_t bytes);

/* Between these two no memory is got from the device, and what operations take for themselves is kept for the recording that
 * *ret names; it is theirs until cuda_scratch_release. */
struct cuda_scratch;
void cuda_scratch_begin(struct cuda *c);
enum status cuda_scratch_end(struct cuda *c, struct cuda_scratch **ret);
void cuda_scratch_release(struct cuda *c, struct cuda_scratch *);

#endif
