/* What benches vary, and nothing else may: results differ in their last bits. */
#ifndef BESAD_CUDA_TUNING_H
#define BESAD_CUDA_TUNING_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct backend;

/* Matmuls take the library's choice number `choice` of those that would do, 0 the first; where there are fewer, the plain
 * kernel. */
void cuda_tune_choice(struct backend *, int choice);
/* Whether the library had that choice for every shape multiplied since. */
bool cuda_tune_found(struct backend *);
/* Bytes of a panel of binned_gradient's fp32 gradient, at most. */
void cuda_tune_panel(struct backend *, int64_t bytes);
/* The stream of the backend's operations, a cudaStream_t: for another library's in their turn. */
void *cuda_tune_stream(struct backend *);

#ifdef __cplusplus
}
#endif

#endif
