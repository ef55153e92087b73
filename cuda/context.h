/* The CUDA backend's own state and what its files share. Host side. */
#ifndef BESAD_CUDA_CONTEXT_H
#define BESAD_CUDA_CONTEXT_H

#include <cuda_runtime.h>
#include <initializer_list>

#include "cuda/index.h"

extern "C" {
#include "engine/compute/dry.h"
}

struct cuda_allocator;
struct cuda_staging;
struct cuda_host_memory;
struct cuda_matmuls;

/* The operation under way, for errors. */
struct cuda_call {
	const char *name;
	int tensors;
	struct tensor tensor[10];
};

struct cuda {
	struct backend base;
	cudaStream_t stream; /* every operation is issued here, so they run in order */
	int processors;
	size_t shared_memory; /* bytes that a block may have */
	int64_t panel_bytes;  /* of binned_gradient, at most */
	struct cuda_allocator *allocator;
	struct cuda_host_memory *host_memory;
	struct cuda_staging *staging, *side;   /* of the operations' stream, and of side_stream */
	cudaStream_t side_stream, copy_stream; /* the latter of `fetch` */
	cudaEvent_t before_fetch, after_fetch;
	struct cuda_matmuls *matmuls;
	struct cuda_call call;
};

/* Starts an operation: what an error message will name. */
static inline struct cuda *cuda_begin(struct backend *backend, const char *name, std::initializer_list<struct tensor> tensors)
{
	struct cuda *c = (struct cuda *)backend;
	c->call.name = name;
	c->call.tensors = 0;
	for (const struct tensor &t : tensors)
		c->call.tensor[c->call.tensors++] = t;
	return c;
}

/* Fills c->base.error with the operation, its sizes, the failing call and where it stands. */
enum status cuda_fail(struct cuda *c, cudaError_t error, const char *what, const char *file, int line);
/* Takes note of an error that stays, which loses the device to this process, and takes back one that does not. Any thread. */
void cuda_note_error(cudaError_t error);
enum status cuda_refuse(struct cuda *c, enum status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

#define CUDA_TRY(c, call)                                                                                                          \
	do {                                                                                                                       \
		cudaError_t cuda_error_ = (call);                                                                                  \
		if (cuda_error_ != cudaSuccess) return cuda_fail(c, cuda_error_, #call, __FILE__, __LINE__);                       \
	} while (0)

/* ---- memory ------------------------------------------------------------------------------------------------------------------ */

enum status cuda_allocate(struct cuda *c, size_t bytes, void **ret);
void cuda_release(struct cuda *c, void *);

/* Device memory for the length of an operation; what is queued may still use it when it goes: reuse follows on the same stream. */
struct scratch {
	struct cuda *c;
	void *data = nullptr;

	explicit scratch(struct cuda *owner) : c(owner)
	{
	}
	scratch(const scratch &) = delete;
	scratch &operator=(const scratch &) = delete;
	~scratch()
	{
		cuda_release(c, data);
	}
	enum status allocate(size_t bytes)
	{
		return cuda_allocate(c, bytes, &data);
	}
	template <typename T> T *as() const
	{
		return (T *)data;
	}
};

/* ---- shapes ------------------------------------------------------------------------------------------------------------------ */

static inline int64_t cuda_chunk_bytes(const struct tensor &t) /* of 8 elements, at most one 16-byte access */
{
	int64_t bytes = 8 * (int64_t)dtype_size(t.dtype);
	return bytes < 16 ? bytes : 16;
}

/* Whether each tensor can be read in aligned chunks of 8 elements. A tensor without data passes. */
static inline bool cuda_chunked(std::initializer_list<struct tensor> tensors)
{
	for (const struct tensor &t : tensors) {
		int64_t align = cuda_chunk_bytes(t);
		if (!t.data) continue;
		if (t.cols % 8 != 0 || (uintptr_t)t.data % (uintptr_t)align != 0) return false;
		if (t.rows > 1 && t.stride * (int64_t)dtype_size(t.dtype) % align != 0) return false;
	}
	return true;
}

/* ---- the operations ---------------------------------------------------------------------------------------------------------- */

/* What matmul.cu keeps. */
enum status cuda_matmuls_create(struct cuda *c);
void cuda_matmuls_destroy(struct cuda *c);

/* Each sets the operations of the file of that name. */
void cuda_activation_operations(struct backend_ops *);
void cuda_attention_backward_operations(struct backend_ops *);
void cuda_attention_forward_operations(struct backend_ops *);
void cuda_binned_gradient_operations(struct backend_ops *);
void cuda_compensate_operations(struct backend_ops *);
void cuda_elementwise_operations(struct backend_ops *);
void cuda_importance_operations(struct backend_ops *);
void cuda_logprobs_operations(struct backend_ops *);
void cuda_matmul_operations(struct backend_ops *);
void cuda_memory_operations(struct backend_ops *);
void cuda_norm_operations(struct backend_ops *);
void cuda_optimizer_operations(struct backend_ops *);
void cuda_quantize_operations(struct backend_ops *);
void cuda_rank_operations(struct backend_ops *);
void cuda_rates_operations(struct backend_ops *);
void cuda_reconstruction_operations(struct backend_ops *);
void cuda_recording_operations(struct backend_ops *);
void cuda_rope_operations(struct backend_ops *);
void cuda_route_operations(struct backend_ops *);
void cuda_sinks_operations(struct backend_ops *);
void cuda_solve_operations(struct backend_ops *);
void cuda_vector_gradient_operations(struct backend_ops *);

#endif
